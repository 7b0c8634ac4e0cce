"""Exports speak as people do: in the labels' units, and of classes by their names."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import kmtl
from kmtl.export import _isolated, description
from kmtl.tasks.transforms import TRANSFORMS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3)).astype("float32")
FILES = {"tf_saved_model": "m", "onnx": "m.onnx", "litert": "m.tflite"}
COLOURS = np.array(["red", "green", "blue"])


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    tasks = [
        kmtl.Regression(name, units=2, transform=name, unit="$") for name in TRANSFORMS
    ]
    tasks += [
        kmtl.Classification("colour", labels=COLOURS),
        kmtl.Classification("digit", classes=10),
    ]
    made = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(8,), seed=0)
    labels = np.exp(RNG.normal(size=(200, 2)) + 8)
    made.adapt_targets(dict.fromkeys(TRANSFORMS, labels))
    return made


@pytest.mark.parametrize(
    "format",
    ["tf_saved_model", "litert", pytest.param("onnx", marks=pytest.mark.thorough)],
)
def test_units_and_best_classes(
    model: kmtl.MultiTaskModel, tmp_path: Path, format: str
) -> None:
    path, named = tmp_path / FILES[format], format == "tf_saved_model"
    model.export(path, format=format, top_k=4, names=named)
    run = _isolated.LOADERS[format](str(path), ["serving_default"])["serving_default"]
    expected, found = model.predict(X, verbose=0), run({"inputs": X})
    for name in TRANSFORMS:
        np.testing.assert_allclose(found[name], expected[name], 2e-4, err_msg=name)
        assert found[name].max() > 1000
    described = description.read_description(path)["tasks"]["quantile"]
    assert (described["gives"], described["unit"]) == ("values", "$")
    for name, count in (("colour", 3), ("digit", 4)):
        powers = np.exp(expected[name].astype("float64"))
        wanted = powers / powers.sum(-1, keepdims=True)
        best = np.argsort(-wanted, axis=-1)[:, :count]
        scores = np.take_along_axis(wanted, best, axis=-1)
        np.testing.assert_allclose(found[f"{name}_top_scores"], scores, atol=1e-6)
        if name == "colour" and named:
            best = COLOURS.astype("S")[best]
        np.testing.assert_array_equal(found[f"{name}_top"], best)
    assert set(found) - set(expected) == {
        f"{name}_top{end}" for name in ("colour", "digit") for end in ("", "_scores")
    }


@pytest.mark.thorough
def test_units_and_best_classes_are_verified(
    model: kmtl.MultiTaskModel, tmp_path: Path
) -> None:
    path = model.export(tmp_path / "m", top_k=2, names=True)
    report = kmtl.verify_export(path, model, X[:4])
    assert report.differences["colour_top"] < 1e-5
    assert set(report.differences) >= {"digit_top", "digit_top_scores", "quantile"}


def test_refusals_of_best_classes(model: kmtl.MultiTaskModel, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for options, message in (
        ({"names": True}, r"pass top_k=1"),
        ({"top_k": 2, "names": True}, r"strings into the graph.*file '.onnx'"),
        ({"top_k": 0}, r"`top_k` must be an integer >= 1"),
        ({"top_k": 2, "tasks": ["log1p"]}, r"exclusive classes.*tasks log1p"),
    ):
        with pytest.raises(ValueError, match=message):
            model.export(path, format="onnx", **options)


@pytest.mark.backend
def test_maps_and_their_plain_model() -> None:
    task = kmtl.DenseRegression("depth", transform="quantile", missing=0)
    made = kmtl.build_cnn(
        input_shape=(8, 8, 1), tasks=[task], filters=(4,), sharing_depth=1, seed=0
    )
    depth = np.exp(RNG.normal(size=(6, 8, 8)))
    depth[:, 2] = 0
    made.adapt_targets({"depth": depth})
    x = RNG.normal(size=(2, 8, 8, 1)).astype("float32")
    found = made.predict(x, verbose=0)["depth"]
    assert found.shape == (2, 8, 8, 1)
    assert found.min() > 0
    plain: keras.Model = made.to_keras(activated=True)
    np.testing.assert_allclose(plain.predict(x, verbose=0)["depth"], found, rtol=1e-5)
