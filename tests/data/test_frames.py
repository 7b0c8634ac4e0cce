"""Frames and CSV files: from a table to a trained, compared and searched model."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_wine

import kmtl
from kmtl.data import from_csv, from_dataframe
from kmtl.data.csv_files import read_csv

pytestmark = pytest.mark.backend

ROWS = 120


def houses(rows: int = ROWS) -> pd.DataFrame:
    """Strings, dates, flags, missing cells, an identifier, a constant, prose."""
    rng = np.random.default_rng(0)
    rooms = rng.integers(1, 8, rows).astype(float)
    town = rng.choice(["Ulm", "Bonn", "Köln"], rows)
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 2000, rows), "D")
    price = 50.0 * rooms + 100 * (town == "Köln") + rng.normal(size=rows)
    frame = pd.DataFrame(
        {
            "house_id": rng.permutation(rows) + 1000,
            "rooms": np.where(rng.random(rows) < 0.2, np.nan, rooms),
            "town": np.where(rng.random(rows) < 0.1, None, town.astype(object)),
            "listed": day.strftime("%Y-%m-%d"),
            "garden": rng.random(rows) < 0.5,
            "country": "DE",
            "note": [f"a house, number {n}" for n in range(rows)],
            "price": np.where(rng.random(rows) < 0.1, np.nan, price),
            "sold": np.where(price > 250, "yes", "no"),
            "class": rng.choice(["a", "b", "c"], rows),
        }
    )
    return frame.set_index(np.arange(rows)[::-1])  # the index says nothing


TARGETS = ["price", "sold", "class"]


@pytest.fixture(scope="module")
def data() -> kmtl.data.TaskData:
    return from_dataframe(houses(), targets=TARGETS, verbose=False)


@pytest.fixture(scope="module")
def model(data: Any) -> kmtl.MultiTaskModel:
    model = kmtl.build(
        inputs=data.inputs,
        tasks=data.tasks,
        backbone=kmtl.backbones.MLP(units=(8,)),
        seed=0,
    )
    model.compile("adam")
    model.fit(data.train, validation_data=data.validation, epochs=1, verbose=0)
    return model


def test_every_column_is_taken_for_what_it_holds(data: Any) -> None:
    assert data.inputs["table"].kinds == {
        "house_id": "ignored",
        "rooms": "numeric",
        "town": "categorical",
        "listed": "datetime",
        "garden": "boolean",
        "country": "ignored",
        "note": "ignored",
    }
    assert [type(task).__name__ for task in data.tasks] == [
        *("Regression", "BinaryClassification", "Classification"),
    ]
    assert [task.name for task in data.tasks] == ["price", "sold", "class_"]
    lines = {line.split()[0]: line for line in data.description.splitlines()[2:]}
    assert "left out: an identifier" in lines["house_id"]
    assert "left out: one value" in lines["country"]
    assert "left out: another text" in lines["note"]
    assert "categorical, 3 values" in lines["town"]
    assert "binary_classification 'sold': no, yes" in lines["sold"]
    share = 100 * houses()["price"].isna().mean()
    assert "regression 'price', standardize " in lines["price"]
    assert lines["price"].endswith(f" {share:.3g} %")


def test_what_is_done_is_written(capsys: Any) -> None:
    data = from_dataframe(houses(), targets=["price"])
    assert capsys.readouterr().out == data.description + "\n"
    assert data.description.startswith("120 rows: train 84, validation 18, test 18\n")


def test_many_columns_alike_share_a_line() -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 60)))
    frame.columns = [f"bit{n}" for n in range(60)]
    frame["town"], frame["y"] = ["a", "b", "c"] * 10, [0, 1] * 15
    frame.loc[:2, "bit0"] = np.nan
    data = from_dataframe(frame, targets=["y"], verbose=False)
    _, _, bits, town, y = data.description.splitlines()
    assert bits.split()[:6] == ["bit0", "...", "bit59", "(60)", "table", "numeric"]
    assert town.startswith("town ")
    assert y.startswith("y ")


def test_rows_are_those_of_the_frame(data: Any) -> None:
    frame = houses()
    rows = [part.rows for part in data.splits.values()]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(ROWS))
    for part in data.splits.values():
        own = frame.iloc[part.rows]
        np.testing.assert_array_equal(part.y["price"], own["price"])
        np.testing.assert_array_equal(part.y["sold"], own["sold"] == "yes")
        names = np.array(data.tasks[2].labels)[part.y["class_"]]
        np.testing.assert_array_equal(names, own["class"])
        np.testing.assert_array_equal(
            part.x, data.inputs["table"].prepare(own, "the rows")
        )
        assert len(part.subset(slice(3)).rows) == 3


def test_statistics_are_the_training_rows_own(data: Any) -> None:
    """Whatever stands in the other rows: the same inputs."""
    frame = houses()
    others = np.setdiff1d(np.arange(ROWS), data.train.rows)
    frame.iloc[others, frame.columns.get_loc("rooms")] = 1e6
    frame.iloc[others, frame.columns.get_loc("town")] = "Rome"
    rows = {name: part.rows for name, part in data.splits.items()}
    again = from_dataframe(frame, targets=TARGETS, split=rows, verbose=False)
    assert again.inputs == data.inputs
    np.testing.assert_array_equal(again.train.x, data.train.x)
    median = np.nanmedian(houses()["rooms"].to_numpy()[data.train.rows])
    table = data.inputs["table"]
    assert table.parts[table.numeric.index("rooms")].median == median


def test_a_model_is_trained_compared_and_applied_to_raw_rows(
    data: Any, model: Any
) -> None:
    result = kmtl.evaluate(model, data.test)
    present = int(np.isfinite(data.test.y["price"]).sum())
    assert result["price"].labels == present < len(data.test)
    outputs = model.predict(data.test.x, verbose=0)
    mae = np.nanmean(np.abs(outputs["price"][:, 0] - data.test.y["price"]))
    assert result["price"].score == pytest.approx(mae, rel=1e-4)
    raw = houses().iloc[data.test.rows].drop(columns=TARGETS)
    for name, rows in model.predict(raw, verbose=0).items():
        np.testing.assert_allclose(rows, outputs[name], rtol=1e-5, atol=1e-5)


@pytest.mark.thorough(on="jax")
def test_search(data: Any, tmp_path: Path) -> None:
    data = data.select("sold")
    hypermodel = kmtl.HyperModel(
        kmtl.build,
        inputs=data.inputs,
        tasks=data.tasks,
        backbone=kmtl.backbones.MLP(units=(4,)),
        seed=0,
    )
    tuner = kmtl.RandomSearch(
        hypermodel, objective="val_sold_auc", max_trials=1, directory=tmp_path
    )
    tuner.search(data.train, validation_data=data.validation, epochs=1, verbose=0)
    assert np.isfinite(tuner.oracle.get_best_trials()[0].score)


def test_bundled_frame_with_given_tasks() -> None:
    frame = load_wine(as_frame=True).frame
    tasks = {
        kmtl.Classification("cultivar", classes=3): "target",
        kmtl.Regression("colour", transform="log1p"): "color_intensity",
    }
    data = from_dataframe(frame, tasks, inputs=["alcohol", "hue"], verbose=False)
    assert data.inputs["table"].kinds == {"alcohol": "numeric", "hue": "numeric"}
    counts = np.bincount(frame["target"])
    for part, fraction in zip(data.splits.values(), (0.7, 0.15, 0.15), strict=True):
        np.testing.assert_allclose(
            np.bincount(part.y["cultivar"]), fraction * counts, atol=2
        )


def test_a_given_task_learns_its_classes() -> None:
    task = kmtl.Classification("town", labels="auto", hidden=(4,))
    data = from_dataframe(houses(), [task], targets=["sold"], verbose=False)
    assert data.tasks[0].labels == ("Bonn", "Köln", "Ulm")
    assert data.tasks[0].hidden == (4,)
    for part in data.splits.values():
        own = houses()["town"].iloc[part.rows]
        found = [None if n < 0 else data.tasks[0].labels[n] for n in part.y["town"]]
        assert found == [None if pd.isna(town) else town for town in own]
    assert "classification 'town': Bonn, Köln, Ulm" in data.description


# -- parts -----------------------------------------------------------------------------


def test_by_groups_by_time_by_column_and_by_rows() -> None:
    frame = houses()
    frame["owner"] = [f"owner {n % 30}" for n in range(ROWS)]
    frame["part"] = ["train"] * 100 + ["validation"] * 10 + ["test"] * 10

    def made(**options: Any) -> tuple[Any, list[pd.DataFrame]]:
        data = from_dataframe(frame, targets=["sold"], verbose=False, **options)
        parts = [frame.iloc[part.rows] for part in data.splits.values()]
        return data.inputs["table"].kinds, parts

    kinds, parts = made(groups="owner")
    owners = [set(part["owner"]) for part in parts]
    assert not owners[0] & (owners[1] | owners[2])
    assert not owners[1] & owners[2]
    assert "owner" not in kinds
    kinds, parts = made(time="listed")
    assert parts[0]["listed"].max() < parts[1]["listed"].min()
    assert parts[1]["listed"].max() < parts[2]["listed"].min()
    assert "listed" not in kinds
    kinds, parts = made(time="listed", inputs=["listed", "rooms"])
    assert set(kinds) == {"listed", "rooms"}
    kinds, parts = made(split="part")
    assert [len(part) for part in parts] == [100, 10, 10]
    assert "part" not in kinds
    flags = np.arange(ROWS) < 100
    split = {"train": flags, "validation": range(100, 110), "test": [119]}
    assert [len(part) for part in made(split=split)[1]] == [100, 10, 1]


def test_parts_may_be_called_otherwise() -> None:
    frame = houses()
    words = ["Train", "training", "val", "valid", " dev", "TEST", "testing", "train"]
    frame["part"] = words * (ROWS // 8)
    data = from_dataframe(frame, targets=["sold"], split="part", verbose=False)
    for part, places in zip(
        data.splits.values(), ([0, 1, 7], [2, 3, 4], [5, 6]), strict=True
    ):
        np.testing.assert_array_equal(np.unique(part.rows % 8), places)


@pytest.mark.parametrize(
    ("given", "lacking"), [("test", "validation"), ("val", "test")]
)
@pytest.mark.parametrize("by", ["column", "rows", "flags"])
def test_a_part_that_no_row_is_named_for_is_held_out(
    given: str, lacking: str, by: str
) -> None:
    frame = pd.DataFrame({"x": np.arange(100.0), "y": [0, 0, 0, 1] * 25})
    split: Any = {"train": np.arange(80), given: np.arange(80, 100)}
    if by == "column":
        frame["part"] = ["train"] * 80 + [given] * 20
        split = "part"
    elif by == "flags":
        split = {part: np.isin(np.arange(100), rows) for part, rows in split.items()}
    options = {"targets": ["y"], "split": split, "verbose": False}
    data = from_dataframe(frame, **options)
    held = data.splits[lacking]
    assert (held.rows < 80).all()
    assert len(data.train) == 80 - len(held) == 68
    assert held.y["y"].sum() == 3  # alike
    assert f"{lacking}: 12 of the 80 training rows" in data.description
    again = from_dataframe(frame, **options, seed=1)
    assert set(again.splits[lacking].rows) != set(held.rows)
    if by == "column":
        frame["part"] = given
    else:
        split.pop("train")
    with pytest.raises(ValueError, match="must have rows in 'train', and in 'valid"):
        from_dataframe(frame, **options)


def test_a_task_named_as_an_input_is_refused() -> None:
    frame = pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40) % 7, "c": 1.0})
    with pytest.raises(ValueError, match="Task 'b' of column 'a' must not have"):
        kmtl.data.from_dataframe(frame, {kmtl.Regression("b"): "a"}, verbose=False)


def test_rows_without_a_part_are_named() -> None:
    for gone in (pd.NA, None, np.nan):
        parts = ["train", gone, "validation", "test", *[gone] * 6]
        frame = pd.DataFrame({"y": range(10), "x": range(10), "part": parts})
        with pytest.raises(
            ValueError,
            match=r"'part'.*Received: no part in 7 rows: 1, 4, 5, 6, 7, \.\.\.",
        ):
            from_dataframe(frame, targets=["y"], split="part", verbose=False)


def test_kinds_of_columns_can_be_said() -> None:
    table = kmtl.inputs.Table(columns={"rooms": "categorical", "town": "ignored"})
    data = from_dataframe(houses(), targets=["sold"], inputs=table, verbose=False)
    kinds = data.inputs["table"].kinds
    assert (kinds["rooms"], kinds["town"], kinds["garden"]) == (
        *("categorical", "ignored", "boolean"),
    )


def test_a_fitted_table_is_taken_as_it_is(data: Any) -> None:
    """That of other rows, say: an old model's."""
    frame = houses(60).drop(columns=["note", "country"])
    again = from_dataframe(frame, targets=["sold"], inputs=data.inputs, verbose=False)
    assert again.inputs == data.inputs
    frame = frame.drop(columns="town")
    with pytest.raises(ValueError, match=r"town"):
        from_dataframe(frame, targets=["sold"], inputs=data.inputs, verbose=False)


