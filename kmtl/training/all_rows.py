"""Metrics of all rows of an evaluation together, such as those of pairs of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.tasks.checks import label_dict
from kmtl.training import sources
from kmtl.training.labels import apply_sample_weight, clean_labels, named
from kmtl.typing import Inputs, Labels, Model, SampleWeight, Tensor

#: Rows of a batch where nothing is said.
_KERAS_ROWS = 32


def of_all_rows(
    model: Model,
    x: Inputs,
    y: Labels | None,
    sample_weight: SampleWeight | None,
    batch_size: int | None,
    steps: int | None,
) -> dict[str, float]:
    """Log name -> value over all rows, of the metrics that have `gathered()`.

    The model runs over the data once more. Left as the mean over batches that it is:
    of generators, which are used up, and of data on several devices.

    Args:
        x, y, sample_weight: As the evaluation had them, prepared.
        batch_size: Rows at once, of arrays.
        steps: Batches of the evaluation; None for all.
    """
    entries = {
        log: (task, metric.gathered(), weighted)
        for log, (task, metric, weighted) in model._state.metrics.entries.items()
        if hasattr(metric, "gathered")
    }
    if not entries or sources.is_stream(x) or model._has_replicas():
        return {}
    if not sources.is_dataset(x) and _rows(x) <= (batch_size or _KERAS_ROWS):
        # They were one batch, of which some metrics know all there is to know.
        for log in list(entries):
            metric = model._state.metrics.entries[log][1]
            if getattr(metric, "whole_in_a_batch", False):
                del entries[log]
        if not entries:
            return {}
    names = {task for task, _, _ in entries.values()}
    state = model._state
    if state.gathering is None:
        outputs = {name: model.output[name] for name in names}
        state.gathering = keras.Model(model.input, outputs)
    for x_part, y_part, weight in _batches(x, y, sample_weight, batch_size, steps):
        found = _outputs(state.gathering, x_part, batch_size)
        given, inputs = label_dict(y_part, model.tasks), named(model, x_part)
        for name in names:
            labels, mask = clean_labels(model.task(name), inputs, given, found[name])
            weights = apply_sample_weight(mask, weight, name)
            labels, mask, weights = map(ops.convert_to_numpy, (labels, mask, weights))
            seen = mask * (weights > 0)
            for task, gathered, weighted in entries.values():
                if task == name:
                    gathered.add(labels, found[name], weights if weighted else seen)
    return {log: gathered.result() for log, (_, gathered, _) in entries.items()}


def _batches(
    x: Inputs,
    y: Labels | None,
    sample_weight: SampleWeight | None,
    batch_size: int | None,
    steps: int | None,
) -> Iterator[tuple[Any, Any, Any]]:
    if sources.is_dataset(x):
        yield from sources.batches_of(x, steps)
        return
    size = batch_size or _KERAS_ROWS
    rows = _rows(x)
    if steps is not None:
        rows = min(rows, steps * size)
    for start in range(0, rows, size):
        part = slice(start, min(start + size, rows))
        yield keras.tree.map_structure(
            lambda array, part=part: None if array is None else array[part],
            (x, y, sample_weight),
        )


def _outputs(
    net: keras.Model, x: Inputs, batch_size: int | None
) -> dict[str, np.ndarray]:
    """Outputs of a batch; a short one is filled up, which spares compiling for it."""
    rows = _rows(x)
    size = max(batch_size or 0, rows)

    def filled(array: Tensor) -> np.ndarray:
        array = ops.convert_to_numpy(array)
        return np.resize(array, (size, *array.shape[1:]))

    found = net.predict_on_batch(keras.tree.map_structure(filled, x))
    return {name: np.asarray(output)[:rows] for name, output in found.items()}


def _rows(x: Inputs) -> int:
    return len(keras.tree.flatten(x)[0])
