"""What heads of some kinds of task end in: outputs in the form that is read."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.typing import Config, Shape, Tensor

#: float32 holds exp(x) up to 88; expected values and their squares have room.
MOST_EXPONENT = 40.0
#: softplus of this is 1.
ONE = 0.5413248546129181
_LEAST_SPREAD = 1e-2
_LEAST_LOG_ODDS = -20.0
#: Side of a box where its input is 0, and the range of the logarithm of its share.
_USUAL_SIZE, _LOG_SIZES = 0.2, (-8.0, 4.0)
#: Logit of the probability at which objects begin, 0.1: most cells have none.
_RARE = -2.1972246
#: Squared length up to which a vector has no direction.
_SHORTEST = 1e-12


class End(keras.layers.Layer):
    """A layer without weights that computes in float32; `call` says all."""

    def __init__(self, **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def build(self, input_shape: Shape) -> None:
        self._input_shape = tuple(input_shape)
        self.built = True

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def to_keras(self) -> keras.Model:
        """The same of Keras' own operations."""
        inputs = keras.Input(batch_shape=self._input_shape, dtype="float32")
        return keras.Model(inputs, self.call(inputs), name=self.name)


def exponential(raw: Tensor, straight: float | None = None) -> Tensor:
    """exp(raw), at most that of 40; above `straight` its tangent there, a line.

    An input far from all others gives no infinite number, of which 0 times is not 0
    where it has no label. A line besides keeps what a step of training changes in
    bounds: of an exponential the gradient of a likelihood grows as it does, and one row
    can undo what all others have taught.
    """
    if straight is None:
        return ops.exp(ops.minimum(raw, MOST_EXPONENT))
    # (No further than float32 holds.)
    line = math.exp(straight) * (1.0 + ops.clip(raw - straight, 0.0, 1e12))
    return ops.where(raw > straight, line, ops.exp(ops.minimum(raw, straight)))


@keras.saving.register_keras_serializable(package="kmtl")
class UnitVectors(End):
    """Vectors on the last axis, divided by their length.

    One of length 0 (up to 1e-6), such as behind units that have died, stays as it is,
    and its gradient is finite: that of `keras.layers.UnitNormalization` is NaN at 0 on
    JAX.

    Example:

    >>> layer = kmtl.layers.UnitVectors()
    >>> np.round(np.asarray(layer(np.array([[3.0, 4.0], [0.0, 0.0]]))), 4).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """

    def call(self, inputs: Tensor) -> Tensor:
        inputs = ops.cast(inputs, "float32")
        squares = ops.sum(ops.square(inputs), axis=-1, keepdims=True)
        return inputs * ops.rsqrt(ops.where(squares > _SHORTEST, squares, 1.0))


@keras.saving.register_keras_serializable(package="kmtl")
class LogSurvival(End):
    """Logits of the hazard in each interval to the log of the probability of being
    there at its end; inputs and outputs `(N, K)`.

    Example:

    >>> layer = kmtl.layers.LogSurvival()
    >>> np.exp(layer(np.zeros((1, 3)))).tolist()
    [[0.5, 0.25, 0.125]]
    """

    def call(self, inputs: Tensor) -> Tensor:
        return ops.cumsum(ops.log_sigmoid(-inputs), axis=-1)


@keras.saving.register_keras_serializable(package="kmtl")
class ZeroInflatedMean(End):
    """Raw numbers to the expected value of what is 0 or not, and its parts.

    Args:
        family: `"lognormal"`: inputs `(N, 3)` are the log-odds of being above 0, and
            location and raw spread of the logarithm; outputs `(N, 3)` the expected
            value, the probability, and the spread (1 where its input is 0).
            `"poisson"`: inputs `(N, 2)` are log-odds and the log of the rate; outputs
            `(N, 2)` the expected count, and the probability.
        straight: Logarithm above which the expected value of what is not 0 grows in a
            line (see `exponential`). None: nowhere.
    """

    def __init__(
        self,
        family: str = "lognormal",
        straight: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.family = family
        self.straight = straight

    def call(self, inputs: Tensor) -> Tensor:
        inputs = ops.cast(inputs, "float32")
        # At least 2e-9: what is divided by the square of less is infinite.
        share = ops.sigmoid(ops.maximum(inputs[..., :1], _LEAST_LOG_ODDS))
        location = inputs[..., 1:2]
        if self.family == "poisson":
            mean = share * exponential(location, self.straight)
            return ops.concatenate([mean, share], axis=-1)
        spread = ops.softplus(inputs[..., 2:] + ONE) + _LEAST_SPREAD
        mean = exponential(location + 0.5 * ops.square(spread), self.straight)
        return ops.concatenate([share * mean, share, spread], axis=-1)

    def get_config(self) -> Config:
        own = {"family": self.family, "straight": self.straight}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="kmtl")
