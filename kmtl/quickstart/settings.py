"""What a quickstart run is made of, what it tells, and what it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kmtl import _checks

SETTINGS_FILE = "quickstart.json"
RESULTS_FILE = "results.json"
BASELINES = "baselines"
SEARCH = "search"
RUNS = "runs"
MODEL_FILE = "model.keras"
SAVED_MODEL = "saved_model"
TABLE_FILE = "table.md"
CURVES_FILE = "curves.png"
COMPARISON_FILE = "comparison.png"
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
    trials: int = 4
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


def _shown(path: Path) -> str:
    """Relative to where the user is, if that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
