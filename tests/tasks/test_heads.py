"""Heads: output shapes from every trunk, and what their options change."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl

pytestmark = pytest.mark.backend

IMAGE = (7, 5, 2)  # odd sizes: no stride divides them


def shapes(model) -> dict:
    outputs = model.task_outputs.items()
    return {name: tuple(layer.output.shape[1:]) for name, layer in outputs}


def tasks(**options) -> list:
    return [
        kmtl.Classification("kind", classes=3, **options),
        kmtl.BinaryClassification("flag", **options),
        kmtl.MultiLabel("tags", classes=4, **options),
        kmtl.Regression("size", units=2, **options),
        kmtl.Segmentation("mask", classes=2, **options),
        kmtl.Segmentation("parts", classes=3, **options),
        kmtl.DenseRegression("depth", channels=2, **options),
        kmtl.Reconstruction("image", **options),
    ]


EXPECTED = {
    "kind": (3,),
    "flag": (1,),
    "tags": (4,),
    "size": (2,),
    "mask": (7, 5, 1),
    "parts": (7, 5, 3),
    "depth": (7, 5, 2),
    "image": (7, 5, 2),
}


@pytest.mark.parametrize("filters", [(), (3,), (3, 4), (3, 4, 4, 4)])
def test_shapes_from_a_feature_map(filters: tuple) -> None:
    model = kmtl.build_cnn(input_shape=IMAGE, tasks=tasks(), filters=filters)
    assert shapes(model) == EXPECTED


def test_shapes_from_a_vector() -> None:
    model = kmtl.build_mlp(input_shape=IMAGE, tasks=tasks(), units=(4,))
    assert shapes(model) == EXPECTED


def test_outputs_are_float32_and_have_the_declared_shapes() -> None:
    model = kmtl.build_cnn(
        input_shape=IMAGE,
        filters=(3,),
        tasks=tasks(hidden=(4, 3), dropout=0.5, activation="tanh"),
    )
    outputs = model(np.zeros((2, *IMAGE), "float32"))
    assert list(outputs) == list(EXPECTED)
    for name, output in outputs.items():
        assert tuple(output.shape) == (2, *EXPECTED[name])
        assert keras.backend.standardize_dtype(output.dtype) == "float32"


def test_size_of_its_own() -> None:
    larger = kmtl.Segmentation("mask", classes=2, size=(16, 9))
    smaller = kmtl.Segmentation("coarse", classes=3, size=(2, 3))
    model = kmtl.build_cnn(input_shape=IMAGE, tasks=[larger, smaller], filters=(3,))
    assert shapes(model) == {"mask": (16, 9, 1), "coarse": (2, 3, 3)}
    vector = kmtl.build_mlp(input_shape=(6,), tasks=[larger], units=(4,))
    assert shapes(vector) == {"mask": (16, 9, 1)}


def test_reconstruction_of_inputs_that_are_no_images() -> None:
    for shape in ((6,), (3, 2), (2, 2, 2, 2)):
        model = kmtl.build_mlp(
            input_shape=shape, tasks=[kmtl.Reconstruction("x")], units=(4,)
        )
        assert shapes(model) == {"x": shape}


def test_maps_need_a_known_size() -> None:
    with pytest.raises(ValueError, match=r"give it `size=\(height, width\)`"):
        kmtl.build_mlp(input_shape=(6,), tasks=[kmtl.Segmentation("m", classes=2)])
    for size, message in (
        (None, r"inputs\.Image\(\(64, 64, 3\)\).*inputs of shape \(None, None, 1\)"),
        ((4, 4), r"inputs\.Image\(\(64, 64, 3\)\).*features of shape \(None, None"),
    ):
        with pytest.raises(ValueError, match=message):
            kmtl.build_cnn(
                input_shape=(None, None, 1),
                tasks=[kmtl.Segmentation("m", classes=2, size=size)],
            )
    with pytest.raises(ValueError, match="takes `size` for inputs"):
        kmtl.build_mlp(input_shape=(6,), tasks=[kmtl.Reconstruction("x", size=(2, 3))])


def test_vector_tasks_take_any_image_size() -> None:
    model = kmtl.build_cnn(
        input_shape=(None, None, 1), tasks=[kmtl.Regression("a")], filters=(3, 3)
    )
    for side in (4, 9):
        assert model(np.zeros((2, side, 8, 1)))["a"].shape == (2, 1)


def names(model, part: str) -> list[str]:
    return [layer.name for layer in model.layers if layer.name.startswith(part)]


def test_head_options() -> None:
    def build(**options):
        task = kmtl.Regression("a", **options)
        return kmtl.build_cnn(input_shape=(4, 4, 1), tasks=[task], filters=(3,))

    assert names(build(), "a_head") == ["a_head_flatten", "a_head_logits"]
    model = build(hidden=(5, 4), dropout=0.5, pooling="flatten", activation="tanh")
    assert names(model, "a_head") == [
        "a_head_flatten",
        "a_head_hidden1",
        "a_head_activation1",
        "a_head_dropout1",
        "a_head_hidden2",
        "a_head_activation2",
        "a_head_dropout2",
        "a_head_logits",
    ]
    assert model.get_layer("a_head_hidden1").kernel.shape == (12, 5)
    assert model.get_layer("a_head_dropout2").current_rate() == 0.5
    assert model.get_layer("a_head_activation1").activation is keras.activations.tanh
    pooled = build(pooling="max").get_layer("a_head_pool")
    assert isinstance(pooled, keras.layers.GlobalMaxPooling2D)


def test_dense_decoder() -> None:
    task = kmtl.Segmentation("m", classes=3, decoder="dense", hidden=(5,))
    model = kmtl.build_cnn(input_shape=IMAGE, tasks=[task], filters=(3,))
    assert shapes(model) == {"m": (7, 5, 3)}
    assert model.get_layer("m_head_hidden1").kernel.shape == (3 * 2 * 3, 5)


def test_activate() -> None:
    logits = np.array([[0.0, np.log(3.0)]], "float32")
    kind = kmtl.Classification("t", classes=2)
    np.testing.assert_allclose(kind.activate(logits), [[0.25, 0.75]], rtol=1e-6)
    tags = kmtl.MultiLabel("t", classes=2)
    np.testing.assert_allclose(tags.activate(logits), [[0.5, 0.75]], rtol=1e-6)
    np.testing.assert_array_equal(
        kmtl.Regression("t", units=2).activate(logits), logits
    )
    image = kmtl.Reconstruction("t", loss="binary_cross_entropy")
    np.testing.assert_allclose(image.activate(logits), [[0.5, 0.75]], rtol=1e-6)
    np.testing.assert_array_equal(kmtl.Reconstruction("t").activate(logits), logits)
    mask = kmtl.Segmentation("t", classes=2)
    np.testing.assert_allclose(mask.activate(logits), [[0.5, 0.75]], rtol=1e-6)
