"""Centres of clusters, which begin among the features of the training rows."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from kmtl.layers.cluster_centres import ClusterCentres
from kmtl.tasks.clustering import Clustering
from kmtl.training import sources
from kmtl.training.batches import ShuffledBatches
from kmtl.typing import Inputs, Model

logger = logging.getLogger("kmtl")

#: Rows that k-means looks at: of more arrays, evenly spaced ones.
MOST_ROWS = 20_000
_AT_ONCE = 256


def place_centres(
    model: Model,
    x: Inputs,
    validation_split: float = 0.0,
    steps: int | None = None,
) -> None:
    """Place the centres that are not yet, by k-means on features of training data.

    Args:
        x: What `prepare` gave: arrays, or a data set.
        validation_split: Share of the rows at the end that are not training data.
        steps: Number of batches to take of a data set without end.

    Raises:
        TypeError: for a generator, which would be used up.
        ValueError: for fewer different rows than clusters.
    """
    layers = [layer for layer in _centres(model) if not layer.placed]
    if not layers:
        return
    if sources.is_stream(x):
        raise TypeError(
            f"The centres of '{layers[0].name}' are placed among the training rows "
            "before training, and finding out would use up a generator: pass arrays or "
            f"a data set to the first `fit`. Received: {type(x).__name__}"
        )
    net = keras.Model(model.input, {layer.name: layer.input for layer in layers})
    found: dict[str, list[np.ndarray]] = {layer.name: [] for layer in layers}
    rows = 0
    for part in _parts(x, validation_split, steps):
        features = net.predict_on_batch(part)
        for name, kept in found.items():
            kept.append(np.asarray(features[name]))
        rows += len(kept[-1])
        if rows >= MOST_ROWS:
            break
    for layer in layers:
        layer.place(np.concatenate(found[layer.name])[:MOST_ROWS])


def check_placed(model: Model, method: str) -> None:
    """Refuse to train with centres that are nowhere near the data."""
    for layer in _centres(model):
        if not layer.placed:
            raise ValueError(
                f"The centres of '{layer.name}' are placed among the training rows by "
                f"`fit`: call it before `{method}`, or "
                f"`model.get_layer('{layer.name}').place(features)`"
            )


def tell_collapse(model: Model, logs: Mapping[str, Any]) -> None:
    """Say that clusters have no rows, after training."""
    for task in model.tasks:
        if not isinstance(task, Clustering):
            continue
        used = (logs.get(f"{task.name}_clusters_used") or [math.nan])[-1]
        if used < 2 or used <= task.clusters / 2:
            logger.warning(
                "Task '%s' uses %d of its %d clusters at the end of training: the "
                "features have collapsed, or there are fewer groups. Give it less "
                "weight, keep a kmtl.Reconstruction beside it, or ask for fewer "
                "clusters.",
                task.name,
                int(used),
                task.clusters,
            )


def _centres(model: Model) -> list[ClusterCentres]:
    return [layer for layer in model.layers if isinstance(layer, ClusterCentres)]


def _parts(x: Inputs, validation_split: float, steps: int | None) -> Iterator[Inputs]:
    if isinstance(x, ShuffledBatches):
        x = x.parts[0]
    if sources.is_dataset(x):
        limit = steps if sources.is_endless(x) else None
        for part, _, _ in sources.batches_of(x, limit):
            yield part
        return
    rows = len(keras.tree.flatten(x)[0])
    count = math.floor(rows * (1.0 - validation_split))  # as Keras splits
    places = np.arange(count)
    if count > MOST_ROWS:
        places = np.linspace(0, count - 1, MOST_ROWS).astype("int64")
    for start in range(0, len(places), _AT_ONCE):
        chosen = places[start : start + _AT_ONCE]
        yield keras.tree.map_structure(lambda a, at=chosen: np.asarray(a)[at], x)
