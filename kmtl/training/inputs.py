"""Inputs and weights that users pass to `fit`, checked against the model's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kmtl import _arrays
from kmtl.inputs.matching import prepare_inputs
from kmtl.typing import Inputs, Layer, Model, Shape, Tensor

_CHANNELS = (1, 3, 4)


def check_inputs(model: Model, x: Inputs, empty: bool = False) -> Inputs:
    """`x` as arrays, each fit for the model's input that it is meant for.

    Args:
        model: The model, whose inputs have names, shapes and dtypes.
        x: Where the model knows its inputs (`input_specs`), what these take: frames,
            strings, photos. Else an array; a dict input name -> array; or a list of
            arrays, in the order of the inputs.
        empty: There may be no row.

    Raises:
        ValueError, TypeError: naming the input, what is expected and what was received.
    """
    specs = getattr(model, "input_specs", None)
    if specs:
        x = prepare_inputs(specs, x)
    inputs = model.inputs
    names = [tensor.name for tensor in inputs]
    if x is None:
        raise ValueError("`x` must be given: arrays or a data set. Received: None")
    if isinstance(x, Mapping):
        given = model.input if isinstance(model.input, Mapping) else None
        known = dict(zip(names, inputs, strict=True)) if given is None else dict(given)
        lacking = [name for name in known if name not in x]
        if lacking:
            raise ValueError(
                f"`x` lacks input{'s' if len(lacking) > 1 else ''} "
                f"{', '.join(lacking)}. Expected: {', '.join(known)}. "
                f"Received: {', '.join(map(str, x)) or 'none'}"
            )
        x = {
            name: _check(model, part, known.get(name), f"`x['{name}']`", empty)
            for name, part in x.items()
        }
    elif isinstance(x, (list, tuple)) and len(inputs) > 1:
        if len(x) != len(inputs):
            raise ValueError(
                f"`x` must be a dict or a list of the inputs {', '.join(names)}. "
                f"Received: {len(x)} parts"
            )
        x = [
            _check(model, part, tensor, f"`x[{i}]`", empty)
            for i, (part, tensor) in enumerate(zip(x, inputs, strict=True))
        ]
    elif len(inputs) > 1:
        raise ValueError(
            f"`x` must be a dict or a list of the inputs {', '.join(names)}. "
            f"Received: one {type(x).__name__}"
        )
    else:
        rank = len(inputs[0].shape)
        if isinstance(x, (list, tuple)) and len(x) == 1 and np.ndim(x[0]) >= rank:
            x = x[0]  # a list of the inputs, of which there is one
        x = _check(model, x, inputs[0], "`x`", empty)
    _check_rows(x)
    return x


def _check_rows(x: Inputs) -> None:
    counts = {len(part) for part in keras.tree.flatten(x)}
    if len(counts) > 1:
        raise ValueError(
            "All inputs must have the same number of rows. "
            f"Received: {sorted(counts)} rows"
        )


def _check(model: Model, given: Any, tensor: Tensor, what: str, empty: bool) -> Inputs:
    if isinstance(given, (Mapping, list)) and not isinstance(tensor, keras.KerasTensor):
        return given  # a structure of the model's own
    if getattr(tensor, "sparse", False):
        return given
    array = _arrays.as_array(given, what)
    shape = tuple(array.shape)
    dtype = "float32" if tensor is None else str(tensor.dtype)
    if array.dtype.kind not in "biuf":
        if not _arrays.is_text(array):
            raise TypeError(f"{what} must hold numbers. Received: dtype={array.dtype}")
        if tensor is not None and dtype != "string":
            raise TypeError(
                f"{what} must hold numbers: encode strings first, or give the model an "
                f"input of dtype='string'. Received: {array.ravel()[:1].tolist()}"
            )
    if tensor is not None and not _fits(shape, tuple(tensor.shape)):
        raise ValueError(
            f"{what} must have shape {_show(tensor.shape)}, as the model's input "
            f"'{tensor.name}' has. Received: shape={shape}"
        )
    if not array.ndim:
        raise ValueError(f"{what} must have a batch axis. Received: shape=()")
    if not len(array):
        if empty:
            return array
        raise ValueError(f"{what} must have at least one row. Received: 0 rows")
    if array.dtype.kind in "biuf":
        _arrays.check_finite(
            array, what, ": fill or drop such rows, also where no label is"
        )
        _check_dtype(model, array, dtype, what)
        if tensor is not None and dtype.startswith(("float", "bfloat")):
            array = _arrays.within_int32(array)
    plain = isinstance(given, np.ndarray) or not hasattr(given, "dtype")
    plain = plain or not hasattr(type(given), "__len__")  # a variable
    return array if plain or type(given).__module__.startswith("pandas") else given


def _check_dtype(model: Model, array: np.ndarray, dtype: str, what: str) -> None:
    """Numbers that the input's dtype would change."""
    if dtype.startswith(("int", "uint")):
        limits = np.iinfo(dtype)
        low, high = array.min(), array.max()
        whole = array.dtype.kind != "f" or bool((array == np.floor(array)).all())
        if not whole or low < limits.min or high > limits.max:
            raise ValueError(
                f"{what} must hold whole numbers in [{limits.min}, {limits.max}], as "
                f"the model's input is {dtype} (raw images, 0 to 255, for uint8); for "
                "others build the model with an input of dtype float32. "
                f"Received: dtype={array.dtype}, from {low} to {high}"
            )
        return
    if (
        array.dtype == np.uint8
        and array.ndim == 4
        and array.shape[-1] in _CHANNELS
        and not _rescales(model)
        and array.max() > 1
    ):
        warnings.warn(
            f"{what} holds uint8 images, which reach the net unscaled, as 0 to 255. "
            'Build the model with `input_dtype="uint8"`, which scales them inside, '
            "or pass them divided by 255.",
            stacklevel=2,
        )


def _rescales(model: Model) -> bool:
    """Whether the model may bring its inputs to another scale itself."""
    kinds = (keras.layers.Rescaling, keras.layers.Normalization, keras.layers.Lambda)
    found = [inner for layer in model.layers for inner in (layer, *_inside(layer))]
    return any(isinstance(layer, kinds) for layer in found)


def _inside(layer: Layer) -> Sequence:
    return getattr(layer, "layers", ())


def _fits(shape: tuple, wanted: tuple) -> bool:
    """Whether Keras takes this for an input: a last axis of 1 may be left out."""
    if len(shape) == len(wanted) + 1 and shape[-1] == 1:
        shape = shape[:-1]
    elif len(shape) == len(wanted) - 1 and wanted[-1] == 1:
        shape = (*shape, 1)
    return len(shape) == len(wanted) and all(
        want is None or have == want
        for have, want in zip(shape[1:], wanted[1:], strict=True)
    )


def _show(shape: Shape) -> str:
    sizes = ["N", *("?" if size is None else str(size) for size in shape[1:])]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