def test_a_named_identifier_is_taken() -> None:
    data = from_dataframe(
        houses(), targets=["sold"], inputs=["house_id"], verbose=False
    )
    assert data.inputs["table"].kinds == {"house_id": "numeric"}


@pytest.mark.parametrize(
    "inputs",
    [
        ["rooms", "house_id"],
        {"note": kmtl.inputs.Text()},
        {"facts": kmtl.inputs.Table(columns=["rooms"]), "note": kmtl.inputs.Text()},
    ],
    ids=["names", "text", "several"],
)
def test_every_column_is_in_the_table_that_is_printed(inputs: Any) -> None:
    frame = houses().assign(owner=np.arange(ROWS) % 30)
    data = from_dataframe(
        frame, targets=["sold"], inputs=inputs, groups="owner", verbose=False
    )
    lines = {line.split()[0]: line for line in data.description.splitlines()[2:]}
    assert set(lines) == set(frame.columns)
    taken = {name for spec in data.inputs.values() for name in spec.takes_columns()}
    for name in set(frame.columns) - taken - set(data.inputs) - {"sold", "owner"}:
        assert " -  " in lines[name]
        assert "left out: not in `inputs`" in lines[name]


def test_several_inputs() -> None:
    inputs = {
        "facts": kmtl.inputs.Table(columns=["rooms", "town"]),
        "when": kmtl.inputs.Table(columns=["listed"]),
    }
    data = from_dataframe(houses(), targets=["sold"], inputs=inputs, verbose=False)
    table = inputs["when"].fit(houses()[["listed"]])
    # rooms, two flags of missing cells, town; and what a day is read as
    assert data.input_shape == {"facts": (4,), "when": table.shape}
    assert re.search(r"^rooms +facts +numeric", data.description, re.MULTILINE)
    inputs["facts"] = kmtl.inputs.Table(columns={"garden": "ignored"})
    data = from_dataframe(houses(), targets=["sold"], inputs=inputs, verbose=False)
    assert "listed" not in data.inputs["facts"].kinds  # another input's


