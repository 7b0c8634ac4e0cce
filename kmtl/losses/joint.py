"""Losses over the outputs of several heads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, Options, Tensor


def check_registered(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    """A function that is found by name where a saved model is loaded.

    Raises:
        ValueError: saying what to write.
    """
    name = getattr(function, "__name__", type(function).__name__)
    if keras.saving.get_registered_name(function) == name:
        raise ValueError(
            f"{what} must be registered, to be found when a saved model is loaded: put "
            '@keras.saving.register_keras_serializable("mine") on the line above '
            f"`def`. Received: {name}, which is not"
        )
    return function


def _flat(outputs: Tensor) -> Tensor:
    return ops.reshape(ops.cast(outputs, "float32"), (ops.shape(outputs)[0], -1))


def _pairs(outputs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(a, b) for i, a in enumerate(outputs) for b in outputs[i + 1 :]]


def consistency(*outputs: Tensor) -> Tensor:
    """Mean squared difference of outputs of one shape, the mean over the pairs."""
    shapes = {tuple(part.shape[1:]) for part in outputs}
    if len(shapes) > 1:
        raise ValueError(
            "Joint loss 'consistency' compares outputs of one shape. "
            f"Received: {' and '.join(map(str, sorted(shapes)))}"
        )
    found = [
        ops.mean(ops.square(_flat(a) - _flat(b)), axis=-1) for a, b in _pairs(outputs)
    ]
    return sum(found[1:], found[0]) / len(found)


def ordering(*outputs: Tensor) -> Tensor:
    """By how much outputs exceed those of the next head, which should be larger."""
    found = [
        ops.mean(ops.relu(_flat(a) - _flat(b)), axis=-1)
        for a, b in itertools.pairwise(outputs)
    ]
    return sum(found[1:], found[0])


def orthogonality(*outputs: Tensor) -> Tensor:
    """Squared cosine between the outputs of a row, the mean over the pairs."""
    found = []
    for a, b in _pairs([_flat(part) for part in outputs]):
        square = ops.square(ops.sum(a * b, axis=-1))
        sizes = ops.sum(a * a, axis=-1) * ops.sum(b * b, axis=-1)
        found.append(square / (sizes + 1e-12))
    return sum(found[1:], found[0]) / len(found)


JOINT: dict[str, Callable[..., Tensor]] = {
    "consistency": consistency,
    "ordering": ordering,
    "orthogonality": orthogonality,
}


@keras.saving.register_keras_serializable(package="kmtl")
class Joint:
    """A loss over the outputs of several heads, for `compile(joint_losses=...)`.

    It sees what a user reads: probabilities, and values in the labels' unit. It is
    added to the tasks' losses as a regulariser is: with its own weight, whatever a
    weighting makes of the tasks, and logged as `<name>_loss` without that weight.

    Args:
        tasks: Names of two tasks or more.
        loss: A function of their outputs, in this order, that gives one value per row,
            `(N,)`; or `"consistency"` (mean squared difference), `"ordering"` (by how
            much one exceeds the next) or `"orthogonality"` (squared cosine). Your own
            must be registered: `@keras.saving.register_keras_serializable("mine")`.
        weight: Its factor in the total loss, >= 0. Defaults to 1.
        where: `"labelled"` (default): the mean over the rows in which every label of
            all these tasks is there and has weight, 0 without any; `"everywhere"`: over
            all rows.
        name: Defaults to the loss's name and those of the tasks.

    Example:

    >>> tasks = [kmtl.Regression("low"), kmtl.Regression("high")]
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(4,), seed=0)
    >>> rule = kmtl.losses.Joint(["low", "high"], "ordering", weight=0.1)
    >>> model.compile("adam", joint_losses=rule)
    >>> y = {"low": np.zeros(4), "high": np.ones(4)}
    >>> sorted(model.fit(np.ones((4, 2)), y, verbose=0).history)[:3]
    ['high_loss', 'high_mae', 'loss']
    >>> rule.log
    'ordering_low_high_loss'
    """

    def __init__(
        self,
        tasks: Sequence[str],
        loss: str | Callable[..., Tensor],
        *,
        weight: float = 1.0,
        where: str = "labelled",
        name: str | None = None,
    ):
        if (
            isinstance(tasks, str)
            or len(set(tasks)) < 2
            or len(set(tasks)) < len(tasks)
        ):
            raise ValueError(
                "`tasks` of a joint loss must be names of two tasks or more, each "
                f"once. Received: tasks={tasks!r}"
            )
        self.tasks = tuple(str(task) for task in tasks)
        if isinstance(loss, str):
            _checks.check_choice("loss", loss, JOINT)
        elif callable(loss):
            check_registered(loss, "`loss` of a joint loss")
        else:
            raise TypeError(
                f"`loss` of a joint loss must be one of {list(JOINT)} or a function of "
                f"outputs. Received: loss={loss!r}"
            )
        self.loss = loss
        self.weight = _checks.check_range("weight", weight, 0, 1e30)
        self.where = _checks.check_choice("where", where, ("labelled", "everywhere"))
        known = loss if isinstance(loss, str) else getattr(loss, "__name__", "joint")
        self.name = "_".join((known, *self.tasks)) if name is None else str(name)
        if not self.name.isidentifier():
            raise ValueError(
                f"`name` of a joint loss must be an identifier. Received: {name!r}"
            )

    @property
    def log(self) -> str:
        """What it is called in logs."""
        return f"{self.name}_loss"

    def __call__(self, *outputs: Tensor) -> Tensor:
        """Value of each row, `(N,)`, float32.

        Args:
            outputs: What a user reads of each task, `(N, ...)`.
        """
        function = JOINT[self.loss] if isinstance(self.loss, str) else self.loss
        values = ops.cast(function(*outputs), "float32")
        if len(values.shape) != 1:
            raise ValueError(
                f"Joint loss '{self.name}' must give one value per row, (N,). "
                f"Received: shape {tuple(values.shape)}"
            )
        return values

    def get_config(self) -> Config:
        return {
            "tasks": list(self.tasks),
            "loss": keras.saving.serialize_keras_object(self.loss),
            "weight": self.weight,
            "where": self.where,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: Options) -> Joint:
        config = dict(config)
        config["loss"] = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**config)
