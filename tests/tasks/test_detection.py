"""Objects in photos: labels, losses, metrics as COCO's program has them, reading."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.evaluation.found_objects import FoundObjects
from kmtl.losses import boxes as grid
from kmtl.metrics.detections import COCO, AveragePrecision

RNG = np.random.default_rng(0)
PHOTOS, CLASSES, SIDE = 30, 3, 16


def some_boxes(rows: int, count: int) -> np.ndarray:
    low = 0.7 * RNG.random((rows, count, 2))
    high = np.minimum(low + 0.05 + 0.3 * RNG.random((rows, count, 2)), 1)
    kinds = RNG.integers(0, CLASSES, (rows, count, 1))
    kinds = np.where(RNG.random((rows, count, 1)) < 0.6, kinds, -1)
    return np.concatenate([low, high, kinds], axis=-1).astype("float32")


def answers(labels: np.ndarray) -> np.ndarray:
    """Outputs that find most objects, some with a wrong class or box."""
    outputs = np.empty((len(labels), SIDE, SIDE, CLASSES + 4), "float32")
    outputs[..., :CLASSES] = RNG.normal(-6, 1, (*outputs.shape[:3], CLASSES))
    cells = some_boxes(len(labels), SIDE * SIDE)[..., :4]
    outputs[..., CLASSES:] = cells.reshape(*outputs.shape[:3], 4)
    for photo, objects in zip(outputs, labels, strict=True):
        for *box, kind in objects[objects[:, 4] >= 0]:
            if RNG.random() < 0.2:
                continue
            x, y = int(SIDE * (box[0] + box[2]) / 2), int(SIDE * (box[1] + box[3]) / 2)
            told = int(kind) if RNG.random() < 0.8 else RNG.integers(CLASSES)
            photo[y, x, told] = RNG.normal(1, 2)
            photo[y, x, CLASSES:] = box + RNG.normal(0, 0.015, 4)
    return outputs


LABELS = some_boxes(PHOTOS, 6)
LABELS[0, :, 4] = -1  # no object
OUTPUTS = answers(LABELS)
HOLES = LABELS.copy()
HOLES[3] = np.nan  # not annotated
TASK = kmtl.Detection("t", classes=CLASSES)


def of_coco() -> tuple[float, float]:
    """map and map50 by pycocotools, of the photos that have labels."""
    from pycocotools import coco
    from pycocotools.cocoeval import COCOeval

    found = {k: np.array(v) for k, v in TASK.decoded(OUTPUTS).items()}
    kept = [photo for photo in range(PHOTOS) if photo != 3]

    def sides(box: np.ndarray) -> list[float]:
        box = 640 * box.astype("float64")
        return [*box[:2], *(box[2:] - box[:2])]

    def entry(photo: int, kind: float, box: np.ndarray) -> dict:
        return {"image_id": photo, "category_id": int(kind), "bbox": sides(box)}

    labelled = [
        {**entry(photo, one[4], one[:4]), "area": 1.0, "iscrowd": 0}
        for photo in kept
        for one in LABELS[photo]
        if one[4] >= 0
    ]
    told = [
        {**entry(p, found["classes"][p, n], found["boxes"][p, n]), "score": float(s)}
        for p in kept
        for n, s in enumerate(found["scores"][p, : found["count"][p]])
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "images": [{"id": photo} for photo in kept],
            "annotations": [{**one, "id": n + 1} for n, one in enumerate(labelled)],
            "categories": [{"id": kind} for kind in range(CLASSES)],
        }
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(told), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0]), float(judge.stats[1])


@pytest.mark.backend
@pytest.mark.thorough(on="jax")  # operation by operation JAX compiles them all
def test_average_precision_is_that_of_coco() -> None:
    whole, half = of_coco()
    assert 0.1 < whole < half < 0.9
    clean, mask = TASK.clean_labels(HOLES)
    collected = FoundObjects(TASK)
    streamed = [metric.make(TASK) for metric in TASK.metrics]
    for rows in (slice(0, 15), slice(15, None)):
        collected.add(clean[rows], OUTPUTS[rows], mask[rows])
        for metric in streamed:
            metric.update_state(clean[rows], OUTPUTS[rows], mask[rows])
    table = collected.table()
    assert table.map == pytest.approx(whole, abs=1e-6)
    assert table.map50 == pytest.approx(half, abs=1e-6)
    present = np.delete(LABELS, 3, axis=0)[..., 4]
    assert table.support.tolist() == [(present == n).sum() for n in range(CLASSES)]
    # Of scores in steps.
    assert float(streamed[0].result()) == pytest.approx(whole, abs=0.01)
    assert float(streamed[1].result()) == pytest.approx(half, abs=0.01)
    # Wrong ones in a step with a right one are not all taken to be before it.
    for overlaps, exact in ((COCO, whole), ((0.5,), half)):
        coarse = AveragePrecision(CLASSES, overlaps, bins=96)
        coarse.update_state(clean, OUTPUTS, mask)
        assert float(coarse.result()) == pytest.approx(exact, abs=0.003)


def one_by_one(iou: np.ndarray, bar: float) -> list[bool]:
    """COCO's own way of matching."""
    taken, found = set(), []
    for row in iou:
        best, chosen = min(bar, 1 - 1e-10), -1
        for place, value in enumerate(row):
            if place not in taken and value >= best:
                best, chosen = value, place
        taken.add(chosen) if chosen >= 0 else None
        found.append(chosen >= 0)
    return found