def test_a_text_is_an_input_of_its_own() -> None:
    inputs = {"facts": kmtl.inputs.Table(), "note": kmtl.inputs.Text()}
    data = from_dataframe(houses(), targets=["sold"], inputs=inputs, verbose=False)
    assert "note" not in data.inputs["facts"].kinds
    words = {"a", "house", "number", *map(str, data.train.rows)}  # of training rows
    assert set(data.inputs["note"].vocabulary) == words
    assert data.test.x["note"].shape == (len(data.test), 4)
    assert "note      note    text, 4" in data.description


def test_the_mask_of_a_series_is_no_channel_that_is_shown() -> None:
    steps = [np.full((3 + n % 5, 2), float(n)) for n in range(30)]
    frame = pd.DataFrame({"walk": steps, "y": [0, 1] * 15})
    series = {"walk": kmtl.inputs.Series()}
    data = from_dataframe(frame, targets=["y"], inputs=series, verbose=False)
    assert data.input_shape == (7, 3)
    assert "series, 7 × 2" in data.description


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "houses.csv"
    houses().to_csv(path)  # with its index, which is unnamed
    data = from_csv(path, targets=TARGETS, verbose=False)
    direct = from_dataframe(houses(), targets=TARGETS, verbose=False)
    np.testing.assert_array_equal(data.train.rows, direct.train.rows)
    assert data.inputs["table"].kinds == {
        "Unnamed: 0": "ignored",
        **direct.inputs["table"].kinds,
    }
    np.testing.assert_allclose(data.test.x, direct.test.x, rtol=1e-6)


