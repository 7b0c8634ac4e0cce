"""Values that are read and assigned many at once are those of Keras' own way."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.training import values

pytestmark = pytest.mark.backend


def variables() -> list[keras.Variable]:
    numbers = np.arange(6, dtype="float32").reshape(2, 3)
    return [
        keras.Variable(numbers, name="matrix"),
        keras.Variable(3, dtype="int32", name="count"),
        keras.Variable([True, False], dtype="bool", name="flags"),
        keras.Variable(numbers[0], dtype="float16", name="half"),
    ]


def test_read_gives_copies() -> None:
    given = variables()
    found = values.read(given)
    for array, variable in zip(found, given, strict=True):
        expected = ops.convert_to_numpy(variable.value)
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    found[0][:] = -1.0
    np.testing.assert_array_equal(ops.convert_to_numpy(given[0].value)[0], [0, 1, 2])


def test_assign_keeps_dtypes_and_refuses_other_shapes() -> None:
    given, other = variables(), variables()
    new = [array + array for array in values.read(given)]
    values.assign(given, new)
    for variable, array in zip(other, new, strict=True):
        variable.assign(array)
    for one, two in zip(given, other, strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(
            *map(ops.convert_to_numpy, (one.value, two.value))
        )
    with pytest.raises(ValueError, match="shape"):
        values.assign(given[:1], [np.zeros((3, 2), "float32")])
    np.testing.assert_array_equal(values.read(given[:1])[0], new[0])


class Counting(keras.metrics.Mean):
    """A metric whose state is more than its variables."""

    resets = 0

    def reset_state(self) -> None:
        super().reset_state()
        self.resets += 1


def test_reset_is_reset_state() -> None:
    metrics = [
        keras.metrics.Mean(),
        keras.metrics.Sum(),
        keras.metrics.AUC(num_thresholds=5),
        keras.metrics.TruePositives(),
        Counting(),
    ]
    for metric in metrics:
        metric.update_state(np.array([0.0, 1.0]), np.array([1.0, 1.0]))
        assert any(np.any(array) for array in values.read(metric.variables))
    values.reset(metrics)
    for metric in metrics:
        assert not any(np.any(array) for array in values.read(metric.variables))
    assert metrics[-1].resets == 1


def test_metrics_of_a_model_begin_anew() -> None:
    model = kmtl.build_mlp(
        input_shape=(3,), units=(4,), tasks=[kmtl.BinaryClassification("even")]
    )
    model.compile(optimizer="sgd")
    x, y = np.ones((8, 3), "float32"), np.tile([0.0, 1.0], 4).astype("float32")
    first = model.evaluate(x, y, return_dict=True, verbose=0)
    model.evaluate(-x, 1 - y, verbose=0)
    assert model.evaluate(x, y, return_dict=True, verbose=0) == first
    model.reset_metrics()
    assert not any(np.any(array) for array in values.read(model.metrics_variables))
