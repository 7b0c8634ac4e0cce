"""Multi-gate mixture of experts."""

from __future__ import annotations

import dataclasses
from typing import Any

from kmtl._dimensions import search_over
from kmtl._registry import register
from kmtl.layers.gates import TEMPERATURES, check_temperature
from kmtl.layers.maker import LayerMaker
from kmtl.sharing._experts import OneBank, softmax_gate
from kmtl.typing import Layer


@register("sharing", "mmoe")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MMoE(OneBank):
    """Experts for all tasks, and per task a gate that mixes them by example.

    f^t(x) = sum_e g^t(x)_e f_e(x), with g^t(x) = softmax(W^t x / temperature). Every
    expert is a copy of the backbone's blocks after the first `depth`; all of them run
    as one batched product. The gates read what the experts read: averaged over places
    where the experts make a map of it, else flattened. An image itself has little to
    say after averaging: give maps a `depth` of 1 or more. One expert is hard sharing of
    all blocks.

    Choose it where tasks are related, but how closely is unknown or differs between
    examples: a task can turn away from experts that another one needs. For equal cost
    make the experts narrower than a shared trunk.

    Cost: `experts` times the parameters and work of the blocks after `depth`, and per
    task a gate of (input width * experts) parameters.

    Args:
        experts: Number of experts, >= 1. Defaults to 4.
        depth: Number of leading blocks that all tasks share plainly, 0 to n - 1.
            Defaults to 0.
        temperature: Of the gates, > 0: higher is more even. Defaults to 1.

    Raises:
        ValueError: for arguments out of range; for `depth` when the model is built.

    Example:

    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), units=(8, 8), sharing=kmtl.sharing.MMoE(experts=3),
    ...     tasks=[kmtl.Regression("a"), kmtl.Regression("b")], seed=0)
    >>> model.get_layer("experts_block1_dense").output.shape  # 3 times 8
    (None, 24)
    >>> model.get_layer("a_mixture1").output.shape
    (None, 8)

    Reference: Ma et al., KDD 2018, eq. 6 to 8.
    """

    ranges = search_over(temperature=TEMPERATURES)

    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("temperature", check_temperature(self.temperature))

    def gate(self, name: str, make: LayerMaker, **arguments: Any) -> Layer:
        return softmax_gate(name, make, temperature=self.temperature, **arguments)
