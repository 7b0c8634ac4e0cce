"""Cross-stitch networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from kmtl import _checks
from kmtl._dimensions import Float, search_over
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.layers.stitch import Stitch
from kmtl.sharing import _columns
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, Tensor


@register("sharing", "cross_stitch")
@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossStitch(Sharing):
    """Every task has its own column of blocks; learned weights mix the columns.

    After a block, column t goes on with `x̃_t = Σ_s α_ts ⊙ x_s`, a learned linear
    combination of all columns' features, entry by entry; α is one number per channel
    and pair of tasks, or one per pair. The combinations start at `self_weight` for a
    column's own features and an equal part of the rest for each other one; they are
    not kept positive or summing to one.

    Choose it for few tasks of the same kind of features, when how much to share is not
    known per layer. At `self_weight=1` it starts as independent networks, bit for bit.

    Cost: T columns, so T times the parameters and the time of one network, and T² C
    weights per stitch.

    Args:
        depth: Leading blocks that all tasks share plainly, 0 to n - 1. Defaults to 0.
        per_channel: One α per channel (as in the paper) or one matrix per stitch.
            Defaults to True.
        self_weight: Initial α of a column's own features, in [0, 1]. Defaults to 0.9.
        after: Numbers of the blocks (from 1) that a stitch follows. None stitches
            after every block, which is what the paper does where a block ends in
            pooling. Defaults to None.
        rate: Number > 0: α learns so many times as fast as the rest under gradient
            descent, and √rate times as fast under Adam, whose steps do not depend on
            the gradient's size. The paper has 100 to 1000, with gradient descent.
            Defaults to 1.

    Raises:
        ValueError: where the columns' features differ in shape, or `depth` or `after`
            do not fit the backbone.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8, 8), sharing="cross_stitch"
    ... )
    >>> model.get_layer("a_stitch1").readings()
    {'a': array([0.9, 0.1], dtype=float32)}

    Reference: Misra et al., CVPR 2016, arXiv:1604.03539, eq. 1 and section 5.1.
    """

    ranges = search_over(self_weight=Float(0.5, 1.0, default=0.9))

    depth: int = 0
    per_channel: bool = True
    self_weight: float = 0.9
    after: Sequence[int] | None = None
    rate: float = 1.0

    def __post_init__(self) -> None:
        _checks.check_int("depth", self.depth, 0)
        if not isinstance(self.per_channel, bool):
            raise TypeError(
                "`per_channel` must be True or False. "
                f"Received: per_channel={self.per_channel!r}"
            )
        weight = _checks.check_range("self_weight", self.self_weight, 0, 1)
        object.__setattr__(self, "self_weight", weight)
        rate = _checks.check_range("rate", self.rate, 0, low_open=True, high_open=True)
        object.__setattr__(self, "rate", rate)
        object.__setattr__(self, "after", _columns.check_after(self.after))

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        return _columns.run_columns(self, backbone, inputs, tasks, make, self._stitch)

    def _stitch(self, number: int, columns: Features, make: LayerMaker) -> dict:
        # A layer per task: what mixes the last column's features is that task's own.
        return {
            name: make.layer(
                Stitch,
                f"{name}_stitch{number}",
                sources=sources,
                own=name,
                own_weight=self.self_weight,
                per_channel=self.per_channel,
                rate=self.rate,
            )([columns[source] for source in sources])
            for name, sources in _columns.readings(self, list(columns)).items()
        }
