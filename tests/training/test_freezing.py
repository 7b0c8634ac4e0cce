"""Parts of a model that stay as they are, bit for bit, whatever trains beside them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from core_tools import table, table_model, table_tasks

import kmtl
from kmtl import _registry

pytestmark = pytest.mark.backend

X, Y = table()


def values(model, *prefixes: str) -> dict[str, np.ndarray]:
    """Variables of the layers whose names begin so, all without a prefix."""
    return {
        f"{layer.name}/{i}": np.array(value)
        for layer in model.layers
        if layer.name.startswith(prefixes or "")
        for i, value in enumerate(layer.get_weights())
    }


def changed(old: dict, new: dict) -> set[str]:
    """Layers of which a value is not the same, bit for bit."""
    return {k.split("/")[0] for k in old if not np.array_equal(old[k], new[k])}


def slots(model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(v).copy() for v in model.optimizer.variables]


def test_frozen_in_the_middle_thawed_and_saved(tmp_path) -> None:
    model = table_model(normalization="batch", dropout=0.3)
    model.compile(keras.optimizers.AdamW(0.05), weighting="uncertainty")
    model.fit(X, Y, batch_size=8, verbose=0)  # there is momentum now
    model.freeze("trunk", "kind")
    assert model.frozen == ("trunk", "block_1", "block_2", "kind")
    before, kept = values(model), slots(model)
    model.fit(X, Y, batch_size=8, verbose=0)
    after = values(model)
    assert changed(before, after) == {"flag_head_logits", "size_head_logits"}
    # What the optimizer knows of frozen parts waits for them.
    at = [
        i
        for i, v in enumerate(model.optimizer.variables)
        if "shared_block1_dense" in v.path
    ]
    assert len(at) == 2  # of the kernel
    for i in at:
        np.testing.assert_array_equal(slots(model)[i], kept[i])

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.frozen == model.frozen
    for one, other in zip(slots(loaded), slots(model), strict=True):
        np.testing.assert_array_equal(one, other)

    loaded.unfreeze()
    assert loaded.frozen == ()
    loaded.fit(X, Y, batch_size=8, verbose=0)
    names = {layer.name for layer in loaded.layers if layer.weights}
    still = {n for n in names if n.endswith("dropout")} | {*loaded.task_names}
    assert changed(after, values(loaded)) == names - still


@pytest.mark.thorough(on="jax")
def test_thawed_after_the_optimizer_was_built_without_it() -> None:
    model = table_model(dropout=None)
    model.freeze("block1")
    assert model.frozen == ("block_1",)
    model.compile("adam", lr_multipliers={"block_1": 0.5})
    model.fit(X, Y, batch_size=8, verbose=0)
    old = {v.path.split("/", 1)[1]: v for v in model.optimizer.variables}
    assert not any("shared_block1" in path for path in old)
    old = {path: keras.ops.convert_to_numpy(v).copy() for path, v in old.items()}
    model.unfreeze("block_1")
    model.build_optimizer()
    new = {v.path.split("/", 1)[1]: v for v in model.optimizer.variables}
    for path, value in old.items():
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(new[path]), value)
    before = values(model, "shared_block1")
    model.fit(X, Y, batch_size=8, verbose=0)
    assert changed(before, values(model)) == {"shared_block1_dense"}


@pytest.mark.parametrize(
    "weighting",
    [
        name
        if name in ("pcgrad", "mgda")
        else pytest.param(name, marks=pytest.mark.thorough)
        for name in _registry.names("weighting")
        if name != "schedule"
    ],
)
def test_under_every_weighting(weighting) -> None:
    model = table_model(
        sharing_depth=2, normalization="batch", dropout=0.2, kernel_regularizer="l2"
    )
    model.freeze("block_1", "flag")
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1),
        weighting=weighting,
        run_eagerly=True,
    )
    before = values(model, "shared_block1", "flag_")
    part = X[:8], {n: v[:8] for n, v in Y.items()}
    data = {"validation_data": part} if weighting == "auto_lambda" else {}
    y = {n: v[:16] for n, v in Y.items()}
    model.fit(X[:16], y, batch_size=8, verbose=0, **data)
    assert changed(before, values(model)) == set()
    # All that is shared: nothing is left to balance, and the heads go on.
    model.freeze("trunk")
    before = values(model)
    model.fit(*part, batch_size=8, verbose=0, **data)
    assert changed(before, values(model)) == {"kind_head_logits", "size_head_logits"}


def test_scores_while_other_parts_freeze_and_thaw() -> None:
    """Equal shapes: a step on JAX takes one block's weights for the other's."""
    model = kmtl.build_mlp(
        input_shape=(4,), tasks=[kmtl.Regression("a")], units=(4, 4), dropout=None
    )
    model.compile(keras.optimizers.Adam(0.0))
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    y = {"a": x.sum(1)}
    before = model.evaluate(x, y, verbose=0)[0]  # which may build the optimizer
    answers = model.predict(x, verbose=0)["a"]
    plan = kmtl.training.Curriculum(
        start={"block_1": 1}, stop={"block_2": 1}
    )  # the first block thaws when the second one freezes
    history = model.fit(
        x, y, epochs=2, validation_data=(x, y), callbacks=[plan], verbose=0
    )
    np.testing.assert_allclose(history.history["val_loss"], [before] * 2, rtol=1e-6)
    model.freeze("block_1")
    np.testing.assert_allclose(model.predict(x, verbose=0)["a"], answers, rtol=1e-6)
    model.unfreeze()
    model.freeze("block_2")
    np.testing.assert_allclose(model.predict(x, verbose=0)["a"], answers, rtol=1e-6)
    assert model.evaluate(x, y, verbose=0)[0] == pytest.approx(before, rel=1e-6)


@pytest.mark.thorough(on="jax")
def test_averages_of_weights_are_those_of_what_is_trained() -> None:
    model = table_model(dropout=None)
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
    model.fit(X, Y, batch_size=8, verbose=0)
    model.freeze("trunk")
    before = values(model)
    model.fit(X, Y, batch_size=8, verbose=0)
    names = {f"{name}_head_logits" for name in model.task_names}
    assert changed(before, values(model)) == names


@pytest.mark.thorough(on="jax")
def test_frozen_dropout_is_off() -> None:
    model = table_model(dropout=0.5, sharing_depth=2)
    read = keras.Model(model.input, model.seam.output)
    assert not np.array_equal(read(X, training=True), read(X))
    model.freeze("trunk")
    np.testing.assert_array_equal(read(X, training=True), read(X))


@pytest.mark.parametrize(
    ("sharing", "own", "trunk"),
    [
        (kmtl.sharing.HardSharing(depth=1), {"a_block2_dense", "a_head_logits"}, 3),
        ("cross_stitch", {"a_stitch2", "a_head_logits"}, None),
        (kmtl.sharing.MMoE(experts=2), {"a_gate1", "a_head_logits"}, None),
    ],
)
def test_parts_under_a_sharing_scheme(sharing, own, trunk) -> None:
    tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    model = kmtl.build_mlp(
        input_shape=(4,), tasks=tasks, units=(3, 3), sharing=sharing, dropout=None
    )
    names = {layer.name for layer in model.layers if layer.weights} - {"a", "b"}
    model.freeze("a")
    frozen = {la.name for la in model.layers if la.weights and not la.trainable}
    assert frozen == own
    assert model.frozen == ("a",)
    model.freeze("trunk")
    frozen = {la.name for la in model.layers if la.weights and not la.trainable}
    assert frozen == names - {"b_head_logits"}
    if trunk is not None:
        assert len(frozen - {"a_head_logits"}) == trunk


@pytest.mark.thorough(on="jax")
def test_a_net_made_by_hand() -> None:
    inputs = keras.Input((4,))
    features = keras.layers.Dense(3, name="stem")(inputs)
    tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    model = kmtl.MultiTaskModel(
        inputs,
        {
            task.name: kmtl.TaskOutput(task)(
                keras.layers.Dense(1, name=f"last_{task.name}")(features)
            )
            for task in tasks
        },
    )
    model.freeze("a", "trunk")
    assert model.frozen == ("trunk", "a")
    assert {v.path for v in model.trainable_variables} == {
        "last_b/kernel",
        "last_b/bias",
    }


@pytest.mark.thorough(on="jax")
def test_refused() -> None:
    model = table_model(tasks=table_tasks()[:1])
    with pytest.raises(ValueError, match=r"unfreeze.*block_3.*Did you mean 'block_"):
        model.unfreeze("block_3")
    with pytest.raises(ValueError, match=r"needs a part of the model.*trunk"):
        model.freeze()
    model.freeze("kind")  # of a single task, the head alone
    assert model.frozen == ("kind",)


def dropping(kind: str, rate: float) -> keras.Model:
    """A net whose dropout is a layer, in a layer or in a model inside."""
    inputs = keras.Input((3, 4))
    x = inputs
    if kind == "layer":
        x = keras.layers.Dropout(rate, name="drops")(x)
    elif kind == "inside":
        x = keras.layers.MultiHeadAttention(1, 2, dropout=rate, name="drops")(x, x)
    else:
        inner = [keras.layers.Dense(3), keras.layers.GaussianNoise(rate)]
        x = keras.Sequential(inner, name="drops")(x)
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


@pytest.mark.parametrize("kind", ["layer", "inside", "nested"])
def test_frozen_layers_of_keras_draw_nothing(kind: str, tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(8, 3, 4)).astype("float32")
    tasks = [kmtl.Regression("a")]
    net = dropping(kind, 0.5)

    def built(**options) -> kmtl.MultiTaskModel:
        backbone = kmtl.backbones.FromKeras(net, **options)
        return kmtl.build(backbone=backbone, input_shape=(3, 4), tasks=tasks, seed=0)

    def moves(model: kmtl.MultiTaskModel) -> bool:
        """Whether training draws something."""
        return bool(np.any(np.array(model(x, training=True)["a"] != model(x)["a"])))

    model = built()
    more = kmtl.add_task(model, kmtl.Regression("b"))
    transferred = kmtl.transfer(net, tasks, freeze="trunk")
    assert moves(model)
    model.freeze("trunk")
    model.save(tmp_path / "frozen.keras")
    loaded = keras.models.load_model(tmp_path / "frozen.keras")
    for frozen in (model, loaded, more, transferred, built(freeze="all")):
        assert not moves(frozen)
        frozen.unfreeze()
        assert moves(frozen)


@pytest.mark.parametrize("weighting", [None, "mgda", "pcgrad"])
def test_frozen_layers_of_keras_draw_nothing_in_fit(weighting: str | None) -> None:
    """A net with dropout in what is frozen learns what one without it learns."""
    tasks = [kmtl.Regression("size"), kmtl.Regression("also")]
    drawn = keras.initializers.GlorotUniform(seed=0)
    found = []
    for rate in (0.0, 0.5):
        inputs = keras.Input((6,))
        x = keras.layers.Dense(6, kernel_initializer=drawn)(inputs)
        x = keras.layers.Dropout(rate, name="drops")(x)
        net = keras.Model(inputs, keras.layers.Dense(5, kernel_initializer=drawn)(x))
        backbone = kmtl.backbones.FromKeras(net, cuts=["drops"])
        model = kmtl.build(backbone=backbone, input_shape=(6,), tasks=tasks, seed=0)
        model.freeze("block_1")
        model.compile(keras.optimizers.SGD(0.1), weighting=weighting)
        labels = {"size": X[:, 0], "also": X[:, 1]}
        model.fit(X, labels, epochs=2, verbose=0, shuffle=False)
        found.append(model.predict(X, verbose=0))
    for name in ("size", "also"):
        np.testing.assert_allclose(*(one[name] for one in found), rtol=1e-4, atol=1e-6)
