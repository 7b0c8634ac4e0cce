"""Means over seeds with intervals, and what they say in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

import common
from common import made_by, minutes, record_of

#: The figure of `write`.
FIGURE = "methods.png"


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


def draw(gains: dict[str, dict[str, Any]], label: str, file: Path) -> None:
    """A panel per table: every row's gain with its interval, beside no gain.

    Args:
        gains: Table -> row -> `(mean, half of the interval)`.
        label: Of the axis, with the unit.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    most = max(map(len, gains.values()))
    columns = min(2, len(gains))
    rows = -(-len(gains) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(5.5 * columns, rows * (0.9 + 0.24 * most)),
        squeeze=False,
    )
    for axes, (name, found) in zip(grid.flat, gains.items(), strict=False):
        means, halves = zip(*found.values(), strict=True)
        places = range(len(found))[::-1]  # the first row on top
        axes.errorbar(means, places, xerr=np.nan_to_num(halves), fmt="o", capsize=3)
        axes.set_yticks(places, found, fontsize=8)
        axes.set_ylim(-0.6, len(found) - 0.4)
        axes.axvline(0, color="0.6", linewidth=1)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(label, fontsize=8)
    for axes in grid.flat[len(gains) :]:
        axes.remove()
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    plt.close(figure)


class Runs(common.Runs):
    """Finished runs, in a file with one line of JSON each."""

    KEY = ("data", "method", "seed")


def write(
    runs: Runs,
    kind: str,
    settings: dict[str, Any],
    methods: Sequence[str],
    reference: str,
    text: str,
    experiment: str,
    out: Path,
) -> dict[str, Any]:
    """README.md and results.json of finished runs.

    Args:
        runs: Each with `"error"` and `"seconds"`, and what else is to be shown as
            `"columns"`.
        kind, settings: Of the command; `settings["data"]` is the order of the tables.
        methods: In the order of the rows.
        reference: Method that the others are compared with, seed by seed.
        text: What was done, with settings in braces.
        experiment: Name of the folder.
    """
    found = runs.found
    record = record_of(kind, settings, found.values())
    lines = [text.format(**{k: _shown(v) for k, v in settings.items()}), ""]
    tables: dict[str, Any] = {}
    there = {key[0] for key in found}
    for name in (name for name in record["settings"]["data"] if name in there):
        rows: dict[str, dict[int, dict]] = {}
        for (where, method, seed), run in found.items():
            if where == name:
                rows.setdefault(method, {})[seed] = run
        table = tables.setdefault(name, {})
        extra = list(next(iter(next(iter(rows.values())).values()))["columns"])
        head = ["method", "error", "gain", "verdict", *extra, "seeds"]
        lines += [f"## {name}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for method in (method for method in methods if method in rows):
            seeds = rows[method]
            error = interval([run["error"] for run in seeds.values()])
            pairs = [s for s in seeds if s in rows.get(reference, {})]
            gain = interval(
                [rows[reference][s]["error"] - seeds[s]["error"] for s in pairs]
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
    others = {
        name: {n: row["gain"] for n, row in rows.items() if n != reference}
        for name, rows in tables.items()
    }
    if max(map(len, others.values()), default=0) > 1:
        draw(others, f"gain over {reference} (95 % interval over seeds)", out / FIGURE)
        lines += [f"![gains]({FIGURE})", ""]
    command = f"python experiments/{experiment}/run.py --data FOLDER"
    took = minutes(sum(run["seconds"] for run in found.values()))
    lines.append(made_by(record, command, took))
    if record["kind"] == "fast":
        lines.insert(1, "\nA run with `--fast`, which means nothing.")
    (out / "README.md").write_text("\n".join(lines) + "\n", "utf-8")
    result = {**record, "tables": tables}
    (out / "results.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return result


class _Shown(tuple):
    """A setting of several values, as a README has it: one by one."""

    def __format__(self, spec: str) -> str:
        return ", ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in self)


def _shown(setting: Any) -> Any:
    return _Shown(setting) if isinstance(setting, tuple) else setting
