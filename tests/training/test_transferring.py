"""Models for other tasks that begin with what a trained one has learned."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
A, B, C = (kmtl.Regression(name) for name in "abc")


def built(*tasks, **options):
    options = {"units": (5, 3), "normalization": "batch", "seed": 0} | options
    model = kmtl.build_mlp(input_shape=(4,), tasks=list(tasks), **options)
    rng = np.random.default_rng(1)
    for layer in model.layers:  # as if it had been trained
        if layer.name not in model.task_names and "dropout" not in layer.name:
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.weights])
    return model


def outputs(model, task: str = "a") -> np.ndarray:
    return keras.ops.convert_to_numpy(model(X)[task])


def test_new_heads_on_an_old_trunk(tmp_path) -> None:
    old = built(A, B)
    old.save(tmp_path / "old.keras")
    old = keras.models.load_model(tmp_path / "old.keras")
    new = kmtl.transfer(old, [C], keep=["b"], freeze="trunk", seed=3)
    assert new.task_names == ("b", "c")
    assert new.frozen == ("trunk", "block_1", "block_2")
    np.testing.assert_array_equal(outputs(new, "b"), outputs(old, "b"))
    report = new.transferred
    # Kernels, gamma, beta, mean and variance of two blocks; a head of 3 + 1.
    assert sum(report.reused.values()) == (4 * 5 + 4 * 5) + (5 * 3 + 4 * 3) + 4
    assert dict(report.new) == {"c_head_logits": 4}
    assert report.left == ("a_head_logits",)
    fresh = built(C, units=(5, 3), seed=3)
    assert not np.array_equal(outputs(new, "c"), outputs(fresh, "c"))


def test_a_plain_net_as_the_trunk() -> None:
    inputs = keras.Input((4,))
    net = keras.Model(inputs, keras.layers.Dense(3, name="stem")(inputs), name="net")
    new = kmtl.transfer(net, [A, B])
    read = keras.Model(new.input, new.get_layer("a_head_logits").input)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(read(X)), keras.ops.convert_to_numpy(net(X))
    )
    assert dict(new.transferred.reused) == {"shared_block1_stem": 15}
    assert set(new.transferred.new) == {"a_head_logits", "b_head_logits"}


def test_a_plain_net_into_a_model_of_ones_own() -> None:
    inputs = keras.Input((4,))
    net = keras.layers.Dense(5, name="stem")(inputs)
    net = keras.Model(inputs, keras.layers.Dense(3, name="body")(net))
    backbone = kmtl.backbones.FromKeras(net, cuts=["stem"], weights=None)
    new = kmtl.build(
        backbone=backbone, tasks=[A, B], input_shape=(4,), sharing_depth=1, seed=3
    )
    assert kmtl.transfer(net, into=new) is new
    for task in "ab":
        read = keras.Model(new.input, new.get_layer(f"{task}_head_logits").input)
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(read(X)), keras.ops.convert_to_numpy(net(X))
        )
    report = new.transferred
    names = ["shared_block1_stem", "a_block2_body", "b_block2_body"]
    assert sorted(report.reused) == sorted(names)
    assert set(report.new) == {"a_head_logits", "b_head_logits"}
    # The plain form of a model, with its heads left behind; and what has other names.
    old = built(A)
    into = built(A, seed=8)
    kmtl.transfer(old.to_keras(), into=into)
    assert "a_head_logits" in into.transferred.left
    kernel = [m.get_layer("shared_block2_dense").kernel for m in (old, into)]
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, kernel))
    with pytest.raises(ValueError, match="nothing would be transferred"):
        kmtl.transfer(net, into=built(A))


S = kmtl.sharing
#: Scheme -> what a third task is to read of the two before it.
SCHEMES = {
    "hard": (S.HardSharing(depth=1), {"shared_block1_dense"}),
    "tree": (
        S.TreeSharing(groups=[[["a", "b"]], [["a"], ["b"]]]),
        {"shared_block1_dense"},
    ),
    "hierarchical": (
        S.Hierarchical(levels={"a": 1, "b": 2}, hand_over="features"),
        {"shared_block1_dense", "a_features_dense", "b_block2_dense"},
    ),
    "chain": (S.ESMM(after={"b": "a"}, base="cross_stitch"), {"b_stitch1"}),
    "selected_blocks": (
        S.SelectedBlocks(blocks={"a": [1, 2], "b": [1]}),
        {"shared_block1_dense", "a_block2_dense"},
    ),
    "cross_stitch": ("cross_stitch", {"a_block2_dense", "b_stitch1"}),
    "nddr": ("nddr", {"a_block2_dense", "b_nddr1_fusion"}),
    "sluice": (S.Sluice(subspaces=1, last_weight=None), {"a_stitch1"}),
    "ple": (S.PLE(task_experts={"a": 1, "b": 2}), {"shared_experts_block2_dense"}),
    "mtan": ("mtan", {"shared_block2_dense"}),
    "adashare": (S.AdaShare(depth=1), {"shared_block2_dense"}),
    "learning_to_branch": ("learning_to_branch", {"nodes_block2_dense"}),
    "independent": ("independent", set()),
    "mmoe": ("mmoe", {"experts_block1_dense"}),
}
FEW = ("tree", "cross_stitch", "ple")


@pytest.mark.parametrize(
    "scheme",
    [
        one if one in FEW else pytest.param(one, marks=pytest.mark.thorough)
        for one in SCHEMES
    ],
)
def test_a_task_more_and_a_task_less_change_no_other(scheme: str) -> None:
    sharing, read = SCHEMES[scheme]
    kind = kmtl.BinaryClassification if scheme == "chain" else kmtl.Regression
    units = (5, 5) if scheme == "adashare" else (5, 3)
    old = built(*map(kind, "ab"), sharing=sharing, units=units)
    new = kmtl.add_task(old, C, seed=5)
    more = kmtl.add_task(new, kind("d"), freeze=False)
    assert more.task_names == ("a", "b", "c", "d")
    for task in ("a", "b"):
        np.testing.assert_array_equal(outputs(more, task), outputs(old, task))
    np.testing.assert_array_equal(outputs(more, "c"), outputs(new, "c"))
    assert new.transferred.left == ()
    of_c = keras.Model(new.input, new.output["c"])
    assert read <= {layer.name for layer in of_c.layers} & set(new.transferred.reused)
    trained = {v.path.split("/")[0] for v in new.trainable_variables}
    assert "c_head_logits" in trained
    assert trained <= set(new.transferred.new)
    again = kmtl.remove_task(kmtl.remove_task(more, "d"), "c")
    assert again.task_names == ("a", "b")
    assert {la.name for la in again.layers} == {la.name for la in old.layers}
    np.testing.assert_array_equal(outputs(again), outputs(old))
    assert kmtl.add_task(again, C).task_names == new.task_names


@pytest.mark.parametrize("kind", ["pad_net", "mti_net"])
@pytest.mark.thorough
def test_maps_that_tell_each_other(kind: str) -> None:
    tasks = [kmtl.Segmentation(name, classes=2) for name in "abc"]
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype("float32")
    for first in (tasks[:1], tasks[:2]):
        old = kmtl.build_cnn(
            input_shape=(4, 4, 1), tasks=first, filters=(2, 2), sharing=kind, seed=0
        )
        new = kmtl.add_task(old, tasks[2])
        for name, value in old(x).items():
            np.testing.assert_array_equal(value, new(x)[name])
        assert "shared_block1_conv" in new.transferred.reused


def test_a_new_task_in_a_place_of_ones_choice() -> None:
    groups = [[["a", "b"], ["d"]], [["a"], ["b"], ["d"]]]
    old = built(A, B, kmtl.Regression("d"), sharing=S.TreeSharing(groups=groups))
    joined = [[["a", "b", "c"], ["d"]], [["a"], ["b", "c"], ["d"]]]
    new = kmtl.add_task(old, C, sharing=S.TreeSharing(groups=joined))
    assert set(new.transferred.new) == {"c_head_logits"}  # no block, but of `b`
    for task in ("a", "b", "d"):
        np.testing.assert_array_equal(outputs(new, task), outputs(old, task))
    of_c = keras.Model(new.input, new.output["c"])
    assert "b_block2_dense" in {layer.name for layer in of_c.layers}
    apart = [[["a"], ["b", "c"], ["d"]], [["a"], ["b", "c"], ["d"]]]
    with pytest.raises(ValueError, match=r"a, b would give other outputs.*into=new"):
        kmtl.add_task(old, C, sharing=S.TreeSharing(groups=apart))


def test_a_column_without_a_task_is_still_read() -> None:
    old = built(A, B, sharing="cross_stitch")
    rest = kmtl.remove_task(old, "b")
    np.testing.assert_array_equal(outputs(rest), outputs(old))
    with pytest.raises(ValueError, match=r"has lost a task.*no longer there: a_stitch"):
        kmtl.add_task(rest, C)
    into = built(A, B, C, sharing="cross_stitch", seed=9)
    kmtl.transfer(old, into=into)
    for name in ("a_block1_dense", "a_head_logits"):
        for one, other in zip(
            into.get_layer(name).get_weights(),
            old.get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)


def test_other_tasks_of_a_scheme_that_names_its_tasks() -> None:
    old = built(A, B, sharing=S.Hierarchical(levels={"a": 1, "b": 2}))
    new = kmtl.transfer(old, [C], keep=["a"])
    assert new.built_with.sharing == S.Hierarchical(levels={"a": 1, "c": 2})
    np.testing.assert_array_equal(outputs(new), outputs(old))
    config = {**S.PLE().to_config(), "later": ["c"]}
    assert S.Sharing.from_config(config) == S.PLE(later=("c",))


def test_old_outputs_after_training_and_what_was_lost() -> None:
    old = built(A, sharing_depth=2)
    y = {"a": np.ones(6, "float32"), "b": np.ones(6, "float32")}
    new = kmtl.add_task(old, B)
    new.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    new.fit(X, y, verbose=0)
    np.testing.assert_array_equal(outputs(new), outputs(old))
    assert kmtl.forgetting(old, new, (X, y)).worst == 0.0
    free = kmtl.add_task(old, B, freeze=False)
    free.get_layer("a_head_logits").bias.assign([100.0])
    result = kmtl.forgetting(old, free, (X, y))
    metric, before, after, lost = result.rows["a"]
    assert metric == "mae"
    np.testing.assert_allclose(before, np.abs(outputs(old)[:, 0] - 1).mean(), 1e-5)
    np.testing.assert_allclose(after, np.abs(outputs(free)[:, 0] - 1).mean(), 1e-5)
    assert result.worst == lost == pytest.approx(after - before)
    assert "lost" in str(result)


def test_a_new_task_of_an_old_name_begins_anew() -> None:
    size = kmtl.Regression("size", transform="standardize")
    old = kmtl.build_mlp(input_shape=(4,), tasks=[size, B], units=(3,), seed=0)
    old.adapt_targets({"size": np.array([990.0, 1010.0])})
    new = kmtl.transfer(old, [size], seed=5)
    assert set(new.transferred.new) == {"size_head_logits"}
    assert new.transferred.unlike == ()
    assert set(new.transferred.left) == {"size_head_logits", "b_head_logits"}
    assert not new.task_outputs["size"].adapted
    kernels = [m.get_layer("size_head_logits").get_weights()[0] for m in (new, old)]
    assert not np.array_equal(*kernels)
    new.compile("sgd", run_eagerly=True)
    new.fit(X, {"size": np.array([1, 3, 1, 3, 1, 3], "float32")}, verbose=0)
    values = [float(np.squeeze(w)) for w in new.get_layer("size").get_weights()]
    assert 2.0 in values  # the mean of its own labels
    assert 1000.0 not in values
    # A model of one's own: the same task is the same; one of another scale is not.
    kept = kmtl.transfer(old, keep=["size"])
    other = kmtl.transfer(
        old,
        into=kmtl.build_mlp(
            input_shape=(4,), tasks=[kmtl.Regression("size"), B], units=(3,), seed=5
        ),
    )
    np.testing.assert_array_equal(outputs(kept, "size"), outputs(old, "size"))
    np.testing.assert_array_equal(outputs(other, "b"), outputs(old, "b"))
    assert set(other.transferred.new) == {"size_head_logits"}


def test_an_added_task_reads_a_trunk_without_dropout() -> None:
    old = built(A, dropout=0.5)
    added = kmtl.add_task(old, B)
    frozen = kmtl.transfer(old, [B], keep=["a"], freeze="trunk")
    for model in (added, frozen):
        dropouts = [la for la in model.layers if isinstance(la, kmtl.layers.Dropout)]
        assert dropouts
        assert not any(layer.trainable for layer in dropouts)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(added(X, training=True)["a"]), outputs(old)
    )


def test_depths_per_task_go_along() -> None:
    old = built(A, B, sharing_depth={"a": 2, "b": 1})
    new = kmtl.add_task(old, C)
    np.testing.assert_array_equal(outputs(new, "b"), outputs(old, "b"))


def test_refused() -> None:
    old = built(A, B)
    with pytest.raises(ValueError, match="into"):
        kmtl.transfer(old, [C], into=built(C))
    with pytest.raises(ValueError, match="keep"):
        kmtl.transfer(old, [C], keep=["d"])
    with pytest.raises(ValueError, match=r"nothing would be transferred.*block1"):
        kmtl.transfer(old, into=kmtl.build_mlp(input_shape=(3,), tasks=[C]))
    with pytest.raises(ValueError, match="only task"):
        kmtl.remove_task(built(A), "a")
    hand = kmtl.MultiTaskModel(old.input, old.output)
    with pytest.raises(ValueError, match=r"into=model"):
        kmtl.transfer(hand, [C])
    with pytest.raises(ValueError, match=r"`model` must be a model of kmtl.build"):
        kmtl.add_task(hand, C)
    with pytest.raises(ValueError, match="in common"):
        kmtl.forgetting(built(A), built(B), (X, {}))
