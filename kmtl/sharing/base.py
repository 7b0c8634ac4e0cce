"""A sharing scheme says how tasks use a trunk's blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from kmtl import _registry
from kmtl._dimensions import Dimension
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.tasks.base import Task
from kmtl.typing import Config, Features, Options, Outputs, TaskName, Tensor

#: Key of a scheme inside a scheme's config; no task can have this name.
NESTED = "kmtl.sharing"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharing(_registry.Registrable):
    """Base class of all schemes. A frozen, JSON-ready value.

    Args:
        later: Names of tasks that joined when the others were there, in the order in
            which they did: they may read what those have learned, and no task before
            them reads anything of theirs. `kmtl.add_task` sets it.
    """

    #: What `"default"` means in a search space for an argument: name -> range. Those of
    #: the base classes count too.
    ranges: ClassVar[Mapping[str, Dimension]] = {}

    later: Sequence[str] = ()

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        """Trunk from the inputs to each task's features.

        Args:
            backbone: The blocks.
            inputs: KerasTensor.
            tasks: The tasks, in order.
            make: Maker of layers; `make.part(name)` per part of the trunk.

        Returns:
            Dict task name -> KerasTensor that the task's head reads.

        Raises:
            ValueError: when the scheme cannot use this backbone, saying what to change.
        """
        raise NotImplementedError

    def outputs(
        self,
        features: Features,
        head: Callable[[Task, Tensor], Tensor],
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Outputs:
        """From each task's features to its logits or values.

        A scheme in which a head reads another one overrides this.

        Args:
            features: What `connect` returned.
            head: `head(task, features)` builds a task's head, once per task.
            tasks: The tasks, in order.
            make: Maker of further layers.

        Returns:
            Dict task name -> KerasTensor, the logits or values of the task.
        """
        return {task.name: head(task, features[task.name]) for task in tasks}

    def assemble(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        head: Callable[..., Tensor],
        make: LayerMaker,
    ) -> Outputs:
        """From the inputs to each task's logits: `connect`, then `outputs`.

        A scheme whose trunk reads the tasks' predictions overrides this.

        Args:
            backbone: The blocks.
            inputs: KerasTensor.
            tasks: The tasks, in order.
            head: `head(task, features)` builds a task's head; `head(task, features,
                "head_<name>")` a further one of the same kind, for a scheme with
                several predictions per task.
            make: Maker of layers.

        Returns:
            Dict task name -> KerasTensor, the logits or values of the task.
        """
        features = self.connect(backbone, inputs, tasks, make)
        return self.outputs(features, head, tasks, make)

    def adding(self, name: TaskName, names: Sequence[TaskName]) -> Sharing:
        """The scheme for one task more, of which the tasks before read nothing.

        A scheme that says something of every task overrides this, and says where a
        new one belongs.

        Args:
            name: The new task.
            names: The tasks before it, in order.
        """
        return self.joined_by((*self.later, name))

    def joined_by(self, later: Sequence[TaskName]) -> Sharing:
        """The scheme with these tasks as those that joined the others."""
        return dataclasses.replace(self, later=tuple(later))

    def without(self, name: TaskName) -> Sharing:
        """The scheme for one task less."""
        return self.joined_by(self.later_without(name))

    def later_without(self, name: TaskName) -> tuple[TaskName, ...]:
        """`later` for one task less."""
        return tuple(n for n in self.later if n != name)

    def readable(self, name: TaskName, names: Sequence[TaskName]) -> list[TaskName]:
        """The tasks, itself among them, whose parts a task may read."""
        later = list(self.later)
        place = later.index(name) + 1 if name in later else 0
        return [n for n in names if n not in later[place:]]

    def founders(self, names: Sequence[TaskName]) -> list[TaskName]:
        """Of tasks that have a part together, those that it was made for."""
        first = [name for name in names if name not in self.later]
        return first or [name for name in self.later if name in names][:1]

    def to_config(self) -> Config:
        """JSON-ready description; `Sharing.from_config` gives an equal scheme."""
        fields = {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name != "later" or self.later
        }
        return {"kind": _registry.saved_name("sharing", type(self)), **fields}

    @staticmethod
    def from_config(config: Options) -> Sharing:
        fields = {name: _rich(value) for name, value in config.items()}
        if "later" in fields:
            fields["later"] = tuple(fields["later"])
        return _registry.get("sharing", fields.pop("kind"))(**fields)


def _plain(value: Any) -> Any:
    """A field's value in JSON's types, schemes inside it included."""
    if isinstance(value, Sharing):
        return {NESTED: value.to_config()}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _rich(value: Any) -> Any:
    """What `_plain` was made from, but for tuples, which stay lists."""
    if isinstance(value, Mapping):
        if set(value) == {NESTED}:
            return Sharing.from_config(value[NESTED])
        return {key: _rich(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rich(item) for item in value]
    return value


def resolve(sharing: Any, argument: str = "sharing") -> Sharing:
    """A scheme from a scheme or a name.

    Raises:
        TypeError, ValueError: for anything else, naming the argument.
    """
    made: Sharing = _registry.made("sharing", sharing, argument)
    return made
