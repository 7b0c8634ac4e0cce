"""Learning to branch: draws, annealing, and the tree that it hardens to."""

from __future__ import annotations

import column_tools as tools
import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl import harden
from kmtl.layers import Branch
from kmtl.sharing import LearningToBranch, TreeSharing

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]

TASKS = [kmtl.Classification("kind", classes=3), *map(kmtl.Regression, "abc")]
NAMES = ["kind", "a", "b", "c"]
BUILDERS = {"mlp": tools.mlp, "cnn": tools.cnn}
BLOCKS = {"mlp": {"units": (4, 4, 4)}, "cnn": {"filters": (4, 4, 4)}}


def branching(trunk: str = "mlp", width: int = 3, depth: int = 0, **options):
    sharing = LearningToBranch(width=width, depth=depth)
    return BUILDERS[trunk](**{"tasks": TASKS, "sharing": sharing} | options)


def labels(x: np.ndarray) -> dict[str, np.ndarray]:
    values = x.reshape(len(x), -1)
    return {"kind": np.arange(len(x)) % 3} | {
        n: values[:, i] for i, n in enumerate("abc")
    }


def choose(model, **choices: list[int]) -> None:
    """Make those parents the likeliest: layer -> one per reader."""
    for name, parents in choices.items():
        layer = model.get_layer(name)
        noise = np.random.default_rng(1).uniform(size=layer.logits.shape)
        layer.logits.assign(noise + 3 * np.eye(layer.parents)[parents])


def fork(trunk: str, **options):
    """Tasks a and c on nodes 2, 3, 1; kind and b on 2, 1 and then apart."""
    model = branching(trunk, **BLOCKS[trunk], **options)
    tools.shake(model)
    choose(
        model,
        branch2=[1, 0, 1],
        branch3=[2, 0, 0],
        a_branch4=[0],
        c_branch4=[0],
        kind_branch4=[1],
        b_branch4=[2],
    )
    return model


def test_layer_by_hand() -> None:
    x = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], "float32")
    layer = Branch(3, ["one", "two"], temperature=2.0, anneal_steps=0, seed=4)
    layer(x)
    layer.logits.assign([[0.0, 1.0, 0.5], [2.0, 0.0, 0.0]])
    np.testing.assert_array_equal(tools.value(layer(x)), [[3, 4, 1, 2]])
    generator = keras.random.SeedGenerator(4)
    uniform = keras.random.uniform((2, 3), 1e-20, 1.0, dtype="float32", seed=generator)
    gumbel = -np.log(-np.log(tools.value(uniform).astype("float64")))
    scores = np.exp((tools.value(layer.logits) + gumbel) / 2.0)
    weights = scores / scores.sum(1, keepdims=True)
    expected = (weights @ x.reshape(3, 2)).reshape(1, 4)
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-5)
    readings = layer.readings()
    e = np.exp([0.0, 1.0, 0.5])
    np.testing.assert_allclose(readings["one"], e / e.sum(), rtol=1e-6)
    assert list(readings) == ["one", "two"]
    assert layer.reading_labels() == ("node 1", "node 2", "node 3")
    # Another draw every time.
    assert not np.allclose(layer(x, training=True), expected)


def test_draws_follow_the_probabilities() -> None:
    layer = Branch(2, ["r"], temperature=0.01, final_temperature=0.01, seed=0)
    layer(np.zeros((1, 2)))
    layer.logits.assign([[np.log(3.0), 0.0]])
    draws = np.array([tools.value(layer.sample())[0] for _ in range(400)])
    assert draws[:, 0].mean() == pytest.approx(0.75, abs=0.06)
    assert np.abs(draws.max(1) - 1).mean() < 0.01  # cold draws are one-hot


