"""Builders: what is shared, what is seeded, and which arguments are refused."""

from __future__ import annotations

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from keras import ops

import kmtl

pytestmark = pytest.mark.backend

TASKS = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
NAMES = ("kind", "size")


def mlp(**options):
    options = {"input_shape": (6,), "tasks": TASKS, "units": (5, 4, 3)} | options
    return kmtl.build_mlp(**options)


def cnn(**options):
    options = {
        "input_shape": (8, 8, 1),
        "tasks": TASKS,
        "filters": (2, 3, 4),
        "convs": 2,
    } | options
    return kmtl.build_cnn(**options)


def weights(model, prefix: str) -> dict[str, np.ndarray]:
    """Values of the variables of the layers so named, by the rest of their path."""
    return {
        f"{layer.name.removeprefix(prefix)}/{v.name}": ops.convert_to_numpy(v)
        for layer in model.layers
        if layer.name.startswith(prefix)
        for v in layer.weights
    }


def ancestors(model, name: str) -> list:
    """Layers between the input and a task's output."""
    found, tensors = [], [model.task_outputs[name].output]
    while tensors:
        layer, node, _ = tensors.pop()._keras_history
        if layer not in found:
            found.append(layer)
            tensors += layer._inbound_nodes[node].input_tensors
    return found


@pytest.mark.parametrize("depth", [0, 1, 2, 3, None])
@pytest.mark.parametrize("make", [mlp, cnn])
def test_sharing_depth(make, depth: int | None) -> None:
    model = make(sharing_depth=depth, seed=1)
    shared = 3 if depth is None else depth
    trunks = {}
    for name in NAMES:
        own = [layer.name for layer in ancestors(model, name) if layer.weights]
        trunk = [n for n in own if "_block" in n and "dropout" not in n]
        # Total depth is constant: three blocks of 1 dense or 2 convolutions.
        assert len(trunk) == (3 if make is mlp else 6)
        in_common = [n for n in trunk if n.startswith("shared_block")]
        assert len(in_common) == shared * (1 if make is mlp else 2)
        assert all(n.startswith(("shared_", f"{name}_block")) for n in trunk)
        trunks[name] = set(trunk)
    assert trunks["kind"] & trunks["size"] == {
        n for n in trunks["kind"] if n.startswith("shared")
    }
    assert (model.seam is None) == (shared == 0)
    if shared:
        assert model.seam in ancestors(model, "kind")
        assert model.seam in ancestors(model, "size")
    assert model.task_names == NAMES


DEPTHS = {
    # depths of three tasks -> the blocks each has to itself, and the seam
    (3, 3, 3): ({}, True),
    (2, 2, 2): ({"kind": {3}, "size": {3}, "tone": {3}}, True),
    (3, 3, 1): ({"tone": {2, 3}}, False),
    (1, 3, 2): ({"kind": {2, 3}, "size": {3}, "tone": {3}}, False),
    (3, 0, 0): ({"kind": {1, 2, 3}, "size": {1, 2, 3}, "tone": {1, 2, 3}}, False),
    (3, 1, 1): ({"kind": {2, 3}, "size": {2, 3}, "tone": {2, 3}}, True),
    (0, 2, 2): ({"kind": {1, 2, 3}, "size": {3}, "tone": {3}}, False),
}


@pytest.mark.parametrize(("depths", "expected"), DEPTHS.items())
def test_sharing_depth_per_task(depths: tuple, expected: tuple) -> None:
    tasks = [*TASKS, kmtl.Regression("tone")]
    names = [task.name for task in tasks]
    depth = dict(zip(names, depths, strict=True))
    model = mlp(tasks=tasks, sharing_depth=depth, seed=1)
    own, seam = expected
    for name in names:
        used = [layer.name for layer in ancestors(model, name)]
        trunk = sorted(n for n in used if n.endswith("_dense"))
        mine = own.get(name, set())
        assert trunk == sorted(
            f"{name if i in mine else 'shared'}_block{i}_dense" for i in (1, 2, 3)
        )
    assert (model.seam is not None) == seam
    assert model.task_names == tuple(names)
    if len(set(depths)) == 1:
        plain = mlp(tasks=tasks, sharing_depth=depths[0], seed=1)
        assert [v.path for v in plain.weights] == [v.path for v in model.weights]
    sharing = kmtl.sharing.HardSharing(depth=depth)
    assert kmtl.sharing.Sharing.from_config(sharing.to_config()) == sharing


