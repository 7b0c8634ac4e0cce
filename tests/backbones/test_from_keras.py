"""Any functional Keras model as a trunk: its pieces, its weights, its state."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.backbones import FromKeras
from kmtl.testing._models import model_of
from kmtl.training.still import StillModel

pytestmark = pytest.mark.backend

SIZE = (6, 6, 2)
X = np.random.default_rng(0).normal(3.0, 2.0, (8, *SIZE)).astype("float32")
Y = {"a": np.arange(8) % 3, "b": X[:, 0, 0, 0]}
TASKS = [kmtl.Classification("a", classes=3), kmtl.Regression("b")]
BLOCKS = ("stem", "middle")


@pytest.fixture(scope="module")
def net() -> keras.Model:
    """Adapted preprocessing, batch statistics, a sum, an operation, dropout."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    inputs = keras.Input(SIZE)
    scale = layers.Normalization(name="scale")
    scale.adapt(X)
    x = layers.Conv2D(4, 3, padding="same", name="stem_conv")(scale(inputs))
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = stem = layers.ReLU(name="stem")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="middle_depthwise")(x)
    x = layers.Dropout(0.5, name="middle_dropout")(x)
    x = layers.Add(name="middle")([stem, x])
    y = layers.Conv2D(4, 1, name="last_conv")(x)
    y = layers.BatchNormalization(name="last_norm")(y)
    model = keras.Model(inputs, ops.relu(x + y), name="net")
    random = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights(
                [random.uniform(0.5, 1.5, v.shape) for v in layer.weights]
            )
    return model


def values(model: keras.Model, prefix: str = "") -> dict[str, np.ndarray]:
    """Every variable of the layers whose name begins so."""
    return {
        v.path: ops.convert_to_numpy(v)
        for layer in model.layers
        if layer.name.startswith(prefix)
        for v in layer.weights
    }


def features(model: keras.Model, task: str = "a"):
    """What a task's head reads, for `X`."""
    read = model.get_layer(f"{task}_head_flatten").input
    return ops.convert_to_numpy(keras.Model(model.input, read)(X))


# -- the same net ----------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_each_task_has_the_net_at_any_depth(net: keras.Model, depth: int) -> None:
    backbone = FromKeras(net, cuts=BLOCKS)
    sharing = kmtl.sharing.HardSharing(depth=depth)
    model = model_of(TASKS, X, backbone, sharing)
    expected = ops.convert_to_numpy(net(X))
    for task in ("a", "b"):
        np.testing.assert_array_equal(features(model, task), expected)
    copies = [layer.name for layer in model.layers if layer.name.endswith("last_conv")]
    shared = ["shared_block3_last_conv"]
    assert copies == (
        shared if depth == 3 else ["a_block3_last_conv", "b_block3_last_conv"]
    )
    one = model.get_layer(copies[0]).kernel
    assert one is not net.get_layer("last_conv").kernel  # the net stays as it is
    masks = [layer for layer in model.layers if layer.name.endswith("middle_dropout")]
    seeds = {int(ops.convert_to_numpy(m.seed_generator.state)[0]) for m in masks}
    assert len(seeds) == 1  # a block's seed, whoever has it


def test_experts_all_begin_with_the_net(net: keras.Model) -> None:
    scheme = kmtl.sharing.MMoE(experts=3, depth=1)
    model = model_of(TASKS, X, FromKeras(net, cuts=BLOCKS), scheme)
    np.testing.assert_allclose(
        features(model, "b"), ops.convert_to_numpy(net(X)), rtol=1e-5, atol=1e-5
    )
    kernel = model.get_layer("experts_block3_last_conv").kernel
    assert tuple(kernel.shape)[-1] == 12