def test_annealing_is_a_variable_that_training_moves() -> None:
    sharing = LearningToBranch(temperature=8.0, final_temperature=2.0, anneal_steps=4)
    model = tools.mlp(sharing=sharing)
    branch = model.get_layer("kind_branch4")
    x, _ = tools.data(model)
    found = []
    for _ in range(6):
        model(x, training=True)
        model(x)  # inference cools nothing
        found.append(float(tools.value(branch.temperature)))
    expected = [8 * 4 ** (-i / 4) for i in (1, 2, 3, 4)] + [2.0, 2.0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("trunk", BUILDERS)
def test_one_node_is_hard_sharing(trunk: str) -> None:
    build = BUILDERS[trunk]
    one = build(sharing=LearningToBranch(width=1))
    hard = build()
    assert [v.path for v in one.weights] == [v.path for v in hard.weights]
    tools.assert_same(one, hard, tools.data(one)[0])
    # With more nodes everything begins on the first one, which is the plain block.
    wide = build(sharing=LearningToBranch(width=2))
    tools.assert_same(wide, hard, tools.data(one)[0], exactly=False)


@pytest.mark.parametrize("trunk", BUILDERS)
def test_hardened_model(trunk: str) -> None:
    options = {"normalization": "batch", "dropout": 0.2}
    model = fork(trunk, **options)
    model.set_task_weights({"a": 0.25})
    hard = harden(model)
    groups = [[NAMES], [["a", "c"], ["b", "kind"]], [["a", "c"], ["b"], ["kind"]]]
    x, _ = tools.data(model)
    x = np.random.default_rng(3).normal(size=(24, *x.shape[1:])).astype("float32")
    tools.assert_same(hard, model, x, exactly=False)
    assert hard.count_params() < model.count_params()
    assert float(tools.value(hard.task_outputs["a"].task_weight)) == 0.25
    # It is the tree, also to train.
    sharing = TreeSharing(groups=groups)
    tree = BUILDERS[trunk](tasks=TASKS, sharing=sharing, **BLOCKS[trunk], **options)
    assert [v.path for v in tree.weights] == [v.path for v in hard.weights]
    tree.set_weights(hard.get_weights())
    for one in (tree, hard):
        one.compile(keras.optimizers.SGD(0.1))
        one.fit(x, labels(x), batch_size=12, epochs=2, shuffle=False, verbose=0)
    tools.assert_same(tree, hard, x, exactly=False)
    assert not np.allclose(tools.outputs(hard, x)["a"], tools.outputs(model, x)["a"])


def test_hardened_pattern_alone() -> None:
    model = fork("mlp")
    fresh = harden(model, weights=False)
    again = harden(model)
    assert [v.path for v in fresh.weights] == [v.path for v in again.weights]
    # Its weights are those of a tree built anew with the model's seed.
    plain = tools.mlp(tasks=TASKS)
    np.testing.assert_array_equal(
        tools.value(fresh.get_layer("shared_block1_dense").kernel),
        tools.value(plain.get_layer("shared_block1_dense").kernel),
    )
    with pytest.raises(ValueError, match="must be built with a sharing scheme that"):
        harden(plain)


def test_trains_survives_and_is_the_same_after_it(tmp_path) -> None:
    model = branching("cnn", width=2, depth=1, normalization="batch", dropout=0.1)
    x, _ = tools.data(model)
    before = [tools.value(v).copy() for v in model.trainable_variables]
    model.compile("adam", weighting="pcgrad")
    model.fit(x, labels(x), batch_size=3, verbose=0)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (tools.value(variable) != old).any(), variable.path
    assert model.seam is None
    names = {layer.name for layer in model.layers if isinstance(layer, Branch)}
    assert names == {f"{name}_branch3" for name in NAMES}  # block 2 reads one trunk
    choose(model, kind_branch3=[1], a_branch3=[0], b_branch3=[1], c_branch3=[0])
    tools.survives(model, tmp_path)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    tools.assert_same(harden(loaded), model, x, exactly=False)
    for name in names:
        one, two = model.get_layer(name), loaded.get_layer(name)
        state = ops.convert_to_numpy(two.seed_generator.state)
        np.testing.assert_array_equal(state, one.seed_generator.state)
        assert float(two.temperature) == float(one.temperature) < 5.0


def test_half_precision() -> None:
    full = branching(width=2)
    x, _ = tools.data(full)
    keras.config.set_dtype_policy("mixed_float16")  # undone by the `seeded` fixture
    half = branching(width=2)
    for training in (False, True):
        for name, found in half(x, training=training).items():
            assert keras.backend.standardize_dtype(found.dtype) == "float32"
            assert np.isfinite(tools.value(found)).all()
            if not training:
                np.testing.assert_allclose(found, full(x)[name], atol=0.1)


def test_search_space() -> None:
    model = tools.searched("learning_to_branch", width="default", depth=[0, 1])
    assert model.get_layer("kind_branch3").parents == 3


BAD = {
    "width": (lambda: LearningToBranch(width=0), ValueError, "width=0"),
    "depth": (lambda: branching(depth=3), ValueError, "<= 2. .*depth=3"),
    "blocks": (lambda: branching(units=()), ValueError, "of 0 blocks"),
    "temperature": (
        lambda: LearningToBranch(temperature=0),
        ValueError,
        "temperature=0",
    ),
    "final": (
        lambda: LearningToBranch(temperature=1.0, final_temperature=2.0),
        ValueError,
        r"\(0, 1.0\]. Received: final_temperature=2.0",
    ),
    "steps": (lambda: LearningToBranch(anneal_steps=-1), ValueError, "steps=-1"),
    "activation": (
        lambda: branching(activation="softmax"),
        ValueError,
        "every channel by itself",
    ),
    "channels": (
        lambda: Branch(2, ["r"])(np.zeros((1, 3))),
        ValueError,
        "multiple of `parents`",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case: str) -> None:
    make, error, message = BAD[case]
    with pytest.raises(error, match=message):
        make()
