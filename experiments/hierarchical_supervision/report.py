"""Table, figure and results.json of the finished runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from common import made_by
from common.table import interval

TITLES = {
    "digits": "digits alone, no third task",
    "flat": "flat: all at block 3",
    "hierarchical": "stroke at block 1",
    "features": "... features handed over",
    "predictions": "... predictions handed over",
    "stopped": "... predictions, gradient stopped",
    "inverted": "inverted: digits at block 1",
}


def digits(run: dict[str, Any]) -> float:
    """Mean accuracy of both digits, in %."""
    return 50 * (run["test"]["left_accuracy"] + run["test"]["right_accuracy"])


def collect(found: dict[tuple, dict], sides: tuple[str, ...]) -> dict[str, Any]:
    table = {}
    for side in sides:
        runs = {seed: run for (name, seed), run in found.items() if name == side}
        if not runs:
            continue
        flat = {seed: found.get(("flat", seed)) for seed in runs}
        row: dict[str, Any] = {
            name: interval([100 * run["test"][name] for run in runs.values()])
            for name in next(iter(runs.values()))["test"]
        }
        row["digits"] = interval([digits(run) for run in runs.values()])
        row["over_flat"] = interval(
            [digits(run) - digits(flat[s]) for s, run in runs.items() if flat[s]]
            or [math.nan]
        )
        row["parameters"] = next(iter(runs.values()))["parameters"]
        row["seeds"] = len(runs)
        table[side] = row
    return table


def draw(table: dict[str, Any], file: Path) -> None:
    """Accuracy of the digits of each side, with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(table)[::-1]
    means = [table[name]["digits"][0] for name in names]
    halves = [table[name]["digits"][1] for name in names]
    halves = [half if math.isfinite(half) else 0.0 for half in halves]
    figure, ax = plt.subplots(
        figsize=(6, 0.8 + 0.35 * len(names)), layout="constrained"
    )
    colors = ["tab:orange" if name == "flat" else "tab:blue" for name in names]
    ax.errorbar(means, range(len(names)), xerr=halves, fmt="none", ecolor="black")
    ax.scatter(means, range(len(names)), c=colors, zorder=3)
    ax.set_yticks(range(len(names)), [TITLES[name] for name in names], fontsize=8)
    ax.set_xlabel("mean test accuracy of both digits, %, 95 % interval")
    figure.savefig(file, dpi=140)
    plt.close(figure)


def number(pair: tuple[float, float] | None) -> str:
    return "–" if pair is None else f"{pair[0]:.2f} ± {pair[1]:.2f}"


def verdict(side: str, pair: tuple[float, float]) -> str:
    if side == "flat":
        return "the reference"
    mean, half = pair
    if not math.isfinite(half) or abs(mean) <= half:
        return "no difference that the seeds could show"
    return "better" if mean > 0 else "worse"


def write(
    record: dict[str, Any], found: dict[tuple, dict], sides: tuple[str, ...], out: Path
) -> dict[str, Any]:
    table = collect(found, sides)
    minutes = round(sum(run["seconds"] for run in found.values()) / 60, 1)
    result = {**record, "minutes": minutes, "sides": table}
    stem = "" if record["kind"] == "default" else f"_{record['kind']}"
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (out / f"results{stem}.json").write_text(text + "\n", "utf-8")
    draw(table, out / f"digits{stem}.png")
    (out / f"README{stem}.md").write_text(readme(result, stem), "utf-8")
    return result


def readme(result: dict[str, Any], stem: str) -> str:
    settings = result["settings"]
    train, test = settings["sizes"]
    lines = [
        "# Hierarchical supervision on MultiMNIST",
        "",
        "Written by `run.py`; do not edit.",
        "",
        "Two digits per image to be named, and a low-level task: whose stroke is in "
        "each cell of 2 x 2 pixels (recipe in `data.py`). A trunk of "
        f"{len(settings['filters'])} blocks {settings['filters']}, {train:,} training "
        f"and {test:,} test images, {settings['epochs']} epochs of batches of "
        f"{settings['batch_size']}, Adam({settings['rate']}), equal weights, "
        f"{len(settings['seeds'])} seeds. Nothing is tuned, and nothing chosen on the "
        "test set.",
        "",
        "Accuracy and mean IoU in %, mean over seeds ± half of the 95 % interval "
        "(Student's t). Over flat: difference of the digits' mean accuracy to flat "
        "sharing, seed by seed; the verdict is by that interval alone.",
        "",
        f"![digits](digits{stem}.png)",
        "",
        "| side | left | right | stroke IoU | over flat | verdict | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    for side, row in result["sides"].items():
        lines.append(
            f"| {TITLES[side]} | {number(row['left_accuracy'])} "
            f"| {number(row['right_accuracy'])} | {number(row.get('stroke_mean_iou'))} "
            f"| {'–' if side == 'flat' else number(row['over_flat'])} "
            f"| {verdict(side, row['over_flat'])} | {row['parameters']:,} |"
        )
    flag = "" if result["kind"] == "default" else f" --{result['kind']}"
    command = f"python experiments/hierarchical_supervision/run.py{flag} --data FOLDER"
    took = f"{result['minutes']} minutes of training"
    lines += ["", made_by(result, command, took), ""]
    return "\n".join(lines)
