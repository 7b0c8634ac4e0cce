"""MultiMNIST with a third task: whose stroke is where.

Two written digits overlaid as in experiments/multimnist (Sener & Koltun, 2018): on a
canvas of 36 x 36, one at the top left and another one six pixels lower and further
right, pixelwise maximum, resized to 28 x 28 (nearest pixel). The low-level task is a
class per cell of 2 x 2 pixels: 0 nothing, 1 the left digit's stroke, 2 the right
one's, 3 both.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

import kmtl

CANVAS, OFFSET, SIDE, CELL = 36, 6, 28, 2
INK = 128  # from here on a pixel (of 0 to 255) is part of a stroke


@dataclasses.dataclass(frozen=True)
class Part:
    """Images `(N, 28, 28, 1)` in [0, 1], digits `(N,)`, strokes `(N, 14, 14)`."""

    x: np.ndarray
    y: dict[str, np.ndarray]

    def select(self, tasks: tuple[str, ...]) -> dict[str, np.ndarray]:
        return {name: self.y[name] for name in tasks}


def overlay(images: np.ndarray, labels: np.ndarray, seed: int) -> Part:
    """Every image as the left digit, a random one as the right digit.

    Args:
        images: uint8 `(N, 28, 28)`.
        labels: `(N,)`.
        seed: Of the draw of the right digits.
    """
    # RandomState's streams never change, so the images are the same everywhere.
    right = np.random.RandomState(seed).randint(0, len(images), len(images))
    first = np.zeros((len(images), CANVAS, CANVAS), "uint8")
    second = np.zeros_like(first)
    first[:, :SIDE, :SIDE] = images
    second[:, OFFSET : OFFSET + SIDE, OFFSET : OFFSET + SIDE] = images[right]
    nearest = np.floor((np.arange(SIDE) + 0.5) * CANVAS / SIDE).astype(int)
    first, second = (digit[:, nearest][:, :, nearest] for digit in (first, second))
    x = (np.maximum(first, second) / np.float32(255)).astype("float32")[..., None]
    y = {
        "stroke": (_cells(first) + 2 * _cells(second)).astype("int32"),
        "left": labels.astype("int32"),
        "right": labels[right].astype("int32"),
    }
    return Part(x, y)


def _cells(digit: np.ndarray) -> np.ndarray:
    """1 where a cell has a pixel of the stroke."""
    side = SIDE // CELL
    parts = (digit >= INK).reshape(-1, side, CELL, side, CELL)
    return parts.any(axis=(2, 4)).astype("int32")


def load(sizes: tuple[int, int], data_dir: Path | None = None) -> tuple[Part, Part]:
    """Training part from MNIST's training digits, test part from its test digits."""
    (x, y), (x_test, y_test) = kmtl.data.mnist(data_dir)
    train, test = sizes
    return overlay(x[:train], y[:train], 0), overlay(x_test[:test], y_test[:test], 1)


def stand_in(sizes: tuple[int, int]) -> tuple[Part, Part]:
    """The same from scikit-learn's 8 x 8 digits, enlarged: to try out the program."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    large = np.kron(bunch.images, np.ones((3, 3)))  # 24 x 24
    images = np.pad(large * 15, ((0, 0), (2, 2), (2, 2))).astype("uint8")
    train, test = sizes
    cut = slice(train, train + test)
    return (
        overlay(images[:train], bunch.target[:train], 0),
        overlay(images[cut], bunch.target[cut], 1),
    )
