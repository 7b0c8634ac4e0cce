"""A Gaussian process over the points of a search, in the unit cube."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

#: Scores that are worse than the median by more than so many times what the best is
#: better count as that: of a training that diverged, only that it did is of use.
CLIP = 2.0
#: Largest variance of the noise, in that of the scores.
MOST_NOISE = 0.5


class Process:
    """Scores, of which more is better, as a function of where they were measured.

    A Matérn kernel of smoothness 5/2 with a length scale for each coordinate, so that
    those that do not matter are found out, and with noise: on another seed the same
    training has another score.

    Args:
        points: `(n, d)`, coordinates in [0, 1].
        scores: `(n,)`, finite.
        noise: Smallest variance of the noise, in that of the scores.

    Reference: Snoek et al., Practical Bayesian optimization of machine learning
    algorithms, NIPS 2012, arXiv:1206.2944.
    """

    def __init__(self, points: np.ndarray, scores: np.ndarray, noise: float):
        self.points, self.scores = points, clipped(scores)
        most = max(noise, MOST_NOISE)
        length = Matern(np.ones(points.shape[1]), (0.1, 10.0), nu=2.5)
        white = WhiteKernel(min(max(noise, 0.05), most), (noise, most))
        self._process = GaussianProcessRegressor(
            ConstantKernel(1.0, (0.1, 10.0)) * length + white, normalize_y=True
        )
        with warnings.catch_warnings():
            # That length scales end at their bounds, where coordinates do not matter.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._process.fit(self.points, self.scores)

    def pretend(self, points: np.ndarray) -> None:
        """Take the expected scores of points for measured."""
        scores = self._process.predict(points)
        self.points = np.concatenate([self.points, points])
        self.scores = np.concatenate([self.scores, scores])
        self._process = GaussianProcessRegressor(
            self._process.kernel_, optimizer=None, normalize_y=True
        ).fit(self.points, self.scores)

    def best(self) -> int:
        """Which of the measured points has the best expected score."""
        return int(self._process.predict(self.points).argmax())

    def bounds(self, points: np.ndarray, beta: float) -> np.ndarray:
        """Expected scores, and `beta` standard deviations more, `(n,)`."""
        mean, spread = self._process.predict(points, return_std=True)
        return mean + beta * spread


def clipped(scores: np.ndarray) -> np.ndarray:
    """Scores without what is far below all others."""
    median, best = np.median(scores), scores.max()
    if best == median:
        return scores
    return np.maximum(scores, median - CLIP * (best - median))
