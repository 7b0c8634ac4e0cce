"""Places in photos."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.layers import ExpectedPlace

RNG = np.random.default_rng(0)
LABELS = RNG.random((30, 4, 2))
SEEN = RNG.random((30, 4)) < 0.7
HOLES = np.where(SEEN[..., None], LABELS, np.nan)
HOLES[0, 0] = (0.5, np.nan)  # half a point is none
SEEN[0, 0] = False
OUTPUTS = (LABELS + 0.06 * RNG.normal(size=LABELS.shape)).astype("float32")


def test_expected_place_of_a_heat_map() -> None:
    heat = RNG.normal(size=(2, 3, 5, 4)).astype("float32")
    found = ops.convert_to_numpy(ExpectedPlace()(heat))
    share = np.exp(heat) / np.exp(heat).sum(axis=(1, 2), keepdims=True)
    x = (share.sum(axis=1) * ((np.arange(5) + 0.5) / 5)[:, None]).sum(axis=1)
    y = (share.sum(axis=2) * ((np.arange(3) + 0.5) / 3)[:, None]).sum(axis=1)
    np.testing.assert_allclose(found, np.stack([x, y], axis=-1), rtol=1e-5)


@pytest.mark.parametrize("reference", [None, (1, 3)])
def test_share_of_right_keypoints(reference: tuple | None) -> None:
    task = kmtl.Keypoints("t", points=4, within=0.1, reference=reference)
    clean, mask = task.clean_labels(HOLES)
    metric = task.score.make(task)
    for rows in (slice(0, 11), slice(11, None)):
        metric.update_state(clean[rows], OUTPUTS[rows], mask[rows])
    apart = np.linalg.norm(OUTPUTS - LABELS, axis=-1)
    size, kept = np.ones((30, 1)), SEEN
    if reference is not None:
        size = np.linalg.norm(LABELS[:, 1] - LABELS[:, 3], axis=-1)[:, None]
        kept = SEEN & (SEEN[:, 1] & SEEN[:, 3])[:, None]
    expected = (apart < 0.1 * size)[kept].mean()
    assert 0.1 < expected < 0.9
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)
    weights = ops.convert_to_numpy(task.label_weights(clean, mask))
    np.testing.assert_array_equal(weights, np.repeat(SEEN[..., None], 2, axis=-1))


@pytest.mark.parametrize("reference", [None, (1, 3)])
@pytest.mark.parametrize("sigmas", [0.05, (0.02, 0.05, 0.1, 0.3)])
def test_object_keypoint_similarity(sigmas, reference: tuple | None) -> None:
    """COCO's formula (computeOks of pycocotools), with the size for the area's root."""
    task = kmtl.Keypoints("t", points=4, sigmas=sigmas, reference=reference)
    clean, mask = task.clean_labels(HOLES)
    metric = task.replace(metrics=("oks",)).score.make(task)
    for rows in (slice(0, 11), slice(11, None)):
        metric.update_state(clean[rows], OUTPUTS[rows], mask[rows])
    expected = []
    for row in range(30):
        seen = SEEN[row]
        size = 1.0
        if reference is not None:
            if not (seen[1] and seen[3]):
                continue
            size = np.linalg.norm(LABELS[row, 1] - LABELS[row, 3])
        variables = (np.broadcast_to(sigmas, 4) * 2) ** 2
        dx, dy = (OUTPUTS[row] - LABELS[row]).T
        e = (dx**2 + dy**2) / variables / (size**2 + np.spacing(1)) / 2
        if seen.any():
            expected.append(np.exp(-e[seen]).mean())
    assert 0.1 < np.mean(expected) < 0.95
    assert float(metric.result()) == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: kmtl.Keypoints("t"), "needs `points`"),
        (lambda: kmtl.Keypoints("t", points=2, reference=(0, 2)), r"in \[0, 1\]"),
        (
            lambda: kmtl.Keypoints("t", points=2).check_labels(
                [[[0.1, 0.2], [0.3, np.nan]]]
            ),
            r"NaN in both. Received: \[0.3, nan\] for point 1 in row 0",
        ),
        (lambda: kmtl.Keypoints("t", points=2, within=0), "`within` must be"),
        (lambda: kmtl.Keypoints("t", points=2, sigmas=(0.1,)), "its 2 points"),
        (lambda: kmtl.Keypoints("t", points=1, sigmas=0), "`sigmas` must be"),
        (
            lambda: kmtl.Keypoints("t", points=1).check_labels([[[12.0, 3.0]]]),
            "divide pixels by them. Received: 12",
        ),
    ],
)
def test_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()
