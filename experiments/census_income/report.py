"""Tables, figures and README of the Census-Income experiment, from its runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from common import BUSY, made_by
from common.table import interval

TASKS = ("income", "never_married")
REFERENCE = "shared_bottom"
#: `(source, model, income, never married)`.
PUBLISHED = [
    ("torch-rechub", "shared bottom", "0.9560", "0.9948"),
    ("torch-rechub", "MMoE", "0.9579", "0.9950"),
    ("torch-rechub", "PLE, 1 level (CGC)", "0.9583", "0.9951"),
    ("torch-rechub", "PLE, 2 levels", "0.9593", "0.9950"),
    ("PaddleRec", "MMoE, mean", "0.94465", "0.99324"),
    ("PaddleRec", "MMoE, best", "0.94937", "0.99419"),
]
SOURCES = (
    "Published figures, from the repositories' own pages: torch-rechub, "
    "`examples/ranking/README.md` (datawhalechina/torch-rechub; embeddings, its own "
    "split; its columns are headed CVR and CTR, and the one of about 0.995 can only be "
    "marital status), and PaddleRec, `models/multitask/mmoe/README.md` "
    "(PaddlePaddle/PaddleRec). Splits, inputs and sizes differ from those here and "
    "from each other, so they say what to expect, not who is better."
)


def collect(runs: Any, names: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Per side that is finished: rate, size, AUC, and AUC over the shared bottom."""
    rates = settings["rates"]

    def finals(side: str) -> list[dict]:
        rate = runs.best_rate(side, rates)
        found = [runs.get(side, "final", rate, seed) for seed in settings["seeds"]]
        return found if rate is not None and all(found) else []

    reference = finals(REFERENCE)
    sides: dict[str, Any] = {}
    for name in names:
        found = finals(name)
        if not found:
            continue
        tasks = list(found[0]["test"])
        entry: dict[str, Any] = {
            "rate": found[0]["rate"],
            "width": found[0]["width"],
            "parameters": found[0]["parameters"],
            "auc": {t: interval([run["test"][t] for run in found]) for t in tasks},
            "seconds": round(sum(run["seconds"] for run in found) / len(found), 1),
            "gates": found[0]["gates"],
        }
        if reference and name != REFERENCE:
            entry["over_reference"] = {
                task: interval(
                    [
                        a["test"][task] - b["test"][task]
                        for a, b in zip(found, reference, strict=True)
                    ]
                )
                for task in tasks
            }
        sides[name] = entry
    return {"sides": sides}


def write(
    record: dict[str, Any], runs: Any, names: list[str], out: Path
) -> dict[str, Any]:
    result = {**record, **collect(runs, names, record["settings"])}
    stem = "" if record["kind"] == "default" else f"_{record['kind']}"
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (out / f"results{stem}.json").write_text(text + "\n", "utf-8")
    sides = result["sides"]
    figures = {}
    if sides:
        figures["auc"] = f"auc{stem}.png"
        plot_auc(sides, out / figures["auc"])
    if any(entry["gates"] for entry in sides.values()):
        figures["gates"] = f"gates{stem}.png"
        plot_gates(sides, out / figures["gates"])
    missing = [name for name in names if name not in sides]
    (out / f"README{stem}.md").write_text(readme(result, figures, missing), "utf-8")
    return result


def _figure(columns: int, width: float, height: float) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(1, columns, figsize=(width, height), squeeze=False)


def plot_auc(sides: dict[str, Any], file: Path) -> None:
    """Test AUC with its interval, a panel per task."""
    figure, axes = _figure(len(TASKS), 8, 0.8 + 0.3 * len(sides))
    for axis, task in zip(axes[0], TASKS, strict=True):
        shown = [name for name in sides if task in sides[name]["auc"]][::-1]
        pairs = [sides[name]["auc"][task] for name in shown]
        halves = [half if math.isfinite(half) else 0.0 for _, half in pairs]
        colors = ["tab:orange" if name == REFERENCE else "tab:blue" for name in shown]
        for i, ((mean, _), half, color) in enumerate(
            zip(pairs, halves, colors, strict=True)
        ):
            axis.errorbar(mean, i, xerr=half, fmt="o", color=color, capsize=3)
        axis.set_yticks(range(len(shown)), shown, fontsize=8)
        axis.set_xlabel("test AUC, 95 % interval", fontsize=8)
        axis.tick_params(axis="x", labelsize=7)
        axis.set_title(task, fontsize=9)
        axis.grid(axis="x", linewidth=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=130)


