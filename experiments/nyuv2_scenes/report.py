"""Table, figures and README of the NYUv2 experiment, from the finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import data
import net
import numpy as np
from common import made_by

from kmtl.evaluation import delta_m

#: Test images in the figure of predictions.
SHOWN = (3, 17)
COLUMNS = (
    ("semantic", "mean_iou", "mIoU %", 100, 2),
    ("semantic", "pixel_accuracy", "pixel acc. %", 100, 2),
    ("depth", "mae", "depth abs. m", 1, 4),
    ("depth", "relative_error", "depth rel.", 1, 4),
    ("boundary", "iou", "boundary IoU %", 100, 2),
    ("present", "auc", "presence AUC %", 100, 2),
)


def mean_scores(found: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per task and metric, the mean over seeds."""
    first = found[0]["test"]
    return {
        task: {
            name: float(np.mean([run["test"][task][name] for run in found]))
            for name in metrics
        }
        for task, metrics in first.items()
    }


def collect(runs: Any, names: list[str], seeds: tuple[int, ...]) -> dict[str, Any]:
    """Per side that is finished: test scores, Δ per task, Δm, parameters, core time."""
    sides: dict[str, Any] = {}
    for name in names:
        found = [runs.get(name, seed) for seed in seeds]
        if all(found):
            sides[name] = {
                "test": mean_scores(found),
                "parameters": found[0]["parameters"],
                "core_seconds": float(np.mean([r["core_seconds"] for r in found])),
                "mixing": found[0]["mixing"],
            }
    singles = [sides.get(f"single_{task}") for task in net.TASKS]
    if not all(singles):
        return sides
    tasks = net.tasks(net.TASKS)
    metric = {task.name: task.score.name for task in tasks}
    baselines = {
        task: sides[f"single_{task}"]["test"][task][metric[task]] for task in net.TASKS
    }
    sides["hard_0"] = {
        "test": {t: sides[f"single_{t}"]["test"][t] for t in net.TASKS},
        "parameters": sum(side["parameters"] for side in singles if side),
        "core_seconds": sum(side["core_seconds"] for side in singles if side),
        "mixing": {},
    }
    for side in sides.values():
        if set(side["test"]) != set(net.TASKS) or not all(baselines.values()):
            continue
        scores = {task: side["test"][task][metric[task]] for task in net.TASKS}
        side["delta_m"], side["delta"] = delta_m(scores, baselines, tasks)
    for name in sides:
        if name in names and "delta_m" in sides[name] and len(seeds) > 1:
            sides[name]["delta_m_of_seeds"] = [
                delta_m(
                    {t: runs.get(name, seed)["test"][t][metric[t]] for t in metric},
                    {
                        t: runs.get(f"single_{t}", seed)["test"][t][metric[t]]
                        for t in metric
                    },
                    tasks,
                )[0]
                for seed in seeds
            ]
    return sides


def write(
    record: dict[str, Any],
    runs: Any,
    names: list[str],
    test: data.Part,
    maps: Path,
    out: Path,
) -> dict[str, Any]:
    sides = collect(runs, names, record["settings"]["seeds"])
    result = {**record, "sides": sides}
    stem = "" if record["kind"] == "small" else f"_{record['kind']}"
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (out / f"results{stem}.json").write_text(text + "\n", "utf-8")
    scored = {name: side for name, side in sides.items() if "delta_m" in side}
    figures = {}
    if scored:
        figures["Δm and parameters"] = f"delta_m{stem}.png"
        plot_deltas(scored, out / f"delta_m{stem}.png")
    mixed = {name: side["mixing"] for name, side in sides.items() if side["mixing"]}
    if mixed:
        figures["Learned mixing"] = f"mixing{stem}.png"
        plot_mixing(mixed, out / f"mixing{stem}.png")
    saved = [name for name in names if (maps / f"{name}.npz").exists()]
    if saved:
        figures["Predictions"] = f"examples{stem}.png"
        plot_examples(saved[:4], test, maps, out / f"examples{stem}.png")
    missing = [name for name in names if name not in sides]
    text = readme(result, figures, missing)
    (out / f"README{stem}.md").write_text(text, "utf-8")
    return result


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def plot_deltas(scored: dict[str, Any], file: Path) -> None:
    """Δm per side with each task's Δ, and Δm over parameters."""
    plt = _pyplot()
    order = sorted(scored, key=lambda name: scored[name]["delta_m"])
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 1.2 + 0.34 * len(order)), layout="constrained"
    )
    places = np.arange(len(order))
    left.barh(places, [scored[n]["delta_m"] for n in order], color="0.8", height=0.7)
    for task, marker in zip(net.TASKS, "osD^", strict=True):
        values = [scored[name]["delta"][task] for name in order]
        left.plot(values, places, marker, markersize=5, label=task)
    left.set_yticks(places, order)
    left.axvline(0, color="black", linewidth=0.8)
    left.set_xlabel("Δ (marks) and Δm (bars), %; higher is better")
    left.legend(fontsize=7)
    for name in order:
        point = (scored[name]["parameters"] / 1e3, scored[name]["delta_m"])
        right.plot(*point, "o", color="tab:blue")
        right.annotate(name, point, (4, 3), textcoords="offset points", fontsize=7)
    right.axhline(0, color="black", linewidth=0.8)
    right.margins(x=0.25)
    right.set_xlabel("trainable parameters, thousands")
    right.set_ylabel("Δm, %")
    figure.savefig(file, dpi=130)
    plt.close(figure)


