"""Classes by their names: strings as labels."""

from __future__ import annotations

import numpy as np
import pandas
import pytest

import kmtl

pytestmark = pytest.mark.backend

COLOUR = kmtl.Classification("colour", labels=("red", "green", "blue"))
GREEN_RED_BLUE = [
    np.array(["green", "red", "blue"]),
    np.array([b"green", b"red", b"blue"]),
    ["green", "red", "blue"],
    pandas.Series(["green", "red", "blue"]),
    pandas.Series(["green", "red", "blue"], dtype="string"),
    pandas.Series(["green", "red", "blue"], dtype="category"),
    np.array([1, 0, 2]),
]


@pytest.mark.parametrize("labels", GREEN_RED_BLUE, ids=repr)
def test_names_become_numbers(labels) -> None:
    assert COLOUR.classes == 3
    found = COLOUR.label_array(labels)
    assert found.dtype.kind == "i"
    np.testing.assert_array_equal(found, [1, 0, 2])
    COLOUR.check_labels(found)


@pytest.mark.parametrize(
    "labels",
    [
        ["blue", None, "red"],
        ["blue", float("nan"), "red"],
        pandas.Series(["blue", pandas.NA, "red"], dtype="string"),
        pandas.Series(["blue", None, "red"], dtype="category"),
    ],
    ids=repr,
)
def test_missing_names(labels) -> None:
    found = COLOUR.label_array(labels)
    np.testing.assert_array_equal(found, [2, np.nan, 0])
    _, mask = COLOUR.clean_labels(found)
    np.testing.assert_array_equal(mask, [1, 0, 1])


def test_names_are_learned_from_training_labels() -> None:
    labels = ["b", None, "a", "c", "a"]
    task = kmtl.Classification.from_labels("kind", labels, weight=0.5)
    assert (task.labels, task.classes, task.weight) == (("a", "b", "c"), 3, 0.5)
    assert kmtl.Task.from_config(task.to_config()) == task
    answer = kmtl.BinaryClassification("answer", labels=("no", "yes"))
    np.testing.assert_array_equal(answer.label_array(["yes", "no"]), [1, 0])


LEARN = r"from_labels\('a', labels"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: COLOUR.label_array(["red", "gren"]),
            r"mean 'green'\? .*'gren' in row",
        ),
        (lambda: COLOUR.label_array(["red", 2]), r"not both. Received: 2 in row 1"),
        (lambda: kmtl.Classification("a"), "must have `classes`, or the classes' name"),
        (lambda: kmtl.Classification("a", labels=3), "a number give `classes=3`"),
        (lambda: kmtl.MultiLabel("a", labels=3), "a number give `classes=3`"),
        (lambda: kmtl.Keypoints("a", labels=3), "a number give `points=3`"),
        (lambda: kmtl.MultiLabel("a", labels="xy"), "sequence of names. Received"),
        (lambda: kmtl.Regression("a", labels=3), "sequence of names. Received"),
        (lambda: kmtl.Classification("a", labels="auto").class_count, LEARN),
        (lambda: kmtl.Classification("a", labels="auto").label_array(["x"]), LEARN),
        (
            lambda: kmtl.build_mlp(
                input_shape=(2,), tasks=[kmtl.Classification("a", labels="auto")]
            ),
            LEARN,
        ),
        (lambda: kmtl.Ordinal("a", labels="auto"), LEARN),
        (
            lambda: kmtl.Classification.from_labels("a", [0, 1]),
            r"write Classification\('a', classes=C\)",
        ),
        (lambda: kmtl.Classification.from_labels("a", ["x", "x"]), "at least two"),
        (
            lambda: COLOUR.check_labels(np.array([b"red"], object)),
            r"in a data set first, as `task.label_array",
        ),
        (
            lambda: kmtl.Classification("a", labels=("x", "x")).label_array(["x"]),
            "where `labels` are distinct",
        ),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_a_model_takes_names() -> None:
    made = kmtl.build_mlp(input_shape=(2,), tasks=[COLOUR], units=(4,), seed=0)
    made.compile("sgd")
    x = np.arange(8.0).reshape(4, 2)
    names = pandas.DataFrame({"colour": ["red", "blue", None, "green"]})
    logs = made.fit(x, names, validation_data=(x, names), verbose=0).history
    outputs = made.predict(x, verbose=0)["colour"].argmax(-1)
    right = np.mean(outputs[[0, 1, 3]] == [0, 2, 1])
    assert logs["val_colour_accuracy"] == pytest.approx([right])
    assert kmtl.evaluate(made, (x, names))["colour"].labels == 3
