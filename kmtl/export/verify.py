"""Proof that an export gives the model's numbers where kmtl is not there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmtl import _checks
from kmtl.export import description, formats, serving, signature, top
from kmtl.export.example import check_inputs, check_runtime, to_model, write_inputs
from kmtl.export.exportable import ExportableModel
from kmtl.export.raw import RawInputs, raw_inputs
from kmtl.export.scales import scales
from kmtl.tasks.base import Task
from kmtl.typing import Inputs, Tensor

SCRIPT = Path(__file__).with_name("_isolated.py")
FLOAT32_TOLERANCE = 1e-5
# Half precision keeps 8 (bfloat16) to 11 (float16) bits, and TensorFlow's graph
# rewriting rounds at other places than the model's own run.
HALF_TOLERANCE = 2e-2
MOST_ERROR_LINES = 20


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `kmtl.verify_export` found. `print(report)` shows one line per task.

    Args:
        path: The export.
        rows: Number of examples compared.
        differences: Task name to the largest absolute difference.
        tolerance: Task name to the largest that was allowed.
        seconds: Wall time of the whole check, in seconds.
    """

    path: Path
    rows: int
    differences: dict[str, float]
    tolerance: dict[str, float]
    seconds: float

    def __str__(self) -> str:
        width = max(len(name) for name in self.differences)
        lines = [
            f"{name:<{width}}  max abs difference {value:.1e} "
            f"(allowed {self.tolerance[name]:.0e})"
            for name, value in self.differences.items()
        ]
        return "\n".join(
            [f"{self.path}: {self.rows} rows in {self.seconds:.1f} s", *lines]
        )


