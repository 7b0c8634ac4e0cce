"""Training that ends with averages of its weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._private.keras import sublayers
from kmtl.tasks.output import TaskOutput
from kmtl.training import sources, values
from kmtl.training.freezing import averages, part_from_averages
from kmtl.training.saved_state import array_of
from kmtl.typing import Data, Inputs, Layer, Logs, Model, Tensor, Variable

logger = logging.getLogger("kmtl")

#: Share of the epochs before weights are averaged, where nothing is said.
LATE = 0.75


class WeightAverage(keras.callbacks.Callback):
    """Validates, keeps and ends with averages of the weights.

    With an optimizer that averages (`keras.optimizers.Adam(..., use_ema=True)`) these
    are its exponential moving averages, over the steps. With any other it is the mean
    of the weights at the ends of the epochs from `start` on (stochastic weight
    averaging, for which the learning rate should stay high). What `fit` validates, what
    the callbacks behind this one keep (`BestEpoch`, `ModelCheckpoint`,
    `kmtl.training.fit_run`), and what the model has in the end are the averages;
    training goes on from the weights themselves, unchanged to the last bit.

    Put it before callbacks that keep weights. (`keras.callbacks.SwapEMAWeights`, which
    does the first half of this, rounds the weights each time, and a run that was killed
    cannot go on with it.)

    Args:
        start: First epoch, from 0, of which the weights count. Defaults to the last
            quarter of the epochs; with `use_ema`, to the first.
        data: Training data, as `fit` takes them, on which the statistics of batch
            normalisation are taken anew: those of a training are for other weights.
            Read once per averaged epoch. Needed where the mean over epochs is taken of
            a model with batch normalisation.
        batch_size: Rows per batch of these, where they are arrays. Defaults to 32.

    Raises:
        ValueError: in `fit`, for a model with batch normalisation without `data`.

    Example:

    >>> from kmtl.training import WeightAverage
    >>> model = kmtl.build_mlp(
    ...     input_shape=(2,), tasks=[kmtl.Regression("size")], units=(4,), seed=0
    ... )
    >>> model.compile("sgd")
    >>> x, y = np.ones((8, 2)), {"size": np.ones(8)}
    >>> average = WeightAverage(start=2)
    >>> history = model.fit(x, y, epochs=5, callbacks=[average], verbose=0)
    >>> average.count
    3

    Reference: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
    Generalization", UAI 2018, arXiv:1803.05407; Polyak and Juditsky, SIAM J. Control
    Optim. 30 (1992).
    """

    def __init__(
        self,
        start: int | None = None,
        data: Data | None = None,
        batch_size: int = 32,
    ):
        super().__init__()
        self.start = None if start is None else _checks.check_int("start", start, 0)
        self.data = data
        self.batch_size = _checks.check_int("batch_size", batch_size, 1)
        # Kept by `RunCheckpoint`: a run goes on with the weights, not their averages.
        self.count = 0
        self.average: list[np.ndarray] = []
        self.trained: list[np.ndarray] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        moving = averages(self.model.optimizer)
        if self.data is None and not moving and _normalizations(self.model):
            raise ValueError(
                "`data` of WeightAverage must be the training data for a model with "
                "batch normalisation: its statistics are for other weights than their "
                "mean. Received: data=None"
            )
        epochs = int(self.params["epochs"])
        first = self.start
        if first is None:
            first = 0 if moving else int(LATE * epochs)
        self._first = first
        self.count, self.average, self.trained = 0, [], []
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch
        self._training = True
        if self.trained:
            values.assign(averaged_variables(self.model), self.trained)
            self.trained = []

    def on_test_begin(self, logs: Logs | None = None) -> None:
        if getattr(self, "_training", False):
            self._show()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self._training:  # without validation in this epoch
            self._show()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if not self.count:
            logger.warning(
                "WeightAverage averaged nothing: training ended before epoch %d.",
                self._first,
            )

    def _show(self) -> None:
        """Put the averages into the model until the next epoch begins."""
        self._training = False
        if self._epoch < self._first:
            return
        model = self.model
        variables = averaged_variables(model)
        # Copies: a step on JAX writes over the arrays that it was given.
        trained = [array_of(variable) for variable in variables]
        self.trained = trained
        self.count += 1
        if averages(model.optimizer):
            model.optimizer.finalize_variable_values(model.trainable_variables)
            part_from_averages(model)
        else:
            if not self.average:
                self.average = [value.astype("float64") for value in trained]
            # What does not change stays the same to the last bit.
            self.average = [
                mean + (value - mean) / self.count
                for mean, value in zip(self.average, trained, strict=True)
            ]
            values.assign(variables, self.average)
        if self.data is not None:
            estimate_statistics(model, self.data, self.batch_size)


def averaged_variables(model: Model) -> list[Variable]:
    """The numbers that a net learns, in a fixed order, whatever is frozen just now."""
    return [
        variable
        for layer in model.layers
        if not isinstance(layer, TaskOutput)
        for variable in layer.variables
        if keras.backend.is_float_dtype(variable.dtype)
    ]


# -- batch normalisation ---------------------------------------------------------------


def _normalizations(model: Model) -> list[Layer]:
    return [
        layer
        for layer in sublayers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


def estimate_statistics(model: Model, data: Data, batch_size: int = 32) -> None:
    """Take the statistics of batch normalisation anew, for the weights as they are.

    They become the means over the batches of the data, in which every row counts as
    much: a smaller last batch less. Nothing else changes.

    Args:
        model: The model.
        data: As `fit` takes them; labels are not looked at.
        batch_size: Rows per batch, for arrays.
    """
    layers = _normalizations(model)
    if not layers:
        return
    moments = [layer.momentum for layer in layers]
    moved = {id(v) for layer in layers for v in layer.non_trainable_variables}
    others = [v for v in model.non_trainable_variables if id(v) not in moved]
    before = values.read(others)
    try:
        seen = 0
        for x in _batches(model, data, batch_size):
            rows = int(ops.shape(keras.tree.flatten(x)[0])[0])
            if not rows:
                continue
            for layer in layers:
                layer.momentum = seen / (seen + rows)  # a mean over all so far
            model(x, training=True)
            seen += rows
    finally:
        for layer, momentum in zip(layers, moments, strict=True):
            layer.momentum = momentum
        values.assign(others, before)


def _batches(model: Model, data: Data, batch_size: int) -> Iterator[Inputs]:
    arrays = sources.arrays_of(data)
    if arrays is not None:
        x = model.prepare_inputs(keras.utils.unpack_x_y_sample_weight(arrays)[0])
        rows = len(keras.tree.flatten(x)[0])
        for begin in range(0, rows, batch_size):
            end = begin + batch_size
            yield keras.tree.map_structure(lambda a, b=begin, e=end: _part(a, b, e), x)
        return
    for batch in data:
        yield model.prepare_inputs(keras.utils.unpack_x_y_sample_weight(batch)[0])


def _part(array: Any, begin: int, end: int) -> Tensor:
    return ops.convert_to_tensor(array[begin:end])