def test_dense_experts_begin_with_the_net() -> None:
    inputs = x = keras.Input((5,))
    for name in ("one", "two"):
        x = keras.layers.Dense(4, activation="tanh", name=name)(x)
        x = keras.layers.LayerNormalization(name=f"{name}_norm")(x)
    net = keras.Model(inputs, x)
    rows = X[:, 0, :5, 0]
    model = model_of(TASKS, rows, FromKeras(net), "mmoe")
    read = keras.Model(model.input, model.get_layer("a_mixture1").output)(rows)
    np.testing.assert_allclose(read, net(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scheme", ["mmoe", "ple"])
def test_experts_of_a_net_with_operators_begin_with_it(scheme: str) -> None:
    inputs = keras.Input((5,))
    x = inputs + 2.0 * keras.layers.Dense(5, activation="tanh", name="one")(inputs)
    x = x * keras.layers.Dense(5, activation="sigmoid", name="two")(x) + inputs
    net = keras.Model(inputs, x)
    rows = X[:, 0, :5, 0]
    model = model_of(TASKS, rows, FromKeras(net), scheme)
    read = keras.Model(model.input, model.get_layer("a_mixture1").output)(rows)
    np.testing.assert_allclose(read, net(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"weights": None, "freeze": "all"}])
def test_members_of_an_ensemble_are_not_pretrained(
    net: keras.Model, changes: dict
) -> None:
    trunk = FromKeras(net, cuts=BLOCKS, **changes)
    with pytest.raises(ValueError, match=r"(?s)neither pretrained nor.*stem_conv"):
        model_of(TASKS, X, kmtl.backbones.Ensemble(backbone=trunk, members=2))


def test_low_rank_updates_start_at_the_net(net: keras.Model) -> None:
    scheme = kmtl.sharing.LoRA(rank=2, frozen=True)
    model = model_of(TASKS, X, FromKeras(net, cuts=BLOCKS), scheme)
    expected = ops.convert_to_numpy(net(X))
    for task in ("a", "b"):
        np.testing.assert_allclose(features(model, task), expected, atol=1e-5)
    trained = {v.path.split("/")[0] for v in model.trainable_variables}
    assert all("_lora" in name or "_head_" in name for name in trained)


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", kmtl._registry.names("sharing"))
def test_every_scheme_that_needs_no_argument_builds(
    net: keras.Model, scheme: str
) -> None:
    maps = [kmtl.Segmentation("a", classes=3), kmtl.Segmentation("b", classes=2)]
    tasks = maps if scheme in ("mti_net", "pad_net") else TASKS
    try:
        sharing = kmtl._registry.get("sharing", scheme)()
    except TypeError:
        pytest.skip("needs arguments: tests/contract")
    model = model_of(tasks, X, FromKeras(net, cuts=BLOCKS), sharing)
    assert set(model(X)) == {"a", "b"}


def test_a_nested_model_and_a_layer_that_is_applied_twice(net: keras.Model) -> None:
    inputs = keras.Input(SIZE)
    twice = keras.layers.Conv2D(4, 1, name="twice")
    x = twice(
        keras.layers.Activation("tanh", name="own")(
            twice(net(inputs[..., :2], training=False)[..., :4])
        )
    )
    inner = keras.Sequential(
        [keras.Input((6, 6, 4)), keras.layers.Conv2D(3, 3, name="end")], name="inner"
    )
    outer = keras.Model(inputs, inner(x))
    backbone = FromKeras(outer, cuts=["net_stem", "net_middle"])
    assert backbone.cut_names == ("net_stem", "net_middle")
    model = model_of(TASKS, X, backbone)
    np.testing.assert_allclose(
        features(model), ops.convert_to_numpy(outer(X)), rtol=1e-5, atol=1e-5
    )
    names = [layer.name for layer in model.layers]
    assert names.count("shared_block3_twice") == 1
    assert "shared_block3_inner_end" in names


def test_weights_none_draws_by_the_seed(net: keras.Model) -> None:
    def built(seed: int) -> dict:
        backbone = FromKeras(net, cuts=BLOCKS, weights=None)
        return values(
            kmtl.build(backbone=backbone, input_shape=SIZE, tasks=TASKS, seed=seed),
            "shared",
        )

    one, same, other = built(1), built(1), built(2)
    name = "shared_block1_stem_conv/kernel"
    np.testing.assert_array_equal(one[name], same[name])
    assert (one[name] != other[name]).any()
    assert (one[name] != ops.convert_to_numpy(net.get_layer("stem_conv").kernel)).any()


# -- frozen ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freeze", "weighting"), [(2, "uncertainty"), (1, "mgda"), ("all", None)]
)
def test_what_is_frozen_stays_bit_for_bit(
    net: keras.Model, freeze: int | str, weighting: str | None
) -> None:
    model = model_of(TASKS, X, FromKeras(net, cuts=BLOCKS, freeze=freeze))
    before = values(model, "shared")
    model.compile("adam", weighting=weighting)
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
    count = 3 if freeze == "all" else int(freeze)
    frozen = tuple(f"shared_block{i + 1}_" for i in range(count))
    for name, value in values(model, "shared").items():
        if name.startswith(frozen) or "scale" in name:
            np.testing.assert_array_equal(value, before[name], err_msg=name)
        else:
            assert (value != before[name]).any(), name
    if freeze == "all":  # its dropout is still, too
        read = model.get_layer("a_head_flatten").input
        sub = StillModel(model.input, read)
        np.testing.assert_array_equal(sub(X, training=True), sub(X))


