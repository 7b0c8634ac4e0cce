"""Arrays for many trainings, prepared once and not for each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kmtl.data.plans import RowPlan
from kmtl.training import sources, targets, user_data
from kmtl.training.batches import ShuffledBatches, epoch_length
from kmtl.training.executions import sees_batches, set_steps
from kmtl.typing import Callbacks, Data, Options
from kmtl.weighting.base import Weighting

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

_ENDLESS = 2**62
_SMALL = 2_000_000  # parameters
_MOST_STEPS = 2000  # in one call, which nothing interrupts


class Feed:
    """Arrays for many calls of `fit`, checked once, in the form that trains fastest.

    On TensorFlow a pipeline that lives as long as this: Keras would make one for each
    call, and iterators of it four times per epoch. The order of rows in an epoch is
    that of `ShuffledBatches`, so batches depend on the seed and the epoch alone.

    Args:
        model: One of the models, for the checks.
        given: `fit`'s arguments: `x`, `y`, `sample_weight`, `validation_data`.
    """

    def __init__(self, model: MultiTaskModel, given: Mapping[str, Any]):
        self._given = dict(given)
        arrays = user_data.prepare(
            model, given["x"], given.get("y"), given.get("sample_weight")
        )
        self._train = _without_lists(
            keras.tree.map_structure(
                np.asarray, keras.utils.pack_x_y_sample_weight(*arrays)
            )
        )
        self._validation = given.get("validation_data")
        if self._validation is not None:
            validation = user_data.prepare_validation(model, self._validation)
            self._validation = _without_lists(validation)
        self.rows = len(keras.tree.flatten(self._train)[0])
        self._shares: dict[str, float] = {}
        self._tensors: Any = None
        #: By batch size and rows of an epoch.
        self._training: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._validating: dict[int, Any] = {}

    def fits(self, given: Mapping[str, Any]) -> bool:
        """Whether this was made of these very objects."""
        return _same(self._given, dict(given))

    def is_pipeline(self, model: MultiTaskModel) -> bool:
        """Whether the data of that model go through `tf.data`."""
        if keras.backend.backend() != "tensorflow":
            return False
        import tensorflow as tf

        return not tf.distribute.has_strategy() and (
            model.distribute_strategy is tf.distribute.get_strategy()  # the default
        )

    def steps(self, batch_size: int | None, plan: RowPlan | None = None) -> int:
        """Number of batches in an epoch."""
        batch_size = batch_size or 32
        return math.ceil(epoch_length(plan, self.rows, batch_size) / batch_size)

    def arguments(
        self, model: MultiTaskModel, seed: int, options: Options
    ) -> dict[str, Any]:
        """Arguments of `fit` in the place of those given, of which these are the rest.

        `seed` decides the order of rows.
        """
        plan, batch_size = options.get("plan"), options.get("batch_size") or 32
        epochs, first_epoch = options.get("epochs", 1), options.get("initial_epoch", 0)
        validation_size = options.get("validation_batch_size") or batch_size
        batches = ShuffledBatches(
            *self._train,
            batch_size=batch_size,
            seed=seed,
            first_epoch=first_epoch,
            plan=plan,
        )
        learn_labels(model, self._train, self._shares)
        steps = self.steps(batch_size, plan)
        # An endless pipeline does not end with the epoch in the middle of a call.
        if not self.is_pipeline(model) or steps % model.steps_per_execution:
            return {
                "x": batches,
                "validation_data": self._validation,
                "validation_batch_size": validation_size,
            }
        key = (batch_size, batches.length)
        if key not in self._training:
            self._training[key] = self._training_pipeline(*key)
        pipeline, orders = self._training[key]
        # All epochs at once: reading ahead over the end of one is harmless.
        rows = [batches.order(epoch) for epoch in range(first_epoch, epochs)]
        if rows:  # a training may go on after its last epoch
            orders.assign(rows)
        return {
            "x": pipeline,
            "steps_per_epoch": steps,
            **self._validation_arguments(model, validation_size),
        }

    def _training_pipeline(self, batch_size: int, length: int) -> tuple[Any, Any]:
        """Batches of epochs without end, and the variable with the rows' orders."""
        import tensorflow as tf

        with tf.device("CPU:0"):
            if self._tensors is None:
                self._tensors = keras.tree.map_structure(tf.constant, self._train)
            nothing = tf.zeros((1, length), tf.int32)
            orders = tf.Variable(nothing, shape=(None, length))
        tensors, steps = self._tensors, math.ceil(length / batch_size)

        def batch(number: Any) -> Any:
            start = number % steps * batch_size
            # Prefetching asks for more than the last epoch.
            epoch = tf.minimum(number // steps, tf.shape(orders, tf.int64)[0] - 1)
            rows = orders[epoch, start : start + batch_size]
            return keras.tree.map_structure(lambda t: tf.gather(t, rows), tensors)

        return tf.data.Dataset.range(_ENDLESS).map(batch).prefetch(1), orders

    def _validation_arguments(
        self, model: MultiTaskModel, batch_size: int
    ) -> dict[str, Any]:
        import tensorflow as tf

        weighting = Weighting if model.weighting is None else type(model.weighting)
        takes_arrays = weighting.on_fit_begin is not Weighting.on_fit_begin
        if takes_arrays or not isinstance(self._validation, tuple):
            return {
                "validation_data": self._validation,
                "validation_batch_size": batch_size,
            }
        if batch_size not in self._validating:
            with tf.device("CPU:0"):
                # No function of ours: iterators of such take ten times as long.
                slices = tf.data.Dataset.from_tensor_slices(self._validation)
            self._validating[batch_size] = slices.batch(batch_size)
        return {"validation_data": self._validating[batch_size]}


def learn_labels(model: MultiTaskModel, data: Data, shares: dict[str, float]) -> None:
    """Transforms of labels and `loss_weights="data"`, of the arrays themselves.

    `fit` would read them from a pipeline, and count for every training again what is
    kept in `shares`.
    """
    targets.adapt(model, *keras.utils.unpack_x_y_sample_weight(data))
    ruled = [n for n, layer in model.task_outputs.items() if layer.weight_rule]
    if ruled and not shares:
        shares.update(sources.label_shares(data, model.tasks))
    if ruled:
        model.set_task_weights({name: shares[name] for name in ruled})


def choose_steps_per_execution(
    model: MultiTaskModel, steps: int, callbacks: Callbacks
) -> None:
    """Let a small model on TensorFlow run an epoch in one call, where nobody minds.

    Between steps of a small net, Python takes two thirds of the time. Where a callback
    looks at batches, one step is one call.
    """
    chosen = 1
    if model.count_params() <= _SMALL and not sees_batches(callbacks):
        chosen = max(n for n in range(1, _MOST_STEPS + 1) if steps % n == 0)
    set_steps(model, chosen)


def is_arrays(*parts: Any) -> bool:
    """Whether all leaves are numpy arrays, at least one (None counts as nothing)."""
    leaves = [leaf for part in parts for leaf in keras.tree.flatten(part)]
    leaves = [leaf for leaf in leaves if leaf is not None]
    return bool(leaves) and all(isinstance(leaf, np.ndarray) for leaf in leaves)


def _without_lists(data: Data) -> Data:
    """Lists of inputs as tuples: `tf.data` takes a list for one tensor."""
    if isinstance(data, (list, tuple)):
        return tuple(_without_lists(part) for part in data)
    if isinstance(data, Mapping):
        return {name: _without_lists(part) for name, part in data.items()}
    return data


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
