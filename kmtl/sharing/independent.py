"""Nothing shared: the control."""

from __future__ import annotations

import dataclasses

from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.sharing.base import Sharing
from kmtl.sharing.hard import HardSharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, Tensor


@register("sharing", "independent")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Independent(Sharing):
    """Tasks share nothing but the input: one network per task, trained side by side.

    The control of every comparison, and `HardSharing(depth=0)` under a name of its own.
    Choose it to see whether sharing helps at all; where the tasks harm each other it is
    hard to beat.

    Cost: T times the parameters and the time of one network. Gradient-based weightings
    have nothing to balance here and are refused.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8,), sharing="independent"
    ... )
    >>> [layer.name for layer in model.layers if layer.name.endswith("dense")]
    ['a_block1_dense', 'b_block1_dense']
    """

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        return HardSharing(depth=0).connect(backbone, inputs, tasks, make)
