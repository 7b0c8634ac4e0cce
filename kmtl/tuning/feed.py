"""The data of a search, prepared once and not for every trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kmtl.training import inputs
from kmtl.training.batches import ShuffledBatches
from kmtl.weighting.base import Weighting

_ENDLESS = 2**62
_SMALL = 2_000_000  # parameters
_MOST_STEPS = 2000  # in one call, which nothing interrupts
_BATCH_HOOKS = (
    "on_batch_begin",
    "on_batch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_batch_begin",
    "on_test_batch_end",
)


class Feed:
    """Arrays given to `search`, checked once, in the form that trains fastest.

    On TensorFlow a pipeline that lives as long as the search: Keras would make one per
    trial, and iterators of it four times per epoch. The order of rows in an epoch is
    that of `ShuffledBatches`, so batches depend on the seed and the epoch alone.

    Args:
        model: A model of the search, for the checks.
        given: `fit`'s arguments: `x`, `y`, `sample_weight`, `validation_data`,
            `batch_size`, `validation_batch_size`.
    """

    def __init__(self, model: Any, given: Mapping[str, Any]):
        self._given = dict(given)
        self.batch_size = given.get("batch_size") or 32
        arrays = inputs.prepare(
            model, given["x"], given.get("y"), given.get("sample_weight")
        )
        self._train = keras.tree.map_structure(
            np.asarray, keras.utils.pack_x_y_sample_weight(*arrays)
        )
        self._validation = given.get("validation_data")
        if self._validation is not None:
            self._validation = inputs.prepare_validation(model, self._validation)
        self.rows = len(keras.tree.flatten(self._train)[0])
        self.steps = math.ceil(self.rows / self.batch_size)
        self._pipelines: Any = None

    def fits(self, given: Mapping[str, Any]) -> bool:
        """Whether this was made of these very objects."""
        return _same(self._given, dict(given))

    def is_pipeline(self, model: Any) -> bool:
        """Whether the data of that model go through `tf.data`."""
        if keras.backend.backend() != "tensorflow":
            return False
        import tensorflow as tf

        return not tf.distribute.has_strategy() and (
            model.distribute_strategy is tf.distribute.get_strategy()  # the default
        )

    def arguments(
        self, model: Any, seed: int, epochs: int, first_epoch: int
    ) -> dict[str, Any]:
        """Arguments of `fit` in the place of those given.

        Args:
            model: The model that will be trained.
            seed: Integer >= 0, decides the order of rows.
            epochs: Number of the last epoch.
            first_epoch: Number of the first epoch, 0-based.
        """
        order = ShuffledBatches(
            *self._train,
            batch_size=self.batch_size,
            seed=seed,
            first_epoch=first_epoch,
        )
        if not self.is_pipeline(model):
            return {"x": order, "validation_data": self._validation}
        if self._pipelines is None:
            self._pipelines = self._make_pipelines()
        train, orders, validation = self._pipelines
        orders.assign([order.order(epoch) for epoch in range(first_epoch, epochs)])
        weighting = Weighting if model.weighting is None else type(model.weighting)
        if weighting.on_fit_begin is not Weighting.on_fit_begin:
            validation = {"validation_data": self._validation}  # it takes arrays
        return {"x": train, "steps_per_epoch": self.steps, **validation}

    def _make_pipelines(self) -> tuple[Any, Any, dict[str, Any]]:
        import tensorflow as tf

        with tf.device("CPU:0"):
            # All epochs' orders at once: reading ahead over the end of one is harmless.
            orders = tf.Variable(
                tf.zeros((1, self.rows), tf.int32), shape=(None, self.rows)
            )
            train = keras.tree.map_structure(tf.constant, self._train)
        size, steps = self.batch_size, self.steps

        def batch(number: Any) -> Any:
            start = number % steps * size
            rows = orders[number // steps, start : start + size]
            return keras.tree.map_structure(lambda array: tf.gather(array, rows), train)

        pipeline = tf.data.Dataset.range(_ENDLESS).map(batch)
        return pipeline.prefetch(1), orders, self._validation_pipeline()

    def _validation_pipeline(self) -> dict[str, Any]:
        import tensorflow as tf

        given = self._validation
        if not isinstance(given, tuple):
            return {"validation_data": given}
        size = self._given.get("validation_batch_size") or self.batch_size
        with tf.device("CPU:0"):
            arrays = keras.tree.map_structure(tf.constant, given)
        steps = math.ceil(len(keras.tree.flatten(given)[0]) / size)

        def batch(number: Any) -> Any:
            start = number * size
            return keras.tree.map_structure(
                lambda array: array[start : start + size], arrays
            )

        # Of no known length, so that Keras makes one iterator per epoch and not two.
        numbers = tf.data.Dataset.range(_ENDLESS).take_while(lambda n: n < steps)
        pipeline = numbers.map(batch).prefetch(1)
        return {"validation_data": pipeline, "validation_steps": steps}


def choose_steps_per_execution(model: Any, steps: int, callbacks: Any) -> None:
    """Let a small model on TensorFlow run an epoch in one call, where nobody minds.

    Between steps of a small net, Python takes two thirds of the time.

    Args:
        model: Compiled model, not under a distribution strategy.
        steps: Number of steps of an epoch.
        callbacks: `fit`'s. Where one of them looks at batches, one step is one call.
    """
    chosen = 1
    if model.count_params() <= _SMALL and not any(map(_sees_batches, callbacks or ())):
        chosen = max(n for n in range(1, _MOST_STEPS + 1) if steps % n == 0)
    if model.steps_per_execution != chosen:
        model.steps_per_execution = chosen
        model.train_function = model.test_function = None


def _sees_batches(callback: Any) -> bool:
    own = keras.callbacks.Callback
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(own, name)
        for name in _BATCH_HOOKS
    )


def is_arrays(*parts: Any) -> bool:
    """Whether all leaves are numpy arrays, at least one (None counts as nothing)."""
    leaves = [leaf for part in parts for leaf in keras.tree.flatten(part)]
    leaves = [leaf for leaf in leaves if leaf is not None]
    return bool(leaves) and all(isinstance(leaf, np.ndarray) for leaf in leaves)


def _same(first: Any, second: Any) -> bool:
    """Equal containers of the same objects (numbers and names may be equal ones)."""
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(
            _same(first[key], second[key]) for key in first
        )
    if isinstance(first, (int, str)) and isinstance(second, (int, str)):
        return first == second
    return first is second
