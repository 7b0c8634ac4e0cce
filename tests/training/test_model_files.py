"""Files of models: read by name, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import kmtl

pytestmark = pytest.mark.backend

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def built(*names: str, seed: int = 0, units: int = 4) -> kmtl.MultiTaskModel:
    tasks = [kmtl.Regression(name) for name in names]
    return kmtl.build_mlp(
        input_shape=(3,), tasks=tasks, units=(units,), dropout=0.1, seed=seed
    )


def outputs(model: Any) -> dict[str, np.ndarray]:
    return {k: keras.ops.convert_to_numpy(v) for k, v in model(X).items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model = built("b", "c")
    path = tmp_path_factory.mktemp("saved") / "m.weights.h5"
    model.save_weights(path)
    return outputs(model), path


def test_a_new_head_keeps_its_weights_and_the_others_get_theirs(
    saved: Any, caplog: pytest.LogCaptureFixture
) -> None:
    expected, path = saved
    model = built("a", "b", "c", seed=5)
    before = model.get_layer("a_head_logits").get_weights()
    with pytest.raises(ValueError, match=r"not the same layers .*: a_head_logits\."):
        model.load_weights(path)
    model.load_weights(path, skip_mismatch=True)
    assert "kept their own weights: a_head_logits (" in caplog.text
    found = outputs(model)
    np.testing.assert_array_equal(found["b"], expected["b"])
    np.testing.assert_array_equal(found["c"], expected["c"])
    after = model.get_layer("a_head_logits").get_weights()
    np.testing.assert_array_equal(before[0], after[0])


def test_a_renamed_head_is_refused_and_nothing_is_loaded(saved: Any) -> None:
    model = built("c", "d", seed=5)
    before = outputs(model)
    with pytest.raises(ValueError, match=r"d_head_logits.*that the model has not: b"):
        model.load_weights(saved[1])
    for name, values in outputs(model).items():
        np.testing.assert_array_equal(values, before[name])


def test_a_head_less_is_refused_without_the_flag(saved: Any) -> None:
    model = built("c", seed=5)
    with pytest.raises(ValueError, match="Tasks that the model has not: b"):
        model.load_weights(saved[1])
    model.load_weights(saved[1], skip_mismatch=True)
    np.testing.assert_array_equal(outputs(model)["c"], saved[0]["c"])


def test_another_order_of_the_tasks_is_no_matter(saved: Any) -> None:
    model = built("c", "b", seed=5)
    model.load_weights(saved[1])
    for name, values in outputs(model).items():
        np.testing.assert_array_equal(values, saved[0][name])


def test_another_model_gets_nothing_in_silence(saved: Any) -> None:
    other = built("d", "e", units=5)
    with pytest.raises(ValueError, match="none of the model's layers"):
        other.load_weights(saved[1], skip_mismatch=True)
    with pytest.raises(ValueError, match=r"must end in '\.weights\.h5' or '\.keras'"):
        other.load_weights("weights.json")


def test_files_of_plain_keras_and_whole_models_are_read(tmp_path: Path) -> None:
    model = built("b", "c")
    model.to_keras().save_weights(tmp_path / "plain.weights.h5")
    model.save(tmp_path / "model.keras")
    for name in ("plain.weights.h5", "model.keras"):
        other = built("b", "c", seed=5)
        other.load_weights(tmp_path / name)
        for task, values in outputs(other).items():
            np.testing.assert_array_equal(values, outputs(model)[task])


def test_layers_without_names_are_filled_in_their_order(tmp_path: Path) -> None:
    def by_hand() -> kmtl.MultiTaskModel:
        inputs = keras.Input((3,))
        hidden = keras.layers.Dense(4, "relu")(inputs)
        heads = {
            name: kmtl.layers.TaskOutput(kmtl.Regression(name))(
                keras.layers.Dense(1)(hidden)
            )
            for name in ("one", "two")
        }
        return kmtl.MultiTaskModel(inputs, heads)

    model, other = by_hand(), by_hand()  # dense, dense_1, ... and then dense_3, ...
    model.save_weights(tmp_path / "m.weights.h5")
    other.load_weights(tmp_path / "m.weights.h5")
    for name, values in outputs(other).items():
        np.testing.assert_array_equal(values, outputs(model)[name])


def test_a_file_without_names_says_so(
    saved: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = tmp_path / "old.weights.h5"
    old.write_bytes(saved[1].read_bytes())
    with h5py.File(old, "r+") as file:
        for layer in file["layers"].values():
            layer["vars"].attrs.clear()
    model = built("b", "c", seed=5)
    model.load_weights(old)
    assert "does not name its layers" in caplog.text
    np.testing.assert_array_equal(outputs(model)["b"], saved[0]["b"])


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
def test_an_error_while_saving_keeps_the_old_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = built("b"), tmp_path / name
    save = model.save if name.endswith(".keras") else model.save_weights
    save(path)
    before = path.read_bytes()

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(model.layers[-1]), "save_own_variables", fail)
    with pytest.raises(OSError, match="No space left"):
        save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    with pytest.raises(FileExistsError, match="must not exist yet"):
        save(path, overwrite=False)


@pytest.mark.parametrize("name", ["m.h5", "m.hdf5"])
def test_files_that_would_not_load_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in '\.keras'"):
        built("b").save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
