from __future__ import annotations

from pathlib import Path

import keras_tuner
import numpy as np
import pytest
from search_tools import make_tuner, run
from sklearn.gaussian_process import GaussianProcessRegressor

import kmtl
from kmtl.tuning.gaussian import CLIP, Process, clipped
from kmtl.tuning.oracles import _coordinates


def hill(points: np.ndarray) -> np.ndarray:
    return np.exp(-8 * (points[:, 0] - 0.3) ** 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_does_not_matter_is_found_out(seed: int) -> None:
    """Of six coordinates five are idle, and scores are noisy."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(size=(30, 6))
    scores = hill(points) + 0.05 * rng.normal(size=30)
    process = Process(points, scores, 1e-4)
    fresh = rng.uniform(size=(500, 6))
    error = process.bounds(fresh, 0.0) - hill(fresh)
    assert np.sqrt((error**2).mean()) < 0.08  # of a spread of .3
    # One length scale for all, and no noise, is what KerasTuner's process has.
    plain = GaussianProcessRegressor(alpha=1e-4, normalize_y=True).fit(points, scores)
    worse = plain.predict(fresh) - hill(fresh)
    assert (error**2).mean() < (worse**2).mean()


def test_the_best_point_is_not_the_luckiest() -> None:
    """Five trainings of one point say more than one lucky one of another."""
    rng = np.random.default_rng(0)
    good, bad = np.full((8, 1), 0.8), np.linspace(0, 0.3, 8)[:, None]
    points = np.concatenate([good, bad])
    scores = np.concatenate([1 + 0.1 * rng.normal(size=8), np.zeros(8)])
    scores[10] = scores.max() + 0.01
    process = Process(points, scores, 1e-4)
    assert process.scores.argmax() == 10
    assert points[process.best(), 0] == 0.8


def test_points_in_training_count_as_expected() -> None:
    points = np.linspace(0, 1, 9)[:, None]
    process = Process(points, hill(points), 1e-4)
    asked = np.asarray([[0.35]])
    before, spread = process.bounds(asked, 0.0), process.bounds(asked, 1.0)
    process.pretend(asked)
    assert len(process.points) == 10
    assert process.bounds(asked, 0.0) == pytest.approx(before, abs=0.01)
    assert (process.bounds(asked, 1.0) - before < spread - before).all()


def test_what_diverged_does_not_hide_the_rest() -> None:
    scores = np.asarray([0.5, 0.6, 0.7, -1e6])
    # The median is .55, the best one .15 above.
    assert clipped(scores).tolist() == [0.5, 0.6, 0.7, 0.55 - CLIP * (0.7 - 0.55)]
    assert clipped(np.asarray([1.0, 1.0, 0.2])).tolist() == [1.0, 1.0, 0.2]


def test_names_have_no_order() -> None:
    hp = keras_tuner.HyperParameters()
    hp.Choice("kind", ["a", "b", "c"])
    hp.Choice("size", [1, 2, 4], ordered=True)
    hp.Float("rate", 0.0, 0.5)
    kind, size, rate = hp.space
    assert _coordinates(kind, {kind: "b"}) == [0.0, 1.0, 0.0]
    assert _coordinates(size, {size: 2}) == pytest.approx([0.5])
    assert _coordinates(rate, {rate: 0.125}) == [0.25]
    assert _coordinates(rate, {}) == [0.0]  # does not count there: at its default


def test_the_first_points_are_spread(tmp_path: Path) -> None:
    """In every half of every range are as many, which chance alone seldom does."""
    tuner = make_tuner(
        tmp_path, kind=kmtl.BayesianOptimization, max_trials=9, num_initial_points=9
    )
    run(tuner)
    found = [t.hyperparameters.values for t in tuner.oracle.trials.values()][1:]
    for name in ("a", "b"):
        assert sum(values[name] < 0.5 for values in found) == 4
    again = make_tuner(
        tmp_path / "again", kind=kmtl.BayesianOptimization, max_trials=4,
        num_initial_points=9, seed=1,
    )  # fmt: skip
    run(again)
    assert found[0] not in [
        t.hyperparameters.values for t in again.oracle.trials.values()
    ]
