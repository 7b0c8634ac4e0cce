"""Fitted linear models and forests as models of kmtl, so that they can be averaged with
nets, saved and exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.evaluation.ensemble import inputs_like
from kmtl.inputs.table import Table
from kmtl.layers.decision_trees import DecisionTrees
from kmtl.layers.linear_columns import LinearColumns
from kmtl.tabular.rivals import FOREST, LINEAR, Rival, columns_of
from kmtl.tabular.scores import LEAST, kind_of
from kmtl.tasks.base import Task
from kmtl.tasks.output import TaskOutput
from kmtl.training.model import MultiTaskModel
from kmtl.typing import Tensor

#: Kinds of rivals whose answers a model of kmtl can give. (Boosted trees keep theirs in
#: attributes that scikit-learn calls private.)
MODELLED = (LINEAR, FOREST)
#: Kinds of tasks. (Of classes in an order an output is no probability per class.)
TASKS = ("regression", "binary_classification", "classification")
#: In the place of the logarithm of a probability of 0.
NEVER = -100.0


def can_be_modelled(tasks: Sequence[Task]) -> bool:
    """Whether a model of kmtl can give what rivals say of these tasks."""
    return all(
        kind_of(task) in TASKS
        and task.output_activation in ("linear", "sigmoid", "softmax")
        for task in tasks
    )


def model_of(
    rivals: Mapping[str, Rival], table: Table, like: MultiTaskModel
) -> MultiTaskModel:
    """A model that says of every target what its rival says.

    Args:
        rivals: Target -> the rival; of kinds in `MODELLED`, for tasks in `TASKS`.
        table: Says what the input's columns are.
        like: A net of the same inputs.

    Returns:
        A model whose values are in the labels' unit, not compiled.
    """
    inputs, structure = inputs_like(like)
    (x,) = keras.tree.flatten(structure)
    outputs = {}
    for name, rival in rivals.items():
        task = rival.task
        plain = task if task.transform is None else task.replace(transform=None)
        outputs[name] = TaskOutput(plain)(_scores(rival, table, x))
    return MultiTaskModel(inputs, outputs)


def _scores(rival: Rival, table: Table, x: Tensor) -> Tensor:
    """What a task's head would give: values, or logits."""
    model, name = rival.model, f"{rival.task.name}_rival"
    if hasattr(model, "estimators_"):
        found = DecisionTrees.of(model, columns=x.shape[-1], name=name)(x)
        if kind_of(rival.task) == "regression":
            return found
        return _of_classes(rival, ops.log(ops.clip(found, LEAST, 1.0)))
    if not hasattr(model, "named_steps"):  # one class in all training rows
        layer = LinearColumns(1, sizes=table.cardinalities, name=name)
        return _of_classes(rival, layer(x))
    layer = _linear(model, table, x.shape[-1], name)
    if kind_of(rival.task) == "regression":
        return layer(x)
    found = layer(x)
    if layer.units == 1:  # of two classes, the second one's
        found = ops.concatenate([ops.zeros_like(found), found], axis=-1)
    return _of_classes(rival, found)


def _of_classes(rival: Rival, logits: Tensor) -> Tensor:
    """Logits of all classes, from those of the classes that the model has seen."""
    seen = [int(number) for number in rival.model.classes_]
    never = ops.full_like(logits[:, :1], NEVER)
    places = [
        logits[:, seen.index(number) : seen.index(number) + 1]
        if number in seen
        else never
        for number in range(rival.task.label_count)
    ]
    if kind_of(rival.task) == "binary_classification":
        return places[1] - places[0]
    return ops.concatenate(places, axis=-1)


def _linear(model: Any, table: Table, columns: int, name: str) -> LinearColumns:
    """A layer with the weights of a pipeline of scikit-learn."""
    front, last = model[0], model[-1]
    numbers, flags, codes = columns_of(table)
    coefficients = np.atleast_2d(last.coef_).T
    first, second = len(numbers), len(numbers) + len(flags)
    center, scale = np.zeros(second), np.ones(second)
    if numbers:
        scaler = front.named_transformers_["numbers"]
        center[:first], scale[:first] = scaler.mean_, scaler.scale_
    weights = np.zeros((sum(table.cardinalities), coefficients.shape[1]))
    if codes:
        place, start = second, 0
        seen = front.named_transformers_["codes"].categories_
        for size, known in zip(table.cardinalities, seen, strict=True):
            # A category that no training row had has no weight.
            rows = start + known.astype(np.int64)
            weights[rows] = coefficients[place : place + len(known)]
            place, start = place + len(known), start + size
    layer = LinearColumns(coefficients.shape[1], sizes=table.cardinalities, name=name)
    layer.build((None, columns))
    kernel = coefficients[:second] / scale[:, None]
    layer.set_weights([center, kernel, weights, np.atleast_1d(last.intercept_)])
    return layer