def verify_export(
    path: str | os.PathLike,
    model: ExportableModel,
    x: Inputs,
    atol: float | None = None,
    *,
    batch_size: int = 256,
    timeout: float = 600.0,
) -> ExportReport:
    """Load an export in a new process without kmtl and compare it with the model.

    The process has the format's own runtime only (TensorFlow, onnxruntime, openvino or
    ai-edge-litert): kmtl cannot be imported there, whatever is installed. Every
    signature runs on `x`, on the CPU in full float32, and so does the model (a GPU's
    TF32 is switched off meanwhile). The first row goes as a batch of one, so that two
    batch sizes are tried.

    Args:
        path: What `model.export` has written, in any of its formats.
        model: The model it was written from.
        x: Batch of inputs as `predict` takes them: frames, for a model that knows its
            inputs. Else as the export takes them (uint8 for a uint8 export): an array
            (of numbers, strings or bytes), or for several inputs a dict of input name
            to array, or a list in the model's order.
        atol: Largest allowed difference, > 0. For values beyond 1 in size it counts
            relative to the largest. By default it is 1e-5 (2e-2 for models that compute
            in half precision) of the scale of each output. Of probabilities, logits and
            features that is their largest absolute value, at least 1. Of numbers of a
            task, such as 1e-6 m or 1e6 $, it is theirs: the size of what they are the
            sum of in the model.
        batch_size: Rows per call in the new process.
        timeout: Seconds after which the new process is given up.

    Returns:
        A `kmtl.export.ExportReport`.

    Raises:
        ValueError: if names differ, or an output by more than allowed.
        ImportError: if the format's runtime is not installed.
        kmtl._files.DamagedFileError: if the export cannot be read; a `ValueError` too.
        RuntimeError: if the new process failed, with its last words.

    Example:

    >>> tasks = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8,), seed=0)
    >>> path = model.export("verified")
    >>> report = kmtl.verify_export(path, model, np.ones((5, 4), "float32"))
    >>> sorted(report.differences), max(report.differences.values()) < 1e-5
    (['kind', 'size'], True)
    """
    started = time.perf_counter()
    path = Path(path).absolute()
    described = description.read_description(path)
    kind = described.get("format", formats.SAVED_MODEL)
    check_runtime(kind)
    groups = {
        name: (name, *item.get("top", ())) for name, item in described["tasks"].items()
    }
    names = tuple(key for group in groups.values() for key in group)
    unknown = [name for name in groups if name not in model.task_names]
    if unknown:
        raise ValueError(
            f"The export has outputs that are not tasks of the model: "
            f"{', '.join(unknown)}. Expected some of: {', '.join(model.task_names)}."
        )
    raw = raw_inputs(model) if kind == formats.SAVED_MODEL else None
    if raw is not None:
        inputs = check_inputs(raw.rows(x), described["inputs"])
    else:
        inputs = check_inputs(model.prepare_inputs(x), described["inputs"])
    rows = len(next(iter(inputs.values())))
    has_features = serving.FEATURES in described
    if kind == formats.SAVED_MODEL:
        wanted = signature.signatures(groups, has_features)
        signature.check_endpoints(path, described, wanted)
        wanted[signature.DEFAULT] = names
    else:
        wanted = {signature.DEFAULT: names + (serving.FEATURES,) * has_features}
    x = _own_inputs(model, described, inputs, raw)
    expected = _expected(model, described, x)
    found = _run_isolated(path, kind, tuple(wanted), inputs, batch_size, timeout)
    for key, array in found.items():
        name = key.partition("/")[2].removesuffix(top.CLASSES)
        if f"{name}{top.CLASSES}" in groups.get(name, ()) and key.endswith(top.CLASSES):
            about = described["tasks"][name]
            found[key] = top.as_scores(name, about, array, expected[name])
    for name in groups:
        task = model.task(name)
        for place in wanted:
            given = found.get(f"{place}/{name}")
            if given is None or given.shape != expected[name].shape:
                continue
            # Of the numbers that the export gave: the least difference of two scores
            # may put them in another order.
            for part, array in _decoded(task, given).items():
                if f"{place}/{part}" in found and part in expected:
                    apart = found[f"{place}/{part}"] - array
                    found[f"{place}/{part}"] = expected[part] + apart
            text = f"{place}/{name}{top.TEXT}"
            if text in found:
                found[text] = top.wrong_texts(task, given, found[text])
    differences = _compare(wanted, expected, found)
    with_units = described["tasks"] if atol is None else {}
    tolerance = {
        name: _tolerance(model, atol) * scale
        for name, scale in scales(model, x, expected, with_units).items()
    }
    report = ExportReport(
        path, rows, differences, tolerance, time.perf_counter() - started
    )
    wrong = [
        f"'{name}' by {value:.3e} (allowed {tolerance[name]:.0e})"
        for name, value in differences.items()
        if not value <= tolerance[name]  # not `>`: NaN is wrong too
    ]
    if wrong:
        raise ValueError(
            f"The export at '{path}' differs from the model on {rows} rows: "
            f"{', '.join(wrong)}. Was the model trained on after the export?"
        )
    return report


def _own_inputs(
    model: ExportableModel,
    described: Mapping[str, Any],
    inputs: Mapping[str, np.ndarray],
    raw: RawInputs | None,
) -> Inputs:
    """An export's inputs, as the model takes them."""
    own: dict[str, Any] = {}
    for name, array in inputs.items():
        scale = described["inputs"][name]["scaled_by"]
        own[name] = to_model(
            array if scale == 1.0 else array.astype("float32") * np.float32(scale)
        )
    if raw is not None:
        return model.prepare_inputs(raw.from_rows(inputs))
    return keras.tree.pack_sequence_as(
        model.input, [own[name] for name in serving.input_names(model)]
    )


