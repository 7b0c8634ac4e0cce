"""The inputs of a step as an adversary leaves them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.layers.gradient_reversal import reversal_off
from kmtl.tasks.checks import label_dict
from kmtl.training import total_loss
from kmtl.training.adversaries import Adversary
from kmtl.training.labels import named
from kmtl.typing import Inputs, Labels, Model, SampleWeight, Tensor

#: What a step learns from: the inputs and, where these are a target, clean labels.
Given = tuple[Inputs, Labels]


def changed(
    model: Model,
    adversary: Adversary | None,
    data: tuple[Inputs, Labels, SampleWeight],
    mapping: list | None = None,
) -> Given:
    """`(x, y)` of a batch, as the adversary leaves them.

    Args:
        data: `(x, y, sample_weight)` of the batch.
        mapping: Pairs of the model's variables and their values, where these are not
            what the variables hold.
    """
    x, y, sample_weight = data
    if adversary is None:
        return x, y
    given = named(model, x)
    names = [tensor.name for tensor in model.inputs]
    chosen = [name for name in names if name in (adversary.inputs or names)]
    several = isinstance(given, dict)
    parts = [given[name] for name in chosen] if several else [given]
    clean = [ops.cast(part, "float32") for part in parts]
    sizes = [_sizes(model, name) for name in chosen]
    # In steps, where numbers have units of their own.
    start = [
        x if size is None else x / np.where(size > 0, size, 1.0)
        for x, size in zip(clean, sizes, strict=True)
    ]

    def in_units(part: Tensor, size: Any, x: Tensor) -> Tensor:
        return part if size is None else ops.where(size > 0, part * size, x)

    def merged(parts: list) -> Inputs:
        parts = list(map(in_units, parts, sizes, clean))
        if not several:
            return parts[0]
        return {**given, **dict(zip(chosen, parts, strict=True))}

    def scope() -> Any:
        if mapping is None:
            return contextlib.nullcontext()
        return keras.StatelessScope(state_mapping=mapping)

    rows = ops.shape(start[0])[0]

    def loss(parts: list) -> Tensor:
        # An attack raises the loss of an adversarial task as that of any other.
        with scope(), reversal_off():
            y_pred = model(merged(parts), training=False)
            batch = total_loss.task_losses(model, x, y, y_pred, sample_weight)
            own = zip(model.task_names, batch.parts, strict=True)
            attacked = [
                part
                for name, part in own
                if adversary.tasks is None or name in adversary.tasks
            ]
        total = sum(attacked[1:], attacked[0])
        # Of a mean over many rows the gradient is too small for float16.
        return total * ops.cast(rows, total.dtype)

    def gradient(parts: list) -> list:
        found = input_gradient(loss, parts)
        return [part / ops.cast(rows, part.dtype) for part in found]

    parts = adversary.change(start, gradient)
    if adversary.share < 1:
        place = ops.cast(ops.arange(ops.shape(start[0])[0]), "float32")
        # Every so many rows: of 0.5 every other one.
        steps = ops.floor((place + 1) * adversary.share)
        taken = steps > ops.floor(place * adversary.share)
        parts = [
            ops.where(ops.reshape(taken, (-1, *[1] * (len(p.shape) - 1))), p, x)
            for p, x in zip(parts, start, strict=True)
        ]
    parts, hidden = adversary.shown(parts)
    if hidden is not None:
        pairs = zip(hidden, sizes, strict=True)
        hidden = [h if size is None else h & (size > 0) for h, size in pairs]
    known = {} if hidden is None else dict(zip(chosen, hidden, strict=True))
    return merged(parts), _clean_targets(model, x, y, known)


def _sizes(model: Model, name: str) -> np.ndarray | None:
    """What steps of 1 are in an input of the model; see `Input.step_sizes`."""
    spec = model.input_specs.get(name)
    return None if spec is None else spec.step_sizes()


def _clean_targets(
    model: Model, x: Inputs, y: Labels, hidden: dict[str, Tensor]
) -> Labels:
    """Labels in which clean inputs stand where inputs are the target.

    Args:
        hidden: Input name -> where it is hidden: other values are no labels.
    """
    if not any(task.target_is_input for task in model.tasks):
        return y
    y = dict(label_dict(y, model.tasks))
    for task in model.tasks:
        if task.target_is_input and y.get(task.name) is None:
            target, there = task.clean_labels(None, named(model, x))
            steps = getattr(task, "ends_in_mask", False)
            if steps:  # others are no labels
                target = ops.where(there > 0, target, math.nan)
            name = getattr(task, "input", None) or next(iter(hidden), None)
            if name in hidden:
                gone = hidden[name][..., :-1] if steps else hidden[name]
                target = ops.where(gone, target, math.nan)
            y[task.name] = target
    return y


def input_gradient(
    function: Callable[[list], Tensor], values: list[Tensor]
) -> list[Tensor]:
    """Gradients of a scalar; 0 where there is none."""
    if keras.backend.backend() == "jax":
        import jax

        return list(jax.grad(function)(values))
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(values)
    found = tape.gradient(result, values, unconnected_gradients="zero")
    return list(map(tf.convert_to_tensor, found))
