"""What validation data give a number for, whatever the model says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from kmtl.data.caches import fill_caches
from kmtl.evaluation.common_scale import MEAN_SCORE, WORST_SCORE
from kmtl.evaluation.delta import LOG_NAMES
from kmtl.tasks.checks import label_dict
from kmtl.training import sources
from kmtl.training.labels import named
from kmtl.training.packed import opened
from kmtl.typing import Data, Inputs, Logs

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

#: Logs of callbacks.
NOT_OF_MODEL = (*LOG_NAMES, MEAN_SCORE, WORST_SCORE)
#: Rows of the first look at arrays; twice as many of each next one.
FIRST_ROWS = 32
#: Batches of a data set without an end that are looked at.
MOST_BATCHES = 1000


def unmeasurable(
    model: MultiTaskModel,
    names: Sequence[str],
    validation: Data,
    steps: int | None = None,
) -> list[str]:
    """Names of logs that have no number on validation data, whatever the model says.

    The model's metrics see random outputs, batch by batch, until each of them has been
    a number: most often one small batch.
    """
    left = [name for name in dict.fromkeys(names) if name not in NOT_OF_MODEL]
    losses = {f"val_{task.name}_loss": task for task in model.tasks}
    draw = np.random.default_rng(0)
    model.reset_metrics()
    for x, y, weight in batches_of(validation, steps):
        if not left:
            break
        rows = len(keras.tree.flatten(x)[0])
        outputs = _random_outputs(model, x, rows, draw)
        found = _metrics(model, left, (x, y or {}, outputs, weight))
        for name in list(left):
            if name in losses:
                _, counts = sources.count_labels((x, y, weight), model.tasks)
                known = counts[losses[name].name] > 0
            else:
                value = ops.convert_to_numpy(found.get(name, 0.0))
                known = bool(np.isfinite(value))
            if known:
                left.remove(name)
    model.reset_metrics()
    return left


def _metrics(model: MultiTaskModel, names: Sequence[str], data: tuple) -> Logs:
    """Metrics after a batch, as they are called in validation; at least those named.

    Where it can be, no others: their first batch takes seconds on JAX.
    """
    logs = [name.removeprefix("val_") for name in names]
    entries = model._state.metrics.entries
    owners = {entries[log][0] for log in logs if log in entries}
    losses = {f"{task.name}_loss" for task in model.tasks}
    if model._state.packed is not None or set(logs) - set(entries) - losses:
        found = model.compute_metrics(*data)
        return {f"val_{log}": value for log, value in found.items()}
    x, y, outputs, weight = data
    x, y = named(model, x), label_dict(y, model.tasks)
    for task in model.tasks:
        if task.name in owners:
            both = opened(model, outputs), outputs
            model._update_metrics(task, x, y, both, weight)
    return {f"val_{log}": entries[log][1].result() for log in logs if log in entries}


def why(name: str, validation: Data, tasks: Sequence[Any]) -> str:
    """Why a log has no number, to be put after its name."""
    owners = [task for task in tasks if name.startswith(f"val_{task.name}_")]
    if owners:
        task = max(owners, key=lambda task: len(task.name))
        _, counts = sources.count_labels(validation, tasks)
        if not counts[task.name]:
            return f"they have no label of task '{task.name}'"
        return (
            f"it is not defined on the labels of task '{task.name}' there (an AUC, for "
            "one, needs both classes)"
        )
    return "it is NaN there"


def _random_outputs(model: MultiTaskModel, x: Inputs, rows: int, draw: Any) -> Any:
    shapes = {name: tuple(part.shape[1:]) for name, part in model.output.items()}
    if any(None in shape for shape in shapes.values()):
        return model(x, training=False)
    return {
        name: ops.convert_to_tensor(draw.normal(size=(rows, *shape)).astype("float32"))
        for name, shape in shapes.items()
    }


def batches_of(data: Data, steps: int | None) -> Iterator[tuple[Any, Any, Any]]:
    """Parts of validation data, each as `(x, y, sample_weight)`."""
    if isinstance(data, tuple):
        rows = len(keras.tree.flatten(data[0])[0])
        start, size = 0, FIRST_ROWS
        while start < rows:
            stop = start + size
            part = keras.tree.map_structure(
                lambda a, start=start, stop=stop: None if a is None else a[start:stop],
                data,
            )
            yield keras.utils.unpack_x_y_sample_weight(part)
            start, size = stop, 2 * size
        return
    if sources.is_tf_dataset(data):
        fill_caches(data)
    yield from sources.batches_of(data, steps or MOST_BATCHES)
