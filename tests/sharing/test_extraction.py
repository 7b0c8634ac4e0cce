"""CGC and PLE against their equations, and their limits."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.sharing import CGC, PLE

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4)).astype("float32")
TASKS = [kmtl.Regression("b"), kmtl.Classification("a", classes=3)]
Y = {"b": RNG.normal(size=6), "a": RNG.integers(0, 3, 6)}


def mlp(sharing, **options):
    options = {"units": (5, 3), "seed": 2, "tasks": TASKS} | options
    return kmtl.build_mlp(input_shape=(4,), sharing=sharing, **options)


def weights(model, layer: str) -> list[np.ndarray]:
    layer = model.get_layer(layer)
    return [ops.convert_to_numpy(variable) for variable in layer.trainable_variables]


def dense(model, layer: str, inputs: np.ndarray) -> list[np.ndarray]:
    """Outputs of a bank's dense layer that reads a common input, per expert."""
    kernel, bias = weights(model, layer)
    outputs = np.maximum(inputs @ kernel + bias, 0)
    units = {"block1": 5, "block2": 3}[layer.split("_")[-2]]
    return np.split(outputs, outputs.shape[1] // units, axis=1)


def mix(model, gate: str, inputs: np.ndarray, experts: list) -> np.ndarray:
    powers = np.exp(inputs @ weights(model, gate)[0])
    shares = powers / powers.sum(1, keepdims=True)
    assert shares.shape[1] == len(experts)
    return sum(shares[:, [e]] * expert for e, expert in enumerate(experts))


def head(model, task: str, features: np.ndarray) -> np.ndarray:
    kernel, bias = weights(model, f"{task}_head_logits")
    return features @ kernel + bias


def test_the_equations_of_ple() -> None:
    model = mlp(PLE(shared_experts=2, task_experts=3))
    paths = {"a": X, "b": X, "shared": X}
    for i in (1, 2):
        experts = {
            name: dense(model, f"{name}_experts_block{i}_dense", path)
            for name, path in paths.items()
        }
        assert {name: len(found) for name, found in experts.items()} == {
            "a": 3, "b": 3, "shared": 2,
        }  # fmt: skip
        own = {name: experts[name] + experts["shared"] for name in "ab"}
        everything = experts["a"] + experts["b"] + experts["shared"]
        after = {
            name: mix(model, f"{name}_gate{i}", paths[name], own[name]) for name in "ab"
        }
        if i == 1:
            shared = mix(model, "shared_gate1", paths["shared"], everything)
            after["shared"] = shared
        paths = after
    outputs = model(X)
    for name in "ab":
        np.testing.assert_allclose(
            outputs[name], head(model, name, paths[name]), rtol=1e-4, atol=1e-5
        )
    labels = model.get_layer("shared_gate1").reading_labels()
    assert labels == (
        "a 1", "a 2", "a 3", "b 1", "b 2", "b 3", "shared 1", "shared 2",
    )  # fmt: skip
    with pytest.raises(ValueError, match="No such layer"):
        model.get_layer("shared_gate2")


def test_the_equations_of_cgc() -> None:
    model = mlp(CGC(shared_experts=1, task_experts=1))
    outputs = model(X)
    for name in "ab":
        experts = []
        for owner in (name, "shared"):
            (hidden,) = dense(model, f"{owner}_experts_block1_dense", X)
            experts += dense(model, f"{owner}_experts_block2_dense", hidden)
        mixed = mix(model, f"{name}_gate1", X, experts)
        expected = head(model, name, mixed)
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-4, atol=1e-5)


def trained(sharing) -> dict[str, np.ndarray]:
    model = mlp(sharing, normalization="batch", dropout=0.2)
    model.compile("adam")
    keras.utils.set_random_seed(0)
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
    return model.predict(X, verbose=0)


def same(one: dict, two: dict, equal=np.testing.assert_array_equal) -> None:
    assert set(one) == set(two)
    for name, value in one.items():
        equal(value, two[name])


def test_without_shared_experts_tasks_are_independent() -> None:
    alone = PLE(shared_experts=0, task_experts=1)
    same(trained(alone), trained(kmtl.sharing.HardSharing(depth=0)))
    # With more experts than one, no task moves another one's.
    model = mlp(PLE(shared_experts=0, task_experts=2))
    before = model(X)["a"]
    model.compile(keras.optimizers.SGD(0.1), loss_weights={"a": 0.0})
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(model(X)["a"], before)
    # With a shared expert it does.
    model = mlp(PLE(shared_experts=1, task_experts=1))
    before = model(X)["a"]
    model.compile(keras.optimizers.SGD(0.1), loss_weights={"a": 0.0})
    model.fit(X, Y, verbose=0)
    assert not np.allclose(model(X)["a"], before)


def test_without_task_experts_cgc_is_mmoe() -> None:
    same(
        trained(CGC(shared_experts=3, task_experts=0)),
        trained(kmtl.sharing.MMoE(experts=3)),
    )


def test_one_level_of_ple_is_cgc() -> None:
    arguments = {"shared_experts": 2, "task_experts": 2}
    one, two = (mlp(kind(**arguments), units=(5,)) for kind in (PLE, CGC))
    same(one(X), two(X))
    one, two = (mlp(kind(**arguments, depth=1)) for kind in (PLE, CGC))
    same(one(X), two(X))


@pytest.mark.parametrize("kind", [CGC, PLE])
def test_refusals(kind: type) -> None:
    with pytest.raises(ValueError, match="One of `shared_experts` and `task_experts`"):
        kind(shared_experts=0, task_experts=0)
    with pytest.raises(ValueError, match=r"`task_experts`.*=-1"):
        kind(task_experts=-1)
    with pytest.raises(ValueError, match=r"`depth`.*<= 1\. .*depth=2"):
        mlp(kind(depth=2))
    with pytest.raises(ValueError, match=r"`temperature`"):
        kind(temperature=0.0)


@pytest.mark.parametrize("kind", [CGC, PLE])
def test_a_number_of_experts_per_task(kind) -> None:
    """m_k of the paper; the experts that both have begin alike."""
    model = mlp(kind(shared_experts=2, task_experts={"a": 3, "b": 0}))
    assert model.get_layer("a_gate1").reading_labels() == (
        "a 1", "a 2", "a 3", "shared 1", "shared 2",
    )  # fmt: skip
    assert model.get_layer("b_gate1").reading_labels() == ("shared 1", "shared 2")
    assert not [layer for layer in model.layers if layer.name.startswith("b_experts")]
    even = mlp(kind(shared_experts=2, task_experts=3))
    for ours, theirs in zip(
        dense(model, "a_experts_block1_dense", X),
        dense(even, "a_experts_block1_dense", X),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    again = kmtl.sharing.Sharing.from_config(
        kind(task_experts={"a": 3, "b": 0}).to_config()
    )
    assert again == kind(task_experts={"a": 3, "b": 0})


@pytest.mark.parametrize("kind", [CGC, PLE])
def test_numbers_of_experts_per_task_are_checked(kind) -> None:
    with pytest.raises(ValueError, match=r"`task_experts\['b'\]`.*=-1"):
        kind(task_experts={"a": 1, "b": -1})
    with pytest.raises(ValueError, match=r"or a task has no expert.*'b': 0"):
        kind(shared_experts=0, task_experts={"a": 1, "b": 0})
    with pytest.raises(ValueError, match=r"Unknown task 'c' in `task_experts`"):
        mlp(kind(task_experts={"a": 1, "c": 1}))