def plot_mixing(mixed: dict[str, Any], file: Path) -> None:
    """Per block, how much of each column (columns) each task (rows) takes over."""
    plt = _pyplot()
    widest = max(len(blocks) for blocks in mixed.values())
    figure, axes = plt.subplots(
        len(mixed),
        widest,
        figsize=(0.8 + 2.1 * widest, 0.5 + 2.1 * len(mixed)),
        squeeze=False,
        layout="constrained",
    )
    for row, (side, blocks) in zip(axes, mixed.items(), strict=True):
        for axis in row[len(blocks) :]:
            axis.axis("off")
        for axis, (block, weights) in zip(row, blocks.items(), strict=False):
            matrix = np.array([weights[task] for task in net.TASKS])
            axis.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
            for (i, j), value in np.ndenumerate(matrix):
                color = "white" if abs(value) > 0.6 else "black"
                axis.text(
                    j,
                    i,
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    fontsize=6,
                    color=color,
                )
            axis.set_title(f"{side}, {block}", fontsize=7)
            axis.set_xticks(range(len(net.TASKS)), net.TASKS, fontsize=5)
            axis.set_yticks(range(len(net.TASKS)), net.TASKS, fontsize=5)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def plot_examples(names: list[str], test: data.Part, maps: Path, file: Path) -> None:
    """Images, labels, and what the sides make of them."""
    plt = _pyplot()
    kinds = ("semantic", "depth", "boundary")
    rows = {"labels": {kind: test.y[kind][list(SHOWN)] for kind in kinds}}
    for name in names:
        with np.load(maps / f"{name}.npz") as found:
            rows[name] = {kind: found[kind] for kind in kinds}
    images = test.x[list(SHOWN)]
    width = len(SHOWN) * (len(kinds) + 1)
    figure, axes = plt.subplots(
        len(rows),
        width,
        figsize=(1.5 * width, 1.2 * len(rows)),
        squeeze=False,
        layout="constrained",
    )
    looks = {
        "semantic": {"cmap": "tab20", "vmin": -1, "vmax": 18},
        "depth": {"cmap": "viridis", "vmin": 0, "vmax": 8},
        "boundary": {"cmap": "gray", "vmin": -1, "vmax": 1},
    }
    for axis in axes.ravel():
        axis.axis("off")
    for row, (name, found) in zip(axes, rows.items(), strict=True):
        for k in range(len(SHOWN)):
            start = k * (len(kinds) + 1)
            if name == "labels":
                row[start].imshow(images[k])
            else:
                row[start].text(0.5, 0.5, name, ha="center", fontsize=8)
            for axis, kind in zip(row[start + 1 :], kinds, strict=False):
                axis.imshow(found[kind][k].astype("float32"), **looks[kind])
    figure.savefig(file, dpi=110)
    plt.close(figure)


