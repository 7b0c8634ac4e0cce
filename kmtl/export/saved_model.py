"""Writing a model for serving."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from kmtl import _checks
from kmtl.export import _atomic, serving, signature
from kmtl.export.exportable import ExportableModel

SAVED_MODEL = "tf_saved_model"
FORMATS = (SAVED_MODEL, "onnx", "openvino", "litert", "torch")


def export_model(
    model: ExportableModel,
    filepath: str | os.PathLike,
    format: str = SAVED_MODEL,
    verbose: bool | None = False,
    *,
    outputs: str = "probabilities",
    input_dtype: str | None = None,
    tasks: Sequence[str] | None = None,
    features: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Write a model for serving, with one named output per task.

    A SavedModel gets the signature `serving_default`: the model's named inputs, any
    batch size, to a dict of task name to float32 output. Further signatures are each
    task's own name, `features` when asked for, and `serve` (Keras' name of the
    default). `assets.extra/kmtl_signature.json` in it says what each output is. The
    names, types and shapes written are compared with the model's; `kmtl.verify_export`
    compares the numbers. Nothing is left of an export that fails half way.

    Args:
        model: A `kmtl.MultiTaskModel`.
        filepath: Folder to write (for the other formats: file).
        format: `"tf_saved_model"`, or another format of `keras.Model.export`
            (`"onnx"`, `"litert"`, ...), which gets the same model.
        verbose: Whether to print what was written.
        outputs: `"probabilities"` (values, where a task has no activation) or
            `"logits"`.
        input_dtype: None keeps the model's. `"uint8"` takes raw images: the export
            casts and scales by 1/255. `"float32"` casts to what the model computes in.
        tasks: Names of the heads to export. Defaults to all.
        features: Add the signature `features`: the output of the shared trunk.
        overwrite: Replace an export that exists. Defaults to False.
        **options: For the other formats, as in `keras.Model.export`.

    Returns:
        The absolute path written.

    Raises:
        FileExistsError: if something is there and `overwrite` is False.
        ValueError: for unknown names, or if the file's signatures differ from the
            model's.
        ImportError: if TensorFlow is not installed (SavedModel, on any backend).

    Example:

    >>> tasks = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8,), seed=0)
    >>> path = model.export("served")
    >>> import tensorflow as tf
    >>> serve = tf.saved_model.load(path).signatures["serving_default"]
    >>> outputs = serve(inputs=tf.zeros((2, 4)))
    >>> {name: tuple(output.shape) for name, output in sorted(outputs.items())}
    {'kind': (2, 3), 'size': (2, 1)}
    """
    _checks.check_choice("format", format, FORMATS)
    path = _atomic.check_target(filepath, overwrite)
    if format == SAVED_MODEL:
        _check_saved_model_options(options)
    plain = serving.serving_model(
        model, outputs=outputs, input_dtype=input_dtype, tasks=tasks, features=features
    )
    with _atomic.written_beside(path) as folder:
        if format == SAVED_MODEL:
            described = signature.describe(model, plain, outputs, input_dtype)
            _write_saved_model(plain, folder, features)
            signature.check_endpoints(folder, described)
            signature.write_description(folder, described)
            _atomic.move_into_place(folder, path)
        else:
            plain.export(folder / path.name, format=format, verbose=False, **options)
            for made in sorted(folder.iterdir()):  # openvino writes two files
                _atomic.move_into_place(made, path.parent / made.name)
    if verbose:
        sys.stdout.write(_summary(path, plain) + "\n")
    return path


def _check_saved_model_options(options: dict[str, Any]) -> None:
    if options:
        known = ("outputs", "input_dtype", "tasks", "features", "overwrite")
        raise TypeError(
            _checks.unknown_name(
                f"argument for format='{SAVED_MODEL}'", next(iter(options)), known
            )
        )
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "A SavedModel is written by TensorFlow, also for models trained with the "
            f"{keras.backend.backend()} backend: pip install tensorflow."
        ) from error


def _write_saved_model(plain: keras.Model, folder: Path, features: bool) -> None:
    specs = [
        keras.tree.map_structure(
            lambda tensor: keras.InputSpec(
                shape=(None, *tensor.shape[1:]), dtype=tensor.dtype, name=tensor.name
            ),
            plain._inputs_struct,
        )
    ]
    options: dict[str, Any] = {}
    if keras.backend.backend() == "jax":
        # Without this the graph runs only where JAX runs now: CPU or GPU, not both.
        options["jax2tf_kwargs"] = {
            "native_serialization": True,
            "native_serialization_platforms": ("cpu", "cuda"),
        }
    archive = keras.export.ExportArchive()
    archive.track(plain)
    names = tuple(name for name in plain.output if name != serving.FEATURES)
    for name, keys in signature.signatures(names, features).items():
        archive.add_endpoint(name, _endpoint(plain, keys), specs, **dict(options))
    archive.write_out(str(folder), verbose=False)


def _endpoint(plain: keras.Model, keys: tuple[str, ...]) -> Callable[[Any], Any]:
    def serve(inputs: Any) -> dict[str, Any]:
        outputs = plain(inputs, training=False)
        return {key: outputs[key] for key in keys}

    return serve


def _summary(path: Path, plain: keras.Model) -> str:
    def line(name: str, tensor: Any) -> str:
        return f"  {name}: {tensor.dtype} {tuple(tensor.shape)}"

    return "\n".join(
        [
            f"Exported to {path}",
            "inputs",
            *(line(tensor.name, tensor) for tensor in serving.input_tensors(plain)),
            "outputs",
            *(line(name, tensor) for name, tensor in plain.output.items()),
        ]
    )
