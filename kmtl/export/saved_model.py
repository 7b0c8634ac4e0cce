"""Writing a model for serving."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from kmtl import _swap
from kmtl.export import description, formats, serving, signature, target, top
from kmtl.export.exportable import ExportableModel
from kmtl.export.raw import RawInputs, as_structure, raw_inputs
from kmtl.typing import Config, Inputs, Outputs, Tensor

#: Characters of a converter's error that are shown.
REASON = 500


def export_model(
    model: ExportableModel,
    filepath: str | os.PathLike,
    format: str = formats.SAVED_MODEL,
    verbose: bool | None = False,
    *,
    outputs: str = "probabilities",
    input_dtype: str | None = None,
    tasks: Sequence[str] | None = None,
    features: bool = False,
    top_k: int | None = None,
    names: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Write a model for serving, with one named output per task.

    A SavedModel gets the signature `serving_default`: the model's named inputs, any
    batch size, to a dict of task name to float32 output. Of a model that knows its
    inputs (`kmtl.inputs`) it takes what users have: the columns of a table one by one
    (numbers in float32, NaN where missing; texts and dates as strings, "" where
    missing), under their names, in which other characters than letters and digits are
    underscores: `area m2` is `area_m2` there, which `verbose=True` prints and the
    export's description says (`"column"`). The file formats take what
    `model.prepare_inputs` gives. Further signatures are each task's own name,
    `features` when asked for, and `serve` (Keras' name of the default). The file
    formats have the default one, with `features` as one more output. What each output
    is stands in the export itself, in a SavedModel as
    `assets.extra/kmtl_signature.json`. The names and types written are compared with
    the model's; `kmtl.verify_export` compares the numbers.

    Nothing is left of an export that fails half way, and an export that is replaced is
    exchanged in one step (where the system can). A server that reads while one is
    replaced may still see files of both: give it versions, `path/1`, `path/2`, ...,
    each written once, as TensorFlow Serving expects.

    Args:
        model: A `kmtl.MultiTaskModel`.
        filepath: Folder to write; for the other formats a file that ends in `.onnx`,
            `.xml` (OpenVINO, which writes a `.bin` beside it) or `.tflite`.
        format: `"tf_saved_model"`, `"onnx"` (`pip install "kmtl[onnx]"`), `"openvino"`
            (`"kmtl[openvino]"`) or `"litert"`. The last three need the TensorFlow
            backend and inputs of numbers. A LiteRT file takes any batch size, or one
            row where LiteRT cannot do more (as with the upsampling of segmentation
            heads); its description says which.
        verbose: Whether to print what was written.
        outputs: `"probabilities"` (values, where a task has no activation) or
            `"logits"`.
        input_dtype: None keeps the model's. `"uint8"` takes raw images: the export
            casts and scales by 1/255. `"float32"` casts to what the model computes in.
        tasks: Names of the heads to export. Defaults to all.
        features: Add the output of the shared trunk, as `features`.
        top_k: Add, for each task of exclusive classes, the `top_k` most probable ones:
            `<task>_top`, int32 class numbers `(N, top_k)`, and `<task>_top_scores`,
            their probabilities (or logits). Defaults to none.
        names: Give these classes by the names in the task's `labels`, as strings (in
            SavedModels written on TensorFlow).
        overwrite: Replace an export of kmtl that exists. Defaults to False.
        **options: `opset_version` (ONNX), or attributes of `tf.lite.TFLiteConverter`,
            such as `optimizations` (LiteRT).

    Returns:
        The absolute path written.

    Raises:
        FileExistsError: if something is there and `overwrite` is False, or if it is no
            export of kmtl. Of two exports at once to one path, one gets this.
        ValueError: for unknown names, for models that a format cannot express, or if
            the signatures written differ from the model's.
        ImportError: if a package is missing that the format needs.

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
    chosen = formats.check_format(format, options)
    raw = None if chosen.suffix else raw_inputs(model)
    if raw is not None and input_dtype is not None:
        raise ValueError(
            "`input_dtype` must be left out for a model whose inputs say how they are "
            f"served ({', '.join(raw.specs)}). Received: input_dtype={input_dtype!r}"
        )
    top.check(top_k, names, chosen.suffix)
    path = target.check_target(filepath, overwrite, chosen.suffix)
    plain = serving.serving_model(
        model,
        outputs=outputs,
        input_dtype=input_dtype,
        tasks=tasks,
        features=features,
        top_k=top_k,
        class_names=names,
        decoded=not chosen.suffix,
    )
    groups = {
        name: top.of_task(model.task(name), plain.output)
        for name in model.task_names
        if name in plain.output
    }
    if chosen.suffix:
        _check_numeric(plain, format)
        endpoints = {signature.SERVE: tuple(plain.output)}
    else:
        endpoints = signature.signatures(groups, features)

    def write(folder: Path, batch: int | None) -> Config:
        _write_saved_model(plain, folder, endpoints, batch, raw)
        described = signature.describe(model, plain, outputs, input_dtype, folder, raw)
        signature.check_endpoints(folder, described, endpoints)
        return {"format": format, **described}

    with _swap.folder_beside(path) as folder:
        made = folder / path.name
        if chosen.write is None:
            description.write_description(made, write(made, None))
        else:
            _convert(chosen, plain, write, made, options)
        target.put(made, path, overwrite)
    if verbose:
        sys.stdout.write(_summary(path, plain, raw) + "\n")
    return path


def _check_numeric(plain: keras.Model, format: str) -> None:
    texts = [t.name for t in serving.input_tensors(plain) if t.dtype == "string"]
    if texts:
        raise ValueError(
            f"format='{format}' takes numbers, and these inputs are strings: "
            f"{', '.join(texts)}. Export a SavedModel, or build the model behind its "
            "lookup layers."
        )


def _convert(
    chosen: formats.Format,
    plain: keras.Model,
    write: Callable[[Path, int | None], Config],
    made: Path,
    options: Config,
) -> None:
    """Write a file format. LiteRT may need to know the number of rows."""
    assert chosen.write is not None
    batches = (None, 1) if chosen.suffix == description.LITERT else (None,)
    for batch in batches:
        saved = made.with_name(f"saved_model_{batch}")
        described = write(saved, batch)
        try:
            chosen.write(plain, saved, made, described, options)
            return
        except (OSError, TypeError):
            raise
        except Exception as error:  # converters have no class of errors of their own
            if batch == batches[-1]:
                reason = str(error).strip() or type(error).__name__
                raise ValueError(
                    f"A '{chosen.suffix}' file cannot express this model. Export a "
                    f"SavedModel. The converter says: {reason[:REASON]}"
                ) from error


def _write_saved_model(
    plain: keras.Model,
    folder: Path,
    endpoints: Mapping[str, tuple[str, ...]],
    batch: int | None,
    raw: RawInputs | None,
) -> None:
    specs = [
        keras.tree.map_structure(
            lambda tensor: keras.InputSpec(
                shape=(batch, *tensor.shape[1:]), dtype=tensor.dtype, name=tensor.name
            ),
            plain.input,
        )
    ]
    options: Config = {}
    if keras.backend.backend() == "jax":
        # Without this the graph runs only where JAX runs now: CPU or GPU, not both.
        options["jax2tf_kwargs"] = {
            "native_serialization": True,
            "native_serialization_platforms": ("cpu", "cuda"),
        }
    archive = keras.export.ExportArchive()
    archive.track(plain)
    serves = {
        name: archive.add_endpoint(name, _endpoint(plain, keys), specs, **dict(options))
        for name, keys in endpoints.items()
    }
    with _programs_for_tensorflow():  # wherever endpoints may be traced
        if raw is not None or keras.backend.backend() == "jax":
            serves = {name: _for_no_rows(serve) for name, serve in serves.items()}
            archive = (
                _archive_of(serves)
                if raw is None
                else _with_raw_inputs(serves, plain, raw)
            )
        archive.write_out(str(folder), verbose=False)


def _programs_for_tensorflow() -> contextlib.AbstractContextManager[None]:
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    from kmtl._private.jax import programs_for_tensorflow

    return programs_for_tensorflow()


def _with_raw_inputs(
    serves: Mapping[str, Callable[[Inputs], Outputs]],
    plain: keras.Model,
    raw: RawInputs,
) -> Any:
    """An archive of endpoints that take what users have.

    Args:
        serves: Name -> TensorFlow function of prepared arrays, on either backend.
        plain: The model behind them.
        raw: What they are to take.
    """
    import tensorflow as tf

    specs = {
        key: tf.TensorSpec(spec.shape, spec.dtype, key)
        for key, spec in raw.signature.items()
    }

    def of_users(serve: Callable[[Inputs], Outputs]) -> Any:
        def run(inputs: dict[str, Tensor]) -> Outputs:
            return serve(as_structure(plain, raw.prepare(inputs)))

        return tf.function(run, input_signature=[specs], autograph=False)

    tracked = [*raw.resources()]
    if keras.backend.backend() == "tensorflow":
        tracked.insert(0, plain)  # JAX's variables come with the functions
    return _archive_of(
        {name: of_users(serve) for name, serve in serves.items()}, tracked
    )


def _for_no_rows(serve: Any) -> Any:
    """An endpoint that takes batches without a row, too.

    Programs of JAX's take a number of rows from 1 on, and so do spectrograms: without
    any, one of zeros goes in, and what it gives is left out.
    """
    import tensorflow as tf

    def run(*inputs: Any) -> Outputs:
        rows = tf.shape(tf.nest.flatten(inputs)[0])[0]

        def filled(tensor: Tensor) -> Tensor:
            shape = [tf.maximum(1 - rows, 0), *tf.unstack(tf.shape(tensor))[1:]]
            return tf.concat([tensor, tf.zeros(shape, tensor.dtype)], axis=0)

        found = serve(*tf.nest.map_structure(filled, inputs))
        return {name: value[:rows] for name, value in found.items()}

    return tf.function(run, input_signature=serve.input_signature, autograph=False)


def _archive_of(functions: Mapping[str, Any], tracked: Sequence[Any] = ()) -> Any:
    """An archive of TensorFlow functions by the names of their endpoints."""
    archive = keras.export.ExportArchive()
    for resource in tracked:
        archive.track(resource)
    for name, function in functions.items():
        function.get_concrete_function()  # an archive takes functions that were traced
        archive.add_endpoint(name, function)
    return archive


def _endpoint(plain: keras.Model, keys: tuple[str, ...]) -> Callable[[Inputs], Outputs]:
    def serve(inputs: Inputs) -> dict[str, Tensor]:
        outputs = plain(inputs, training=False)
        return {key: outputs[key] for key in keys}

    return serve


def _summary(path: Path, plain: keras.Model, raw: RawInputs | None) -> str:
    inputs = {tensor.name: tensor for tensor in serving.input_tensors(plain)}
    columns = {} if raw is None else raw.renamed()

    def line(name: str, tensor: Any) -> str:
        own = f" (column '{columns[name]}')" if name in columns else ""
        return f"  {name}: {tensor.dtype} {tuple(tensor.shape)}{own}"

    return "\n".join(
        [
            f"Exported to {path}",
            "inputs",
            *(line(*item) for item in (raw.signature if raw else inputs).items()),
            "outputs",
            *(line(name, tensor) for name, tensor in plain.output.items()),
        ]
    )