def readme(result: dict[str, Any], figures: dict[str, str], missing: list[str]) -> str:
    settings, sides = result["settings"], result["sides"]
    height, width = settings["shape"]
    seeds = len(settings["seeds"])
    # hard_0 is the single-task models, counted already.
    used = sum(s["core_seconds"] for n, s in sides.items() if n != "hard_0")
    filters = ", ".join(map(str, settings["filters"]))
    parts = [
        "# Ways to share a trunk on NYUv2 scenes",
        "Written by `run.py`; do not edit.",
        "Four tasks on indoor scenes (`data.py`): the class of every pixel (13), its "
        "depth, boundaries between the 40 classes, and which of the 13 classes are "
        f"present. Images of {width} x {height}, official split: {settings['train']} "
        f"training images (half of them mirrored) and {settings['test']} test images. "
        f"Trunk: {len(settings['filters'])} blocks of {settings['convs']} "
        f"convolution(s) ({filters} filters) with batch norm and pooling; a decoder "
        f"per map. {settings['epochs']} epochs of batches of {settings['batch_size']}, "
        "Adam from "
        f"{settings['rate']:g} down a cosine, task weights 1, "
        f"{seeds} seed{'s' if seeds > 1 else ''}. Nothing is tuned for any side and no "
        "run is chosen by its test score.",
        "`hard_d`: hard sharing of the first d blocks; `hard_0` are the single-task "
        "models. `cross_stitch`, `nddr`: a column of blocks per task. Δ: improvement "
        "over the single-task model by the task's first metric, Δm its mean over the "
        "four tasks; in %, higher is better.",
        *(f"![{title}]({file})" for title, file in figures.items()),
        table(sides),
        verdict(sides, seeds),
    ]
    if missing:
        parts.append(
            "Not trained to the end, and so not in the table: "
            + ", ".join(f"`{name}`" for name in missing)
            + ". The same command goes on with them."
        )
    parts += [
        "Published for comparison of the order of magnitude only (SegNet from scratch, "
        "288 x 384, with surface normals instead of boundaries and presence): single "
        "task 38.30 % mIoU and 0.6754 m, equal weights 39.29 % and 0.5493 m (Navon et "
        "al., ICML 2022). Smaller images, nets and budgets give less here.",
        made_by(
            result,
            result["command"],
            f"{used * seeds / 60:.0f} core minutes of building, compiling and training "
            "in all",
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(sides: dict[str, Any]) -> str:
    singles = [name for name in sides if name.startswith("single_")]
    rest = sorted(
        (name for name in sides if name not in singles),
        key=lambda name: -sides[name].get("delta_m", 0.0),
    )
    heads = ["side", *(c[2] for c in COLUMNS), "Δm %", "parameters", "core minutes"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in [*singles, *rest]:
        side = sides[name]
        cells = [f"`{name}`"]
        for task, metric, _, factor, digits in COLUMNS:
            found = side["test"].get(task)
            cells.append(f"{factor * found[metric]:.{digits}f}" if found else "–")
        each = "".join(f", {gain:+.2f}" for gain in side.get("delta_m_of_seeds", ()))
        each = f" ({each[2:]})" if each else ""
        cells.append(f"{side['delta_m']:+.2f}{each}" if "delta_m" in side else "–")
        cells += [f"{side['parameters']:,}", f"{side['core_seconds'] / 60:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(sides: dict[str, Any], seeds: int) -> str:
    scored = {k: v for k, v in sides.items() if "delta_m" in v and k != "hard_0"}
    if not scored:
        return ""
    order = sorted(scored, key=lambda name: -scored[name]["delta_m"])
    best, worst = order[0], order[-1]
    gains = [name for name in order if scored[name]["delta_m"] > 0]
    words = [
        f"Best: `{best}` ({scored[best]['delta_m']:+.2f} %); "
        f"worst: `{worst}` ({scored[worst]['delta_m']:+.2f} %). "
        f"{len(gains)} of {len(order)} are better than the single-task models on "
        "average."
    ]
    harmed = {
        task: [name for name in order if scored[name]["delta"][task] < 0]
        for task in net.TASKS
    }
    words.append(
        "Worse than its single-task model: "
        + "; ".join(
            f"{task} with {', '.join(f'`{n}`' for n in found) or 'none'}"
            for task, found in harmed.items()
        )
        + "."
    )
    if seeds == 1:
        words.append(
            "One seed: differences of a few percent between sides can be chance."
        )
    else:
        words.append(
            "Δm in brackets: each seed against the single-task models of that seed."
        )
    return " ".join(words)