def test_objects_are_matched_as_one_by_one() -> None:
    iou = RNG.choice([-1, 0.5, 0.6, 0.7, 0.8], (20, 12, 5)).astype("float32")
    bars = (0.5, 0.65, 0.8)
    found = ops.convert_to_numpy(grid.matched(iou, np.float32(bars)))
    for photo, rows in enumerate(iou):
        for place, bar in enumerate(np.float32(bars)):
            assert found[photo, place].tolist() == one_by_one(rows, bar)


def test_losses() -> None:
    box = np.array([0.25, 0.25, 0.5, 0.75])
    labels = np.array([[[*box, 1], [0, 0, 0, 0, -1]], [[0, 0, 0, 0, -1]] * 2])
    shape = (8, 8, 2)
    heat = ops.convert_to_numpy(grid.heat_maps(np.float32(labels), shape))
    assert np.argwhere(heat == 1).tolist() == [[0, 4, 3, 1]]
    assert not heat[..., 0].any()
    assert not heat[1].any()
    spread = (0.54 * 0.5 * 8 + 1) / 6  # the box is 4 cells high
    assert heat[0, 6, 3, 1] == pytest.approx(np.exp(-2 / spread**2), rel=1e-4)
    logits = RNG.normal(size=(2, *shape))
    share = 1 / (1 + np.exp(-logits))
    cells = np.where(
        heat == 1,
        -((1 - share) ** 2) * np.log(share),
        -((1 - heat) ** 4) * share**2 * np.log(1 - share),
    )
    shifted = box + (0.125, 0, 0.125, 0)  # half of its width to the right
    told = np.broadcast_to(shifted, (2, 8, 8, 4))
    outputs = np.concatenate([logits, told], axis=-1).astype("float32")
    clean, _ = kmtl.Detection("t", classes=2).clean_labels(labels)
    values = ops.convert_to_numpy(grid.heat(clean, outputs))
    assert values.shape == labels.shape
    np.testing.assert_allclose(values[:, 1, 3], cells.sum((1, 2, 3)), rtol=1e-4)
    values = ops.convert_to_numpy(grid.giou(clean, outputs))
    # IoU 1 / 3, and nothing else in the hull; no object: nothing to learn.
    np.testing.assert_allclose(values[:, 0, 0], [2 / 3, 0], rtol=1e-4)


def test_photos_without_labels_and_without_objects() -> None:
    task = kmtl.Detection("t", labels=("cat", "dog"), max_boxes=2)
    rows = [[(0.1, 0.1, 0.5, 0.5, "dog")], [], None]
    labels = task.label_array(rows)
    assert labels.shape == (3, 2, 5)
    assert labels[0, :, 4].tolist() == [1, -1]
    task.check_labels(labels)
    clean, mask = task.clean_labels(labels)
    assert ops.convert_to_numpy(mask)[:, 0, 0].tolist() == [1, 1, 0]
    assert ops.convert_to_numpy(clean)[2, :, 4].tolist() == [-1, -1]
    two = [(0.1, 0.1, 0.5, 0.5, 0), (0.2, 0.2, 0.9, 0.9, 1)]
    clean, mask = task.clean_labels(task.label_array([two, [], None]))
    weights = ops.convert_to_numpy(task.label_weights(clean, mask))
    np.testing.assert_allclose(weights.sum((1, 2)), [2, 1, 0], rtol=1e-6)
    metric = task.score.make(task)
    metric.update_state(clean[1:], np.zeros((2, 4, 4, 6)), mask[1:])
    assert np.isnan(metric.result())  # no object at all


