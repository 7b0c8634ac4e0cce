"""The whole job on real data: what `kmtl quickstart` runs.

Tasks and data, single-task baselines, search, training of the best model, comparison on
the test split, export and its check. Every stage keeps what it made in the folder of
the run and takes it from there the next time. Importing this module loads no backend.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from kmtl import _files, _swap
from kmtl.quickstart.folder import finished, recorded, remove
from kmtl.quickstart.settings import (
    RESULTS_FILE,
    SETTINGS_FILE,
    STAGES,
    Event,
    OtherSettingsError,
    Result,
    Settings,
)

__all__ = [
    "Event",
    "OtherSettingsError",
    "RESULTS_FILE",
    "Result",
    "SETTINGS_FILE",
    "STAGES",
    "Settings",
    "finished",
    "remove",
    "run",
]


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

    from kmtl.quickstart.job import Job, made_with

    made = recorded(folder, settings, made_with())
    folder.mkdir(parents=True, exist_ok=True)
    _swap.remove_abandoned(folder)
    _files.write_json(folder / SETTINGS_FILE, made)
    return Job(folder, settings, on_event or (lambda event: None)).run()
