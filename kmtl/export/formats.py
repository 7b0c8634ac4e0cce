"""The file formats: each is made of the SavedModel, or of the plain model behind it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from kmtl import _checks
from kmtl.export import description
from kmtl.typing import Config, Options

SAVED_MODEL = "tf_saved_model"


@dataclasses.dataclass(frozen=True)
class Format:
    """One way to leave kmtl.

    Args:
        suffix: How the file's name ends; "" for a folder.
        packages: What has to be installed to write it.
        extra: The extra of kmtl that installs it.
        options: Names of the options that `export` passes on.
        write: Function of the plain model, the SavedModel's folder, the file, the
            description and the options.
    """

    suffix: str
    packages: tuple[str, ...] = ()
    extra: str = ""
    options: tuple[str, ...] = ()
    write: Callable[[keras.Model, Path, Path, Config, Any], None] | None = None


def check_format(name: str, options: Options) -> Format:
    """The format, refused if it cannot be written here."""
    if name == "torch":
        raise ValueError(
            "format='torch' is not offered: Keras writes it on its PyTorch backend "
            "only, on which kmtl does not run. Export to 'onnx'."
        )
    _checks.check_choice("format", name, tuple(FORMATS))
    found = FORMATS[name]
    for option in options:
        if option not in found.options and found.suffix != description.LITERT:
            known = (
                *("outputs", "input_dtype", "tasks", "features", "overwrite"),
                *("top_k", "names"),
            )
            raise TypeError(
                _checks.unknown_name(
                    f"argument for format='{name}':", option, (*known, *found.options)
                )
            )
    backend = keras.backend.backend()
    if found.suffix and backend != "tensorflow":
        raise ValueError(
            f"format='{name}' is written on the TensorFlow backend, since its "
            f"converters read TensorFlow's graphs. The backend is {backend}: save the "
            "model (model.save('model.keras')), load it in a process with "
            "KERAS_BACKEND=tensorflow and export it there."
        )
    _require("tensorflow", f"format='{name}'", "tensorflow")
    for package in found.packages:
        _require(package, f"format='{name}'", f'"kmtl[{found.extra}]"')
    return found


def _require(package: str, user: str, install: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{user} needs the package {package}: pip install {install}"
        ) from error


def _write_onnx(
    plain: keras.Model, saved: Path, file: Path, described: Config, options: Any
) -> None:
    import onnx

    specs = keras.tree.map_structure(
        lambda tensor: keras.InputSpec(
            shape=(None, *tensor.shape[1:]), dtype=tensor.dtype, name=tensor.name
        ),
        plain.input,
    )
    with warnings.catch_warnings():
        # Keras makes tf2onnx work with NumPy 2, which warns.
        warnings.simplefilter("ignore", FutureWarning)
        plain.export(
            str(file), format="onnx", verbose=False, input_signature=[specs], **options
        )
    model = onnx.load(file)
    constants = {tensor.name for tensor in model.graph.initializer}
    given = [i.name for i in model.graph.input if i.name not in constants]
    if len(given) > len(keras.tree.flatten(specs)):
        raise ValueError(
            "Numbers of a layer did not get into the file, and would be asked for as "
            f"inputs: {', '.join(given)}"
        )
    onnx.helper.set_model_props(model, {description.KEY: json.dumps(described)})
    onnx.save(model, file)


def _write_openvino(
    plain: keras.Model, saved: Path, file: Path, described: Config, options: Any
) -> None:
    import openvino

    model = openvino.Core().read_model(saved)
    model.set_rt_info(json.dumps(described), description.KEY)
    openvino.save_model(model, str(file), compress_to_fp16=False)


def _write_litert(
    plain: keras.Model, saved: Path, file: Path, described: Config, options: Any
) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(saved), signature_keys=["serving_default"]
    )
    # Without TensorFlow's own kernels, which LiteRT's interpreter has not.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    for name, value in options.items():
        if not hasattr(converter, name):
            raise TypeError(
                f"`{name}` must be an attribute of tf.lite.TFLiteConverter, such as "
                "`optimizations`, or an argument of `export`."
            )
        setattr(converter, name, value)
    file.write_bytes(converter.convert())
    description.write_description(file, described)


FORMATS = {
    SAVED_MODEL: Format(""),
    "onnx": Format(
        description.ONNX, ("onnx", "tf2onnx"), "onnx", ("opset_version",), _write_onnx
    ),
    "openvino": Format(
        description.OPENVINO, ("openvino",), "openvino", (), _write_openvino
    ),
    "litert": Format(description.LITERT, write=_write_litert),
}
