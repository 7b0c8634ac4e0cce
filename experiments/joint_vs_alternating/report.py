"""README.md and results.json of the finished ways."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from common import table
from common.table import interval

TASKS = ("digit", "garment")
FIGURE = "gains.png"
#: What is compared with what, seed by seed.
PAIRS = (
    ("joint, equal", "alternating, equal"),
    ("joint, proportional", "alternating, proportional"),
    ("joint, equal", "joint, proportional"),
    ("joint, equal, layer norm", "alternating, equal, layer norm"),
    ("joint, equal, batch norm", "alternating, equal, batch norm"),
)


def percent(values: list[float]) -> str:
    mean, half = interval([100 * value for value in values])
    return f"{mean:.2f} ± {half:.2f}"


def difference(one: list[float], other: list[float]) -> str:
    """In points, seed by seed, and whether the seeds can tell."""
    gains = [100 * (a - b) for a, b in zip(one, other, strict=True)]
    mean, half = interval(gains)
    known = math.isfinite(half) and abs(mean) > half
    verdict = ("better" if mean > 0 else "worse") if known else "cannot be told"
    return f"{mean:+.2f} ± {half:.2f} ({verdict})"


def write(record: dict[str, Any], ways: list[dict], folder: Path) -> dict[str, Any]:
    """Write both files; returns what is in results.json."""
    result = {**record, "ways": ways}
    suffix = "" if record["kind"] == "default" else f"_{record['kind']}"
    text = json.dumps(result, indent=1) + "\n"
    (folder / f"results{suffix}.json").write_text(text, encoding="utf-8")
    readme = folder / f"README{suffix}.md"
    readme.write_text(readme_of(record, ways), encoding="utf-8")
    gains = gains_of({way["way"]: way["scores"] for way in ways})
    if all(gains.values()):
        table.draw(gains, "points over the separate net (95 %)", folder / FIGURE)
    return result


def gains_of(scores: dict[str, dict]) -> dict[str, dict[str, tuple[float, float]]]:
    """Task -> way -> gain over the task's separate net, in points, seed by seed."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for task in TASKS:
        single = scores.get(f"separate, {task}", {}).get(task)
        shared = {n: own for n, own in scores.items() if not n.startswith("separate")}
        found[task] = {
            name: table.interval(
                [100 * (a - b) for a, b in zip(own[task], single, strict=True)]
            )
            for name, own in shared.items()
            if single is not None
        }
    return found


def readme_of(record: dict[str, Any], ways: list[dict]) -> str:
    settings, scores = record["settings"], {w["way"]: w["scores"] for w in ways}
    rows = settings["rows"]
    single = {task: scores.get(f"separate, {task}", {}).get(task) for task in TASKS}
    lines = [
        "# Joint or alternating, with two sets that share a trunk?",
        "",
        "Written by `run.py`; do not edit.",
        "",
        f"MNIST ({rows['digit']:,} training images) and Fashion-MNIST "
        f"({rows['garment']:,}), each labelled for its own task alone, train one trunk "
        f"of {' and '.join(map(str, settings['units']))} ReLU units with a linear head "
        "per task (`kmtl.data.mixture`). *Joint*: every batch of "
        f"{settings['batch']} has rows of both sets. *Alternating*: every batch has "
        "rows of one, in turns. Shares of the sets are proportional to their rows, to "
        "the square roots of these (temperature 2), or equal. All ways take "
        f"{settings['epochs']} × {settings['steps']} steps of Adam; the learning rate "
        f"(of {', '.join(map(str, settings['rates']))}) is the one with the best mean "
        "validation accuracy at the end. *Separate* nets see, with half a batch, as "
        "many rows of their set as an equal mixture gives. Accuracy on the 10,000 test "
        f"images of each set, in %: mean over {len(settings['seeds'])} seeds (of "
        "weights and of the order of rows; the images are the same) ± half of the 95 % "
        "interval. The last columns are differences to the separate nets, in points.",
        "",
        "| way | rate | passes over digits / garments | digit | garment | digit − "
        "separate | garment − separate |",
        "|---|---|---|---|---|---|---|",
    ]
    for way in ways:
        passes = way["passes"]
        cells = [way["way"], f"{way['rate']:g}{'*' if way['edge'] else ''}"]
        cells.append(
            " / ".join(f"{passes[t]:g}" if t in passes else "–" for t in TASKS)
        )
        own = [way["scores"].get(task) for task in TASKS]
        cells += ["–" if one is None else percent(one) for one in own]
        cells += [
            "–"
            if one is None or single[task] is None or way["way"].startswith("separate")
            else difference(one, single[task])
            for task, one in zip(TASKS, own, strict=True)
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "`*`: at the edge of the grid of learning rates; a wider one might serve it "
        "better.",
        "",
        f"![gains]({FIGURE})",
        "",
        "## Compared",
        "",
        "Seed by seed, in points; *cannot be told* where the interval holds 0.",
        "",
        "| this | against | digit | garment |",
        "|---|---|---|---|",
    ]
    for one, other in PAIRS:
        if one in scores and other in scores:
            told = [difference(scores[one][t], scores[other][t]) for t in TASKS]
            lines.append(f"| {one} | {other} | {' | '.join(told)} |")
    lines += ["", *conclusion(scores, single), ""]
    minutes = sum(way["seconds"] for way in ways) / 60
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    lines += [
        "Command: `python experiments/joint_vs_alternating/run.py --data FOLDER`; "
        f"{minutes:.1f} minutes of training (wall clock, on cores that other programs "
        f"used as well), {record['date']}, {record['machine']}; {versions}.",
    ]
    return "\n".join(lines) + "\n"


def conclusion(scores: dict[str, dict], single: dict[str, Any]) -> list[str]:
    """In words, of what the numbers above say; nothing that they do not."""
    if any(value is None for value in single.values()):
        return []
    found = []
    for task in TASKS:
        better, worse = [], []
        for way, own in scores.items():
            if way.startswith("separate"):
                continue
            mean, half = interval(
                [a - b for a, b in zip(own[task], single[task], strict=True)]
            )
            if abs(mean) > half:
                (better if mean > 0 else worse).append(way)
        count = len(scores) - len(single)
        found.append(
            f"- `{task}`: of {count} ways, {len(better)} beat the separate net beyond "
            f"the seeds' noise, {len(worse)} are worse"
            + (f"; better: {'; '.join(better)}" if better else "")
            + (f"; worse: {'; '.join(worse)}" if worse else "")
            + "."
        )
    return ["## Does sharing pay here?", "", *found]
