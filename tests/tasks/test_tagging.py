"""A class per step of a sequence, and spans of tags."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl import metrics

pytestmark = pytest.mark.backend

NAN = np.nan
BIO = ("O", "B-a", "I-a", "B-b", "I-b")
BIOES = (*BIO, "E-a", "S-a", "E-b", "S-b")


def spans(tags: list[str]) -> set[tuple[str, int, int]]:
    """Spans as conlleval reads them, one step after the other."""
    found, start = set(), None
    parts = [("O", ""), *(tuple(t.split("-")) if "-" in t else ("O", "") for t in tags)]
    parts.append(("O", ""))
    for i in range(1, len(parts)):
        (before, kind), (now, other) = parts[i - 1], parts[i]
        if start is not None and (
            before in "ES" or now in "BSO" or (before != "O" and kind != other)
        ):
            found.add((kind, start, i - 2))
            start = None
        if now != "O" and (now in "BS" or before in "ESO" or kind != other):
            start = i - 1
    return found


@pytest.mark.parametrize("tags", [BIO, BIOES], ids=["bio", "bioes"])
def test_f1_of_spans(tags: tuple[str, ...]) -> None:
    rng = np.random.default_rng(len(tags))
    rows, steps, classes = 60, 9, len(tags)
    truth = rng.integers(0, classes, (rows, steps))
    other = rng.integers(0, classes, (rows, steps))
    guess = np.where(rng.random((rows, steps)) < 0.7, truth, other)
    there = np.arange(steps) < rng.integers(1, steps + 1, (rows, 1))
    there &= rng.random((rows, steps)) > 0.15  # later pieces of words
    metric = metrics.SpanF1(tags)
    scores = np.eye(classes, dtype="float32")[guess]
    for part in (slice(0, 25), slice(25, None)):
        metric.update_state(truth[part], scores[part], there[part].astype("float32"))
    right = labelled = predicted = 0
    for row in range(rows):
        kept = there[row]
        own = spans([tags[i] for i in truth[row][kept]])
        theirs = spans([tags[i] for i in guess[row][kept]])
        right += len(own & theirs)
        labelled, predicted = labelled + len(own), predicted + len(theirs)
    assert 0 < right < labelled
    expected = 2 * right / (labelled + predicted)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


def test_no_span_and_no_label() -> None:
    metric = metrics.SpanF1(BIO)
    outside = np.eye(5, dtype="float32")[np.zeros((2, 3), int)]
    metric.update_state(np.zeros((2, 3)), outside, np.zeros((2, 3)))
    assert np.isnan(float(metric.result()))
    metric.update_state(np.zeros((2, 3)), outside)
    assert float(metric.result()) == 0
    metric.update_state(np.ones((2, 3)), np.full_like(outside, NAN))
    assert np.isnan(float(metric.result()))


SLOTS = kmtl.Tagging("slots", labels=BIO, length=4, metrics=("accuracy", "span_f1"))


def test_lists_of_different_lengths() -> None:
    given = SLOTS.label_array([["O", "B-a", None], ["B-b"], []])
    np.testing.assert_array_equal(
        given, [[0, 1, NAN, NAN], [3, NAN, NAN, NAN], [NAN] * 4]
    )
    one = SLOTS.label_array([None, ["B-a"]])
    np.testing.assert_array_equal(one, [[NAN] * 4, [1, NAN, NAN, NAN]])
    numbers = SLOTS.replace(length=None).label_array([[0, 1], np.array([2, -1, 4])])
    np.testing.assert_array_equal(numbers, [[0, 1, NAN], [2, -1, 4]])
    SLOTS.check_labels(given, (4,))
    clean, mask = SLOTS.clean_labels(given)
    np.testing.assert_array_equal(mask, [[1, 1, 0, 0], [1, 0, 0, 0], [0] * 4])
    assert tuple(clean.shape) == (3, 4)
    learned = kmtl.Tagging.from_labels("t", [["x", "y"], ["z"]])
    assert learned.labels == ("x", "y", "z")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: SLOTS.label_array([["O"] * 5]), "at most 4 steps.*5 steps in row 0"),
        (lambda: SLOTS.label_array([["O", "B-c"]]), "must be among O, B-a"),
        (lambda: SLOTS.check_labels(np.zeros((2, 5)), (4,)), r"must have shape \(N, 4"),
        (
            lambda: kmtl.Tagging("t", labels=("x", "y"), metrics="span_f1"),
            "tags such as 'B-city'.*Received: x",
        ),
        (lambda: kmtl.Tagging("t", classes=3, metrics="span_f1"), "labels=None"),
        (
            lambda: kmtl.build_mlp(input_shape=(4,), tasks=[SLOTS]),
            "needs a trunk that keeps the steps",
        ),
    ],
)
def test_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()


def test_intent_and_slots_on_one_trunk(tmp_path) -> None:
    """Tags follow from the words; the intent from the first one."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 7, 160)
    x = np.zeros((160, 6), "int32")
    tags, intents = [], []
    for row, length in enumerate(lengths):
        x[row, :length] = rng.integers(1, 6, length)
        tags.append([BIO[word - 1] for word in x[row, :length]])
        intents.append(int(x[row, 0] > 3))
    tasks = [
        kmtl.Tagging("slots", labels=BIO, length=6, metrics=("span_f1", "accuracy")),
        kmtl.BinaryClassification("intent", metrics=("accuracy",)),
    ]
    net = kmtl.backbones.ConvNet1D(
        filters=(16,), pooling=None, vocabulary=6, embedding=8
    )
    model = kmtl.build(backbone=net, input_shape=(6,), tasks=tasks, seed=0)
    model.compile("adam")
    model.optimizer.learning_rate = 0.02
    y = {"slots": tags, "intent": np.array(intents)}
    model.fit(x, y, epochs=8, batch_size=32, verbose=0)
    scores = model.evaluate(x, y, return_dict=True, verbose=0)
    chosen = ops.convert_to_numpy(model(x)["slots"]).argmax(-1)
    whole = [[BIO[i] for i in row[:n]] for row, n in zip(chosen, lengths, strict=True)]
    right = sum(len(spans(a) & spans(b)) for a, b in zip(tags, whole, strict=True))
    count = sum(len(spans(a)) + len(spans(b)) for a, b in zip(tags, whole, strict=True))
    assert scores["slots_span_f1"] == pytest.approx(2 * right / count, rel=1e-5)
    assert scores["slots_span_f1"] > 0.9
    model.export(tmp_path / "saved", verbose=False)
    kmtl.verify_export(tmp_path / "saved", model, x[:4])
