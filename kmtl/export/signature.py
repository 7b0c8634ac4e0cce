"""What an export takes and gives: the description beside it, and a reader for it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import keras

from kmtl.export import serving
from kmtl.export.exportable import ExportableModel

# `assets.extra` is where a SavedModel keeps what TensorFlow itself does not read.
DESCRIPTION = Path("assets.extra", "kmtl_signature.json")
DEFAULT = "serving_default"
SERVE = "serve"  # Keras' name of the same endpoint, which TFSMLayer looks for


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """One signature of a SavedModel: names to `(dtype, shape)`."""

    inputs: dict[str, tuple[str, tuple[int | None, ...]]]
    outputs: dict[str, tuple[str, tuple[int | None, ...]]]


def signatures(names: tuple[str, ...], features: bool) -> dict[str, tuple[str, ...]]:
    """Every signature of an export with the names of its outputs."""
    found: dict[str, tuple[str, ...]] = {SERVE: names}
    found.update({name: (name,) for name in names})
    if features:
        found[serving.FEATURES] = (serving.FEATURES,)
    return found


def describe(
    model: ExportableModel, plain: keras.Model, outputs: str, input_dtype: str | None
) -> dict[str, Any]:
    """The content of `kmtl_signature.json`: JSON-ready."""
    import kmtl

    tasks = {}
    for name in model.task_names:
        if name not in plain.output:
            continue
        task = model.task(name)
        activation = task.output_activation if outputs == "probabilities" else "linear"
        if outputs == "logits" and task.output_activation != "linear":
            gives = "logits"
        else:
            gives = "values" if activation == "linear" else "probabilities"
        tasks[name] = {
            "kind": task.registered_name,
            "gives": gives,
            "activation": activation,
            "dtype": "float32",
            "shape": list(plain.output[name].shape),
            "labels": None if task.labels is None else list(task.labels),
        }
    described = {
        "kmtl": kmtl.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "outputs": outputs,
        "inputs": {
            tensor.name: {
                "dtype": str(tensor.dtype),
                "shape": list(tensor.shape),
                "scaled_by": _scale(own, tensor, input_dtype),
            }
            for own, tensor in zip(
                serving.input_tensors(model), serving.input_tensors(plain), strict=True
            )
        },
        "tasks": tasks,
    }
    if serving.FEATURES in plain.output:
        shape = list(plain.output[serving.FEATURES].shape)
        described[serving.FEATURES] = {"dtype": "float32", "shape": shape}
    return described


def _scale(own: Any, exported: Any, input_dtype: str | None) -> float:
    """Factor that the export puts on an input before the model sees it."""
    converted = input_dtype == "uint8" and str(own.dtype) != str(exported.dtype)
    return serving.PIXEL_SCALE if converted else 1.0


def read_description(path: str | os.PathLike) -> dict[str, Any]:
    """The description inside an export made by `MultiTaskModel.export`."""
    file = Path(path) / DESCRIPTION
    if not file.is_file():
        raise FileNotFoundError(
            "`path` must be a SavedModel written by a kmtl model's `export`, which "
            f"holds {DESCRIPTION.as_posix()}. Received: path='{os.fspath(path)}'"
        )
    return json.loads(file.read_text("utf-8"))


def write_description(path: Path, described: dict[str, Any]) -> None:
    """Put the description into an export."""
    file = path / DESCRIPTION
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(described, indent=2) + "\n", "utf-8")


def read_endpoints(path: str | os.PathLike) -> dict[str, Endpoint]:
    """The signatures as they stand in the SavedModel's own file."""
    from tensorflow import dtypes
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((Path(path) / "saved_model.pb").read_bytes())

    def tensors(infos: Any) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        return {
            name: (
                dtypes.as_dtype(info.dtype).name,
                tuple(
                    None if axis.size < 0 else axis.size
                    for axis in info.tensor_shape.dim
                ),
            )
            for name, info in infos.items()
        }

    return {
        name: Endpoint(tensors(signature.inputs), tensors(signature.outputs))
        for name, signature in saved.meta_graphs[0].signature_def.items()
        if not name.startswith("__")
    }


def check_endpoints(path: Path, described: dict[str, Any]) -> None:
    """Raise unless the file's signatures are those described: names, types, shapes."""
    found = read_endpoints(path)
    inputs = {
        name: (given["dtype"], tuple(given["shape"]))
        for name, given in described["inputs"].items()
    }
    outputs = {
        name: (given["dtype"], tuple(given["shape"]))
        for name, given in described["tasks"].items()
    }
    if serving.FEATURES in described:
        given = described[serving.FEATURES]
        outputs[serving.FEATURES] = (given["dtype"], tuple(given["shape"]))
    names = tuple(described["tasks"])
    wanted = signatures(names, serving.FEATURES in described)
    wanted[DEFAULT] = names
    if set(found) != set(wanted):
        raise ValueError(
            f"The SavedModel should have the signatures {sorted(wanted)}. "
            f"Received: {sorted(found)}"
        )
    for name, endpoint in found.items():
        expected = Endpoint(inputs, {key: outputs[key] for key in wanted[name]})
        if endpoint != expected:
            raise ValueError(
                f"Signature '{name}' of the SavedModel should be {expected}. "
                f"Received: {endpoint}"
            )
