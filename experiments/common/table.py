"""Means over seeds with intervals, and what they say in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval, by Student's t."""
    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(np.mean(values)), float(half)


def verdict(gain: tuple[float, float]) -> str:
    """Words for a gain and its interval."""
    mean, half = gain
    if not abs(mean) > half:
        return "no difference that the seeds could show"
    return "better" if mean > 0 else "worse"


def write(
    record: dict[str, Any],
    found: dict[tuple, dict[str, Any]],
    methods: Sequence[str],
    reference: str,
    text: str,
    command: str,
    out: Path,
) -> dict[str, Any]:
    """README.md and results.json of finished runs.

    Args:
        found: `(data, method, seed)` -> run with `"error"` and `"seconds"`, and what
            else is to be shown as `"columns"`.
        methods: In the order of the rows.
        reference: Method that the others are compared with, seed by seed.
        text: What was done.
    """
    lines = [text, ""]
    tables: dict[str, Any] = {}
    there = {key[0] for key in found}
    for name in (name for name in record["settings"]["data"] if name in there):
        runs: dict[str, dict[int, dict]] = {}
        for (where, method, seed), run in found.items():
            if where == name:
                runs.setdefault(method, {})[seed] = run
        table = tables.setdefault(name, {})
        extra = list(
            next(iter(runs.values()))[min(next(iter(runs.values())))]["columns"]
        )
        head = ["method", "error", "gain", "verdict", *extra, "seeds"]
        lines += [f"## {name}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for method in (method for method in methods if method in runs):
            seeds = runs[method]
            error = interval([run["error"] for run in seeds.values()])
            pairs = [s for s in seeds if s in runs.get(reference, {})]
            gain = interval(
                [runs[reference][s]["error"] - seeds[s]["error"] for s in pairs]
            )
            said = "the reference" if method == reference else verdict(gain)
            shown = "–" if method == reference else f"{gain[0]:.2f} ± {gain[1]:.2f}"
            means = [
                np.mean([run["columns"][column] for run in seeds.values()])
                for column in extra
            ]
            cells = [method, f"{error[0]:.2f} ± {error[1]:.2f}", shown, said]
            cells += ["–" if np.isnan(m) else f"{m:,.0f}" for m in means]
            cells.append(str(len(seeds)))
            lines.append(f"| {' | '.join(cells)} |")
            table[method] = {"error": error, "gain": gain, "seeds": len(seeds)}
        lines.append("")
    minutes = sum(run["seconds"] for run in found.values()) / 60
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    lines.append(
        f"Command: `{command}`; {minutes:.1f} minutes (wall clock, on cores that other "
        f"programs used as well), {record['date']}, {record['machine']}; {versions}."
    )
    if record["kind"] == "fast":
        lines.insert(1, "\nA run with `--fast`, which means nothing.")
    (out / "README.md").write_text("\n".join(lines) + "\n", "utf-8")
    result = {**record, "tables": tables}
    (out / "results.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return result
