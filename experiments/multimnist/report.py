"""Table, figure and README of the MultiMNIST experiment, from the finished runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from common import made_by
from common.table import interval
from scipy import stats

from kmtl.evaluation import relative_improvement

TASKS = ("left", "right")
#: Share of false discoveries that a verdict allows for.
LEVEL = 0.05
PUBLISHED = (
    "Sener & Koltun (2018) print 97.23 / 95.90 % (left / right) for single-task "
    "models, 96.46 / 94.99 % for uniform weights and 97.26 / 95.90 % for MGDA, on "
    "60,000 training images and 100 epochs."
)


def collect(runs: Any, names: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Per side: its rate, test accuracies and Δm, for the sides that are finished."""
    seeds, rates = settings["seeds"], settings["rates"]

    def finals(side: str) -> list[dict] | None:
        rate = runs.best_rate(side, rates)
        found = [runs.get(side, "final", rate, seed) for seed in seeds]
        return found if rate is not None and all(found) else None

    singles = {task: finals(f"single_{task}") for task in TASKS}
    alone = {
        task: [run["test"][task] for run in found]
        for task, found in singles.items()
        if found
    }
    baselines = {task: float(np.mean(values)) for task, values in alone.items()}
    sides: dict[str, Any] = {}
    for name in names:
        found = finals(name)
        if found is None:
            continue
        tasks = list(found[0]["test"])
        entry: dict[str, Any] = {
            "rate": runs.best_rate(name, rates),
            "level": found[0]["level"],
            "accuracy": {
                task: interval([100 * run["test"][task] for run in found])
                for task in tasks
            },
            "seconds": round(sum(run["seconds"] for run in found) / len(found), 1),
        }
        if len(tasks) == len(TASKS) and len(baselines) == len(TASKS):
            deltas = [
                float(
                    np.mean(
                        [
                            relative_improvement("max", run["test"][t], alone[t][i])
                            for t in TASKS
                        ]
                    )
                )
                for i, run in enumerate(found)
            ]
            entry["delta_m_by_seed"] = deltas
            entry["delta_m"] = interval(deltas)
        sides[name] = entry
    equal = sides.get("equal", {}).get("delta_m_by_seed")
    chances: dict[str, float] = {}
    for name, entry in sides.items():
        if equal and "delta_m_by_seed" in entry:
            pairs = zip(entry["delta_m_by_seed"], equal, strict=True)
            gains = [a - b for a, b in pairs]
            entry["over_equal"] = interval(gains)
            if name != "equal":
                chances[name] = chance(gains)
    for name, q in zip(chances, adjusted(chances.values()), strict=True):
        sides[name]["q"] = q
    return {"baselines": baselines, "sides": sides}


def chance(gains: list[float]) -> float:
    """p of Student's paired test, two-sided; 1 where all gains are the same 0."""
    if not np.any(gains):
        return 1.0
    return float(stats.ttest_1samp(gains, 0).pvalue)


def adjusted(chances: Iterable[float]) -> list[float]:
    """For so many comparisons, after Benjamini and Hochberg (1995)."""
    found = list(chances)
    if not np.all(np.isfinite(found)):  # of one seed
        return [math.nan] * len(found)
    return [float(q) for q in stats.false_discovery_control(found)] if found else []


def verdict(name: str, entry: dict[str, Any]) -> str:
    """Plain words for a method beside equal weights."""
    if "over_equal" not in entry:
        return ""
    if name == "equal":
        return "the reference"
    if not entry["q"] < LEVEL:
        return "no difference to equal weights that the seeds could show"
    mean, _ = entry["over_equal"]
    return "better than equal weights" if mean > 0 else "worse than equal weights"


def write(
    record: dict[str, Any], runs: Any, names: list[str], out: Path
) -> dict[str, Any]:
    found = collect(runs, names, record["settings"])
    result = {**record, **found}
    stem = "" if record["kind"] == "default" else f"_{record['kind']}"
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (out / f"results{stem}.json").write_text(text + "\n", "utf-8")
    figure = f"delta_m{stem}.png"
    scored = {k: v for k, v in found["sides"].items() if "delta_m" in v}
    if scored:
        plot(scored, out / figure)
    missing = [name for name in names if name not in found["sides"]]
    (out / f"README{stem}.md").write_text(readme(result, figure, missing), "utf-8")
    return result


