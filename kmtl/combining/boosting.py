"""Boosting: each net learns what the sum of those before it leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy import optimize, special

from kmtl.evaluation.ensemble import inputs_like
from kmtl.layers.sum_outputs import SumOutputs
from kmtl.tasks.base import Task
from kmtl.tasks.classification import Classification
from kmtl.tasks.output import TaskOutput
from kmtl.tasks.regression import Regression
from kmtl.training.attacking import input_gradient
from kmtl.training.batches import ShuffledBatches
from kmtl.training.labels import apply_sample_weight
from kmtl.training.model import MultiTaskModel
from kmtl.typing import Config, Tensor

KINDS = ("regression", "classification", "binary_classification", "multi_label")
#: Largest step along a stage's answer.
_MOST_STEP = 16.0
#: Share of a class that has no label, at least.
_LEAST_SHARE = 1e-4


def boost(
    build: Callable[[int], MultiTaskModel],
    options: Callable[[], Config],
    arrays: tuple,
    *,
    members: int,
    epochs: int,
    batch_size: int,
    seed: int,
    shrinkage: float,
    verbose: Any = 0,
) -> tuple[list[MultiTaskModel], list[dict[str, list[float]]]]:
    """Train stage by stage.

    Args:
        build: Function of a number that gives a new model.
        options: Gives new arguments of `compile`.
        arrays: `(x, y)` or `(x, y, sample_weight)`, checked.
        members, epochs, batch_size, seed, shrinkage, verbose: As for `kmtl.ensemble`.

    Returns:
        `(models, histories)`: the sums of the first stages, up to all of them.
    """
    x, y, weight = keras.utils.unpack_x_y_sample_weight(arrays)
    first = build(0)
    check(first)
    tasks = first.tasks
    clean = {task.name: _clean(task, y[task.name], weight) for task in tasks}
    constants = {task.name: constant_of(task, *clean[task.name]) for task in tasks}
    rows = len(keras.tree.flatten(x)[0])
    sums = {
        name: np.repeat(np.asarray(value, "float32")[None], rows, axis=0)
        for name, value in constants.items()
    }
    factors: dict[str, list[float]] = {task.name: [] for task in tasks}
    stages, models, histories = [], [], []
    for number in range(members):
        net = build(number)
        stage = _learner(net)
        given = options()
        for name in ("loss", "metrics", "weighted_metrics"):
            given.pop(name, None)
        stage.compile(**given)
        wanted, weights = {}, {}
        for task in tasks:
            labels, mask = clean[task.name]
            residuals = pseudo_residuals(task, labels, sums[task.name])
            there = mask if mask.ndim == residuals.ndim else mask[..., None]
            wanted[task.name] = np.where(there > 0, residuals, np.nan)
            weights[task.name] = there
        batches = ShuffledBatches(
            x, wanted, weights, batch_size=batch_size, seed=seed + number
        )
        history = stage.fit(batches, epochs=epochs, verbose=verbose, shuffle=False)
        histories.append(history.history)
        answers = stage.predict(x, verbose=0)
        for task in tasks:
            name, answer = task.name, np.asarray(answers[task.name], "float32")
            step = best_step(task, *clean[name], sums[name], answer)
            factors[name].append(shrinkage * step)
            sums[name] = sums[name] + np.float32(shrinkage * step) * answer
        stages.append(stage)
        model = _sum_of(first, stages, factors, constants)
        histories[-1] |= _scores(model, options(), arrays, batch_size)
        models.append(model)
    return models, histories


def _scores(
    model: MultiTaskModel, given: Config, arrays: tuple, batch_size: int
) -> dict[str, list[float]]:
    """What metrics of the user's say of a sum on the training data.

    They are the sum's, not its stages': these learn other labels. It keeps them.
    """
    if not (given.get("metrics") or given.get("weighted_metrics")):
        return {}
    own = ("metrics", "weighted_metrics", "run_eagerly", "jit_compile")
    model.compile(**{name: given[name] for name in own if name in given})
    x, y, weight = keras.utils.unpack_x_y_sample_weight(arrays)
    logs = model.evaluate(
        x, y, batch_size, sample_weight=weight, return_dict=True, verbose=0
    )
    return {f"sum_{name}": [float(value)] for name, value in logs.items()}


def check(model: MultiTaskModel) -> None:
    """Refuse what has no residuals.

    Raises:
        ValueError: naming the task.
    """
    for name, layer in model.task_outputs.items():
        if layer.task.registered_name not in KINDS:
            raise ValueError(
                "method='boosting' takes tasks of kmtl.Regression, Classification, "
                "BinaryClassification and MultiLabel; for others train with "
                f"method='seeds' or 'bagging'. Received: task '{name}' of kind "
                f"{layer.task.registered_name}"
            )
        task = layer.task
        if (
            isinstance(task.loss, dict)
            or isinstance(task.class_weight, str)
            or task.label_smoothing
        ):
            raise ValueError(
                "method='boosting' takes tasks of one loss, with weights of classes in "
                f"a dict and without smoothing. Received: task '{name}'"
            )
        if task.transform not in (None, "standardize"):
            raise ValueError(
                "method='boosting' adds up values in the labels' unit, so it takes "
                "tasks with transform=None or 'standardize': transform the labels "
                "before, or train with method='seeds' or 'bagging'. Received: "
                f"transform={task.transform!r} of task '{name}'"
            )
        if layer.members > 1:
            raise ValueError(
                "method='boosting' takes a backbone with one answer. Received: a "
                "kmtl.backbones.Ensemble"
            )


def _clean(task: Task, labels: Tensor, weight: Any) -> tuple[np.ndarray, np.ndarray]:
    """Clean labels, and what they weigh: 0 where one is missing."""
    labels, mask = task.clean_labels(np.asarray(labels))
    weights = apply_sample_weight(mask, weight, task.name)
    there = ops.cast(weights > 0, "float32")
    weights = weights * task.label_weights(labels, there)
    return ops.convert_to_numpy(labels), ops.convert_to_numpy(weights)


def constant_of(task: Task, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The best answer without inputs: a mean, or the logits of shares, `(K,)`."""
    if isinstance(task, Classification):
        shares = np.bincount(labels, weights, minlength=task.classes)
        shares = np.maximum(shares / max(shares.sum(), 1e-12), _LEAST_SHARE)
        return np.log(shares / shares.sum())
    total = np.maximum(weights.sum(axis=0), 1e-12)
    means = (labels * weights).sum(axis=0) / total
    if isinstance(task, Regression):
        return means
    return special.logit(np.clip(means, _LEAST_SHARE, 1 - _LEAST_SHARE))


