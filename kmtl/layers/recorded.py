"""Layers that have something to show: gates, stitches, branches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

from kmtl.layers.own_losses import OwnLosses
from kmtl.typing import Variable

#: Examples after which a mean forgets half of what it saw: float32 sums of more would
#: not move any longer.
FULL = 2.0**22


class Recorded(OwnLosses):
    """Base class of layers whose inner workings are recorded over training.

    The protocol, which plots and recording callbacks use and nothing else:

    - `readings()` gives a dict name -> NumPy array. The name says whose reading it is
      (`"digit"` for the gate of task digit); the layer's name says where.
    - `reading_labels()` gives what the entries along the last axis stand for, where
      that is worth a name (experts, branches), else `()`.
    - `reset_readings()` starts a new mean; nothing else forgets one.

    A layer whose readings are values of its variables overrides `readings`. A layer
    whose readings depend on the inputs calls `add_reading` in `build` and `record` in
    `call` while training; its readings are then means over the examples since the last
    reset, NaN where there was none; after some million examples without a reset the
    older half counts less and less. The sums are non-trainable float32 variables, which
    every backend carries through a step; under `tf.distribute` they are of all
    replicas.

    Example:

    >>> class Gate(kmtl.layers.Recorded):
    ...     def build(self, input_shape):
    ...         self.add_reading("digit", (input_shape[-1],))
    ...         self.built = True
    ...     def call(self, inputs, training=False):
    ...         weights = keras.ops.softmax(inputs)
    ...         if training:
    ...             self.record(digit=weights)
    ...         return weights
    >>> gate = Gate()
    >>> outputs = gate(np.zeros((3, 2)), training=True)
    >>> gate.readings()
    {'digit': array([0.5, 0.5], dtype=float32)}
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._reading_sums: dict[str, Variable] = {}
        self._reading_count: Any = None

    def add_reading(self, name: str, shape: tuple[int, ...]) -> None:
        """Make the variables of a mean; for `build`.

        Args:
            name: Of the reading.
            shape: Of the mean, without the batch axis.
        """
        if self._reading_count is None:
            self._reading_count = self._reading_variable("reading_count", ())
        self._reading_sums[name] = self._reading_variable(f"{name}_reading_sum", shape)

    def _reading_variable(self, name: str, shape: tuple[int, ...]) -> Variable:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer="zeros",
            trainable=False,
            dtype="float32",
            autocast=False,  # a sum over an epoch does not fit half precision
            aggregation="mean",  # of the sums and of the count: their ratio is exact
        )

    def record(self, **values: Any) -> None:
        """Add a batch to the means; for `call`, and only while training.

        Args:
            **values: Name -> tensor `(N, *shape)`, for all readings of the layer.
        """
        kept = ops.where(self._reading_count > FULL, 0.5, 1.0)
        for name, value in values.items():
            value = ops.stop_gradient(ops.cast(value, "float32"))
            total = self._reading_sums[name]
            total.assign(total * kept + ops.sum(value, axis=0))
            rows = ops.cast(ops.shape(value)[0], "float32")
        self._reading_count.assign(self._reading_count * kept + rows)

    def readings(self) -> dict[str, np.ndarray]:
        """What there is to show now, as a dict name -> NumPy array."""
        if self._reading_count is None:
            return {}
        count = float(ops.convert_to_numpy(self._reading_count)) or math.nan
        return {
            name: np.asarray(ops.convert_to_numpy(total) / np.float32(count))
            for name, total in self._reading_sums.items()
        }

    def reading_labels(self) -> tuple[str, ...]:
        """Names of the entries along the last axis of a reading, or `()`."""
        return ()

    def reset_readings(self) -> None:
        """Start new means."""
        for variable in self._reading_variables():
            variable.assign(ops.zeros(variable.shape, variable.dtype))

    def _reading_variables(self) -> list:
        counts = [] if self._reading_count is None else [self._reading_count]
        return [*counts, *self._reading_sums.values()]

    def plain_weights(self) -> list[np.ndarray]:
        """The weights without the sums: those of the layer that `to_keras` makes."""
        sums = {id(variable) for variable in self._reading_variables()}
        return [
            ops.convert_to_numpy(variable)
            for variable in self.weights
            if id(variable) not in sums
        ]