def plot(scored: dict[str, Any], file: Path) -> None:
    """Δm with its interval per method, best first."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    order = sorted(scored, key=lambda name: scored[name]["delta_m"][0])
    means = [scored[name]["delta_m"][0] for name in order]
    halves = [scored[name]["delta_m"][1] for name in order]
    colors = ["tab:orange" if name == "equal" else "tab:blue" for name in order]
    figure, axis = plt.subplots(figsize=(6, 0.6 + 0.22 * len(order)))
    places = np.arange(len(order))
    axis.barh(places, means, color=colors, height=0.6)
    finite = [half if math.isfinite(half) else 0.0 for half in halves]
    axis.errorbar(means, places, xerr=finite, fmt="none", ecolor="black", linewidth=0.8)
    axis.set_yticks(places, order, fontsize=7)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_xlabel("Δm on the test set, % (higher is better), 95 % interval")
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    plt.close(figure)


def readme(result: dict[str, Any], figure: str, missing: list[str]) -> str:
    settings, sides = result["settings"], result["sides"]
    train, validation, test = settings["sizes"]
    seeds = len(settings["seeds"])
    rates = ", ".join(f"{rate:g}" for rate in settings["rates"])
    rows = [_row(name, sides[name]) for name in _ordered(sides)]
    total = sum(
        entry["seconds"] * (seeds + len(settings["rates"])) for entry in sides.values()
    )
    schedule = (
        f", learning rate halved every {settings['halve_every']} epochs"
        if settings["halve_every"]
        else ""
    )
    parts = [
        "# Weightings on MultiMNIST",
        "Written by `run.py`; do not edit.",
        "Two digits per image, two tasks of ten classes (recipe in `data.py`, net in "
        f"`net.py`): {train:,} training, {validation:,} validation and {test:,} test "
        f"images; {settings['epochs']} epochs of batches of {settings['batch_size']}, "
        f"{settings['optimizer']}{schedule}, dropout {settings['dropout']:g}. "
        f"Hyperparameters of the methods: defaults. Tuning budget, the same for every "
        f"row and for both single-task models: {len(settings['rates'])} runs, one per "
        f"learning rate ({rates}), on a seed of their own; the best mean validation "
        f"accuracy wins. Then {seeds} seeds at that rate. The test set is used for "
        "these only. `simplex` spends that budget on fixed weights: each of the rates, "
        f"in their order, with weights of left and right of {_weights(settings)}.",
        "Accuracy in %, mean over seeds ± half of the 95 % interval (Student's t). Δm: "
        "mean improvement over the single-task accuracies of the same seed, in %, "
        "higher is better. Over equal: difference of Δm to equal weights, seed by "
        "seed. The verdict is by `q`, the chance of such a difference where there is "
        "none (Student's paired test), adjusted for so many methods after Benjamini "
        f"and Hochberg (1995): below {LEVEL:g}.",
    ]
    if "delta_m" in sides.get("equal", {}):
        parts.append(f"![Δm]({figure})")
    parts += [
        "\n".join(
            [
                "| method | level | rate | left | right | Δm | over equal | q | |",
                "|---|---|---|---|---|---|---|---|---|",
                *rows,
            ]
        ),
        summary(sides, settings),
    ]
    if missing:
        parts.append(
            "Not run to the end, and so not in the table: "
            + ", ".join(f"`{name}`" for name in missing)
            + ". The same command goes on with them."
        )
    parts += [
        PUBLISHED
        + (
            ""
            if result["kind"].startswith("full")
            else " The numbers here are lower: fewer images and epochs. `--full` runs "
            "the published protocol (50,000 images, because 10,000 are held out)."
        ),
        made_by(
            result,
            f"{result['command']} --data FOLDER",
            f"about {total / 60:.0f} minutes of training in all",
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _weights(settings: dict[str, Any]) -> str:
    tried = settings["simplex"][: len(settings["rates"])]
    return ", ".join(f"{left:g} and {2 - left:g}" for left in tried)


def _ordered(sides: dict[str, Any]) -> list[str]:
    singles = [name for name in sides if name.startswith("single_")]
    rest = [name for name in sides if not name.startswith("single_")]
    return singles + sorted(
        rest, key=lambda name: -sides[name].get("delta_m", (0.0, 0.0))[0]
    )


def _number(pair: tuple[float, float] | None, sign: str = "") -> str:
    if pair is None:
        return "–"
    return f"{pair[0]:{sign}.2f} ± {pair[1]:.2f}"


def _row(name: str, entry: dict[str, Any]) -> str:
    accuracy = entry["accuracy"]
    cells = [
        f"`{name}`",
        "–" if name.startswith("single_") else entry["level"],
        f"{entry['rate']:g}",
        _number(accuracy.get("left")),
        _number(accuracy.get("right")),
        _number(entry.get("delta_m"), "+"),
        "–" if name == "equal" else _number(entry.get("over_equal"), "+"),
        f"{entry['q']:.3f}" if "q" in entry else "–",
        verdict(name, entry),
    ]
    return "| " + " | ".join(cells) + " |"


def summary(sides: dict[str, Any], settings: dict[str, Any]) -> str:
    compared = {k: v for k, v in sides.items() if "over_equal" in v and k != "equal"}
    if not compared:
        return ""
    groups: dict[str, list[str]] = {"better": [], "worse": [], "no difference": []}
    for name, entry in sorted(compared.items()):
        words = verdict(name, entry)
        key = next(key for key in groups if words.startswith(key))
        groups[key].append(f"`{name}`")
    harmed = [
        f"`{name}`"
        for name, entry in sorted(sides.items())
        if "delta_m" in entry and entry["delta_m"][0] + entry["delta_m"][1] < 0
    ]
    text = [
        f"Of {len(compared)} methods compared with equal weights on "
        f"{len(settings['seeds'])} seeds, {len(groups['no difference'])} cannot be "
        f"told from it, {len(groups['better'])} are better "
        f"({', '.join(groups['better']) or 'none'}) and {len(groups['worse'])} are "
        f"worse ({', '.join(groups['worse']) or 'none'})."
    ]
    text.append(
        "Worse than two single-task models (interval of Δm below 0): "
        + (", ".join(harmed) or "none")
        + "."
    )
    return " ".join(text)
