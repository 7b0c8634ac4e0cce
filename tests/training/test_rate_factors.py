"""Factors of the learning rate: those of an optimizer of its own with that rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kmtl

pytestmark = pytest.mark.backend

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(8, 3)).astype("float32")
Y = {"a": RANDOM.normal(size=8), "b": RANDOM.normal(size=8)}
TASKS = [kmtl.Regression("a", hidden=(3,)), kmtl.Regression("b")]
RATE = 0.05
FACTORS = {"trunk": 0.1, "block_2": 0.5, "a": 3.0}
OPTIMIZERS = {
    "Adadelta": {},
    "Adafactor": {},
    "Adagrad": {},
    "Adam": {"amsgrad": True},
    "Adamax": {},
    "AdamW": {"weight_decay": 0.1},
    "Ftrl": {},
    "Lamb": {"weight_decay": 0.1},
    "Lion": {},
    "Muon": {"weight_decay": 0.1},
    "Nadam": {},
    "RMSprop": {"momentum": 0.9, "centered": True, "weight_decay": 0.2},
    "Scheduled": {},
    "ScheduleFreeAdamW": {"weight_decay": 0.1},
    "SGD": {"momentum": 0.9, "nesterov": True, "use_ema": True, "clipnorm": 1.0},
}


def optimizer(name: str, factor: float = 1.0) -> keras.optimizers.Optimizer:
    """An optimizer with a learning rate of its own."""
    rate: Any = RATE * factor
    if name == "Scheduled":
        rate = keras.optimizers.schedules.ExponentialDecay(rate, 1, 0.5)
        return keras.optimizers.Adam(rate)
    return getattr(keras.optimizers, name)(rate, **OPTIMIZERS[name])


def built(depth: Any = 1) -> kmtl.MultiTaskModel:
    return kmtl.build_mlp(
        input_shape=(3,), tasks=TASKS, units=(4, 3), sharing_depth=depth, seed=0,
        dropout=None, kernel_regularizer="l2",
    )  # fmt: skip


def factor_of(path: str) -> float:
    """What FACTORS says of a variable."""
    if "_head_" in path:
        return FACTORS["a"] if path.startswith("a_") else 1.0
    return FACTORS["block_2"] if "block2" in path else FACTORS["trunk"]


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_that_of_an_optimizer_with_that_rate(name: str) -> None:
    def after(factor: float, **options: Any) -> dict[str, np.ndarray]:
        model = built()
        model.compile(optimizer(name, factor), run_eagerly=True, **options)
        model.train_on_batch(X, Y)
        return weights(model)

    found = after(1.0, lr_multipliers=FACTORS)
    expected = {factor: after(factor) for factor in (0.1, 0.5, 1.0, 3.0)}
    for path, value in found.items():
        own = expected[factor_of(path)][path]
        np.testing.assert_allclose(value, own, rtol=1e-5, atol=1e-7, err_msg=path)


def test_a_factor_of_zero_holds_a_part_where_it_is() -> None:
    model = built()
    before = weights(model)
    model.compile(
        optimizer("AdamW"), weighting="mgda", lr_multipliers={"block1": 0, "b": 0}
    )
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
    for path, value in weights(model).items():
        still = path.startswith(("shared_block1", "b_head"))
        assert (value == before[path]).all() == still, path
    model.compile(model.optimizer)  # no factors any more
    model.fit(X, Y, batch_size=4, verbose=0)
    for path, value in weights(model).items():
        assert (value != before[path]).any(), path


def test_a_task_may_be_called_as_a_block_is() -> None:
    tasks = [kmtl.Regression("block2"), kmtl.Regression("price")]
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=tasks, units=(4, 4), sharing_depth=0, seed=0
    )
    model.freeze("block_1")
    trained = {v.path.split("/")[0] for v in model.trainable_variables}
    assert trained == {
        f"{task}_{part}"
        for task in ("block2", "price")
        for part in ("block2_dense", "head_logits")
    }


def test_compiled_as_eagerly_in_all_conditions() -> None:
    """Accumulated gradients, a mixed policy's loss scaling, absent tasks."""
    absent = {**Y, "b": np.where(np.arange(8) < 4, np.nan, Y["b"])}
    found = []
    for options in ({"run_eagerly": True}, {}):
        model = built(2)
        chosen = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.AdamW(RATE, gradient_accumulation_steps=2)
        )
        model.compile(chosen, lr_multipliers=FACTORS, **options)
        model.fit(X, absent, batch_size=4, shuffle=False, epochs=2, verbose=0)
        found.append(weights(model))
    for path, value in found[0].items():
        np.testing.assert_allclose(value, found[1][path], rtol=1e-4, atol=1e-6)


def test_saved_with_the_model(tmp_path: Path) -> None:
    model = built()
    model.compile(optimizer("Adam"), lr_multipliers=FACTORS)
    model.train_on_batch(X, Y)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one in (model, loaded):
        one.train_on_batch(X, Y)
    for path, value in weights(loaded).items():
        np.testing.assert_allclose(value, weights(model)[path], rtol=1e-6, atol=1e-7)


def test_in_baselines_and_searches() -> None:
    from kmtl.evaluation._plan import Plan
    from kmtl.tuning.reuse import compilation

    plan = Plan.compile_for
    options = {"optimizer": "adam", "lr_multipliers": FACTORS}

    class Given:
        compile_options = options

    single = plan(Given, TASKS[1])
    assert single["lr_multipliers"] == {"trunk": 0.1, "block_2": 0.5}
    assert plan(Given, TASKS[0])["lr_multipliers"] == FACTORS
    other = {**options, "lr_multipliers": {"trunk": 0.2}}
    keys = [
        compilation({**given, "optimizer": keras.optimizers.Adam()})
        for given in (options, other)
    ]
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([0.1], TypeError, "dict name of a part"),
        ({"trnk": 0.1}, ValueError, "Did you mean 'trunk'"),
        ({"block_3": 0.1}, ValueError, "block_1, block_2, trunk"),
        ({"a": -1}, ValueError, r"lr_multipliers\['a'\]"),
        ({"a": "1"}, TypeError, r"lr_multipliers\['a'\]"),
    ],
)
def test_refusals(given: Any, error: type, message: str) -> None:
    model = built()
    with pytest.raises(error, match=message):
        model.compile("adam", lr_multipliers=given)
    assert not model.compiled
