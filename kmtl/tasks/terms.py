"""A task's loss as a sum of terms, of which most tasks have one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.typing import Tensor

#: Weights beyond this could make a sum of losses infinite in float32.
MOST_WEIGHT = 1e30


@dataclasses.dataclass(frozen=True)
class Term:
    """One of several losses of a task.

    Args:
        name: What it is called in logs: `<task>_<name>_loss`.
        weight: Its factor in the task's loss.
        task: The task with this loss alone.
    """

    name: str
    weight: float
    task: Any


def are_several(loss: Any) -> bool:
    """Whether a loss is a dict of them, and not the config of a Keras loss."""
    return isinstance(loss, Mapping) and "class_name" not in loss


def read(task: Any, given: Mapping) -> tuple[dict[str, Any], tuple[Term, ...]]:
    """The dict of losses as a task keeps it, and its terms.

    Raises:
        ValueError, TypeError: naming the entry.
    """
    rule = (
        f"`loss` of task '{task.name}' must be a loss, or a dict name -> weight for "
        f"several, with names of {list(task.LOSSES)}, or a name of your own -> "
        "(loss object, weight)"
    )
    if task.weighs_by_loss:
        raise ValueError(
            f"`loss` of task '{task.name}' must be one of {list(task.LOSSES)}, which "
            f"weigh labels each in its own way. Received: loss={dict(given)!r}"
        )
    if not given:
        raise ValueError(f"{rule}. Received: an empty dict")
    kept: dict[str, Any] = {}
    terms = []
    for name, value in given.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise TypeError(f"{rule}. Received: {name!r} as a name")
        if isinstance(value, Mapping):  # from a file
            value = keras.saving.deserialize_keras_object(value)
        loss: Any = name
        if isinstance(value, (tuple, list)) and len(value) == 2:
            loss, value = value
            if isinstance(loss, Mapping):
                loss = keras.saving.deserialize_keras_object(loss)
        elif name not in task.LOSSES:
            raise ValueError(
                _checks.unknown_name(f"loss of task '{task.name}':", name, task.LOSSES)
                + f" Or a name of your own with a loss object: {name!r}: "
                "(keras.losses.Huber(), 0.5)."
            )
        if are_several(loss):
            raise TypeError(f"{rule}. Received: a dict within '{name}'")
        weight = _checks.check_range(f"loss['{name}']", value, 0, MOST_WEIGHT)
        single = dataclasses.replace(task, loss=loss, metrics=())
        kept[name] = weight if loss == name else (single.loss, weight)
        terms.append(Term(name, weight, single))
    read_as = {term.task.output_activation for term in terms}
    if len(read_as) > 1:
        raise ValueError(
            f"The losses of task '{task.name}' must take the same outputs. Received: "
            f"{' and '.join(kept)}, of which some take logits and some values"
        )
    return kept, tuple(terms)


def terms_of(task: Any) -> tuple[Term, ...]:
    """The terms of a task's loss; of a single loss the task itself."""
    return task._terms or (Term("", 1.0, task),)


def loss_values(
    task: Any,
    labels: Tensor,
    outputs: Tensor,
    mask: Tensor,
    beside: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Loss of each label, and of each label by each of several losses.

    Args:
        task: The task.
        labels, outputs: As `Task.loss_values` takes them.
        mask: 1 for the labels that count.
        beside: What the head keeps for the loss, None for nothing.

    Returns:
        The loss, and the terms before their weights, none for a single loss.
    """
    terms = terms_of(task)
    values = [
        term.task.masked_loss_values(labels, outputs, mask)
        if beside is None
        else term.task.loss_values_beside(labels, outputs, mask, beside)
        for term in terms
    ]
    if not task._terms:
        return values[0], []
    values = [ops.cast(part, "float32") for part in values]
    return sum(t.weight * part for t, part in zip(terms, values, strict=True)), values


def label_weights(task: Any, labels: Tensor, mask: Tensor) -> Tensor:
    """The mask times class weights; a label that one of the losses leaves out is out.

    So all the losses of a task are means over the same labels.
    """
    first, *others = terms_of(task)
    weights = first.task.label_weights(labels, mask)
    for term in others:
        more = term.task.label_weights(labels, mask)
        weights = weights * ops.cast(more > 0, weights.dtype)
    return weights


def may_be_negative(task: Any) -> bool:
    """Whether a loss of the task has values below 0."""
    return any(term.task.loss_may_be_negative for term in terms_of(task))
