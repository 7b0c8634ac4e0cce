"""Models with lookup layers inside: strings and integers in, the same numbers out."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kmtl
from kmtl import _files

ROWS = {
    "words": np.array([["a"], ["b"], ["ü"], ["b"], ["new"]], dtype=object),
    "text": np.array(["a cat", "a dog ran", "cat", "", "zebra cat"], dtype=object),
    "codes": np.array([[11], [42], [42], [7], [99]], dtype="int64"),
    "size": np.array([[3000.0], [-200.0], [900.0], [0.0], [1.0]], dtype="float32"),
    "kinds": np.array([[0, 1], [1, 1], [2, 0], [3, 3], [0, 2]], dtype="int32"),
}


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    """Every preprocessing layer of Keras, adapted, beside the others."""
    layers = keras.layers
    inputs = {
        "words": keras.Input((1,), name="words", dtype="string"),
        "text": keras.Input((), name="text", dtype="string"),
        "codes": keras.Input((1,), name="codes", dtype="int64"),
        "size": keras.Input((1,), name="size"),
        "kinds": keras.Input((2,), name="kinds", dtype="int32"),
    }
    adapted = {
        "words": [
            layers.StringLookup(output_mode="one_hot"),
            layers.StringLookup(output_mode="tf_idf"),
        ],
        "text": [layers.TextVectorization(output_mode="multi_hot")],
        "codes": [layers.IntegerLookup(output_mode="one_hot")],
        "size": [
            layers.Normalization(),
            layers.Discretization(num_bins=3, output_mode="one_hot"),
        ],
    }
    parts = []
    for name, made in adapted.items():
        for layer in made:
            layer.adapt(ROWS[name][:4])
            parts.append(layer(inputs[name]))
    vectors = layers.TextVectorization(output_sequence_length=3)
    vectors.adapt(ROWS["text"])
    embedded = layers.Embedding(vectors.vocabulary_size(), 2)(vectors(inputs["text"]))
    crossed = layers.HashedCrossing(6, output_mode="one_hot")
    parts += [
        layers.Flatten()(embedded),
        layers.Hashing(5, output_mode="one_hot", salt=3)(inputs["words"]),
        crossed((inputs["words"], inputs["codes"])),
        layers.CategoryEncoding(4, output_mode="multi_hot")(inputs["kinds"]),
        layers.Rescaling(0.001)(inputs["size"]),
    ]
    hidden = layers.Concatenate()(parts)
    heads = {
        task.name: kmtl.layers.TaskOutput(task)(layers.Dense(units)(hidden))
        for task, units in (
            (kmtl.Regression("price"), 1),
            (kmtl.BinaryClassification("sold"), 1),
        )
    }
    return kmtl.MultiTaskModel(inputs, heads)


def tensors() -> dict[str, tf.Tensor]:
    return {name: tf.constant(array) for name, array in ROWS.items()}


def test_to_keras_and_the_saved_file_give_the_same(
    model: kmtl.MultiTaskModel, tmp_path: Path
) -> None:
    expected = model.predict(tensors(), verbose=0)
    assert np.ptp(expected["price"]) > 0.1
    plain = model.to_keras()
    plain.save(tmp_path / "plain.keras")
    for copy in (plain, keras.models.load_model(tmp_path / "plain.keras")):
        found = copy.predict(tensors(), verbose=0)
        np.testing.assert_allclose(found["price"], expected["price"], rtol=1e-6)
        np.testing.assert_allclose(found["sold"], expected["sold"], rtol=1e-6)


def test_the_export_takes_strings_and_is_verified(
    model: kmtl.MultiTaskModel, tmp_path: Path
) -> None:
    path = model.export(tmp_path / "served")
    encoded = {"text": [text.encode() for text in ROWS["text"]]}
    report = kmtl.verify_export(path, model, {**ROWS, **encoded})
    assert max(report.differences.values()) <= max(report.tolerance.values())
    serve = tf.saved_model.load(path).signatures["serving_default"]
    logits = model.predict(tensors(), verbose=0)["sold"]
    np.testing.assert_allclose(
        serve(**tensors())["sold"], 1 / (1 + np.exp(-logits)), atol=1e-6
    )
    with pytest.raises(TypeError, match=r"x\['words'\].* must be of dtype string"):
        kmtl.verify_export(path, model, {**ROWS, "words": ROWS["codes"]})
    with pytest.raises(TypeError, match=r"x\['codes'\].* must be integers"):
        kmtl.verify_export(path, model, {**ROWS, "codes": ROWS["size"]})
    (path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(_files.DamagedFileError, match=r"saved_model.pb.*no graph"):
        kmtl.verify_export(path, model, ROWS)


def test_inputs_are_called_by_key_or_by_their_own_names(tmp_path: Path) -> None:
    def model_of(inputs: dict | list) -> kmtl.MultiTaskModel:
        hidden = keras.layers.Concatenate()(keras.tree.flatten(inputs))
        head = keras.layers.Dense(1)(hidden)
        out = kmtl.layers.TaskOutput(kmtl.Regression("a"))(head)
        return kmtl.MultiTaskModel(inputs, {"a": out})

    left, right = keras.Input((2,)), keras.Input((1,))
    with pytest.warns(UserWarning, match="all keys in the dict must match"):
        by_key = model_of({"right": right, "left": left})
    in_order = model_of([keras.Input((2,)), keras.Input((1,))])
    x, y = np.ones((3, 2), "float32"), np.full((3, 1), 2.0, "float32")
    for model, given, names in (
        (by_key, {"left": x, "right": y}, ("left", "right")),
        (in_order, [x, y], ("input_1", "input_2")),
    ):
        path = model.export(tmp_path / names[0])
        served = tf.saved_model.load(path).signatures["serving_default"]
        found = served(**{names[0]: tf.constant(x), names[1]: tf.constant(y)})
        expected = model.predict(given, verbose=0)["a"]
        np.testing.assert_allclose(found["a"], expected, atol=1e-6)


def test_what_appears_meanwhile_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kmtl.export import saved_model

    model = kmtl.build_mlp(input_shape=(2,), tasks=[kmtl.Regression("a")], units=(2,))
    path = tmp_path / "served"
    write = saved_model._write_saved_model

    def appear(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        path.mkdir()
        (path / "thesis").write_text("mine")

    monkeypatch.setattr(saved_model, "_write_saved_model", appear)
    with pytest.raises(FileExistsError, match="nothing was written"):
        model.export(path)
    monkeypatch.setattr(saved_model, "_write_saved_model", write)
    with pytest.raises(FileExistsError, match="replaces only exports of kmtl"):
        model.export(path, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["served"]
    assert (path / "thesis").read_text() == "mine"