def plot_gates(sides: dict[str, Any], file: Path) -> None:
    """Mean weight of every expert by gate, first seed; a panel per scheme."""
    shown = {name: entry["gates"] for name, entry in sides.items() if entry["gates"]}
    figure, axes = _figure(len(shown), 2.6 * len(shown), 2.6)
    for axis, (name, gates) in zip(axes[0], shown.items(), strict=True):
        for row, experts in enumerate(gates.values()):
            start = 0.0
            for number, (expert, share) in enumerate(experts.items()):
                axis.barh(row, share, left=start, color=f"C{number}", height=0.7)
                if share > 0.12:
                    place = start + share / 2
                    axis.text(
                        place, row, expert.replace(" ", "\n"), fontsize=5,
                        ha="center", va="center",
                    )  # fmt: skip
                start += share
        axis.set_yticks(range(len(gates)), list(gates), fontsize=6)
        axis.set_title(name, fontsize=9)
        axis.set_xlim(0, 1)
    figure.tight_layout()
    figure.savefig(file, dpi=130)


def readme(result: dict[str, Any], figures: dict[str, str], missing: list[str]) -> str:
    settings, sides = result["settings"], result["sides"]
    train, validation = settings["sizes"]
    rows = "all 199,523" if train is None else f"{train:,} of the 199,523"
    held = "one half" if validation is None else f"{validation:,} rows of one half"
    rates = ", ".join(f"{rate:g}" for rate in settings["rates"])
    runs = len(settings["seeds"]) + len(settings["rates"])
    minutes = sum(entry["seconds"] * runs for entry in sides.values()) / 60
    parts = [
        "# Experts on Census-Income",
        "Written by `run.py`; do not edit.",
        "Two tasks per person: income above 50,000 dollars (6 % of the rows) and never "
        "having married (43 %), the first group of tasks of Ma et al. (KDD 2018) and "
        f"the census task of Tang et al. (RecSys 2020). {rows} training rows; the test "
        f"file is halved at random, {held} for validation and the other half for the "
        "test (`data.py`). Nets (`net.py`): two dense blocks of one width, per task a "
        "hidden layer of 16; the width of each scheme is the one with which it has "
        "about as many parameters as the shared bottom. Four experts within reach of a "
        "gate or a pair of tasks; everything else at its defaults, equal task weights.",
        f"Tuning budget, the same for every row: {len(settings['rates'])} runs, one "
        f"per learning rate ({rates}; Adam, batches of {settings['batch_size']}) on a "
        "seed of their own, best mean validation AUC; of every run the epoch with the "
        f"best mean validation AUC of {settings['epochs']}. Then "
        f"{len(settings['seeds'])} seeds at that rate; the test half is used for these "
        "only.",
        "AUC: mean over seeds ± half of the 95 % interval (Student's t). Over the "
        "shared bottom: difference seed by seed, times 1000.",
        table(sides),
        summary(sides),
    ]
    parts += [f"![{name}]({file})" for name, file in figures.items()]
    if missing:
        parts.append(
            "Not run to the end, and so not in the table: "
            + ", ".join(f"`{name}`" for name in missing)
            + ". The same command goes on with them."
        )
    published = [
        "| source | model | income | never married |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in PUBLISHED),
    ]
    parts += [
        "\n".join(published),
        SOURCES,
        made_by(
            result,
            f"{result['command']} --data FOLDER",
            f"about {minutes:.0f} minutes of training in all, {BUSY}",
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(sides: dict[str, Any]) -> str:
    head = (
        "| model | width | parameters | rate | income | never married | "
        "income over bottom | married over bottom |"
    )
    return "\n".join([head, "|---" * 8 + "|", *map(_row, sides, sides.values())])


def _row(name: str, entry: dict[str, Any]) -> str:
    over = entry.get("over_reference", {})
    cells = [
        f"`{name}`",
        str(entry["width"]),
        f"{entry['parameters']:,}",
        f"{entry['rate']:g}",
        *(_number(entry["auc"].get(task), "", 1.0, 4) for task in TASKS),
        *(_number(over.get(task), "+", 1000.0, 2) for task in TASKS),
    ]
    return "| " + " | ".join(cells) + " |"


def _number(
    pair: tuple[float, float] | None, sign: str, scale: float, digits: int
) -> str:
    if pair is None:
        return "–"
    mean, half = pair[0] * scale, pair[1] * scale
    return f"{mean:{sign}.{digits}f} ± {half:.{digits}f}"


def summary(sides: dict[str, Any]) -> str:
    """Which differences to the shared bottom the intervals can tell from chance."""
    compared = {
        name: entry["over_reference"]
        for name, entry in sides.items()
        if len(entry.get("over_reference", {})) == len(TASKS)
    }
    if not compared:
        return ""
    text = []
    for task in TASKS:
        better, worse = [], []
        for name, over in compared.items():
            mean, half = over[task]
            if mean - half > 0:
                better.append(f"`{name}`")
            elif mean + half < 0:
                worse.append(f"`{name}`")
        text.append(
            f"On {task} better than the shared bottom of equal size: "
            f"{', '.join(better) or 'none'}; worse: {', '.join(worse) or 'none'}; "
            "the others cannot be told from it."
        )
    text.append(
        f"(By the interval alone, {len(compared) * len(TASKS)} comparisons; about one "
        "in twenty would be outside by chance.)"
    )
    return " ".join(text)
