"""Times until an event: values of the papers, by loops in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl import losses, metrics

RNG = np.random.default_rng(0)
ROWS = 60
EDGES = (1.0, 2.0, 4.0, 6.0)
TIMES = RNG.integers(1, 8, ROWS).astype("float32")  # with ties, and at edges
EVENTS = RNG.integers(0, 2, ROWS)
LABELS = np.stack([TIMES, EVENTS], axis=1)
KEPT = np.arange(ROWS) % 5 > 0
HOLES = np.where(KEPT[:, None], LABELS, np.nan)
CURVES = -np.cumsum(RNG.random((ROWS, 4)), axis=1).astype("float32")
SCORES = RNG.integers(0, 5, (ROWS, 1)).astype("float32")


def survival_until(curve: np.ndarray, time: float) -> float:
    """S at the last edge that has passed."""
    passed = [value for edge, value in zip(EDGES, curve, strict=True) if edge <= time]
    return np.exp(passed[-1]) if passed else 1.0


@pytest.mark.backend
@pytest.mark.thorough(on="jax")
def test_likelihood_of_hazards() -> None:
    values = ops.convert_to_numpy(losses.hazards(LABELS, CURVES, EDGES))[:, 0]
    for row in range(ROWS):
        time, event = LABELS[row]
        expected = survival_until(CURVES[row], time)
        if event and time <= EDGES[-1]:
            number = next(i for i, edge in enumerate(EDGES) if time <= edge)
            before = np.exp(CURVES[row, number - 1]) if number else 1.0
            expected = before - np.exp(CURVES[row, number])
        np.testing.assert_allclose(values[row], -np.log(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.backend
def test_partial_likelihood_leaves_missing_rows_out() -> None:
    task = kmtl.Survival("t")
    clean, mask = task.clean_labels(HOLES)
    values = ops.convert_to_numpy(task.loss_values(clean, SCORES))
    weights = ops.convert_to_numpy(task.label_weights(clean, mask))
    score = SCORES[:, 0].astype("float64")
    expected = np.zeros(ROWS)
    for row in np.flatnonzero(KEPT & (EVENTS == 1)):
        at_risk = KEPT & (TIMES[row] <= TIMES)
        expected[row] = np.log(np.exp(score[at_risk]).sum()) - score[row]
    np.testing.assert_allclose(values, np.stack([expected] * 2, 1), rtol=1e-5)
    np.testing.assert_array_equal(weights, np.stack([KEPT] * 2, 1))
    # A weight of 0 takes a row out of the sums too.
    clean, mask = task.clean_labels(LABELS)
    marked = task.marked(clean, ops.convert_to_tensor(weights))
    again = ops.convert_to_numpy(task.loss_values(marked, SCORES))
    np.testing.assert_allclose(again, values, rtol=1e-6)


def concordance(scores: np.ndarray) -> float:
    right = pairs = 0.0
    for i in np.flatnonzero(KEPT & (EVENTS == 1)):
        for j in np.flatnonzero(KEPT):
            if TIMES[i] < TIMES[j] or (TIMES[i] == TIMES[j] and not EVENTS[j]):
                pairs += 1
                right += (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
    return right / pairs


def scored(task: kmtl.Survival, outputs: np.ndarray) -> float:
    metric = task.score.make(task)
    clean, mask = task.clean_labels(HOLES)
    metric.update_state(clean, outputs, mask)
    return float(metric.result())


def test_concordance() -> None:
    found = scored(kmtl.Survival("t"), SCORES)
    assert found == pytest.approx(concordance(SCORES[:, 0]), rel=1e-5)
    whole = np.hstack([np.ones((ROWS, 1)), np.exp(CURVES)])
    mean = np.trapezoid(whole, np.array([0.0, *EDGES]), axis=1)
    found = scored(kmtl.Survival("t", edges=EDGES), CURVES)
    assert found == pytest.approx(concordance(-mean), rel=1e-5)


@pytest.mark.backend
@pytest.mark.thorough(on="jax")
def test_integrated_brier_score() -> None:
    """As scikit-survival's `integrated_brier_score` computes it."""

    def stay(time: float) -> float:
        share = 1.0
        for at in np.unique(TIMES[KEPT & (EVENTS == 0)]):
            same = KEPT & (at == TIMES)
            known = (KEPT & (at <= TIMES)).sum() - (same & (EVENTS == 1)).sum()
            if at <= time:
                share *= 1 - (same & (EVENTS == 0)).sum() / known
        return share

    errors = []
    for number, edge in enumerate(EDGES):
        values = []
        for row in np.flatnonzero(KEPT):
            survival = np.exp(CURVES[row, number])
            if TIMES[row] > edge:
                values.append((1 - survival) ** 2 / stay(edge))
            elif EVENTS[row]:
                values.append(survival**2 / stay(TIMES[row]))
            else:
                values.append(0.0)
        errors.append(np.mean(values))
    expected = np.trapezoid(errors, EDGES) / (EDGES[-1] - EDGES[0])
    task = kmtl.Survival("t", edges=EDGES, metrics="integrated_brier")
    assert scored(task, CURVES) == pytest.approx(expected, rel=1e-4)
    broken = metrics.IntegratedBrier(EDGES)
    broken.update_state(LABELS, np.full_like(CURVES, np.nan))
    assert np.isnan(float(broken.result()))


def test_structured_arrays_and_intervals() -> None:
    given = np.array([(True, 2.0), (False, 3.0)], [("e", bool), ("t", float)])
    found = kmtl.Survival("t").label_array(given)
    np.testing.assert_array_equal(found, [[2.0, 1.0], [3.0, 0.0]])
    task = kmtl.Survival.from_labels("t", LABELS, intervals=3)
    events = np.sort(TIMES[EVENTS == 1])
    assert task.edges[-1] == events[-1]
    shares = np.searchsorted(events, task.edges, side="right") / len(events)
    assert (shares >= np.arange(1, len(shares) + 1) / 3 - 1e-9).all()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: kmtl.Survival("t", edges=(2, 1)), "in increasing order"),
        (lambda: kmtl.Survival("t", metrics="integrated_brier"), "two `edges`"),
        (lambda: kmtl.Survival("t", loss="mse"), "must be 'likelihood'"),
        (lambda: kmtl.Survival("t").check_labels(TIMES), r"the time and the event"),
        (
            lambda: kmtl.Survival("t").check_labels([[1.0, np.nan]]),
            "both of a time and an event, or neither.*in row 0",
        ),
        (lambda: kmtl.Survival("t").check_labels([[0.0, 1.0]]), "a time above 0"),
        (lambda: kmtl.Survival("t").check_labels([[1.0, 2]]), "an event of 0 or 1"),
        (
            lambda: kmtl.Survival.from_labels("t", [[1.0, 0]]),
            "must hold an event to choose",
        ),
    ],
)
def test_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()