def test_dropout_per_block() -> None:
    model = mlp(dropout=(0.1, 0.2, 0.4), sharing_depth=1)

    def rates() -> dict[str, float]:
        return {
            layer.name: round(layer.current_rate(), 6)
            for layer in model.layers
            if isinstance(layer, kmtl.layers.Dropout)
        }

    expected = {"shared_block1_dropout": 0.1}
    for name in NAMES:
        expected |= {f"{name}_block2_dropout": 0.2, f"{name}_block3_dropout": 0.4}
    assert rates() == expected
    model.set_dropout([0.5, 0.0, 0.25])
    table = {"1": 0.5, "2": 0.0, "3": 0.25}
    assert rates() == {name: table[name.split("_")[-2][-1]] for name in expected}
    with pytest.raises(ValueError, match="one per block: 3 of them"):
        model.set_dropout([0.5, 0.0])
    with pytest.raises(ValueError, match=r"rate\[2\].*=1\.0"):
        model.set_dropout([0.1, 0.1, 1.0])
    assert rates()["shared_block1_dropout"] == 0.5  # all or nothing
    backbone = kmtl.backbones.CNN(filters=(4, 4), dropout=[0.1, 0.2])
    assert kmtl.backbones.Backbone.from_config(backbone.to_config()) == backbone


def test_each_copy_has_as_many_parameters_as_the_block() -> None:
    counts = [mlp(sharing_depth=depth).count_params() for depth in range(4)]
    blocks = [6 * 5 + 5, 5 * 4 + 4, 4 * 3 + 3]
    # Dropout rates and task weights are variables too: one per layer.
    assert [a - b for a, b in itertools.pairwise(counts)] == [
        size + 1 for size in blocks
    ]


@pytest.mark.parametrize("make", [mlp, cnn])
def test_a_seed_fixes_all_weights(make) -> None:
    one, two = make(sharing_depth=1, seed=3), make(sharing_depth=1, seed=3)
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    other = make(sharing_depth=1, seed=4)
    first = "shared_block1_dense" if make is mlp else "shared_block1_conv1_conv"
    kernels = [m.get_layer(first).kernel for m in (one, other, make(), make())]
    for i, a in enumerate(kernels):
        for b in kernels[i + 1 :]:
            assert not np.array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))


@pytest.mark.parametrize("make", [mlp, cnn])
def test_copies_begin_where_the_shared_blocks_begin(make) -> None:
    """So models of different sharing, and single-task baselines, begin alike."""
    shared = make(sharing_depth=3, seed=3)
    single = make(sharing_depth=3, seed=3, tasks=[TASKS[1]])
    for depth in (0, 1, 2):
        split = make(sharing_depth=depth, seed=3)
        for i in range(depth + 1, 4):
            expected = weights(shared, f"shared_block{i}")
            assert expected
            for name in NAMES:
                got = weights(split, f"{name}_block{i}")
                assert got.keys() == expected.keys()
                for key, value in expected.items():
                    np.testing.assert_array_equal(got[key], value)
        for name in NAMES:
            head, expected = (
                weights(split, f"{name}_head"),
                weights(shared, f"{name}_head"),
            )
            for key, value in expected.items():
                np.testing.assert_array_equal(head[key], value)
    for part in ("shared_block", "size_head"):
        for key, value in weights(shared, part).items():
            np.testing.assert_array_equal(weights(single, part)[key], value)


def test_layers_of_one_seed_differ() -> None:
    model = mlp(units=(6, 6, 6), seed=0)
    kernels = [
        ops.convert_to_numpy(model.get_layer(f"shared_block{i}_dense").kernel)
        for i in (1, 2, 3)
    ]
    assert not np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[1], kernels[2])


