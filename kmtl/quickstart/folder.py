"""The folder of a quickstart run: whose it is, and how far it got."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kmtl.quickstart.settings import (
    RESULTS_FILE,
    SETTINGS_FILE,
    OtherSettingsError,
    Result,
    Settings,
)


def finished(out: str | os.PathLike[str], settings: Settings) -> Result | None:
    """The result of an earlier run with these settings, if it is complete.

    Raises:
        OtherSettingsError: if the folder holds something else.
    """
    folder = Path(out).absolute()
    _check_folder(folder, settings)
    if not (folder / RESULTS_FILE).is_file():
        return None
    content = json.loads((folder / RESULTS_FILE).read_text("utf-8"))
    complete = content["settings"]["trials"] >= settings.trials and all(
        (folder / path).exists() for path in content["files"].values()
    )
    return Result(folder, content) if complete else None


def remove(out: str | os.PathLike[str]) -> None:
    """Delete the folder of a run; nothing happens where there is none."""
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        if not (folder / SETTINGS_FILE).is_file():
            raise OtherSettingsError(
                f"'{folder}' holds no quickstart run and is left alone."
            )
        shutil.rmtree(folder)


def _check_folder(folder: Path, settings: Settings) -> None:
    """Refuse a folder of something else, or of a run that cannot be continued."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    file = folder / SETTINGS_FILE
    if not file.is_file():
        raise OtherSettingsError(
            f"`out` must be a new folder or one of a quickstart run. "
            f"Received: out='{folder}'"
        )
    found = json.loads(file.read_text("utf-8"))["settings"]
    wanted = dataclasses.asdict(settings)
    differing = [
        f"{name} was {found[name]} and is now {wanted[name]}"
        for name in ("seed", "epochs")  # more trials continue the search
        if found[name] != wanted[name]
    ]
    if differing:
        raise OtherSettingsError(
            f"'{folder}' holds a run with other settings: {'; '.join(differing)}. "
            "Choose another folder with --out, or delete this run with --fresh."
        )


def recorded(
    folder: Path, settings: Settings, made_with: Mapping[str, str]
) -> dict[str, Any]:
    """Content of the settings file: never fewer trials than there were."""
    trials = settings.trials
    if (folder / SETTINGS_FILE).is_file():
        found = json.loads((folder / SETTINGS_FILE).read_text("utf-8"))
        if found["made_with"] != made_with:
            raise OtherSettingsError(
                f"'{folder}' holds a run begun with {_named(found['made_with'])}, and "
                f"this is {_named(made_with)}: their numbers cannot be compared. "
                "Choose another folder with --out, or delete this run with --fresh."
            )
        trials = max(trials, found["settings"]["trials"])
    return {
        "settings": {**dataclasses.asdict(settings), "trials": trials},
        "made_with": dict(made_with),
    }


def _named(made_with: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in made_with.items())
