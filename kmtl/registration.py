"""How classes of others come into kmtl's registry."""

from __future__ import annotations

from typing import Any

from kmtl import _registry


def register(
    cls: Any = None, /, name: str | None = None, *, kind: str | None = None
) -> Any:
    """Make a class of yours usable by name, as kmtl's own are. A decorator, or a call.

    For subclasses of `kmtl.Task`, `kmtl.inputs.Input`, `kmtl.backbones.Backbone`,
    `kmtl.sharing.Sharing`, `kmtl.weighting.LossWeighting` and `GradientWeighting`, and
    `kmtl.relations.Relations`. Their objects work without it; registered, the class has
    a name for `compile`, the builders and search spaces, and saved models that use it
    can be loaded wherever it has been registered.

    A package of yours does it for all its users by an entry point of the group
    `kmtl.plugins`, which names the class, a module that registers classes, or a
    function that does:

    ```toml
    [project.entry-points."kmtl.plugins"]
    my_rule = "my_package.rules:MyRule"
    ```

    Args:
        cls: The class; or its name, to decorate it with.
        name: An identifier. Defaults to the class's name in snake case.
        kind: `"task"`, `"input"`, `"backbone"`, `"sharing"`, `"weighting"` or
            `"relations"`. Defaults to what the base class says.

    Returns:
        The class, or a decorator.

    Raises:
        TypeError: for what is not a subclass of a base class of kmtl (of that kind).
        ValueError: for a name that another class has.

    Example:

    >>> from keras import ops
    >>> @kmtl.register
    ... class WorstTask(kmtl.weighting.LossWeighting):
    ...     def combine(self, losses, present, training=True):
    ...         losses, mask = self.prepare(losses, present)
    ...         worst = ops.cast(losses == ops.max(losses), losses.dtype) * mask
    ...         weights = ops.stop_gradient(worst / ops.maximum(ops.sum(worst), 1))
    ...         return ops.sum(weights * losses), weights
    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8,))
    >>> model.compile("adam", weighting="worst_task")
    """
    if isinstance(cls, str):
        cls, name = None, cls
    if cls is None:
        return lambda decorated: _registry.enter(decorated, name, kind)
    return _registry.enter(cls, name, kind)
