"""One trunk whose kernels have a low-rank update per task."""

from __future__ import annotations

import dataclasses
from typing import Any

from kmtl import _checks
from kmtl._dimensions import Int, search_over
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.low_rank import LowRankMaker
from kmtl.layers.maker import LayerMaker
from kmtl.sharing._conditioned import Conditioned
from kmtl.typing import Features, Tensor


@register("sharing", "lora")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA(Conditioned):
    """All tasks share all blocks; each adds a low-rank update to their kernels.

    A dense layer of the trunk is, for task t, `(W + (α / r) B_t A_t) x + b`, where A_t
    has r rows. A convolution's update is a convolution with the same window to r
    channels, then a 1 x 1 convolution. The B start at zero, where this is hard sharing
    bit for bit. Layers of other kinds are shared as they are.

    Choose it to bring several tasks to one pretrained trunk (`frozen=True` and
    `kmtl.sharing.load_trunk`), where the update may reach every kernel and not only
    what comes after a block.

    Cost: r (inputs + units) parameters per task and dense layer. The blocks from
    `depth` on run once per task: the time of T networks. The tasks part inside a block,
    so there is no seam, and gradient-based weightings act on parameters.

    Args:
        rank: Rows r of A, >= 1. Defaults to 4.
        alpha: α > 0. None stands for r, a factor of 1. Defaults to None.
        depth: Leading blocks without updates, computed once; 0 to n - 1. Defaults to 0.
        frozen: The trunk is not trained, only the updates and heads are. Defaults to
            False.

    Raises:
        ValueError: if `depth` leaves no block to update.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8,),
    ...     sharing=kmtl.sharing.LoRA(rank=2, frozen=True),
    ... )
    >>> [v.path for v in model.trainable_variables if v.path.startswith("a_lora1")]
    ['a_lora1_dense_down/kernel', 'a_lora1_dense_up/kernel']

    Reference: Hu et al., ICLR 2022, arXiv:2106.09685, eq. 3 (without dropout on the
        update's input).
    """

    ranges = search_over(rank=Int(1, 16, log=True, default=4))

    rank: int = 4
    alpha: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_int("rank", self.rank, 1)
        if self.alpha is not None:
            alpha = _checks.check_range("alpha", self.alpha, 0, low_open=True)
            object.__setattr__(self, "alpha", alpha)

    def trunk_maker(self, make: LayerMaker) -> LowRankMaker:
        return LowRankMaker.like(make, frozen=self.frozen)

    def block(
        self,
        backbone: Backbone,
        index: int,
        features: Tensor,
        trunk: Any,  # what `trunk_maker` made
        make: LayerMaker,
    ) -> Features:
        scale = 1.0 if self.alpha is None else self.alpha / self.rank
        trunk = dataclasses.replace(trunk, rank=self.rank, scale=scale)
        return {
            name: backbone.block(
                index,
                x,
                trunk.for_task(
                    f"shared_block{index + 1}",
                    f"block{index + 1}",
                    make.part(f"{name}_lora{index + 1}"),
                ),
            )
            for name, x in features.items()
        }
