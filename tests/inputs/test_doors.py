"""Every door takes what users have, and gives the numbers of prepared arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import kmtl
from kmtl.inputs import Image, Series, Tokens
from kmtl.inputs.source import InputSource
from kmtl.inputs.table import Table
from kmtl.training.raw_sets import prepared

pytestmark = pytest.mark.backend
ROWS = 12
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "age": [*RNG.normal(40, 10, ROWS - 1), np.nan],
        "city": [*["Bonn", "Ulm", "Köln"] * 3, None, "Ulm", "Bonn"],
        "member": [True, False] * 6,
    }
)
LABELS = {"price": RNG.normal(size=ROWS), "sold": RNG.integers(0, 2, ROWS)}
TABLE = Table().fit(FRAME)
ARRAY = TABLE.prepare(FRAME, "`x`")


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    tasks = [kmtl.Regression("price"), kmtl.BinaryClassification("sold")]
    made = kmtl.build_mlp(inputs={"facts": TABLE}, tasks=tasks, units=(4,), seed=0)
    made.compile(keras.optimizers.SGD(0.0))  # so that training changes nothing
    return made


def shuffled() -> pd.DataFrame:
    """The columns in another order, with one more."""
    return FRAME[["member", "city", "age"]].assign(customer=range(ROWS))


FORMS: dict[str, Callable[[], Any]] = {
    "frame": shuffled,
    "by name": lambda: {"facts": shuffled(), "customer": np.arange(ROWS)},
    "columns": lambda: {name: shuffled()[name].tolist() for name in shuffled()},
    "columns by name": lambda: {"facts": dict(shuffled())},
    "list": lambda: [FRAME],
    "prepared": lambda: ARRAY,
    "prepared by name": lambda: {"facts": ARRAY},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_inputs(model: kmtl.MultiTaskModel, form: str) -> None:
    found = model.prepare_inputs(FORMS[form]())
    np.testing.assert_array_equal(found, ARRAY)


def test_a_model_knows_its_inputs(model: kmtl.MultiTaskModel) -> None:
    assert dict(model.input_specs) == {"facts": TABLE}
    layer = model.get_layer("facts_input_source")
    assert isinstance(layer, InputSource)
    assert layer.spec is TABLE
    width = ARRAY.shape[1]
    plain = kmtl.build_mlp(input_shape=(width,), tasks=model.tasks, units=(2,))
    assert not plain.input_specs
    np.testing.assert_array_equal(plain.prepare_inputs(ARRAY), ARRAY)
    with pytest.raises(ValueError, match="must have shape"):
        plain.prepare_inputs(ARRAY[:, 1:])


def test_a_table_s_columns_are_matched_in_what_holds_a_column_of_the_input_s_name() -> (
    None
):
    facts = Table().fit({"facts": [1.0, 2.0, 3.0], "n": [1.0, 2.0, 4.0]})
    made = kmtl.build_mlp(inputs={"facts": facts}, tasks=[kmtl.Regression("y")])
    columns = {"n": [2.0], "facts": [3.0]}
    wanted = [[1.0, 0.0]]
    np.testing.assert_array_equal(made.prepare_inputs(columns), wanted)
    np.testing.assert_array_equal(made.prepare_inputs({"facts": columns}), wanted)


@pytest.fixture(scope="module")
def outputs(model: kmtl.MultiTaskModel) -> dict[str, np.ndarray]:
    return model.predict(ARRAY, verbose=0)


@pytest.fixture(scope="module")
def logs(model: kmtl.MultiTaskModel) -> dict[str, float]:
    return model.evaluate(ARRAY, LABELS, verbose=0, return_dict=True)


def test_predict(model: kmtl.MultiTaskModel, outputs: dict) -> None:
    found = model.predict(shuffled(), verbose=0)
    np.testing.assert_array_equal(found["price"], outputs["price"])
    found = model.predict_on_batch(shuffled())
    np.testing.assert_allclose(found["price"], outputs["price"], rtol=1e-5)


def test_fit_evaluate_and_batches(model: kmtl.MultiTaskModel, logs: dict) -> None:
    found = model.evaluate(shuffled(), LABELS, verbose=0, return_dict=True)
    assert found == logs
    history = model.fit(
        shuffled(), LABELS, verbose=0, validation_data=(shuffled(), LABELS), shuffle=0
    ).history
    for name, value in logs.items():
        np.testing.assert_allclose(history[f"val_{name}"][-1], value, rtol=1e-5)
    half = model.fit(
        FRAME, LABELS, verbose=0, shuffle=False, validation_split=0.5
    ).history["val_price_mae"][-1]
    wanted = np.abs(LABELS["price"] - model.predict(FRAME, verbose=0)["price"][:, 0])
    np.testing.assert_allclose(half, wanted[ROWS // 2 :].mean(), rtol=1e-5)
    model.reset_metrics()
    step = model.train_on_batch(shuffled(), LABELS, return_dict=True)
    np.testing.assert_allclose(step["price_mae"], logs["price_mae"], rtol=1e-5)
    model.reset_metrics()
    step = model.test_on_batch(shuffled(), LABELS, return_dict=True)
    np.testing.assert_allclose(step["price_mae"], logs["price_mae"], rtol=1e-5)
    report = model.loss_report(shuffled(), LABELS)
    np.testing.assert_allclose(report["price"]["loss"], logs["price_loss"], rtol=1e-5)


def test_kmtl_evaluate(model: kmtl.MultiTaskModel, logs: dict) -> None:
    result = kmtl.evaluate(model, (shuffled(), LABELS))
    np.testing.assert_allclose(result["price"].score, logs["price_mae"], rtol=1e-5)


class Batches(keras.utils.PyDataset):
    """Raw columns in batches."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple:
        rows = slice(4 * index, 4 * index + 4)
        labels = {name: labels[rows] for name, labels in LABELS.items()}
        return {name: shuffled()[name].iloc[rows] for name in shuffled()}, labels


