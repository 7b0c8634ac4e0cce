"""Bagging's own test: rows by the members that have not trained on them."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops
from scipy import special

from kmtl.evaluation._evaluate import evaluate as evaluated
from kmtl.evaluation.table import Evaluation
from kmtl.layers.average import SPACES
from kmtl.tasks.output import TaskOutput
from kmtl.training.labels import named
from kmtl.training.model import MultiTaskModel

_LEAST = 1e-30


def evaluate(
    models: Sequence[MultiTaskModel], rows: Sequence[np.ndarray], arrays: tuple
) -> Evaluation | None:
    """Scores of the rows that some member has not seen, None where there is none.

    Args:
        models: The members.
        rows: Per member the numbers of the rows it trained on.
        arrays: `(x, y)` or `(x, y, sample_weight)` of all rows.
    """
    x, y, weight = keras.utils.unpack_x_y_sample_weight(arrays)
    count = len(keras.tree.flatten(x)[0])
    unseen = np.ones((len(models), count), bool)
    for place, seen in enumerate(rows):
        unseen[place, seen] = False
    here = unseen.any(axis=0)
    if not here.any():
        return None
    tasks = models[0].tasks
    totals: dict[str, np.ndarray] = {}
    for model, mine in zip(models, unseen, strict=True):
        if not mine.any():
            continue
        part = keras.tree.map_structure(lambda array, mine=mine: array[mine], x)
        answers = model.predict(part, verbose=0)
        for task in tasks:
            value = _read(np.asarray(answers[task.name]), task.output_activation)
            total = totals.setdefault(
                task.name, np.zeros((count, *value.shape[1:]), "float64")
            )
            total[mine] += value
    times = unseen.sum(axis=0)[here]
    given = {}
    for task in tasks:
        total = totals[task.name][here]
        mean = total / times.reshape(-1, *[1] * (total.ndim - 1))
        given[f"{task.name}_answer"] = _logits(mean, task.output_activation)
    labels, weights = keras.tree.map_structure(
        lambda array: None if array is None else array[here], (y, weight)
    )
    seen = named(models[0], keras.tree.map_structure(lambda array: array[here], x))
    labels = dict(labels)
    for task in tasks:
        if task.target_is_input and labels.get(task.name) is None:
            target, mask = map(ops.convert_to_numpy, task.clean_labels(None, seen))
            labels[task.name] = np.where(mask > 0, target, np.nan)
    data = (given, labels) if weights is None else (given, labels, weights)
    return evaluated(_answers_only(models[0], given), data)


def _answers_only(
    model: MultiTaskModel, given: dict[str, np.ndarray]
) -> MultiTaskModel:
    """A model whose inputs are its answers, and whose losses are as the other's."""
    inputs = {
        name: keras.Input(value.shape[1:], name=name) for name, value in given.items()
    }
    outputs = {}
    for task in model.tasks:
        name = f"{task.name}_answer"
        # If the input is the target, its labels have the shape of its answers.
        own = task.replace(input=name) if task.target_is_input else task
        end = TaskOutput(own, in_unit=task.transform is not None)
        outputs[task.name] = end(inputs[name])
        end.set_weights(model.task_outputs[task.name].get_weights())
    return MultiTaskModel(inputs, outputs, name="out_of_bag")


def _read(outputs: np.ndarray, activation: str) -> np.ndarray:
    """Outputs in the space in which members are averaged."""
    outputs = outputs.astype("float64")
    if activation not in SPACES or activation == "linear":
        return outputs
    if activation == "softmax":
        return special.softmax(outputs, axis=-1)
    return special.expit(outputs)


def _logits(means: np.ndarray, activation: str) -> np.ndarray:
    if activation not in SPACES or activation == "linear":
        return means.astype("float32")
    if activation == "softmax":
        return np.log(np.maximum(means, _LEAST)).astype("float32")
    return special.logit(np.clip(means, 1e-12, 1 - 1e-12)).astype("float32")
