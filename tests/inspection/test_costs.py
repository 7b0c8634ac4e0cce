"""Parts and costs, by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kmtl
from kmtl import _registry
from kmtl.inspection import Cost, structure
from kmtl.inspection.kinds import part_name

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]


def tasks(*names: str) -> list:
    return [kmtl.Regression(name) for name in names]


def mlp(depth, names=("a", "b"), **options) -> kmtl.MultiTaskModel:
    options = {"units": (8, 6)} | options
    return kmtl.build_mlp(
        input_shape=(4,), tasks=tasks(*names), sharing_depth=depth, **options
    )


def dense(inputs: int, outputs: int) -> Cost:
    """Of a dense layer, in parameters and operations with bias."""
    parameters = inputs * outputs + outputs
    return Cost(parameters, parameters, 2 * inputs * outputs + outputs)


def activation(size: int) -> Cost:
    return Cost(flops=size)


BLOCK1, BLOCK2 = dense(4, 8) + activation(8), dense(8, 6) + activation(6)
HEAD = dense(6, 1)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_groups_by_hand(depth: int) -> None:
    found = kmtl.summary(mlp(depth))
    blocks = [BLOCK1, BLOCK2]
    shared, own = sum(blocks[:depth], Cost()), sum(blocks[depth:], Cost())
    assert found.groups == {
        "shared": shared,
        "gates": Cost(),
        "a": own + HEAD,
        "b": own + HEAD,
    }
    single = BLOCK1 + BLOCK2 + HEAD
    assert found.singles == {"a": single, "b": single}
    assert found.single_total == single + single
    assert found.total == shared + own + HEAD + own + HEAD
    ratio = found.total.flops / (2 * single.flops)
    assert found.flops_ratio == pytest.approx(ratio)
    assert (found.flops_ratio == 1.0) is (depth == 0)
    assert found.not_counted == ()


def test_single_task_models_are_those_that_one_would_build() -> None:
    model = kmtl.build_cnn(
        input_shape=(8, 8, 3),
        tasks=[
            kmtl.Classification("kind", classes=3),
            kmtl.Segmentation("mask", classes=2),
        ],
        filters=(4, 6),
        normalization="batch",
        dropout=0.1,
        sharing_depth={"kind": 2, "mask": 1},
        input_dtype="uint8",
    )
    found = kmtl.summary(model)
    for task in model.tasks:
        single = kmtl.build_cnn(
            input_shape=(8, 8, 3),
            tasks=[task],
            filters=(4, 6),
            normalization="batch",
            dropout=0.1,
            input_dtype="uint8",
        )
        assert kmtl.summary(single).total == found.singles[task.name]


def test_parameters_are_those_of_keras() -> None:
    """Without what no one learns: dropout rates and the tasks' weights."""
    model = mlp(1, normalization="batch", dropout=0.2)
    found = kmtl.summary(model)
    settings = 3 + 2  # three dropout layers, two tasks
    assert found.total.parameters == model.count_params() - settings
    trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert found.total.trainable == trained
    model.get_layer("shared_block1_dense").trainable = False
    frozen = kmtl.summary(model).total
    assert frozen.parameters == found.total.parameters
    assert frozen.trainable == trained - 4 * 8


def test_who_uses_a_part_comes_from_the_graph() -> None:
    model = mlp({"a": 2, "b": 2, "c": 1}, ("a", "b", "c"))
    made = structure(model).without_plain_layers()
    assert [(part.name, part.kind, part.tasks) for part in made.parts] == [
        ("inputs", "input", ("a", "b", "c")),
        ("shared_block1", "block", ("a", "b", "c")),
        ("shared_block2", "block", ("a", "b")),
        ("a_head", "head", ("a",)),
        ("b_head", "head", ("b",)),
        ("c_block2", "block", ("c",)),
        ("c_head", "head", ("c",)),
    ]
    assert {(c.source, c.target, c.tasks) for c in made.connections} == {
        ("inputs", "shared_block1", ("a", "b", "c")),
        ("shared_block1", "shared_block2", ("a", "b")),
        ("shared_block1", "c_block2", ("c",)),
        ("shared_block2", "a_head", ("a",)),
        ("shared_block2", "b_head", ("b",)),
        ("c_block2", "c_head", ("c",)),
    }
    assert made["c_block2"].shape == (6,)
    with pytest.raises(KeyError, match=r"Unknown part 'c_blok2'. Did you mean 'c_bl"):
        made["c_blok2"]


def test_names_that_look_like_others() -> None:
    """Tasks called as if they were parts, and one that begins as another."""
    model = mlp(1, ("task_1", "task_1_block2", "block3"))
    names = [part.name for part in structure(model).without_plain_layers().parts]
    assert names == [
        "inputs",
        "shared_block1",
        "task_1_block2",
        "task_1_head",
        "task_1_block2_block2",
        "task_1_block2_head",
        "block3_block2",
        "block3_head",
    ]


