"""Choices that are sampled while training and made at inference."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.layers.recorded import Recorded
from kmtl.typing import Config, Store, Tensor

#: Keeps the logarithm of a uniform number finite.
EPSILON = 1e-20


class Choice(Recorded):
    """Base class of layers that learn to choose one of several things.

    Each choice has logits a, and probabilities p = softmax(a). A training step draws
    weights softmax((a + g) / temperature) with Gumbel noise g, through which gradients
    pass; one draw holds for the whole batch. At inference the likeliest is taken, the
    first of several equal ones.

    The temperature is a variable. Every training step multiplies it by a constant until
    it has come from `temperature` to `final_temperature` after `anneal_steps` steps.

    Args:
        temperature: Float > 0 at the start; higher is more even. Defaults to 5.
        final_temperature: Float > 0, at most `temperature`. Defaults to 0.5.
        anneal_steps: Training steps from one to the other; 0 keeps the first. Defaults
            to 1000.
        seed: Integer for reproducible draws, or None.

    Reference: Jang et al., ICLR 2017, arXiv:1611.01144, eq. 2.
    """

    def __init__(
        self,
        temperature: float = 5.0,
        final_temperature: float = 0.5,
        anneal_steps: int = 1000,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        checked = check_annealing(temperature, final_temperature, anneal_steps)
        self.initial_temperature, self.final_temperature, self.anneal_steps = checked
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def add_choices(self, shape: tuple[int, ...]) -> None:
        """Make the variables; for `build`. The last axis is what is chosen from."""
        self.logits = self.add_weight(
            name="logits",
            shape=shape,
            initializer="zeros",
            dtype="float32",
            autocast=False,
        )
        self.temperature = self.add_weight(
            name="temperature",
            shape=(),
            initializer=keras.initializers.Constant(self.initial_temperature),
            trainable=False,
            dtype="float32",
            autocast=False,
            aggregation="mean",  # of replicas that all hold the same
        )

    def sample(self) -> Tensor:
        """Weights of a training step, float32, which sum to 1; cools down."""
        logits = ops.convert_to_tensor(self.logits)
        uniform = keras.random.uniform(
            logits.shape, EPSILON, 1.0, dtype="float32", seed=self.seed_generator
        )
        gumbel = -ops.log(-ops.log(uniform))
        temperature = ops.convert_to_tensor(self.temperature)
        weights = ops.softmax((logits + gumbel) / temperature)
        if self.anneal_steps:
            ratio = self.final_temperature / self.initial_temperature
            cooler = temperature * ratio ** (1 / self.anneal_steps)
            self.temperature.assign(ops.maximum(cooler, self.final_temperature))
        return weights

    def probabilities(self) -> Tensor:
        """p, float32."""
        return ops.softmax(ops.convert_to_tensor(self.logits))

    def chosen(self) -> Tensor:
        """Index of the likeliest, int32."""
        return ops.cast(ops.argmax(ops.convert_to_tensor(self.logits), -1), "int32")

    # Keras does not save the state of seed generators.
    def save_own_variables(self, store: Store) -> None:
        super().save_own_variables(store)
        store["seed"] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store: Store) -> None:
        own = [key for key in store.keys() if key != "seed"]  # noqa: SIM118
        super().load_own_variables({key: store[key] for key in own})
        if "seed" in store:
            self.seed_generator.state.assign(store["seed"])

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "temperature": self.initial_temperature,
            "final_temperature": self.final_temperature,
            "anneal_steps": self.anneal_steps,
            "seed": self.seed,
        }


def check_annealing(
    temperature: float, final_temperature: float, anneal_steps: int
) -> tuple[float, float, int]:
    """The checked arguments of an annealed temperature."""
    start = _checks.check_range("temperature", temperature, 0, low_open=True)
    final = _checks.check_range(
        "final_temperature", final_temperature, 0, start, low_open=True
    )
    return start, final, _checks.check_int("anneal_steps", anneal_steps, 0)
