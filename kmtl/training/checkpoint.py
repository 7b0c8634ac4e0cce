"""One file with what a training, or a model's weights, can be brought back from.

Runs and trials of searches keep the same format: an npz file of arrays in groups, with
a `meta`, sealed with its digest. A file is there whole or not at all; a damaged one is
told from one that cannot be read just now.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from kmtl import _files, _swap
from kmtl._files import DamagedFileError
from kmtl.layers.copying import refresh
from kmtl.training import values
from kmtl.training.saved_state import array_of, callback_state, variables
from kmtl.typing import Callback, Config, Options, Variable

FORMAT = 2
_META = "meta"
_STATE = "state"
_SEAL = b"kmtl:"
_SEAL_BYTES = len(_SEAL) + 64


@dataclasses.dataclass
class Checkpoint:
    """What a checkpoint file holds.

    Args:
        path: The file.
        meta: What was given to `save`.
        arrays: Group -> its arrays, in their order.
    """

    path: Path
    meta: Config
    arrays: dict[str, list[np.ndarray]]

    def restore(self, model: keras.Model, callbacks: Sequence[Callback]) -> None:
        """Bring a model, its optimizer and the callbacks to where they were.

        Raises:
            ValueError: for another model or optimizer.
        """
        assign(variables(model), self.arrays.get(_STATE, []), self.path)
        refresh(model)
        for i, (callback, kept) in enumerate(
            zip(callbacks, self.meta["callbacks"], strict=False)
        ):
            if type(callback).__name__ != kept["class"]:
                continue
            for name, value in kept["plain"].items():
                setattr(callback, name, value)
            for name in kept["lists"]:
                setattr(callback, name, list(self.arrays[f"callback{i}.{name}"]))


def save_training(
    path: Path,
    model: keras.Model,
    callbacks: Sequence[Callback],
    meta: Options,
    **groups: Sequence[np.ndarray],
) -> None:
    """Keep all that a training needs to go on.

    Args:
        path: The file.
        model: The model, with its optimizer.
        callbacks: Callbacks whose counters matter.
        meta: JSON-ready dict.
        **groups: Further arrays.
    """
    arrays = {_STATE: [array_of(variable) for variable in variables(model)], **groups}
    states = []
    for i, callback in enumerate(callbacks):
        plain, lists = callback_state(callback)
        arrays |= {f"callback{i}.{name}": values for name, values in lists.items()}
        kind = type(callback).__name__
        states.append({"class": kind, "plain": plain, "lists": sorted(lists)})
    save(path, {**meta, "callbacks": states}, arrays)


def save(path: Path, meta: Options, groups: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Write a checkpoint, whole or not at all."""
    arrays = {
        f"{group}/{i}": np.asarray(array)
        for group, members in groups.items()
        for i, array in enumerate(members)
    }
    # Python's JSON: callbacks begin with infinity as the best value.
    arrays[_META] = np.array(json.dumps({**meta, "format": FORMAT}))
    with _swap.file_beside(path) as made:
        np.savez(made, **arrays)  # type: ignore[arg-type]
        seal = _seal(_files.digest(made))
        with open(made, "ab") as file:
            file.write(seal)


def load(path: Path, remedy: str, *, keys: Iterable[str] = ()) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: The file.
        remedy: What to do if it is damaged.
        keys: What its `meta` must have.

    Raises:
        DamagedFileError: if it is not what was written.
        OSError: if it cannot be read: nothing is known of its content then.
    """
    content = path.read_bytes()  # whatever fails after this is the content's
    body, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    if seal != _seal(hashlib.sha256(body).hexdigest()):
        raise DamagedFileError(path, "its digest does not fit its content", remedy)
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found}
        meta = dict(json.loads(str(arrays.pop(_META))))
        missing = [key for key in ("format", *keys) if key not in meta]
    except (ValueError, TypeError, LookupError, zipfile.BadZipFile) as error:
        raise DamagedFileError(path, f"it is no checkpoint ({error})", remedy) from (
            error
        )
    if missing:
        raise DamagedFileError(path, f"it has no {', '.join(missing)}", remedy)
    if meta["format"] != FORMAT:
        what = f"it has format {meta['format']}, not {FORMAT}"
        raise DamagedFileError(path, what, remedy)
    groups: dict[str, dict[int, np.ndarray]] = {}
    for name, array in arrays.items():
        group, _, number = name.rpartition("/")
        groups.setdefault(group, {})[int(number)] = array
    ordered = {
        group: [found[number] for number in sorted(found)]
        for group, found in groups.items()
    }
    return Checkpoint(path, meta, ordered)


def assign(
    targets: Sequence[Variable], arrays: Sequence[np.ndarray], where: Path
) -> None:
    """Put saved arrays into a model's variables.

    Raises:
        ValueError: if their shapes are others.
    """
    expected = [tuple(variable.shape) for variable in targets]
    found = [array.shape for array in arrays]
    if expected != found:
        raise ValueError(
            f"'{where}' must be a checkpoint of the same model and optimizer. Expected "
            f"shapes: {expected} of {[variable.path for variable in targets]}. "
            f"Received: {found}"
        )
    values.assign(targets, arrays)


def _seal(digest: str) -> bytes:
    """What follows the npz file's own bytes, which NumPy does not mind."""
    return _SEAL + digest.encode()