LEVELS = [("x", "a"), ("x", "b"), ("t", "y"), ("t", "z"), ("t", "part")]


@pytest.mark.parametrize("names", [range(5), LEVELS], ids=["numbers", "levels"])
@pytest.mark.parametrize("given", [lambda name: name, str], ids=["as it is", "text"])
def test_names_of_columns_need_not_be_text(names: Any, given: Any) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 5)))
    frame[4] = ["train", "validation", "test"] * 20
    frame.columns = pd.MultiIndex.from_tuples(names) if names is LEVELS else names
    a, b, y, z, part = map(given, frame.columns)
    options: dict = {"split": part, "verbose": False}
    data = from_dataframe(frame, {kmtl.Regression("z"): z}, targets=[y], **options)
    kinds = data.inputs["table"].kinds
    assert list(kinds) == [str(name) for name in frame.columns[:2]]
    own = frame.iloc[data.test.rows]
    (first, last) = (task.name for task in data.tasks)
    np.testing.assert_array_equal(data.test.y[first], own.iloc[:, 3])
    np.testing.assert_array_equal(data.test.y[last], own.iloc[:, 2])
    np.testing.assert_array_equal(data.inputs["table"].prepare(own, "x"), data.test.x)
    both = {kmtl.MultiLabel("m", classes=2): [a, b]}
    frame.iloc[:, :2] = rng.integers(0, 2, (60, 2))
    data = from_dataframe(frame, both, inputs=[y], **options)
    rows = frame.iloc[data.test.rows, :2]
    np.testing.assert_array_equal(data.test.y["m"], rows)
    data = from_dataframe(frame, targets=z, groups=y, verbose=False)
    assert str(frame.columns[2]) not in data.inputs["table"].kinds
    with pytest.raises(ValueError, match="There is no column '77'"):
        from_dataframe(frame, targets=77, verbose=False)


