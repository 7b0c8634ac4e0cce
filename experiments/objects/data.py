"""MNIST digits on a canvas, over one another, with their boxes and their pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import kmtl

#: Sides of the canvas, in pixels.
SIDE = 64
#: Digits on a canvas, at least and at most.
FEWEST, MOST = 0, 5
#: Sides of a digit's picture on the canvas: from 18 to 32 pixels, MNIST's has 28.
SMALLEST, LARGEST = 18, 32
#: Grey from which on a pixel is of the digit.
INK = 0.35


def digits(folder: Path | None) -> tuple[tuple, tuple]:
    """MNIST's training and test images, in [0, 1], and classes."""
    path = None if folder is None else folder / "mnist"
    train, test = kmtl.data.mnist(path)
    return tuple((x / np.float32(255), y) for x, y in (train, test))  # type: ignore


def small_digits() -> tuple[tuple, tuple]:
    """scikit-learn's digits of 8 x 8, three times as large, where there is no MNIST."""
    data = kmtl.data.digits()
    return tuple(  # type: ignore[return-value]
        (np.kron(part.x[..., 0], np.ones((3, 3), "float32")), part.y["digit"])
        for part in (data.train, data.test)
    )


def load(name: str, folder: Path | None) -> tuple[tuple, tuple]:
    """Images and classes to train and to test with; `folder` holds `mnist`."""
    return small_digits() if name == "small" else digits(folder)


def canvases(images: np.ndarray, classes: np.ndarray, rows: int, seed: int) -> tuple:
    """Pictures `(rows, 64, 64, 1)`, and labels of the objects and of every pixel.

    A digit lies over those before it, and is left out where that would leave less than
    a third of one to be seen. A box is that of what can be seen. Pixels have the
    digit's class, 1 to 10, and 0 where there is none.
    """
    rng = np.random.default_rng(seed)
    pictures = np.zeros((rows, SIDE, SIDE), "float32")
    maps = np.zeros((rows, SIDE, SIDE), "int32")
    found = []
    for picture, pixels in zip(pictures, maps, strict=True):
        owner = np.full((SIDE, SIDE), -1)
        kinds: list[int] = []
        sizes: list[int] = []
        for _ in range(rng.integers(FEWEST, MOST + 1)):
            chosen = int(rng.integers(len(images)))
            ink = resized(images[chosen], int(rng.integers(SMALLEST, LARGEST + 1)))
            y, x = rng.integers(0, SIDE - len(ink) + 1, 2)
            place = slice(y, y + len(ink)), slice(x, x + len(ink))
            new = owner.copy()
            new[place][ink > INK] = len(kinds)
            seen = np.bincount(new[new >= 0], minlength=len(kinds) + 1)
            if any(3 * seen[n] < size for n, size in enumerate(sizes)):
                continue
            owner = new
            kinds.append(int(classes[chosen]))
            sizes.append(int((ink > INK).sum()))
            under = picture[place]
            picture[place] = np.where(ink > INK, ink, np.maximum(ink, under))
        boxes = []
        for number, kind in enumerate(kinds):
            down, across = np.nonzero(owner == number)
            pixels[owner == number] = kind + 1
            corners = across.min(), down.min(), across.max() + 1, down.max() + 1
            boxes.append((*corners, kind))
        found.append(boxes)
    labels = kmtl.data.boxes(found, size=(SIDE, SIDE), max_boxes=MOST)
    return pictures[..., None], {"digits": labels, "pixels": maps}


def resized(image: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    small = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(small)
