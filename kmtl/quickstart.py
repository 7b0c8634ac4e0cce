"""The whole job on real data: what `kmtl quickstart` runs.

Tasks and data, single-task baselines, search, training of the best model, comparison on
the test split, export and its check. Every stage keeps what it made in the folder of
the run and takes it from there the next time. Importing this module loads no backend.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kmtl import _checks, _files, _swap

SETTINGS_FILE = "quickstart.json"
RESULTS_FILE = "results.json"
STAGES = {
    "data": "Data and tasks",
    "baselines": "Single-task models, to compare with",
    "search": "Search over sharing depth, dropout and task weights",
    "train": "Training the best model",
    "compare": "Comparison on the test split",
    "export": "Export, and its check in a process without kmtl",
}


class OtherSettingsError(ValueError):
    """The folder belongs to a run with other settings."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a quickstart run is made of.

    Args:
        seed: Integer >= 0: data split, initial weights, order of rows, search.
        trials: Trials of the search, >= 1.
        epochs: Epochs of every training: baselines, trials, best model.
    """

    seed: int = 0
    trials: int = 6
    epochs: int = 12

    def __post_init__(self) -> None:
        for name, low in (("seed", 0), ("trials", 1), ("epochs", 1)):
            value = _checks.check_int(name, getattr(self, name), low)
            object.__setattr__(self, name, value)


@dataclasses.dataclass(frozen=True)
class Event:
    """One step of the job, as `on_event` receives it.

    Args:
        kind: `"stage_begin"`, `"step_begin"`, `"epoch_end"`, `"step_end"` or `"note"`.
        stage: Key of `STAGES`.
        text: What to show.
        number: Number of the stage or step, from 1.
        total: Number of stages or steps.
        epoch: Epochs finished, with `"epoch_end"`.
        epochs: Epochs of the step, if it trains.
    """

    kind: str
    stage: str
    text: str = ""
    number: int | None = None
    total: int | None = None
    epoch: int | None = None
    epochs: int | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """What a finished run gives: its folder, and the content of `results.json`."""

    folder: Path
    content: Mapping[str, Any]

    @property
    def saved_model(self) -> Path:
        """The exported SavedModel."""
        return self.folder / self.content["files"]["SavedModel"]

    def summary(self) -> str:
        """The table, where everything is, and what to try next."""
        width = max(len(name) for name in self.content["files"])
        files = [
            f"  {name:<{width}}  {self.folder / path}"
            for name, path in self.content["files"].items()
        ]
        return "\n".join(
            [
                self.content["table"],
                "",
                *self.content["notes"],
                "",
                "Everything is in",
                *files,
                "",
                "Try next",
                f"  saved_model_cli show --dir {self.saved_model} --all",
                f"  kmtl quickstart --out {_shown(self.folder)} --trials "
                f"{2 * self.content['settings']['trials']}   (goes on with the search)",
                "  kmtl devices",
            ]
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


def run(
    out: str | os.PathLike[str] = "kmtl-quickstart",
    settings: Settings | None = None,
    *,
    on_event: Callable[[Event], None] | None = None,
) -> Result:
    """Do the whole job, or the part of it that an earlier call left undone.

    Args:
        out: Folder for everything that is made.
        settings: What to do. Defaults to `Settings()`.
        on_event: Receives an `Event` whenever something begins or ends.

    Returns:
        A `Result`; `print(result.summary())` shows it.

    Raises:
        OtherSettingsError: if the folder holds a run with another seed, other epochs or
            another backend.
    """
    settings = settings or Settings()
    done = finished(out, settings)
    if done is not None:
        return done
    folder = Path(out).absolute()

    from kmtl._quickstart import Job, made_with

    recorded = _recorded(folder, settings, made_with())
    folder.mkdir(parents=True, exist_ok=True)
    _swap.remove_abandoned(folder)
    _files.write_json(folder / SETTINGS_FILE, recorded)
    return Job(folder, settings, on_event or (lambda event: None)).run()


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


def _recorded(
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


def _shown(path: Path) -> str:
    """Relative to where the user is, if that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