def test_a_model_takes_the_frame_whose_names_are_no_text() -> None:
    """Alone or among other inputs, each by the text of its name."""
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)))
    frame["note"] = ["a house", "a flat and more"] * 30
    inputs = {"facts": kmtl.inputs.Table([0, 1]), "note": kmtl.inputs.Text()}
    data = from_dataframe(frame, targets=[2], inputs=inputs, verbose=False)
    model = kmtl.build(
        inputs=data.inputs,
        tasks=data.tasks,
        backbone={"facts": "mlp", "note": "mlp"},
        seed=0,
    )
    wanted = model.predict(data.test.x, verbose=0)["y_2"]
    own = frame.iloc[data.test.rows]
    found = model.predict(own, verbose=0)["y_2"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    model.compile("adam")
    scores = kmtl.evaluate(model, (own, {"y_2": own[2]}))
    assert scores["y_2"].score == pytest.approx(
        kmtl.evaluate(model, data.test)["y_2"].score, rel=1e-5
    )


# -- refused ---------------------------------------------------------------------------


def frame_with(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"a": range(30), "y": [0, 1] * 15, **columns})


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (
            pd.DataFrame([[1, 2]] * 30, columns=["a", "a"]),
            {},
            "`frame` must have columns of different names.* two columns 'a'",
        ),
        (frame_with()[:0], {}, r"at least one row and one column.*\(0, 2\)"),
        (frame_with(), {"inputs": ["b"]}, "`inputs` must be columns.* no column 'b'"),
        (
            frame_with(),
            {"inputs": ["a", "y"]},
            "Column 'y' is a target and may not be an input",
        ),
        (frame_with(), {"inputs": {"a": 3}}, "Received: 'a': int"),
        (frame_with(), {"groups": "patient"}, "`groups` must be a column"),
        (frame_with(), {"split": (0.8, 0.2)}, "`split` must be the fractions of train"),
        (
            frame_with(),
            {"split": (0.8, 0.2)},
            r"write split=\(0.8, 0.1, 0.1\): .* Received: split=\(0.8, 0.2\)",
        ),
        (frame_with(), {"split": 0.2}, "`split` must be the fractions of train.*0.2"),
        (frame_with(), {"split": "a"}, "'train', 'validation' or 'test' in each row"),
        (
            frame_with(),
            {"split": {"train": [0], "validation": [0, 1], "test": [2]}},
            "row 0 in 'train' and 'validation'",
        ),
        (
            frame_with(),
            {"split": {"train": [0], "validation": [30], "test": [2]}},
            r"numbers of rows, 0 to 29.*from 30 to 30",
        ),
        (
            frame_with(),
            {"split": {"train": [0], "tset": [1]}},
            "rows of train, and of validation or test, or of both. .*: train, tset",
        ),
        (
            frame_with(),
            {"split": {"train": [0, 1], "val": [], "test": [2]}},
            "a row in 'val', or leave it out",
        ),
        (frame_with(), {"split": "a", "time": "a"}, "`groups` and `time` divide rows"),
        (
            frame_with(
                day=["2026-01-01", "2026-02-01"] * 14 + ["2026-01-01", "1/2/26"]
            ),
            {},
            "Column 'day' of the frame must hold dates in one format.* in row 29",
        ),
        (
            frame_with(mixed=[1, 2, "x"] * 10),
            {},
            "Column 'mixed' of the frame must hold one kind of cells.*'x' in row 2",
        ),
        (
            pd.DataFrame({"id": range(30), "b": [None] * 30, "y": [0, 1] * 15}),
            {},
            r"all left out \(id: an identifier.*b: no cell in the training rows\)",
        ),
        (pd.DataFrame({"y": [0, 1] * 15}), {}, "none beside targets"),
        (
            frame_with(svm=[-1, 1] * 15),
            {"tasks": [kmtl.BinaryClassification("svm")]},
            r"-1 says 'not labelled'.*\.map\({-1: 0, 1: 1}\).* 1 in all 15 rows",
        ),
        (
            frame_with(kind=["b"] * 30),
            {"tasks": [kmtl.Classification("kind", labels=("a", "b", "c"))]},
            "'kind' must have labels of at least two classes.*'b' in all 30 rows",
        ),
        (
            frame_with(z=[None] * 29 + [1.0]),
            {"tasks": [kmtl.Regression("z")], "time": "a"},
            "Target 'z' must have a label in a training row",
        ),
    ],
)
def test_what_is_refused(frame: pd.DataFrame, options: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        from_dataframe(frame, **{"targets": ["y"], **options}, verbose=False)


@pytest.mark.parametrize("given", [True, False])
def test_classes_without_a_training_row_are_named(given: bool, caplog: Any) -> None:
    frame = frame_with(kind=["a"] * 10 + ["b"] * 15 + ["c"] * 5)
    kind = kmtl.Classification("kind", labels=("a", "b", "c"))
    options: dict = {"tasks": [kind]} if given else {"targets": ["kind"]}
    from_dataframe(frame, **options, time="a", verbose=False)
    assert "Target 'kind' has no training row of a class: 'c'." in caplog.text
    caplog.clear()
    from_dataframe(frame, **options, verbose=False)
    assert not caplog.text


@pytest.mark.parametrize("row", [3, 20, 33])
def test_rows_in_errors_are_those_of_the_frame(row: int) -> None:
    """They were those of the training rows; or labels were refused in `fit` alone."""
    rows = range(40)
    frame = pd.DataFrame({"a": rows, "y": np.arange(40.0), "z": [n % 3 for n in rows]})
    frame["a"] = frame["a"].astype(float)
    frame.loc[row, "a"] = np.inf
    with pytest.raises(ValueError, match=f"'a' of the frame .*inf in row {row}$"):
        from_dataframe(frame, targets=["y"], verbose=False)
    frame["a"] = pd.Series(rows).map(str).where(frame.index == row, frame["z"] + 0.5)
    kinds = kmtl.inputs.Table({"a": "numeric"})
    with pytest.raises(ValueError, match=f"'a' of the frame .*'{row}' in row {row}$"):
        from_dataframe(frame, targets=["y"], inputs=kinds, verbose=False)
    frame["a"] = rows
    frame.loc[row, "y"] = -np.inf
    given = [{"targets": ["y"]}, {"tasks": [kmtl.Regression("y")]}]
    given.append({"tasks": {kmtl.Regression("y"): ["y", "z"]}})
    for options in given:
        with pytest.raises(ValueError, match=f"task 'y' .*-inf in row {row}"):
            from_dataframe(frame, **options, verbose=False)


def test_a_column_that_is_lacking_at_predict_is_named(model: Any) -> None:
    with pytest.raises(ValueError, match="lacks column rooms"):
        model.predict(houses().drop(columns="rooms"), verbose=0)


@pytest.mark.parametrize(
    "options",
    [
        {"parse_dates": ["day"]},
        {"index_col": "id"},
        {"dtype": {"id": "int32"}, "converters": {"price": float}},
        {"engine": "python", "sep": ","},
        pytest.param(
            {"engine": "pyarrow"},
            marks=pytest.mark.skipif(
                importlib.util.find_spec("pyarrow") is None,
                reason="pyarrow is not installed",
            ),
        ),
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_reading_leave_the_header_check_alone(
    tmp_path: Path, options: dict
) -> None:
    path = tmp_path / "sales.csv"
    text = "id,day,price,n,{}\n1,2024-05-01,2.5,7,8\n2,2024-05-02,3.5,7,8\n"
    path.write_text(text.format("m"))
    frame = read_csv(path, options)
    assert frame["price"].tolist() == [2.5, 3.5]
    path.write_text(text.format("n"))
    with pytest.raises(ValueError, match=r"The header of .*two columns 'n'"):
        read_csv(path, options)


@pytest.mark.parametrize(("mark", "decimal"), [(".", ","), (" ", "."), ("'", ".")])
def test_marks_between_thousands_are_nowhere_else(
    tmp_path: Path, mark: str, decimal: str
) -> None:
    """pandas makes 31122024 of 31.12.2024, and 1215 of the version 1.2.15."""
    path = tmp_path / "sales.csv"
    texts = {
        "day": [mark.join(("31", "12", "2024")), mark.join(("01", "11", "2024"))],
        "version": [mark.join("123"), mark.join(("1", "2", "15"))],
        "call": [mark.join(("397", "245", "6780")), mark.join(("397", "246", "6781"))],
        "rent": [f"1{mark}234{mark}567{decimal}5", f"-12{decimal}5"],
        "rooms": ["3", "4"],
        "sold": ["True", "False"],
    }
    pd.DataFrame(texts).to_csv(path, index=False, sep=";")
    frame = read_csv(path, {"sep": ";", "decimal": decimal, "thousands": mark})
    for name in ("day", "version", "call"):
        assert frame[name].tolist() == texts[name]
    assert frame["rent"].tolist() == [1_234_567.5, -12.5]
    assert frame["rooms"].tolist() == [3, 4]
    assert frame["sold"].tolist() == [True, False]


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("")
    with pytest.raises(ValueError, match="which is empty"):
        from_csv(path, targets=["y"])
    path.write_text("a,a,y\n1,2,3\n")
    with pytest.raises(ValueError, match="two columns 'a'"):
        from_csv(path, targets=["y"])
    path.write_text("a,y\n")
    with pytest.raises(ValueError, match="at least one row"):
        from_csv(path, targets=["y"])


def test_a_header_of_numbers_may_be_none(tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("-1,-1,1.5\n" + "".join(f"{n},{n},{n}.5\n" for n in range(40)))
    with pytest.raises(ValueError, match=r"two columns '-1'.*\{\"header\": None\}"):
        kmtl.data.from_csv(path, targets=["1.5"])
    data = kmtl.data.from_csv(
        path, targets=[2], read_options={"header": None}, verbose=False
    )
    assert sum(len(part) for part in data.splits.values()) == 41


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ("5.1,3.5,-1e-3", {}),
        ('"7",8,9', {}),
        ("6,,148,0", {}),
        ("5,1;3,5", {"sep": ";", "decimal": ","}),
        ("5.100;3.5", {"sep": ";", "thousands": "."}),
        ("12", {"engine": "python"}),
    ],
)
def test_a_first_line_of_numbers_is_no_header(
    tmp_path: Path, row: str, options: dict
) -> None:
    """It was lost without a word where all of its numbers differ."""
    path = tmp_path / "iris.csv"
    path.write_text(f"{row}\n" * 3)
    shown = re.escape(row.replace('"', "").replace(options.get("sep", ","), ", "))
    remedy = r'"header": None\}.*"names".*"header": 0\}'
    with pytest.raises(ValueError, match=rf"'{path}'.*{remedy}.* first line {shown}$"):
        read_csv(path, options)
    assert len(read_csv(path, {**options, "header": None})) == 3
    assert len(read_csv(path, {**options, "header": 0})) == 2


@pytest.mark.parametrize(
    "header",
    [
        "country,1990,1991",
        ",1990,1991",
        "1990,1991,",
        "1st,2nd,3rd",
        "2020_01,2020_02",  # which Python takes for a number
        "0,1,2",  # `to_csv(index=False)` of a frame without names
        ",0,1,2",
    ],
)
def test_headers_with_numbers_are_headers(tmp_path: Path, header: str) -> None:
    path = tmp_path / "years.csv"
    path.write_text(f"{header}\n" + ",".join("4" * len(header.split(","))) + "\n")
    assert len(read_csv(path, None)) == 1


def test_more_cells_than_fit_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"{n}.5" for n in range(1000)) + "\n")
    with pytest.raises(ValueError, match=r"line 0.5, 1.5, .*, 7.5, \.\.\.$"):
        read_csv(path, None)