def pseudo_residuals(task: Task, labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """The negative gradient of each label's loss at outputs, `(N, K)`.

    Example:

    >>> from kmtl.combining.boosting import pseudo_residuals
    >>> kind = kmtl.Classification("kind", classes=2)
    >>> pseudo_residuals(kind, np.array([0, 1]), np.zeros((2, 2), "float32")).tolist()
    [[0.5, -0.5], [-0.5, 0.5]]
    """
    given = ops.convert_to_tensor(labels)

    def loss(parts: list) -> Tensor:
        return ops.sum(task.loss_values(given, parts[0]))

    (gradient,) = input_gradient(loss, [ops.convert_to_tensor(outputs, "float32")])
    return -ops.convert_to_numpy(gradient)


def best_step(
    task: Task,
    labels: np.ndarray,
    weights: np.ndarray,
    outputs: np.ndarray,
    answer: np.ndarray,
) -> float:
    """How far along a stage's answer the task's loss is smallest, >= 0."""
    given = ops.convert_to_tensor(labels)

    def loss(step: float) -> float:
        moved = ops.convert_to_tensor(outputs + np.float32(step) * answer)
        values = ops.convert_to_numpy(task.loss_values(given, moved))
        return float(np.sum(values.astype("float64") * weights))

    found = optimize.minimize_scalar(
        loss, bounds=(0.0, _MOST_STEP), method="bounded", options={"xatol": 1e-3}
    )
    return float(found.x) if found.fun < loss(0.0) else 0.0


class _Residuals(Regression):
    """What is left of classes: smaller with every stage, which is no user's mistake."""

    has_scale = False


def _learner(net: MultiTaskModel) -> MultiTaskModel:
    """A model on the same layers that learns values, in their own scale."""
    outputs = {}
    for name, layer in net.task_outputs.items():
        units, weight = int(layer.input.shape[-1]), layer.task.weight
        if isinstance(layer.task, Regression):
            task = Regression(name, units=units, weight=weight, transform="standardize")
        else:
            task = _Residuals(name, units=units, weight=weight)
        outputs[name] = TaskOutput(task)(layer.input)
    return MultiTaskModel(net.input, outputs, name="stage")


def _sum_of(
    first: MultiTaskModel,
    stages: Sequence[MultiTaskModel],
    factors: dict[str, list[float]],
    constants: dict[str, np.ndarray],
) -> MultiTaskModel:
    inputs, tensors = inputs_like(first)
    answers = []
    for number, stage in enumerate(stages, 1):
        # No output layer that others would find, unless that layer does something.
        ends = {
            name: layer.input if layer.transform is None else stage.output[name]
            for name, layer in stage.task_outputs.items()
        }
        net = keras.Model(stage.input, ends, name=f"stage{number}")
        answers.append(net(tensors))
    outputs = {}
    for task in first.tasks:
        name = task.name
        total = SumOutputs(factors[name], constants[name].tolist(), name=f"sum_{name}")(
            [answer[name] for answer in answers]
        )
        plain = task if task.transform is None else task.replace(transform=None)
        outputs[name] = TaskOutput(plain)(total)
    return MultiTaskModel(inputs, outputs, name="boosted")