@keras.saving.register_keras_serializable(package="kmtl_tests")
class Copies(layers.Layer):
    """A bank of dense layers."""

    copies = 3

    def build(self, input_shape) -> None:
        self.kernel = self.add_weight(shape=(3, input_shape[-1], 6))

    def call(self, inputs):
        return keras.ops.einsum("bi,eio->beo", inputs, self.kernel)


@kmtl.inspection.flops_rule(Copies)
def copies_flops(layer, inputs, outputs) -> int:
    return 2 * 3 * inputs[0][-1] * 6


@keras.saving.register_keras_serializable(package="kmtl_tests")
class Gate(layers.Layer):
    """Mixes a bank."""

    def build(self, input_shape) -> None:
        self.mixture = self.add_weight(shape=(3,), name="mixture")

    def call(self, inputs):
        return keras.ops.einsum("e,beo->bo", self.mixture, inputs)


def with_bank() -> kmtl.MultiTaskModel:
    inputs = keras.Input((4,), name="inputs")
    experts = Copies(name="experts_block1_dense")(inputs)
    outputs = {}
    for task in tasks("a", "b"):
        mixed = Gate(name=f"{task.name}_gate1_mix")(experts)
        logits = layers.Dense(1, name=f"{task.name}_head_logits")(mixed)
        outputs[task.name] = kmtl.TaskOutput(task)(logits)
    return kmtl.MultiTaskModel(inputs, outputs)


def test_banks_and_gates() -> None:
    model = with_bank()
    found = kmtl.summary(model)
    assert structure(model)["experts_block1"].kind == "bank"
    assert structure(model)["experts_block1"].copies == 3
    assert found.groups["shared"] == Cost(72, 72, 144)
    assert found.groups["gates"].parameters == 6
    # One expert and the head.
    assert found.singles["a"] == Cost(24, 24, 48) + dense(6, 1)
    assert found.not_counted == ("a_gate1_mix (Gate)", "b_gate1_mix (Gate)")
    text = str(found)
    assert "no rule: a_gate1_mix (Gate), b_gate1_mix (Gate)" in " ".join(text.split())
    assert "experts_block1 ×3" in text


def test_a_shared_layer_that_every_task_calls_counts_once_in_parameters() -> None:
    inputs = keras.Input((4,), name="inputs")
    block = layers.Dense(6, name="shared_block1_dense")
    outputs = {}
    for task in tasks("a", "b"):
        own = layers.Dense(4, name=f"{task.name}_adapter1_dense")(inputs)
        logits = layers.Dense(1, name=f"{task.name}_head_logits")(block(own))
        outputs[task.name] = kmtl.TaskOutput(task)(logits)
    found = kmtl.summary(kmtl.MultiTaskModel(inputs, outputs))
    one = dense(4, 6)
    assert found.groups["shared"] == Cost(one.parameters, one.trainable, 2 * one.flops)
    assert found.groups["gates"] == Cost()
    assert found.groups["a"] == dense(4, 4) + dense(6, 1)  # the adapter is its own
    assert found.singles["b"] == one + dense(6, 1)


def test_tables() -> None:
    found = kmtl.summary(mlp(1))
    frame = found.to_frame()
    assert list(frame.index) == [
        "shared_block1", "a_block2", "b_block2", "a_head", "b_head"
    ]  # fmt: skip
    assert frame.loc["a_block2"].to_dict() == {
        "kind": "block",
        "group": "a",
        "tasks": "a",
        "copies": 1,
        "output": "6",
        "parameters": 54,
        "trainable": 54,
        "flops": 108,
    }
    totals = found.totals()
    assert totals.loc["total", "parameters"] == frame["parameters"].sum()
    assert totals.loc["single-task models", "flops"] == found.single_total.flops
    lines = [line.split() for line in str(found).splitlines()]
    assert ["a_block2", "a", "6", "54", "108"] in lines
    assert ["shared_block1", "all", "8", "40", "80"] in lines
    assert max(map(len, str(found).splitlines())) <= 100
    page = found._repr_html_()
    assert "<td>a_block2</td><td>a</td><td>6</td><td>54</td><td>108</td>" in page


def test_only_models_with_tasks() -> None:
    plain = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    with pytest.raises(TypeError, match=r"`model` must be a kmtl.MultiTaskModel"):
        kmtl.summary(plain)


def test_first_predictions_and_transfers_are_parts_of_their_own() -> None:
    names = [
        "a_initial_conv", "a_head_initial_logits", "a_initial2_conv",
        "a_head_initial2_conv1_conv", "a_head_conv1", "a_transfer_attention",
        "b_distillation_sum", "seam", "experts_block2_conv1_conv", "a_dense",
    ]  # fmt: skip
    found = [part_name(layers.Identity(name=name), ["a", "b"]) for name in names]
    assert found == [
        "a_initial", "a_initial", "a_initial2", "a_initial2", "a_head", "a_transfer",
        "b_distillation", "seam", "experts_block2", "a_dense",
    ]  # fmt: skip


