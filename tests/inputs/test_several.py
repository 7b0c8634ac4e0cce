"""Several inputs: matched by name at every door, and served by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import kmtl
from kmtl.export.raw import raw_inputs
from kmtl.inputs.array import Array
from kmtl.inputs.table import Table

pytestmark = pytest.mark.backend
ROWS = 8
RNG = np.random.default_rng(0)
# Two of one shape, under names whose order is not that of the alphabet.
X = {
    "right": RNG.normal(size=(ROWS, 3)).astype("float32"),
    "left": RNG.normal(5, 2, size=(ROWS, 3)).astype("float32"),
    "facts": pd.DataFrame(
        {"age": RNG.normal(40, 9, ROWS), "city": ["Bonn", "Ulm", None, "Ulm"] * 2}
    ),
}
LABELS = {"y": RNG.normal(size=ROWS)}
SPECS = {
    "right": Array((3,)).fit(X["right"]),
    "left": Array((3,)).fit(X["left"]),
    "facts": Table().fit(X["facts"]),
}
ARRAYS = {name: spec.prepare(X[name], name) for name, spec in SPECS.items()}


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    mlp = kmtl.backbones.MLP(units=(4,))
    made = kmtl.build(
        inputs=SPECS,
        backbone=dict.fromkeys(SPECS, mlp),
        tasks=[kmtl.Regression("y")],
        seed=0,
    )
    made.compile(keras.optimizers.SGD(0.0))
    return made


@pytest.fixture(scope="module")
def outputs(model: kmtl.MultiTaskModel) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(ARRAYS)["y"])


def columns() -> dict[str, Any]:
    """The columns of the table one by one, as a served model takes them."""
    facts = {name: X["facts"][name].tolist() for name in ("city", "age")}
    return {"customer": np.arange(ROWS), **facts, "left": X["left"]}


@pytest.mark.parametrize(
    "x",
    [
        X,
        dict(reversed(X.items())),
        {"customer": np.arange(ROWS), **X},
        columns() | {"right": X["right"]},
        ARRAYS,
    ],
    ids=["dict", "another order", "an extra key", "columns", "prepared"],
)
def test_inputs_are_matched_by_name(model: kmtl.MultiTaskModel, x: Any) -> None:
    found = model.prepare_inputs(x)
    assert set(found) == set(SPECS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


def test_inputs_of_one_shape_do_not_swap(
    model: kmtl.MultiTaskModel, outputs: np.ndarray
) -> None:
    for x in (X, dict(reversed(X.items()))):
        found = model.predict(x, verbose=0)["y"]
        np.testing.assert_allclose(found, outputs, rtol=1e-5)
    swapped = model.predict({**X, "left": X["right"], "right": X["left"]}, verbose=0)
    assert np.abs(swapped["y"] - outputs).max() > 1e-3
    # Each is what its own encoder has seen, scaled by its own statistics.
    for name in ("left", "right"):
        inner = keras.Function(
            model.input, model.get_layer(f"{name}_input_scaling").output
        )
        wanted = SPECS[name].statistics
        z = (X[name] - wanted["center"]) * wanted["factor"]
        bent = z / np.sqrt(1 + (z / 3) ** 2)
        np.testing.assert_allclose(inner(ARRAYS), bent, rtol=1e-5, atol=1e-6)


def test_fit_and_evaluate_in_any_order(
    model: kmtl.MultiTaskModel, outputs: np.ndarray
) -> None:
    x = dict(reversed(X.items())) | {"customer": np.arange(ROWS)}
    wanted = np.abs(outputs[:, 0] - LABELS["y"])
    logs = model.evaluate(x, LABELS, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["y_mae"], wanted.mean(), rtol=1e-5)
    history = model.fit(x, LABELS, validation_split=0.5, verbose=0).history
    np.testing.assert_allclose(history["y_mae"][0], wanted[: ROWS // 2].mean(), 1e-5)
    np.testing.assert_allclose(
        history["val_y_mae"][0], wanted[ROWS // 2 :].mean(), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            {"Left": X["left"], "right": X["right"], "facts": X["facts"]},
            "lacks input 'left'. Did you mean 'Left'.*Received: Left, right, facts",
        ),
        ({"left": X["left"], "right": X["right"]}, "lacks input 'facts'"),
        (columns() | {"right": X["right"], "age": None}, "Column 'age'"),
        (list(X.values()), "dict of the inputs .*matched by name.*one list"),
        (X["left"], "dict of the inputs .*matched by name.*one ndarray"),
        ({**X, "left": X["left"][:3]}, r"same number of rows. Received: \[3, 8\]"),
        ({**X, "left": X["left"][:, :2]}, r"`x\['left'\]` must have shape \(N, 3\)"),
        ({**X, "facts": X["facts"][["age"]]}, r"`x\['facts'\]` lacks column city"),
        (None, "`x` must be given"),
    ],
)
def test_inputs_that_are_not_there(
    model: kmtl.MultiTaskModel, x: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model.predict(x, verbose=0)


def test_saved_and_loaded(
    model: kmtl.MultiTaskModel, outputs: np.ndarray, tmp_path: Path
) -> None:
    model.save(tmp_path / "model.keras")
    loaded = kmtl.load_model(tmp_path / "model.keras")
    assert dict(loaded.input_specs) == SPECS
    found = loaded.predict_on_batch(dict(reversed(X.items())))["y"]
    np.testing.assert_allclose(found, outputs, rtol=1e-5)


def test_labels_go_by_the_one_map_among_the_inputs() -> None:
    specs = {"photo": Array((4, 6, 1), scale=None), "facts": Array((3,), scale=None)}
    made = kmtl.build(
        inputs=specs,
        backbone={"photo": "mlp", "facts": "mlp"},
        tasks=[kmtl.Reconstruction("again", input="photo"), kmtl.Regression("y")],
    )
    assert made.task_outputs["again"].output.shape == (None, 4, 6, 1)
    made.compile("sgd")
    x = {"facts": np.ones((2, 3)), "photo": np.full((2, 4, 6, 1), 0.5)}
    made.set_weights([0.0 * weight for weight in made.get_weights()])
    logs = made.evaluate(x, {"y": np.zeros(2)}, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["again_mse"], 0.25, rtol=1e-6)


def test_an_export_takes_all_by_name(model: kmtl.MultiTaskModel) -> None:
    tf = pytest.importorskip("tensorflow")
    raw = raw_inputs(model)
    assert raw is not None
    shapes = {name: tuple(spec.shape) for name, spec in raw.signature.items()}
    assert shapes == {
        "right": (None, 3),
        "left": (None, 3),
        "age": (None,),
        "city": (None,),
    }
    rows = raw.rows(dict(reversed(X.items())))
    found = raw.prepare({name: tf.constant(array) for name, array in rows.items()})
    for name, array in ARRAYS.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)


def test_served_names_that_two_inputs_have() -> None:
    buyer = Table().fit({"age": [1.0, 2.0], "city": ["a", "b"]})
    seller = Table().fit({"age": [3.0, 5.0], "left": ["a", "b"]})
    specs = {"buyer": buyer, "seller": seller, "left": Array((2,), scale=None)}
    made = kmtl.build(
        inputs=specs, backbone=dict.fromkeys(specs, "mlp"), tasks=[kmtl.Regression("y")]
    )
    raw = raw_inputs(made)
    assert raw is not None
    assert sorted(raw.signature) == [
        *("buyer_age", "city", "left_left", "seller_age", "seller_left")
    ]
    x = {
        "left": np.array([[1.0, 2.0]]),
        "buyer": {"age": [2.0], "city": ["b"]},
        "seller": {"age": [5.0], "left": ["a"]},
    }
    rows = raw.rows(x)
    assert rows["buyer_age"] == [2.0]
    assert rows["seller_age"] == [5.0]
    assert raw.from_rows(rows)["seller"]["left"].tolist() == [b"a"]
    with pytest.raises(ValueError, match="lacks input 'buyer'"):
        made.prepare_inputs({"left": x["left"], "seller": x["seller"]})


@pytest.mark.thorough
def test_an_exported_file_is_verified(
    model: kmtl.MultiTaskModel, tmp_path: Path
) -> None:
    path = model.export(tmp_path / "served")
    report = kmtl.verify_export(path, model, dict(reversed(X.items())))
    assert report.differences["y"] < 1e-5


@pytest.mark.thorough
def test_a_search_over_several_inputs(tmp_path: Path) -> None:
    hypermodel = kmtl.HyperModel(
        kmtl.build,
        tasks=[kmtl.Regression("y")],
        inputs=SPECS,
        backbone=dict.fromkeys(SPECS, kmtl.backbones.MLP(units=(2,))),
        space={"learning_rate": (1e-4, 1e-2, "log")},
        seed=0,
    )
    tuner = kmtl.RandomSearch(
        hypermodel,
        objective="val_y_mae",
        max_trials=2,
        directory=tmp_path,
        project_name="search",
    )
    x = dict(reversed(X.items()))
    tuner.search(x, LABELS, validation_data=(X, LABELS), epochs=1, verbose=0)
    best = tuner.get_best_models(1)[0]
    mae = np.abs(best.predict(x, verbose=0)["y"][:, 0] - LABELS["y"]).mean()
    score = tuner.oracle.get_best_trials(1)[0].score
    np.testing.assert_allclose(score, mae, rtol=1e-4)
