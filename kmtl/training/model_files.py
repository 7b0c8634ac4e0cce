"""Files of models: written whole or not at all, and read by name.

Keras numbers the layers of a weights file by class and fills a model in that order:
with one head more or less, heads get each other's weights. The file knows the layers'
names as well, and by these it is read here.
"""

from __future__ import annotations

import io
import logging
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import keras

from kmtl import _swap
from kmtl._private.keras import OLD_LAYERS
from kmtl.layers.dropout import Dropout
from kmtl.layers.head_group import own_weights
from kmtl.tasks.output import TaskOutput
from kmtl.typing import Model, PathLike, Store

logger = logging.getLogger("kmtl")

WEIGHTS = ".weights.h5"
#: Where a `.keras` file has its weights.
_MEMBER = "model.weights.h5"
#: Layers whose values a file of plain Keras has not: they keep their own.
_OWN_VALUES = (TaskOutput, Dropout)


def write(path: PathLike, suffix: str, write_to: Callable[[PathLike], Any]) -> None:
    """Let Keras write a file beside `path`, and put it into its place when it is whole.

    Keras writes in place: an error or a full disk would destroy the old file.
    """
    if not is_local(path) or not os.fspath(path).endswith(suffix):
        write_to(path)  # elsewhere, or refused by Keras
        return
    if not (parent := _swap.real_path(path).parent).is_dir():
        raise FileNotFoundError(f"There is no folder '{parent}' to write in.")
    with _swap.file_beside(path) as made:
        write_to(str(made))


def is_local(path: PathLike) -> bool:
    return isinstance(path, (str, os.PathLike)) and "://" not in os.fspath(path)


def check_absent(path: PathLike, overwrite: bool) -> None:
    """Refuse a file that is there, where it may not be replaced.

    Keras would ask on the terminal.
    """
    if not overwrite and is_local(path) and os.path.exists(path):
        raise FileExistsError(
            "`filepath` must not exist yet with overwrite=False. "
            f"Received: filepath={os.fspath(path)!r}"
        )


def check_format(path: PathLike) -> None:
    """Refuse HDF5 files of whole models, which Keras writes and cannot read."""
    if isinstance(path, (str, os.PathLike)) and re.search(
        r"(?<!\.weights)\.(h5|hdf5)$", os.fspath(path)
    ):
        raise ValueError(
            "`filepath` must end in '.keras': models in Keras' old .h5 format do not "
            "load. For the weights alone there is save_weights('name.weights.h5'). "
            f"Received: filepath={os.fspath(path)!r}"
        )


def load_weights(
    model: Model, path: PathLike, skip_mismatch: bool, load: Callable[..., Any]
) -> None:
    """See `MultiTaskModel.load_weights`; `load` is that of Keras."""
    if not os.fspath(path).endswith((WEIGHTS, ".keras")):
        raise ValueError(
            f"`filepath` must end in '{WEIGHTS}' or '.keras': of other files the names "
            f"of the layers are not known. Received: filepath={os.fspath(path)!r}"
        )
    with tempfile.TemporaryDirectory(prefix="kmtl-weights-") as folder:
        own = os.path.join(folder, f"own{WEIGHTS}")
        keras.Model.save_weights(model, own)
        with _opened(path) as given, h5py.File(own, "r+") as target:
            theirs, ours = _groups(given), _groups(target)
            if not any(theirs.values()) and theirs:
                logger.warning(
                    "'%s' does not name its layers, as files of old Keras versions: "
                    "they are filled in their order. Compare a prediction of each task "
                    "before you rely on them.",
                    os.fspath(path),
                )
            elif not _same_names(theirs, ours):
                _fill(model, given, theirs, target, ours, skip_mismatch)
                path, skip_mismatch = own, False
        load(path, skip_mismatch=skip_mismatch)


def _opened(path: PathLike) -> h5py.File:
    if not os.fspath(path).endswith(".keras"):
        return h5py.File(path, "r")
    with zipfile.ZipFile(path) as archive:
        return h5py.File(io.BytesIO(archive.read(_MEMBER)), "r")


def _groups(file: h5py.File) -> dict[str, str]:
    """Each layer's group in a file, with the layer's name ("" if it has none)."""
    layers = file.get("layers", file.get(OLD_LAYERS, {}))
    return {
        group: str(content["vars"].attrs.get("name", "")) if "vars" in content else ""
        for group, content in layers.items()
    }


def _is_automatic(group: str, name: str) -> bool:
    """Whether Keras made a layer's name up; it counts on from model to model."""
    kind = re.sub(r"_\d+$", "", group)
    return re.fullmatch(rf"{re.escape(kind)}(_\d+)?", name) is not None


def _same_names(theirs: dict[str, str], ours: dict[str, str]) -> bool:
    """Whether the order of the file is that of the model."""
    return theirs.keys() == ours.keys() and all(
        theirs[group] == name
        or (_is_automatic(group, name) and _is_automatic(group, theirs[group]))
        for group, name in ours.items()
    )


def _fill(
    model: Model,
    given: h5py.File,
    theirs: dict[str, str],
    target: h5py.File,
    ours: dict[str, str],
    skip_mismatch: bool,
) -> None:
    """Put the file's layers into the model's own file, by name."""
    named = {
        name: group for group, name in theirs.items() if not _is_automatic(group, name)
    }
    layers = {layer.name: layer for layer in model.layers}
    filled, absent, unlike = [], [], []
    for group, name in ours.items():
        if not own_weights(layers[name]):
            continue
        source = given["layers"].get(named.get(name, ""))
        have = {} if source is None else _shapes(source)
        if not have:
            if not isinstance(layers[name], _OWN_VALUES):
                absent.append(name)
        elif have == _shapes(target["layers"][group]):
            del target["layers"][group]
            given.copy(source, target["layers"], name=group)
            filled.append(name)
        elif not isinstance(layers[name], _OWN_VALUES):
            unlike.append(name)
    heads = {n for group, n in theirs.items() if group.startswith("task_output")}
    unused = sorted(heads - set(model.task_names))
    if not any(not isinstance(layers[name], _OWN_VALUES) for name in filled):
        raise ValueError(_refusal(model, "none of the model's layers", absent, unused))
    if skip_mismatch:
        if absent or unlike:
            logger.warning(
                "These layers kept their own weights: %s (not in the file, or of "
                "another shape there).",
                ", ".join(absent + unlike),
            )
    elif absent or unlike or unused:
        raise ValueError(
            _refusal(model, "not the same layers", absent + unlike, unused)
        )


def _refusal(model: Model, what: str, lacking: list[str], unused: list[str]) -> str:
    parts = [f"The file has {what} (matched by name)."]
    if lacking:
        parts.append(f"Not there, or of another shape: {', '.join(lacking)}.")
    if unused:
        parts.append(f"Tasks that the model has not: {', '.join(unused)}.")
    return " ".join(
        [
            *parts,
            f"The model's tasks: {', '.join(model.task_names)}.",
            "Build the model as it was saved, or pass skip_mismatch=True to fill the "
            "layers of the same name and shape and keep the others.",
        ]
    )


def _shapes(group: Store) -> dict[str, tuple[int, ...]]:
    return dict(_datasets(group))


def _datasets(group: Store, prefix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, value in group.items():
        if isinstance(value, h5py.Group):
            yield from _datasets(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", tuple(value.shape)
