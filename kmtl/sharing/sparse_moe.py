"""Sparsely gated mixture of experts."""

from __future__ import annotations

import dataclasses
from typing import Any

from kmtl import _checks
from kmtl._dimensions import Float, Int, search_over
from kmtl._registry import register
from kmtl.layers.gates import check_temperature
from kmtl.layers.maker import LayerMaker
from kmtl.layers.top_k_gate import TopKGate
from kmtl.sharing._experts import OneBank, gate_kernel
from kmtl.typing import Layer


@register("sharing", "sparse_moe")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseMoE(OneBank):
    """Experts for all tasks, of which each example takes the best few of its task.

    As `MMoE`, with gates that keep the `selected` largest logits and give the other
    experts a weight of exactly 0. While training the logits get a learned noise, and a
    loss sees to it that all experts of a gate are used. Equations:
    `kmtl.layers.TopKGate`. That loss is part of `regularization_loss`.

    Choose it where examples are of several kinds that want different experts. To see
    one choice per task rather than per example take `DSelectK`.

    Cost: as `MMoE`, plus a second kernel per gate for the noise. All experts are
    computed for all examples, as one batched product, so a small `selected` saves no
    time.

    Args:
        experts: Number of experts, >= 1. Defaults to 4.
        selected: Number of experts per example and task, 1 to `experts`. Defaults to 2.
        noise: Whether the gates are noisy while training. Defaults to True.
        balance: Weight of the balancing loss per gate, >= 0. It pulls every task
            towards all experts: keep it small where tasks should part. Defaults to
            0.01.
        temperature: Of the gates, > 0: higher is more even. Defaults to 1.
        depth: Number of leading blocks that all tasks share plainly, 0 to n - 1.
            Defaults to 0.

    Raises:
        ValueError: for arguments out of range; for `depth` when the model is built.

    Example:

    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), units=(8, 8),
    ...     sharing=kmtl.sharing.SparseMoE(experts=4, selected=1),
    ...     tasks=[kmtl.Regression("a"), kmtl.Regression("b")], seed=0)
    >>> gates = keras.Model(model.inputs[0], model.get_layer("a_gate1").output)
    >>> [float(w) for w in np.sort(gates(np.ones((1, 4)))[0])]
    [0.0, 0.0, 0.0, 1.0]

    Reference: Shazeer et al., ICLR 2017, arXiv:1701.06538; Fedus et al., JMLR 23
        (2022), arXiv:2101.03961.
    """

    ranges = search_over(
        selected=Int(1, 2, default=2), balance=Float(1e-4, 0.1, log=True, default=0.01)
    )

    selected: int = 2
    noise: bool = True
    balance: float = 0.01
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        most = self.experts
        self._set("selected", _checks.check_int("selected", self.selected, 1, most))
        if not isinstance(self.noise, bool):
            raise TypeError(
                f"`noise` must be True or False. Received: noise={self.noise!r}"
            )
        self._set("balance", _checks.check_range("balance", self.balance, 0, 1e6))
        self._set("temperature", check_temperature(self.temperature))

    def gate(self, name: str, make: LayerMaker, **arguments: Any) -> Layer:
        return make.layer(
            TopKGate,
            name,
            selected=self.selected,
            noise=self.noise,
            balance=self.balance,
            temperature=self.temperature,
            seed=make.layer_seed(f"{name}_noise"),
            **gate_kernel(name, make),
            **arguments,
        )
