"""Dropout whose rate is a variable."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kmtl._checks import check_range
from kmtl.typing import Config, Seed, Shape, Store, Tensor

#: Keras' layers that draw while training, frozen or not, with a `rate` or `stddev`.
KERAS_NOISE = (
    keras.layers.AlphaDropout,
    keras.layers.Dropout,  # and the spatial ones
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)
#: Part of what rates are called in configs of layers that drop something inside:
#: `dropout`, `recurrent_dropout`, `attention_dropout`, `drop_path`.
DROP = "drop"


class _Drawn(keras.random.SeedGenerator):
    """A seed that was drawn before: a branch must not change a variable on JAX."""

    def __init__(self, seed: Seed):  # has no state of its own
        self._seed = seed

    def next(self, ordered: bool = True) -> Seed:
        return self._seed


class _Rate(keras.Variable):
    """A rate that says without a look at the device whether it may be above 0."""

    def __init__(self, rate: float):
        super().__init__(
            keras.initializers.Constant(rate),
            shape=(),
            dtype="float32",
            trainable=False,
            autocast=False,  # 0.1 is not 0.1 in bfloat16
            name="rate",
        )
        self.raised = rate > 0

    def assign(self, value: Any) -> Any:
        try:
            self.raised = float(value) != 0
        except TypeError:  # not a number before its graph has run
            self.raised = True
        return super().assign(value)


#: Gets the layers at rate 0 that the step being traced leaves out; None: it has all.
_LEFT_OUT: contextvars.ContextVar[set[Dropout] | None] = contextvars.ContextVar(
    "left_out", default=None
)


def watched(make: Callable[[], Callable], left_out: set[Dropout]) -> Callable:
    """A compiled step without the layers at rate 0, made anew when one is raised.

    Args:
        make: Gives the step, not traced yet.
        left_out: Gets the layers that are not in it.
    """
    step = make()

    def run(*args: Any) -> Any:
        nonlocal step
        if any(layer.is_raised() for layer in left_out):
            left_out.clear()
            step = make()
        token = _LEFT_OUT.set(left_out)
        try:
            return step(*args)
        finally:
            _LEFT_OUT.reset(token)

    return run


@keras.saving.register_keras_serializable(package="kmtl")
class Dropout(keras.layers.Layer):
    """Dropout with a rate that can change on a compiled model.

    Like `keras.layers.Dropout`, but the rate is a non-trainable variable: it can be set
    on a compiled model (`model.set_dropout`), searched over without rebuilding, and is
    saved with the weights. At rate 0 the training steps of a `kmtl.MultiTaskModel`
    leave the layer out until its rate is raised, and are traced once more then; in
    all else a branch on the variable draws no mask. (In a population, whose trials run
    side by side, every trial draws its mask.) The seed moves on in every training step
    that has the layer, whatever the rate.

    Args:
        rate: Share of inputs set to zero while training, in [0, 1). The others are
            scaled by 1 / (1 - rate).
        seed: Integer for reproducible masks, or None.

    Reference: Srivastava et al., JMLR 15 (2014).
    """

    def __init__(self, rate: float = 0.5, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self._initial_rate = check_range("rate", rate, 0, 1, high_open=True)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        self.rate = _Rate(self._initial_rate)
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training or not self.trainable:  # frozen: heads see what they will see
            return inputs
        left_out = _LEFT_OUT.get()
        if left_out is not None and not self.is_raised():
            left_out.add(self)
            return inputs
        rate = ops.convert_to_tensor(self.rate)
        seed = _Drawn(self.seed_generator.next())

        def dropped() -> Tensor:
            noise = keras.random.uniform(ops.shape(inputs), dtype="float32", seed=seed)
            scale = ops.cast(1.0 / (1.0 - rate), inputs.dtype)
            return ops.where(noise >= rate, inputs * scale, ops.zeros_like(inputs))

        return ops.cond(rate > 0, dropped, lambda: inputs)

    def set_rate(self, rate: float) -> None:
        """Assign the rate, in [0, 1)."""
        self.rate.assign(check_range("rate", rate, 0, 1, high_open=True))

    def current_rate(self) -> float:
        """The rate now, as a Python float."""
        return (
            float(ops.convert_to_numpy(self.rate))
            if self.built
            else (self._initial_rate)
        )

    def is_raised(self) -> bool:
        """Whether the rate may be above 0, for who asks in every step."""
        return self.rate.raised

    def look(self) -> None:
        """Let `is_raised` know what has not passed `rate.assign`, as a checkpoint."""
        self.rate.raised |= self.current_rate() > 0

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def to_keras(self) -> keras.layers.Layer:
        """The plain Keras layer with the current rate."""
        return keras.layers.Dropout(
            round(self.current_rate(), 7), seed=self.seed, name=self.name
        )

    # Keras does not save the state of seed generators. With it a model goes on after
    # loading with the masks that it would have drawn.
    def save_own_variables(self, store: Store) -> None:
        super().save_own_variables(store)
        store["seed"] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store: Store) -> None:
        super().load_own_variables({"0": store["0"]})
        if "seed" in store:
            self.seed_generator.state.assign(store["seed"])

    def get_config(self) -> Config:
        # The initial rate, which rebuilds the layer; the current one is a weight.
        config = super().get_config()
        return {**config, "rate": self._initial_rate, "seed": self.seed}
