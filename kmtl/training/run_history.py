"""The logs of a run's epochs, on the disk."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmtl import _files
from kmtl.typing import Config

NAME, TABLE = "history.jsonl", "history.csv"


def read(folder: Path, epochs: int) -> list[Config]:
    """The logs of a run's first epochs, a dict each with the number of the epoch.

    Raises:
        kmtl._files.DamagedFileError: if one of them is not there.
    """
    path = folder / NAME
    remedy = "Restore it from a copy, or move the run's folder away to train anew."
    lines = []
    if epochs and path.exists():
        for line, _ in _files.read_lines(path, remedy, keys=("epoch",)):
            lines.append({name: _number(value) for name, value in line.items()})
    lines = lines[:epochs]
    if [line["epoch"] for line in lines] != list(range(epochs)):
        what = f"it has {len(lines)} of the run's {epochs} epochs, or others"
        raise _files.DamagedFileError(path, what, remedy)
    return lines


def write(folder: Path, lines: Sequence[Config]) -> None:
    """The logs of all epochs, and the same as a table, which nothing here reads."""
    text = "".join(
        json.dumps({name: _text(value) for name, value in line.items()}) + "\n"
        for line in lines
    )
    _files.write_text(folder / NAME, text)
    # Logs that an epoch lacks are empty.
    names = list(dict.fromkeys(name for line in lines for name in line))
    table = io.StringIO()
    writer = csv.DictWriter(table, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    _files.write_text(folder / TABLE, table.getvalue())


def _text(value: Any) -> Any:
    """Strict JSON has no NaN nor infinity: they become text."""
    return (
        str(value) if isinstance(value, float) and not math.isfinite(value) else value
    )


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value
