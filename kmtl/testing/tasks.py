"""The battery for kinds of task."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kmtl.layers.beside import Beside
from kmtl.losses import masked_mean
from kmtl.tasks import terms
from kmtl.tasks.base import Task
from kmtl.tasks.regression import Regression
from kmtl.testing._models import (
    IMAGES,
    exercise,
    model_of,
    through_json,
)
from kmtl.testing._running import gradient, run
from kmtl.typing import Inputs, Tensor


class _Head:
    """A small model's head: outputs, and what it keeps beside them for the loss."""

    def __init__(self, task: Task, x: np.ndarray):
        self.task, self.model = task, model_of([task], x)
        found = [layer for layer in self.model.layers if isinstance(layer, Beside)]
        self.beside = found[0] if found else None

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        outputs = self.model(x)[self.task.name]
        return outputs, None if self.beside is None else self.beside.look()


def check_values(task: Task, labels: np.ndarray, x: np.ndarray) -> None:
    """Config, label checks, loss values and what users read, in the right shapes."""
    assert Task.from_config(through_json(task.to_config())) == task
    assert task.score.direction in ("max", "min")
    task.check_labels(labels, x.shape[1:])
    outputs, beside = _Head(task, x)(x)
    clean, mask = task.clean_labels(labels, x)
    assert mask.shape == clean.shape
    assert (ops.convert_to_numpy(mask) == 1).all()
    values, _ = terms.loss_values(task, clean, outputs, mask, beside)
    assert values.shape == mask.shape
    assert np.isfinite(ops.convert_to_numpy(values)).all()
    activated = ops.convert_to_numpy(task.activate(outputs))
    assert activated.shape == outputs.shape
    if task.output_activation in ("softmax", "sigmoid"):
        assert ((activated >= 0) & (activated <= 1)).all()


def check_holes(task: Task, labels: np.ndarray, x: np.ndarray) -> None:
    """The gradient is exactly zero where labels are missing, and not elsewhere."""
    head = _Head(task, x)
    holes = labels.astype("float64")
    holes[::2] = np.nan
    clean, mask = task.clean_labels(holes, x)

    def loss(outputs: Tensor, beside: Tensor | None = None) -> Tensor:
        values = terms.loss_values(task, clean, outputs, mask, beside)[0]
        return masked_mean(values, mask)[0]

    if head.beside is None:
        _, slope = gradient(loss, ops.convert_to_numpy(head(x)[0]))
    else:  # of which a part belongs to all rows
        _, slope = gradient(lambda at: loss(*head(at)), x)
    assert (slope[::2] == 0).all()
    assert np.isfinite(slope).all()
    assert all((row != 0).any() for row in slope[1::2])


def check_losses_and_metrics(task: Task, labels: np.ndarray, x: np.ndarray) -> None:
    """Every loss and metric of the kind: finite, a mean, and nothing without labels."""
    outputs, beside = _Head(task, x)(x)
    of_own_head = task.LOSSES.get(str(task.loss), True) is None
    for loss, formula in task.LOSSES.items():
        if (formula is None) != of_own_head:
            continue  # of another head
        changed = task.replace(loss=loss)
        if changed.keeps_beside != task.keeps_beside:
            continue  # of another head
        clean, mask = changed.clean_labels(labels, x)
        values = ops.convert_to_numpy(
            terms.loss_values(changed, clean, outputs, mask, beside)[0]
        )
        assert values.shape == tuple(mask.shape), loss
        assert np.isfinite(values).all(), loss
        assert terms.may_be_negative(changed) or (values >= 0).all(), loss
        terms.label_weights(changed, clean, mask)
        for name in task.METRICS:
            try:
                metric = task.replace(loss=loss, metrics=(name,)).metrics[0]
            except ValueError:
                assert name not in task.DEFAULT_METRICS, f"{name} is refused"
                continue  # by a task with these options
            metric = metric.make(changed)
            assert np.isnan(metric.result()), name
            metric.update_state(clean, outputs, 0.0 * mask)
            assert np.isnan(metric.result()), name
            metric.update_state(clean, outputs, mask)
            once = float(metric.result())
            metric.update_state(clean, outputs, mask)
            np.testing.assert_allclose(metric.result(), once, rtol=1e-4, atol=1e-6)
            assert np.isfinite(once), name


def check_training(task: Task, labels: np.ndarray, x: np.ndarray) -> None:
    """A model with the task trains, also without labels, and is saved and loaded."""
    task = task.replace(hidden=(4,), activation="tanh")
    other = Regression("second_task")
    given = {task.name: labels, other.name: x.reshape(len(x), -1)[:, 0]}
    exercise(model_of([task, other], x), x, given)


def check_dead_features(task: Task, labels: np.ndarray, x: np.ndarray) -> None:
    """A step in which all features are 0, as behind units that died, is finite."""
    model = model_of([task], x)
    model.compile(keras.optimizers.SGD(0.01))
    data = x, {task.name: labels}
    model.fit(*data, batch_size=len(x), verbose=0)  # what is fitted to data is
    for variable in model.trainable_variables:
        if variable.ndim > 1:
            variable.assign(np.zeros(variable.shape, "float32"))
    model.fit(*data, batch_size=len(x), verbose=0)
    for variable in model.trainable_variables:
        assert np.isfinite(ops.convert_to_numpy(variable)).all(), variable.path


CHECKS = (
    check_values,
    check_holes,
    check_losses_and_metrics,
    check_training,
    check_dead_features,
)


def check_task(task: Task, labels: Tensor, x: Inputs | None = None) -> None:
    """Run kmtl's own contract tests on a kind of task.

    Config, label checks, losses and metrics in the right shapes, exact zero gradients
    where labels are missing, training, and saving.

    Args:
        task: An object of the kind.
        labels: Labels `(N, ...)` of at least two rows, without a missing one.
        x: Inputs of as many rows, float32, `(N, F)` or `(N, H, W, C)`. Defaults to six
            images of 5 x 5 x 1.

    Raises:
        AssertionError: from the first check that fails; its notes say what it checks.
        TypeError: if `task` is no task of kmtl.

    Example:

    >>> kmtl.testing.check_task(kmtl.Regression("size"), np.arange(6.0))
    """
    if not isinstance(task, Task):
        raise TypeError(
            f"`task` must be an object of a subclass of kmtl.Task. Received: {task!r}"
        )
    inputs = IMAGES if x is None else np.asarray(x, "float32")
    run(CHECKS, task, np.asarray(labels), inputs)