class Rate(End):
    """The exponential, in float32: half precision ends at exp(11).

    Args:
        straight: Above this it is a line; see `exponential`. None: nowhere.
    """

    def __init__(self, straight: float | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.straight = straight

    def call(self, inputs: Tensor) -> Tensor:
        return exponential(ops.cast(inputs, "float32"), self.straight)

    def get_config(self) -> Config:
        return {**super().get_config(), "straight": self.straight}


@keras.saving.register_keras_serializable(package="kmtl")
class Positive(End):
    """A softplus, never below 1e-4, in float32."""

    def call(self, inputs: Tensor) -> Tensor:
        return ops.softplus(ops.cast(inputs, "float32")) + 1e-4


@keras.saving.register_keras_serializable(package="kmtl")
class ExpectedPlace(End):
    """Heat maps to the place that each expects: a softmax over the map, and the mean of
    the places with its weights.

    Inputs `(N, H, W, K)`; outputs `(N, K, 2)`, x in widths and y in heights, where the
    first pixel's middle is at half a pixel.

    Example:

    >>> heat = np.zeros((1, 2, 4, 1))
    >>> heat[0, 1, 3] = 100.0
    >>> np.array(kmtl.layers.ExpectedPlace()(heat)).tolist()
    [[[0.875, 0.75]]]
    """

    def call(self, inputs: Tensor) -> Tensor:
        heat = ops.cast(inputs, "float32")
        height, width, points = heat.shape[1:]
        flat = ops.reshape(heat, (-1, height * width, points))
        share = ops.softmax(flat, axis=1)
        rows, columns = np.divmod(np.arange(height * width), width)
        x = ((columns + 0.5) / width).astype("float32")[None, :, None]
        y = ((rows + 0.5) / height).astype("float32")[None, :, None]
        places = [ops.sum(share * x, axis=1), ops.sum(share * y, axis=1)]
        return ops.stack(places, axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[-1], 2)


@keras.saving.register_keras_serializable(package="kmtl")
class CellBoxes(End):
    """Raw numbers of a grid of cells to logits of classes, and a box for every cell.

    Inputs and outputs `(N, h, w, classes + 4)`. The last four of the inputs are the
    middle's distance from that of the cell, x and y in cells, and the logarithms of
    width and height, in fifths of the picture; of the outputs x_min, y_min, x_max,
    y_max, in widths and heights of the picture. Classes begin at a probability of 0.1.

    Example:

    >>> boxes = kmtl.layers.CellBoxes()(np.zeros((1, 2, 2, 5)))
    >>> np.array(boxes, "float64")[0, 0, 1].round(2).tolist()
    [-2.2, 0.65, 0.15, 0.85, 0.35]
    """

    def call(self, inputs: Tensor) -> Tensor:
        inputs = ops.cast(inputs, "float32")
        height, width = inputs.shape[1:3]
        rows, columns = np.mgrid[:height, :width]
        middles = np.stack([columns, rows], axis=-1).astype("float32") + 0.5
        size = np.array([width, height], "float32")
        middle = (inputs[..., -4:-2] + middles) / size
        log_size = ops.clip(inputs[..., -2:], *_LOG_SIZES)
        half = 0.5 * _USUAL_SIZE * ops.exp(log_size)
        parts = [inputs[..., :-4] + _RARE, middle - half, middle + half]
        return ops.concatenate(parts, axis=-1)
