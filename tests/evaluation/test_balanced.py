"""What a search may optimise cannot be bought with task weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kmtl.evaluation.balanced import balanced_delta_m

#: A task below this share of its single-task score has collapsed.
COLLAPSED = 0.7


def test_by_hand() -> None:
    ways = {"a": "max", "b": "min"}
    # 1.5 and 2 times as good: (mean of 1.5^-4 and 2^-4)^(-1/4)
    expected = 100 * (((1.5**-4 + 2.0**-4) / 2) ** -0.25 - 1)
    assert balanced_delta_m({"a": 50.0, "b": 50.0}, ways) == pytest.approx(expected)
    for share in (-20.0, 0.0, 35.0):
        same = {"a": share, "b": 100 * (1 - 1 / (1 + share / 100))}
        assert balanced_delta_m(same, ways) == pytest.approx(share, abs=1e-9)
    small = {"a": 0.4, "b": -0.2}
    assert balanced_delta_m(small, ways) == pytest.approx(0.1, abs=0.01)  # as Δm
    assert np.isnan(balanced_delta_m({"a": np.nan, "b": 1.0}, ways))
    assert balanced_delta_m({"a": -1e9, "b": -1e9}, ways) == pytest.approx(-90)
    assert balanced_delta_m({"b": 100.0}, ways) == pytest.approx(900)  # no error left


@pytest.mark.parametrize("count", [2, 3, 10, 40])
def test_no_gain_pays_for_a_task_below_80_percent(count: int) -> None:
    names = [f"task{i}" for i in range(count)]
    ways = dict.fromkeys(names, "min") | {"task0": "max"}
    deltas = dict.fromkeys(names, 100.0) | {"task0": -20.1}  # all others: no error
    assert balanced_delta_m(deltas, ways) < 0
    # And it grows with every task's improvement.
    for name in names[:3]:
        better = deltas | {name: deltas[name] - 50.0}
        assert balanced_delta_m(better, ways) < balanced_delta_m(deltas, ways)


def trained(
    fit: np.ndarray, y: np.ndarray, rank: int, weights: np.ndarray
) -> np.ndarray:
    """Squared errors of the linear net with a bottleneck that is best for the weights.

    Reduced-rank regression has a closed form: the leading singular vectors of the
    weighted least-squares fit.
    """
    roots = np.sqrt(weights)
    _, _, right = np.linalg.svd(fit * roots, full_matrices=False)
    kept = right[:rank].T @ right[:rank]
    return (((fit * roots) @ kept / roots - y) ** 2).mean(axis=0)


def test_weights_alone_buy_nothing() -> None:
    """An adversary tries all weights, on nets too small for their tasks.

    Where weights raise the objective above that of equal weights, no task has
    collapsed. Plain Δm is raised by weights under which one has: so the test can fail.
    """
    draw = np.random.default_rng(0)
    bought = {"balanced": 0, "plain": 0}
    for _ in range(20):
        tasks, rank = 4, int(draw.integers(2, 4))
        x = draw.normal(size=(120, 6))
        common = draw.normal(size=(6, rank)) @ draw.normal(size=(rank, tasks))
        own = draw.normal(size=(6, tasks)) * draw.uniform(0.1, 0.8, tasks)
        noise = draw.normal(size=(120, tasks)) * draw.uniform(0.5, 2.0, tasks)
        y = x @ (common + own) + noise
        fit = x @ np.linalg.lstsq(x, y, rcond=None)[0]
        alone = np.sqrt(trained(fit, y, tasks, np.ones(tasks)))
        # Of a task trained alone too little: the others help it, and can be bought by.
        alone = alone * draw.uniform(0.9, 2.5, tasks)
        found = []
        for weights in itertools.product((0.02, 0.3, 5.0), repeat=tasks):
            errors = np.sqrt(trained(fit, y, rank, np.array(weights)))
            deltas = {f"t{i}": 100 * (1 - e / a) for i, (e, a) in
                      enumerate(zip(errors, alone, strict=True))}  # fmt: skip
            ways = dict.fromkeys(deltas, "min")
            found.append(
                (
                    len(set(weights)) == 1,
                    min(alone / errors),
                    balanced_delta_m(deltas, ways),
                    float(np.mean(list(deltas.values()))),
                )
            )
        equal = next(row for row in found if row[0])
        for column, name in ((2, "balanced"), (3, "plain")):
            best = max(found, key=lambda row: row[column])
            raised = best[column] > equal[column] + 0.1
            bought[name] += raised and best[1] < min(COLLAPSED, equal[1])
    assert bought["balanced"] == 0
    assert bought["plain"] > 0