def test_loss_weights() -> None:
    tasks = [TASKS[0].replace(weight=0.5), TASKS[1]]

    def weights_of(given):
        return mlp(tasks=tasks, loss_weights=given).task_weights

    assert weights_of(None) == {"kind": 0.5, "size": 1.0}
    assert weights_of({"size": 2}) == {"kind": 0.5, "size": 2.0}
    assert weights_of({"size": 2.0, "kind": 0.0}) == {"kind": 0.0, "size": 2.0}
    assert weights_of("uniform") == {"kind": 0.5, "size": 0.5}
    assert weights_of("data") == {"kind": 0.5, "size": 1.0}  # until labels are counted
    three = [kmtl.Regression(name) for name in "abc"]
    assert sum(
        mlp(tasks=three, loss_weights="uniform").task_weights.values()
    ) == pytest.approx(1.0)
    model = mlp(loss_weights={"size": 2})
    assert model.task("size").weight == 2.0


def test_uint8_images_are_scaled_in_the_model() -> None:
    tasks = [kmtl.Regression("size"), kmtl.Reconstruction("image")]
    raw = cnn(tasks=tasks, input_dtype="uint8", seed=0)
    plain = cnn(tasks=tasks, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1)).astype("uint8")
    for name, expected in plain(images / np.float32(255)).items():
        np.testing.assert_allclose(raw(images)[name], expected, atol=1e-6)
    assert keras.backend.standardize_dtype(raw.inputs[0].dtype) == "uint8"
    # The target of the reconstruction is scaled alike.
    assert raw.task("image").scale == pytest.approx(1 / 255)
    raw.compile("sgd")
    plain.compile("sgd")
    y = {"size": np.zeros(2)}
    a = raw.loss_report(images, y)["image"]["loss"]
    b = plain.loss_report(images / np.float32(255), y)["image"]["loss"]
    assert a == pytest.approx(b, rel=1e-5)


