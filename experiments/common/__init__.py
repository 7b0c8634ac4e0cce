"""What the command lines and the records of experiments have in common.

A script that runs by itself appends the folder above its own to `sys.path` for it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dated
from dated import Runs as Runs

# Seconds are those of a machine that has compiled nothing yet.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"
if "jax" in sys.modules:
    sys.modules["jax"].config.update("jax_enable_compilation_cache", False)

BUSY = "on cores that other programs used as well"


def parser(
    text: str | None, out: Path, data: str, full: str | None = None
) -> argparse.ArgumentParser:
    """The options of an experiment whose finished runs are lines of a file.

    Args:
        text: What `--help` says, the script's docstring.
        out: Where results go by default.
        data: What the folder of `--data` holds.
        full: What `--full` runs, where there is such a size.
    """
    found = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--data", type=Path, help=f"folder with {data}")
    found.add_argument("--out", type=Path, default=out)
    found.add_argument("--report", action="store_true", help="train nothing")
    size = found.add_mutually_exclusive_group()
    if full is not None:
        size.add_argument("--full", action="store_true", help=full)
    size.add_argument("--fast", action="store_true", help="seconds; means nothing")
    return found


def kind_of(options: argparse.Namespace) -> str:
    """`"full"`, `"fast"` or `"default"`, and makes the folder for results."""
    options.out.mkdir(parents=True, exist_ok=True)
    if getattr(options, "full", False):
        return "full"
    return "fast" if options.fast else "default"


def record_of(
    kind: str, settings: Any, runs: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """What was run, and when, where and with what, as the finished runs say.

    Args:
        runs: Lines of a `Runs`.
    """
    return {"kind": kind, "settings": settings, **dated.seen(runs)}


def made_by(record: Mapping[str, Any], command: str, took: str = BUSY) -> str:
    """The last words of a report: what made it, in what time, when and with what.

    Args:
        record: Of `record_of`.
        took: Words for the time, and on what.
    """
    return f"Command: `{command}`; {took}, {dated.words(record)}."


def minutes(seconds: float) -> str:
    """Words for what all runs took."""
    return f"{seconds / 60:.1f} minutes (wall clock, {BUSY})"