def _expected(
    model: ExportableModel, described: Mapping[str, Any], x: Inputs
) -> dict[str, np.ndarray]:
    """What the model itself gives for these inputs."""
    with _full_float32():
        outputs = model.predict(x, verbose=0)
        expected = {}
        for name, given in described["tasks"].items():
            values = outputs[name]
            if given["gives"] == "probabilities":
                values = model.task(name).activate(keras.ops.convert_to_tensor(values))
            expected[name] = keras.ops.convert_to_numpy(values)
            expected |= top.expected(name, given, expected[name])
            parts = _decoded(model.task(name), values).items()
            expected |= {k: part for k, part in parts if k in given.get("top", ())}
            if f"{name}{top.TEXT}" in given.get("top", ()):
                expected[f"{name}{top.TEXT}"] = np.zeros(len(values), "float32")
        if serving.FEATURES in described:
            seam = serving.seam_output(model, model)
            trunk = keras.Model(model.input, seam)
            features = keras.ops.cast(trunk.predict(x, verbose=0), "float32")
            expected[serving.FEATURES] = keras.ops.convert_to_numpy(features)
    return expected


def _decoded(task: Task, values: Tensor) -> dict[str, np.ndarray]:
    found = top.decoded_parts(task, keras.ops.convert_to_tensor(values))
    return {name: keras.ops.convert_to_numpy(part) for name, part in found.items()}


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """No TF32: on recent GPUs it keeps 10 bits of float32's 23."""
    if keras.backend.backend() == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
        return
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _run_isolated(
    path: Path,
    kind: str,
    names: tuple[str, ...],
    inputs: dict[str, Tensor],
    batch_size: int,
    timeout: float,
) -> dict[str, np.ndarray]:
    """Outputs of every signature, as `"signature/output"`, from a new process."""
    request = {
        "path": str(path),
        "format": kind,
        "signatures": names,
        "batch_size": _checks.check_int("batch_size", batch_size, 1),
        "blocked": "kmtl",
        "sys_path": [os.path.abspath(entry) for entry in sys.path if entry],
    }
    environment = {
        **{key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"},
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    with tempfile.TemporaryDirectory(prefix="verify-export-") as folder:
        Path(folder, "request.json").write_text(json.dumps(request), "utf-8")
        write_inputs(Path(folder), inputs)
        finished = subprocess.run(
            # -I: no PYTHON* variables, no user site, no current folder on the path.
            [sys.executable, "-I", str(SCRIPT), folder],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if finished.returncode:
            last = "\n".join(finished.stderr.splitlines()[-MOST_ERROR_LINES:])
            raise RuntimeError(
                f"The export at '{path}' did not run in a process without kmtl "
                f"(exit status {finished.returncode}):\n{last}"
            )
        answer = json.loads(Path(folder, "answer.json").read_text("utf-8"))
        if answer["blocked_modules"]:
            raise RuntimeError(
                "The process that should do without kmtl has imported "
                f"{answer['blocked_modules']}."
            )
        with np.load(Path(folder, "outputs.npz")) as outputs:
            return dict(outputs)


def _compare(
    wanted: Mapping[str, tuple[str, ...]],
    expected: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """Largest difference of each output over the signatures that give it."""
    names = {f"{name}/{key}" for name, keys in wanted.items() for key in keys}
    if set(found) != names:
        raise ValueError(
            f"The export should give the outputs {sorted(names)} "
            f"(signature/output). Received: {sorted(found)}"
        )
    differences = dict.fromkeys(expected, 0.0)
    for name, array in found.items():
        key = name.partition("/")[2]
        want = expected[key]
        if array.shape != want.shape or array.dtype != want.dtype:
            raise ValueError(
                f"Output '{key}' of signature '{name.partition('/')[0]}' should be "
                f"{want.dtype} {want.shape}. Received: {array.dtype} {array.shape}"
            )
        difference = np.abs(array - want).max(initial=0.0)
        # maximum, unlike max, keeps NaN
        differences[key] = float(np.maximum(differences[key], difference))
    return differences


def _tolerance(model: ExportableModel, atol: float | None) -> float:
    if atol is not None:
        return _checks.check_range("atol", atol, 0, low_open=True)
    half = any(layer.compute_dtype in ("float16", "bfloat16") for layer in model.layers)
    return HALF_TOLERANCE if half else FLOAT32_TOLERANCE