def test_normalization() -> None:
    batch = cnn(normalization="batch")
    found = [x for x in batch.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(found) == 6
    assert not batch.get_layer("shared_block1_conv1_conv").use_bias
    layer = mlp(normalization="layer")
    assert isinstance(
        layer.get_layer("shared_block2_norm"), keras.layers.LayerNormalization
    )
    assert layer.get_layer("shared_block2_dense").use_bias
    assert not any("norm" in x.name for x in mlp().layers)


def test_activation_and_regularizer() -> None:
    model = mlp(activation="tanh", kernel_regularizer=keras.regularizers.L2(0.5))
    activation = model.get_layer("shared_block1_activation").activation
    assert activation is keras.activations.tanh
    kernels = [
        ops.convert_to_numpy(layer.kernel)
        for layer in model.layers
        if isinstance(layer, keras.layers.Dense)
    ]
    assert len(kernels) == 5  # the heads' too
    expected = 0.5 * sum((kernel**2).sum() for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
    default = mlp().get_layer("shared_block1_activation").activation
    assert default is keras.activations.relu
    leaky = mlp(activation=keras.layers.LeakyReLU(negative_slope=0.25))
    layer = leaky.get_layer("shared_block3_activation")
    np.testing.assert_allclose(layer(np.array([-4.0, 2.0], "float32")), [-1.0, 2.0])


def test_pooling() -> None:
    def sides(pooling, size=7, **options):
        model = cnn(pooling=pooling, input_shape=(size, 8, 1), **options)
        return tuple(model.seam.output.shape[1:])

    assert sides("max") == (1, 2, 4)  # 7x8, 3x4, 1x2: no more to halve
    assert sides("avg") == (1, 2, 4)
    assert sides("stride") == (1, 1, 4)  # 7x8, 4x4, 2x2, 1x1
    assert sides(None) == (7, 8, 4)
    model = cnn(pooling="stride")
    strides = [model.get_layer(f"shared_block1_conv{i}_conv").strides for i in (1, 2)]
    assert strides == [(1, 1), (2, 2)]
    kinds = {"max": keras.layers.MaxPooling2D, "avg": keras.layers.AveragePooling2D}
    for pooling, kind in kinds.items():
        assert isinstance(cnn(pooling=pooling).get_layer("shared_block1_pool"), kind)


def test_dropout_layers() -> None:
    model = mlp(dropout=0.25)
    assert model.get_layer("shared_block3_dropout").current_rate() == 0.25
    assert any("dropout" in x.name for x in mlp().layers)  # rate 0 can be raised later
    assert not any("dropout" in x.name for x in mlp(dropout=None).layers)


def test_batch_normalisation_keeps_up_with_short_runs() -> None:
    layer = mlp(normalization="batch").get_layer("shared_block1_norm")
    assert layer.momentum == 0.9


def test_dropout_drops_and_scales() -> None:
    layer = kmtl.layers.Dropout(0.25, seed=0)
    ones = ops.ones((200, 50))
    dropped = ops.convert_to_numpy(layer(ones, training=True))
    assert set(np.unique(dropped).round(5)) == {0.0, np.float32(4 / 3).round(5)}
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(layer(ones, training=False), ones)
    again = ops.convert_to_numpy(layer(ones, training=True))
    assert not np.array_equal(dropped, again)
    layer.set_rate(0.0)
    np.testing.assert_array_equal(layer(ones, training=True), ones)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        layer.set_rate(1.0)


def test_general_build() -> None:
    backbone = kmtl.backbones.MLP(units=(5, 4), dropout=0.1, kernel_regularizer="l2")
    model = kmtl.build(
        backbone=backbone,
        input_shape=(6,),
        tasks=TASKS,
        sharing=kmtl.sharing.HardSharing(depth=1),
        input_name="table",
        name="small",
    )
    assert model.name == "small"
    assert model.inputs[0].name == "table"
    assert model.get_layer("size_block2_dense").units == 4
    for kind in ("mlp", "cnn"):
        assert kmtl.build(
            backbone=kind, input_shape=(8, 8, 1), tasks=TASKS[0], sharing="hard"
        ).task_names == ("kind",)
    linear = mlp(units=())  # no trunk: heads on the input
    assert linear.seam is None
    assert linear.get_layer("kind_head_logits").kernel.shape == (6, 3)


def test_order_of_tasks_stays_as_given() -> None:
    tasks = [kmtl.Regression(name) for name in ("zebra", "ape", "mouse")]
    model = mlp(tasks=tasks)
    assert model.task_names == ("zebra", "ape", "mouse")
    outputs = model.predict(np.zeros((2, 6)), verbose=0)
    assert set(outputs) == {"zebra", "ape", "mouse"}  # JAX sorts the keys of dicts
    assert keras.models.clone_model(model).task_names == model.task_names


REGRESSION = kmtl.Regression
BAD = {
    "depth": (lambda: mlp(sharing_depth=4), ValueError, "<= 3. Received: sharing_dep"),
    "depth_negative": (lambda: cnn(sharing_depth=-1), ValueError, "sharing_depth=-1"),
    "depth_half": (lambda: mlp(sharing_depth=1.5), TypeError, "sharing_depth=1.5"),
    "depth_lacks": (
        lambda: mlp(sharing_depth={"kind": 1}),
        ValueError,
        "`sharing_depth` lacks task size",
    ),
    "depth_unknown": (
        lambda: mlp(sharing_depth={"kind": 1, "sise": 1}),
        ValueError,
        "Unknown task 'sise'.*Did you mean 'size'",
    ),
    "depth_of_task": (
        lambda: mlp(sharing_depth={"kind": 1, "size": 4}),
        ValueError,
        r"<= 3. Received: sharing_depth\['size'\]=4",
    ),
    "dropout_blocks": (lambda: mlp(dropout=[0.1]), ValueError, "one per block: 3 of"),
    "dropout_block": (
        lambda: mlp(dropout=[0.1, 0.1, 1.0]),
        ValueError,
        r"dropout\[2\]=1.0",
    ),
    "depth_twice": (
        lambda: mlp(sharing_depth=1, sharing=kmtl.sharing.HardSharing(depth=1)),
        ValueError,
        "Give the depth once",
    ),
    "tasks_empty": (lambda: mlp(tasks=[]), ValueError, "at least one task"),
    "tasks_text": (lambda: mlp(tasks=["kind"]), TypeError, "of type str"),
    "tasks_class": (lambda: mlp(tasks=kmtl.Regression), TypeError, "kmtl tasks"),
    "tasks_twice": (lambda: mlp(tasks=[TASKS[0]] * 2), ValueError, "must be unique"),
    "logs_clash": (
        lambda: mlp(
            tasks=[
                REGRESSION("a_b"),
                REGRESSION(
                    "a",
                    metrics=(
                        kmtl.Metric(
                            "b_mae",
                            keras.metrics.MeanAbsoluteError(),
                            higher_is_better=False,
                        ),
                    ),
                ),
            ]
        ),
        ValueError,
        "would both log 'a_b_mae'",
    ),
    "units_zero": (lambda: mlp(units=(4, 0)), ValueError, r"units\[1\]=0"),
    "units_number": (lambda: mlp(units=4), TypeError, "sequence of integers"),
    "units_text": (lambda: mlp(units="64"), TypeError, r"such as \(64,\).*units='64'"),
    "filters": (lambda: cnn(filters="ab"), TypeError, "`filters` must be a sequence"),
    "kernel_size": (lambda: cnn(kernel_size=0), ValueError, "kernel_size=0"),
    "convs": (lambda: cnn(convs=0), ValueError, "convs=0"),
    "pooling": (lambda: cnn(pooling="mean"), ValueError, "pooling='mean'"),
    "dropout": (lambda: mlp(dropout=1.0), ValueError, r"\[0, 1\).*dropout=1.0"),
    "activation": (lambda: mlp(activation="rellu"), ValueError, "activation='rellu'"),
    "normalization": (
        lambda: mlp(normalization="bach"),
        ValueError,
        "Did you mean 'batch'",
    ),
    "regularizer": (
        lambda: mlp(kernel_regularizer="l3"),
        ValueError,
        "`kernel_regularizer` must be .*kernel_regularizer='l3'",
    ),
    "input_number": (lambda: mlp(input_shape=6), TypeError, "without the batch axis"),
    "input_empty": (lambda: mlp(input_shape=()), ValueError, "at least one axis"),
    "input_zero": (lambda: mlp(input_shape=(0,)), ValueError, r"input_shape\[0\]=0"),
    "input_unknown": (
        lambda: mlp(input_shape=(None, 2)),
        ValueError,
        r"fully known, and have no batch axis, such as \(2,\)",
    ),
    "input_rank": (lambda: cnn(input_shape=(8, 8)), ValueError, "must have 3 axes"),
    "channels": (lambda: cnn(input_shape=(8, 8, None)), ValueError, "channels"),
    "input_dtype": (lambda: cnn(input_dtype="int8"), ValueError, "input_dtype='int8'"),
    "tokens": (lambda: cnn(input_dtype="int32"), ValueError, r"kmtl\.inputs\.Tokens"),
    "two shapes": (
        lambda: cnn(input_shape={"user": (), "item": ()}),
        TypeError,
        "give inputs=",
    ),
    "input_name": (lambda: mlp(input_name="a b"), ValueError, "input_name='a b'"),
    "seed": (lambda: mlp(seed=-1), ValueError, "seed=-1"),
    "seed_text": (lambda: mlp(seed="x"), TypeError, "seed='x'"),
    "typo": (lambda: mlp(sharing_dept=1), TypeError, "sharing_dept"),
    "backbone": (
        lambda: kmtl.build(backbone="cnnn", input_shape=(8, 8, 1), tasks=TASKS),
        ValueError,
        "Unknown backbone 'cnnn'. Did you mean 'cnn'",
    ),
    "backbone_type": (
        lambda: kmtl.build(backbone=3, input_shape=(8,), tasks=TASKS),
        TypeError,
        "object of kmtl.backbones or one of cnn, .* Received: backbone=3",
    ),
    "backbone_model": (
        lambda: kmtl.build(backbone=keras.Sequential(), input_shape=(8,), tasks=TASKS),
        TypeError,
        r"make kmtl.backbones.FromKeras\(model\)",
    ),
    "backbone_lacks": (
        lambda: kmtl.build(backbone="from_keras", input_shape=(8,), tasks=TASKS),
        TypeError,
        r"no default for `model`: FromKeras\(model=...\)",
    ),
    "backbone_class": (
        lambda: kmtl.build(backbone=kmtl.backbones.MLP, input_shape=(8,), tasks=TASKS),
        TypeError,
        r"kmtl.backbones, such as MLP\(units\), or one of|such as MLP\(\), or",
    ),
    "sharing_class": (
        lambda: mlp(sharing=kmtl.sharing.MMoE),
        TypeError,
        r"`sharing` must be an object of kmtl.sharing, such as MMoE\(\), or one of",
    ),
    "sharing_lacks": (
        lambda: mlp(sharing="hierarchical"),
        TypeError,
        r"`sharing` must be .* `levels`: Hierarchical\(levels=...\)",
    ),
    "weighting_class": (
        lambda: mlp().compile("adam", weighting=kmtl.weighting.DWA),
        TypeError,
        r"kmtl.weighting, such as DWA\(\), or one of",
    ),
    "tasks_dict": (
        lambda: mlp(tasks={"size": TASKS[0]}),
        TypeError,
        "must be a list of kmtl tasks, which have names. Received: dict",
    ),
    "metrics_unknown": (
        lambda: kmtl.Regression("size", metrics=["accuracy"]),
        ValueError,
        "Unknown metric of regression task 'size': 'accuracy'",
    ),
    "sharing": (lambda: mlp(sharing="hrad"), ValueError, "Did you mean 'hard'"),
    "weights_typo": (
        lambda: mlp(loss_weights={"sise": 1.0}),
        ValueError,
        "Unknown task 'sise' in `loss_weights`. Did you mean 'size'",
    ),
    "weights_list": (
        lambda: mlp(loss_weights=[1, 2]),
        TypeError,
        "lists are refused because Keras pairs them in alphabetical order",
    ),
    "weights_name": (lambda: mlp(loss_weights="unifrom"), ValueError, "'uniform'"),
    "weights_negative": (
        lambda: mlp(loss_weights={"size": -1}),
        ValueError,
        r"loss_weights\['size'\]=-1",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_argument(case: str) -> None:
    make, error, message = BAD[case]
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "name", ["inputs", "seam", "shared_block1_dense", "size_head_logits", "rescale"]
)
def test_a_task_called_as_a_layer(name: str) -> None:
    tasks = [kmtl.Regression("size"), kmtl.Regression(name)]
    if name == "rescale":
        assert mlp(tasks=tasks).task_names == ("size", "rescale")  # no such layer here
        return
    with pytest.raises(ValueError, match=f"Two layers would be called '{name}'"):
        mlp(tasks=tasks)
    if name == "inputs":
        assert mlp(tasks=tasks, input_name="table").task_names == ("size", "inputs")


def test_a_backbone_that_makes_its_own_layers_cannot_be_applied_twice() -> None:
    @dataclasses.dataclass(frozen=True)
    class Own(kmtl.backbones.MLP):
        units: tuple = (4, 4)

        def block(self, index, features, make):
            layer = keras.layers.Dense(4, name=make.name("own"))
            return layer(features)

    build = {"backbone": Own(), "input_shape": (6,)}
    build["tasks"] = [kmtl.Regression("size"), kmtl.Regression("width")]
    assert kmtl.build(**build).task_names == ("size", "width")
    with pytest.raises(ValueError, match=r"'shared_block2_own'.*make\.layer\(kind"):
        kmtl.build(**build, sharing=kmtl.sharing.FiLM(depth=0), seed=0)


def test_tasks_named_like_parts_of_each_other() -> None:
    tasks = [kmtl.Regression(name) for name in ("a", "a_head", "a_block2", "shared_a")]
    model = mlp(tasks=tasks, sharing_depth=1, dropout=0.1)
    model.set_dropout(0.5)
    rates = {
        layer.name: layer.current_rate()
        for layer in model.layers
        if isinstance(layer, kmtl.layers.Dropout)
    }
    assert len(rates) == 9
    assert set(rates.values()) == {0.5}