def by_hand() -> kmtl.MultiTaskModel:
    """Names with digits and task names in them, and no gate."""
    inputs = keras.Input((4,), name="features")
    x = layers.Normalization(mean=np.zeros(4), variance=np.ones(4), name="scale1")(
        inputs
    )
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(8)], name="mobilenetv2")
    x = layers.Dense(6, name="trunk2")(inner(x))
    x = layers.Dense(6, name="dense_1")(x)
    own = layers.Dense(5, name="fc1_a")(x)
    outputs = {
        "a": kmtl.TaskOutput(kmtl.Regression("a"))(
            layers.Dense(1, name="a_gated2")(own)
        ),
        "b": kmtl.TaskOutput(kmtl.Regression("b"))(layers.Dense(1, name="fc1_b")(x)),
    }
    return kmtl.MultiTaskModel(inputs, outputs)


def test_digits_in_a_name_make_no_gate() -> None:
    model = by_hand()
    found = kmtl.summary(model)
    trunk = dense(4, 8) + dense(8, 6) + dense(6, 6)
    shared, own = found.groups["shared"], found.groups["a"]
    assert found.groups["gates"] == Cost()
    assert shared.parameters == shared.trainable == trunk.parameters
    assert shared.flops == trunk.flops + 2 * 4
    assert own == dense(6, 5) + dense(5, 1)
    assert found.groups["b"] == dense(6, 1)
    assert found.singles == {"a": shared + own, "b": shared + dense(6, 1)}
    assert found.not_counted == ()
    assert found.total.parameters == model.count_params() - 2  # tasks' weights
    assert {part.kind for part in structure(model).parts} == {"input", "layer", "head"}


def test_gates_by_type_whatever_their_name() -> None:
    inputs = keras.Input((4,), name="inputs")
    columns = [layers.Dense(3, name=name)(inputs) for name in ("left", "right")]
    outputs = {}
    for task in tasks("a", "b"):
        mixed = kmtl.layers.Stitch(
            ["left", "right"], own="left", name=f"cross_{task.name}"
        )(columns)
        logits = layers.Dense(1, name=f"out_{task.name}")(mixed)
        outputs[task.name] = kmtl.TaskOutput(task)(logits)
    model = kmtl.MultiTaskModel(inputs, outputs)
    kinds = {part.name: part.kind for part in structure(model).parts}
    assert kinds["cross_a"] == kinds["cross_b"] == "stitch"
    assert kinds["left"] == kinds["out_a"] == "layer"
    found = kmtl.summary(model)
    assert found.groups["shared"] == dense(4, 3) + dense(4, 3)
    assert found.groups["gates"].parameters == sum(
        layer.count_params()
        for layer in model.layers
        if isinstance(layer, kmtl.layers.Stitch)
    )


SCHEMES = {
    "aitm": kmtl.sharing.AITM(after={"b": "a"}),
    "esmm": kmtl.sharing.ESMM(after={"b": "a"}),
    "hierarchical": kmtl.sharing.Hierarchical(
        levels={"a": 2, "b": 1}, hand_over="features"
    ),
    "selected_blocks": kmtl.sharing.SelectedBlocks(blocks={"a": [1, 2], "b": [1, 2]}),
    "tree": kmtl.sharing.TreeSharing(groups=[[["a", "b"]], [["a"], ["b"]]]),
}


def test_parameters_of_every_scheme_are_those_of_keras() -> None:
    """And all of a single-task model's are counted, but nothing that connects."""
    single = kmtl.build_mlp(
        input_shape=(8,), tasks=[kmtl.BinaryClassification("a")], units=(8, 8)
    )
    alone = kmtl.summary(single).total
    for name in _registry.names("sharing"):
        maps = name in ("mti_net", "pad_net")
        kind = kmtl.Segmentation if maps else kmtl.BinaryClassification
        options = {"classes": 2} if maps else {}
        arguments = {
            "tasks": [kind("a", **options), kind("b", **options)],
            "sharing": SCHEMES.get(name, name),
        }
        if maps or name == "mtan":
            model = kmtl.build_cnn(input_shape=(8, 8, 1), filters=(4, 4), **arguments)
        else:
            model = kmtl.build_mlp(input_shape=(8,), units=(8, 8), **arguments)
        found = kmtl.summary(model)
        settings = 0
        for layer in model.layers:
            if isinstance(layer, (kmtl.layers.Dropout, kmtl.TaskOutput)):
                settings += layer.count_params()
            elif isinstance(layer, kmtl.layers.Recorded):
                learned = [v for v in layer.weights if v.trainable]
                settings += layer.count_params() - sum(
                    int(np.prod(v.shape)) for v in learned
                )
        assert found.total.parameters == model.count_params() - settings, name
        assert "layer" not in {
            row.part.kind for row in found.rows if row.cost.parameters
        }
        # Others' blocks take more channels, or there is no trunk of this kind.
        if not maps and name not in ("mtan", "hierarchical"):
            assert found.singles["a"].parameters == alone.parameters, name
