"""ONNX, OpenVINO and LiteRT files: names, numbers, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import export_tools
import keras
import numpy as np
import pytest
from export_tools import sigmoid, softmax

import kmtl
from kmtl.export import _isolated, description, formats

FORMATS = {"onnx": "m.onnx", "openvino": "m.xml", "litert": "m.tflite"}


def run(path: Path, format: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """The file's own outputs, by its format's runtime."""
    return _isolated.LOADERS[format](str(path), ["serving_default"])["serving_default"](
        inputs
    )


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    return export_tools.cnn()


@pytest.fixture(scope="module", params=FORMATS)
def exported(
    request: pytest.FixtureRequest,
    model: kmtl.MultiTaskModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path]:
    """A net with a segmentation head, of which LiteRT serves one row at a time."""
    path = tmp_path_factory.mktemp("exported") / FORMATS[request.param]
    model.export(path, format=request.param, features=True)
    return request.param, path


def test_names_and_numbers(
    model: kmtl.MultiTaskModel, exported: tuple[str, Path]
) -> None:
    x = export_tools.images()
    logits = model.predict(x, verbose=0)
    found = run(exported[1], exported[0], {"inputs": x})
    assert set(found) == {"mask", "digit", "odd", "ink", "features"}
    np.testing.assert_allclose(found["mask"], sigmoid(logits["mask"]), atol=1e-5)
    np.testing.assert_allclose(found["digit"], softmax(logits["digit"]), atol=1e-5)
    np.testing.assert_allclose(found["odd"], sigmoid(logits["odd"]), atol=1e-5)
    np.testing.assert_allclose(found["ink"], logits["ink"], atol=1e-5)
    trunk = keras.Model(model.inputs, model.seam.output).predict(x, verbose=0)
    np.testing.assert_allclose(found["features"], trunk, atol=1e-5)


def test_it_is_verified_without_kmtl(
    model: kmtl.MultiTaskModel, exported: tuple[str, Path]
) -> None:
    report = kmtl.verify_export(exported[1], model, export_tools.images(rows=3))
    assert list(report.differences) == ["mask", "digit", "odd", "ink", "features"]
    assert max(report.differences.values()) <= 1e-5


def test_the_file_says_what_it_is(exported: tuple[str, Path]) -> None:
    described = description.read_description(exported[1])
    assert described["format"] == exported[0]
    assert described["tasks"]["digit"]["labels"] == ["one", "two", "three"]
    rows = 1 if exported[0] == "litert" else None
    assert described["inputs"]["inputs"]["shape"] == [rows, 8, 8, 1]


def test_only_exports_of_kmtl_are_replaced(
    model: kmtl.MultiTaskModel, exported: tuple[str, Path], tmp_path: Path
) -> None:
    format, path = exported
    with pytest.raises(FileExistsError, match="must not exist yet"):
        model.export(path, format=format)
    mine = tmp_path / path.name
    mine.write_text("mine")
    with pytest.raises(FileExistsError, match="replaces only exports of kmtl"):
        model.export(mine, format=format, overwrite=True)
    assert mine.read_text() == "mine"
    assert export_tools.leftovers(tmp_path) == [path.name]
    with pytest.raises(FileExistsError, match="must be a folder for this format"):
        model.export(mine, overwrite=True)
    with pytest.raises(ValueError, match=rf"must end in '{path.suffix}'"):
        model.export(tmp_path / "m", format=format)


@pytest.mark.parametrize("format", FORMATS)
def test_several_inputs_by_name_and_any_number_of_rows(
    format: str, tmp_path: Path
) -> None:
    numbers = keras.Input((3,), name="z")
    codes = keras.Input((2,), name="codes", dtype="int32")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(5, 2)(codes))
    both = keras.layers.Concatenate()([numbers, embedded])
    task = kmtl.Classification("kind", classes=4)
    logits = kmtl.layers.TaskOutput(task)(keras.layers.Dense(4)(both))
    model = kmtl.MultiTaskModel({"z": numbers, "codes": codes}, {"kind": logits})
    path = tmp_path / FORMATS[format]
    model.export(path, format=format)
    rng = np.random.default_rng(0)
    x = {
        "z": rng.normal(size=(5, 3)).astype("float32"),
        "codes": rng.integers(0, 5, (5, 2), dtype="int32"),
    }
    expected = softmax(model.predict(x, verbose=0)["kind"])
    np.testing.assert_allclose(run(path, format, x)["kind"], expected, atol=1e-5)
    shapes = [g["shape"] for g in description.read_description(path)["inputs"].values()]
    assert shapes == [[None, 2], [None, 3]]
    model.export(path, format=format, outputs="logits", overwrite=True)
    logs = np.log(expected)
    found = run(path, format, x)["kind"]
    np.testing.assert_allclose(
        found - found[:, :1], logs - logs[:, :1], atol=1e-4, rtol=1e-4
    )


# -- refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "package"), [("onnx", "tf2onnx"), ("openvino",) * 2]
)
def test_a_missing_package_is_named(
    format: str,
    package: str,
    model: kmtl.MultiTaskModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=rf'{package}: pip install "kmtl\[{format}\]"'
    ):
        model.export(tmp_path / FORMATS[format], format=format)


def test_what_no_format_can_do_is_refused(
    model: kmtl.MultiTaskModel, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="format='torch' is not offered"):
        model.export(tmp_path / "m.pt2", format="torch")
    with pytest.raises(TypeError, match="Unknown argument for format='onnx'"):
        model.export(tmp_path / "m.onnx", format="onnx", opset=17)
    text = keras.Input((1,), name="words", dtype="string")
    hashed = keras.layers.Hashing(4, output_mode="one_hot")(text)
    out = kmtl.layers.TaskOutput(kmtl.Regression("a"))(keras.layers.Dense(1)(hashed))
    strings = kmtl.MultiTaskModel(text, {"a": out})
    with pytest.raises(ValueError, match="these inputs are strings: words"):
        strings.export(tmp_path / "m.onnx", format="onnx")
    assert export_tools.leftovers(tmp_path) == []


def test_a_converter_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("no such operation: Frobnicate")

    found = formats.Format(".onnx", write=fail)
    monkeypatch.setitem(formats.FORMATS, "onnx", found)
    model = kmtl.build_mlp(input_shape=(2,), tasks=[kmtl.Regression("a")], units=(2,))
    with pytest.raises(ValueError, match=r"cannot express .*operation: Frobnicate"):
        model.export(tmp_path / "m.onnx", format="onnx")
    assert export_tools.leftovers(tmp_path) == []


def test_onnx_files_have_all_numbers_of_layers(tmp_path: Path) -> None:
    """Those that a layer's plain form computes from its weights, too."""
    tasks = [kmtl.Ordinal("size", classes=4), kmtl.Regression("b", transform="log1p")]
    model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(3,), seed=0)
    model.adapt_targets({"b": np.arange(9.0)})
    x = np.ones((2, 2), "float32")
    model.export(tmp_path / "m.onnx", format="onnx")
    found = run(tmp_path / "m.onnx", "onnx", {"inputs": x})
    logits = model.predict(x, verbose=0)
    np.testing.assert_allclose(found["size"], softmax(logits["size"]), atol=1e-5)
    np.testing.assert_allclose(found["b"], logits["b"], atol=1e-5)
