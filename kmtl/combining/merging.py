"""Models of single tasks as one multi-task model, by their weights alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.combining.trunks import (
    check_alike,
    joined,
    trunk_of,
    values_of,
)
from kmtl.layers.copying import copy_state
from kmtl.training.kmtl_model import check_model, check_models
from kmtl.training.model import MultiTaskModel
from kmtl.typing import Inputs, Layer, TaskName, Variable

METHODS = ("average", "task_arithmetic", "ties", "regmean")
#: Smallest cosine of a trunk's kernels and those it began with. Two beginnings of other
#: seeds have one near 0.
LEAST_COSINE = 0.2
#: Names of state, such as that of `kmtl.layers.Dropout`, that answers do not depend on.
TRAINING_ALONE = ("rate", "temperature")

#: Values of the trunk's trainable variables, one flat list.
Trunk = list[np.ndarray]


def merge(
    models: Sequence[MultiTaskModel],
    method: str = "average",
    *,
    shares: Sequence[float] | None = None,
    initial: MultiTaskModel | None = None,
    scale: float | None = None,
    density: float | None = None,
    data: Mapping[TaskName, Inputs] | Inputs | None = None,
    alpha: float | None = None,
    name: str = "merged",
) -> MultiTaskModel:
    """One model of the tasks of several, whose trunk is made from their trunks.

    Nothing is trained, and no labels are needed: a cheap comparator to joint training.
    The trunks must have begun with the same weights, as those of models that are built
    with one `seed`, or fine-tuned from one model; trunks of other beginnings have no
    common place to meet at, and are refused.

    Args:
        models: Models with the same trunk and other tasks, each trained by itself.
        method: `"average"` (the default) of the weights; `"task_arithmetic"`: the
            beginning plus `scale` times the sum of the changes; `"ties"`: of each
            change the largest entries, of each entry those with the sign that
            outweighs, their mean times `scale`; `"regmean"`: for dense layers the
            kernel whose answers are nearest to those of all models on `data`, the
            average for all else.
        shares: Of `"average"`: numbers >= 0, one per model. Defaults to equal shares.
        initial: Model with the weights that all trunks began with. Defaults to those
            that the layers' seeds give.
        scale: Of `"task_arithmetic"` and `"ties"`: factor > 0. Defaults to 0.4 for task
            arithmetic and 1 for ties.
        density: Of `"ties"`: share of the entries of a change that is kept, in (0, 1].
            Defaults to 0.2.
        data: Of `"regmean"`: dict task name -> inputs of the task's model, or inputs
            for all; a few hundred rows.
        alpha: Of `"regmean"`: factor in [0, 1] of the entries off the diagonal of an
            inner product. Defaults to 0.9. Each model's products count as means over
            its rows, however many these are.
        name: Name of the model.

    Returns:
        A `kmtl.MultiTaskModel` with all heads, not compiled. The models stay as they
        are. Running means of batch normalization are averaged: let the model see some
        batches before it is judged.

    Raises:
        ValueError: for an argument of another method, and for models that share no
            trunk, or a task, or whose trunks differ, began with other weights, or have
            other state that is not trained, such as adapted `Normalization`.

    Example:

    >>> tasks = kmtl.Classification("kind", classes=3), kmtl.Regression("size")
    >>> singles = [
    ...     kmtl.build_mlp(input_shape=(4,), tasks=[task], units=(8,), seed=0)
    ...     for task in tasks
    ... ]  # and train each
    >>> model = kmtl.merge(singles)
    >>> model.task_names
    ('kind', 'size')

    Reference: Wortsman et al. (average), ICML 2022, arXiv:2203.05482; Ilharco et al.
    (task arithmetic), ICLR 2023, arXiv:2212.04089; Yadav et al. (TIES), NeurIPS 2023,
    arXiv:2306.01708; Jin et al. (RegMean), ICLR 2023, arXiv:2212.09849.
    """
    method = _checks.check_choice("method", method, METHODS)
    for argument, given, wanted in (
        ("data", data, ("regmean",)),
        ("alpha", alpha, ("regmean",)),
        ("shares", shares, ("average",)),
        ("density", density, ("ties",)),
        ("scale", scale, ("task_arithmetic", "ties")),
    ):
        if given is not None and method not in wanted:
            choices = " or ".join(map(repr, wanted))
            raise ValueError(
                f"`{argument}` belongs to method={choices}: leave it "
                f"out, or choose that method. Received: method='{method}'"
            )
    density = 0.2 if density is None else density
    density = _checks.check_range("density", density, 0, 1, low_open=True)
    alpha = _checks.check_range("alpha", 0.9 if alpha is None else alpha, 0, 1)
    default = 0.4 if method == "task_arithmetic" else 1.0
    scale = default if scale is None else scale
    scale = _checks.check_range("scale", scale, 0, low_open=True)
    models = check_models(models)
    check_alike(models)
    weights = _shares(shares, len(models))
    found, fresh = joined(models, name)
    trunk = trunk_of(models[0])
    start = _beginning(models, fresh, trunk, initial)
    trunks = [values_of(model, trunk) for model in models]
    _check_state(models, trunk)
    if start:  # else all of the trunk is frozen
        _check_common(models, trunks, start)
    if method == "task_arithmetic":
        merged = task_arithmetic(trunks, start, scale)
    elif method == "ties" and start:
        merged = ties(trunks, start, density, scale)
    else:
        merged = average_of(trunks, weights)
    _fill(found, models, trunk, merged, weights)
    if method == "regmean":
        for layer, kernel in _regmean(models, trunk, data, alpha).items():
            found.get_layer(layer).kernel.assign(kernel)
    return found


def average_of(trunks: Sequence[Trunk], shares: Sequence[float]) -> Trunk:
    """The weighted mean of each variable; `shares` sum to 1."""
    return [
        np.sum([s * v for s, v in zip(shares, part, strict=True)], axis=0)
        for part in zip(*trunks, strict=True)
    ]


def task_arithmetic(trunks: Sequence[Trunk], start: Trunk, scale: float) -> Trunk:
    """The beginning plus the sum of all changes, scaled."""
    return [
        first + scale * np.sum([v - first for v in part], axis=0)
        for first, part in zip(start, zip(*trunks, strict=True), strict=True)
    ]


def ties(trunks: Sequence[Trunk], start: Trunk, density: float, scale: float) -> Trunk:
    """Trim, elect signs, and take the mean of those that agree."""
    base = _flat(start)
    changes = np.stack([_flat(trunk) - base for trunk in trunks])
    kept = max(1, round(density * base.size))
    for change in changes:
        order = np.argsort(-np.abs(change), kind="stable")
        change[order[kept:]] = 0.0
    elected = np.sign(changes.sum(axis=0))
    agree = (np.sign(changes) == elected) & (changes != 0)
    count = np.maximum(agree.sum(axis=0), 1)
    merged = base + scale * (changes * agree).sum(axis=0) / count
    parts = np.split(merged, np.cumsum([part.size for part in start])[:-1])
    return [part.reshape(v.shape) for part, v in zip(parts, start, strict=True)]


def regmean_kernel(
    inputs: Sequence[np.ndarray], kernels: Sequence[np.ndarray], alpha: float
) -> np.ndarray:
    """The kernel whose products are nearest to those of all models, in mean squares.

    Args:
        inputs: Per model what the layer reads, `(N, columns)`.
        kernels: Per model `(columns, units)`.
        alpha: Factor of the inner products of different columns.
    """
    total, right = 0.0, 0.0
    for x, kernel in zip(inputs, kernels, strict=True):
        x = x.astype("float64")
        gram = x.T @ x / max(len(x), 1)  # a mean: a model with more rows counts no more
        gram = alpha * gram + (1 - alpha) * np.diag(np.diag(gram))
        total, right = total + gram, right + gram @ kernel
    solved: np.ndarray = np.linalg.lstsq(np.asarray(total), right, rcond=None)[0]
    return solved


def _flat(trunk: Trunk) -> np.ndarray:
    return np.concatenate([part.reshape(-1) for part in trunk]).astype("float64")


def _shares(shares: Sequence[float] | None, count: int) -> list[float]:
    given = [1.0] * count if shares is None else list(shares)
    given = [_checks.check_range("shares", share, 0, 1e30) for share in given]
    if len(given) != count or not sum(given):
        raise ValueError(
            f"`shares` must have one number per model, {count}, and one above 0. "
            f"Received: shares={given}"
        )
    return [share / sum(given) for share in given]


def _beginning(
    models: Sequence[MultiTaskModel],
    fresh: Sequence[Trunk],
    trunk: Sequence[str],
    initial: MultiTaskModel | None,
) -> Trunk:
    """The weights that all trunks began with.

    Args:
        fresh: Per model what the seeds of its trunk's layers give.
    """
    if initial is not None:
        check_model(initial, "initial")
        check_alike([models[0], initial], tasks=False)
        return values_of(initial, trunk)
    for other in fresh[1:]:
        if not all(map(np.array_equal, fresh[0], other)):
            raise ValueError(
                "The trunks of `models` must have begun with the same weights: build "
                "all models with one `seed`, or give the model that they were "
                "fine-tuned from as `initial`. Received: layers of other seeds, or of "
                "none"
            )
    return fresh[0]


def _check_common(
    models: Sequence[MultiTaskModel], trunks: Sequence[Trunk], start: Trunk
) -> None:
    """Refuse a trunk that is nowhere near the beginning."""

    def kernels(trunk: Trunk) -> np.ndarray:
        return _flat([v for v in trunk if v.ndim > 1] or trunk)

    base = kernels(start)
    for model, trunk in zip(models, trunks, strict=True):
        own = kernels(trunk)
        norms = float(np.linalg.norm(own) * np.linalg.norm(base))
        cosine = float(own @ base) / norms if norms else 0.0
        if cosine < LEAST_COSINE:
            raise ValueError(
                "The trunks of `models` must have begun with the same weights, which "
                "training moves and does not forget: give the model that they were "
                "fine-tuned from as `initial`. Received: for the model of "
                f"{', '.join(model.task_names)} a cosine of {cosine:.2f} between its "
                "kernels and those of the beginning"
            )


def _check_state(models: Sequence[MultiTaskModel], trunk: Sequence[str]) -> None:
    """Refuse trunks with other state that is not trained, and has no mean."""
    for name in trunk:
        layers = [model.get_layer(name) for model in models]
        for same in zip(*(x.non_trainable_weights for x in layers), strict=True):
            if _is_averaged(same[0]) or same[0].name in TRAINING_ALONE:
                continue
            first, *others = (ops.convert_to_numpy(variable) for variable in same)
            if not all(np.allclose(first, other, rtol=1e-5) for other in others):
                raise ValueError(
                    "The trunks of `models` must see the same inputs, and what does "
                    "not train must be the same in all: adapt such layers on the same "
                    "data, and freeze none that differ. Received: layer "
                    f"'{name}' with other values of `{same[0].name}`"
                )


def _is_averaged(variable: Variable) -> bool:
    """Whether it is a running statistic of batch normalization."""
    return bool(variable.name.startswith("moving_"))


def _fill(
    found: MultiTaskModel,
    models: Sequence[MultiTaskModel],
    trunk: Sequence[str],
    merged: Trunk,
    shares: Sequence[float],
) -> None:
    """Heads as they are, the trunk as merged, its running statistics averaged."""
    values = iter(merged)
    for layer in found.layers:
        owners = [m for m in models if layer.name in {x.name for x in m.layers}]
        if isinstance(layer, keras.layers.InputLayer) or not owners:
            continue
        sources = [model.get_layer(layer.name) for model in owners]
        copy_state(sources[0], layer)
    for name in trunk:
        layer = found.get_layer(name)
        for variable in layer.trainable_variables:
            variable.assign(next(values))
        for place, variable in enumerate(layer.non_trainable_variables):
            if _is_averaged(variable):
                parts = [
                    ops.convert_to_numpy(
                        model.get_layer(name).non_trainable_variables[place]
                    )
                    for model in models
                ]
                variable.assign(
                    np.sum([s * p for s, p in zip(shares, parts, strict=True)], axis=0)
                )


def _regmean(
    models: Sequence[MultiTaskModel],
    trunk: Sequence[str],
    data: Any,
    alpha: float,
) -> dict[str, np.ndarray]:
    """Name of a dense layer of the trunk -> its kernel."""
    dense = [n for n in trunk if isinstance(models[0].get_layer(n), keras.layers.Dense)]
    if not dense or data is None:
        raise ValueError(
            "method='regmean' needs a trunk with dense layers, and `data`: dict task "
            "name -> inputs, a few hundred rows, or inputs for all. Received: "
            f"{len(dense)} dense layers, data of type {type(data).__name__}"
        )
    names = {name for model in models for name in model.task_names}
    by_task = isinstance(data, Mapping) and set(data) <= names
    inputs: dict[str, list[np.ndarray]] = {name: [] for name in dense}
    for model in models:
        x = data
        if by_task:
            task = next((n for n in model.task_names if n in data), None)
            if task is None:
                raise ValueError(
                    "`data` must have inputs for every model. Received: none of "
                    f"{', '.join(model.task_names)}"
                )
            x = data[task]
        x = model.prepare_inputs(x)
        layers: list[Layer] = [model.get_layer(name) for name in dense]
        read = keras.Model(model.input, [layer.input for layer in layers])
        answers = read.predict(x, verbose=0)
        answers = answers if isinstance(answers, list) else [answers]
        for name, answer in zip(dense, answers, strict=True):
            inputs[name].append(answer.reshape(-1, answer.shape[-1]))
    return {
        name: regmean_kernel(
            inputs[name],
            [ops.convert_to_numpy(m.get_layer(name).kernel) for m in models],
            alpha,
        )
        for name in dense
    }
