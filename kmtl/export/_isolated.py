"""Runs an export in a process of its own, without kmtl.

Started as a file by `kmtl.verify_export` with `python -I`, never imported. It reads
`request.json` and `inputs.npz` from the folder it is given and writes `answer.json` and
`outputs.npz` there. It uses NumPy and the format's own runtime only, and refuses to run
where kmtl can be imported.
"""

from __future__ import annotations

import importlib
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any


class Blocked:
    """Import hook that refuses one package."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r} here", name=name)


def main(folder: Path) -> None:
    """Answer the request in `folder`."""
    request = json.loads((folder / "request.json").read_text("utf-8"))
    sys.path[:] = request["sys_path"]
    sys.meta_path.insert(0, Blocked(request["blocked"]))
    try:
        importlib.import_module(request["blocked"])
    except ModuleNotFoundError:
        pass
    else:
        raise RuntimeError(f"{request['blocked']} can be imported here")

    import numpy as np

    started = time.perf_counter()
    serves = LOADERS[request["format"]](request["path"], request["signatures"])
    seconds = {"load": time.perf_counter() - started}
    inputs = dict(np.load(folder / "inputs.npz"))
    texts = json.loads((folder / "strings.json").read_text("utf-8"))
    for name, given in texts.items():
        array = np.array([bytes.fromhex(text) for text in given["hex"]], dtype=object)
        inputs[name] = array.reshape(given["shape"])
    outputs = {}
    for name, serve in serves.items():
        started = time.perf_counter()
        for key, array in _run(serve, inputs, request["batch_size"], np).items():
            outputs[f"{name}/{key}"] = array
        seconds[name] = time.perf_counter() - started
    modules = [
        name for name in sys.modules if name.partition(".")[0] == request["blocked"]
    ]
    np.savez(folder / "outputs.npz", **outputs)
    answer = {"blocked_modules": modules, "seconds": seconds}
    (folder / "answer.json").write_text(json.dumps(answer), "utf-8")


def _run(
    serve: Any, inputs: dict[str, Any], batch_size: int, np: Any
) -> dict[str, Any]:
    """The signature's outputs, batch by batch; the first batch is one row."""
    rows = len(next(iter(inputs.values())))
    parts: dict[str, list[Any]] = {}
    stops = [0, *range(1, rows, batch_size), rows]
    for start, stop in itertools.pairwise(stops):
        batch = {name: array[start:stop] for name, array in inputs.items()}
        for key, array in serve(batch).items():
            parts.setdefault(key, []).append(array)
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


# -- loaders: path and signatures -> signature -> function of a batch ------------------


def load_saved_model(path: str, names: list[str]) -> dict[str, Any]:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)

    def server(name: str) -> Any:
        serve = loaded.signatures[name]

        def run(batch: dict[str, Any]) -> dict[str, Any]:
            tensors = {key: tf.constant(array) for key, array in batch.items()}
            found = {key: value.numpy() for key, value in serve(**tensors).items()}
            # Strings are objects, which npz files do not hold.
            return {
                key: array.astype("S") if array.dtype == object else array
                for key, array in found.items()
            }

        return run

    return {name: server(name) for name in names}


def load_onnx(path: str, names: list[str]) -> dict[str, Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    keys = [output.name for output in session.get_outputs()]

    def run(batch: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(keys, session.run(keys, batch), strict=True))

    return {names[0]: run}


def load_openvino(path: str, names: list[str]) -> dict[str, Any]:
    import openvino

    # Full float32: some processors compute in bfloat16 by default.
    compiled = openvino.Core().compile_model(
        path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    def run(batch: dict[str, Any]) -> dict[str, Any]:
        found = compiled(batch)
        return {output.any_name: found[output].copy() for output in compiled.outputs}

    return {names[0]: run}


def load_litert(path: str, names: list[str]) -> dict[str, Any]:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=path).get_signature_runner(names[0])
    details = runner.get_input_details().values()
    one_row = any(given["shape_signature"][0] == 1 for given in details)

    def run(batch: dict[str, Any]) -> dict[str, Any]:
        rows = len(next(iter(batch.values())))
        size = 1 if one_row else rows
        parts = [
            runner(**{key: array[i : i + size] for key, array in batch.items()})
            for i in range(0, rows, size)
        ]
        return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}

    return {names[0]: run}


LOADERS = {
    "tf_saved_model": load_saved_model,
    "onnx": load_onnx,
    "openvino": load_openvino,
    "litert": load_litert,
}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
