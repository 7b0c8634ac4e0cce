"""Pictures of rows: what is drawn and written is what the row has."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import kmtl

RNG = np.random.default_rng(0)
PHOTOS = RNG.integers(0, 256, (3, 8, 10, 3), dtype="uint8")


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def titles(axes: np.ndarray) -> list[str]:
    return [ax.get_title(loc="left") for ax in axes]


def test_photos_names_boxes_and_maps() -> None:
    tasks = [
        kmtl.Classification("kind", labels=("cat", "dog")),
        kmtl.Regression("size"),
        kmtl.Segmentation("things", classes=3),
        kmtl.MultiLabel("marks", classes=3, labels=("a", "b", "c")),
        kmtl.Detection("cars", labels=("car",)),
    ]
    things = RNG.integers(-1, 3, (3, 8, 10))
    boxes = np.full((3, 2, 5), -1.0)
    boxes[:, 0] = (0.1, 0.25, 0.5, 0.75, 0)
    y = {
        "kind": [1, 0, -1],
        "size": [1.5, np.nan, 3],
        "things": things,
        "marks": [[1, 0, 1], [0, 0, 0], [-1, -1, -1]],
        "cars": boxes,
    }
    axes = kmtl.plotting.examples((PHOTOS, y), tasks, count=9)
    rows = np.random.default_rng(0).permutation(3)
    assert axes.shape == (2, 3)
    texts = {
        0: "kind: dog\nsize: 1.5\nmarks: a, c",
        1: "kind: cat\nsize: –\nmarks: none",
        2: "kind: –\nsize: 3\nmarks: –",
    }
    assert titles(axes[0]) == [texts[row] for row in rows]
    for place, row in enumerate(rows):
        photo = axes[0, place].images[-1].get_array()
        np.testing.assert_allclose(photo, PHOTOS[row] / 255)
        assert axes[0, place].patches[0].get_bbox().bounds == pytest.approx(
            (1, 2, 4, 4)
        )
        drawn = axes[1, place].images[0].get_array()
        np.testing.assert_array_equal(drawn.mask, things[row] == -1)
        np.testing.assert_array_equal(
            drawn.data[~drawn.mask], things[row][things[row] >= 0]
        )
    axes[0, 0].figure.canvas.draw()


def test_curves_tables_and_text() -> None:
    task = kmtl.Regression("size")
    sounds = RNG.normal(size=(2, 50))
    axes = kmtl.plotting.examples((sounds, {"size": [1, 2]}), [task], count=1, seed=1)
    row = np.random.default_rng(1).permutation(2)[0]
    np.testing.assert_array_equal(axes[0, 0].lines[0].get_ydata(), sounds[row])
    frame = pd.DataFrame({"town": ["Ulm"], "area": [82.5]})
    axes = kmtl.plotting.examples((frame, {"size": [4.0]}), [task])
    assert axes[0, 0].texts[0].get_text() == "town: Ulm\narea: 82.5"
    assert titles(axes[0]) == ["size: 4"]
    words = np.array(["sunny and quiet"], object)
    axes = kmtl.plotting.examples((words, {"size": [4.0]}), [task])
    assert axes[0, 0].texts[0].get_text() == "sunny and quiet"
    with pytest.raises(ValueError, match="`tasks` must be given"):
        kmtl.plotting.examples((words, {"size": [4.0]}))
