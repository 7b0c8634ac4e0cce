"""What the tests of sharing schemes with a column per task have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

import kmtl

TASKS = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
NAMES = ("kind", "size")
ROWS = 6


def mlp(**options: Any) -> Any:
    options = {
        "input_shape": (5,),
        "tasks": TASKS,
        "units": (4, 4, 4),
        "activation": "tanh",
        "seed": 1,
        "name": "net",
    } | options
    return kmtl.build_mlp(**options)


def cnn(**options: Any) -> Any:
    options = {
        "input_shape": (6, 6, 2),
        "tasks": TASKS,
        "filters": (4, 4),
        "activation": "tanh",
        "seed": 1,
        "name": "net",
    } | options
    return kmtl.build_cnn(**options)


def data(model: Any, rows: int = ROWS) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Inputs, and labels of `TASKS`."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, *model.input_shape[1:])).astype("float32")
    return x, {"kind": np.arange(rows) % 3, "size": rng.normal(size=rows)}


def value(variable: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(variable))


def outputs(model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value(y) for name, y in model(x).items()}


def assert_same(one: Any, two: Any, x: np.ndarray, exactly: bool = True) -> None:
    """Two models give the same outputs."""
    first, second = outputs(one, x), outputs(two, x)
    assert first.keys() == second.keys()
    for name in first:
        if exactly:
            np.testing.assert_array_equal(first[name], second[name])
        else:
            np.testing.assert_allclose(first[name], second[name], rtol=1e-5, atol=1e-6)


def shake(model: Any, scale: float = 0.1) -> None:
    """Move every weight a little away from where it begins."""
    rng = np.random.default_rng(7)
    for variable in model.trainable_variables:
        noise = scale * rng.normal(size=variable.shape)
        variable.assign(value(variable) + noise.astype("float32"))


def train(model: Any, weighting: Any = None) -> dict[str, float]:
    """One epoch; every trainable variable moves, and the losses are finite."""
    before = [value(variable).copy() for variable in model.trainable_variables]
    model.compile(keras.optimizers.SGD(0.1), weighting=weighting)
    history = model.fit(*data(model), batch_size=ROWS, verbose=0).history
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (value(variable) != old).any(), variable.path
    logs = {name: values[-1] for name, values in history.items()}
    assert np.isfinite(list(logs.values())).all()
    return logs


def survives(model: Any, path: Path) -> None:
    """Saved and loaded, and as a plain Keras model, it computes the same."""
    shake(model)
    x, _ = data(model)
    model.save(path / "model.keras")
    loaded = keras.models.load_model(path / "model.keras")
    assert_same(loaded, model, x)
    plain = model.to_keras()
    assert "kmtl" not in json.dumps(json.loads(plain.to_json()))
    plain.save(path / "plain.keras")
    plain = keras.models.load_model(path / "plain.keras")
    for name, found in plain(x).items():
        np.testing.assert_allclose(found, model(x)[name], rtol=1e-5, atol=1e-6)


def half_precision(build: Any, **options: Any) -> None:
    """In float16 and bfloat16 the outputs are float32 and near those in float32.

    And a model of half precision trains, with a weighting of gradients on parameters.
    """
    full = build(**options)
    x, _ = data(full)
    for policy in ("mixed_float16", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)  # undone by the `seeded` fixture
        half = build(**options)
        for name, found in half(x).items():
            assert keras.backend.standardize_dtype(found.dtype) == "float32"
            np.testing.assert_allclose(found, full(x)[name], atol=0.1)
    train(half, "pcgrad")


def searched(scheme: str, **ranges: Any) -> Any:
    """A model from a space in which the scheme and its arguments are chosen."""
    space = {"sharing": ["hard", scheme]}
    space |= {f"{scheme}.{name}": given for name, given in ranges.items()}
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp, input_shape=(5,), tasks=TASKS, units=(4, 4), space=space
    )
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hypermodel.build(hp)
    hp.values["sharing"] = scheme
    model = hypermodel.build(hp)
    assert set(ranges) == {
        name.split(".")[1] for name in hp.values if name.startswith(f"{scheme}.")
    }
    return model
