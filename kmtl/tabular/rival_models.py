"""Fitted linear models and forests as models of kmtl, so that they can be averaged with
nets, saved and exported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.evaluation.ensemble import inputs_like
from kmtl.inputs.table import Table
from kmtl.layers.decision_trees import DecisionTrees
from kmtl.layers.linear_columns import LinearColumns
from kmtl.tabular.rivals import FOREST, LINEAR, Rival, Rivals
from kmtl.tabular.scores import LEAST, kind_of
from kmtl.tabular.settings import columns_of
from kmtl.tasks.base import Task
from kmtl.tasks.output import TaskOutput
from kmtl.training.model import MultiTaskModel
from kmtl.typing import Tensor

#: Kinds of rivals whose answers a model of kmtl can give. (Boosted trees keep theirs in
#: attributes that scikit-learn calls private.)
MODELLED = (LINEAR, FOREST)
#: Kinds of tasks whose outputs are values, or logarithms of probabilities.
TASKS = ("regression", "binary_classification", "classification", "ordinal")
#: In the place of the logarithm of a probability of 0.
NEVER = -100.0


def can_be_modelled(kind: str, task: Task) -> bool:
    """Whether a model of kmtl can give what a kind of rivals says of a task."""
    return (
        kind in MODELLED
        and kind_of(task) in TASKS
        and task.output_activation in ("linear", "sigmoid", "softmax")
    )


def that_can_be_averaged(sides: Iterable[Rivals]) -> list[Rivals]:
    """The sides that can be averaged with nets, each with its targets of which it
    can."""
    found = []
    for side in sides:
        kept = {
            name: rival
            for name, rival in side.by_target.items()
            if can_be_modelled(side.name, rival.task)
        }
        if kept:
            answers = {name: side.answers[name] for name in kept}
            found.append(Rivals(side.name, kept, answers))
    return found


def model_of(
    rivals: Mapping[str, Rival], table: Table, like: MultiTaskModel
) -> MultiTaskModel:
    """A model that says of every target what its rival says.

    Args:
        rivals: Target -> the rival, for which `can_be_modelled` is true. Of targets
            without one the model says the same of all rows.
        table: Says what the input's columns are.
        like: A net of the same inputs and tasks.

    Returns:
        A model whose values are in the labels' unit, not compiled.
    """
    inputs, structure = inputs_like(like)
    (x,) = keras.tree.flatten(structure)
    outputs = {}
    for task in like.tasks:
        plain = task if task.transform is None else task.replace(transform=None)
        rival = rivals.get(task.name)
        if rival is None:  # an average of all tasks asks for each
            units = like.output[task.name].shape[-1]
            layer = LinearColumns(
                units, sizes=table.cardinalities, name=f"{task.name}_nothing"
            )
            scores = layer(x)
        else:
            scores = _scores(rival, table, x)
        outputs[task.name] = TaskOutput(plain)(scores)
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
