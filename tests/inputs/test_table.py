"""Tables: kinds of columns, what is learned of the training rows, what trunks get."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from sklearn.preprocessing import QuantileTransformer, RobustScaler, StandardScaler

import kmtl
from kmtl.data.targets import infer
from kmtl.inputs.scaling import SCALES, ColumnScaling
from kmtl.inputs.served import serve
from kmtl.inputs.table import Table
from kmtl.layers import OneHotColumns
from kmtl.layers.maker import LayerMaker

pytestmark = pytest.mark.backend
RNG = np.random.default_rng(0)


def frame() -> pd.DataFrame:
    """Every kind of column, with missing cells in some."""
    return pd.DataFrame(
        {
            "age": [31.0, 45.0, None, 62.0, 45.0, 20.0],
            "rooms": [1, 2, 3, 4, 5, 6],
            "city": ["Bonn", "Ulm", "Ulm", None, "", "Köln"],
            "grade": pd.Categorical(["b", "a", "b", "a", "c", "a"]),
            "member": [True, False, False, True, True, False],
            "seen": pd.to_datetime(
                ["2024-02-29 06:00", None, "2024-03-01", *["2025-12-31"] * 3],
                format="ISO8601",
            ),
        }
    )


def encoded(table: Table, x: np.ndarray) -> np.ndarray:
    inputs = keras.Input(table.shape)
    model = keras.Model(inputs, table.encode(inputs, LayerMaker("t")))
    return ops.convert_to_numpy(model(x))


def test_kinds_and_the_prepared_array() -> None:
    table = Table().fit(frame())
    assert table.kinds == {
        "age": "numeric",
        "rooms": "numeric",
        "city": "categorical",
        "grade": "categorical",
        "member": "boolean",
        "seen": "datetime",
    }
    dates = ["days", "year", "month", "day", "weekday", "hour"]
    assert table.numeric == ("age", "rooms", "member", *(f"seen.{d}" for d in dates))
    assert table.indicators == ("age", "city", "seen")
    assert table.categorical == ("city", "grade")
    assert table.cardinalities == (4, 4)
    assert table.shape == (9 + 3 + 2,)
    found = table.prepare(frame(), "`x`")
    assert found.dtype == np.float32
    by_name = dict(zip((*table.numeric, *table.indicators), found.T, strict=False))
    np.testing.assert_array_equal(found[:, 0], [-14, 0, 0, 17, 0, -25])
    np.testing.assert_array_equal(by_name["rooms"], np.arange(1, 7) - 3.5)
    np.testing.assert_array_equal(by_name["member"], [0.5, -0.5, -0.5, 0.5, 0.5, -0.5])
    np.testing.assert_array_equal(found[:, 9], [0, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(found[:, 10], [0, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(found[:, 12], [1, 3, 3, 0, 0, 2])  # Bonn, Köln, Ulm
    np.testing.assert_array_equal(found[:, 13], [2, 1, 2, 1, 3, 1])
    # Dates against pandas: medians are those of the five days that are there.
    seen = frame()["seen"].dt
    wanted = {
        "seen.days": (frame()["seen"] - pd.Timestamp(0)) / pd.Timedelta(days=1),
        "seen.year": seen.year,
        "seen.month": seen.month,
        "seen.day": seen.day,
        "seen.weekday": seen.day_of_week,
        "seen.hour": seen.hour,
    }
    for name, values in wanted.items():
        less = values - values.median()
        np.testing.assert_allclose(by_name[name], less.fillna(0), atol=1e-4)


def test_a_config_is_json_and_keeps_everything() -> None:
    for table in (Table({"age": "categorical"}, scale="quantile"), Table(["age"])):
        fitted = table.fit(frame())
        config = json.loads(json.dumps(fitted.to_config()))
        assert kmtl.inputs.Input.from_config(config) == fitted
    assert fitted.takes_columns() == ("age",)


def test_columns_of_dicts_arrays_and_other_frames_are_the_same() -> None:
    table = Table().fit(frame())
    wanted = table.prepare(frame(), "`x`")
    columns = {name: frame()[name].tolist() for name in reversed(frame().columns)}
    np.testing.assert_array_equal(table.prepare(columns, "`x`"), wanted)
    arrays = {name: np.array(cells, dtype=object) for name, cells in columns.items()}
    arrays["age"] = frame()["age"].to_numpy()
    arrays["seen"] = frame()["seen"].to_numpy("datetime64[s]")
    arrays["city"] = [c.encode() if isinstance(c, str) else c for c in columns["city"]]
    np.testing.assert_array_equal(table.prepare(arrays, "`x`"), wanted)
    nullable = frame().convert_dtypes().assign(customer=7)
    np.testing.assert_array_equal(table.prepare(nullable, "`x`"), wanted)
    aware = frame().assign(seen=frame()["seen"].dt.tz_localize("UTC"))
    np.testing.assert_array_equal(table.prepare(aware, "`x`"), wanted)
    texts = frame().assign(seen=frame()["seen"].dt.strftime("%Y-%m-%dT%H:%M:%S"))
    np.testing.assert_array_equal(table.prepare(texts, "`x`"), wanted)
    assert Table().fit(texts) == table
    records = frame()[["age", "rooms"]].to_records(index=False)
    two = Table(["age", "rooms"]).fit(frame())
    np.testing.assert_array_equal(two.prepare(records, "`x`"), two.prepare(frame(), ""))


def test_masked_cells_are_missing() -> None:
    mask = [False, True, False]
    days = np.array(["2024-05-01", "2024-05-07", "2024-06-01"], "datetime64[ns]")
    data = {
        "age": np.ma.array([31.0, -999.0, 45.0], mask=mask),
        "rooms": np.ma.array([1, 2, 3], mask=mask),
        "city": np.ma.array(["Bonn", "?", "Ulm"], mask=mask),
        "member": np.ma.array([True, True, False], mask=mask),
        "seen": np.ma.array(days, mask=mask),
        "whole": np.ma.array([5, 6, 7]),
    }
    plain = {
        "age": [31.0, None, 45.0],
        "rooms": [1, None, 3],
        "city": ["Bonn", None, "Ulm"],
        "member": [True, None, False],
        "seen": ["2024-05-01", None, "2024-06-01"],
        "whole": [5, 6, 7],
    }
    table = Table().fit(plain)
    assert table.indicators == ("age", "rooms", "city", "member", "seen")
    assert Table().fit(data) == table
    wanted = table.prepare(plain, "`x`")
    np.testing.assert_array_equal(table.prepare(data, "`x`"), wanted)


def test_a_table_is_printed_in_a_line() -> None:
    assert repr(Table(["age"])) == "Table(columns=('age',), scale='robust')"
    shown = repr(Table({"age": "ignored"}).fit(frame()))
    assert shown.startswith("<Table(columns={'age': 'ignored'}, scale='robust') of age")
    assert "city categorical" in shown
    wide = {f"c{i}": [i, -1.0, 0.5] for i in range(300)}
    assert repr(Table().fit(wide)).endswith("c11 numeric, 288 more>")


def test_numbers_that_float32_cannot_tell_apart() -> None:
    seconds = 1.7e9 + np.arange(9.0)
    found = Table().fit({"t": seconds}).prepare({"t": seconds}, "`x`")
    np.testing.assert_array_equal(found[:, 0], np.arange(-4.0, 5.0))


def test_unseen_categories_and_the_most_frequent_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cells = ["a"] * 3 + ["c"] * 2 + ["b", "d"]
    with caplog.at_level(logging.WARNING, "kmtl"):
        table = Table(max_categories=2).fit({"c": cells})
    assert "4 categories: the 2 most frequent" in caplog.text
    assert table.cardinalities == (3,)
    found = table.prepare({"c": ["c", "a", "b", "new", None]}, "`x`")
    np.testing.assert_array_equal(found[:, 0], [2, 1, 0, 0, 0])
    numbers = Table({"n": "categorical"}).fit({"n": [10, 30, 20, 30]})
    found = numbers.prepare({"n": [30.0, 10.0, 99.0, np.nan]}, "`x`")
    np.testing.assert_array_equal(found[:, 0], [3, 1, 0, 0])


@pytest.mark.parametrize(
    ("scale", "theirs"),
    [
        ("standardize", StandardScaler()),
        ("quantile", QuantileTransformer(output_distribution="normal")),
    ],
)
def test_scaling_is_that_of_scikit_learn(scale: str, theirs: object) -> None:
    train, test = RNG.lognormal(size=(2000, 2)), RNG.lognormal(size=(50, 2))
    columns = {"a": train[:, 0], "b": 1e3 * train[:, 1]}
    table = Table(scale=scale).fit(columns)
    x = table.prepare({"a": test[:, 0], "b": 1e3 * test[:, 1]}, "`x`")
    wanted = theirs.fit(train).transform(test)
    np.testing.assert_allclose(encoded(table, x), wanted, rtol=2e-4, atol=2e-4)


def test_robust_scaling_is_scikit_learn_s_bent_back() -> None:
    train, test = RNG.standard_cauchy((301, 1)), RNG.standard_cauchy((50, 1))
    table = Table().fit({"a": train[:, 0]})
    z = RobustScaler().fit(train).transform(test)
    wanted = z / np.sqrt(1 + (z / 3) ** 2)
    found = encoded(table, table.prepare({"a": test[:, 0]}, "`x`"))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    far = table.prepare({"a": [1e37, -1e37, 1e20]}, "`x`")
    np.testing.assert_allclose(encoded(table, far), [[3], [-3], [3]], rtol=1e-6)
    # Where the middle half is one value, half of the range stands for the quartiles.
    rare = Table().fit({"a": [0.0] * 9 + [8.0]})
    np.testing.assert_allclose(
        encoded(rare, np.array([[8.0]], "float32")), 2 / np.sqrt(1 + (2 / 3) ** 2)
    )


def test_missing_cells_are_the_median_and_have_a_flag() -> None:
    table = Table().fit({"a": [1.0, None, 3.0, 5.0], "b": [1.0, 2.0, 3.0, 4.0]})
    x = table.prepare({"a": [None, 3.0], "b": [np.nan, 2.5]}, "`x`")
    np.testing.assert_array_equal(encoded(table, x), [[0, 0, 1], [0, 0, 0]])


def test_categories_are_one_hot_behind_numbers_and_flags() -> None:
    table = Table(scale=None).fit(
        {"n": [1.0, 3.0, 5.0], "c": ["x", "y", None], "d": ["p", "q", "r"]}
    )
    x = table.prepare({"n": [4, 3], "c": ["y", "?"], "d": ["p", "r"]}, "`x`")
    wanted = [[1, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1]]
    np.testing.assert_array_equal(encoded(table, x), wanted)
    layer = OneHotColumns((3, 2))
    assert layer.compute_output_shape((None, 5)) == (None, 6)
    assert layer(ops.ones((1, 5))).shape == (1, 6)


def test_quantiles_are_those_of_the_scaled_columns() -> None:
    columns = {"a": RNG.normal(size=1025), "b": RNG.lognormal(size=1025)}
    for scale in ("robust", "quantile", None):
        table = Table(scale=scale).fit(columns)
        found = table.quantiles(8)
        assert found.shape == (2, 9)
        assert found.dtype == np.float32
        values = encoded(table, table.prepare(columns, "`x`"))
        wanted = np.quantile(values, np.linspace(0, 1, 9), axis=0).T
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-3)
    assert Table().fit({"c": ["a", "b"]}).quantiles(4).shape == (0, 5)


def test_columns_of_one_value_and_identifiers_are_left_out_with_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = {
        "x": np.arange(100.0),
        "same": np.ones(100),
        "word": ["yes"] * 100,
        "id": [f"c{i}" for i in range(100)],
        "empty": [None] * 100,
    }
    with caplog.at_level(logging.WARNING, "kmtl"):
        table = Table({"empty": "ignored"}).fit(rows)
    assert table.takes_columns() == ("x",)
    assert "Column 'same' has one value" in caplog.text
    assert "Column 'word' has one value" in caplog.text
    assert "Column 'id' has 100 different texts in 100 rows" in caplog.text
    kept = Table({"id": "categorical", "empty": "ignored"}).fit(rows)
    assert kept.cardinalities == (101,)
    # One value and missing cells say something: which are missing.
    holes = Table().fit({"only": ["a", None, "a"], "n": [2.0, None, 2.0]})
    x = holes.prepare({"only": ["a", None], "n": [None, 2.0]}, "`x`")
    np.testing.assert_array_equal(encoded(holes, x), [[0, 0, 1, 1], [0, 1, 0, 0]])


def test_plain_layers_of_keras_compute_the_same() -> None:
    table = Table().fit(frame())
    x = table.prepare(frame(), "`x`")
    model = kmtl.build(
        inputs=table, tasks=[kmtl.Regression("y")], backbone="mlp", seed=0
    )
    plain = model.to_keras()
    kinds = {type(layer).__module__.split(".")[0] for layer in plain.layers}
    assert kinds == {"keras"}
    np.testing.assert_allclose(
        ops.convert_to_numpy(plain(x)["y"]), ops.convert_to_numpy(model(x)["y"])
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_keeps_the_numbers_of_categories(policy: str) -> None:
    cells = [f"k{i:04}" for i in range(3000)]
    table = Table({"k": "categorical"}, max_categories=3000).fit({"k": cells})
    keras.config.set_dtype_policy(policy)
    found = encoded(table, table.prepare({"k": cells[2990:]}, "`x`"))
    np.testing.assert_array_equal(found.argmax(-1), np.arange(2990, 3000))


def test_layers_are_made_again_from_their_configs() -> None:
    table = Table().fit(frame())
    for make in (scaling_of(table), lambda: OneHotColumns((3, 2), name="o")):
        layer = make()
        again = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
        assert again.get_config() == layer.get_config()
    assert set(SCALES) == {"robust", "standardize", "quantile"}


def scaling_of(table: Table) -> Callable[[], keras.layers.Layer]:
    return lambda: ColumnScaling(table.scale, table._state(), len(table.parts))


def test_text_among_numbers_is_named(caplog: pytest.LogCaptureFixture) -> None:
    numbers = [f"{value / 7:.3f}" for value in range(60)]
    kinds = {
        "plain": numbers,
        "marked": ["?", *numbers[1:]],
        "commas": [text.replace(".", ",") for text in numbers],
        "codes": [f"{i % 5}" for i in range(59)] + ["x"],
    }
    Table().fit(kinds)
    found = {r.args[0]: r.args[1] for r in caplog.records if "but for some" in r.msg}
    assert found == {"marked": "'?'", "commas": "'0,000'"}
    with pytest.raises(ValueError, match=r"'marked' must hold numbers.*'\?' among"):
        infer("marked", pd.Series(kinds["marked"]))


def test_cells_that_frames_hold_as_objects() -> None:
    """As another library, a list or a file gives what pandas has types for."""
    spans = pd.Series(pd.to_timedelta([1, 36, None, 5], unit="h"))
    bands = pd.Series(pd.cut([1.0, 2.0, 3.0, 1.0], [0, 1.5, 2.5, 4]))
    days = pd.Series(pd.Categorical(pd.to_datetime(["2024-01-01", "2024-02-01"] * 2)))
    given = pd.DataFrame({"span": spans, "band": bands, "day": days})
    table = Table().fit(given)
    wanted = table.prepare(given, "`x`")
    plain = {
        "span": spans.astype(object),
        "band": [str(value) for value in bands],
        "day": [str(value) for value in days],
    }
    np.testing.assert_array_equal(table.prepare(plain, "`x`"), wanted)
    plain["band"] = bands.astype(object)
    np.testing.assert_array_equal(table.prepare(plain, "`x`"), wanted)
    with pytest.raises(
        ValueError, match=r"Column 'lists' of .*must hold .*lists, such as"
    ):
        Table().fit({"lists": pd.Series([[1, 2], [3, 4]])})


ZONED = ["2024-02-28T23:30:00-01:00", "2023-12-31 23:59:59.5+05:30", "2024-05-01", None]


def test_dates_with_a_time_zone_are_those_of_utc() -> None:
    table = Table().fit({"seen": ZONED})
    utc = pd.to_datetime(pd.Series(ZONED), format="ISO8601", utc=True)
    wanted = table.prepare({"seen": utc}, "`x`")
    np.testing.assert_array_equal(table.prepare({"seen": ZONED}, "`x`"), wanted)
    written = utc.dt.tz_convert("Europe/Berlin").astype(str)
    assert written[0].endswith("+01:00")
    found = table.prepare({"seen": written.where(utc.notna(), None)}, "`x`")
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", ["datetime", "elapsed"])
def test_served_dates_are_read_alike(kind: str) -> None:
    tf = pytest.importorskip("tensorflow")
    draw = np.random.default_rng(0)
    minutes = draw.integers(-40 * 366 * 1440, 90 * 366 * 1440, 300)
    days = np.datetime64("1990-01-01T00:00") + minutes.astype("timedelta64[m]")
    zones = ["", "Z", "+00:00", "+05:45", "-11:30", ":59+14:00"]
    texts = [f"{day}{zones[i % 6]}" for i, day in enumerate(days)]
    texts += ["2000-02-29", "1900-02-28", ""]
    table = Table({"seen": kind}).fit({"seen": texts})
    cells = {"seen": tf.constant(texts)}
    found = serve(cells, table.fitted_columns).numpy()
    np.testing.assert_allclose(found, table.prepare({"seen": texts}, ""), atol=1e-5)
    for wrong in ("2024-13-01", "2023-02-29", "2024-05-01T24:00", "2024-05-01T23:60"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="that exist"):
            serve({"seen": tf.constant([wrong])}, table.fitted_columns)
        with pytest.raises(ValueError, match="days that exist"):
            table.prepare({"seen": [wrong]}, "`x`")
