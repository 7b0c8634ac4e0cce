"""A device without memory left is told of in a sentence, with a size that fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl.training import OutOfMemoryError
from kmtl.training.memory import is_out_of_memory
from kmtl.tuning import population as populations

pytestmark = pytest.mark.backend
ON_JAX = keras.backend.backend() == "jax"
TASKS = (kmtl.Classification("kind", classes=2), kmtl.Regression("size"))
SHAPE = {"input_shape": (3,), "units": (4,), "tasks": TASKS}


def data(rows: int = 8) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    x = np.random.default_rng(0).normal(size=(rows, 3)).astype("float32")
    return x, {"kind": (x[:, 0] > 0).astype("int32"), "size": x[:, 1]}


def backend_error() -> Exception:
    """What the backend itself raises."""
    if ON_JAX:
        import jax

        return jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 "
            "bytes."
        )
    import tensorflow as tf

    return tf.errors.ResourceExhaustedError(
        None, None, "OOM when allocating tensor with shape[65536,65536]"
    )


class Hungry(keras.callbacks.Callback):
    """Raises the backend's error in the middle of an epoch."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        raise backend_error()

    on_test_batch_end = on_train_batch_end


def test_fit_names_a_batch_that_fits() -> None:
    x, y = data()
    model = kmtl.build_mlp(**SHAPE)
    model.compile("adam")
    with pytest.raises(OutOfMemoryError, match=r"with batch_size=4 \(.*float32") as one:
        model.fit(x, y, batch_size=4, verbose=0, callbacks=[Hungry()])
    assert one.value.fits == 2
    assert "batch_size=2 should fit" in str(one.value)
    assert isinstance(one.value.__cause__, type(backend_error()))
    # The model is whole: the advice can be followed at once.
    model.fit(x, y, batch_size=one.value.fits, verbose=0)
    with pytest.raises(OutOfMemoryError, match="batch_size=16 should fit"):
        model.evaluate(x, y, verbose=0, callbacks=[Hungry()])
    with pytest.raises(OutOfMemoryError, match="No smaller `batch_size`") as least:
        model.fit(x, y, batch_size=1, verbose=0, callbacks=[Hungry()])
    assert least.value.fits is None


def test_what_is_no_lack_of_memory() -> None:
    assert is_out_of_memory(backend_error())
    assert not is_out_of_memory(ValueError("RESOURCE_EXHAUSTED"))
    full = type(backend_error())
    arguments = () if ON_JAX else (None, None)
    assert not is_out_of_memory(full(*arguments, "file.tmp; No space left on device"))


def hypermodel() -> kmtl.HyperModel:
    return kmtl.HyperModel(kmtl.build_mlp, seed=0, space=["learning_rate"], **SHAPE)


@pytest.mark.skipif(not ON_JAX, reason="populations train on JAX alone")
def test_a_population_shrinks_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from kmtl.training.epoch_program import Program
    from kmtl.tuning.population import run

    lower, widths = Program.lower, []

    def counted(self: Program, states: Any, rows: Any, *data: Any) -> Any:
        widths.append(len(states[0][0].shape) and states[0][0].shape[0])
        if widths[-1] > 2:
            raise backend_error()
        return lower(self, states, rows, *data)

    monkeypatch.setattr(Program, "lower", counted)
    x, y = data()
    alone = run.Population(hypermodel(), x, y, batch_size=4, width=6)
    members = [populations.Member(hypermodel().default_values())] * 6
    with pytest.raises(OutOfMemoryError, match="population=3 should fit") as error:
        alone.train(members, epochs=1)
    assert error.value.fits == 3

    widths.clear()
    tuner = kmtl.RandomSearch(
        hypermodel(), objective="val_loss", max_trials=5, seed=0, population=5,
        directory=tmp_path,
    )  # fmt: skip
    with caplog.at_level("WARNING", "kmtl"):
        tuner.search(x, y, validation_data=(x, y), epochs=1, batch_size=4, verbose=0)
    assert widths == [5, 2]
    assert "population=2 should fit" in caplog.text
    assert [t.status for t in tuner.oracle.trials.values()] == ["COMPLETED"] * 5
