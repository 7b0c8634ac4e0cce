"""Cache of trained models: keys from configurations, and entries that are whole."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

import kmtl
from kmtl import _files
from kmtl.typing import Callback, Config

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

logger = logging.getLogger("kmtl")

FORMAT = 1
MODEL = "model.keras"
RESULT = "result.json"


def default_folder() -> Path:
    """`$KMTL_CACHE_DIR`, else `~/.cache/kmtl`; with `baselines` appended."""
    root = os.environ.get("KMTL_CACHE_DIR")
    return (Path(root) if root else Path.home() / ".cache" / "kmtl") / "baselines"


def versions() -> dict[str, str]:
    """Versions on which numbers depend."""
    backend = keras.backend.backend()
    return {
        "kmtl": kmtl.__version__,
        "keras": keras.__version__,
        "backend": f"{backend} {sys.modules[backend].__version__}",
    }


def key(description: Any) -> str:
    """Hash of a JSON-ready description."""
    text = json.dumps(description, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def describe(value: Any, where: str) -> Any:
    """JSON-ready data that differ when the value means something else.

    Raises:
        TypeError: for objects that do not say what they are made of.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): describe(part, where) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(part, where) for part in value]
    if isinstance(value, np.ndarray):
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"array": content, "dtype": str(value.dtype), "shape": value.shape}
    if isinstance(value, functools.partial):
        return describe([value.func, value.args, value.keywords], where)
    if inspect.isclass(value):
        return {"class": _name(value)}
    if inspect.isfunction(value):
        return _describe_function(value, where)
    for method in ("to_config", "get_config"):
        if callable(getattr(value, method, None)):
            config = describe(getattr(value, method)(), where)
            return {"class": _name(type(value)), "config": config}
    if isinstance(value, keras.callbacks.Callback):
        return {"class": _name(type(value)), "state": _given(value, where)}
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"class": _name(type(value)), "fields": describe(fields, where)}
    raise TypeError(
        f"`{where}` must be plain values, functions, or objects with `get_config` or "
        "`to_config`: trained baselines are stored under it. "
        f"Received: {value!r} of type {type(value).__name__}"
    )


def _name(found: Any) -> str:
    return f"{found.__module__}.{found.__qualname__}"


def _describe_function(function: Any, where: str) -> Any:
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # typed into an interpreter
        source = function.__code__.co_code.hex() + repr(function.__code__.co_consts)
    caught = inspect.getclosurevars(function).nonlocals
    return {
        "function": _name(function),
        "source": hashlib.sha256(source.encode()).hexdigest(),
        "closure": describe(caught, where),
        "defaults": describe([function.__defaults__, function.__kwdefaults__], where),
    }


def _given(callback: Callback, where: str) -> Any:
    """What a callback was constructed with, as far as it keeps it."""
    names = inspect.signature(type(callback).__init__).parameters
    kept = {name: value for name, value in vars(callback).items() if name in names}
    return describe(kept, where)


def read_entry(folder: Path, wanted: str) -> Config | None:
    """Result of a cached entry; None if there is none, or it is damaged.

    A damaged entry is renamed, and the log says why.

    Raises:
        OSError: if it cannot be read: nothing is known of its content then.
    """
    if not folder.exists():
        return None
    keys = ("format", "key", "digest", "metrics", "history", "epoch", "seconds")
    try:
        result = _files.read_json(folder / RESULT, "", keys=keys)
        if result["format"] != FORMAT or result["key"] != wanted:
            raise _files.DamagedFileError(folder, "it has another format or key", "")
        if not all(isinstance(result[key], dict) for key in ("metrics", "history")):
            what = "its metrics and history are no JSON objects"
            raise _files.DamagedFileError(folder / RESULT, what, "")
        if _files.digest(folder / MODEL) != result["digest"]:
            what = "the digest of its model does not fit"
            raise _files.DamagedFileError(folder, what, "")
    except (_files.DamagedFileError, FileNotFoundError) as error:
        logger.warning(
            "Cached baseline '%s' is damaged and is trained again: %s "
            "What there is of it is now '%s'.",
            folder,
            error,
            _files.move_aside(folder),
        )
        return None
    return result


def write_entry(
    folder: Path, wanted: str, model: MultiTaskModel, result: dict[str, Any]
) -> None:
    """Store a trained model and its result, whole or not at all."""
    try:
        with _files.whole_folder(folder) as unfinished:
            model.save(unfinished / MODEL)
            content = {
                "format": FORMAT,
                "key": wanted,
                "digest": _files.digest(unfinished / MODEL),
                **result,
            }
            _files.write_json(unfinished / RESULT, content)
    except FileExistsError:
        logger.info("Another process has stored '%s' meanwhile.", folder)