def test_coco_file_and_sizes_of_photos() -> None:
    file = {
        "images": [
            {"id": 9, "height": 50, "width": 100},
            {"id": 4, "height": 10, "width": 10},
        ],
        "annotations": [
            {"image_id": 4, "category_id": 7, "bbox": [5, 5, 9, 5]},
            {"image_id": 4, "category_id": 2, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        ],
        "categories": [{"id": 2, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    labels = kmtl.data.boxes(file)
    assert labels.tolist() == [[[0, 0, 0, 0, -1]], [[0.5, 0.5, 1, 1, 1]]]
    whole = [{"boxes": [[10, 5, 20, 10]], "labels": [2]}]
    found = kmtl.data.boxes(whole, size=[(50, 100)], max_boxes=2)
    np.testing.assert_allclose(found[0, 0], [0.1, 0.1, 0.2, 0.2, 2], rtol=1e-6)


def checked(rows: list) -> None:
    TASK.check_labels(TASK.label_array(rows))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: kmtl.Detection("t"), "needs `classes`"),
        (lambda: kmtl.Detection("t", classes=2, missing=-1), "must be NaN"),
        (lambda: kmtl.Detection("t", classes=2, class_weight={0: 2}), "needs classes"),
        (lambda: TASK.replace(max_boxes=1).label_array([[(0,) * 5] * 2]), "most 1 obj"),
        (lambda: checked([[(5, 5, 30, 40, 1)]]), "kmtl.data.boxes makes them of pix"),
        (lambda: checked([[(0.5, 0, 0.2, 1, 1)]]), "x_min < x_max"),
        (lambda: checked([[(0, 0, 1, 1, 3)]]), r"a class in \[0, 2\]"),
        (lambda: TASK.check_labels([[[0, 0, 1, 1, np.nan]]]), "in all numbers"),
        (lambda: kmtl.data.boxes([[(0, 0, 1, 1, "a")]], (2, 2)), "Give the classes"),
        (lambda: kmtl.data.boxes([[(0, 0, 1, 1)]], (2, 2)), "photo 0"),
        (
            lambda: kmtl.data.boxes(
                [[{"bbox": [9, 1, -4, 5], "category_id": 0}]], (20, 20)
            ),
            "end to the right .*in photo 0",
        ),
        (
            lambda: TASK.label_array([{"boxes": [[1, 2, 3, 4]], "labels": [0]}]),
            "a dict of boxes, labels",
        ),
        (lambda: kmtl.data.boxes([[]]), r"`size` must be \(height, width\)"),
    ],
)  # fmt: skip
def test_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.thorough
def test_learned_beside_a_map_and_exported(tmp_path) -> None:
    x, rows = np.zeros((96, 32, 32, 1), "float32"), []
    for photo in x:
        kind, (top, left) = int(RNG.integers(2)), RNG.integers(0, 20, 2)
        photo[top : top + 12, left : left + 8] = 0.4 + 0.6 * kind
        rows.append([(left, top, left + 8, top + 12, kind)])
    y = {"things": kmtl.data.boxes(rows, (32, 32)), "mask": (x[..., 0] > 0) * 1}
    tasks = [
        kmtl.Detection("things", labels=("grey", "white"), max_detections=10),
        kmtl.Segmentation("mask", classes=2),
    ]
    model = kmtl.build_cnn(
        input_shape=(32, 32, 1), tasks=tasks, filters=(16, 32), seed=0
    )
    model.compile("adam")
    model.optimizer.learning_rate = 0.005
    model.fit(x, y, epochs=20, batch_size=16, verbose=0)
    result = kmtl.evaluate(model, (x, y), per_class=True)
    assert result["things"].metrics["map50"] > 0.8
    table = result.per_class["things"]
    assert table.map50 == pytest.approx(result["things"].metrics["map50"], abs=0.02)
    assert "things per class" in str(table)
    found = tasks[0].decode(model.predict(x[:1], verbose=0)["things"])[0]
    assert found["classes"][0] == ("grey", "white")[rows[0][0][4]]
    path = model.export(tmp_path / "saved")
    report = kmtl.verify_export(path, model, x[:8])
    assert {"things_boxes", "things_scores", "things_count"} <= set(report.differences)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("backbone", "weighting"),
    [
        (
            lambda: kmtl.backbones.FromKeras(
                "MobileNetV2", weights=None, arguments={"alpha": 0.35}
            ),
            "pcgrad",
        ),
        (lambda: kmtl.backbones.ResNet(filters=(8, 16)), "imtl_g"),
    ],
    ids=["mobilenet", "resnet"],
)
def test_under_gradient_weightings_on_larger_trunks(backbone, weighting) -> None:
    tasks = [
        kmtl.Detection("things", classes=CLASSES, max_detections=5),
        kmtl.Classification("kind", classes=CLASSES),
    ]
    x = RNG.random((4, 32, 32, 3)).astype("float32")
    y = {"things": HOLES[:4], "kind": np.array([0, 1, 2, -1])}
    model = kmtl.build(
        backbone=backbone(), input_shape=(32, 32, 3), tasks=tasks, seed=0
    )
    model.compile("adam", weighting=weighting)
    logs = model.fit(x, y, epochs=8, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    assert min(logs["loss"][4:]) < logs["loss"][0]
    found = tasks[0].decode(model.predict(x, verbose=0)["things"])
    assert len(found) == 4
