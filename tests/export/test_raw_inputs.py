"""Exports of models that know their inputs: what users have goes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import kmtl
from kmtl.export.description import read_description
from kmtl.export.raw import raw_inputs
from kmtl.inputs.array import Array
from kmtl.inputs.table import Table

pytestmark = pytest.mark.backend
ROWS = 30
RNG = np.random.default_rng(0)


def frame() -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "age": RNG.normal(40, 10, ROWS),
            "price in $": RNG.integers(1, 9, ROWS),
            "price in €": RNG.lognormal(size=ROWS),
            "city": RNG.choice(["Bonn", "Ulm", "Köln"], ROWS),
            "2nd": RNG.choice(["x", "y"], ROWS),
            "seen": pd.date_range("1899-12-30", periods=ROWS, freq="1234567min"),
            "day": pd.date_range("2024-02-25", periods=ROWS, freq="D"),
            "stamp": 1.7e9 + RNG.normal(0, 10, ROWS),
            "code": RNG.integers(100, 104, ROWS),
            "AGE": RNG.integers(0, 2, ROWS),
            "level": RNG.choice([1.0, 2.5], ROWS),
            "member": RNG.random(ROWS) < 0.5,
        }
    )
    rows.loc[3, ["age", "level"]] = np.nan
    rows.loc[4, "city"] = None
    rows.loc[5, "seen"] = pd.NaT
    return rows


TRAIN = frame()
TABLE = Table({"code": "categorical", "level": "categorical"}).fit(TRAIN[:25])


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    return kmtl.build_mlp(
        inputs={"facts": TABLE}, tasks=[kmtl.Regression("y")], units=(4,), seed=0
    )


@pytest.fixture(scope="module")
def exported(
    model: kmtl.MultiTaskModel, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return model.export(tmp_path_factory.mktemp("raw") / "served")


def test_what_is_served_is_prepared_alike() -> None:
    raw = TABLE.serving_rows("facts", TRAIN, "`x`")
    tensors = {name: tf.constant(array) for name, array in raw.items()}
    dtypes = {name: tensor.dtype.name for name, tensor in tensors.items()}
    assert dtypes == {
        **{"age": "float32", "price_in__": "float32", "price_in___": "float32"},
        **{"city": "string", "column_2nd": "string", "seen": "string", "day": "string"},
        **{"stamp": "float64", "code": "int64", "level": "float64"},
        **{"member": "float32", "AGE_": "float32"},
    }
    found = TABLE.serve(tensors).numpy()
    np.testing.assert_allclose(found, TABLE.prepare(TRAIN, "`x`"), rtol=1e-6, atol=1e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2024-02-29", "2024-02-29 00:00:00"),
        ("2000-03-01T23:59", "2000-03-01 23:59:00"),
        ("1970-01-01 00:00:00.5", "1970-01-01T00:00:00.500000"),
        ("0001-01-01T12:00:00Z", "0001-01-01T12:00:00"),
        ("9999-12-31", "9999-12-31"),
    ],
)
def test_dates_in_text(text: str, same: str) -> None:
    days = ["1970-01-01", "2021-06-15T13:45:30", "1583-11-02 01:01"]
    table = Table(scale=None).fit({"d": days})
    served = table.serve({"d": tf.constant([text])}).numpy()
    seconds = (np.datetime64(same) - np.datetime64(0, "us")) / np.timedelta64(1, "s")
    day = np.datetime64(same, "D")
    wanted = {
        "days": seconds / 86400,
        "year": day.astype("M8[Y]").astype(int) + 1970,
        "month": day.astype("M8[M]").astype(int) % 12 + 1,
        "day": (day - day.astype("M8[M]")).astype(int) + 1,
        "weekday": (day.astype(int) + 3) % 7,
        "hour": seconds % 86400 / 3600,
    }
    medians = {part.name.partition(".")[2]: part.median for part in table.parts}
    less = [wanted[name] - median for name, median in medians.items()]
    np.testing.assert_allclose(served, [less], rtol=1e-6, atol=1e-6)


def test_a_date_that_cannot_be_read() -> None:
    table = Table().fit({"d": ["2024-05-01", "2024-05-02"]})
    with pytest.raises(tf.errors.InvalidArgumentError, match="'d' must hold dates"):
        table.serve({"d": tf.constant(["1.5.2024"])})


def test_an_export_takes_columns(model: kmtl.MultiTaskModel, exported: Path) -> None:
    rows = frame()  # with cities and days that the training rows had not
    rows.loc[0, "city"] = "Rome"
    report = kmtl.verify_export(exported, model, rows.assign(customer=1))
    assert max(report.differences.values()) < 1e-5
    described = read_description(exported)["inputs"]
    assert described["price_in___"] == {
        "dtype": "float32",
        "shape": [None],
        "scaled_by": 1.0,
        "input": "facts",
        "kind": "table",
        "column": "price in €",
    }
    raw = raw_inputs(model).rows(rows)
    serve = tf.saved_model.load(exported).signatures["y"]
    found = serve(**{name: tf.constant(array) for name, array in raw.items()})
    wanted = model.predict_on_batch(rows)["y"]
    np.testing.assert_allclose(found["y"], wanted, atol=1e-4)


def test_verification_sees_a_model_that_has_changed(
    model: kmtl.MultiTaskModel, exported: Path
) -> None:
    before = model.get_weights()
    model.set_weights([2 * weight for weight in before])
    try:
        with pytest.raises(ValueError, match="differs from the model"):
            kmtl.verify_export(exported, model, TRAIN)
    finally:
        model.set_weights(before)


@pytest.mark.parametrize("pair", [("area m2", "area_m2"), ("column_2nd", "2nd")])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_column_may_not_be_served_as_another(
    pair: tuple[str, str], reverse: bool
) -> None:
    """Cells of `area_m2` went into `area m2`; refused before anything is trained."""
    values = pair[::-1] if reverse else pair
    rows = {name: np.arange(30.0) + n for n, name in enumerate(values)}
    with pytest.raises(ValueError, match=r"rename or drop one. Received: .* both \w+$"):
        Table().fit(rows)
    Table({pair[0]: "ignored"}).fit(rows)
    with pytest.raises(ValueError, match="different names in a served model"):
        kmtl.fit_table({**rows, "y": np.arange(30)}, ["y"], trials=1, verbose=False)


def test_names_that_are_made_valid_are_printed(
    model: kmtl.MultiTaskModel, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model.export(tmp_path / "served", verbose=True)
    written = capsys.readouterr().out
    assert "column_2nd: string (None,) (column '2nd')" in written
    assert "  city: string (None,)\n" in written


def test_a_dtype_is_for_arrays_alone(
    model: kmtl.MultiTaskModel, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"say how they are served \(facts\)"):
        model.export(tmp_path / "served", input_dtype="uint8")


def test_arrays_are_served_as_they_are(tmp_path: Path) -> None:
    rows = RNG.normal(5, 3, (8, 2)).astype("float32")
    spec = Array((2,)).fit(rows)
    made = kmtl.build_mlp(inputs={"rows": spec}, tasks=[kmtl.Regression("y")])
    assert raw_inputs(made) is None
    path = made.export(tmp_path / "served")
    described = read_description(path)["inputs"]
    assert described["rows"]["kind"] == "array"
    serve = tf.saved_model.load(path).signatures["serving_default"]
    np.testing.assert_allclose(
        serve(rows=tf.constant(rows))["y"], made.predict_on_batch(rows)["y"], atol=1e-5
    )


def test_a_spectrogram_of_no_clip(tmp_path: Path) -> None:
    clips = [RNG.uniform(-0.5, 0.5, 90) for _ in range(3)]
    spec = kmtl.inputs.Audio(1000, bands=3).fit(clips)
    net = kmtl.backbones.RNN(units=(4,))
    made = kmtl.build(inputs=spec, backbone=net, tasks=[kmtl.Regression("y")], seed=0)
    path = made.export(tmp_path / "served")
    serve = tf.saved_model.load(path).signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    waves = np.stack(clips).astype("float32")
    expected = made.predict(clips, verbose=0)["y"]
    np.testing.assert_allclose(serve(**{name: waves})["y"], expected, atol=1e-5)
    assert serve(**{name: waves[:0]})["y"].shape == (0, 1)
