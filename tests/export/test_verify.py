"""The parity check in a process without kmtl; on TensorFlow and on JAX."""

from __future__ import annotations

import json
from pathlib import Path

import export_tools
import keras
import numpy as np
import pytest

import kmtl
from kmtl.export import description, verify

pytestmark = pytest.mark.backend


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    return export_tools.cnn()


@pytest.fixture(scope="module")
def exported(
    model: kmtl.MultiTaskModel, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return model.export(tmp_path_factory.mktemp("exported") / "served", features=True)


def test_export_gives_the_same_numbers_without_kmtl(
    model: kmtl.MultiTaskModel, exported: Path
) -> None:
    report = kmtl.verify_export(exported, model, export_tools.images(), batch_size=2)
    assert list(report.differences) == ["mask", "digit", "odd", "ink", "features"]
    assert max(report.differences.values()) <= 1e-5
    assert max(report.tolerance.values()) < 1e-4
    assert report.rows == 5
    assert "digit" in str(report)
    assert "max abs difference" in str(report)


@pytest.mark.thorough(on="jax")
def test_other_weights_are_noticed_task_by_task(exported: Path) -> None:
    other = export_tools.cnn()
    kernel = other.get_layer("ink_head_logits").kernel
    kernel.assign(kernel + 0.01)
    with pytest.raises(ValueError, match=r"differs from the model .*: 'ink' by \d"):
        kmtl.verify_export(exported, other, export_tools.images())


def test_the_process_refuses_where_kmtl_can_be_imported(
    model: kmtl.MultiTaskModel,
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unblocked = verify.SCRIPT.read_text("utf-8").replace(
        "sys.meta_path.insert(0, Blocked", "(Blocked"
    )
    script = tmp_path / "isolated.py"
    script.write_text(unblocked, "utf-8")
    monkeypatch.setattr(verify, "SCRIPT", script)
    with pytest.raises(RuntimeError, match="kmtl can be imported here"):
        kmtl.verify_export(exported, model, export_tools.images())


@pytest.mark.thorough(on="jax")
def test_half_precision_has_its_own_tolerance(tmp_path: Path) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = export_tools.cnn(filters=(4,), tasks=[kmtl.Regression("ink")])
    path = model.export(tmp_path / "half")
    report = kmtl.verify_export(path, model, export_tools.images())
    assert report.tolerance["ink"] == pytest.approx(2e-2)


def test_inputs_are_checked(model: kmtl.MultiTaskModel, exported: Path) -> None:
    x = export_tools.images()
    with pytest.raises(ValueError, match=r"must have shape \(None, 8, 8, 1\)"):
        kmtl.verify_export(exported, model, x[..., 0])
    with pytest.raises(ValueError, match=r"at least one row"):
        kmtl.verify_export(exported, model, x[:0])
    with pytest.raises(ValueError, match=r"lacks input inputs"):
        kmtl.verify_export(exported, model, {"image": x})
    with pytest.raises(FileNotFoundError, match="must be an export written by"):
        kmtl.verify_export(exported / "variables", model, x)


def test_names_of_another_model_are_refused(exported: Path) -> None:
    other = export_tools.cnn(tasks=[kmtl.Regression("ink")])
    with pytest.raises(ValueError, match="not tasks of the model: mask, digit, odd"):
        kmtl.verify_export(exported, other, export_tools.images())


def test_a_tampered_export_is_refused(
    model: kmtl.MultiTaskModel, tmp_path: Path
) -> None:
    path = model.export(tmp_path / "served", tasks=["ink", "odd"])
    file = path / description.DESCRIPTION
    described = json.loads(file.read_text("utf-8"))
    described["tasks"]["digit"] = described["tasks"].pop("ink")
    file.write_text(json.dumps(described), "utf-8")
    with pytest.raises(ValueError, match="should have the signatures"):
        kmtl.verify_export(path, model, export_tools.images())


def test_nan_is_a_difference() -> None:
    wanted = {"serve": ("a",)}
    nan = {"serve/a": np.array([np.nan], "float32")}
    differences = verify._compare(wanted, {"a": np.zeros(1, "float32")}, nan)
    assert np.isnan(differences["a"])
    with pytest.raises(ValueError, match=r"should be float32 \(2,\). Received"):
        verify._compare(wanted, {"a": np.zeros(2, "float32")}, nan)
    with pytest.raises(ValueError, match=r"should give the outputs \['serve/a'\]"):
        verify._compare(wanted, {"a": np.zeros(1)}, {"serve/b": np.zeros(1)})


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="the converters work there"
)
def test_formats_of_tensorflow_alone_are_refused(
    model: kmtl.MultiTaskModel, tmp_path: Path
) -> None:
    for format, name in (("onnx", "m.onnx"), ("openvino", "m.xml")):
        with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow and export"):
            model.export(tmp_path / name, format=format)
    with pytest.raises(ValueError, match="is written on the TensorFlow backend"):
        model.export(tmp_path / "m.tflite", format="litert")


def test_numbers_count_at_their_scale(tmp_path: Path) -> None:
    """1e-5 said nothing of targets of 1e-6; of 1e6, 0.01 is what rounding makes."""
    x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    sizes = {"tiny": 1e-6, "huge": 1e6}
    tasks = [kmtl.Regression(name, transform="standardize") for name in sizes]
    model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(16,), seed=0)
    model.adapt_targets({name: size * x[:, 0] for name, size in sizes.items()})
    path = model.export(tmp_path / "served")
    # A row that is 0 by chance does not count as if others were so, too.
    nearest = np.argsort(np.abs(model.predict(x, verbose=0)["huge"]), axis=None)[:1]
    report = kmtl.verify_export(path, model, x[nearest])
    for name, size in sizes.items():
        assert 1e-6 * size < report.tolerance[name] < 1e-4 * size
    kernel = model.get_layer("tiny_head_logits").kernel
    kernel.assign(kernel * 1.001)
    with pytest.raises(ValueError, match=r"rows: 'tiny' by \S+ \(allowed \S+\)\. Was"):
        kmtl.verify_export(path, model, x)
