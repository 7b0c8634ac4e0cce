"""SavedModels: names, types, shapes, numbers, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import export_tools
import keras
import numpy as np
import pytest
import tensorflow as tf
from export_tools import sigmoid, softmax

import kmtl
from kmtl.export import description, saved_model, signature


def serve(path: Path, name: str = "serving_default", **inputs: Any) -> dict[str, Any]:
    loaded = tf.saved_model.load(path)
    return {k: v.numpy() for k, v in loaded.signatures[name](**inputs).items()}


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    return export_tools.cnn()


@pytest.fixture(scope="module")
def exported(
    model: kmtl.MultiTaskModel, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("exported") / "served"
    assert model.export(path, features=True) == path
    return path


def test_outputs_are_probabilities_and_values_by_task(
    model: kmtl.MultiTaskModel, exported: Path
) -> None:
    x = export_tools.images()
    logits = model.predict(x, verbose=0)
    outputs = serve(exported, inputs=x)
    assert set(outputs) == {"mask", "digit", "odd", "ink"}
    np.testing.assert_allclose(outputs["mask"], sigmoid(logits["mask"]), atol=1e-6)
    np.testing.assert_allclose(outputs["digit"], softmax(logits["digit"]), atol=1e-6)
    np.testing.assert_allclose(outputs["odd"], sigmoid(logits["odd"]), atol=1e-6)
    np.testing.assert_allclose(outputs["ink"], logits["ink"], atol=1e-6)


def test_signatures_name_inputs_and_outputs_with_a_dynamic_batch(
    exported: Path,
) -> None:
    endpoints = signature.read_endpoints(exported)
    assert sorted(endpoints) == sorted(
        ["serve", "serving_default", "mask", "digit", "odd", "ink", "features"]
    )
    image = {"inputs": ("float32", (None, 8, 8, 1))}
    outputs = {
        "mask": ("float32", (None, 8, 8, 1)),
        "digit": ("float32", (None, 3)),
        "odd": ("float32", (None, 1)),
        "ink": ("float32", (None, 1)),
    }
    for name, endpoint in endpoints.items():
        assert endpoint.inputs == image, name
    assert endpoints["serving_default"].outputs == outputs
    assert endpoints["serve"].outputs == outputs
    for name, output in outputs.items():
        assert endpoints[name].outputs == {name: output}
    assert endpoints["features"].outputs == {"features": ("float32", (None, 2, 2, 6))}


def test_one_signature_per_task_and_the_features(
    model: kmtl.MultiTaskModel, exported: Path
) -> None:
    x = export_tools.images(rows=2)
    whole = serve(exported, inputs=x)
    for name in model.task_names:
        alone = serve(exported, name, inputs=x)
        np.testing.assert_allclose(alone[name], whole[name], atol=1e-6)
    trunk = keras.Model(model.inputs, model.seam.output)
    features = serve(exported, "features", inputs=x)["features"]
    np.testing.assert_allclose(features, trunk.predict(x, verbose=0), atol=1e-6)


def test_description_says_what_each_output_is(exported: Path) -> None:
    described = json.loads((exported / "assets.extra/kmtl_signature.json").read_text())
    assert described["inputs"] == {
        "inputs": {"dtype": "float32", "shape": [None, 8, 8, 1], "scaled_by": 1.0}
    }
    assert list(described["tasks"]) == ["mask", "digit", "odd", "ink"]
    assert described["tasks"]["digit"] == {
        "kind": "classification",
        "gives": "probabilities",
        "activation": "softmax",
        "dtype": "float32",
        "shape": [None, 3],
        "labels": ["one", "two", "three"],
        "unit": None,
    }
    assert described["tasks"]["ink"]["gives"] == "values"
    assert described["kmtl"] == kmtl.__version__


def test_keras_reads_it_as_a_layer(model: kmtl.MultiTaskModel, exported: Path) -> None:
    x = export_tools.images(rows=3)
    layer = keras.layers.TFSMLayer(exported, call_endpoint="serve")
    values = layer(x)["ink"]
    np.testing.assert_allclose(values, model.predict(x, verbose=0)["ink"], atol=1e-6)


def test_command_line_tool_shows_and_runs_it(
    model: kmtl.MultiTaskModel, exported: Path, tmp_path: Path
) -> None:
    shown = export_tools.saved_model_cli("show", "--dir", str(exported), "--all")
    for text in (
        "signature_def['serving_default']",
        "signature_def['digit']",
        "inputs['inputs'] tensor_info:",
        "outputs['mask'] tensor_info:",
        "shape: (-1, 8, 8, 1)",
    ):
        assert text in shown
    x = export_tools.images(rows=3)
    np.save(tmp_path / "x.npy", x)
    run = ["run", "--dir", str(exported), "--tag_set", "serve"]
    run += ["--signature_def", "serving_default"]
    run += ["--inputs", f"inputs={tmp_path / 'x.npy'}", "--outdir", str(tmp_path)]
    export_tools.saved_model_cli(*run)
    expected = model.predict(x, verbose=0)["ink"]
    np.testing.assert_allclose(np.load(tmp_path / "ink.npy"), expected, atol=1e-6)
    assert np.load(tmp_path / "digit.npy").shape == (3, 3)


def test_subset_of_the_heads(model: kmtl.MultiTaskModel, tmp_path: Path) -> None:
    path = model.export(tmp_path / "two", tasks=["ink", "digit"])
    x = export_tools.images()
    outputs = serve(path, inputs=x)
    assert set(outputs) == {"digit", "ink"}
    expected = model.predict(x, verbose=0)["ink"]
    np.testing.assert_allclose(outputs["ink"], expected, atol=1e-6)
    # the variables of the other heads stay behind
    kept = tf.train.list_variables(path / "variables/variables")
    everything = sum(int(np.prod(shape)) for _, shape in kept)
    assert 0 < everything < model.count_params()
    assert list(description.read_description(path)["tasks"]) == ["digit", "ink"]


def test_logits_on_request(model: kmtl.MultiTaskModel, tmp_path: Path) -> None:
    path = model.export(tmp_path / "logits", outputs="logits")
    x = export_tools.images()
    expected = model.predict(x, verbose=0)
    for name, values in serve(path, inputs=x).items():
        np.testing.assert_allclose(values, expected[name], atol=1e-6)
    described = description.read_description(path)["tasks"]
    assert described["odd"]["gives"] == "logits"
    assert described["ink"]["gives"] == "values"


def test_float_model_takes_uint8_images(
    model: kmtl.MultiTaskModel, tmp_path: Path
) -> None:
    path = model.export(tmp_path / "uint8", input_dtype="uint8")
    raw = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype="uint8")
    inputs = signature.read_endpoints(path)["serving_default"].inputs
    assert inputs == {"inputs": ("uint8", (None, 8, 8, 1))}
    expected = model.predict(raw.astype("float32") / 255.0, verbose=0)["ink"]
    np.testing.assert_allclose(
        serve(path, inputs=raw)["ink"], expected, atol=1e-6, rtol=1e-5
    )
    report = kmtl.verify_export(path, model, raw)
    assert list(report.differences) == ["mask", "digit", "odd", "ink"]
    with pytest.raises(TypeError, match="must be of dtype uint8"):
        kmtl.verify_export(path, model, export_tools.images())


def test_model_built_for_uint8_takes_it_already(tmp_path: Path) -> None:
    model = export_tools.cnn(input_dtype="uint8", tasks=[kmtl.Regression("ink")])
    path = model.export(tmp_path / "uint8")
    raw = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype="uint8")
    expected = model.predict(raw, verbose=0)["ink"]
    np.testing.assert_allclose(serve(path, inputs=raw)["ink"], expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"this model has none \(inputs: uint8\)"):
        model.export(tmp_path / "float", input_dtype="float32")


def test_a_model_without_numbers_is_not_served(tmp_path: Path) -> None:
    tasks = [kmtl.Regression("size")]
    model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(2,), seed=0)
    broken = model.trainable_variables[0]
    broken.assign(broken * np.nan)
    with pytest.raises(ValueError, match="4 of 4 entries that are NaN"):
        model.export(tmp_path / "served")
    assert not (tmp_path / "served").exists()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_half_precision_models_take_and_give_float32(
    policy: str, tmp_path: Path
) -> None:
    keras.config.set_dtype_policy(policy)
    model = export_tools.cnn(filters=(4,))
    path = model.export(tmp_path / "half", features=True)
    endpoints = signature.read_endpoints(path)
    for endpoint in endpoints.values():
        for dtype, _ in [*endpoint.inputs.values(), *endpoint.outputs.values()]:
            assert dtype == "float32"
    x = export_tools.images()
    expected = model.predict(x, verbose=0)["ink"]
    np.testing.assert_allclose(serve(path, inputs=x)["ink"], expected, atol=2e-2)


def test_one_task_and_several_named_inputs(tmp_path: Path) -> None:
    left = keras.Input((3,), name="left")
    right = keras.Input((2,), name="right", dtype="int32")
    both = keras.layers.Concatenate()([left, keras.ops.cast(right, "float32")])
    task = kmtl.Classification("kind", classes=4)
    logits = kmtl.TaskOutput(task)(keras.layers.Dense(4)(both))
    model = kmtl.MultiTaskModel({"right": right, "left": left}, {"kind": logits})
    path = model.export(tmp_path / "named", input_dtype="uint8")
    endpoint = signature.read_endpoints(path)["serving_default"]
    assert endpoint.inputs == {
        "left": ("uint8", (None, 3)),
        "right": ("int32", (None, 2)),
    }
    x = {"left": np.full((2, 3), 51, "uint8"), "right": np.ones((2, 2), "int32")}
    own = {**x, "left": np.full((2, 3), 0.2, "float32")}
    expected = softmax(model.predict(own, verbose=0)["kind"])
    found = serve(path, **x)
    assert list(found) == ["kind"]
    np.testing.assert_allclose(found["kind"], expected, atol=1e-6)


def test_training_on_does_not_change_what_was_exported(tmp_path: Path) -> None:
    model = export_tools.cnn(tasks=[kmtl.Regression("ink")])
    model.compile("sgd")
    x = export_tools.images()
    path = model.export(tmp_path / "before")
    before = model.predict(x, verbose=0)["ink"]
    model.fit(x, {"ink": np.full(5, 9.0, "float32")}, verbose=0)
    assert np.abs(model.predict(x, verbose=0)["ink"] - before).max() > 1e-3
    np.testing.assert_allclose(serve(path, inputs=x)["ink"], before, atol=1e-6)


@pytest.mark.parametrize("reloaded", [False, True], ids=["compiled", "reloaded"])
def test_a_reconstruction_with_another_loss_exports_what_that_loss_predicts(
    reloaded: bool, tmp_path: Path
) -> None:
    model = export_tools.cnn(tasks=[kmtl.Reconstruction("image")])
    model.compile("sgd", loss={"image": "binary_cross_entropy"})
    if reloaded:
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras", compile=False)
    x = export_tools.images()
    path = model.export(tmp_path / "served")
    expected = sigmoid(model.predict(x, verbose=0)["image"])
    assert expected.min() > 0.0
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(serve(path, inputs=x)["image"], expected, atol=1e-6)
    described = description.read_description(path)["tasks"]["image"]
    assert (described["gives"], described["activation"]) == ("probabilities", "sigmoid")
    if reloaded:  # one new process is enough
        report = kmtl.verify_export(path, model, x)
        assert list(report.differences) == ["image"]
        # What is compared is what is served: the declared loss would give values.
        model.compile("sgd")
        with pytest.raises(ValueError, match="'image' by"):
            kmtl.verify_export(path, model, x)


# -- writing whole or not at all ------------------------------------------------------


def test_an_existing_path_is_refused_before_anything_is_written(
    model: kmtl.MultiTaskModel, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    with pytest.raises(FileExistsError, match=r"overwrite=True to replace an export"):
        model.export(tmp_path / "there")
    with pytest.raises(FileExistsError, match=r"replaces only exports of kmtl"):
        model.export(tmp_path / "there", overwrite=True)
    assert export_tools.leftovers(tmp_path) == ["there"]
    assert (tmp_path / "there" / "file").read_text() == "mine"


def test_overwrite_replaces_an_export_whole(tmp_path: Path) -> None:
    path = tmp_path / "served"
    path.mkdir()  # an empty folder is as good as none
    one = export_tools.cnn(tasks=[kmtl.Regression("ink")], filters=(4,))
    two = export_tools.cnn(tasks=[kmtl.BinaryClassification("odd")], filters=(4,))
    one.export(path)
    (path / "stray").write_text("of the old one")
    two.export(path, overwrite=True)
    assert list(serve(path, inputs=export_tools.images())) == ["odd"]
    assert not (path / "stray").exists()
    assert export_tools.leftovers(tmp_path) == ["served"]


@pytest.mark.parametrize("function", ["_write_saved_model", "signature"])
def test_a_failure_half_way_leaves_nothing(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = export_tools.cnn(tasks=[kmtl.Regression("ink")], filters=(4,))
    path = model.export(tmp_path / "served")
    before = (path / "saved_model.pb").read_bytes()

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError("disk full")

    if function == "signature":
        monkeypatch.setattr(saved_model.description, "write_description", fail)
    else:
        monkeypatch.setattr(keras.export.ExportArchive().__class__, "write_out", fail)
    with pytest.raises(OSError, match="disk full"):
        model.export(tmp_path / "new")
    with pytest.raises(OSError, match="disk full"):
        model.export(path, overwrite=True)
    assert export_tools.leftovers(tmp_path) == ["served"]
    assert (path / "saved_model.pb").read_bytes() == before


def test_folder_is_readable_as_the_umask_says(
    model: kmtl.MultiTaskModel, exported: Path
) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert exported.stat().st_mode & 0o777 == 0o777 & ~mask


def test_signatures_that_differ_from_the_description_are_refused(
    exported: Path,
) -> None:
    described = description.read_description(exported)
    wanted = signature.signatures({n: (n,) for n in described["tasks"]}, features=True)
    signature.check_endpoints(exported, described, wanted)
    renamed = {**described, "tasks": {"other": described["tasks"]["ink"]}}
    with pytest.raises(ValueError, match="should have the signatures"):
        signature.check_endpoints(
            exported,
            renamed,
            signature.signatures({"other": ("other",)}, features=True),
        )
    retyped = json.loads(json.dumps(described))
    retyped["tasks"]["ink"]["dtype"] = "float16"
    with pytest.raises(ValueError, match="of the SavedModel should be"):
        signature.check_endpoints(exported, retyped, wanted)


# -- arguments ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": "logit"}, r"`outputs` must be one of .* Did you mean 'logits'"),
        ({"input_dtype": "int8"}, r"`input_dtype` must be one of .*'uint8'"),
        ({"tasks": ["digits"]}, r"Unknown task 'digits'. Did you mean 'digit'"),
        ({"tasks": []}, r"`tasks` must name at least one task"),
        ({"format": "tf"}, r"`format` must be one of"),
    ],
)
def test_wrong_values_are_refused(
    model: kmtl.MultiTaskModel, options: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        model.export(tmp_path / "refused", **options)
    assert export_tools.leftovers(tmp_path) == []


def test_unknown_options_and_remote_paths_are_refused(
    model: kmtl.MultiTaskModel,
) -> None:
    with pytest.raises(TypeError, match="Did you mean 'features'"):
        model.export("refused", feature=True)
    with pytest.raises(ValueError, match="a path on this machine"):
        model.export("gs://bucket/model")


def test_features_need_a_seam(tmp_path: Path) -> None:
    model = export_tools.cnn(sharing_depth=0)
    with pytest.raises(ValueError, match="needs one place where the trunk"):
        model.export(tmp_path / "refused", features=True)
