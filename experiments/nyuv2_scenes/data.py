"""NYU Depth V2: indoor scenes with a class and a depth per pixel.

Labelled set of Silberman et al. (ECCV 2012), official split (795 training and 654 test
images), 13 classes, as a file `nyuv2/nyuv2_192x144.zip` of images `rgb/ID.jpg`, depth
`depth/ID.png` (uint8, 255 is 10 m), 40 classes `seg40/ID.png` (0 is void) and
`meta.json` with the split and the table from 40 to 13 classes.

Tasks, of which two are given and the others derived here:

- `semantic`: the class of a pixel, 0 to 12; -1 where it is void.
- `depth`: metres; 0 where there is none.
- `boundary`: 1 where the right or the lower neighbour is of another of the 40 classes,
  on the map as it is trained; -1 where one of the three is void.
- `present`: per class of the 13, whether it covers 1 % of the image.
- `normals`: x to the right, y down, z away from the camera, of the plane through a
  square of the full depth map; NaN where the square leaves the image. Rough: the depth
  has steps of 4 cm.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np

CLASSES = 13
HEIGHT, WIDTH = 144, 192
METRES = 10.0 / 255.0
#: Focal length of the camera in pixels of these images: 519 in those of 640 x 480.
FOCAL = 519.0 * WIDTH / 640.0
#: Pixels to each side of the square whose plane a normal is of.
REACH = 10
LEAST_SHARE = 0.01
#: Size name -> by how much the sides are divided.
FACTORS = {"small": 4, "half": 2, "full": 1}
NAMES = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture",
    "sofa", "table", "tv", "wall", "window",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Part:
    """Images `(N, H, W, 3)`, uint8, and a dict of labels."""

    x: np.ndarray
    y: dict[str, np.ndarray]

    def select(self, tasks: tuple[str, ...]) -> tuple[np.ndarray, dict]:
        return self.x, {name: self.y[name] for name in tasks}

    def mirrored(self) -> Part:
        """The images and, behind them, the same from right to left."""
        y = {
            name: np.concatenate([v, v[:, :, ::-1] if v.ndim == 3 else v])
            for name, v in self.y.items()
            if name != "normals"
        }
        # A boundary lies left of a change in the image, and so right of it in a mirror.
        y["boundary"][len(self.x) :] = boundaries(y.pop("seg40")[len(self.x) :])
        mirror = self.y["normals"][:, :, ::-1] * np.array([-1, 1, 1], "float32")
        y["normals"] = np.concatenate([self.y["normals"], mirror])
        return Part(np.concatenate([self.x, self.x[:, :, ::-1]]), y)


def boundaries(classes: np.ndarray) -> np.ndarray:
    """1 where a pixel's class is not its right or lower neighbour's, -1 for void.

    Args:
        classes: `(N, H, W)`, 0 is void.
    """
    padded = np.pad(classes, ((0, 0), (0, 1), (0, 1)), "edge")
    right, below = padded[:, :-1, 1:], padded[:, 1:, :-1]
    edge = (classes != right) | (classes != below)
    void = (classes == 0) | (right == 0) | (below == 0)
    return np.where(void, -1, edge).astype("int8")


def normals(depth: np.ndarray) -> np.ndarray:
    """Unit vectors `(N, H, W, 3)` of depths `(N, H, W)`.

    NaN at the border, and where a depth of the square is not known (0).

    The inverse of a plane's depth is linear in the pixel's place; with slopes a, b and
    value d its normal is along (f a, f b, d - a u - b v), u and v counted from the
    image's middle. Least squares over a square around each pixel.
    """
    from scipy import ndimage

    places = np.arange(-REACH, REACH + 1, dtype="float32")
    ones = np.ones_like(places) / len(places)
    slope = places / (places**2).sum()
    flat = np.where(depth > 0, 1.0 / np.where(depth > 0, depth, 1.0), np.nan)

    def fitted(down: np.ndarray, across: np.ndarray) -> np.ndarray:
        half = ndimage.correlate1d(flat, down, axis=1)
        return ndimage.correlate1d(half, across, axis=2)

    a, b, d = fitted(ones, slope), fitted(slope, ones), fitted(ones, ones)
    height, width = depth.shape[1:]
    v, u = np.mgrid[:height, :width].astype("float32")
    u, v = u - (width - 1) / 2, v - (height - 1) / 2
    found = np.stack([FOCAL * a, FOCAL * b, d - a * u - b * v], axis=-1)
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    inside = (slice(None), slice(REACH, -REACH), slice(REACH, -REACH))
    whole = np.full_like(found, np.nan)
    whole[inside] = found[inside]
    return whole


def labels(
    seg40: np.ndarray, seg13: np.ndarray, depth: np.ndarray, factor: int
) -> dict:
    """Labels of all tasks, of maps in full size.

    Args:
        seg40: `(N, H, W)`, 0 is void.
        seg13: `(N, H, W)`, 0 is void, 1 to 13.
        depth: `(N, H, W)`, metres.
        factor: Every so many pixels are kept, from the middle of their square.
    """
    keep = slice(factor // 2, None, factor)
    shares = [(seg13 == c + 1).mean(axis=(1, 2)) for c in range(CLASSES)]
    small = seg40[:, keep, keep]
    return {
        "semantic": seg13[:, keep, keep].astype("int8") - np.int8(1),
        "depth": depth[:, keep, keep].astype("float32"),
        "boundary": boundaries(small),
        "present": (np.stack(shares, axis=1) >= LEAST_SHARE).astype("int8"),
        "seg40": small,
        "normals": normals(depth.astype("float32"))[:, keep, keep],
    }


def shrink(images: np.ndarray, factor: int) -> np.ndarray:
    """Mean of every square of `factor` pixels, uint8."""
    n, height, width, channels = images.shape
    squares = images.reshape(
        n, height // factor, factor, width // factor, factor, channels
    )
    return np.rint(squares.mean(axis=(2, 4))).astype("uint8")


def load(size: str, folder: Path | None) -> tuple[Part, Part]:
    """Training part (each image also mirrored) and test part.

    Args:
        size: Of `FACTORS`.
        folder: That holds `nyuv2/nyuv2_192x144.zip`; defaults to `$KMTL_DATA_DIR`.
    """
    from PIL import Image

    folder = folder or Path(os.environ.get("KMTL_DATA_DIR", "."))
    file = folder / "nyuv2" / "nyuv2_192x144.zip"
    if not file.exists():
        raise FileNotFoundError(
            f"`--data` must be a folder with nyuv2/nyuv2_192x144.zip. "
            f"Received: {folder}"
        )
    factor = FACTORS[size]
    with zipfile.ZipFile(file) as archive:
        meta = json.loads(archive.read("meta.json"))
        table = np.array(meta["seg40_to_seg13"], "uint8")

        def read(kind: str, ids: list[int]) -> np.ndarray:
            end = "jpg" if kind == "rgb" else "png"
            names = [f"{kind}/{i:04d}.{end}" for i in ids]
            images = (Image.open(io.BytesIO(archive.read(name))) for name in names)
            return np.stack([np.asarray(image) for image in images])

        parts = []
        for ids in (meta["train"], meta["test"]):
            seg40 = read("seg40", ids)
            depth = read("depth", ids).astype("float32") * np.float32(METRES)
            x = shrink(read("rgb", ids), factor)
            parts.append(Part(x, labels(seg40, table[seg40], depth, factor)))
    return finished(parts[0], parts[1])


def finished(train: Part, test: Part) -> tuple[Part, Part]:
    """The training part mirrored; `seg40`, which no task has, left out of both."""
    y = {name: values for name, values in test.y.items() if name != "seg40"}
    return train.mirrored(), Part(test.x, y)


def stand_in(images: int = 24, factor: int = 6) -> tuple[Part, Part]:
    """Rooms of a wall, a floor and boxes: to try out the program."""
    random = np.random.RandomState(0)  # its streams never change
    seg = np.full((2 * images, HEIGHT, WIDTH), 12, "uint8")
    depth = np.full(seg.shape, 5.0, "float32")
    for i in range(2 * images):
        floor = random.randint(72, 120)
        seg[i, floor:] = 5
        depth[i, floor:] = np.linspace(5.0, 1.0, HEIGHT - floor)[:, None]
        for kind in random.randint(1, CLASSES + 1, 3):
            top, left = random.randint(20, 90), random.randint(0, 150)
            seg[i, top : top + 40, left : left + 40] = kind
            depth[i, top : top + 40, left : left + 40] = random.uniform(1, 4)
        seg[i, :8] = 0
    colors = random.randint(0, 256, (CLASSES + 1, 3))
    noise = random.randint(-20, 20, (*seg.shape, 1))
    x = shrink(np.clip(colors[seg] + noise, 0, 255).astype("uint8"), factor)
    y = labels(seg, seg, depth, factor)
    halves = [slice(None, images), slice(images, None)]
    train, test = (Part(x[h], {k: v[h] for k, v in y.items()}) for h in halves)
    return finished(train, test)
