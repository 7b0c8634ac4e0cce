"""Values of many variables at once: reading, assigning, resetting.

Keras takes each variable through a dozen functions of Python; between the epochs of a
small model that is as much work as training is. On TensorFlow, what is on one device is
read and written by its operations themselves; all else goes Keras' way.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.typing import Variable

#: `reset_state` of these puts zeros into the metric's variables, and does no more.
_ZEROED = (
    keras.metrics.Metric.reset_state,
    keras.metrics.Mean.reset_state,
    keras.metrics.Sum.reset_state,
)


def read(variables: Sequence[Variable]) -> list[np.ndarray]:
    """Copies of the values (backends may hand out views that they overwrite)."""
    return [np.array(_read(variable)) for variable in variables]


def assign(variables: Sequence[Variable], values: Sequence[np.ndarray]) -> None:
    """Give each variable its value, of its shape and dtype."""
    for variable, value in zip(variables, values, strict=True):
        handle = _handle(variable)
        if handle is None:
            variable.assign(value)
        else:
            _put(handle, value, variable)


def reset(metrics: Sequence[keras.metrics.Metric]) -> None:
    """What `metric.reset_state()` does, of each."""
    for metric in metrics:
        if type(metric).reset_state not in _ZEROED:
            metric.reset_state()
            continue
        for variable in metric.variables:
            handle = _handle(variable)
            if handle is None:
                variable.assign(ops.zeros(variable.shape, dtype=variable.dtype))
            else:
                _put(handle, _zeros(tuple(variable.shape), variable.dtype), variable)


def _read(variable: Variable) -> Any:
    handle = _handle(variable)
    if handle is None:
        return ops.convert_to_numpy(variable.value)
    import tensorflow as tf

    dtype = variable.value.dtype
    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype).numpy()


def _put(handle: Any, value: Any, variable: Variable) -> None:
    import tensorflow as tf

    if tuple(value.shape) != tuple(variable.shape):  # the operation takes any shape
        raise ValueError(
            f"Variable '{variable.path}' has shape {tuple(variable.shape)}. Received a "
            f"value of shape {tuple(value.shape)}."
        )
    value = tf.convert_to_tensor(value, variable.value.dtype)
    tf.raw_ops.AssignVariableOp(resource=handle, value=value)


def _handle(variable: Variable) -> Any:
    """What TensorFlow's operations know a variable by; None: only Keras knows it."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    value = variable.value
    if not tf.executing_eagerly() or isinstance(value, tf.distribute.DistributedValues):
        return None
    return value.handle if isinstance(value, tf.Variable) else None


@functools.lru_cache(maxsize=256)
def _zeros(shape: tuple[int, ...], dtype: str) -> Any:
    """Of TensorFlow, whose tensors nobody can change."""
    import tensorflow as tf

    with tf.init_scope():
        return tf.zeros(shape, dtype)
