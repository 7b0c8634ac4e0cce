"""Any functional Keras model over `kmtl.inputs`: ids, padding, ranges."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kmtl
from kmtl.backbones import FromKeras

pytestmark = pytest.mark.backend

ROWS = [[7, 3, 9], [3, 9], [9]]
TEXTS = ["play some jazz", "jazz again", "play"]
TOKENS = kmtl.inputs.Tokens(length=3).fit(ROWS)


def encoder(shape: tuple = (None,), dtype: str = "int32") -> keras.Model:
    ids = keras.Input(shape, dtype=dtype)
    x = layers.Embedding(30, 6, mask_zero=True)(ids)
    return keras.Model(ids, layers.GRU(5)(x))


def built(net, kind: kmtl.inputs.Input, **options) -> keras.Model:
    backbone = net if isinstance(net, dict) else FromKeras(net)
    tasks = [kmtl.Regression("a")]
    inputs = {"x": kind}
    return kmtl.build(backbone=backbone, inputs=inputs, tasks=tasks, seed=0, **options)


def at_the_seam(model: keras.Model, x: np.ndarray) -> np.ndarray:
    seam = keras.Model(model.inputs, model.get_layer("seam").output)
    return ops.convert_to_numpy(seam([x]))


# -- ids -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype"), [((None,), "int32"), ((3,), "int32"), ((3,), "float32")]
)
@pytest.mark.parametrize("what", ["tokens", "text"])
def test_a_text_encoder_reads_the_ids(what: str, shape: tuple, dtype: str) -> None:
    kind = TOKENS if what == "tokens" else kmtl.inputs.Text().fit(TEXTS)
    net = encoder(shape, dtype)
    x = kind.prepare(ROWS if what == "tokens" else TEXTS, "`x`")
    expected = ops.convert_to_numpy(net(x))
    found = at_the_seam(built(net, kind), x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_a_function_that_makes_a_text_encoder() -> None:
    made = []

    def make(input_shape: tuple) -> keras.Model:
        made.append(encoder(input_shape))
        return made[-1]

    model = built(make, TOKENS)
    x = TOKENS.prepare(ROWS, "`x`")
    expected = ops.convert_to_numpy(made[-1](x))
    assert made[-1].input_shape == (None, 3)
    np.testing.assert_allclose(at_the_seam(model, x), expected, rtol=1e-5, atol=1e-7)


def test_a_net_of_counts_reads_the_bag() -> None:
    inputs = keras.Input((TOKENS.tokens,))
    net = keras.Model(inputs, layers.Dense(4)(inputs))
    x = TOKENS.prepare(ROWS, "`x`")
    bag = np.zeros((3, TOKENS.tokens), "float32")
    for counts, row in zip(bag, ROWS, strict=True):
        counts[row] = np.log(2.0)
    expected = ops.convert_to_numpy(net(bag))
    found = at_the_seam(built(net, TOKENS), x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_refused_ids() -> None:
    with pytest.raises(ValueError, match=r"from_keras', 10:.*Received: length=3"):
        built(encoder((10,)), TOKENS)
    inputs = keras.Input((3,))
    numbers = keras.Model(inputs, layers.Dense(4)(inputs))
    with pytest.raises(ValueError, match=r"ids of tokens, int32, .* takes float32"):
        built(numbers, TOKENS)
    array = kmtl.inputs.Array((3,)).fit(np.ones((4, 3)) * np.arange(4)[:, None])
    with pytest.raises(ValueError, match=r"takes int32.*inputs\.Array.*float32"):
        built(encoder(), array)
    built(encoder(), kmtl.inputs.Array((3,), scale=None))


# -- padding ---------------------------------------------------------------------------


def recurrent(*, pooled: bool = False) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((None, 2))
    x = layers.Dense(3, activation="tanh", name="first")(inputs)
    x = layers.GRU(4, return_sequences=True, name="middle")(x)
    x = layers.Dropout(0.1)(x)
    if pooled:
        x = layers.GlobalAveragePooling1D(name="last")(x)
    else:
        x = layers.Bidirectional(layers.GRU(5), name="last")(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    ("pooled", "sharing"), [(False, "hard"), (True, "cross_stitch")]
)
def test_padding_counts_for_nothing(pooled: bool, sharing: str, tmp_path) -> None:
    random = np.random.default_rng(0)
    rows = [random.normal(size=(n, 2)).astype("float32") for n in (7, 3, 5)]
    net = FromKeras(recurrent(pooled=pooled), cuts=["first", "middle"])
    tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    found = []
    for length in (7, 20):
        kind = kmtl.inputs.Series(length=length).fit(rows)
        model = kmtl.build(
            backbone=net, inputs=kind, tasks=tasks, sharing=sharing, seed=0
        )
        x = kind.prepare(rows, "`x`")
        found.append(ops.convert_to_numpy(model(x)["a"]))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-6)
    plain = model.to_keras()
    np.testing.assert_allclose(plain(x)["a"], found[1], rtol=1e-4, atol=1e-6)
    model.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    np.testing.assert_allclose(loaded(x)["a"], found[1], rtol=1e-4, atol=1e-6)


def test_a_model_that_takes_no_mask_is_warned_of(caplog) -> None:
    rows = [np.ones((n, 2), "float32") * n for n in (7, 3, 5)]
    inputs = keras.Input((None, 2))
    x = layers.Conv1D(3, 2, padding="same", name="filters")(inputs)
    net = keras.Model(inputs, layers.GRU(4)(x))
    built(net, kmtl.inputs.Series().fit(rows))
    (record,) = caplog.records
    assert "'filters' takes no mask" in record.getMessage()


# -- ranges ----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [None, "standardize"])
def test_images_of_another_range_are_refused(scale: str | None) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("uint8")
    kind = kmtl.inputs.Image((32, 32, 3), scale=scale).fit(images)
    inputs = keras.Input((32, 32, 3))
    net = keras.Model(inputs, layers.Conv2D(2, 3)(inputs))
    for backbone in (
        FromKeras("MobileNetV2", weights=None),
        FromKeras(net, preprocessing="tf"),
    ):
        message = rf'must be "unit" .*keras\.applications.*scale={scale!r}'
        with pytest.raises(ValueError, match=message):
            kmtl.build(
                backbone=backbone, inputs=kind, tasks=[kmtl.Regression("a")], seed=0
            )
    built(net, kind)
