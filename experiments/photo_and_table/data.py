"""Rooms of NYU Depth V2: a photo, a table of what a depth sensor says, three targets.

Labelled set of Silberman et al. (ECCV 2012), official split (795 training and 654 test
images), as a file `nyuv2/nyuv2_192x144.zip`; see `experiments/nyuv2_scenes/data.py`. Of
every scene here:

- photo: the colour image, 48 x 36, uint8;
- table: depth at seven quantiles and of the four quarters of the image, in metres, and
  in which third of the image the farthest point lies. A tenth of the cells is missing,
  as from a sensor that fails;
- targets: which of the 13 classes cover 1 % of the image, the share that is floor, and
  how many of the 40 classes there are.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

CLASSES, FLOOR = 13, 5
METRES = 10.0 / 255.0
LEAST_SHARE = 0.01
MISSING = 0.1
QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
NAMES = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture",
    "sofa", "table", "tv", "wall", "window",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Rooms:
    """Photos `(N, 36, 48, 3)`, a frame of facts, and labels."""

    photos: np.ndarray
    facts: pd.DataFrame
    labels: dict[str, np.ndarray]

    def x(self, names: tuple[str, ...]) -> dict:
        return {n: {"photo": self.photos, "facts": self.facts}[n] for n in names}


def facts_of(depth: np.ndarray, random: np.random.RandomState) -> pd.DataFrame:
    """What a depth sensor would say of maps `(N, H, W)` in metres."""
    rows, height, width = depth.shape
    flat = depth.reshape(rows, -1)
    found = {f"depth_{round(100 * q)}": np.quantile(flat, q, axis=1) for q in QUANTILES}
    for i, vertical in enumerate(("upper", "lower")):
        for j, side in enumerate(("left", "right")):
            quarter = depth[
                :,
                i * height // 2 : (i + 1) * height // 2,
                j * width // 2 : (j + 1) * width // 2,
            ]
            found[f"{vertical}_{side}"] = quarter.mean(axis=(1, 2))
    frame = pd.DataFrame(found)
    frame = frame.mask(random.random_sample(frame.shape) < MISSING)
    third = flat.argmax(axis=1) % width * 3 // width
    frame["farthest"] = np.array(["left", "middle", "right"])[third]
    return frame


def labels_of(seg40: np.ndarray, seg13: np.ndarray) -> dict[str, np.ndarray]:
    """Labels, of maps in which 0 is void."""
    shares = [(seg13 == c + 1).mean(axis=(1, 2)) for c in range(CLASSES)]
    kinds = [len(np.unique(scene[scene > 0])) for scene in seg40]
    return {
        "present": (np.stack(shares, axis=1) >= LEAST_SHARE).astype("int32"),
        "floor": shares[FLOOR - 1].astype("float32"),
        "kinds": np.array(kinds, "float32"),
    }


def load(folder: Path | None) -> dict[str, Rooms]:
    """Part -> rooms; `folder` holds `nyuv2/` and defaults to `$KMTL_DATA_DIR`."""
    from PIL import Image

    folder = folder or Path(os.environ.get("KMTL_DATA_DIR", "."))
    file = folder / "nyuv2" / "nyuv2_192x144.zip"
    if not file.exists():
        raise FileNotFoundError(
            "`--data` must be a folder with nyuv2/nyuv2_192x144.zip. "
            f"Received: {folder}"
        )
    random = np.random.RandomState(0)
    with zipfile.ZipFile(file) as archive:
        meta = json.loads(archive.read("meta.json"))
        table = np.array(meta["seg40_to_seg13"], "uint8")

        def read(kind: str, ids: list[int]) -> np.ndarray:
            end = "jpg" if kind == "rgb" else "png"
            names = [f"{kind}/{i:04d}.{end}" for i in ids]
            images = (Image.open(io.BytesIO(archive.read(name))) for name in names)
            return np.stack([np.asarray(image) for image in images])

        found = {}
        for part in ("train", "test"):
            seg40 = read("seg40", meta[part])
            depth = read("depth", meta[part]).astype("float32") * np.float32(METRES)
            photos = kept(read("rgb", meta[part]), 4)
            facts = facts_of(depth, random)
            found[part] = Rooms(photos, facts, labels_of(seg40, table[seg40]))
    return found


def kept(images: np.ndarray, factor: int) -> np.ndarray:
    """Mean of every square of `factor` pixels, uint8."""
    n, height, width, channels = images.shape
    squares = images.reshape(
        n, height // factor, factor, width // factor, factor, channels
    )
    return np.rint(squares.mean(axis=(2, 4))).astype("uint8")


def stand_in(rows: int = 48) -> dict[str, Rooms]:
    """Rooms of a wall, a floor and boxes: to try out the program."""
    random = np.random.RandomState(0)
    found = {}
    for part in ("train", "test"):
        seg = np.full((rows, 36, 48), 12, "uint8")
        depth = np.full(seg.shape, 5.0, "float32")
        for i in range(rows):
            floor = random.randint(18, 30)
            seg[i, floor:] = FLOOR
            depth[i, floor:] = np.linspace(5.0, 1.0, 36 - floor)[:, None]
            for kind in random.randint(1, CLASSES + 1, 2):
                top, left = random.randint(4, 22), random.randint(0, 36)
                seg[i, top : top + 10, left : left + 10] = kind
                depth[i, top : top + 10, left : left + 10] = random.uniform(1, 4)
        colours = np.random.RandomState(1).randint(0, 256, (CLASSES + 1, 3))
        photos = colours[seg].astype("uint8")
        found[part] = Rooms(photos, facts_of(depth, random), labels_of(seg, seg))
    return found
