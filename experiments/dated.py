"""When, where and with what each finished run was made, and what a report says of it.

Apart from `common`, which turns JAX's cache of compiled programs off.
"""

from __future__ import annotations

import datetime
import importlib.metadata as metadata
import os
import platform
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import keras

import kmtl
from kmtl._files import Records


def now(*packages: str) -> dict[str, Any]:
    """Date, machine and versions.

    Args:
        packages: Those to name the versions of, beside kmtl, Keras and the backend.
    """
    names = ("keras", *packages, keras.backend.backend())
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {
            "kmtl": kmtl.__version__,
            **{name: metadata.version(name) for name in names},
            "python": platform.python_version(),
        },
    }


class Runs(Records):
    """Finished runs, a line of JSON each, with what `now` said when each was added."""

    #: Packages to name the versions of, beside those of `now`.
    PACKAGES: ClassVar[tuple[str, ...]] = ()

    def add(self, record: dict[str, Any]) -> None:
        super().add({**record, "made": now(*self.PACKAGES)})


def seen(runs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the lines of finished runs say of when, where and with what.

    Of runs of several days, machines or versions all of these. What lines of earlier
    runs do not say is not guessed: it is None, or no entry.

    Returns:
        `date` ("2026-01-30 to 2026-02-01"), `machine` and `versions` as of `now`;
        `runs`, their number, and `unsaid`, how many say nothing of their versions.
    """
    lines = list(runs)
    made = [run.get("made") or {"date": run.get("date")} for run in lines]
    dates = sorted({one["date"] for one in made if one.get("date")})
    versions: dict[str, dict[str, None]] = {}
    for one in made:
        for name, version in one.get("versions", {}).items():
            versions.setdefault(name, {})[version] = None
    machines = dict.fromkeys(one["machine"] for one in made if "machine" in one)
    return {
        "date": " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else None,
        "machine": " and ".join(machines) or None,
        "versions": {name: " and ".join(found) for name, found in versions.items()},
        "runs": len(lines),
        "unsaid": sum("versions" not in one for one in made),
    }


def versions_of(record: Mapping[str, Any]) -> str:
    """Words for the versions of `now` or `seen`."""
    known = ", ".join(f"{name} {one}" for name, one in record["versions"].items())
    unsaid = record.get("unsaid", 0)
    if not unsaid:
        return known
    if not known:
        return "versions not recorded"
    return f"{known} (of {record['runs'] - unsaid} of {record['runs']} runs)"


def words(record: Mapping[str, Any]) -> str:
    """When, where and with what, as a report says it."""
    date = record["date"] or "date not recorded"
    machine = record["machine"] or "machine not recorded"
    return f"{date}, {machine}; {versions_of(record)}"
