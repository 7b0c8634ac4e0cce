"""Losses of labels together: data sets, weights of 0 and members leave the same out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kmtl
from kmtl.data import from_arrays

RNG = np.random.default_rng(0)
ROWS = 12
GAPS = np.arange(ROWS) % 3 == 0
TIMES = np.stack([1.0 + RNG.permutation(ROWS), RNG.integers(0, 2, ROWS)], axis=1)
TIMES[GAPS] = np.nan
WHO = np.where(GAPS, -1, RNG.integers(0, 3, ROWS))
LISTS = RNG.integers(0, 3, (ROWS, 4)).astype("float64")
LISTS[:, 2:][RNG.random((ROWS, 2)) < 0.5] = np.nan
TEXTS = np.where(np.arange(3) < RNG.integers(0, 4, (ROWS, 1)), [[0, 1, 0]], -1)


def losses_of(model: Any, x: Any, y: Any, weight: Any = None) -> dict[str, float]:
    report = model.loss_report(x, y, weight)
    return {name: report[name]["loss"] for name in model.task_names}


def check(model: Any, x: np.ndarray, labels: dict[str, np.ndarray]) -> None:
    """Rows with labels alone, all rows, and a data set of them have the same losses."""
    model.compile("sgd")
    whole = losses_of(model, x, labels)
    (batch,) = from_arrays(x, labels, tasks=model.tasks, batch_size=ROWS)
    assert losses_of(model, *batch) == pytest.approx(whole, rel=1e-5)
    assert all(value > 0 for value in whole.values())


def test_rows() -> None:
    tasks = [
        kmtl.Survival("first"),
        kmtl.Survival("when", edges=(2.0, 5.0, 9.0)),
        kmtl.Embedding("who", dimensions=3),
    ]
    x = RNG.normal(size=(ROWS, 4)).astype("float32")
    model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(5,), seed=0)
    labels = {"first": TIMES, "when": TIMES, "who": WHO}
    check(model, x, labels)
    whole = losses_of(model, x, labels)
    part = {name: values[~GAPS] for name, values in labels.items()}
    assert losses_of(model, x[~GAPS], part) == pytest.approx(whole, rel=1e-5)
    # Weights of 0 do what gaps do.
    filled = {name: np.where(np.isnan(v), 1, v) for name, v in labels.items()}
    filled["who"] = np.where(GAPS, 1, WHO)
    weights = np.where(GAPS, 0.0, 1.0)
    weight = {n: weights.reshape(-1, *[1] * (v.ndim - 1)) for n, v in labels.items()}
    assert losses_of(model, x, filled, weight) == pytest.approx(whole, rel=1e-5)


def test_lists_and_texts() -> None:
    tasks = [kmtl.Ranking("order"), kmtl.CTC("text", classes=2)]
    x = RNG.normal(size=(ROWS, 4, 2)).astype("float32")
    net = kmtl.backbones.ConvNet1D(filters=(4,), kernel_size=1, pooling=None)
    model = kmtl.build(backbone=net, input_shape=(4, 2), tasks=tasks, seed=0)
    check(model, x, {"order": LISTS, "text": TEXTS})


def test_members_are_not_each_others_rows() -> None:
    task = kmtl.Survival("first")
    layer = kmtl.TaskOutput(task, members=2)
    scores = RNG.normal(size=(2, ROWS, 1)).astype("float32")
    layer.build((None, 1))
    clean, mask = task.clean_labels(TIMES)
    scored = np.stack(list(scores), axis=1)
    found, parts = layer.loss_values(task, clean, scored, mask)
    assert parts == []
    each = [np.asarray(task.loss_values(clean, part)) for part in scores]
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-6)
    with pytest.raises(ValueError, match="several have no mean"):
        kmtl.TaskOutput(kmtl.Embedding("who"), members=2)
