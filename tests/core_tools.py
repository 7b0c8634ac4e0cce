"""What several test files need."""

from __future__ import annotations

from typing import Any

import numpy as np

from kmtl.testing._running import gradient as gradient

ROWS = 22  # in batches of eight the last one is partial


def table(rows: int = ROWS, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Inputs `(rows, 6)` and labels with holes for the tasks of `table_tasks`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 6)).astype("float32")
    y = {
        "kind": rng.integers(0, 3, rows).astype("int32"),
        "flag": rng.integers(0, 2, rows).astype("int8"),
        "size": rng.normal(size=(rows, 2)),
    }
    y["kind"][rng.random(rows) < 0.3] = -1
    y["flag"][rng.random(rows) < 0.3] = -1
    y["size"][rng.random((rows, 2)) < 0.3] = np.nan
    y["size"][8:16] = np.nan  # a batch of eight without this task
    return x, y


def table_tasks() -> list:
    """One classification, one binary and one regression task."""
    import kmtl

    return [
        kmtl.Classification("kind", classes=3, weight=0.5),
        kmtl.BinaryClassification("flag", class_weight={1: 3.0}),
        kmtl.Regression("size", units=2, metrics=("mae", "r2")),
    ]


def table_model(**options: Any) -> Any:
    """A small model on `table`."""
    import kmtl

    options = {
        "units": (5, 4),
        "sharing_depth": 1,
        "activation": "tanh",  # no dead units, so no ties
        "seed": 0,
    } | options
    options.setdefault("tasks", table_tasks())
    return kmtl.build_mlp(input_shape=(6,), **options)
