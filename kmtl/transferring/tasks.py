"""A task more, a task less: what the other tasks say stays what it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kmtl import _checks
from kmtl.layers.copying import copy_state
from kmtl.sharing.hard import HardSharing
from kmtl.tasks.base import Task
from kmtl.tasks.output import TaskOutput
from kmtl.training.freezing import set_trainable
from kmtl.training.model import MultiTaskModel
from kmtl.training.task_variables import tasks_of_layers
from kmtl.transferring._transfer import transfer


def add_task(
    model: MultiTaskModel,
    task: Task,
    *,
    freeze: bool | str | Sequence[str] = True,
    seed: int | None = None,
) -> MultiTaskModel:
    """A model with one task more; the old tasks' outputs stay what they are.

    All that the old tasks read is taken over, so that before training their outputs are
    the same to the last bit; where a sharing scheme lets them read the new task's part,
    that is refused. By default all of it is frozen: then they stay the same after
    training, too. `kmtl.forgetting` measures what was lost where it is not. With
    `freeze=False`, `kmtl.distill(made, model, (x, {task.name: y}))` has the old tasks
    learn on from what the old model says of the new task's data.

    Args:
        model: A trained model of `kmtl.build` and its like. It stays as it is.
        task: The task.
        freeze: True freezes all that the old model had, and switches its dropout off,
            False nothing; or parts, as for `model.freeze`, such as `"trunk"`.
        seed: Of what the new task has for itself.

    Returns:
        A `kmtl.MultiTaskModel`, not compiled; `model.transferred` says what it has.

    Raises:
        ValueError: if the old tasks' outputs would not be the same; it names the
            layers.

    Example:

    >>> old = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=[kmtl.Regression("size")], units=(8,), seed=0
    ... )
    >>> model = kmtl.add_task(old, kmtl.BinaryClassification("flag"))
    >>> model.task_names, model.frozen
    (('size', 'flag'), ('trunk', 'block_1', 'size'))
    >>> x = np.ones((2, 4), "float32")
    >>> bool(np.all(model(x)["size"] == old(x)["size"]))
    True

    Reference: Li and Hoiem, "Learning without Forgetting", TPAMI 2018,
    arXiv:1606.09282, for the setting.
    """
    old = model.task_names
    made = transfer(model, [task], keep=old, seed=seed)
    users = tasks_of_layers(made)
    read = {
        layer.name
        for layer, names in users.items()
        if isinstance(layer, keras.layers.Layer) and names & set(old)
    }
    lacking = sorted(read & made.transferred.new.keys())
    if lacking:
        raise ValueError(
            f"Task '{task.name}' cannot be added: under this sharing scheme the old "
            f"tasks read what is new ({', '.join(lacking)}), and would give other "
            "outputs. Build a model for all tasks and put in what fits with "
            "kmtl.transfer(model, into=new), then train all of it; or give the new "
            "task a model of its own."
        )
    if freeze is True:
        # As `model.freeze` does it: with what has no weights, such as dropout.
        had = {layer.name for layer in model.layers} - made.transferred.new.keys()
        set_trainable(
            made,
            [
                layer
                for layer in made.layers
                if layer.name in had and not isinstance(layer, TaskOutput)
            ],
            False,
        )
    elif freeze:
        made.freeze(*((freeze,) if isinstance(freeze, str) else freeze))
    return made


def remove_task(model: MultiTaskModel, name: str) -> MultiTaskModel:
    """A model with one task less; the others' outputs are the same to the last bit.

    Parts that served that task alone are gone. Works with every sharing scheme, and
    with nets made by hand.

    Args:
        model: A model of several tasks. It stays as it is.
        name: The task.

    Returns:
        A `kmtl.MultiTaskModel`, not compiled.

    Raises:
        ValueError: for the name of no task, and the only one.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8,), seed=0)
    >>> kmtl.remove_task(model, "b").task_names
    ('a',)
    """
    names = model.task_names
    _checks.check_task_keys("name", {name: None}, names, partial=True)
    if len(names) == 1:
        raise ValueError(f"`name` is the model's only task. Received: name={name!r}")
    outputs = {task: out for task, out in model.output.items() if task != name}
    rest = MultiTaskModel(model.input, outputs, name=model.name)
    made = MultiTaskModel.from_config(rest.get_config())
    copy_state(rest, made)
    made.built_with = _without(model, name)
    return made


def _without(model: MultiTaskModel, name: str) -> Any:
    record = model.built_with
    if record is None:
        return None
    backbone, sharing = record.parts()
    if isinstance(sharing, HardSharing) and isinstance(sharing.depth, Mapping):
        depths = {n: d for n, d in sharing.depth.items() if n != name}
        sharing = dataclasses.replace(sharing, depth=depths)
    return dataclasses.replace(record, backbone=backbone, sharing=sharing)
