"""The folder of a quickstart run: whose it is, and how far it got."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from kmtl import _files, _swap
from kmtl.quickstart.settings import (
    BASELINES,
    COMPARISON_FILE,
    CURVES_FILE,
    MODEL_FILE,
    RESULTS_FILE,
    RUNS,
    SAVED_MODEL,
    SEARCH,
    SETTINGS_FILE,
    TABLE_FILE,
    OtherSettingsError,
    Result,
    Settings,
)
from kmtl.typing import Config

logger = logging.getLogger("kmtl")

#: All that a run makes; the settings, which say whose it is, last.
_MADE = (
    *(RESULTS_FILE, TABLE_FILE, CURVES_FILE, COMPARISON_FILE, MODEL_FILE),
    *(SAVED_MODEL, RUNS, SEARCH, BASELINES, SETTINGS_FILE),
)
_REMEDY = "Choose another folder with --out, or delete this run with --fresh."


def finished(out: str | os.PathLike[str], settings: Settings) -> Result | None:
    """The result of an earlier run with these settings, if it is complete.

    Raises:
        OtherSettingsError: if the folder holds something else.
        DamagedFileError: if its settings cannot be read.
    """
    folder = Path(out).absolute()
    _check_folder(folder, settings)
    if not (folder / RESULTS_FILE).is_file():
        return None
    try:
        keys = ("settings", "files", "table", "notes")
        content = _files.read_json(
            folder / RESULTS_FILE, "It is made again.", keys=keys
        )
        complete = content["settings"]["trials"] >= settings.trials and all(
            (folder / path).exists() for path in content["files"].values()
        )
    except (_files.DamagedFileError, LookupError, TypeError, AttributeError) as error:
        logger.warning("'%s' is made again: %s", folder / RESULTS_FILE, error)
        return None
    return Result(folder, content) if complete else None


def remove(out: str | os.PathLike[str]) -> None:
    """Delete what a run has made in its folder; nothing happens where there is none.

    Raises:
        OtherSettingsError: if the folder holds anything else. It is left as it is.
    """
    folder = Path(out)
    _swap.remove_abandoned(folder)
    if _is_new(folder):
        return
    if not (folder / SETTINGS_FILE).is_file():
        raise OtherSettingsError(
            f"'{folder}' holds no quickstart run and is left alone."
        )
    others = [entry.name for entry in folder.iterdir() if entry.name not in _MADE]
    if others:
        raise OtherSettingsError(
            f"'{folder}' is left alone: besides a quickstart run it holds "
            f"{', '.join(sorted(others))}. Move that elsewhere first."
        )
    for name in _MADE:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it may be where somebody stands
        folder.rmdir()


def _is_new(folder: Path) -> bool:
    """Whether nothing is there but what a kill left of the first file."""
    if not folder.is_dir():
        return not folder.exists()
    return all(entry.name.startswith(_swap.UNFINISHED) for entry in folder.iterdir())


def _check_folder(folder: Path, settings: Settings) -> None:
    """Refuse a folder of something else, or of a run that cannot be continued."""
    if _is_new(folder):
        return
    if not (folder / SETTINGS_FILE).is_file():
        raise OtherSettingsError(
            f"`out` must be a new folder or one of a quickstart run. "
            f"Received: out='{folder}'"
        )
    found = _read_settings(folder)["settings"]
    wanted = dataclasses.asdict(settings)
    differing = [
        f"{name} was {found[name]} and is now {wanted[name]}"
        for name in ("seed", "epochs")  # more trials continue the search
        if found[name] != wanted[name]
    ]
    if differing:
        raise OtherSettingsError(
            f"'{folder}' holds a run with other settings: {'; '.join(differing)}. "
            f"{_REMEDY}"
        )


def _read_settings(folder: Path) -> Config:
    path = folder / SETTINGS_FILE
    found = _files.read_json(path, _REMEDY, keys=("settings", "made_with"))
    try:
        Settings(**found["settings"])
        _named(found["made_with"])
    except (TypeError, ValueError, AttributeError) as error:
        raise _files.DamagedFileError(path, str(error), _REMEDY) from error
    return found


def recorded(folder: Path, settings: Settings, made_with: Mapping[str, str]) -> Config:
    """Content of the settings file: never fewer trials than there were."""
    trials = settings.trials
    if (folder / SETTINGS_FILE).is_file():
        found = _read_settings(folder)
        if found["made_with"] != made_with:
            raise OtherSettingsError(
                f"'{folder}' holds a run begun with {_named(found['made_with'])}, and "
                f"this is {_named(made_with)}: their numbers cannot be compared. "
                f"{_REMEDY}"
            )
        trials = max(trials, found["settings"]["trials"])
    return {
        "settings": {**dataclasses.asdict(settings), "trials": trials},
        "made_with": dict(made_with),
    }


def _named(made_with: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in made_with.items())
