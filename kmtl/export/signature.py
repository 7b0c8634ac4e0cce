"""What an export takes and gives: in words for its description, and in its graph."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from kmtl import _files
from kmtl.export import serving, top
from kmtl.export.exportable import ExportableModel
from kmtl.export.raw import RawInputs
from kmtl.typing import Config, Tensor

DEFAULT = "serving_default"
SERVE = "serve"  # Keras' name of the same endpoint, which TFSMLayer looks for


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """One signature of a SavedModel: names to `(dtype, shape)`."""

    inputs: dict[str, tuple[str, tuple[int | None, ...]]]
    outputs: dict[str, tuple[str, tuple[int | None, ...]]]


def signatures(
    tasks: Mapping[str, tuple[str, ...]], features: bool
) -> dict[str, tuple[str, ...]]:
    """Every signature of an export with the names of its outputs.

    Args:
        tasks: Task name -> names of its outputs.
        features: Whether the shared trunk's output is there.
    """
    found: dict[str, tuple[str, ...]] = {SERVE: sum(tasks.values(), ())}
    found.update(tasks)
    if features:
        found[serving.FEATURES] = (serving.FEATURES,)
    return found


def describe(
    model: ExportableModel,
    plain: keras.Model,
    outputs: str,
    input_dtype: str | None,
    saved: Path,
    raw: RawInputs | None = None,
) -> Config:
    """What an export says of itself, JSON-ready.

    The shapes are those of the graph in `saved`: of layers that reshape, Keras may not
    know the shape before it has run them.
    """
    import kmtl

    endpoints = read_endpoints(saved)
    endpoint = endpoints[DEFAULT]
    names = [tensor.name for tensor in serving.input_tensors(plain)]
    if raw is not None:
        names = list(raw.signature)
    if set(names) != set(endpoint.inputs):
        raise ValueError(
            "Names of inputs must be Python identifiers to be kept in an export. "
            f"Received: {names}, written as {sorted(endpoint.inputs)}"
        )
    tasks: dict[str, Config] = {}
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
            "shape": list(endpoint.outputs[name][1]),
            "labels": None if task.labels is None else list(task.labels),
            "unit": task.unit,
        }
        more = top.of_task(task, plain.output)[1:]
        if more:
            tasks[name]["top"] = {
                key: {
                    "dtype": endpoint.outputs[key][0],
                    "shape": list(endpoint.outputs[key][1]),
                }
                for key in more
            }
    described = {
        "kmtl": kmtl.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "outputs": outputs,
        "inputs": _inputs(model, plain, input_dtype, endpoint, raw),
        "tasks": tasks,
    }
    if serving.FEATURES in plain.output:
        owner = endpoints.get(serving.FEATURES, endpoint)
        shape = list(owner.outputs[serving.FEATURES][1])
        described[serving.FEATURES] = {"dtype": "float32", "shape": shape}
    return described


def _inputs(
    model: ExportableModel,
    plain: keras.Model,
    input_dtype: str | None,
    endpoint: Endpoint,
    raw: RawInputs | None,
) -> dict[str, Config]:
    """What each input is."""
    if raw is not None:
        more = raw.describe()
        return {
            name: {"dtype": dtype, "shape": list(shape), "scaled_by": 1.0, **more[name]}
            for name, (dtype, shape) in endpoint.inputs.items()
        }
    own = serving.input_tensors(model)
    specs = model.input_specs
    found = {}
    for tensor, exported in zip(own, serving.input_tensors(plain), strict=True):
        name = exported.name
        found[name] = {
            "dtype": str(exported.dtype),
            "shape": list(endpoint.inputs[name][1]),
            "scaled_by": _scale(tensor, exported, input_dtype),
        }
        if name in specs:
            found[name]["kind"] = specs[name].registered_name
    return found


def _scale(own: Tensor, exported: Tensor, input_dtype: str | None) -> float:
    """Factor that the export puts on an input before the model sees it."""
    converted = input_dtype == "uint8" and str(own.dtype) != str(exported.dtype)
    return serving.PIXEL_SCALE if converted else 1.0


def read_endpoints(path: str | os.PathLike) -> dict[str, Endpoint]:
    """The signatures as they stand in the SavedModel's own file.

    Raises:
        kmtl._files.DamagedFileError: if the file cannot be read.
    """
    from google.protobuf.message import DecodeError
    from tensorflow import dtypes
    from tensorflow.core.protobuf import saved_model_pb2

    saved, file = saved_model_pb2.SavedModel(), Path(path) / "saved_model.pb"
    try:
        saved.ParseFromString(file.read_bytes())
        what = "" if saved.meta_graphs else "it holds no graph"
    except (DecodeError, FileNotFoundError) as error:
        what = str(error)
    if what:
        raise _files.DamagedFileError(
            file, what, "Export the model anew (overwrite=True replaces this one)."
        )

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


def check_endpoints(
    path: Path, described: Config, wanted: Mapping[str, tuple[str, ...]]
) -> None:
    """Raise unless the file's signatures are those described: names, types, shapes.

    Args:
        path: A SavedModel.
        described: Its description.
        wanted: Name of each signature with the names of its outputs.
    """
    found = read_endpoints(path)

    def tensors(given: Mapping[str, Any]) -> dict[str, tuple[str, tuple]]:
        return {
            name: (item["dtype"], tuple(item["shape"])) for name, item in given.items()
        }

    inputs, outputs = tensors(described["inputs"]), tensors(described["tasks"])
    for item in described["tasks"].values():
        outputs |= tensors(item.get("top", {}))
    if serving.FEATURES in described:
        outputs |= tensors({serving.FEATURES: described[serving.FEATURES]})
    wanted = {**wanted, DEFAULT: wanted[SERVE]}
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
