"""Differentiable selection of k experts."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from kmtl import _checks
from kmtl._dimensions import Float, Int, search_over
from kmtl._registry import register
from kmtl.layers.dselect_k_gate import DSelectKGate
from kmtl.layers.maker import LayerMaker
from kmtl.sharing._experts import OneBank
from kmtl.typing import Initializer, Layer


@register("sharing", "dselect_k")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DSelectK(OneBank):
    """Experts for all tasks, of which each task selects a few, differentiably.

    As `MMoE`, with gates that end up at no more than `selected` experts: each of the
    `selected` selectors writes an expert's number in smooth bits. Equations:
    `kmtl.layers.DSelectKGate`. The gates' regularisers are part of
    `regularization_loss`; the trunk's `kernel_regularizer` does not act on the gates,
    since it would pull the bits back to one half. With as many selectors as experts it
    can be any `MMoE`.

    Choose it for many experts, where softmax gates spread over all of them, or to see
    which experts a task needs.

    Cost: as `MMoE`, with gates of (input width * selected * (1 + log2 experts))
    parameters. All experts are computed, the ones not selected too.

    Args:
        experts: Number of experts, >= 1; need not be a power of two. Defaults to 4.
        selected: Number of selectors of a task, 1 to `experts`. Defaults to 2.
        gamma: Width of the smooth step, > 0. Wider selects later. Defaults to 1.
        entropy: Weight of the selectors' entropy, >= 0. Defaults to 1e-3.
        reachability: Weight of the term that keeps selectors at experts that exist,
            >= 0; only where `experts` is not a power of two. Defaults to 0.01.
        depth: Number of leading blocks that all tasks share plainly, 0 to n - 1.
            Defaults to 0.

    Raises:
        ValueError: for arguments out of range; for `depth` when the model is built.

    Example:

    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), units=(8, 8),
    ...     sharing=kmtl.sharing.DSelectK(experts=5, selected=2),
    ...     tasks=[kmtl.Regression("a"), kmtl.Regression("b")], seed=0)
    >>> model.get_layer("a_gate1").bits
    3

    Reference: Hazimeh et al., NeurIPS 2021, arXiv:2106.03760.
    """

    ranges = search_over(
        selected=Int(1, 2, default=2), entropy=Float(1e-5, 0.1, log=True, default=1e-3)
    )

    selected: int = 2
    gamma: float = 1.0
    entropy: float = 1e-3
    reachability: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        most = self.experts
        self._set("selected", _checks.check_int("selected", self.selected, 1, most))
        gamma = _checks.check_range("gamma", self.gamma, 0, 1e6, low_open=True)
        self._set("gamma", gamma)
        for name in ("entropy", "reachability"):
            value = _checks.check_range(name, getattr(self, name), 0, 1e6)
            self._set(name, value)

    def gate(self, name: str, make: LayerMaker, **arguments: Any) -> Layer:
        def uniform(what: str, bound: float) -> Initializer:
            seed = make.layer_seed(f"{name}_{what}")
            return keras.initializers.RandomUniform(-bound, bound, seed=seed)

        return make.layer(
            DSelectKGate,
            name,
            selected=self.selected,
            gamma=self.gamma,
            entropy=self.entropy,
            reachability=self.reachability,
            selector_initializer=uniform("selectors", self.gamma / 100),
            weight_initializer=uniform("weights", 0.05),
            **arguments,
        )
