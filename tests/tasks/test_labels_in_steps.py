"""Later batches of streams keep the rules that arrays are checked by before."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl import _registry
from kmtl.training import streams
from kmtl.training.labels import with_weight

THIRD = [[1 / 3] * 3]
BOX = [0.1, 0.2, 0.6, 0.9, 1]
NONE = [0, 0, 0, 0, -1]
NAN = np.nan
#: Kind -> task, shape of an output, batches that are fine, batches that are not.
RULES: dict[str, tuple[kmtl.Task, tuple, list, list]] = {
    "survival": (
        kmtl.Survival("t"),
        (1,),
        [[[2.0, 1], [0.5, 0]], [[NAN, NAN], [0, 0]], np.array([[3, 1]])],
        [[[2.0, 7]], [[-2.0, 1]], [[NAN, 1]], [[2.0, NAN]], [[0.0, 1]], [[1, 0.5]]],
    ),
    "detection": (
        kmtl.Detection("t", classes=4),
        (4, 4, 8),
        [[[BOX, NONE]], [[[NAN] * 5] * 2, [BOX, BOX]]],
        [
            [[[0.1, 0.2, 1.7, 0.9, 1]]],
            [[[0.6, 0.2, 0.1, 0.9, 1]]],
            [[[0.1, 0.2, 0.6, 0.9, 1.5]]],
            [[[0.1, 0.2, 0.6, 0.9, NAN]]],
            [[[NAN] * 5, BOX]],
            [[BOX[:4] + [-2]]],
        ],
    ),
    "ctc": (
        kmtl.CTC("t", classes=3),
        (4, 4),
        [[[0, 1, 2, -1]], [[0, 0, 1, -1]], [[-1] * 4], [[1.0, NAN, NAN, NAN]]],
        [[[0, -1, 1, -1]], [[0, 0, 1, 2]], [[NAN, 1.0]], [[0.5, NAN]]],
    ),
    "text": (
        kmtl.TextGeneration("t", tokens=3, length=3),
        (4, 4),
        [[[0, 1, -1]], [[0, 0, 1]], [[-1] * 3], [[1.0, NAN, NAN]]],
        [[[0, -1, 1]], [[0, 3, 1]], [[0.5, NAN, NAN]]],
    ),
    "keypoints": (
        kmtl.Keypoints("t", points=2),
        (2, 2),
        [[[[0.1, 0.2], [NAN, NAN]]], [[[NAN, NAN]] * 2]],
        [[[[0.1, 0.2], [0.3, NAN]]], [[[NAN, 0.2], [0.3, 0.4]]]],
    ),
    "normals": (
        kmtl.Normals("t"),
        (1, 2, 3),
        [[[[[0, 0, 1.0], [0, 0, 0]]]], [[[[0.6, 0.8, 0], [NAN, 0, 5]]]]],
        [[[[[0, 0, 1.0], [0, 0, 3]]]], [[[[127.0, 127, 255], [0, 0, 0]]]]],
    ),
    "shares": (
        kmtl.Classification("t", classes=3),
        (3,),
        [THIRD, [[0.2, 0.8, 0], [NAN, 3, 3], [-1, 5, 5]], [[0, 1, 0]], [2.0, 0, NAN]],
        [[[0.5, 0.6, 0.2]], [[-0.5, 1.5, 0]], [[0, 1, 1]], [1.5]],
    ),
    "tags": (
        kmtl.Tagging("t", classes=3),
        (2, 3),
        [[[0, -1]], [THIRD * 2], [[2.0, NAN]]],
        [[[0.5, 1]], [[[0.5, 0.6, 0.2]] * 2]],
    ),
    "map": (
        kmtl.Segmentation("t", classes=3),
        (1, 2, 3),
        [[[[0.0, NAN]]], [[THIRD * 2]]],
        [[[[0.0, 1.5]]], [[[[1, 1, 0], [0, 1, 0]]]]],
    ),
    "depth": (
        kmtl.Depth("t"),
        (1, 2, 1),
        [[[[0.5, 0.0]]], [[[NAN, 2.0]]]],
        [],
    ),
    "depth without a mark": (
        kmtl.Depth("t", missing=None),
        (1, 2, 1),
        [[[[0.5, NAN]]]],
        [[[[0.5, 0.0]]]],
    ),
    "count": (kmtl.Count("t"), (1,), [[2.0, NAN], [3]], [[1.5]]),
    "clusters": (
        kmtl.Clustering("t", clusters=3),
        (3,),
        [[2.0, NAN], [3], [-1]],
        [[1.5]],
    ),
    "embedding": (kmtl.Embedding("t", dimensions=2), (2,), [[2.0, NAN], [3]], [[0.5]]),
    "zeros": (
        kmtl.ZeroInflated("t", family="poisson"),
        (2,),
        [[2.0, NAN, 0.0]],
        [[0.5]],
    ),
    "yes_no": (kmtl.BinaryClassification("t"), (1,), [[1.0, NAN, -1]], [[0.5]]),
    "soft": (kmtl.BinaryClassification("t", soft_labels=True), (1,), [[0.5]], []),
    "values": (kmtl.Regression("t"), (1,), [[0.5, -7.0]], []),
}


@pytest.mark.parametrize("kind", RULES)
def test_a_step_sees_what_arrays_are_refused_for(kind: str) -> None:
    task, shape, fine, wrong = RULES[kind]

    def both(labels: Any) -> tuple[bool, bool]:
        """Whether arrays are refused, and whether a step raises a flag."""
        array = np.asarray(labels)
        array = array.astype("float32") if array.dtype.kind == "f" else array
        try:
            task.check_labels(array, (1, 2, 3))
            task.check_fits(array, shape)
            refused = False
        except ValueError as found:
            refused = "task 't' " in str(found)
        flag = task.breaks_rule(ops.convert_to_tensor(array), shape)
        return refused, flag is not None and bool(ops.convert_to_numpy(flag))

    assert [both(labels) for labels in fine] == [(False, False)] * len(fine)
    assert [both(labels) for labels in wrong] == [(True, True)] * len(wrong)


def test_kinds_with_rules_of_their_own_say_them_in_steps_too() -> None:
    def own(cls: type, *names: str) -> bool:
        return any(getattr(cls, n) is not getattr(kmtl.Task, n) for n in names)

    kinds = {name: _registry.get("task", name) for name in _registry.names("task")}
    checked = {
        name for name, cls in kinds.items() if own(cls, "check_labels", "check_fits")
    }
    assert checked >= {"survival", "detection", "ctc", "normals"}
    assert {name for name in checked if not own(kinds[name], "breaks_rule")} == set()


@pytest.mark.parametrize("kind", ["survival", "detection", "ctc", "shares", "depth"])
def test_what_data_sets_leave_out_is_no_label(kind: str) -> None:
    """They have 0 there, which may break a rule, and a weight of 0."""
    task, shape, fine, _ = RULES[kind]
    for labels in fine:
        raw = np.array(labels, "float32")
        if kind == "shares" and raw.ndim == 1:
            continue
        x = np.zeros((len(raw), 1, 2, 1))
        for _, y, weights in kmtl.data.from_arrays(x, {"t": raw}, tasks=[task]):
            kept = streams.with_holes(y["t"], weights, "t")
            task.check_labels(kept, (1, 2, 1))
            task.check_fits(kept, shape)
            there = with_weight(y["t"], weights, "t")
            assert not task.breaks_rule(y["t"], shape, there)


@pytest.mark.backend
def test_fit_names_the_task_and_the_step() -> None:
    model = kmtl.build_mlp(
        input_shape=(2,),
        tasks=[
            kmtl.Regression("size"),
            kmtl.Survival("churn"),
            kmtl.Depth("depth", size=(1, 2), transform=None),
        ],
        units=(2,),
        seed=0,
    )
    model.compile(keras.optimizers.SGD(0.0))
    x = np.ones((4, 2), "float32")

    def batches(event: float) -> Any:
        for last in (1.0, event, 0.0):
            times = np.array([[1, 1], [2, 0], [3, 1], [4, last]], "float32")
            depth = np.array([[[0.5, 0.0]], [[np.nan, 1.0]]] * 2, "float32")
            yield x, {"size": x[:, 0], "churn": times, "depth": depth}

    history = model.fit(batches(1.0), steps_per_epoch=3, verbose=0).history
    assert np.isfinite(history["churn_loss"]).all()
    message = (
        r"task 'churn' must be rows of a time above 0 and an event of 0 or 1 .*"
        "Received: another row, first in step 2 of epoch 1"
    )
    with pytest.raises(ValueError, match=message):
        model.fit(batches(7.0), steps_per_epoch=3, verbose=0)
