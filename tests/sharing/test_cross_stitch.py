"""Cross-stitch networks against Misra et al. 2016, eq. 1."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from column_tools import (
    NAMES,
    TASKS,
    assert_same,
    cnn,
    data,
    half_precision,
    mlp,
    outputs,
    searched,
    survives,
    value,
)

import kmtl
from kmtl.layers import Stitch
from kmtl.sharing import CrossStitch

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]


def names_of(model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, Stitch)]


def dense(model, name: str, x: np.ndarray) -> np.ndarray:
    layer = model.get_layer(name)
    return x @ value(layer.kernel) + value(layer.bias)


@pytest.mark.parametrize("per_channel", [True, False])
def test_equation(per_channel: bool) -> None:
    """x̃_A = α_AA x_A + α_AB x_B, and the same for B, after every block."""
    model = mlp(units=(4, 4), sharing=CrossStitch(per_channel=per_channel))
    rng = np.random.default_rng(3)
    x, _ = data(model)
    columns = dict.fromkeys(NAMES, x)
    for number in (1, 2):
        alphas = {}
        for name in NAMES:
            layer = model.get_layer(f"{name}_stitch{number}")
            shape = (2, 4) if per_channel else (1, 2, 1)
            assert layer.alpha.shape == shape
            layer.alpha.assign(rng.normal(size=shape))
            alphas[name] = value(layer.alpha).reshape(2, -1)  # sources, channels
        own = {
            name: np.tanh(dense(model, f"{name}_block{number}_dense", columns[name]))
            for name in NAMES
        }
        columns = {
            name: alphas[name][0] * own["kind"] + alphas[name][1] * own["size"]
            for name in NAMES
        }
    found = outputs(model, x)
    for name in NAMES:
        expected = dense(model, f"{name}_head_logits", columns[name])
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("build", [mlp, cnn])
def test_at_identity_it_is_independent(build, per_channel: bool) -> None:
    scheme = CrossStitch(per_channel=per_channel, self_weight=1.0)
    model = build(sharing=scheme, normalization="batch", dropout=0.1)
    independent = build(sharing="independent", normalization="batch", dropout=0.1)
    x, _ = data(model)
    assert_same(model, independent, x)


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_stitches_may_learn_faster(per_channel: bool, tmp_path) -> None:
    """A step of gradient descent moves α by `rate` times the learning rate."""
    moved = {}
    for rate in (1.0, 100.0):
        scheme = CrossStitch(per_channel=per_channel, rate=rate)
        model = mlp(sharing=scheme)
        before = kmtl.gates(model).frame["value"].to_numpy()
        x, y = data(model)
        model.compile(keras.optimizers.SGD(1e-3))
        model.fit(x, y, batch_size=len(x), verbose=0)
        moved[rate] = kmtl.gates(model).frame["value"].to_numpy() - before
    np.testing.assert_allclose(moved[100.0], 100 * moved[1.0], rtol=1e-2, atol=1e-5)
    assert np.abs(moved[100.0]).max() > 1e-3
    survives(model, tmp_path)


def test_initial_weights() -> None:
    three = [*TASKS, kmtl.Regression("tone")]
    model = mlp(tasks=three, sharing=CrossStitch(self_weight=0.8))
    readings = model.get_layer("size_stitch2").readings()
    assert list(readings) == ["size"]
    np.testing.assert_allclose(readings["size"], [0.1, 0.8, 0.1], rtol=1e-6)
    labels = model.get_layer("size_stitch2").reading_labels()
    assert labels == ("kind", "size", "tone")


def test_where_it_stitches() -> None:
    every = [f"{name}_stitch{i}" for i in (1, 2, 3) for name in NAMES]
    assert sorted(names_of(mlp(sharing="cross_stitch"))) == sorted(every)
    model = mlp(sharing=CrossStitch(after=(3, 1)))
    assert sorted(names_of(model)) == sorted(n for n in every if n[-1] != "2")
    model = mlp(sharing=CrossStitch(depth=2))
    assert sorted(names_of(model)) == ["kind_stitch3", "size_stitch3"]
    assert model.get_layer("shared_block2_dense")
    single = mlp(sharing="cross_stitch", tasks=TASKS[:1])
    assert names_of(single) == []


def test_what_a_task_owns() -> None:
    """The last stitch of a task is its own; whatever feeds another is shared."""
    from kmtl.training.task_variables import split_variables

    shared, own = split_variables(mlp(units=(4, 4), sharing="cross_stitch"))
    assert {v.path for v in own["kind"]} == {
        "kind_stitch2/alpha",
        "kind_head_logits/kernel",
        "kind_head_logits/bias",
    }
    paths = {v.path for v in shared}
    assert {"kind_stitch1/alpha", "kind_block2_dense/kernel"} <= paths


@pytest.mark.parametrize(("build", "per_channel"), [(mlp, True), (cnn, False)])
def test_saving(build, per_channel: bool, tmp_path) -> None:
    scheme = CrossStitch(per_channel=per_channel)
    survives(build(sharing=scheme, normalization="batch"), tmp_path)


def test_training_in_half_precision() -> None:
    half_precision(mlp, sharing="cross_stitch")


def test_search_space() -> None:
    model = searched("cross_stitch", self_weight=(0.6, 0.6001), per_channel=[False])
    assert model.get_layer("kind_stitch1").alpha.shape == (1, 2, 1)


def test_features_level_is_refused() -> None:
    from kmtl.weighting import PCGrad

    model = mlp(sharing="cross_stitch")
    with pytest.raises(ValueError, match="one place where the tasks part"):
        model.compile("sgd", weighting=PCGrad(level="features"))


class Uneven(kmtl.backbones.MLP):
    """A trunk whose blocks are wider for a task than for the others."""

    def block(self, index, features, make):
        wide = 1 if make.prefix.startswith("size") else 0
        return make.dense(self.units[index] + wide, "dense")(features)


Uneven.registered_name = "uneven"
BAD = {
    "depth": (lambda: mlp(sharing=CrossStitch(depth=3)), "depth.*<= 2"),
    "no_blocks": (lambda: mlp(units=(), sharing="cross_stitch"), "at least one block"),
    "after": (lambda: mlp(sharing=CrossStitch(after=(4,))), "1 to 3 of this.*after="),
    "after_shared": (
        lambda: mlp(sharing=CrossStitch(depth=1, after=(1,))),
        "2 to 3 of this",
    ),
    "after_twice": (lambda: CrossStitch(after=(1, 1)), "distinct block numbers"),
    "after_none": (lambda: CrossStitch(after=()), "at least one, or be None"),
    "weight": (lambda: CrossStitch(self_weight=1.5), r"self_weight=1\.5"),
    "sharing_depth": (
        lambda: mlp(sharing="cross_stitch", sharing_depth=1),
        "belongs to sharing='hard'",
    ),
    "shapes": (
        lambda: kmtl.build(
            backbone=Uneven(units=(4, 4)),
            input_shape=(5,),
            tasks=TASKS,
            sharing="cross_stitch",
        ),
        r"make block 1 alike for all tasks.*kind_block1 \(4,\), size_block1 \(5,\)",
    ),
    "sources": (lambda: Stitch(sources=["a", "a"], own="a"), "must be distinct"),
    "own": (lambda: Stitch(sources=["a", "b"], own="c"), "own='c'"),
    "both": (
        lambda: Stitch(sources=["a"], own="a", per_channel=True, subspaces=2),
        "one subspace",
    ),
    "divisor": (
        lambda: Stitch(sources=["a"], own="a", subspaces=2)([keras.Input((3,))]),
        "divide the number of channels 3",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match="per_channel='no'"):
        CrossStitch(per_channel="no")
