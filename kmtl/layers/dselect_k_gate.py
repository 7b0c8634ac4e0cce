"""Sparse gate that is differentiable: smooth steps over binary codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.layers.gates import Gate
from kmtl.typing import Config, Initializer, Tensor

#: Keeps the logarithm of a selector's zeros finite.
EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="kmtl")
class DSelectKGate(Gate):
    """Smooth-step gate over binary encodings: at most `selected` experts in the end.

    Each of the k selectors has m = ceil(log2 E) numbers z = V x + c. With the smooth
    step S (0 up to -gamma/2, 1 from gamma/2 on, a cubic between) its weight of expert i
    is r_i = prod_j S(z_j) where bit j of i - 1 is 1, times prod_j (1 - S(z_j)) where it
    is 0. The gate is sum_l softmax(W x + b)_l r^(l). To the loss come, as means over
    examples, `entropy` * sum_l H(r^(l)), which drives every selector to one expert, and
    where E is not a power of two `reachability` * sum_l 1 / sum_i r_i^(l), which keeps
    selectors off the codes that are nobody's.

    Args:
        experts, task, labels, pool: See `Gate`.
        selected: Number k of selectors, 1 to E. Defaults to 2.
        gamma: Width of the smooth step, > 0. Defaults to 1.
        entropy: Float >= 0. Defaults to 1e-3.
        reachability: Float >= 0. Defaults to 0.01.
        selector_initializer: Of V and c. Defaults to uniform in +-gamma / 100.
        weight_initializer: Of W and b. Defaults to uniform in +-0.05.

    Reference: Hazimeh et al., NeurIPS 2021, arXiv:2106.03760. The authors' code sums
        both regularisers over the batch, with coefficients 1e-6 and 1; here they are
        means, so that they do not depend on the batch size.
    """

    def __init__(
        self,
        experts: int,
        task: str,
        labels: Sequence[str] | None = None,
        pool: bool = True,
        selected: int = 2,
        gamma: float = 1.0,
        entropy: float = 1e-3,
        reachability: float = 0.01,
        selector_initializer: Initializer | None = None,
        weight_initializer: Initializer | None = None,
        **kwargs: Any,
    ):
        super().__init__(experts, task, labels, pool, **kwargs)
        self.selected = _checks.check_int("selected", selected, 1, self.experts)
        self.gamma = _checks.check_range("gamma", gamma, 0, low_open=True)
        self.entropy = _checks.check_range("entropy", entropy, 0)
        self.reachability = _checks.check_range("reachability", reachability, 0)
        self.selector_initializer = keras.initializers.get(
            selector_initializer
            or keras.initializers.RandomUniform(-self.gamma / 100, self.gamma / 100)
        )
        self.weight_initializer = keras.initializers.get(
            weight_initializer or keras.initializers.RandomUniform(-0.05, 0.05)
        )

    @property
    def bits(self) -> int:
        """Length m of an expert's code."""
        return math.ceil(math.log2(self.experts))

    def make_weights(self, width: int) -> None:
        codes = self.selected * self.bits
        variables = [
            ("selector_kernel", (width, codes), self.selector_initializer),
            ("selector_bias", (codes,), self.selector_initializer),
        ]
        if self.selected > 1:  # a single selector has all the weight
            variables += [
                ("weight_kernel", (width, self.selected), self.weight_initializer),
                ("weight_bias", (self.selected,), self.weight_initializer),
            ]
        for name, shape, initializer in variables:
            variable = self.add_weight(name=name, shape=shape, initializer=initializer)
            setattr(self, name, variable)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        x = self._vectors(inputs)
        z = ops.matmul(x, self.selector_kernel) + self.selector_bias
        selectors = self._selectors(z)
        logits = None
        if self.selected > 1:
            logits = ops.matmul(x, self.weight_kernel) + self.weight_bias
        weights = _combine(logits, selectors)
        if training:
            self.record(**{self.task: weights})
            if self.entropy or self._has_holes():
                self.add_loss(self._penalty(selectors))
        return weights

    def _selectors(self, z: Tensor) -> Tensor:
        """`(N, k, E)` from `(N, k * m)`."""
        step = smooth_step(
            ops.reshape(z, (-1, self.selected, 1, self.bits)), self.gamma
        )
        codes = np.arange(self.experts)[:, None] >> np.arange(self.bits)[::-1] & 1
        codes = codes.astype("float32")
        return ops.prod(step * codes + (1.0 - step) * (1.0 - codes), axis=-1)

    def _has_holes(self) -> bool:
        return bool(self.reachability) and self.experts != 2**self.bits

    def _penalty(self, selectors: Tensor) -> Tensor:
        entropy = -ops.sum(selectors * ops.log(selectors + EPSILON), axis=(1, 2))
        penalty = self.entropy * ops.mean(entropy)
        if self._has_holes():
            reached = ops.sum(selectors, axis=-1) + EPSILON
            penalty += self.reachability * ops.mean(ops.sum(1.0 / reached, axis=-1))
        return penalty

    def to_keras(self) -> keras.Model:
        """The same of plain Keras layers."""
        codes = self.selected * self.bits

        def weigh(x: Tensor) -> Tensor:
            z = keras.layers.Dense(codes, dtype="float32")(x)
            logits = None
            if self.selected > 1:
                logits = keras.layers.Dense(self.selected, dtype="float32")(x)
            return _combine(logits, self._selectors(z))

        return self._plain(weigh)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "selected": self.selected,
            "gamma": self.gamma,
            "entropy": self.entropy,
            "reachability": self.reachability,
            "selector_initializer": keras.initializers.serialize(
                self.selector_initializer
            ),
            "weight_initializer": keras.initializers.serialize(self.weight_initializer),
        }


def _combine(logits: Tensor, selectors: Tensor) -> Tensor:
    if logits is None:
        return selectors[:, 0]
    weights = ops.expand_dims(ops.softmax(logits), -1)
    return ops.sum(weights * selectors, axis=1)


def smooth_step(t: Tensor, gamma: float) -> Tensor:
    """0 up to -gamma / 2, 1 from gamma / 2 on, a cubic with flat ends between."""
    # Clipped first, so that the cubic is flat beyond its ends in value and gradient.
    t = ops.clip(t, -gamma / 2, gamma / 2)
    return -2.0 / gamma**3 * t**3 + 1.5 / gamma * t + 0.5
