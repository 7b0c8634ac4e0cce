"""The plain Keras model that is exported: what comes in, what goes out."""

from __future__ import annotations

import re
from collections.abc import Sequence

import keras

from kmtl import _checks
from kmtl.export import top
from kmtl.export.exportable import ExportableModel
from kmtl.typing import Inputs, Tensor

FEATURES = "features"
OUTPUTS = ("probabilities", "logits")
INPUT_DTYPES = ("float32", "uint8")
PIXEL_SCALE = 1.0 / 255.0
#: What Keras calls an input that nobody has named; it counts on with every model.
UNNAMED = re.compile(r"(keras_tensor|input_layer)(_\d+)?")


def serving_model(
    model: ExportableModel,
    *,
    outputs: str = "probabilities",
    input_dtype: str | None = None,
    tasks: Sequence[str] | None = None,
    features: bool = False,
    top_k: int | None = None,
    class_names: bool = False,
    decoded: bool = False,
) -> keras.Model:
    """A plain functional Keras model with the inputs and outputs of an export.

    Args:
        model: The trained model; its weights are copied.
        outputs: `"probabilities"` (values where a task has no activation) or
            `"logits"`.
        input_dtype: None keeps the model's; `"float32"` casts; `"uint8"` casts and
            scales by 1/255. Inputs of integers or strings stay as they are.
        tasks: Names of the heads to keep, all by default.
        features: Add the output of the model's seam as `"features"`.
        top_k: Add the most probable classes of each task, as `kmtl.export.top` says.
        class_names: Give them by name.
        decoded: Add what tasks decode of their outputs, as `<name>_decoded`.

    Returns:
        A Keras model whose outputs are a dict: task names, and `"features"`.
    """
    _checks.check_choice("outputs", outputs, OUTPUTS)
    names = selected_tasks(model, tasks)
    plain = model.to_keras(activated=outputs == "probabilities")
    kept = {name: plain.output[name] for name in names}
    if top_k is not None:
        chosen = {name: model.task(name) for name in names}
        kept |= top.outputs(chosen, kept, top_k, class_names)
    if decoded:
        own = {name: model.task(name) for name in names}
        kept |= top.decoded(own, {name: plain.output[name] for name in names})
    if features:
        kept[FEATURES] = _as_float32(seam_output(model, plain))
    kept_model = keras.Model(plain.input, kept, name=model.name)
    if input_dtype is None:
        return kept_model
    _checks.check_choice("input_dtype", input_dtype, INPUT_DTYPES)
    inputs, prepared = _converted_inputs(plain, input_dtype)
    return keras.Model(inputs, kept_model(prepared), name=model.name)


def selected_tasks(
    model: ExportableModel, tasks: Sequence[str] | None
) -> tuple[str, ...]:
    """The names to export, in the model's order."""
    if tasks is None:
        return model.task_names
    names = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    if not names:
        raise ValueError("`tasks` must name at least one task. Received: tasks=[]")
    for name in names:
        if name not in model.task_names:
            raise ValueError(_checks.unknown_name("task", name, model.task_names))
    return tuple(name for name in model.task_names if name in names)


def input_tensors(model: keras.Model) -> list[Tensor]:
    """The model's input tensors, in the order in which Keras flattens them."""
    return list(keras.tree.flatten(model.input))


def input_names(model: keras.Model) -> list[str]:
    """What each input is called outside, in the order in which Keras flattens them.

    The key, for a dict of inputs, by which they are given to `fit` and `predict`; else
    the name of the `keras.Input`. What has no name is called `inputs`, or `input_1`,
    `input_2`, ... where there are several.
    """
    structure = model.input
    tensors = keras.tree.flatten(structure)
    if isinstance(structure, dict) and len(structure) == len(tensors):
        keys = {id(tensor): key for key, tensor in structure.items()}
        return [keys[id(tensor)] for tensor in tensors]
    if len(tensors) == 1:
        return ["inputs" if UNNAMED.fullmatch(t.name) else t.name for t in tensors]
    return [
        f"input_{number}" if UNNAMED.fullmatch(tensor.name) else tensor.name
        for number, tensor in enumerate(tensors, 1)
    ]


def seam_output(model: ExportableModel, plain: keras.Model) -> Tensor:
    """The tensor at the end of the shared trunk, in `plain`, a copy of the model."""
    seam = model.seam
    if seam is None:
        raise ValueError(
            "`features=True` needs one place where the trunk that all tasks share "
            "ends; this model has none (sharing_depth=0, or a scheme without it)."
        )
    if any(layer.members > 1 for layer in model.task_outputs.values()):
        raise ValueError(
            "`features=True` needs one vector of features per example; in an ensemble "
            "each member has its own. Export without them."
        )
    return plain.get_layer(seam.name).output


def _as_float32(features: Tensor) -> Tensor:
    return keras.layers.Identity(dtype="float32", name=FEATURES)(
        keras.ops.cast(features, "float32")
    )


def _converted_inputs(plain: keras.Model, input_dtype: str) -> tuple[Inputs, Inputs]:
    """New inputs of the dtype asked for, and what the plain model gets from them."""
    found = input_tensors(plain)
    is_float = [keras.backend.is_float_dtype(tensor.dtype) for tensor in found]
    if not any(is_float):
        dtypes = ", ".join(f"{tensor.name}: {tensor.dtype}" for tensor in found)
        raise ValueError(
            f"`input_dtype` converts floating-point inputs, and this model has none "
            f"({dtypes}). Leave it out. Received: input_dtype={input_dtype!r}"
        )
    inputs, prepared = [], []
    for tensor, convert in zip(found, is_float, strict=True):
        dtype = input_dtype if convert else tensor.dtype
        new = keras.Input(tensor.shape[1:], name=tensor.name, dtype=dtype)
        inputs.append(new)
        if convert:
            new = keras.ops.cast(new, "float32")
            if input_dtype == "uint8":
                new = new * PIXEL_SCALE
        prepared.append(new)
    return (
        keras.tree.pack_sequence_as(plain.input, inputs),
        keras.tree.pack_sequence_as(plain.input, prepared),
    )
