"""Parts of a model that training leaves alone, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from kmtl import _checks
from kmtl._private.keras import sublayers
from kmtl.layers.dropout import Dropout
from kmtl.layers.head_group import HeadGroup, HeadOfGroup, own_weights, trained_by
from kmtl.tasks.output import TaskOutput
from kmtl.training import rate_factors
from kmtl.training.optimizer_slots import known_variables, note_known, rebuilt
from kmtl.training.packed import groups_in
from kmtl.training.run_record import carry_trained
from kmtl.training.task_variables import tasks_of_layers
from kmtl.typing import Layer, Model, TaskName, Variable


def parts_of(model: Model) -> dict[str, list[Layer]]:
    """The layers of each part that can be frozen: the trunk, its blocks, the tasks.

    A task's part is what it has for itself: its head, and the blocks and gates whose
    features no other task reads. The trunk is all that is in no head, and so of a
    task's own blocks too.
    """
    users = tasks_of_layers(model)
    layers = [
        layer
        for layer in model.layers
        if layer in users and not isinstance(layer, (TaskOutput, HeadGroup))
    ]
    several = len(model.task_names) > 1
    heads: dict[TaskName, list[Layer]] = {name: [] for name in model.task_names}
    own: dict[TaskName, list[Layer]] = {name: [] for name in model.task_names}
    trunk: list[Layer] = []
    blocks: dict[int, list[Layer]] = {}
    for layer in layers:
        task = rate_factors.task_of(layer, model)
        number = rate_factors.block_of(layer, model)
        if task is not None:
            heads[task].append(layer)
        elif several and len(users[layer]) == 1:
            own[next(iter(users[layer]))].append(layer)
        if number:
            blocks.setdefault(number, []).append(layer)
        if task is None:
            trunk.append(layer)
    for name, head in heads.items():
        if not any(own_weights(layer) for layer in head):  # the net is made by hand
            mine = {id(layer) for layer in own[name]}
            trunk = [layer for layer in trunk if id(layer) not in mine]
    parts = {"trunk": trunk}
    parts |= {f"block_{number}": blocks[number] for number in sorted(blocks)}
    parts |= {name: [*own[name], *heads[name]] for name in model.task_names}
    return {
        name: members
        for name, members in parts.items()
        if name in heads or any(own_weights(layer) for layer in members)
    }


def layers_of(model: Model, names: Sequence[str], what: str) -> list[Layer]:
    """The layers of some parts; refuses names of no part."""
    parts = parts_of(model)
    found: list[Layer] = []
    for name in names:
        key = rate_factors.part_name(name, model.task_names)
        if key not in parts:
            raise ValueError(
                _checks.unknown_name(f"part of the model in `{what}`:", name, parts)
            )
        found += parts[key]
    return found


def set_trainable(model: Model, layers: Sequence[Layer], value: bool) -> bool:
    """Freeze or thaw layers; whether something changed.

    Raises:
        ValueError: for some heads of those that are one layer.
    """
    layers = [*layers, *_whole_groups(model, layers)]
    changed = False
    for layer in layers:
        if any(one.trainable is not value for one in (layer, *sublayers(layer))):
            layer.trainable = not value  # TensorFlow ignores a value that is no other
            layer.trainable = value
            changed = True
    if changed:
        forget_steps(model)
    return changed


def _owner(layer: Layer) -> Layer:
    return layer.group if isinstance(layer, HeadOfGroup) else layer


def _whole_groups(model: Model, layers: Sequence[Layer]) -> list[Layer]:
    """The layers of several heads, where all of these are among some layers."""
    found = []
    for group in groups_in(model):
        heads = [
            layer
            for layer in layers
            if isinstance(layer, HeadOfGroup) and layer.group is group.layer
        ]
        if heads and len(heads) < len(group.places):
            raise ValueError(
                f"The heads of tasks {group} are one layer, which is frozen or trained "
                "as a whole: name all of these tasks, or take them apart with "
                "kmtl.ungrouped(model). Received: "
                f"{', '.join(layer.name for layer in heads)}"
            )
        if heads:
            found.append(group.layer)
    return found


def forget_steps(model: Model) -> None:
    """Let steps be traced anew, for the variables that are trained now.

    On JAX those of `evaluate` and `predict`, too: they take the values of trained and
    other variables as two lists, and lists of the same shapes, with others in them,
    would be taken for those they were traced with.
    """
    model.train_function = None
    if keras.backend.backend() == "jax":
        model.test_function = model.predict_function = None


def frozen_parts(model: Model) -> tuple[str, ...]:
    """Names of the parts in which nothing is trained."""
    found = []
    for name, layers in parts_of(model).items():
        learning = [
            layer
            for layer in layers
            if own_weights(layer) and not isinstance(layer, Dropout)
        ]
        still = not any(trained_by(layer) for layer in learning)
        if still and not all(_owner(layer).trainable for layer in learning):
            found.append(name)
    return tuple(found)


# -- the optimizer ---------------------------------------------------------------------


def cover(model: Model, variables: Sequence[Variable] = ()) -> None:
    """Let the optimizer know all that is trained now, and further variables.

    A Keras optimizer knows the variables that were trainable when it was built. Where
    others have been thawed since, it is made anew with all that it had kept; where some
    have been frozen it stays, but for weights' averages (`use_ema`): Keras writes these
    into the model at the end, and must have one for each variable that is trained and
    none for others.
    """
    optimizer = model.optimizer
    note_known(optimizer, model.variables)
    known = known_variables(optimizer)
    if known is None:
        return  # of several optimizers, say
    wanted = {id(v) for v in (*model.trainable_variables, *variables)}
    have = {id(v) for v in known}
    if wanted <= have and not (averages(optimizer) and wanted != have):
        return
    kept = wanted if averages(optimizer) else wanted | have
    made = rebuilt(optimizer, [v for v in model.variables if id(v) in kept])
    carry_trained(optimizer, made)
    inner = made
    if isinstance(made, keras.optimizers.LossScaleOptimizer):
        inner = made.inner_optimizer
    config = model._state.config
    given = isinstance(config["optimizer"], keras.optimizers.LossScaleOptimizer)
    config["optimizer"] = made if given else inner
    model.optimizer = made
    rate_factors.install(model, made, config["lr_multipliers"] or {})
    model.train_function = None


def averages(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the optimizer keeps averages of the weights."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return bool(getattr(optimizer, "use_ema", False))


def part_from_averages(model: Model) -> None:
    """Give weights that are their averages arrays of their own.

    On JAX an assignment hands over the array, and a step, of `evaluate` too, deletes
    the arrays that it was given: those of the optimizer with them.
    """
    if keras.backend.backend() == "jax" and averages(model.optimizer):
        for variable in model.trainable_variables:
            variable.assign(ops.copy(variable.value))


def frozen_and_known(model: Model) -> list[int]:
    """Places among the model's variables of frozen ones that the optimizer knows."""
    known = {id(v) for v in known_variables(model.optimizer) or ()}
    return [
        place
        for place, variable in enumerate(_graph_variables(model))
        if id(variable) in known and not variable.trainable
    ]


def known_again(model: Model, places: Sequence[int]) -> list[Variable]:
    """The variables to build the optimizer for, in the order of the model."""
    among = _graph_variables(model)
    wanted = {id(v) for v in model.trainable_variables}
    wanted |= {id(among[place]) for place in places}
    return [v for v in model.variables if id(v) in wanted]


def _graph_variables(model: Model) -> list[Variable]:
    return [variable for layer in model.layers for variable in layer.variables]
