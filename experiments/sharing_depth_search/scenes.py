"""Indoor scenes (NYU Depth V2): what every pixel is, and how far away.

The 1,449 labelled images of Silberman et al. (ECCV 2012), official split, with the 13
classes of Couprie et al. (ICLR 2013). Read from `nyuv2_192x144.zip`: the images at 192
x 144 as `rgb/0001.jpg`, `depth/0001.png` (8 bits, 10 m / 255 each), `seg40/0001.png`
(0 is void), and `meta.json` with `train`, `test` (ids) and `seg40_to_seg13`. Here a
third of that in each direction goes in, and a sixth is predicted.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np

HEIGHT, WIDTH, CLASSES = 144, 192, 13
INPUT, OUTPUT = 3, 6  # reduced so many times
SHAPE = (HEIGHT // INPUT, WIDTH // INPUT, 3)
SIZE = (HEIGHT // OUTPUT, WIDTH // OUTPUT)
METRES = 10 / 255
RUN = 20
FILE = "nyuv2/nyuv2_192x144.zip"


def load(
    sizes: tuple[int, int, int], data_dir: Path
) -> tuple[tuple[np.ndarray, dict[str, np.ndarray]], ...]:
    """Train, validation and test part, each `(images, labels)`.

    Args:
        sizes: Number of images of each. The first two are from the official training
            images (see `divided`), the third from the official test images.
        data_dir: Folder with `nyuv2/nyuv2_192x144.zip`.
    """
    with zipfile.ZipFile(data_dir / FILE) as archive:
        meta = json.loads(archive.read("meta.json"))
        table = np.array(meta["seg40_to_seg13"], "int32") - 1  # void is -1: missing
        lists = (*divided(meta["train"]), meta["test"])
        if any(size > len(ids) for size, ids in zip(sizes, lists, strict=True)):
            raise ValueError(
                f"`sizes` must fit {[len(ids) for ids in lists]} images. "
                f"Received: sizes={sizes}"
            )
        first, second, third = (
            _read(archive, ids[:size], table)
            for size, ids in zip(sizes, lists, strict=True)
        )
    return first, second, third


def divided(ids: list[int]) -> tuple[list[int], list[int]]:
    """Training and validation images: every fifth run of 20 neighbours is the latter.

    Neighbours in the list show the same room, so single images would leak.
    """
    held = [place // RUN % 5 == 4 for place in range(len(ids))]
    return (
        [number for number, out in zip(ids, held, strict=True) if not out],
        [number for number, out in zip(ids, held, strict=True) if out],
    )


def _read(
    archive: zipfile.ZipFile, ids: list[int], table: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    images = np.empty((len(ids), *SHAPE), "float32")
    kinds = np.empty((len(ids), *SIZE), "int32")
    depths = np.empty((len(ids), *SIZE), "float32")
    middle = slice(OUTPUT // 2, None, OUTPUT)
    for i, number in enumerate(ids):
        pixels = _decode(archive.read(f"rgb/{number:04d}.jpg")).astype("float32")
        blocks = pixels.reshape(SHAPE[0], INPUT, SHAPE[1], INPUT, 3)
        images[i] = blocks.mean((1, 3)) / 255
        kinds[i] = table[_decode(archive.read(f"seg40/{number:04d}.png"))][
            middle, middle
        ]
        depth = _decode(archive.read(f"depth/{number:04d}.png")).astype("float32")
        depths[i] = depth[middle, middle] * METRES
    return images, {"kind": kinds, "depth": depths}


def _decode(data: bytes) -> np.ndarray:
    from PIL import Image  # comes with matplotlib

    return np.asarray(Image.open(io.BytesIO(data)))


def stand_in(
    sizes: tuple[int, int, int],
) -> tuple[tuple[np.ndarray, dict[str, np.ndarray]], ...]:
    """Random scenes of a floor and a box before a wall: to try out the program."""
    random = np.random.default_rng(0)
    parts = []
    for size in sizes:
        kinds = np.zeros((size, *SIZE), "int32")
        depths = np.full((size, *SIZE), 4.0, "float32")
        for i in range(size):
            floor, left = random.integers(8, 20), random.integers(0, 20)
            kinds[i, floor:], depths[i, floor:] = 1, 2.0
            kinds[i, 6:14, left : left + 8], depths[i, 6:14, left : left + 8] = 2, 1.0
        shades = (kinds / 3)[..., None] + random.normal(0, 0.05, (size, *SIZE, 3))
        images = shades.repeat(OUTPUT // INPUT, 1).repeat(OUTPUT // INPUT, 2)
        parts.append((images.astype("float32"), {"kind": kinds, "depth": depths}))
    return parts[0], parts[1], parts[2]
