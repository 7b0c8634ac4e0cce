from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl.training import executions

pytestmark = pytest.mark.backend

TASKS = (kmtl.Classification("kind", classes=2), kmtl.Regression("size"))
ROWS, BATCH = 76, 2  # 38 steps: a whole call of 32, and a part of one


def build(**options: Any) -> kmtl.MultiTaskModel:
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=TASKS, units=(4,), dropout=0.3, seed=0
    )
    model.compile("adam", weighting="dwa", **options)
    return model


def data() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    x = np.random.default_rng(0).normal(size=(ROWS, 3)).astype("float32")
    kind = np.where(np.arange(ROWS) % 5 == 0, -1, x[:, 0] > 0).astype("int32")
    return x, {"kind": kind, "size": x[:, 1]}


@pytest.fixture(scope="module")
def fitted() -> tuple[kmtl.MultiTaskModel, Any]:
    """A model that chooses, after two epochs, and their history."""
    model = build(steps_per_execution="auto")
    x, y = data()
    history = model.fit(
        x,
        y,
        validation_data=(x[:10], {name: labels[:10] for name, labels in y.items()}),
        batch_size=BATCH,
        epochs=2,
        shuffle=False,
        verbose=0,
    )
    return model, history.history


class Counting(keras.callbacks.Callback):
    """Looks at batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches.append(batch)


def test_numbers_are_those_of_single_steps(
    fitted: tuple[kmtl.MultiTaskModel, Any], tmp_path: Path
) -> None:
    chosen, history = fitted
    assert chosen.steps_per_execution == executions.MOST_STEPS
    single = build(steps_per_execution="auto")
    seen = Counting()
    x, y = data()
    expected = single.fit(
        x,
        y,
        validation_data=(x[:10], {name: labels[:10] for name, labels in y.items()}),
        batch_size=BATCH,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[seen],
    ).history
    assert single.steps_per_execution == 1
    assert seen.batches == [*range(38), *range(38)]
    assert history.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)
    for one, other in zip(chosen.variables, single.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7, err_msg=one.path)
    # `predict` makes no graph of 32 nets.
    found = chosen.predict(x, batch_size=BATCH, verbose=0)
    for name, outputs in single.predict(x, batch_size=BATCH, verbose=0).items():
        np.testing.assert_allclose(found[name], outputs, rtol=1e-5, atol=1e-6)
    assert chosen.steps_per_execution == executions.MOST_STEPS
    chosen.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded._state.chooses_steps


def choice(data: Any, callbacks: Any = None, counts: Any = (None,)) -> int:
    model = build(steps_per_execution="auto")
    executions.choose_steps(model, callbacks, data, counts=counts)
    return int(model.steps_per_execution)


def test_what_is_chosen(tmp_path: Path) -> None:
    x, y = data()
    assert choice((x, y)) == 32
    # No call goes beyond what was asked for.
    assert choice((x, y), counts=(20, None)) == 20
    assert choice((x, y), counts=(96, 36)) == 12
    assert choice((x, y), counts=(37,)) == 1
    assert choice(iter([(x, y)])) == 1
    file = tmp_path / "best.keras"
    epochs = keras.callbacks.ModelCheckpoint(file)
    assert choice((x, y), [epochs, keras.callbacks.EarlyStopping()]) == 32
    assert choice((x, y), [epochs, kmtl.training.Progress()]) == 32
    batches = keras.callbacks.ModelCheckpoint(file, save_freq=3)
    assert choice((x, y), [epochs, batches]) == 1
    assert choice((x, y), keras.callbacks.CallbackList([Counting()])) == 1
    hook = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    assert choice((x, y), [hook]) == 1
    model = build(steps_per_execution="auto", run_eagerly=True, jit_compile=False)
    executions.choose_steps(model, None, x, counts=())
    assert model.steps_per_execution == 1


def test_other_words_are_refused() -> None:
    with pytest.raises(TypeError, match="steps_per_execution"):
        build(steps_per_execution="many")
