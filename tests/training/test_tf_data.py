"""tf.data: labels with holes, masks, unknown shapes, distribution of checks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from core_tools import ROWS, table, table_model

import kmtl
from kmtl.training.user_data import prepare

X, Y = table()
MASK = (np.random.default_rng(3).random(ROWS) < 0.5).astype("float32")


@pytest.fixture(scope="module")
def model():
    model = table_model()
    model.compile(keras.optimizers.SGD(0.0))
    return model


def evaluate(model, *args, **options) -> dict:
    return model.evaluate(*args, return_dict=True, verbose=0, **options)


def test_data_sets_equal_arrays(model) -> None:
    expected = evaluate(model, X, Y, batch_size=8)
    plain = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    assert evaluate(model, plain) == pytest.approx(expected)
    history = model.fit(plain.prefetch(1), validation_data=plain, verbose=0).history
    for name, value in expected.items():
        assert history[name][0] == pytest.approx(value, rel=1e-5)
        assert history[f"val_{name}"][0] == pytest.approx(value, rel=1e-5)
    # Bool masks, of some tasks, on top of holes in the labels.
    masks = {"kind": MASK > 0, "size": np.stack([MASK, 1 - MASK], -1) > 0}
    masked = tf.data.Dataset.from_tensor_slices((X, Y, masks)).batch(8)
    assert evaluate(model, masked) == pytest.approx(
        evaluate(model, X, Y, batch_size=8, sample_weight=masks), rel=1e-5
    )
    steps = plain.repeat()
    assert evaluate(model, steps, steps=3) == pytest.approx(expected)


def test_unknown_sizes() -> None:
    tasks = [
        kmtl.Segmentation("mask", classes=2),
        kmtl.Segmentation("parts", classes=3),
    ]
    model = kmtl.build_cnn(input_shape=(4, 4, 1), tasks=tasks, filters=(2,), seed=0)
    model.compile(keras.optimizers.SGD(0.0))
    rng = np.random.default_rng(0)
    x = rng.random((6, 4, 4, 1)).astype("float32")
    y = {
        "mask": rng.integers(0, 2, (6, 4, 4)),
        "parts": rng.integers(-1, 3, (6, 4, 4, 1)),
    }
    unknown = tf.data.Dataset.from_generator(
        lambda: (
            (x[i : i + 4], {k: v[i : i + 4] for k, v in y.items()}) for i in (0, 4)
        ),
        output_signature=(
            tf.TensorSpec((None, 4, 4, 1)),
            {
                "mask": tf.TensorSpec((None, None, None), "int64"),
                "parts": tf.TensorSpec((None, None, None, None), "int64"),
            },
        ),
    )
    unknown = unknown.apply(tf.data.experimental.assert_cardinality(2))
    assert evaluate(model, unknown) == pytest.approx(
        evaluate(model, x, y, batch_size=4), rel=1e-5
    )


def test_inputs_alone() -> None:
    model = kmtl.build_mlp(
        input_shape=(6,), tasks=[kmtl.Reconstruction("x")], units=(3,)
    )
    model.compile(keras.optimizers.SGD(0.0))
    expected = evaluate(model, X)
    for data in (
        tf.data.Dataset.from_tensor_slices(X).batch(8),
        tf.data.Dataset.from_tensor_slices((X,)).batch(8),
        tf.data.Dataset.from_tensor_slices((X, {})).batch(8),
    ):
        assert evaluate(model, data) == pytest.approx(expected, rel=1e-5)


def test_weights_by_data(model) -> None:
    data = tf.data.Dataset.from_tensor_slices((X, Y, {"kind": MASK})).batch(8)
    model.compile(keras.optimizers.SGD(0.0), loss_weights="data")
    model.fit(data, verbose=0)
    counts = {
        "kind": ((Y["kind"] >= 0) & (MASK > 0)).sum(),
        "flag": (Y["flag"] >= 0).sum(),
        "size": (~np.isnan(Y["size"])).any(1).sum(),
    }
    total = sum(counts.values())
    assert model.task_weights == pytest.approx(
        {name: count / total for name, count in counts.items()}
    )
    model.compile(keras.optimizers.SGD(0.0), loss_weights="data")
    with pytest.raises(ValueError, match=r"needs a finite data set"):
        model.fit(data.repeat(), steps_per_epoch=1, verbose=0)
    model.compile(keras.optimizers.SGD(0.0))


def test_the_first_batch_is_checked_once(model) -> None:
    drawn = []

    def rows():
        drawn.append(None)
        yield X[:8], {name: labels[:8] for name, labels in Y.items()}

    signature = (
        tf.TensorSpec((None, 6)),
        {
            "kind": tf.TensorSpec((None,), "int32"),
            "flag": tf.TensorSpec((None,), "int8"),
            "size": tf.TensorSpec((None, 2), "float64"),
        },
    )
    data = tf.data.Dataset.from_generator(rows, output_signature=signature)
    data = data.apply(tf.data.experimental.assert_cardinality(1))
    evaluate(model, data)
    first = len(drawn)
    evaluate(model, data)
    assert (first, len(drawn)) == (2, 3)
    wrong = tf.data.Dataset.from_tensor_slices((X, Y | {"kind": Y["kind"] + 3})).batch(
        8
    )
    with pytest.raises(ValueError, match=r"task 'kind' must be integers in \[0, 2\]"):
        model.fit(wrong, verbose=0)
    lacking = tf.data.Dataset.from_tensor_slices((X, {"kind": Y["kind"]})).batch(8)
    with pytest.raises(ValueError, match="Labels lack tasks flag, size"):
        evaluate(model, lacking)


def test_distributed_data_sets_are_passed_on(model) -> None:
    class Distributed:  # no `take`, and elements of one tensor per replica
        element_spec = None

        def __iter__(self):
            raise AssertionError("was looked at")

    stream = Distributed()
    assert prepare(model, stream, None, None) == (stream, None, None)
