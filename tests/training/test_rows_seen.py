"""Every epoch sees every row once, whatever the data set keeps and reads ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kmtl

pytestmark = pytest.mark.backend

ROWS = 20
X = np.arange(3 * ROWS, dtype="float32").reshape(ROWS, 3) / ROWS
IDS = np.arange(1, ROWS + 1, dtype="float32")
#: Sums that no other choice of 20 rows from these has, but by taking each once.
EXPECTED = {"rows": ROWS, "ids": IDS.sum(), "squares": (IDS**2).sum()}


@keras.saving.register_keras_serializable(package="tests")
class SumOf(keras.metrics.Metric):
    """Sum of a power of all labels."""

    def __init__(self, power: int, **options: Any):
        super().__init__(**options)
        self.power = power
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.total.assign_add(
            keras.ops.sum(keras.ops.cast(y_true, "float32") ** self.power)
        )

    def result(self) -> Any:
        return self.total + 0.0

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"power": self.power}


def counters() -> list[SumOf]:
    return [SumOf(power, name=name) for power, name in enumerate(EXPECTED)]


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    made = kmtl.build_mlp(
        input_shape=(3,), tasks=[kmtl.Regression("id")], units=(2,), seed=0
    )
    made.compile(keras.optimizers.SGD(0.0), metrics={"id": counters()})
    return made


def examples() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, {"id": IDS}))


def many(data: tf.data.Dataset) -> tf.data.Dataset:
    """Read in parallel and ahead."""
    data = data.map(
        lambda *parts: parts, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return data.prefetch(tf.data.AUTOTUNE)


def of_unknown_length(data: tf.data.Dataset) -> tf.data.Dataset:
    return data.filter(lambda *_: True)


SETS: dict[str, Callable[[], tf.data.Dataset]] = {
    "whole batches": lambda: many(many(examples()).cache().shuffle(ROWS).batch(5)),
    "a partial batch": lambda: many(many(examples()).cache().shuffle(7).batch(6)),
    "batches kept": lambda: many(examples().shuffle(ROWS).batch(6)).cache().prefetch(2),
    "no known length": lambda: many(
        of_unknown_length(many(examples())).cache().shuffle(ROWS).batch(6)
    ),
}


# Keras tells so of every data set of no known length, once.
UNKNOWN = pytest.mark.filterwarnings("ignore:Your input ran out of data")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=UNKNOWN if name == "no known length" else ())
        for name in SETS
    ],
)
def test_epochs_and_evaluations_see_every_row_once(model: Any, name: str) -> None:
    data, other = SETS[name](), SETS[name]()
    history = model.fit(data, validation_data=data, epochs=3, verbose=0).history
    for prefix in ("", "val_"):
        for key, value in EXPECTED.items():
            assert history[f"{prefix}id_{key}"] == [value] * 3
    for _ in range(2):
        logs = model.evaluate(other, return_dict=True, verbose=0)
        assert {key: logs[f"id_{key}"] for key in EXPECTED} == EXPECTED


def test_a_cache_is_full_before_anything_reads_a_part_of_it(model: Any) -> None:
    """An iterator that is dropped half-read can end a cache for good."""
    seen: list[str] = []

    def rows() -> Iterator[tuple]:
        seen.append("open")
        for at in range(ROWS):
            yield X[at], {"id": IDS[at]}
        seen.append("read whole")

    signature = (tf.TensorSpec((3,)), {"id": tf.TensorSpec(())})
    data = tf.data.Dataset.from_generator(rows, output_signature=signature)
    data = data.apply(tf.data.experimental.assert_cardinality(ROWS))
    data = many(many(data).cache().batch(6))
    begin = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: seen.append("train")
    )
    history = model.fit(
        data.repeat(),  # its own iterators are dropped half-read
        steps_per_epoch=4,
        validation_data=data,
        epochs=2,
        callbacks=[begin],
        verbose=0,
    ).history
    assert history["id_rows"] == history["val_id_rows"] == [ROWS] * 2
    assert seen == ["open", "read whole", "train"]
