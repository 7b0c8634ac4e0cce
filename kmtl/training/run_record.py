"""What a run was begun with, and what it must be gone on with."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

import kmtl
from kmtl import _files
from kmtl._describe import plain
from kmtl.data.hashing import fingerprint
from kmtl.training import sources
from kmtl.typing import Config, Data, Options

logger = logging.getLogger("kmtl")

FORMAT = 2
#: Names that are counted up in a process, seeds that may be random, code that is
#: written down differently each time, and what only says how fast a step is.
_PASSING = (
    *("name", "seed", "code", "module", "registered_name", "build_config"),
    *("inbound_nodes", "input_layers", "output_layers"),
)
_COMPILED = (
    *("loss", "loss_weights", "weighting", "relations"),
    *("adversary", "joint_losses", "lr_multipliers"),
)
_SHOWN = 60

#: Folders in which an optimizer has trained: its own past may have changed it.
_trained: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


def setting_of(
    model: keras.Model,
    data: Data,
    validation: Data,
    batch_size: int | None,
    seed: int,
    folder: Path,
) -> Config:
    """JSON-ready description of all that decides a run's numbers, but its length.

    Of arrays the contents count; of data sets, which may be augmented at random, the
    kind and the number of batches alone. Of a learning rate schedule its kind counts,
    as its steps depend on the epochs. What callbacks have changed of a model that
    trained in the same folder before does not count.
    """
    setting: Config = {"training data": _described(data)}
    setting["validation data"] = _described(validation)
    if sources.is_tf_dataset(data):
        setting["batches"] = int(data.cardinality())
    if sources.arrays_of(data) is not None:
        setting |= {"batch_size": batch_size or 32, "seed": seed}
        plan = sources.plan_of(data)
        if plan is not None:
            setting["mixture"] = plan.describe()
    elif getattr(getattr(model, "weighting", None), "unseeded", None):
        setting["seed"] = seed
    if os.path.realpath(folder) not in _trained.get(_optimizer(model), ()):
        setting |= _model(model)
    return setting


def note_trained(model: keras.Model, folder: Path) -> None:
    """Note that a model trains in a folder, where its settings have been checked."""
    places = _trained.setdefault(_optimizer(model), set())
    places.add(os.path.realpath(folder))


def carry_trained(old: Any, new: Any) -> None:
    """Note that an optimizer goes on where another one was."""
    if old in _trained:
        _trained[new] = _trained[old]


def _optimizer(model: keras.Model) -> Any:
    if getattr(model, "optimizer", None) is None:
        raise ValueError("`model` must be compiled. Received: one that is not")
    return model.optimizer


def _described(data: Data) -> Any:
    if data is None:
        return None
    arrays = sources.arrays_of(data)
    if arrays is not None:
        return fingerprint(arrays)
    if sources.is_tf_dataset(data):
        return str(data.element_spec)
    return type(data).__name__


def _model(model: keras.Model) -> Config:
    optimizer = plain(model.optimizer, without=_PASSING)
    rate = optimizer.pop("learning_rate", None)
    if isinstance(rate, Mapping):
        rate = rate.get("class_name", rate.get("class"))
    compiled = plain(model.get_compile_config() or {}, without=_PASSING)
    layers = [(type(layer).__name__, _config(layer)) for layer in model.layers]
    found = {"optimizer": optimizer, "learning_rate": rate}
    found |= {name: compiled.get(name) for name in _COMPILED}
    tasks = getattr(model, "tasks", ())
    found["tasks"] = [plain(task.to_config()) for task in tasks]
    text = json.dumps(layers, sort_keys=True)
    dtypes = sorted({layer.dtype_policy.name for layer in model.layers})
    found["dtypes"] = dtypes  # the configs' names are left out
    found["layers"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def _config(layer: keras.Layer) -> Config | None:
    try:
        return plain(layer.get_config(), without=_PASSING)
    except NotImplementedError:  # a user's layer that is not made to be saved
        return None


def check(folder: Path, config: Options, setting: Options | None = None) -> None:
    """Refuse a folder that was begun with something else; record a new one's.

    Args:
        folder: Of the run.
        config: The user's description.
        setting: `setting_of` it, where that is known.

    Raises:
        ValueError: naming what differs.
        DamagedFileError: if the record cannot be read.
    """
    path = folder / "config.json"
    remedy = f"Restore it from a copy, or move '{folder}' away to begin anew."
    given = json.loads(json.dumps({"config": config, "setting": setting or {}}))
    now = {"keras": keras.__version__, "backend": keras.backend.backend()}
    if not path.exists():
        others = [folder / "history.jsonl", *folder.glob("checkpoints/epoch-*.npz")]
        for other in others:
            if other.exists():  # of something else, or of a run that lost its record
                what = f"it is missing, though there is '{other.relative_to(folder)}'"
                raise _files.DamagedFileError(path, what, remedy)
        made = {"format": FORMAT, "kmtl": kmtl.__version__, **now, **given}
        _files.write_json(path, made)
        return
    found = _files.read_json(path, remedy, keys=("format", "config", *now))
    if found["format"] != FORMAT:
        raise ValueError(
            f"`folder` holds a run of another version of kmtl ({found.get('kmtl')}), "
            "with other checkpoints. Go on with that version, or choose another "
            f"folder. Received: folder='{folder}'"
        )
    known = found.get("setting", {})
    if not isinstance(found["config"], dict) or not isinstance(known, dict):
        what = "its config or setting is no JSON object"
        raise _files.DamagedFileError(path, what, remedy)
    names = {*found["config"], *config}
    differing = [
        *_differences(found["config"], given["config"], sorted(names)),
        *_differences(
            known, given["setting"], [n for n in given["setting"] if n in known]
        ),
    ]
    if differing:
        raise ValueError(
            "`folder` must be a new one or one of a run with the same data, model and "
            f"configuration. Different: {', '.join(differing)}. "
            f"Received: folder='{folder}'"
        )
    if given["setting"].keys() - known.keys():
        _files.write_json(path, {**found, "setting": {**known, **given["setting"]}})
    for name, value in now.items():
        if found[name] != value:
            logger.warning(
                "Run '%s' began with %s %s and goes on with %s: other numbers.",
                folder,
                name,
                found[name],
                value,
            )


def _differences(known: Options, given: Options, names: list[str]) -> list[str]:
    texts = []
    for name in names:
        was, now = known.get(name), given.get(name)
        if was == now and (name in known) == (name in given):
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            inner = sorted({*was, *now})
            parts = _differences(was, now, inner)
            texts += [f"{name}.{part}" for part in parts]
            continue
        shown = json.dumps(was), json.dumps(now)
        short = max(map(len, shown)) <= _SHOWN
        texts.append(f"{name} (was {shown[0]}, is {shown[1]})" if short else name)
    return texts