def test_what_the_user_has_frozen_stays_frozen(net: keras.Model) -> None:
    net.get_layer("stem_conv").trainable = False
    try:
        model = model_of(TASKS, X, FromKeras(net))
    finally:
        net.get_layer("stem_conv").trainable = True
    trained = [v.path for v in model.trainable_variables]
    assert not any("stem_conv" in path for path in trained)
    assert any("stem_norm" in path for path in trained)


@pytest.mark.parametrize("by_user", [False, True])
def test_what_layers_make_when_they_are_built_is_frozen_too(by_user: bool) -> None:
    inputs = keras.Input((6,))
    x = keras.layers.Reshape((2, 4))(keras.layers.Dense(8)(inputs))
    x = keras.layers.MultiHeadAttention(2, 2, dropout=0.5, name="attend")(x, x)
    net = keras.Model(inputs, keras.layers.Flatten()(x))
    net.trainable = not by_user
    rows = X[:, :, 0, 0]
    model = model_of(TASKS, rows, FromKeras(net, freeze=None if by_user else "all"))
    for one in (model, type(model).from_config(model.get_config())):
        trained = {v.path.split("/")[0] for v in one.trainable_variables}
        assert trained == {"a_head_logits", "b_head_logits"}
    if not by_user:  # dropout inside of a layer is still, too
        sub = StillModel(model.input, model.get_layer("a_head_logits").input)
        np.testing.assert_array_equal(sub(rows, training=True), sub(rows))
        source = net.get_layer("attend").get_weights()
        copied = model.get_layer("shared_block2_attend").get_weights()
        for one, other in zip(copied, source, strict=True):
            np.testing.assert_array_equal(one, other)


# -- kept ------------------------------------------------------------------------------


def test_saved_and_loaded_with_what_it_learned(
    net: keras.Model, tmp_path: Path
) -> None:
    backbone = FromKeras(net, cuts=BLOCKS, freeze=1, kernel_regularizer="l2")
    model = model_of(TASKS, X, backbone, kmtl.sharing.HardSharing(depth=1))
    model.compile("adam")
    model.fit(X, Y, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for name, output in model.predict(X, verbose=0).items():
        np.testing.assert_array_equal(loaded.predict(X, verbose=0)[name], output)
    assert not loaded.get_layer("shared_block1_stem_norm").trainable
    plain = model.to_keras()
    np.testing.assert_allclose(plain(X)["b"], model(X)["b"], atol=1e-5)
    if keras.backend.backend() == "tensorflow":
        path = model.export(tmp_path / "served")
        assert kmtl.verify_export(path, model, X)


def test_config(net: keras.Model) -> None:
    backbone = FromKeras(net, cuts=BLOCKS, freeze=1, dropout=(0.1, 0.2, 0.3))
    config = json.loads(json.dumps(backbone.to_config()))
    again = kmtl.backbones.Backbone.from_config(config)
    assert again == backbone
    assert again.cut_names == BLOCKS
    model = model_of(TASKS, X, again)
    assert model.count_params() == model_of(TASKS, X, backbone).count_params()
    other = keras.models.clone_model(net)  # of other weights
    assert FromKeras(other, cuts=BLOCKS, freeze=1, dropout=(0.1, 0.2, 0.3)) != backbone
    by_name = FromKeras("VGG16", weights=None, arguments={"pooling": "avg"}, cuts=["x"])
    assert kmtl.backbones.Backbone.from_config(by_name.to_config()) == by_name


@pytest.mark.thorough
def test_search_and_baselines_begin_with_the_net(
    net: keras.Model, tmp_path: Path
) -> None:
    options = {
        "backbone": FromKeras(net, cuts=BLOCKS, freeze=1),
        "input_shape": SIZE,
        "seed": 0,
    }
    data = (X, Y)
    singles = kmtl.baselines(
        kmtl.build, tasks=TASKS, train=data, validation=data, epochs=1,
        cache_dir=tmp_path, **options,
    )  # fmt: skip
    single = kmtl.build(tasks=TASKS[:1], **options)
    assert "shared_block2_middle_depthwise" in [layer.name for layer in single.layers]
    hypermodel = kmtl.HyperModel(
        kmtl.build, tasks=TASKS, space=["sharing_depth", "learning_rate"], **options
    )
    tuner = kmtl.RandomSearch(
        hypermodel, objective="val_delta_m", baselines=singles, max_trials=3, seed=0,
        directory=tmp_path, project_name="search",
    )  # fmt: skip
    tuner.search(X, Y, validation_data=data, epochs=1, verbose=0)
    depths = set(tuner.results()["sharing_depth"])
    assert depths <= {0, 1, 2, 3}
    best = tuner.get_best_models(1)[0]
    kernels = [
        ops.convert_to_numpy(layer.kernel)
        for layer in best.layers
        if layer.name.endswith("block1_stem_conv")
    ]
    for kernel in kernels:  # frozen: no trial begins with what another one learned
        np.testing.assert_array_equal(kernel, net.get_layer("stem_conv").kernel)


def test_searches_tell_nets_of_other_weights_apart(net: keras.Model) -> None:
    from kmtl.tuning.reuse import structure

    one = FromKeras(net, dropout=0.1)
    other = FromKeras(keras.models.clone_model(net), dropout=0.1)
    rate = dataclasses.replace(one, dropout=0.2)
    assert structure({"backbone": one}) == structure({"backbone": rate})
    assert structure({"backbone": one}) != structure({"backbone": other})


# -- refused ---------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kmtl_tests")
class OwnConfig(keras.layers.Layer):
    """Its config is its own arguments alone, and lacks a name."""

    def __init__(self, units: int, name: str = "own"):
        super().__init__(name=name)
        self.units, self.dense = units, keras.layers.Dense(units)

    def build(self, shape: tuple) -> None:
        self.dense.build(shape)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self) -> dict:
        return {"units": self.units}


