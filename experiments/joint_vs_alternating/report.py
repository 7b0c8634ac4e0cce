"""README.md and results.json of the finished ways."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from cases import CASES, Case
from common import made_by, minutes, table
from common.table import interval

FIGURE = "gains.png"


def percent(values: list[float]) -> str:
    mean, half = interval([100 * value for value in values])
    return f"{mean:.2f} ± {half:.2f}"


def gain_of(one: list[float], other: list[float]) -> tuple[float, float]:
    """In points, seed by seed, with half of the interval."""
    return interval([100 * (a - b) for a, b in zip(one, other, strict=True)])


def difference(one: list[float], other: list[float]) -> str:
    """In points, seed by seed, and whether the seeds can tell."""
    mean, half = gain_of(one, other)
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
    gains: dict[str, dict[str, Any]] = {}
    for case in CASES:
        for (way, task), gain in gains_of(case, scores_of(case, ways)).items():
            gains.setdefault(f"{case.name}: {task}", {})[way] = gain
    if gains:
        table.draw(gains, "points over the separate net (95 %)", folder / FIGURE)
    return result


def scores_of(case: Case, ways: list[dict]) -> dict[str, dict[str, list[float]]]:
    """Way -> task -> accuracy of every seed, in the case's order."""
    found = {way["way"]: way["scores"] for way in ways if way["case"] == case.name}
    return {name: found[name] for name in case.ways if name in found}


def gains_of(case: Case, scores: dict[str, dict]) -> dict[tuple[str, str], Any]:
    """(Way, task) -> gain over the task's separate net, where there are both."""
    alone = {task: scores.get(f"separate, {task}") for task in case.tasks}
    return {
        (way, task): gain_of(own[task], alone[task][task])
        for way, own in scores.items()
        for task in case.tasks
        if not way.startswith("separate") and alone[task]
    }


def readme_of(record: dict[str, Any], ways: list[dict]) -> str:
    settings = record["settings"]
    seeds, rates = settings["seeds"], settings["rates"]
    command = "python experiments/joint_vs_alternating/run.py --data FOLDER"
    took = minutes(sum(way["seconds"] for way in ways))
    lines = [
        "# Joint or alternating training of a shared trunk?",
        "",
        "Written by `run.py`; do not edit.",
        "",
        "Two tasks with a linear head each on one trunk (`kmtl.data.mixture`, "
        "`kmtl.build_mlp`), trained together or in turns, beside a net per task. All "
        "ways of a problem take the same number of steps of Adam; the learning rate "
        f"(of {', '.join(map(str, rates))}) is the one with the best mean validation "
        "accuracy at the end. A *separate* net sees, with half a batch, as many rows "
        "of its task as an equal share of the joint batch has. Accuracy on 10,000 test "
        f"images, in %: mean over {len(seeds)} seeds (of weights and of the order of "
        "rows; the images are the same) ± half of the 95 % interval (Student's t). "
        "Differences are taken seed by seed, in points; *cannot be told* where the "
        "interval holds 0. Of twenty such intervals one misses by chance.",
        "",
        f"![gains]({FIGURE})",
    ]
    for case in CASES:
        own = {way["way"]: way for way in ways if way["case"] == case.name}
        found = [own[name] for name in case.ways if name in own]
        lines += ["", *_case(case, found, {**settings, **settings[case.name]})]
    lines += ["", made_by(record, command, took)]
    return "\n".join(lines) + "\n"


def _case(case: Case, ways: list[dict], settings: dict[str, Any]) -> list[str]:
    scores = scores_of(case, ways)
    gains = gains_of(case, scores)
    alone = {t: scores.get(f"separate, {t}", {}).get(t) for t in case.tasks}
    one, other = case.tasks
    units = " and ".join(map(str, settings["units"]))
    lines = [
        f"## {case.name}",
        "",
        " ".join(case.about.format(**settings).split())
        + f" Trunk: {units} ReLU units; {settings['epochs']} × {settings['steps']} "
        "steps.",
        "",
        f"| way | rate | passes over {one} / {other} | {one} | {other} | {one} − "
        f"separate | {other} − separate |",
        "|---|---|---|---|---|---|---|",
    ]
    for way in ways:
        name, passes = way["way"], way["passes"]
        cells = [name, f"{way['rate']:g}{'*' if way['edge'] else ''}"]
        cells.append(
            " / ".join(f"{passes[t]:g}" if t in passes else "–" for t in case.tasks)
        )
        cells += [
            percent(way["scores"][task]) if task in way["scores"] else "–"
            for task in case.tasks
        ]
        cells += [
            difference(way["scores"][task], alone[task])
            if (name, task) in gains
            else "–"
            for task in case.tasks
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if any(way["edge"] for way in ways):
        lines += [
            "",
            "`*`: at the edge of the grid of learning rates; a wider one might serve "
            "it better.",
        ]
    lines += ["", f"| this | against | {one} | {other} |", "|---|---|---|---|"]
    for this, against in case.pairs:
        if this in scores and against in scores:
            told = [difference(scores[this][t], scores[against][t]) for t in case.tasks]
            lines.append(f"| {this} | {against} | {' | '.join(told)} |")
    return [*lines, "", *conclusion(case, scores)]


def conclusion(case: Case, scores: dict[str, dict]) -> list[str]:
    """In words, of what the numbers above say; nothing that they do not."""
    gains, found = gains_of(case, scores), []
    for task in case.tasks:
        own = {way: gain for (way, name), gain in gains.items() if name == task}
        told = {way: mean for way, (mean, half) in own.items() if abs(mean) > half}
        better = [way for way, mean in told.items() if mean > 0]
        worse = [way for way, mean in told.items() if mean < 0]
        found.append(
            f"- Does sharing pay for `{task}`? Of {len(own)} ways, {len(better)} beat "
            f"the separate net beyond the seeds' noise, {len(worse)} are worse"
            + (f"; better: {'; '.join(better)}" if better else "")
            + (f"; worse: {'; '.join(worse)}" if worse else "")
            + "."
        )
    return found
