"""Multi-scale task interaction network, simplified."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import keras

from kmtl import _checks
from kmtl._dimensions import Float, search_over
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.sharing._distillation import (
    check_arguments,
    check_map,
    dense_tasks,
    distilled,
    initial_features,
)
from kmtl.sharing._shapes import resized
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, Outputs, Tensor


@register("sharing", "mti_net")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MTINet(Sharing):
    """Distillation between dense tasks at several scales of one trunk.

    What `"pad_net"` does once is done at the outputs of several blocks, from the
    coarsest to the finest. At each a task reads the trunk's features and, resized, what
    it came to at the scale before; it makes an initial prediction (supervised), and the
    tasks exchange messages. The head reads what a task came to at all scales, at the
    size of the finest. Tasks that do not predict maps read the last block.

    Simplified: between scales there is this concatenation, where the paper has a module
    with attention over the tasks and channels.

    When to choose it: dense tasks that help each other at some scales only, such as
    edges (fine) and depth (coarse).

    Cost: that of `"pad_net"` for each scale, the finer ones at larger maps.

    Args:
        scales: Numbers of the blocks whose outputs are read, 1 to the number of blocks,
            ascending. Defaults to all.
        weight: Number > 0: weight of an initial prediction's loss beside the final
            one's. Defaults to 1.
        channels: Integer >= 1: width of a task's features at every scale, or None for
            that of what they are made from. Defaults to 32.

    Raises:
        ValueError: at build time, without dense tasks or feature maps, or for blocks
            that the trunk has not.

    Example:

    >>> tasks = [kmtl.Segmentation(name, classes=2) for name in ("mask", "edges")]
    >>> model = kmtl.build_cnn(input_shape=(8, 8, 1), tasks=tasks, filters=(4, 4),
    ...                        sharing=kmtl.sharing.MTINet(channels=4))
    >>> sum(layer.name.endswith("supervision") for layer in model.layers)
    4

    Reference: Vandenhende et al., ECCV 2020, arXiv:2001.06902.
    """

    ranges = search_over(weight=Float(0.1, 2.0, log=True, default=1.0))

    scales: Sequence[int] | None = None
    weight: float = 1.0
    channels: int | None = 32

    def __post_init__(self) -> None:
        if self.scales is not None:
            scales = _checks.check_ints("scales", self.scales)
            if not scales or list(scales) != sorted(set(scales)):
                raise ValueError(
                    "`scales` must be numbers of blocks in ascending order. "
                    f"Received: scales={self.scales!r}"
                )
            object.__setattr__(self, "scales", scales)
        check_arguments(self)

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        raise ValueError(
            "Sharing 'mti_net' has heads at every scale, so no other scheme can come "
            "between its features and heads: use 'pad_net' as the base."
        )

    def assemble(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        head: Callable[..., Tensor],
        make: LayerMaker,
    ) -> Outputs:
        found = dense_tasks(tasks, "mti_net")
        blocks = backbone.num_blocks
        scales = tuple(range(1, blocks + 1)) if self.scales is None else self.scales
        for scale in scales:
            _checks.check_int("scales", scale, 1, blocks)
        maps, trunk = {}, inputs
        deepest = blocks if len(found) < len(tasks) else scales[-1]
        for i in range(deepest):
            part = make.part(f"shared_block{i + 1}", f"block{i + 1}")
            trunk = maps[i + 1] = backbone.block(i, trunk, part)
        for scale in scales:
            check_map(maps[scale], found[0], "mti_net")

        reached: dict[str, list[Tensor]] = {task.name: [] for task in found}
        for scale in reversed(scales):
            own = {}
            for task in found:
                features = self._with_coarser(
                    maps[scale], reached[task.name], task, scale, make
                )
                own[task.name] = initial_features(
                    task, features, head, make, self, str(scale)
                )
            for name, value in distilled(self, own, make, str(scale)).items():
                reached[name].append(value)
        return {
            task.name: head(
                task,
                self._together(reached[task.name], task, make)
                if task.name in reached
                else trunk,
            )
            for task in tasks
        }

    def _with_coarser(
        self, features: Tensor, reached: list, task: Task, scale: int, make: LayerMaker
    ) -> Tensor:
        if not reached:
            return features
        part = make.part(f"{task.name}_scale{scale}")
        coarser = resized(reached[-1], tuple(features.shape[1:3]), part)
        return part.layer(keras.layers.Concatenate, "join")([features, coarser])

    def _together(self, reached: list, task: Task, make: LayerMaker) -> Tensor:
        if len(reached) == 1:
            return reached[0]
        size = tuple(reached[-1].shape[1:3])
        parts = [
            resized(value, size, make.part(f"{task.name}_scales{i + 1}"))
            for i, value in enumerate(reached)
        ]
        part = make.part(f"{task.name}_scales")
        return part.layer(keras.layers.Concatenate, "join")(parts)
