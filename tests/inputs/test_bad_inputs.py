"""What users give that cannot be meant: refused at once, naming column and row."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

import kmtl
from kmtl.data.targets import infer
from kmtl.inputs.array import Array
from kmtl.inputs.table import Table

pytestmark = pytest.mark.backend
TASKS = [kmtl.Regression("y")]
TRAIN = {
    "age": [31.0, 45.0, None, 62.0],
    "city": ["Bonn", "Ulm", "Ulm", "Bonn"],
    "seen": ["2024-05-01", "2024-05-02", "", "2023-01-01"],
    "member": [True, False, False, True],
    "code": [100, 200, 100, 300],
}
KINDS = {"code": "categorical"}


@pytest.fixture(scope="module")
def table() -> Table:
    return Table(KINDS).fit(TRAIN)


@pytest.fixture(scope="module")
def model(table: Table) -> kmtl.MultiTaskModel:
    return kmtl.build(inputs={"facts": table}, tasks=TASKS, backbone="mlp", seed=0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": []}, "must have at least one row"),
        (pd.DataFrame(), "must have at least one column"),
        (pd.DataFrame(columns=["a", "b"]), "must have at least one row"),
        (
            pd.DataFrame([[1, 2, 3]], columns=["a", "b", "a"]),
            "different names: rename or drop one. Received: two columns 'a'",
        ),
        (
            {"a": [1.0, 2.0], "b": [None, None], "c": [np.nan, np.nan]},
            r"at least one cell .*columns={'b': 'ignored', 'c': 'ignored'}.*"
            "nothing in b, c",
        ),
        ({"a": [3.0, 3.0], "c": ["x", "x"]}, "a column that says something.*a, c"),
        ({"a": [1, 2], "b": [1]}, r"same number of rows. Received: {'a': 2, 'b': 1}"),
        (
            {"a": [1.5, "?", 2.0]},
            r"Column 'a' .*one kind of cells.*Received: '\?' in row 1",
        ),
        ({"a": [1.0, np.inf]}, "Column 'a' .*finite numbers.*inf in row 1"),
        ({"a": np.ones((3, 2))}, r"Column 'a' .*one cell per row.*shape=\(3, 2\)"),
        ({"a": 3.0}, "Column 'a' .*must be a column.*Received: 3.0"),
        ({"a": ["x", "y"], "b": "text"}, "Column 'b' .*must be a column.*'text'"),
        (
            {"d": [*["2024-05-01"] * 10, "03/04/2024"]},
            "Column 'd' .*dates in one format.*'03/04/2024' in row 10",
        ),
        ({"d": ["2024-02-29", "2023-02-29"]}, "Column 'd' .*days that exist"),
    ],
)
def test_training_rows(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Table().fit(data)


TIMES = [datetime.time(11), datetime.time(0, 30), None]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            TIMES,
            r"make minutes of them: .*times of day, such as datetime.time\(11, 0\)",
        ),
        ([[1, 2], [3, 4], None], r"columns of their entries.*lists, such as \[1, 2\]"),
        ([np.arange(2.0)] * 3, r"columns of their entries.*arrays, such as array"),
        ([{"a": 1}] * 3, r"columns of their entries.*dicts, such as {'a': 1} in row 0"),
        ([1j, 2.5j, 0j], "two columns of them.*complex numbers, such as 1j in row 0"),
        ([object] * 3, "make numbers, texts or dates.*type objects, such as <class"),
    ],
)
@pytest.mark.parametrize("target", [False, True])
def test_cells_of_one_kind_that_is_none_for_a_table(
    cells: list, message: str, target: bool
) -> None:
    """They were called odd ones of a column with other kinds."""
    column = pd.Series(cells, name="a")
    with pytest.raises(ValueError, match=f"'a' .*must hold .*{message}"):
        infer("a", column) if target else Table().fit(column.to_frame())


def test_what_is_said_of_times_and_lists_works() -> None:
    frame = pd.DataFrame({"t": TIMES, "v": [[1, 2], [3, 4], [5, 6]]})
    names = {"pandas": pd, "frame": frame}
    with pytest.raises(ValueError, match="minutes") as caught:
        Table().fit(frame[["t"]])
    code = str(caught.value).partition(" = ")[2].partition(". Received")[0]
    np.testing.assert_array_equal(eval(code, names), [660, 30, np.nan])
    with pytest.raises(ValueError, match="entries") as caught:
        Table().fit(frame[["v"]])
    code = str(caught.value).partition("entries, ")[2].partition(", or give")[0]
    assert eval(code, names)[["v_0", "v_1"]].to_numpy().tolist() == frame["v"].tolist()


@pytest.mark.parametrize("data", [np.ones((3, 2)), [1, 2, 3], "rows.csv", None])
def test_what_is_no_table(data: Any) -> None:
    with pytest.raises(TypeError, match="must be a frame or a dict of columns"):
        Table().fit(data)


@pytest.mark.parametrize(
    ("kind", "cells", "message"),
    [
        ("numeric", ["1", "2"], "'a' .*must hold numbers.*to_numeric.*'1' in row 0"),
        ("boolean", [0, 2], "'a' .*True and False.*2.0 in row 1"),
        ("datetime", ["05/06/2024"], "'a' .*must hold dates.*'05/06/2024' in row 0"),
        ("elapsed", [3.0], "'a' .*must hold dates.*3.0 in row 0"),
    ],
)
def test_kinds_that_the_cells_are_not(kind: str, cells: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Table({"a": kind}).fit({"a": cells})


def test_arguments_of_a_table() -> None:
    with pytest.raises(ValueError, match=r"`columns\['a'\]` must be one of .*'numer"):
        Table({"a": "numerical"})
    with pytest.raises(TypeError, match="`columns` must be a dict column -> kind"):
        Table("a")
    with pytest.raises(ValueError, match=r"Did you mean 'age'.*Received: 'aeg'"):
        Table(["aeg"]).fit(TRAIN)
    with pytest.raises(ValueError, match="`scale` must be one of"):
        Table(scale="minmax")
    with pytest.raises(ValueError, match="A Table must be fitted"):
        Table().prepare(TRAIN, "`x`")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"age": None}, "`x` lacks column age, which the training rows had"),
        ({"age": ["31", None]}, "'age' of `x` must hold numbers.*'31' in row 0"),
        ({"age": [31, "?"]}, r"'age' of `x` must hold numbers.*'\?' in row 1"),
        ({"age": [1e38, 1]}, r"'age' of `x` .*finite numbers.*1e\+38 in row 0"),
        ({"age": [-np.inf, 1]}, "'age' of `x` .*finite numbers.*-inf in row 0"),
        ({"city": [5, 6]}, "'city' of `x` must hold strings.*5.0 in row 0"),
        ({"seen": ["2024-05-01", "2.5.2024"]}, "'seen' of `x` .*'2.5.2024' in row 1"),
        ({"seen": [2024, 0]}, "'seen' of `x` must hold dates.*2024.0 in row 0"),
        ({"seen": ["2024-13-01", ""]}, "'seen' of `x` must hold days that exist"),
        ({"member": [1, 3]}, "'member' of `x` .*True and False.*3.0 in row 1"),
        (
            {"member": ["yes", ""]},
            r"'member' of `x` must hold True and False.*frame\['member'\]\.map\("
            r"\{'yes': True, 'no': False\}\)\. Received: 'yes' in row 0",
        ),
        ({"member": ["False", ""]}, r"\.map\(\{'True': True, 'False': False\}\)"),
        ({"code": ["a", "b"]}, "'code' of `x` must hold numbers.*'a' in row 0"),
        ({"code": [1]}, "All columns of `x` must have the same number of rows"),
    ],
)
def test_rows_of_a_model(
    model: kmtl.MultiTaskModel, changes: dict, message: str
) -> None:
    rows = {name: cells[:2] for name, cells in TRAIN.items()} | changes
    rows = {name: cells for name, cells in rows.items() if cells is not None}
    with pytest.raises(ValueError, match=message):
        model.predict(rows, verbose=0)


def test_a_column_that_was_renamed(model: kmtl.MultiTaskModel) -> None:
    frame = pd.DataFrame(TRAIN).rename(columns={"city": "City", "age": "Age"})
    with pytest.raises(
        ValueError, match=r"lacks columns age, city.*Did you mean 'Age'"
    ):
        model.predict(frame, verbose=0)


def test_cells_that_are_all_missing_are_taken(table: Table) -> None:
    rows = {name: [None, None] for name in table.takes_columns()}
    found = table.prepare(rows, "`x`")
    flags = found[0, len(table.numeric) :][: len(table.indicators)]
    assert (flags == 1).all()
    assert (found.sum(axis=1) == len(table.indicators)).all()


def test_prepared_rows_of_another_table(model: kmtl.MultiTaskModel) -> None:
    with pytest.raises(ValueError, match=r"rows prepared by this table.*\(2, 3\)"):
        model.predict(np.zeros((2, 3), "float32"), verbose=0)
    with pytest.raises(TypeError, match="must be a frame or a dict of columns"):
        model.predict(np.zeros(3), verbose=0)


def test_an_array_without_names_is_not_taken_for_prepared_rows(table: Table) -> None:
    numbers = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [10, 30, 20]})
    two = Table().fit(numbers)
    with pytest.raises(ValueError, match=r"DataFrame\(x.*Received: float64 \(3, 2\)"):
        two.prepare(numbers.to_numpy(), "`x`")
    prepared = two.prepare(numbers, "`x`")
    assert prepared.tolist() == [[-1, -10], [0, 10], [2, 0]]
    np.testing.assert_array_equal(two.prepare(prepared[1:], "`x`"), prepared[1:])
    for column in (-1, len(table.numeric)):  # a category's number, and a flag
        rows = table.prepare(TRAIN, "`x`")
        rows[0, column] = 9
        with pytest.raises(ValueError, match="rows prepared by this table"):
            table.prepare(rows, "`x`")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, TypeError, "Give either `inputs`.* or `input_shape`"),
        (
            {"inputs": {"a": Table(["age"])}},
            ValueError,
            r"fitted on the training rows.*kmtl.inputs.Table\(...\).fit\(train_rows\)",
        ),
        (
            {"inputs": {"a": Array((2,), scale=None)}, "input_shape": (2,)},
            TypeError,
            "Give either `inputs`",
        ),
        ({"inputs": {}}, TypeError, "`inputs` must be a dict name -> kmtl.inputs"),
        ({"inputs": {"a": (2,)}}, TypeError, r"`inputs\['a'\]` must be a kmtl.inputs"),
        (
            {"inputs": {"a b": Array((2,), scale=None)}},
            ValueError,
            "must be named by an identifier",
        ),
        (
            {"inputs": {"y": Array((2,), scale=None)}},
            ValueError,
            "Two layers would be called 'y'",
        ),
        (
            {"inputs": {"a": Table().fit({"y": [1, 2], "x": [3, 4]})}},
            ValueError,
            r"must not hold what is to be predicted.*drop\(columns=\['y'\]\)",
        ),
        (
            {"inputs": {n: Array((2,), scale=None) for n in "ab"}},
            ValueError,
            "Several inputs need a backbone that joins them.*'mlp' for a, b",
        ),
    ],
)
def test_inputs_of_a_builder(
    options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        kmtl.build(tasks=TASKS, backbone="mlp", **options)


def test_arguments_of_an_array() -> None:
    for shape, error in (((), ValueError), (3, TypeError), ((0,), ValueError)):
        with pytest.raises(error, match="`shape"):
            Array(shape)
    with pytest.raises(ValueError, match="known number of columns"):
        Array((2, None))
    with pytest.raises(ValueError, match=r"rows must have shape \(2,\).*\(4, 3\)"):
        Array((2,)).fit(np.ones((4, 3)))
    with pytest.raises(ValueError, match="at least one, of shape"):
        Array((2,)).fit(np.ones((0, 2)))
    with pytest.raises(ValueError, match=r"finite numbers.*nan in row 1, column 0"):
        Array((2,)).fit(np.array([[1, 2], [np.nan, 3]]))
    times = np.array([[0.0, 1.7e9], [1.0, 1.7e9 + 60], [2.0, 1.7e9 + 90]])
    with pytest.raises(ValueError, match=r"subtract .*Table.*column 1 .* steps of 128"):
        Array((2,)).fit(times)
    assert Array((2,)).fit(times - times.mean(axis=0)).fitted
