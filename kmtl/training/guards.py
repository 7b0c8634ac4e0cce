"""What may not happen in silence: labels out of range, numbers that are not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops

from kmtl.tasks.base import Task
from kmtl.training.labels import with_weight
from kmtl.training.values import read
from kmtl.typing import Inputs, Model, SampleWeight, Shape, Tensor, Variable

#: A variable of more entries is summed where it is, a smaller one is read.
MANY_ENTRIES = 100_000
#: What to do about numbers that are not finite.
REMEDY = (
    "Scale labels and inputs, lower the learning rate, or clip gradients "
    "(`clipnorm=1.0`)"
)


class NonFiniteError(FloatingPointError):
    """A loss or a weight of a model became NaN or infinite.

    Args:
        message: What happened, and where.
        tasks: Names of the tasks whose loss it was, or that the weight serves.
        epoch: Number of the epoch, from 1; None outside `fit`.
        step: Number of the step in the epoch, from 1; None where only the epoch is
            known.
        logs: Logs of that epoch, as far as it went.
    """

    def __init__(
        self,
        message: str,
        tasks: Sequence[str] = (),
        epoch: int | None = None,
        step: int | None = None,
        logs: Mapping[str, float] | None = None,
    ):
        super().__init__(message)
        self.tasks = tuple(tasks)
        self.epoch = epoch
        self.step = step
        self.logs = dict(logs or {})


class Guards(keras.metrics.Metric):
    """Flags of an epoch, on the device: read once at its end.

    A metric, so that Keras resets the flags with each epoch, keeps them per replica and
    carries them through compiled steps. It has no log.

    The losses of every step are looked at; labels, inputs and sample weights only in
    steps on data sets and generators, since arrays are checked before.

    Args:
        tasks: The tasks, in the model's order.
        shapes: Shapes of their outputs, without the batch.
        inputs: Names of the model's inputs.
    """

    def __init__(
        self, tasks: Sequence[Task], shapes: Sequence[Shape], inputs: Sequence[str]
    ):
        super().__init__(name="guards", dtype="float32")
        self.tasks = tuple(tasks)
        self.shapes = tuple(shapes)
        self.inputs = tuple(inputs)
        count = len(self.tasks)
        #: Entries of the flags: labels too high, too low, against another rule, sample
        #: weights, inputs.
        self.entries = 4 * count + len(self.inputs)
        #: Steps in a row without a non-finite loss per task, and all steps.
        self.clean_losses = self.add_variable(
            (count + 1,), "zeros", dtype=self.dtype, name="losses"
        )
        #: By how much an entry exceeded what it may be, so far.
        self.excess = self.add_variable(
            (self.entries,), "zeros", dtype=self.dtype, name="excess"
        )
        #: Steps in a row without any excess.
        self.clean_data = self.add_variable(
            (self.entries,), "zeros", dtype=self.dtype, name="data"
        )

    def update_state(self, running_losses: Tensor, data: tuple | None = None) -> None:
        """Note a step.

        Args:
            running_losses: `(T,)`, sums of the weighted losses since the reset: not
                finite from the first such step on.
            data: What `look` gave, or None for data that were checked before.
        """
        finite = ops.cast(ops.isfinite(running_losses), "float32")
        self.clean_losses.assign_add(
            ops.concatenate([finite, ops.ones((1,), "float32")])
        )
        if data is not None:
            excess = ops.maximum(self.excess, data)
            self.excess.assign(excess)
            self.clean_data.assign_add(ops.cast(excess <= 0, "float32"))

    def look(
        self,
        x: Inputs,
        y: Mapping,
        highest: Tensor,
        lowest: Tensor,
        sample_weight: SampleWeight,
    ) -> Tensor:
        """By how much the data of a batch exceed what they may be, `(entries,)`.

        Args:
            x: Inputs.
            y: Dict task name -> labels as given.
            highest, lowest: Of the labels that are there, float32 `(T,)`.
            sample_weight: As given.
        """
        low, high = np.array([task.label_range for task in self.tasks], "float32").T
        above, below = highest - high, low - lowest
        broken = [
            self._is_broken(*pair, y, sample_weight)
            for pair in zip(self.tasks, self.shapes, strict=True)
        ]
        weights = [_is_bad_weight(sample_weight, task.name) for task in self.tasks]
        inputs = [_is_not_finite(part) for part in self._parts(x)]
        return ops.concatenate([above, below, _stack([*broken, *weights, *inputs])])

    def _is_broken(
        self, task: Task, shape: Shape, y: Mapping, sample_weight: SampleWeight
    ) -> Tensor | None:
        """1.0 where a label that counts is against a rule of its task."""
        labels = y.get(task.name)
        if labels is None:
            return None
        there = with_weight(labels, sample_weight, task.name)
        broken = task.breaks_rule(labels, shape, there)
        return None if broken is None else _flag(broken)

    def _parts(self, x: Inputs) -> list:
        if isinstance(x, Mapping):
            return [x.get(name) for name in self.inputs]
        found = keras.tree.flatten(x)
        return [*found, *[None] * len(self.inputs)][: len(self.inputs)]

    def result(self) -> Tensor:
        return ops.zeros((), "float32")  # no log; Keras asks every metric

    def check(self, model: Model, place: str, epoch: int | None = None) -> None:
        """Raise for what the flags say, and reset them; see `check_guards`."""
        losses = _lowest(model, self.clean_losses)
        excess = -_lowest(model, self.excess, sign=-1)
        if not (excess > 0).any() and (losses == losses[-1]).all():
            return
        clean = _lowest(model, self.clean_data)
        self.reset_state()
        if (excess > 0).any():
            entry = int(np.argmin(np.where(excess > 0, clean, np.inf)))
            raise ValueError(
                f"{self._tell(entry, excess[entry])}, first in step "
                f"{int(clean[entry]) + 1} {place}. Mend the data: do not trust what "
                "was trained or measured on them"
            )
        step = int(losses[:-1].min()) + 1
        names = [
            task.name
            for task, count in zip(self.tasks, losses, strict=False)
            if count + 1 == step
        ]
        raise NonFiniteError(
            f"The loss of task{'s' if len(names) > 1 else ''} {', '.join(names)} was "
            f"NaN or infinite in step {step} {place}. {REMEDY}",
            tasks=names,
            epoch=epoch,
            step=step,
            logs=_logs(model),
        )

    def _tell(self, entry: int, excess: float) -> str:
        count = len(self.tasks)
        if entry >= 4 * count:
            name = self.inputs[entry - 4 * count]
            return f"Input '{name}' must be finite numbers. Received: NaN or infinity"
        task = self.tasks[entry % count]
        if entry >= 3 * count:
            return (
                f"`sample_weight` of task '{task.name}' must be finite numbers >= 0. "
                "Received: a negative one, NaN or infinity"
            )
        if entry >= 2 * count:
            return f"{task.label_rule}. Received: {task.broken_label}"
        low, high = task.label_range
        value = high + excess if entry < count else low - excess
        if not np.isfinite(excess):
            shown = "infinity"
        elif task.class_count is not None and value == int(value):
            shown = str(int(value))
        else:
            shown = f"{value:g}"
        return f"{task.label_rule}. Received: {shown}"


def non_finite_loss(logs: Mapping[str, float]) -> str | None:
    """Name of a total loss that is no number; None if there is none.

    (No label counts as 0.)
    """
    losses = (name for name in ("loss", "val_loss") if name in logs)
    return next((name for name in losses if not np.isfinite(logs[name])), None)


def check_losses(logs: Mapping[str, float], epoch: int) -> None:
    """Refuse the logs of an epoch, from 1, as `fit` refuses steps within it.

    Raises:
        NonFiniteError: for a total loss that is no number.
    """
    name = non_finite_loss(logs)
    if name is not None:
        raise NonFiniteError(
            f"`{name}` was {logs[name]} in epoch {epoch}. {REMEDY}",
            epoch=epoch,
            logs=logs,
        )


def check_guards(
    model: Model, place: str, epoch: int | None = None, weights: bool = True
) -> None:
    """Raise for what the flags of a model or its weights say.

    Args:
        model: A compiled model.
        place: Where it happened, such as "of epoch 3".
        epoch: Number of the epoch, from 1.
        weights: Whether to look at the weights. False: that was done since they moved.

    Raises:
        ValueError: for labels, inputs or sample weights out of range.
        NonFiniteError: for a loss or a weight that is not finite.
    """
    model._state.guards.check(model, place, epoch)
    if weights:
        _check_weights(model, place, epoch)


def _check_weights(model: Model, place: str, epoch: int | None) -> None:
    """Refuse a weight that is not finite: ReLU hides NaN from the loss."""
    broken = non_finite_weight(model)
    if broken is not None:
        raise NonFiniteError(
            f"{broken}, at the end {place}. {REMEDY}",
            epoch=epoch,
            logs=_logs(model),
        )


def non_finite_weight(model: keras.Model) -> str | None:
    """The first weight that holds NaN or infinity, in words; None if there is none.

    A model with such a weight gives no numbers, and is never kept as a checkpoint.
    """
    found = [v for v in model.trainable_variables if _is_float(v)]
    for layer in model.layers:
        found += [v for v in layer.non_trainable_variables if _is_float(v)]
    for variable in found:
        if math.prod(variable.shape) > MANY_ENTRIES:
            # The sum is finite only if all entries are (but not the other way round).
            total = ops.cast(ops.sum(variable), "float32")
            if np.isfinite(ops.convert_to_numpy(total)):
                continue
        # To read a small one is less work than any operation on it.
        (values,) = read([variable])
        wrong = values.size - np.count_nonzero(np.isfinite(values))
        if wrong:
            return (
                f"Weight '{variable.path}' has {wrong} of {values.size} entries that "
                "are NaN or infinite"
            )
    return None


def _logs(model: Model) -> dict[str, float]:
    return {
        name: float(ops.convert_to_numpy(value))
        for name, value in model.get_metrics_result().items()
    }


def _lowest(model: Model, variable: Variable, sign: int = 1) -> np.ndarray:
    """Values of a variable of the metric, the lowest of all replicas."""
    if keras.backend.backend() == "tensorflow":
        local = model.distribute_strategy.experimental_local_results(variable.value)
        return np.min([sign * np.asarray(value) for value in local], axis=0)
    return sign * np.asarray(ops.convert_to_numpy(variable.value))


def _is_float(tensor: Tensor) -> bool:
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))


def _flag(condition: Tensor) -> Tensor:
    return ops.cast(condition, "float32")


def _stack(flags: list) -> Tensor:
    return ops.stack(
        [ops.zeros((), "float32") if flag is None else flag for flag in flags]
    )


def _is_bad_weight(sample_weight: SampleWeight, name: str) -> Tensor:
    if isinstance(sample_weight, Mapping):
        sample_weight = sample_weight.get(name)
    if sample_weight is None or not hasattr(sample_weight, "dtype"):
        return None
    if keras.backend.standardize_dtype(sample_weight.dtype) == "bool":
        return None
    fine = sample_weight >= 0  # NaN is not
    if _is_float(sample_weight):
        fine = ops.logical_and(fine, ops.isfinite(sample_weight))
    return _flag(ops.logical_not(ops.all(fine)))


def _is_not_finite(tensor: Tensor) -> Tensor:
    if tensor is None or not hasattr(tensor, "dtype"):
        return None
    if str(tensor.dtype) in ("string", "<dtype: 'string'>") or not _is_float(tensor):
        return None
    return _flag(ops.logical_not(ops.all(ops.isfinite(tensor))))
