"""Labels and weights inside a step: clean, masked, in the shape of the loss."""

from __future__ import annotations

from collections.abc import Mapping

from keras import ops

from kmtl.tasks import soft
from kmtl.tasks.base import Task
from kmtl.typing import Inputs, Model, SampleWeight, TaskName, Tensor


def clean_labels(
    task: Task, x: Inputs, y: Mapping[TaskName, Tensor], outputs: Tensor
) -> tuple[Tensor, Tensor]:
    """Clean labels and mask of a task, in the shape of its loss."""
    labels = y.get(task.name)
    if labels is not None and rank_of(labels) is None:
        axes = outputs.shape[1:-1] if task.classes_last else outputs.shape[1:]
        labels = ops.reshape(labels, (-1, *axes))
    labels, mask = task.clean_labels(labels, x)
    # Keras takes images (N, H, W) for inputs (H, W, 1); as a target they need the axis.
    if task.target_is_input and len(labels.shape) == len(outputs.shape) - 1:
        labels, mask = ops.expand_dims(labels, -1), ops.expand_dims(mask, -1)
    return labels, mask


def loss_targets(task: Task, y: Mapping[TaskName, Tensor], labels: Tensor) -> Tensor:
    """Clean labels as the loss takes them: shares of classes, where there are any."""
    given = y.get(task.name)
    if given is not None and rank_of(given) is None:
        given = None
    return soft.targets(task, given, labels)


def named(model: Model, x: Inputs) -> Inputs:
    """Inputs as a dict, where they are a list in the order of the model's."""
    names = [tensor.name for tensor in model.inputs]
    if isinstance(x, (list, tuple)) and len(x) == len(names):
        return dict(zip(names, x, strict=True))
    return x


def rank_of(tensor: Tensor) -> int | None:
    """Number of axes. None where TensorFlow traces one step for labels of two ranks."""
    try:
        return len(tensor.shape)
    except ValueError:
        return None


def apply_sample_weight(
    weights: Tensor, sample_weight: SampleWeight, name: str
) -> Tensor:
    """Label weights times the user's sample weights for this task."""
    if isinstance(sample_weight, Mapping):
        sample_weight = sample_weight.get(name)
    if sample_weight is None:
        return weights
    wanted = len(weights.shape)
    extra = _without_last_ones(ops.cast(sample_weight, "float32"), wanted)
    rank = len(extra.shape)
    if rank > wanted or any(
        have not in (1, None) and want is not None and have != want
        for have, want in zip(extra.shape[1:], weights.shape[1:], strict=False)
    ):
        raise ValueError(
            f"`sample_weight` of task '{name}' must have at most the shape of its "
            f"labels, {tuple(weights.shape)}. Received: shape={tuple(extra.shape)}"
        )
    return weights * _with_last_ones(extra, wanted)


def with_any(weights: Tensor, mask: Tensor) -> Tensor:
    """1 for labels with a weight, 0 for others.

    Args:
        weights: What `apply_sample_weight` made of the mask.
        mask: 1 for labels that are there, 0 for others.
    """
    return mask if weights is mask else ops.cast(weights > 0, mask.dtype)


def _without_last_ones(tensor: Tensor, rank: int) -> Tensor:
    """Without last axes of size 1 beyond so many axes."""
    while len(tensor.shape) > rank and tensor.shape[-1] == 1:
        tensor = ops.squeeze(tensor, -1)
    return tensor


def _with_last_ones(tensor: Tensor, rank: int) -> Tensor:
    """With last axes of size 1 up to so many axes."""
    for _ in range(rank - len(tensor.shape)):
        tensor = ops.expand_dims(tensor, -1)
    return tensor


def with_weight(
    labels: Tensor, sample_weight: SampleWeight, name: TaskName
) -> Tensor | None:
    """Which labels, as given, have a weight, in a shape that broadcasts to theirs; None
    where there are no weights, or none of such a shape.

    Data sets of kmtl have 0 in the place of what is missing, and a weight of 0.
    """
    if isinstance(sample_weight, Mapping):
        sample_weight = sample_weight.get(name)
    if sample_weight is None or rank_of(labels) is None:
        return None
    rank = len(labels.shape)
    there = _without_last_ones(ops.cast(sample_weight, "bool"), rank)
    there = _with_last_ones(there, rank)
    fits = len(there.shape) == rank and all(
        have in (1, None) or want is None or have == want
        for have, want in zip(there.shape, labels.shape, strict=True)
    )
    return there if fits else None
