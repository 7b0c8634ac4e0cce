"""MultiMNIST: two overlaid digits per image.

The recipe of Sener & Koltun (NeurIPS 2018, arXiv:1810.04650), after Sabour et al.
(2017): on a canvas of 36 x 36, a written digit at the top left and another one, drawn
with replacement, six pixels lower and further right; pixelwise maximum; resized to
28 x 28 (nearest pixel). Here every part is made from its own written digits, so that
none occurs in both training and validation data.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

import kmtl
from kmtl.data import overlaying


@dataclasses.dataclass(frozen=True)
class Part:
    """Images `(N, 28, 28, 1)`, float32 in [0, 1], and both digits."""

    x: np.ndarray
    y: dict[str, np.ndarray]

    def select(self, tasks: list[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return self.x, {name: self.y[name] for name in tasks}


def overlay(images: np.ndarray, labels: np.ndarray, seed: int) -> Part:
    """As `kmtl.data.multi_mnist` does it."""
    return Part(*overlaying.overlay(images, labels, seed))


def load(
    sizes: tuple[int, int, int], data_dir: Path | None = None
) -> tuple[Part, Part, Part]:
    """Train, validation and test part.

    Args:
        sizes: Number of images of each; train and validation images come from the
            start and the end of MNIST's training set, test images from its test set.
        data_dir: As for `kmtl.data.mnist`.
    """
    (x, y), (x_test, y_test) = kmtl.data.mnist(data_dir)
    train, validation, test = sizes
    if train + validation > len(x) or test > len(x_test):
        raise ValueError(
            f"`sizes` must fit MNIST's {len(x)} training and {len(x_test)} test "
            f"digits. Received: sizes={sizes}"
        )
    held = slice(len(x) - validation, None)
    return (
        overlay(x[:train], y[:train], 0),
        overlay(x[held], y[held], 1),
        overlay(x_test[:test], y_test[:test], 1),
    )


def stand_in(sizes: tuple[int, int, int]) -> tuple[Part, Part, Part]:
    """The same from scikit-learn's 8 x 8 digits, enlarged: to try out the program."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    large = np.kron(bunch.images, np.ones((3, 3)))  # 24 x 24
    images = np.pad(large * 15, ((0, 0), (2, 2), (2, 2))).astype("uint8")
    parts, start = [], 0
    for seed, size in enumerate(sizes):
        chosen = slice(start, start + size)
        parts.append(overlay(images[chosen], bunch.target[chosen], seed))
        start += size
    return parts[0], parts[1], parts[2]
