"""What a student's data say, where some of its tasks have teachers and no labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import keras

from kmtl.training import sources, targets
from kmtl.training.model import MultiTaskModel
from kmtl.training.user_data import prepare, prepare_rows
from kmtl.typing import Data, Inputs, TaskName


def checked(
    student: MultiTaskModel, arrays: tuple, alone: Collection[TaskName]
) -> tuple[Inputs, dict, Any]:
    """`(x, y, sample_weight)` of the tasks that are not taught by teachers alone."""
    x, y, weight = keras.utils.unpack_x_y_sample_weight(arrays)
    names = [name for name in student.task_names if name not in alone]
    if not names:
        return prepare_rows(student, x), {}, None
    if alone:
        if isinstance(y, Mapping):
            y = {name: labels for name, labels in y.items() if name not in alone}
        if isinstance(weight, Mapping):
            weight = {name: one for name, one in weight.items() if name not in alone}
        student = MultiTaskModel(
            student.input, {name: student.output[name] for name in names}
        )
    x, y, weight = prepare(student, x, y, weight)
    return x, dict(y), weight


def unlabelled(
    student: MultiTaskModel, known: Collection[TaskName], data: Data
) -> list[TaskName]:
    """Tasks with a teacher of which the data have no labels."""
    arrays = sources.arrays_of(data)
    if arrays is not None:
        y = arrays[1]
    elif sources.is_tf_dataset(data):
        element = data.element_spec
        y = element[1] if isinstance(element, tuple) and len(element) > 1 else None
    else:
        batch = data[0]
        y = batch[1] if isinstance(batch, tuple) and len(batch) > 1 else None
    if y is None:
        given = set()
    elif isinstance(y, Mapping):
        given = set(y)
    else:
        given = set(map(str, getattr(y, "columns", ()))) or set(student.task_names)
    return [name for name in student.task_names if name in known and name not in given]


def adapt(
    student: MultiTaskModel, x: Any, y: Any, weight: Any, alone: Collection[TaskName]
) -> None:
    """Fit the transforms that are not yet, on labels; a task without any has none."""
    for name in alone:
        if not student.task_outputs[name].adapted:
            raise ValueError(
                f"Task '{name}' of `student` learns from its teacher alone, in a scale "
                "that must be known: call `student.adapt_targets({'" + name + "': "
                "labels})`, or give labels. Received: data without any"
            )
    names = [name for name in student.task_names if name not in alone]
    if names:
        part = student
        if alone:
            part = MultiTaskModel(
                student.input, {name: student.output[name] for name in names}
            )
        targets.adapt(part, x, y, weight)
