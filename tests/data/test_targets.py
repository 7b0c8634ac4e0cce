"""Targets of frames: which task a column is, and what is refused."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest

import kmtl
from kmtl.data.targets import find_targets, infer, task_name


@pytest.mark.parametrize(
    ("values", "task", "labels"),
    [
        (["yes", "no", None, "yes"], ("binary", ("no", "yes")), [1, 0, -1, 1]),
        ([True, False, True, None], ("binary", None), [1, 0, 1, -1]),
        ([0, 1, 1, 0], ("binary", None), [0, 1, 1, 0]),
        ([1.0, 2.0, np.nan, 1.0], ("binary", ("1", "2")), [0, 1, -1, 0]),
        ([0.5, 1.5, 0.5, 0.5], ("binary", ("0.5", "1.5")), [0, 1, 0, 0]),
        (["c", "a", "b", None], ("classes", ("a", "b", "c")), [2, 0, 1, -1]),
        (pd.Categorical([30, 4, 4, None, 5]), ("classes", ("4", "5", "30")), None),
        ([-1, 0, 1, 1], ("classes", ("-1", "0", "1")), [0, 1, 2, 2]),
        (pd.array([7, pd.NA, 3, 5], "Int64"), ("classes", ("3", "5", "7")), None),
        (range(11), ("regression", None), list(range(11))),
        ([1.5, 2.0, 3.0, np.nan], ("regression", None), [1.5, 2.0, 3.0, np.nan]),
    ],
)
def test_the_task_that_a_column_is(values: Any, task: tuple, labels: Any) -> None:
    made, found = infer("column", pd.Series(values))
    kinds = {
        "binary": kmtl.BinaryClassification,
        "classes": kmtl.Classification,
        "regression": kmtl.Regression,
    }
    assert type(made) is kinds[task[0]]
    assert made.labels == task[1]
    if task[0] == "regression":
        assert made.transform == "standardize"
        assert [metric.name for metric in made.metrics] == ["mae", "r2"]
    if labels is not None:
        np.testing.assert_array_equal(found, labels)
    made.check_labels(found)


def test_numbers_as_names_keep_their_digits() -> None:
    days = [20240101, 20240102, 20240103]
    cases = (
        (pd.Categorical(days), tuple(map(str, days))),
        (pd.Series([1234567.25, 1234567.5]), ("1234567.25", "1234567.5")),
        (pd.Series([0.1, 0.7], dtype="float32"), ("0.1", "0.7")),
        (pd.Series([0.1, np.inf]), ("0.1", "inf")),
        (pd.Series([1 / 3, 2 / 3]), ("0.3333333333333333", "0.6666666666666666")),
    )
    for values, names in cases:
        assert infer("y", pd.Series(values))[0].labels == names


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["0", "1", "10", "2"], False),
        (["1.0", "2.0"], False),
        (["01", "02", "10"], False),
        ([str(n) for n in range(1, 13)], True),
        (["2.5", "10.5", "3.5"], True),
    ],
)
def test_few_numbers_as_text_are_classes_in_their_order(
    texts: list, named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "kmtl"):
        task, labels = infer("y", pd.Series([*sorted(texts), None] * 9))
    assert list(task.labels) == sorted(texts, key=float)
    assert [None, *task.labels][labels[0] + 1] == min(texts)
    assert labels[len(texts)] == -1
    assert ["pandas.to_numeric(frame['y'])" in m for m in caplog.messages] == (
        [True] * named
    )


def test_lists_of_names_are_several_at_once() -> None:
    tags = [["hot"], ["new", "hot"], [], None]
    task, labels = infer("tags", pd.Series(tags, dtype=object))
    assert type(task) is kmtl.MultiLabel
    assert task.labels == ("hot", "new")
    nan = np.nan
    wanted = [[1, 0], [1, 1], [0, 0], [nan, nan]]
    np.testing.assert_array_equal(labels, wanted)
    frame = pd.DataFrame({"x": np.arange(40.0), "tags": tags * 10})
    data = kmtl.data.from_dataframe(frame, targets=["tags"], verbose=False)
    assert data.train.y["tags"].shape == (len(data.train), 2)
    with pytest.raises(ValueError, match=r"Target 'tags'.*label"):
        infer("tags", pd.Series([[], []], dtype=object))


def test_ordered_categories_keep_their_order() -> None:
    stages = ["low", "mid", "high", "dire"]
    values = pd.Categorical(["mid", "low", None, "high"], stages, ordered=True)
    task, labels = infer("stage", pd.Series(values))
    assert type(task) is kmtl.Ordinal
    assert task.labels == tuple(stages)  # "dire", which no row has, among them
    assert labels.tolist() == [1, 0, -1, 2]
    task.check_labels(labels)

    bins, labels = infer("age", pd.cut(pd.Series([5, 25, 45]), [0, 20, 40, 60]))
    assert bins.labels == ("(0, 20]", "(20, 40]", "(40, 60]")
    assert labels.tolist() == [0, 1, 2]

    sizes = pd.Categorical([10, 9, 9.5], [9, 9.5, 10], ordered=True)
    assert infer("size", pd.Series(sizes))[0].labels == ("9", "9.5", "10")

    two = pd.Series(pd.Categorical(["no", "yes"], ["yes", "no"], ordered=True))
    task, labels = infer("two", two)
    assert type(task) is kmtl.BinaryClassification
    assert task.labels == ("yes", "no")
    assert labels.tolist() == [1, 0]
    for rows, message in (([1, 1], "Received: 'yes' in all 2"), ([], "at least one")):
        with pytest.raises(ValueError, match=message):
            infer("two", two.iloc[rows])


def test_names_of_tasks() -> None:
    assert [
        task_name(c) for c in ("a b", "class", "loss", "2", "val_x", "val", "é", "_a")
    ] == [
        *("a_b", "class_", "loss_", "y_2", "y_val_x", "y_val", "y", "a"),
    ]


def test_given_tasks_take_their_columns() -> None:
    frame = pd.DataFrame(
        {
            "colour": ["red", None, "blue"],
            "new": [1, 0, np.nan],
            "hot": [0, 0, 1],
            "cost ($)": [1.0, np.nan, 3.0],
        }
    )
    tasks = {
        kmtl.Classification("colour", labels=("red", "blue")): "colour",
        kmtl.MultiLabel("tags", classes=2): ["new", "hot"],
        kmtl.Regression("cost"): "cost ($)",
    }
    found = {target.task.name: target for target in find_targets(frame, tasks, None)}
    np.testing.assert_array_equal(found["colour"].labels, [0, np.nan, 1])
    np.testing.assert_array_equal(found["tags"].labels, [[1, 0], [0, 0], [np.nan, 1]])
    assert found["tags"].columns == ("new", "hot")
    assert found["colour"].missing == found["cost"].missing == pytest.approx(1 / 3)
    assert found["tags"].missing == 0  # each row has a label of it
    both = find_targets(frame, [kmtl.Regression("hot")], ["colour"])
    assert [target.task.name for target in both] == ["hot", "colour"]


@pytest.mark.parametrize("numbers", [[0, 2], [0, 2, None], [0.0, 2.0]])
def test_categories_that_are_numbers_are_the_numbers_of_classes(numbers: list) -> None:
    """`.cat.codes` makes class 1 of 2."""
    frame = pd.DataFrame({"p": pd.Categorical(numbers * 10)})
    (target,) = find_targets(frame, [kmtl.Classification("p", classes=3)], None)
    expected = np.array(numbers * 10, float)
    np.testing.assert_array_equal(target.labels, expected)


def test_a_regression_of_text_is_told_of_numbers() -> None:
    frame = pd.DataFrame({"p": ["1.5", "2.5"] * 10})
    with pytest.raises(ValueError, match=r"make numbers of text.*to_numeric") as caught:
        find_targets(frame, [kmtl.Regression("p")], None)
    assert "class" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            pd.Categorical(["low", "high"] * 10),
            r"from_labels\('size', frame\['p'\]\).*: 'low', 'high', first in row 0",
        ),
        (
            ["1.5", "2.5", None, "n/k"] * 5,
            r"pandas\.to_numeric\(.*'coerce'\). Received: 'n/k', first in row 3",
        ),
        ([1, 2, "three", None] * 5, "Received: 'three', first in row 2"),
        ([*"abcde"] * 4, r"Received: 'a', 'b', 'c', \.\.\., first in row 0"),
        (
            [f"${n},000" for n in range(1, 21)],
            r"frame\['p'\] = .*Received: '\$1,000'",
        ),
        (pd.date_range("2026-01-01", periods=20), r"\.dt\.days\. Received: dates"),
    ],
)
@pytest.mark.parametrize("kind", [kmtl.Regression, kmtl.Count])
def test_a_task_of_numbers_names_what_is_none(
    kind: type, values: Any, message: str
) -> None:
    frame = pd.DataFrame({"p": values})
    with pytest.raises(ValueError, match=f"Target 'p' must hold numbers.*{message}"):
        find_targets(frame, {kind("size"): "p"}, None)


def test_numbers_of_any_type_are_labels_of_a_regression() -> None:
    frame = pd.DataFrame({"a": [True, False], "b": pd.array([1, None], "Int64")})
    frame["c"] = pd.Categorical([1.5, 2.5])
    frame["d"] = pd.Series([1, None], dtype=object)
    found = find_targets(frame, [kmtl.Regression(name) for name in frame], None)
    labels = np.stack([target.labels for target in found])
    np.testing.assert_array_equal(
        labels, [[1, 0], [1, np.nan], [1.5, 2.5], [1, np.nan]]
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([None] * 30, "Target 'y' must have at least one label.* none in 30 rows"),
        (["a"] * 30, "at least two different values.* 'a' in all 30 rows"),
        ([3.0] * 29 + [None], "at least two different values.* 3.0 in all 29 rows"),
        (
            [f"opinion {n}" for n in range(30)],
            r"not text of its own.*Classification.from_labels\('y', frame\['y'\]\)",
        ),
        (pd.date_range("2026-01-01", periods=30), r"\.dt\.days\. Received: dates"),
        (["2026-01-01", "2026-01-02"] * 15, "make numbers of dates"),
        ([1, 2, "three"] * 10, "numbers or text, and not both.* 1 next to 'three'"),
    ],
)
def test_columns_that_are_no_target(values: Any, message: str) -> None:
    frame = pd.DataFrame({"y": values, "x": range(30)})
    with pytest.raises(ValueError, match=message):
        find_targets(frame, None, ["y"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`tasks` or `targets` must say which columns .* for columns price, town"),
        ({"targets": ["prize"]}, "no column 'prize'. Did you mean 'price'?"),
        ({"tasks": [kmtl.Regression("prize")]}, "`tasks` must be columns"),
        (
            {"tasks": [kmtl.Regression("price")], "targets": "price"},
            "unique. Received: 'price' for price and for price",
        ),
        ({"tasks": [kmtl.Regression("empty")]}, "at least one label"),
        (
            {"tasks": [kmtl.BinaryClassification("town")]},
            r"must be numbers.*\(targets=\['town'\] learns the classes",
        ),
    ],
)
def test_what_is_no_choice_of_targets(options: dict, message: str) -> None:
    frame = pd.DataFrame(
        {"price": [1.0, 2.5], "town": ["a", "b"], "empty": [np.nan, np.nan]}
    )
    with pytest.raises(ValueError, match=message):
        find_targets(frame, options.get("tasks"), options.get("targets"))


@pytest.mark.parametrize("text", [False, True])
def test_days_are_made_of_dates_as_is_said(text: bool) -> None:
    days = pd.Series(pd.date_range("2026-01-03", periods=30))
    texts = days.dt.strftime("%Y-%m-%d")
    texts[1::2] += " 00:00:00"  # pandas takes the first one's form for all
    frame = pd.DataFrame({"y": texts if text else days})
    with pytest.raises(ValueError, match="dates") as caught:
        infer("y", frame["y"])
    code = str(caught.value).partition("such as ")[2].partition(". Received")[0]
    assert eval(code, {"pandas": pd, "frame": frame}).tolist() == list(range(30))


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["red", "blue", None, "green"], ("blue", "green", "red")),
        ([7.0, 3.0, np.nan, 5.0], ("3", "5", "7")),
        ([True, False, None, True], ("0", "1")),
    ],
    ids=["text", "numbers", "flags"],
)
@pytest.mark.parametrize("missing", [-1, None])
def test_classes_of_a_given_task_are_learned(
    cells: list, names: tuple, missing: int | None
) -> None:
    frame = pd.DataFrame({"kind": cells * 10, "x": np.arange(40)})
    options: dict = {"hidden": (8,), "loss": "focal", "missing": missing}
    task = kmtl.Classification("k", labels="auto", **options)
    plain = kmtl.Regression("x")
    first, second = find_targets(frame, {task: "kind", plain: "x"}, None)
    assert first.task == kmtl.Classification("k", labels=names, **options)
    assert second.task is plain
    (wanted,) = find_targets(frame, None, ["kind"])
    np.testing.assert_array_equal(first.present(), wanted.present())
    there = wanted.present()
    np.testing.assert_array_equal(first.labels[there], wanted.labels[there])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("x", "'x' must hold classes for task 'k' to learn them.*regression"),
        ("tags", "'tags' must hold classes for task 'k'.*multi_label"),
        ("one", "at least two different values"),
        (["x", "one"], "must have one column for its classes"),
        ("y", "There is no column 'y'"),
    ],
)
def test_what_holds_no_classes_is_not_learned(column: Any, message: str) -> None:
    frame = pd.DataFrame({"x": np.arange(30.0) / 7, "one": "a"})
    frame["tags"] = [["a"], ["a", "b"], []] * 10
    task = kmtl.Classification("k", labels="auto")
    with pytest.raises((TypeError, ValueError), match=message):
        find_targets(frame, {task: column}, None)
