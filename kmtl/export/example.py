"""The batch on which an export is compared with its model."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kmtl.typing import Inputs, Tensor

#: Format -> the package that runs it, and what installs it.
RUNTIMES = {
    "tf_saved_model": ("tensorflow", "tensorflow"),
    "onnx": ("onnxruntime", '"kmtl[onnx]"'),
    "openvino": ("openvino", '"kmtl[openvino]"'),
    "litert": ("ai_edge_litert", '"kmtl[litert]"'),
}


def check_runtime(kind: str) -> None:
    """Refuse to verify a format that cannot be run here."""
    package, install = RUNTIMES[kind]
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f"Verifying format='{kind}' needs the package {package}: "
            f"pip install {install}"
        )


def check_inputs(x: Inputs, described: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays by input name, of the dtypes that the export takes."""
    if isinstance(x, (list, tuple)) and len(x) == len(described) > 1:
        x = dict(zip(described, x, strict=True))
    if not isinstance(x, Mapping):
        if len(described) > 1:
            raise TypeError(
                f"`x` must be a dict of the inputs {sorted(described)}. "
                f"Received: x of type {type(x).__name__}"
            )
        x = {next(iter(described)): x}
    if set(x) != set(described):
        raise ValueError(
            f"`x` must have exactly the inputs {sorted(described)}. "
            f"Received: {sorted(map(str, x))}"
        )
    arrays = {name: _as_array(x[name], described[name], name) for name in described}
    for name, array in arrays.items():
        shape = (None, *described[name]["shape"][1:])
        fits = array.ndim == len(shape) and all(
            want in (None, have)
            for have, want in zip(array.shape[1:], shape[1:], strict=True)
        )
        if not fits or not len(array):
            raise ValueError(
                f"`x['{name}']` must have shape {shape}, with at least one row. "
                f"Received: shape={array.shape}"
            )
    if len({len(array) for array in arrays.values()}) > 1:
        raise ValueError(
            "`x` must have the same number of rows in every input. Received: "
            f"{ {name: len(array) for name, array in arrays.items()} }"
        )
    return arrays


def _as_array(given: Tensor, described: Mapping[str, Any], name: str) -> np.ndarray:
    array, dtype = np.asarray(given), described["dtype"]
    is_text = array.dtype.kind in "SUO"
    if is_text != (dtype == "string"):
        raise TypeError(
            f"`x['{name}']` must be of dtype {dtype}, as this export takes it. "
            f"Received: dtype={array.dtype}"
        )
    if is_text:
        return np.vectorize(_as_bytes, otypes=[object])(array)
    if dtype == "uint8" and array.dtype != np.uint8:
        raise TypeError(
            f"`x['{name}']` must be of dtype uint8, as this export takes it. "
            f"Received: dtype={array.dtype}"
        )
    if np.issubdtype(np.dtype(dtype), np.integer) and array.dtype.kind not in "biu":
        raise TypeError(
            f"`x['{name}']` must be integers, as this export takes {dtype}. "
            f"Received: dtype={array.dtype}"
        )
    return array.astype(dtype, copy=False)


def _as_bytes(text: Any) -> bytes:
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode("utf-8")
    raise TypeError(f"Strings must be str or bytes. Received: {text!r}")


def to_model(array: np.ndarray) -> Inputs:
    """What `predict` takes for an array: strings only as TensorFlow's tensors."""
    if array.dtype != object:
        return array
    import tensorflow as tf

    return tf.constant(array)


def write_inputs(folder: Path, inputs: Mapping[str, np.ndarray]) -> None:
    """Write the batch for the new process; no pickles, so strings go as hexadecimal."""
    texts = {
        name: {"shape": array.shape, "hex": [text.hex() for text in array.ravel()]}
        for name, array in inputs.items()
        if array.dtype == object
    }
    numbers = {name: array for name, array in inputs.items() if name not in texts}
    np.savez(folder / "inputs.npz", allow_pickle=False, **numbers)
    (folder / "strings.json").write_text(json.dumps(texts), "utf-8")
