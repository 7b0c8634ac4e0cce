"""Exports give values in the labels' units: the inverse is in their graphs."""

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


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    tasks = [
        kmtl.Regression(name, units=2, transform=name, unit="$") for name in TRANSFORMS
    ]
    made = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(8,), seed=0)
    labels = np.exp(RNG.normal(size=(200, 2)) + 8)
    made.adapt_targets(dict.fromkeys(TRANSFORMS, labels))
    return made


@pytest.mark.parametrize("format", FILES)
def test_numbers_and_unit(
    model: kmtl.MultiTaskModel, tmp_path: Path, format: str
) -> None:
    path = tmp_path / FILES[format]
    model.export(path, format=format)
    expected = model.predict(X, verbose=0)
    run = _isolated.LOADERS[format](str(path), ["serving_default"])["serving_default"]
    found = run({"inputs": X})
    assert set(found) == set(TRANSFORMS)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=2e-4, err_msg=name)
        assert values.max() > 1000
    described = description.read_description(path)["tasks"]["quantile"]
    assert (described["gives"], described["unit"]) == ("values", "$")


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
    np.testing.assert_allclose(plain.predict(x, verbose=0)["depth"], found, rtol=1e-6)


@pytest.fixture(scope="module")
def colours() -> kmtl.MultiTaskModel:
    tasks = [
        kmtl.Classification("colour", labels=("red", "green", "blue")),
        kmtl.Classification("digit", classes=10),
        kmtl.Regression("price", transform="robust"),
    ]
    return kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(8,), seed=0)


def probabilities(model: kmtl.MultiTaskModel, name: str) -> np.ndarray:
    logits = model.predict(X, verbose=0)[name].astype("float64")
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("format", FILES)
def test_best_classes(
    colours: kmtl.MultiTaskModel, tmp_path: Path, format: str
) -> None:
    path = tmp_path / FILES[format]
    named = format == "tf_saved_model"
    colours.export(path, format=format, top_k=4, names=named)
    run = _isolated.LOADERS[format](str(path), ["serving_default"])["serving_default"]
    found = run({"inputs": X})
    for name, count in (("colour", 3), ("digit", 4)):
        wanted = probabilities(colours, name)
        best = np.argsort(-wanted, axis=-1)[:, :count]
        scores = np.take_along_axis(wanted, best, axis=-1)
        np.testing.assert_allclose(found[f"{name}_top_scores"], scores, atol=1e-6)
        if name == "colour" and named:
            best = np.array([b"red", b"green", b"blue"])[best]
        np.testing.assert_array_equal(found[f"{name}_top"], best)
    assert set(found) - {"colour", "digit", "price"} == {
        f"{name}_top{end}" for name in ("colour", "digit") for end in ("", "_scores")
    }


@pytest.mark.thorough
def test_best_classes_are_verified(
    colours: kmtl.MultiTaskModel, tmp_path: Path
) -> None:
    path = colours.export(tmp_path / "m", top_k=2, names=True)
    report = kmtl.verify_export(path, colours, X[:4])
    assert report.differences["colour_top"] < 1e-5
    assert set(report.differences) >= {"digit_top", "digit_top_scores", "price"}


def test_refusals_of_best_classes(colours: kmtl.MultiTaskModel, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for options, message in (
        ({"names": True}, r"pass top_k=1"),
        ({"top_k": 2, "names": True}, r"strings into the graph.*file '.onnx'"),
        ({"top_k": 0}, r"`top_k` must be an integer >= 1"),
        ({"top_k": 2, "tasks": ["price"]}, r"exclusive classes.*tasks price"),
    ):
        with pytest.raises(ValueError, match=message):
            colours.export(path, format="onnx", **options)
