"""What every scheme that mixes experts must be able to do."""

from __future__ import annotations

import keras
import keras_tuner
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl import _registry
from kmtl.layers.gates import Gate

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]

NAMES = ("mmoe", "cgc", "ple", "dselect_k", "sparse_moe")
SIDE = 5
RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, SIDE, SIDE, 2)).astype("float32")
ROWS = IMAGES[:, 0, :2].reshape(6, 4)
TASKS = [kmtl.Regression("a"), kmtl.Classification("b", classes=3)]
Y = {"a": RNG.normal(size=6), "b": RNG.integers(0, 3, 6)}


def scheme(name: str, **arguments):
    return _registry.get("sharing", name)(**arguments)


def cnn(name: str, shape=(SIDE, SIDE, 2), **arguments):
    return kmtl.build_cnn(
        input_shape=shape,
        tasks=TASKS,
        filters=(3, 4),
        normalization="layer",
        dropout=0.1,
        kernel_regularizer="l2",
        sharing=scheme(name, **arguments),
        seed=1,
    )


def mlp(name: str):
    return kmtl.build_mlp(
        input_shape=(4,),
        tasks=TASKS,
        units=(4, 3),
        dropout=0.1,
        sharing=scheme(name),
        seed=1,
    )


def gates(model) -> list[Gate]:
    return [layer for layer in model.layers if isinstance(layer, Gate)]


def same(one: dict, two: dict, **tolerance) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, two[name], **tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_plain_model_computes_the_same(name: str) -> None:
    model = cnn(name, depth=1)
    model.compile("adam")
    model.fit(IMAGES, Y, verbose=0)  # so that no variable is at its initial value
    plain = model.to_keras()
    described = plain.to_json()
    assert '"module": "kmtl' not in described
    assert "kmtl>" not in described
    again = keras.models.model_from_json(described)
    again.set_weights(plain.get_weights())
    same(again(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_any_image_size_and_vectors(name: str) -> None:
    free = cnn(name, shape=(None, None, 2))
    fixed = cnn(name)
    same(free(IMAGES), fixed(IMAGES), rtol=1e-5, atol=1e-6)
    same(free.to_keras()(IMAGES), fixed(IMAGES), rtol=1e-4, atol=1e-5)
    flat = kmtl.build_mlp(
        input_shape=(SIDE, SIDE, 2), tasks=TASKS, units=(4, 3), sharing=name,
        normalization="layer",
    )  # fmt: skip
    same(flat.to_keras()(IMAGES), flat(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_saved_while_training(name: str, tmp_path) -> None:
    model = mlp(name)
    model.compile("adam")
    model.fit(ROWS, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.to_json() == model.to_json()
    for one, two in zip(gates(model), gates(loaded), strict=True):
        same(one.readings(), two.readings())
    histories = []
    for each in (model, loaded):  # the same masks and noise follow
        keras.utils.set_random_seed(0)
        histories.append(each.fit(ROWS, Y, verbose=0).history["loss"])
    assert histories[0] == pytest.approx(histories[1], rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(name: str, policy: str) -> None:
    full = mlp(name)(ROWS)
    keras.config.set_dtype_policy(policy)  # undone by the `seeded` fixture
    model = mlp(name)
    assert gates(model)
    for gate in gates(model):
        weights = keras.Model(model.inputs[0], gate.output)(ROWS)
        assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    outputs = model(ROWS)
    for task, output in outputs.items():
        assert keras.backend.standardize_dtype(output.dtype) == "float32"
        np.testing.assert_allclose(output, full[task], atol=0.1)
    if policy == "mixed_float16":  # with loss scaling
        model.compile("adam")
        loss = model.fit(ROWS, Y, verbose=0).history["loss"]
        assert np.isfinite(loss).all()


@pytest.mark.parametrize("name", NAMES)
def test_gates_belong_to_their_task_and_experts_to_all(name: str) -> None:
    from kmtl.training.task_variables import split_variables

    model = mlp(name)
    shared, own = split_variables(model)
    assert shared
    of_tasks = [layer for layer in gates(model) if layer.name.endswith("_gate1")]
    if name == "ple":  # at the first level the shared path takes from all experts
        of_tasks = [layer for layer in gates(model) if layer.name.endswith("_gate2")]
    assert {gate.task for gate in of_tasks} == {"a", "b"}
    for gate in of_tasks:
        owned = {id(variable) for variable in own[gate.task]}
        assert all(id(v) in owned for v in gate.trainable_variables)
    model.compile("adam", weighting="pcgrad")
    assert model._state.plan.level == "parameters"
    history = model.fit(ROWS, Y, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("name", NAMES)
def test_search_space(name: str) -> None:
    argument = "shared_experts" if name in ("cgc", "ple") else "experts"
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        input_shape=(4,),
        tasks=TASKS,
        units=(4,),
        space={"sharing": ["hard", name], f"{name}.{argument}": (2, 3)},
    )
    values = keras_tuner.HyperParameters()
    values.Fixed("sharing", name)
    values.Fixed(f"{name}.{argument}", 3)
    model = hypermodel.build(values)
    task_experts = 1 if argument == "shared_experts" else 0
    assert {gate.experts for gate in gates(model)} == {3 + task_experts}
    assert ops.shape(model(ROWS)["a"]) == (6, 1)
