"""The battery for kinds of input."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.inputs.base import Input
from kmtl.inputs.source import InputSource
from kmtl.layers.maker import LayerMaker
from kmtl.testing._models import through_json
from kmtl.testing._running import run
from kmtl.typing import Inputs


def check_config(spec: Input, data: Inputs) -> None:
    """It is JSON-ready, fitted or not, and what is made of that is equal."""
    for one in (spec, spec.fit(data)):
        assert Input.from_config(through_json(one.to_config())) == one
        assert one.replace() == one


def check_fit(spec: Input, data: Inputs) -> None:
    """Fitting gives a fitted copy, the same every time, and changes nothing."""
    before = json.dumps(spec.to_config())
    fitted = spec.fit(data)
    assert fitted.fitted
    assert fitted == spec.fit(data)
    assert json.dumps(spec.to_config()) == before


def check_prepare(spec: Input, data: Inputs) -> None:
    """Prepared rows have shape and dtype, depend on no other row, and stay prepared."""
    fitted = spec.fit(data)
    found = fitted.prepare(data, "`x`")
    assert isinstance(found, np.ndarray)
    assert len(found.shape) == len(fitted.shape) + 1
    for size, wanted in zip(found.shape[1:], fitted.shape, strict=True):
        assert wanted in (None, size)
    assert np.can_cast(found.dtype, fitted.dtype, "same_kind")
    assert np.isfinite(found.astype("float64")).all()
    np.testing.assert_array_equal(fitted.prepare(found, "`x`"), found)
    apart = fitted.prepare(rows_of(data, [1, 0]), "`x`")
    shared = tuple(slice(0, size) for size in apart.shape[1:])
    np.testing.assert_array_equal(apart, found[1::-1][(slice(None), *shared)])


def check_encode(spec: Input, data: Inputs) -> None:
    """What trunks get is finite, made without trainable weights, and saved."""
    fitted = spec.fit(data)
    model = _model_of(fitted)
    assert not model.trainable_variables
    x = fitted.prepare(data, "`x`")
    again = keras.Model.from_config(through_json(model.get_config()))
    again.set_weights(model.get_weights())
    assert again.get_layer("x_source").spec == fitted
    for first, second in zip(model(x), again(x), strict=True):
        values = ops.convert_to_numpy(first)
        assert len(values) == len(x)
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(values, ops.convert_to_numpy(second))


def check_serve(spec: Input, data: Inputs) -> None:
    """TensorFlow's operations in a SavedModel do what `prepare` does."""
    if importlib.util.find_spec("tensorflow") is None:
        return
    import tensorflow as tf

    fitted = spec.fit(data)
    signature = fitted.serving_signature("x")
    rows = fitted.serving_rows("x", data, "`x`")
    assert rows.keys() == signature.keys()
    given = {
        key: tf.TensorSpec(spec.shape, spec.dtype, key)
        for key, spec in signature.items()
    }
    serve = tf.function(fitted.serve, input_signature=[given], autograph=False)
    tensors = {key: tf.constant(array) for key, array in rows.items()}
    for key, tensor in tensors.items():
        assert tensor.dtype == given[key].dtype, key
        assert given[key].shape.is_compatible_with(tensor.shape), key
    wanted = fitted.prepare(fitted.from_serving("x", rows), "`x`")
    np.testing.assert_allclose(serve(tensors).numpy(), wanted, rtol=1e-5, atol=1e-5)


CHECKS = (check_config, check_fit, check_prepare, check_encode, check_serve)


def check_input(spec: Input, data: Inputs) -> None:
    """Run kmtl's own contract tests on a kind of input.

    Config, fitting, the prepared array, what trunks get of it, and what a served model
    does.

    Args:
        spec: An object of the kind, fitted or not.
        data: Training rows as users have them, two or more: a frame, a dict of
            columns, an array or a list.

    Raises:
        AssertionError: from the first check that fails; its notes say what it checks.
        TypeError: if `spec` is no input of kmtl.

    Example:

    >>> kmtl.testing.check_input(kmtl.inputs.Table(), {"age": [31.0, None, 45.0]})
    """
    if not isinstance(spec, Input):
        raise TypeError(
            "`spec` must be an object of a subclass of kmtl.inputs.Input. "
            f"Received: {spec!r}"
        )
    run(CHECKS, spec, data)


def rows_of(data: Inputs, rows: list[int]) -> Any:
    """Some rows of a frame, a dict of columns, an array or a list."""
    if isinstance(data, Mapping):
        return {name: rows_of(column, rows) for name, column in data.items()}
    if hasattr(data, "iloc"):
        return data.iloc[rows]
    if isinstance(data, (list, tuple)):
        return [data[row] for row in rows]
    return data[np.asarray(rows)]


def _model_of(spec: Input) -> keras.Model:
    """Both encodings of an input."""
    make = LayerMaker("x")
    inputs = keras.Input(spec.shape, name="x", dtype=spec.dtype)
    source = make.layer(InputSource, "source", spec=spec, input_name="x")(inputs)
    encoded = spec.encode(source, make.part("encoded"))
    return keras.Model(inputs, [encoded, spec.scaled(source, make.part("scaled"))])
