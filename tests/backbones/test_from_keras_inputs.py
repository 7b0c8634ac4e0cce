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


LONGER = kmtl.inputs.Tokens(tokens=30, length=9).fit(ROWS)


def masking(kind: str) -> keras.Model:
    keras.utils.set_random_seed(2)
    if kind == "values":
        inputs = keras.Input((None, 1))
        x = layers.Masking(0.0, name="first")(inputs)
    else:
        inputs = keras.Input((None,), dtype="int32")
        x = layers.Embedding(30, 6, mask_zero=True, name="first")(inputs)
    if kind == "joined":
        both = [layers.Embedding(30, n, mask_zero=True)(inputs) for n in (6, 3)]
        x = layers.Concatenate(name="first")(both)
    if kind == "nested":
        inner = keras.Model(inputs, x, name="encoder")
        inputs = keras.Input((None,), dtype="int32")
        x = inner(inputs)
    if kind == "attention":
        x = layers.Add()([x, layers.MultiHeadAttention(2, 3)(x, x)])
        x = layers.LayerNormalization(name="middle")(x)
        return keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    x = layers.GRU(5, return_sequences=True, name="middle")(x)
    return keras.Model(inputs, layers.Bidirectional(layers.GRU(4))(x))


@pytest.mark.parametrize("kind", ["ids", "values", "attention", "nested", "joined"])
def test_cuts_hand_on_the_mask_of_the_model(kind: str) -> None:
    net = masking(kind)
    first = "encoder_first" if kind == "nested" else "first"
    assert FromKeras(net).num_blocks > 1
    x = LONGER.prepare(ROWS, "`x`")
    given = {"inputs": {"x": LONGER}}
    if kind == "values":
        x, given = x.astype("float32")[..., None], {"input_shape": (9, 1)}
    model = kmtl.build(
        backbone=FromKeras(net, cuts=[first, "middle"]),
        tasks=[kmtl.Regression("a")],
        seed=0,
        **given,
    )
    expected = ops.convert_to_numpy(net(x))
    np.testing.assert_allclose(at_the_seam(model, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", ["mmoe", "ple", "ensemble", "fusion", "fused experts"])
def test_padding_counts_for_nothing_in_copies(way: str) -> None:
    keras.utils.set_random_seed(3)
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(30, 6, mask_zero=True, name="first")(ids)
    x = layers.LayerNormalization()(layers.Dense(5, activation="tanh")(x))
    net = keras.Model(ids, layers.GlobalAveragePooling1D()(x))
    backbone = FromKeras(net, cuts=["first"], weights=None)
    if way == "ensemble":
        backbone = kmtl.backbones.Ensemble(backbone=backbone, members=2)
    others = {}
    if way in ("fusion", "fused experts"):
        backbone = {"x": backbone, "more": kmtl.backbones.MLP(units=(2,))}
        others = {"more": kmtl.inputs.Array((2,), scale=None)}
    sharing = {"ple": "ple", "mmoe": "mmoe", "fused experts": "mmoe"}.get(way, "hard")
    found = []
    for kind in (TOKENS.replace(tokens=30), LONGER):
        model = kmtl.build(
            backbone=backbone,
            inputs={"x": kind, **others},
            tasks=[kmtl.Regression("a"), kmtl.Regression("b")],
            sharing=sharing,
            seed=0,
        )
        x = kind.prepare(ROWS, "`x`")
        x = {"x": x, "more": np.eye(3, 2)} if others else x
        found.append(ops.convert_to_numpy(model(x)["a"]))
        plain = ops.convert_to_numpy(model.to_keras()(x)["a"])
        np.testing.assert_allclose(plain, found[-1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_sequences_end_to_end_have_another_mask() -> None:
    ids = keras.Input((9,), dtype="int32")
    both = [layers.Embedding(30, 6, mask_zero=True)(ids) for _ in range(2)]
    x = layers.Concatenate(axis=1, name="ends")(both)
    with pytest.raises(ValueError, match=r"reads.*Received: cuts=\['ends'\]"):
        FromKeras(keras.Model(ids, layers.GRU(4)(x)), cuts=["ends"])


def test_heads_of_steps_know_the_padding_of_a_text_encoder() -> None:
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(30, 6, mask_zero=True)(ids)
    net = keras.Model(ids, layers.Dense(4)(x))
    kinds = (TOKENS.replace(tokens=30), LONGER)
    found = [built(net, kind)(kind.prepare(ROWS, "`x`"))["a"] for kind in kinds]
    np.testing.assert_allclose(*map(ops.convert_to_numpy, found), rtol=1e-4, atol=1e-6)


def test_another_number_for_padding_is_refused() -> None:
    kind = kmtl.inputs.Tokens(tokens=30, length=9, padding=1)
    with pytest.raises(ValueError, match=r"leaves out the id 0.*Tokens\(padding=1\)"):
        built(encoder(), kind)


# -- several inputs --------------------------------------------------------------------


def joint() -> keras.Model:
    keras.utils.set_random_seed(4)
    words = keras.Input((None,), dtype="int32", name="words")
    photo = keras.Input((8, 8, 3), name="photo")
    x = layers.Embedding(30, 6, mask_zero=True)(words)
    x = layers.GlobalAveragePooling1D(name="read")(layers.Dense(5)(x))
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="seen")(photo))
    z = layers.Concatenate(name="met")([x, y])
    z = layers.Dense(6, activation="relu", name="joint")(z)
    return keras.Model([words, photo], layers.Dense(3, name="last")(z))


PHOTOS = np.random.default_rng(5).integers(0, 256, (3, 8, 8, 3)).astype("uint8")
# In another order than the model's.
BOTH = {"photo": kmtl.inputs.Image((8, 8, 3)), "words": LONGER}
TWO = [kmtl.Regression("a"), kmtl.Regression("b")]


def test_several_inputs_go_by_their_names(tmp_path) -> None:
    net = joint()
    backbone = FromKeras(net)
    assert backbone.cut_names == ("met", "joint")
    model = kmtl.build(backbone=backbone, inputs=BOTH, tasks=TWO, seed=0)
    x = {"photo": PHOTOS, "words": ROWS}
    given = {name: kind.prepare(x[name], name) for name, kind in BOTH.items()}
    seam = keras.Model(model.inputs, model.get_layer("seam").output)
    expected = net([given["words"], PHOTOS / np.float32(255)])
    expected, found = map(ops.convert_to_numpy, (expected, seam(given)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    model.compile("adam")
    y = {name: np.arange(3.0) for name in "ab"}
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    wanted = model.predict(x, verbose=0)["b"]
    np.testing.assert_allclose(loaded.predict(x, verbose=0)["b"], wanted, rtol=1e-5)


@pytest.mark.parametrize("sharing", ["mmoe", "cross_stitch"])
def test_schemes_over_several_inputs(sharing: str) -> None:
    backbone = FromKeras(joint())
    if sharing == "mmoe":
        with pytest.raises(ValueError, match=r"`depth` of 1 or more.*photo, words"):
            kmtl.build(backbone=backbone, inputs=BOTH, tasks=TWO, sharing=sharing)
        sharing = kmtl.sharing.MMoE(experts=2, depth=1)
    model = kmtl.build(backbone=backbone, inputs=BOTH, tasks=TWO, sharing=sharing)
    x = {"photo": PHOTOS, "words": ROWS}
    assert model.predict(x, verbose=0)["a"].shape == (3, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"inputs": {"photo": BOTH["photo"], "text": LONGER}},
            r"by name: words, photo\..*Received: photo, text",
        ),
        ({"input_shape": (8, 8, 3)}, r"one input: build with `inputs`.*words, photo"),
        (
            {"inputs": {**BOTH, "photo": kmtl.inputs.Image((9, 9, 3))}},
            r"input_shape=\(9, 9, 3\) for input 'photo'",
        ),
        (
            {"inputs": {**BOTH, "words": kmtl.inputs.Array((9,)).fit(np.eye(9))}},
            r"`inputs\['words'\]` must be of whole numbers.*takes int32",
        ),
    ],
)
def test_refused_inputs(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kmtl.build(backbone=FromKeras(joint()), tasks=TWO, **given)


def test_refused_arguments_of_several_inputs() -> None:
    with pytest.raises(ValueError, match=r"after 'read' and reads"):
        FromKeras(joint(), cuts=["read"])
    with pytest.raises(ValueError, match=r"`preprocessing` is for .* one input"):
        FromKeras(joint(), preprocessing="tf")


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
