"""MultiMNIST: two written digits in one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kmtl import _checks
from kmtl.data.containers import Split, TaskData
from kmtl.data.idx import mnist
from kmtl.typing import PathLike

if TYPE_CHECKING:
    from kmtl.tasks.base import Task

CANVAS, OFFSET, SIDE = 36, 6, 28

ABOUT = """\
MultiMNIST: on a canvas of 36 x 36 a digit of MNIST at the top left and another one,
drawn at random with replacement, six pixels lower and further right, joined by the
pixelwise maximum; resized to 28 x 28 (nearest pixel), float32 in [0, 1]. Every part is
made of its own written digits."""


def multi_mnist(
    data_dir: PathLike | None = None, *, validation: int = 10_000, download: bool = True
) -> TaskData:
    """MultiMNIST: which digit is at the top left, and which at the bottom right?

    The recipe of Sener & Koltun (NeurIPS 2018, arXiv:1810.04650), after Sabour et al.
    (2017), with the same images on every machine. For a small set that needs no files
    see `kmtl.data.multi_digits`.

    Args:
        data_dir, download: As for `kmtl.data.mnist`.
        validation: Number of MNIST's training digits, its last, that the validation
            part is made of. Defaults to 10,000.

    Returns:
        A `kmtl.data.TaskData` with tasks `left` and `right`, of 60,000 images to train
        and to validate and 10,000 to test.

    Raises:
        FileNotFoundError: with all places that were looked at.
    """
    from kmtl.tasks import Classification

    (x, y), test = mnist(data_dir, download=download)
    validation = _checks.check_int("validation", validation, 1, len(x) - 1)
    tasks: list[Task] = [
        Classification("left", classes=10, pooling="flatten"),
        Classification("right", classes=10, pooling="flatten"),
    ]
    held = len(x) - validation
    singles = (x[:held], y[:held], 0), (x[held:], y[held:], 1), (*test, 1)
    train, checks, tests = (
        Split(*overlay(*single), tasks, name)
        for single, name in zip(singles, ("train", "validation", "test"), strict=True)
    )
    return TaskData(tasks, train, checks, tests, ABOUT)


def overlay(
    images: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Every image as the left digit, a random one as the right digit.

    Args:
        images: uint8 `(N, 28, 28)`.
        labels: `(N,)`.
        seed: Of the draw of the right digits.

    Returns:
        Images `(N, 28, 28, 1)` and the labels `left` and `right`.
    """
    # RandomState's streams never change, so the images are the same everywhere.
    right = np.random.RandomState(seed).randint(0, len(images), len(images))
    canvas = np.zeros((len(images), CANVAS, CANVAS), "uint8")
    canvas[:, :SIDE, :SIDE] = images
    corner = canvas[:, OFFSET : OFFSET + SIDE, OFFSET : OFFSET + SIDE]
    np.maximum(corner, images[right], out=corner)
    nearest = np.floor((np.arange(SIDE) + 0.5) * CANVAS / SIDE).astype(int)
    small = canvas[:, nearest][:, :, nearest]
    x = (small / np.float32(255)).astype("float32")[..., None]
    return x, {"left": labels.astype("int32"), "right": labels[right].astype("int32")}