def generator() -> Iterator[tuple]:
    for index in range(3):
        yield Batches()[index]


@pytest.mark.thorough(on="jax")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras, of fit
@pytest.mark.parametrize("make", [Batches, generator])
def test_loaders_of_raw_batches(
    model: kmtl.MultiTaskModel, make: Callable, logs: dict, outputs: dict
) -> None:
    history = model.fit(make(), verbose=0).history
    np.testing.assert_allclose(history["price_mae"][-1], logs["price_mae"], rtol=1e-5)
    found = model.evaluate(make(), verbose=0, return_dict=True)
    np.testing.assert_allclose(found["price_mae"], logs["price_mae"], rtol=1e-5)
    found = model.predict(make(), verbose=0)
    np.testing.assert_allclose(found["price"], outputs["price"], rtol=1e-5)


def test_a_bad_cell_in_a_later_batch(model: kmtl.MultiTaskModel) -> None:
    def batches() -> Iterator[tuple]:
        yield from generator()
        x, y = Batches()[0]
        yield {**x, "age": ["old"] * 4}, y

    with pytest.raises(ValueError, match="Column 'age' of `x` must hold numbers"):
        model.fit(batches(), verbose=0)


@pytest.mark.thorough(on="jax")
def test_tensorflow_data_sets(
    model: kmtl.MultiTaskModel, logs: dict, outputs: dict
) -> None:
    tf = pytest.importorskip("tensorflow")
    columns = {name: shuffled()[name].to_numpy() for name in shuffled()}
    columns["city"] = np.array([c or "" for c in columns["city"].tolist()], object)
    columns["city"][9] = ""
    data = tf.data.Dataset.from_tensor_slices((columns, LABELS)).batch(5)
    history = model.fit(data, verbose=0).history
    np.testing.assert_allclose(history["price_mae"][-1], logs["price_mae"], rtol=1e-5)
    found = model.evaluate(data, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["price_mae"], logs["price_mae"], rtol=1e-5)
    for given in (data, data.map(lambda x, y: x), data.map(lambda x, y: {"facts": x})):
        found = model.predict(given, verbose=0)
        np.testing.assert_allclose(found["price"], outputs["price"], rtol=1e-5)
    arrays = tf.data.Dataset.from_tensor_slices((ARRAY, LABELS)).batch(5)
    assert model.prepare_inputs(arrays) is arrays


@pytest.mark.parametrize(
    ("spec", "raw"),
    [
        (Series(4, scale=None, channels=2), np.ones((3, 5, 2), "float32")),
        (Image((8, 8, 3)), np.full((3, 12, 12, 3), 7, "uint8")),
        (Tokens(9, 4), np.ones((3, 3), "int32")),
    ],
)
def test_tensorflow_data_sets_of_other_sizes(spec: Any, raw: np.ndarray) -> None:
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((raw, np.ones(3))).batch(3)
    made = prepared({"x": spec}, data)
    ((x, _),) = made.as_numpy_iterator()
    np.testing.assert_array_equal(x, spec.prepare(raw, "`x`"))
    assert x.shape[1:] == spec.shape
    assert prepared({"x": spec}, made) is made


def test_saved_and_loaded(
    model: kmtl.MultiTaskModel, outputs: dict, tmp_path: Path
) -> None:
    model.save(tmp_path / "model.keras")
    for load in (kmtl.load_model, keras.models.load_model):
        loaded = load(tmp_path / "model.keras")
        assert dict(loaded.input_specs) == {"facts": TABLE}
        found = loaded.predict_on_batch(shuffled())
        np.testing.assert_allclose(found["price"], outputs["price"], rtol=1e-5)


def test_a_search_prepares_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = []
    prepare = Table.prepare

    def counting(self: Table, data: Any, what: str) -> np.ndarray:
        raw.extend([] if isinstance(data, np.ndarray) else [1])
        return prepare(self, data, what)

    monkeypatch.setattr(Table, "prepare", counting)
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=[kmtl.Regression("price"), kmtl.BinaryClassification("sold")],
        inputs={"facts": TABLE},
        units=(4,),
        space={"dropout": (0.0, 0.5)},
        seed=0,
    )
    tuner = kmtl.RandomSearch(
        hypermodel,
        objective="val_price_mae",
        max_trials=2,
        directory=tmp_path,
        project_name="search",
    )
    labels = pd.DataFrame(LABELS)
    tuner.search(
        FRAME, labels, validation_data=(shuffled(), labels), epochs=1, verbose=0
    )
    assert len(raw) == 2  # training and validation rows
    best = tuner.get_best_models(1)[0]
    mae = np.abs(LABELS["price"] - best.predict(FRAME, verbose=0)["price"][:, 0]).mean()
    np.testing.assert_allclose(tuner.oracle.get_best_trials(1)[0].score, mae, rtol=1e-4)


@pytest.mark.thorough(on="jax")
def test_baselines_know_the_data_of_frames(tmp_path: Path) -> None:
    task, options = kmtl.Regression("price"), {"units": (4,), "seed": 0}
    labels = {"price": LABELS["price"]}
    singles = kmtl.baselines(
        kmtl.build_mlp,
        tasks=[task],
        train=(FRAME, labels),
        validation=(shuffled(), labels),
        epochs=1,
        cache_dir=tmp_path,
        inputs={"facts": TABLE},
        **options,
    )
    made = kmtl.build_mlp(inputs={"facts": TABLE}, tasks=[task], **options)
    found = kmtl.evaluate(made, (FRAME, labels), baselines=singles)
    assert found.split == "validation"
