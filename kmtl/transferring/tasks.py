"""A task more, a task less: what the other tasks say stays what it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from kmtl import _checks
from kmtl.layers.copying import copy_state
from kmtl.sharing.base import Sharing, resolve
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_unique_tasks
from kmtl.tasks.output import TaskOutput
from kmtl.training.freezing import set_trainable
from kmtl.training.kmtl_model import check_model
from kmtl.training.model import MultiTaskModel
from kmtl.training.ungrouping import ungrouped
from kmtl.transferring import carrying
from kmtl.transferring._reading import layers_read, made_alike
from kmtl.transferring._transfer import built_again, record_of


def add_task(
    model: MultiTaskModel,
    task: Task,
    *,
    freeze: bool | str | Sequence[str] = True,
    sharing: Sharing | None = None,
    seed: int | None = None,
) -> MultiTaskModel:
    """A model with one task more; the old tasks' outputs stay what they are.

    All that the old tasks read is taken over, so that before training their outputs are
    the same to the last bit. By default all of it is frozen: then they stay the same
    after training, too. `kmtl.forgetting` measures what was lost where it is not. With
    `freeze=False`, `kmtl.distill(made, model, (x, {task.name: y}))` has the old tasks
    learn on from what the old model says of the new task's data.

    Every sharing scheme takes a task more. Where tasks read each other (columns of
    `"cross_stitch"`, `"nddr"` and `"sluice"`, the shared path of `"ple"`, messages of
    `"pad_net"` and `"mti_net"`) the new one reads the old ones, and they do not read
    it, as in progressive networks. It shares what all others share, and has blocks of
    its own where they part.

    Args:
        model: A trained model of `kmtl.build` and its like. It stays as it is.
        task: The task.
        freeze: True freezes all that the old model had, and switches the dropout in it
            off, False nothing; or parts, as for `model.freeze`, such as `"trunk"`.
        sharing: The model's scheme with the new task in it, where it is to have another
            place: `HardSharing(depth={"size": 2, "flag": 1})`, say, or a group of a
            `TreeSharing`. Of the old tasks it must say what the model's says.
        seed: Of what the new task has for itself.

    Returns:
        A `kmtl.MultiTaskModel`, not compiled; `model.transferred` says what it has.

    Raises:
        ValueError: if the old tasks' outputs would not be the same, with the layers
            that are in the way; for a model made by hand.

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
    arXiv:1606.09282, for the setting; Rusu et al., "Progressive neural networks",
    2016, arXiv:1606.04671, for columns that read older ones.
    """
    check_model(model)
    if not isinstance(task, Task):
        raise TypeError(
            "`task` must be one task, such as kmtl.Regression('size'): add several "
            f"one after the other. Received: {type(task).__name__}"
        )
    old = model.task_names
    tasks = check_unique_tasks([*(model.task(name) for name in old), task])
    _, scheme = record_of(model, "model").parts()
    if sharing is None:
        sharing = scheme.adding(task.name, old)
    else:
        sharing = resolve(sharing).joined_by((*scheme.later, task.name))
    made = built_again(model, tasks, sharing, seed, None)
    carried = carrying.carry(model, made, set(old))
    if freeze and made.head_groups:  # which are frozen as a whole
        made = ungrouped(made)
    made.transferred = carried
    _check_alike(model, made, task)
    if freeze is True:
        # As `model.freeze` does it: with what has no weights, such as dropout.
        had = {layer.name for layer in model.layers} - made.transferred.new.keys()
        old_layers = [
            layer
            for layer in made.layers
            if layer.name in had and not isinstance(layer, TaskOutput)
        ]
        set_trainable(made, old_layers, False)
    elif freeze:
        made.freeze(*((freeze,) if isinstance(freeze, str) else freeze))
    return made


def _check_alike(model: MultiTaskModel, made: MultiTaskModel, task: Task) -> None:
    """Refuse a model in which old tasks do not read what they read, and that alone."""
    changed = [
        n for n, alike in made_alike(model, made, model.task_names).items() if not alike
    ]
    read, reads = (layers_read(one, model.task_names) for one in (model, made))
    drawn = sorted(reads & made.transferred.new.keys())
    if not changed and not drawn:
        return
    gone = sorted(read - reads)
    found = [
        f"{what} {', '.join(names)}"
        for what, names in (("new to them:", drawn), ("no longer there:", gone))
        if names
    ]
    raise ValueError(
        f"Task '{task.name}' cannot be added, because {', '.join(changed) or 'others'} "
        "would give other outputs: `sharing` must say of them what the model's scheme "
        "says, and a model that has lost a task whose part others still read takes no "
        "new one. Build a model for all tasks and put in what fits with "
        "kmtl.transfer(model, into=new), then train all of it; or give the new task a "
        f"model of its own. Received: layers {'; '.join(found) or 'joined otherwise'}"
    )


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
    check_model(model)
    if not isinstance(name, str):
        raise TypeError(
            "`name` must be the name of a task of the model: "
            f"{', '.join(model.task_names)}. Received: {type(name).__name__}"
        )
    names = model.task_names
    _checks.check_task_keys("name", {name: None}, names, partial=True)
    if len(names) == 1:
        raise ValueError(f"`name` is the model's only task. Received: name={name!r}")
    record = _without(model, name)
    if model.head_groups:  # in which the task would keep its place
        model = ungrouped(model)
    outputs = {task: out for task, out in model.output.items() if task != name}
    rest = MultiTaskModel(model.input, outputs, name=model.name)
    made = MultiTaskModel.from_config(rest.get_config())
    copy_state(rest, made)
    made.built_with = record
    return made


def _without(model: MultiTaskModel, name: str) -> Any:
    record = model.built_with
    if record is None:
        return None
    backbone, sharing = record.parts()
    return dataclasses.replace(record, backbone=backbone, sharing=sharing.without(name))