@keras.saving.register_keras_serializable("kmtl_tests")
class FixedName(keras.layers.Dense):
    """It takes a name, and has another."""

    def __init__(self, units: int, **kwargs):
        super().__init__(units, **{**kwargs, "name": "own"})


class NoName(OwnConfig):
    """What it is made of is no argument of its `__init__`."""

    def __init__(self, units: int):
        super().__init__(units)

    def get_config(self) -> dict:
        return {"width": self.units}


def around(layer: keras.layers.Layer) -> keras.Model:
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(2, name="last")(layer(inputs))
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("freeze", [None, "all"])
def test_a_layer_whose_config_has_no_name(freeze: str | None) -> None:
    own = OwnConfig(4)
    backbone = FromKeras(around(own), cuts=["own"], freeze=freeze)
    model = kmtl.build(
        backbone=backbone, input_shape=(3,), tasks=TASKS, sharing_depth=0
    )
    for name in ("a", "b"):
        copy = model.get_layer(f"{name}_block1_own")
        assert copy.trainable is (freeze is None)
        for mine, its in zip(own.get_weights(), copy.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("kind", [OwnConfig, FixedName])
@pytest.mark.parametrize("depth", [0, 1])
def test_copies_of_a_layer_that_takes_no_name_are_loaded(
    kind: type, depth: int, tmp_path: Path
) -> None:
    backbone = FromKeras(around(kind(4)), cuts=["own"], freeze=1)
    model = kmtl.build(
        backbone=backbone, input_shape=(3,), tasks=TASKS, sharing_depth=depth
    )
    owners = ["a", "b"] if depth == 0 else ["shared"]
    names = [f"{owner}_block1_own" for owner in owners]
    rows = X[:, 0, :3, 0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    twice = type(loaded).from_config(loaded.get_config())
    twice.set_weights(model.get_weights())
    for one in (loaded, twice):
        assert not any(one.get_layer(name).trainable for name in names)
        for name, output in one(rows).items():
            np.testing.assert_array_equal(output, model(rows)[name])
    plain = model.to_keras()
    assert {*names} <= {layer.name for layer in plain.layers}
    np.testing.assert_allclose(plain(rows)["b"], model(rows)["b"], rtol=1e-6)


def test_plain_copies_of_such_a_layer_are_loaded_without_kmtl(tmp_path: Path) -> None:
    rows = X[:, 0, :3, 0]
    np.save(tmp_path / "rows.npy", rows)
    said = []
    for kind in (OwnConfig, FixedName):
        model = kmtl.build(
            backbone=FromKeras(around(kind(4)), cuts=["own"], freeze=1),
            input_shape=(3,), tasks=TASKS, sharing_depth=0,
        )  # fmt: skip
        plain = model.to_keras()
        plain.save(tmp_path / f"{kind.__name__}.keras")
        said.append(ops.convert_to_numpy(plain(rows)["b"]))
    code = f"""
import sys, keras, numpy as np
{inspect.getsource(OwnConfig)}
{inspect.getsource(FixedName)}
for kind in ("OwnConfig", "FixedName"):
    model = keras.models.load_model(f"{{kind}}.keras")
    assert not any(model.get_layer(f"{{t}}_block1_own").trainable for t in "ab")
    said = model(np.load("rows.npy"))["b"]
    np.save(f"{{kind}}.npy", keras.ops.convert_to_numpy(said))
assert "kmtl" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    for kind, here in zip((OwnConfig, FixedName), said, strict=True):
        there = np.load(tmp_path / f"{kind.__name__}.npy")
        np.testing.assert_array_equal(there, here)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def functional(outputs: int = 1, inputs: int = 1, skip: bool = False) -> keras.Model:
    given = [keras.Input((4,)) for _ in range(inputs)]
    x = keras.layers.Concatenate()(given) if inputs > 1 else given[0]
    first = keras.layers.Dense(4, name="first")(x)
    x = keras.layers.Dense(4, name="second")(first)
    x = keras.layers.Add(name="sum")([first, x]) if skip else x
    made = [keras.layers.Dense(1)(x) for _ in range(outputs)]
    return keras.Model(given, made if outputs > 1 else made[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FromKeras(functional(), cuts=["frist"]), "Did you mean 'first'"),
        (
            lambda: FromKeras(functional(skip=True), cuts=["second"]),
            r"'sum' comes after 'second' and reads.*cuts at \['first', 'sum'\]",
        ),
        (lambda: FromKeras(functional(outputs=2)), "with 2 outputs"),
        (lambda: FromKeras(Subclassed()), "functional Keras model.*Subclassed"),
        (lambda: FromKeras(keras.Sequential()), "begin it with keras.Input"),
        (lambda: FromKeras("MobileNetV9"), "Did you mean 'MobileNetV2'"),
        (lambda: FromKeras(functional(), freeze=4), "freeze"),
        (lambda: FromKeras(functional(), normalization="batch"), "layers are"),
        (lambda: FromKeras(functional(), cuts=["first", "first"]), "distinct"),
        (lambda: FromKeras(functional(), weights="a.h5"), "load_weights"),
        (lambda: FromKeras(functional(), arguments={"alpha": 1}), "of a function"),
        (lambda: FromKeras(functional(), preprocessing="tv"), "preprocessing"),
    ],
)  # fmt: skip
def test_refusals(make, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make()


def test_a_layer_that_its_config_does_not_make_is_named() -> None:
    match = r"Layers of type NoName cannot be copied.*NoName.from_config\({'width': 4}"
    with pytest.raises(TypeError, match=match):
        kmtl.build(backbone=FromKeras(around(NoName(4))), input_shape=(3,), tasks=TASKS)


def test_refused_types_and_shapes() -> None:
    with pytest.raises(TypeError, match=r"functional keras\.Model"):
        FromKeras(3)
    with pytest.raises(TypeError, match="sequence of names"):
        FromKeras(functional(), cuts="first")
    with pytest.raises(TypeError, match="returned int"):
        FromKeras(lambda: 3).num_blocks
    with pytest.raises(ValueError, match=r"that of its model, \(4,\)"):
        kmtl.build(backbone=FromKeras(functional()), input_shape=(5,), tasks=TASKS)
    with pytest.raises(ValueError, match="found by its name"):
        FromKeras(lambda: functional()).to_config()
    attention = keras.layers.MultiHeadAttention(1, 2, name="attention")
    x = keras.Input((3, 4))
    net = keras.Model(x, keras.layers.Dense(2)(attention(x, x)))
    with pytest.raises(ValueError, match="MultiHeadAttention"):
        kmtl.build(
            backbone=FromKeras(net), input_shape=(3, 4), tasks=TASKS, sharing="mmoe"
        )


def test_weights_shared_across_a_cut_are_refused() -> None:
    inputs, layer = keras.Input((4,)), keras.layers.Dense(4, name="both")
    x = keras.layers.Activation("relu", name="cut")(layer(inputs))
    net = keras.Model(inputs, layer(x))
    with pytest.raises(ValueError, match="shares weights"):
        FromKeras(net, cuts=["cut"])
    with pytest.raises(ValueError, match="applied 2 times"):
        FromKeras(net, cuts=["both"])
    assert FromKeras(net).cut_names == ()
