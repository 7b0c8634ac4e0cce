"""Tasks that the trunk learns not to know: the gradient turned round at its end."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from core_tools import table, table_tasks

import kmtl
from kmtl.layers import GradientReversal
from kmtl.training.attacking import input_gradient

pytestmark = pytest.mark.backend

X, Y = table(8)


def model_of(strength: float, depth: int = 1, **options):
    tasks = [
        task.replace(adversarial=strength, missing=-1) if task.name == "flag" else task
        for task in table_tasks()
    ]
    return kmtl.build_mlp(
        input_shape=(6,), tasks=tasks, units=(5, 4), sharing_depth=depth,
        activation="tanh", seed=0, **options,
    )  # fmt: skip


def changes(model, weighting=None) -> dict[str, np.ndarray]:
    """What a step of plain gradient descent takes away, by variable."""
    model.compile(keras.optimizers.SGD(1.0), weighting=weighting, run_eagerly=True)
    before = {v.path: keras.ops.convert_to_numpy(v) for v in model.trainable_variables}
    model.train_on_batch(X, Y)
    return {
        v.path: before[v.path] - keras.ops.convert_to_numpy(v)
        for v in model.trainable_variables
    }


def test_the_layer_turns_the_gradient() -> None:
    layer = GradientReversal(0.5)
    x = np.array([1.0, -3.0, 1e20], "float32")
    np.testing.assert_array_equal(layer(x), x)
    (found,) = input_gradient(
        lambda parts: keras.ops.sum(layer(parts[0]) * np.array([1, 2, 3], "float32")),
        [keras.ops.convert_to_tensor(x)],
    )
    np.testing.assert_allclose(found, [-0.5, -1.0, -1.5])
    same = GradientReversal.from_config(layer.get_config())
    assert same.get_config()["strength"] == 0.5


@pytest.mark.parametrize("weighting", [None, "mgda"])
@pytest.mark.thorough(on="jax")
def test_the_trunk_unlearns_and_the_own_part_learns(weighting) -> None:
    parts = {}
    for name, strength, weight in (
        ("with", 0.5, 1.0), ("without", 0.0, 1.0), ("never", 0.0, 0.0)
    ):  # fmt: skip
        model = model_of(strength)
        model.set_task_weights({"flag": weight})
        parts[name] = changes(model, None if name != "with" else weighting)
    for path, change in parts["with"].items():
        if "shared" not in path:
            # The adversary's own block and head learn their task as ever.
            np.testing.assert_allclose(change, parts["without"][path], atol=1e-6)
        elif weighting is None:
            own = parts["without"][path] - parts["never"][path]
            turned = parts["never"][path] - 0.5 * own
            np.testing.assert_allclose(change, turned, atol=1e-6)
            assert np.abs(own).max() > 1e-3


@pytest.mark.thorough(on="jax")
def test_saved_and_as_plain_keras(tmp_path) -> None:
    model = model_of(0.25, depth=2)
    model.get_layer("flag_head_reversal").strength.assign(0.125)
    assert model.task("flag").auxiliary
    model.save(tmp_path / "model.keras")
    loaded = kmtl.load_model(tmp_path / "model.keras")
    assert loaded.task("flag").adversarial == 0.25
    strength = loaded.get_layer("flag_head_reversal").strength
    assert float(keras.ops.convert_to_numpy(strength)) == 0.125
    answers = model.to_keras()(X)
    found = model(X)
    np.testing.assert_allclose(answers["size"], found["size"], rtol=1e-6)


def test_refused() -> None:
    with pytest.raises(ValueError, match="must share blocks"):
        model_of(1.0, depth=0)
    with pytest.raises(ValueError, match="sharing='hard'"):
        kmtl.build_mlp(
            input_shape=(6,),
            tasks=[kmtl.Regression("size", adversarial=1), kmtl.Regression("age")],
            sharing="mmoe",
        )
    with pytest.raises(ValueError, match="adversarial"):
        kmtl.Regression("size", adversarial=-1)
