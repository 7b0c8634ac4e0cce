"""Labels of tasks alike as one array, which is cut into batches in one piece."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kmtl.tasks.checks import OpenLabels
from kmtl.training.packed import is_of_use
from kmtl.typing import Labels, Model, SampleWeight

#: Before the number of a group of tasks; no task can have such a name.
_KEY = "labels of group "


def packed_labels(model: Model, y: Labels, sample_weight: SampleWeight) -> Labels:
    """Checked labels for Keras' adapters, those of tasks alike in one array."""
    if not isinstance(y, dict) or sample_weight is not None or not is_of_use(model):
        return y
    entries = model._state.metrics.entries.values()
    if any(hasattr(metric, "gathered") for _, metric, _ in entries):
        return y  # `all_rows` reads them once more, by task
    found = dict(y)
    for number, group in enumerate(model._state.alike):
        arrays: list[Any] = [y.get(name) for name in group]
        looks = {
            (array.shape, array.dtype) if isinstance(array, np.ndarray) else None
            for array in arrays
        }
        if len(looks) == 1 and None not in looks:
            found[f"{_KEY}{number}"] = np.stack(arrays, axis=1)
            for name in group:
                del found[name]
    return found


def open_labels(model: Model, args: tuple) -> tuple:
    """Arguments of a step, with packed labels by task again."""
    *state, data = args
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if not isinstance(y, dict) or not any(key.startswith(_KEY) for key in y):
        return args
    labels: dict[str, Any] = {}
    several = []
    for key, tensor in y.items():
        if not key.startswith(_KEY):
            labels[key] = tensor
            continue
        group = model._state.alike[int(key.removeprefix(_KEY))]
        several.append((group, tensor))
        labels.update((name, tensor[:, i]) for i, name in enumerate(group))
    data = keras.utils.pack_x_y_sample_weight(
        x, OpenLabels(labels, several), sample_weight
    )
    return (*state, data)
