"""Low-level tasks supervised at lower blocks of a common trunk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.layers.seam import Seam
from kmtl.layers.stop_gradient import StopGradient
from kmtl.sharing._shapes import embedded, fitted
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, Outputs, TaskName, Tensor

HAND_OVERS = ("features", "predictions")


@register("sharing", "hierarchical")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Hierarchical(Sharing):
    """Each task is supervised at its own level of one trunk.

    h_i = block_i(h_{i-1}); the head of a task with level i reads h_i. A block is
    trained by the tasks at its level and above; no block is copied, and blocks above
    the highest level are not built.

    With a hand-over, every block above a task's level also reads what the task hands
    over, block_i([h_{i-1}, o_t for all tasks t below level i]):

    - `"features"`: o_t is a layer of the task's own on h at its level (as wide as h,
      with the trunk's activation), which its head reads as well;
    - `"predictions"`: o_t is a linear embedding of the task's soft prediction, sum_c
      p_c e_c (probabilities; values for regression), one embedding per reading block.

    Maps are averaged down to the size that the block reads, vectors repeated over maps.

    When to choose it: one task is a step towards another (edges before objects, tags
    before parses). Supervision in the wrong order costs accuracy: compare with "hard".

    Cost: none without a hand-over. `"features"` adds a layer per lower task and widens
    the blocks above; `"predictions"` adds classes x `width` parameters per lower task
    and block above, and `width` input channels to these blocks.

    Args:
        levels: Dict task name -> number of blocks below the task's head, 1 to the
            number of blocks.
        hand_over: `"features"`, `"predictions"` or None (default).
        stop_gradient: Whether higher tasks leave alone what is handed over to them.
            Defaults to False.
        width: Integer >= 1: width of an embedded prediction. Defaults to 16.

    Raises:
        ValueError: at build time, for a level beyond the trunk, or maps whose size is
            not known where a hand-over needs it.

    Example:

    >>> tasks = [kmtl.Regression("ink"), kmtl.Classification("digit", classes=10)]
    >>> scheme = kmtl.sharing.Hierarchical(levels={"ink": 1, "digit": 2})
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8, 8),
    ...                        sharing=scheme)
    >>> [layer.name for layer in model.layers if layer.name.endswith("dense")]
    ['shared_block1_dense', 'digit_block2_dense']

    Reference: Søgaard & Goldberg, ACL 2016; Hashimoto et al. (joint many-task model),
    EMNLP 2017, arXiv:1611.01587; Sanh et al., AAAI 2019, arXiv:1811.06031.
    """

    levels: Mapping[str, int]
    hand_over: str | None = None
    stop_gradient: bool = False
    width: int = 16

    def __post_init__(self) -> None:
        if not isinstance(self.levels, Mapping):
            raise TypeError(
                "`levels` must be a dict task name -> number of the block that its "
                f"head reads. Received: levels={self.levels!r}"
            )
        levels = {
            name: _checks.check_int(f"levels['{name}']", level, 1)
            for name, level in self.levels.items()
        }
        object.__setattr__(self, "levels", levels)
        if self.hand_over is not None:
            _checks.check_choice("hand_over", self.hand_over, HAND_OVERS)
        if self.stop_gradient and self.hand_over is None:
            raise ValueError(
                "`stop_gradient` belongs to a `hand_over`. "
                "Received: stop_gradient=True, hand_over=None"
            )
        width = _checks.check_int("width", self.width, 1)
        object.__setattr__(self, "width", width)

    def adding(self, name: TaskName, names: Sequence[TaskName]) -> Sharing:
        """A new task reads the highest block."""
        levels = {**self.levels, name: max(self.levels.values())}
        return dataclasses.replace(self, later=(*self.later, name), levels=levels)

    def without(self, name: TaskName) -> Sharing:
        levels = {n: level for n, level in self.levels.items() if n != name}
        return dataclasses.replace(self, later=self.later_without(name), levels=levels)

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        if self.hand_over == "predictions":
            raise ValueError(
                "`hand_over='predictions'` of sharing 'hierarchical' has heads inside "
                "its trunk, so no other scheme can come between features and heads: "
                "use hand_over='features' or None as its base."
            )
        return self._climb(backbone, inputs, tasks, make, lambda task, own: own)

    def assemble(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        head: Callable[..., Tensor],
        make: LayerMaker,
    ) -> Outputs:
        return self._climb(backbone, inputs, tasks, make, head)

    def _climb(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
        head: Callable[..., Tensor],
    ) -> Features:
        """Block by block, with the heads on the way."""
        levels = self._checked(backbone, tasks)
        top = max(levels.values())
        # What joined later hands nothing over, and no task does to it alone.
        first = self.founders(list(levels))
        handing = max(levels[name] for name in first)
        handed: Features = {}
        outputs: Outputs = {}
        trunk = inputs
        for i in range(top):
            users = [name for name, level in levels.items() if level > i]
            users = self.founders(users)
            own = users[0] if len(users) == 1 else "shared"
            part = make.part(f"{own}_block{i + 1}", f"block{i + 1}")
            trunk = backbone.block(i, self._joined(trunk, handed, i, make), part)
            if min(levels.values()) == top == i + 1:
                trunk = Seam(name="seam")(trunk)
            for task in tasks:
                if levels[task.name] == i + 1:
                    below = self.hand_over is not None and i + 1 < handing
                    below = below and task.name in first
                    features = trunk
                    if below and self.hand_over == "features":
                        features = self._own_features(trunk, task, backbone, make)
                    outputs[task.name] = head(task, features)
                    if below:
                        handed[task.name] = self._handed(
                            features, outputs[task.name], task, make
                        )
        return {task.name: outputs[task.name] for task in tasks}

    def _checked(self, backbone: Backbone, tasks: tuple[Task, ...]) -> dict[str, int]:
        names = [task.name for task in tasks]
        levels = _checks.check_task_keys("levels", self.levels, names)
        for name, level in levels.items():
            _checks.check_int(f"levels['{name}']", level, 1, backbone.num_blocks)
        return levels

    def _own_features(
        self, trunk: Tensor, task: Task, backbone: Backbone, make: LayerMaker
    ) -> Tensor:
        part = make.part(f"{task.name}_features")
        if len(trunk.shape) == 4:
            own = part.conv(trunk.shape[-1], 1, "conv")(trunk)
        else:
            own = part.dense(trunk.shape[-1], "dense")(trunk)
        return part.activation(backbone.activation, "activation")(own)

    def _handed(
        self, features: Tensor, output: Tensor, task: Task, make: LayerMaker
    ) -> Tensor:
        part = make.part(f"{task.name}_handover")
        value = features
        if self.hand_over == "predictions":
            value = part.layer(
                keras.layers.Activation,
                "prediction",
                activation=task.output_activation,
                dtype="float32",  # as the output itself
            )(output)
        if self.stop_gradient:
            value = part.layer(StopGradient, "stop")(value)
        return value

    def _joined(
        self,
        trunk: Tensor,
        handed: Mapping[TaskName, Tensor],
        index: int,
        make: LayerMaker,
    ) -> Tensor:
        """What block `index` reads."""
        parts = [trunk]
        for name, value in sorted(handed.items()):  # whatever the tasks' order
            part = make.part(f"{name}_handover{index + 1}")
            if self.hand_over == "predictions":
                parts.append(embedded(value, trunk, self.width, part))
            else:
                parts.append(fitted(value, trunk, part))
        if len(parts) == 1:
            return trunk
        part = make.part(f"handover{index + 1}")
        return part.layer(keras.layers.Concatenate, "join")(parts)
