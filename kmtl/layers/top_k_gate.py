"""Sparse gate with noise and a loss that balances the experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._largest import largest
from kmtl.layers.gates import SoftmaxGate
from kmtl.losses.masked import all_replicas_sum
from kmtl.typing import Config, Store, Tensor

#: Logit of an expert that was not chosen: its weight is exactly 0.
OUT = -1e30


@keras.saving.register_keras_serializable(package="kmtl")
class TopKGate(SoftmaxGate):
    """Softmax over the `selected` experts with the largest logits; 0 for the others.

    h(x) = W x, plus noise while training: h_i + N(0, 1) softplus((V x)_i). To the loss
    comes `balance` * E * sum_i f_i P_i, where f_i is the share of the choices that fell
    on expert i and P_i its mean softmax probability: `balance` when all experts are
    used alike, E / `selected` times that when the same ones are used by all. Under
    `tf.distribute` f and P are of the global batch.

    Args:
        experts, task, labels, pool, temperature, kernel_initializer,
            kernel_regularizer: See `SoftmaxGate`.
        selected: Number of experts per example, 1 to E. Defaults to 2.
        noise: Whether the logits get the learned noise while training.
        balance: Float >= 0. Defaults to 0.01.
        seed: Integer for reproducible noise, or None.

    Reference: Shazeer et al., ICLR 2017, eq. 3 to 5 (noisy top-k); Fedus et al., JMLR
        23 (2022), eq. 4 to 6 (balance, here over all choices of an example).
    """

    def __init__(
        self,
        experts: int,
        task: str,
        labels: Sequence[str] | None = None,
        pool: bool = True,
        selected: int = 2,
        noise: bool = True,
        balance: float = 0.01,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(experts, task, labels, pool, **kwargs)
        self.selected = _checks.check_int("selected", selected, 1, self.experts)
        self.noise = bool(noise)
        self.balance = _checks.check_range("balance", balance, 0)
        self.seed = seed
        self.seed_generator: Any = None
        if self.noise:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def make_weights(self, width: int) -> None:
        super().make_weights(width)
        if self.noise:
            self.noise_kernel = self.add_weight(
                name="noise_kernel", shape=(width, self.experts), initializer="zeros"
            )

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        x = self._vectors(inputs)
        logits = ops.matmul(x, self.kernel) / self.temperature
        if training and self.noise:
            scale = ops.softplus(ops.matmul(x, self.noise_kernel))
            drawn = keras.random.normal(
                ops.shape(logits), dtype="float32", seed=self.seed_generator
            )
            logits = logits + scale * drawn
        weights, chosen = _keep(logits, self.selected, self.experts)
        if training:
            self.record(**{self.task: weights})
            if self.balance:
                self.add_loss(self.balance * self._imbalance(logits, chosen))
        return weights

    def _imbalance(self, logits: Tensor, chosen: Tensor) -> Tensor:
        rows = ops.cast(ops.shape(logits)[0], "float32")
        rows = all_replicas_sum(rows)
        used = all_replicas_sum(ops.sum(chosen, axis=0)) / (rows * self.selected)
        share = all_replicas_sum(ops.sum(ops.softmax(logits), axis=0)) / rows
        return self.experts * ops.sum(ops.stop_gradient(used) * share)

    def to_keras(self) -> keras.Model:
        def weigh(x: Tensor) -> Tensor:
            dense = keras.layers.Dense(self.experts, use_bias=False, dtype="float32")
            return _keep(dense(x) / self.temperature, self.selected, self.experts)[0]

        return self._plain(weigh)

    def plain_weights(self) -> list[np.ndarray]:
        return [ops.convert_to_numpy(self.kernel)]  # there is no noise in it

    # Keras does not save the state of seed generators.
    def save_own_variables(self, store: Store) -> None:
        super().save_own_variables(store)
        if self.noise:
            store["seed"] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store: Store) -> None:
        own = [key for key in store.keys() if key != "seed"]  # noqa: SIM118
        super().load_own_variables({key: store[key] for key in own})
        if self.noise and "seed" in store:
            self.seed_generator.state.assign(store["seed"])

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "selected": self.selected,
            "noise": self.noise,
            "balance": self.balance,
            "seed": self.seed,
        }


def _keep(logits: Tensor, selected: int, experts: int) -> tuple[Tensor, Tensor]:
    """Softmax over the largest logits of each row, and 1 where one is among them."""
    _, places = largest(logits, selected)
    chosen = ops.sum(ops.one_hot(places, experts, dtype="float32"), axis=-2)
    return ops.softmax(ops.where(chosen > 0, logits, OUT)), chosen
