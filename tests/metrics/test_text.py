"""Metrics of written texts, against sacrebleu and counting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kmtl import metrics

TOKENS, LENGTH = 6, 7
RNG = np.random.default_rng(0)


def texts(rows: int) -> list[list[int]]:
    return [
        RNG.integers(0, TOKENS, RNG.integers(1, LENGTH + 1)).tolist()
        for _ in range(rows)
    ]


def changed(text: list[int]) -> list[int]:
    """A text with some of its tokens replaced, and its end dropped or not."""
    replaced = [t if RNG.random() > 0.2 else int(RNG.integers(TOKENS)) for t in text]
    return replaced[: max(1, len(text) - int(RNG.integers(0, 2)))]


def as_arrays(rows: list[list[int]], found: list[list[int]]) -> tuple:
    """Clean labels, logits and mask, as the task makes them."""
    labels = np.zeros((len(rows), LENGTH + 1), "int32")
    mask = np.zeros((len(rows), LENGTH + 1), "float32")
    logits = RNG.normal(size=(len(rows), LENGTH + 1, TOKENS + 1)).astype("float32")
    for at, (row, own) in enumerate(zip(rows, found, strict=True)):
        labels[at, : len(row) + 1] = [*row, TOKENS]
        mask[at, : len(row) + 1] = bool(row)
        for step, token in enumerate([*own, TOKENS][: LENGTH + 1]):
            logits[at, step, token] += 20
    return labels, logits, mask


@pytest.mark.backend
@pytest.mark.parametrize("rows", [3, pytest.param(1, marks=pytest.mark.thorough)])
def test_bleu_is_that_of_sacrebleu(rows: int) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    cases = [texts(20 * rows), [[1, 2]] * rows, [[1, 2, 3, 4, 5]] * rows]
    answers = [
        [changed(row) for row in cases[0]],
        [[1, 3]] * rows,
        [[5, 4, 3, 2, 1]] * rows,
    ]
    for given, found in zip(cases, answers, strict=True):
        metric = metrics.BLEU()
        labels, logits, mask = as_arrays(given, found)
        half = len(given) // 2
        for part in (slice(None, half), slice(half, None)):
            metric.update_state(labels[part], logits[part], mask[part])
        lines = [[" ".join(map(str, row)) for row in rows] for rows in (found, given)]
        wanted = sacrebleu.corpus_bleu(
            lines[0], [lines[1]], tokenize="none", force=True
        ).score
        assert float(metric.result()) == pytest.approx(wanted, abs=2e-3)


def test_bleu_by_hand() -> None:
    """Papineni's clipping: "the" counts as often as the reference has it."""
    metric = metrics.BLEU()
    assert math.isnan(float(metric.result()))
    given, found = [[0, 1, 2, 3, 4, 5]], [[0, 1, 2, 3, 4, 4]]
    labels, logits, mask = as_arrays(given, found)
    metric.update_state(labels, logits, mask)
    shares = [5 / 6, 4 / 5, 3 / 4, 2 / 3]
    wanted = 100 * math.prod(shares) ** 0.25
    assert float(metric.result()) == pytest.approx(wanted, rel=1e-5)
    # Rows without a label, and those of which nothing was written, change nothing.
    metric.update_state(labels, logits, 0 * mask)
    metric.update_state(labels, np.full_like(logits, np.nan), mask)
    assert float(metric.result()) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.backend
def test_exact_texts_and_perplexity() -> None:
    given = [[1, 2], [3], [], [4, 4, 4, 4, 4, 4, 4]]
    labels, logits, mask = as_arrays(given, [[1, 2], [3, 3], [5], [4] * 7])
    metric = metrics.TextAccuracy()
    metric.update_state(labels, logits, mask)
    assert float(metric.result()) == pytest.approx(2 / 3)
    perplexity = metrics.Perplexity()
    for part in (slice(None, 1), slice(1, None)):
        perplexity.update_state(labels[part], 0.1 * logits[part], mask[part])
    small = 0.1 * logits.astype("float64")
    share = np.exp(small) / np.exp(small).sum(-1, keepdims=True)
    right = np.take_along_axis(share, labels[..., None], -1)[..., 0][mask > 0]
    wanted = np.exp(-np.log(right).mean())
    assert float(perplexity.result()) == pytest.approx(wanted, rel=1e-5)
