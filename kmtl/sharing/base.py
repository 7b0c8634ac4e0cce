"""A sharing scheme says how tasks use a trunk's blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from kmtl import _registry
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.tasks.base import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharing:
    """Base class of all schemes. A frozen, JSON-ready value."""

    registered_name: ClassVar[str]

    def connect(
        self, backbone: Backbone, inputs: Any, tasks: tuple[Task, ...], make: LayerMaker
    ) -> dict[str, Any]:
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
        features: dict[str, Any],
        head: Callable[[Task, Any], Any],
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> dict[str, Any]:
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

    def to_config(self) -> dict[str, Any]:
        """JSON-ready description; `Sharing.from_config` gives an equal scheme."""
        return {"kind": self.registered_name, **dataclasses.asdict(self)}

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Sharing:
        config = dict(config)
        return _registry.get("sharing", config.pop("kind"))(**config)
