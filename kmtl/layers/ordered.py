"""Outputs in an order: classes along a scale, and quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.layers.ends import End
from kmtl.typing import Config, Shape, Tensor

METHODS = ("coral", "corn")
#: Thresholds are at least this far apart: no class has the probability 0.
_GAP = 1e-3


def _inverse_softplus(value: np.ndarray) -> np.ndarray:
    return np.log(np.expm1(value))


@keras.saving.register_keras_serializable(package="kmtl")
class OrderedClasses(keras.layers.Layer):
    """Log-probabilities of classes in an order, in float32.

    Args:
        classes: Number of classes C, >= 3 (or 2, where nothing is to be ordered).
        method: `"coral"` (Cao et al. 2020, arXiv:1901.07884): inputs `(N, 1)` are
            scores, to which C - 1 learned thresholds in decreasing order are added:
            the logits of "above class k". They start where all classes have the same
            probability. `"corn"` (Shi et al. 2023, arXiv:2111.08851): inputs
            `(N, C - 1)` are the logits of "above class k, given that it is not below".

    Returns:
        Log-probabilities `(N, C)`, which are also logits of a softmax.
    """

    def __init__(self, classes: int, method: str = "coral", **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.classes = classes
        self.method = method

    def build(self, input_shape: Shape) -> None:
        self._input_shape = tuple(input_shape)
        self.thresholds = None
        if self.method == "coral":
            share = np.arange(1, self.classes) / self.classes
            even = np.log((1.0 - share) / share)  # the logit of "above", per class
            start = np.append(even[:1], _inverse_softplus(-np.diff(even) - _GAP))
            self.thresholds = self.add_weight(
                name="thresholds",
                shape=(self.classes - 1,),
                initializer=keras.initializers.Constant(start),
                dtype="float32",
            )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        cuts = self._cuts() if self.method == "coral" else ()
        return self._log_probabilities(ops.cast(inputs, "float32"), cuts)

    def _cuts(self) -> tuple[Tensor, ...]:
        """The first threshold, how far each is from it, and the log of what their
        distances leave between them."""
        thresholds: Any = self.thresholds
        gaps = ops.softplus(thresholds[1:]) + _GAP
        below = ops.concatenate([thresholds[:1] * 0.0, ops.cumsum(gaps)], axis=0)
        return thresholds[:1] * 1.0, below, ops.log(-ops.expm1(-gaps))

    def _log_probabilities(self, inputs: Tensor, cuts: Sequence[Tensor]) -> Tensor:
        if self.method == "corn":
            logits, passed = inputs, ops.cumsum(ops.log_sigmoid(inputs), axis=-1)
            stopped = ops.log_sigmoid(-logits)
            first = stopped[..., :1]
            middle = passed[..., :-1] + stopped[..., 1:]
            return ops.concatenate([first, middle, passed[..., -1:]], axis=-1)
        start, below, share = cuts
        logits = inputs + start - below
        above, under = ops.log_sigmoid(logits), ops.log_sigmoid(-logits)
        # s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), which loses no digits.
        between = above[..., :-1] + under[..., 1:] + share
        return ops.concatenate([under[..., :1], between, above[..., -1:]], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.classes)

    def to_keras(self) -> keras.Model:
        """The same of Keras' own operations."""
        # As NumPy's arrays: tensors of now would become inputs of an ONNX file.
        cuts = self._cuts() if self.method == "coral" else ()
        given = [ops.convert_to_numpy(part) for part in cuts]
        inputs = keras.Input(batch_shape=self._input_shape, dtype="float32")
        outputs = self._log_probabilities(inputs, given)
        return keras.Model(inputs, outputs, name=self.name)

    def get_config(self) -> Config:
        config = super().get_config()
        return {**config, "classes": self.classes, "method": self.method}


@keras.saving.register_keras_serializable(package="kmtl")
class Increasing(End):
    """Columns in increasing order: the first, and positive steps from each to the next.

    Inputs and outputs `(N, Q)`; the steps are softplus of the other inputs. Quantiles
    made so cannot cross. In float32: a small step beside a large first column would be
    lost in half precision.
    """

    def call(self, inputs: Tensor) -> Tensor:
        inputs = ops.cast(inputs, "float32")
        steps = ops.softplus(inputs[..., 1:])
        return ops.cumsum(ops.concatenate([inputs[..., :1], steps], axis=-1), axis=-1)
