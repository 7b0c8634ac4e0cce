"""Tables, figures and results.json of the finished runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import data
import numpy as np
from common import made_by, minutes
from common.table import interval
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

TITLES = {
    "none": "none",
    "frobenius": "Frobenius",
    "trace_norm": "trace norm",
    "mtrl": "MTRL",
}


def judged(matrix: np.ndarray) -> dict[str, float]:
    """How well a synthetic matrix shows the families."""
    signs = data.expected()
    pairs = np.triu_indices(len(matrix), 1)
    values, truth = np.asarray(matrix)[pairs], signs[pairs]
    within = truth != 0
    distance = 1 - np.clip(np.abs(matrix), 0, 1)
    np.fill_diagonal(distance, 0)
    labels = AgglomerativeClustering(
        n_clusters=2, metric="precomputed", linkage="average"
    ).fit_predict(distance)
    return {
        "signs": float((np.sign(values[within]) == truth[within]).mean()),
        "families": float(adjusted_rand_score(data.FAMILY, labels)),
        "within": float(np.abs(values[within]).mean()),
        "between": float(np.abs(values[~within]).mean()),
    }


def best_runs(found: dict[tuple, dict], name: str) -> dict[str, dict[int, dict]]:
    """Method -> seed -> the run with the best validation score."""
    best: dict[str, dict[int, dict]] = {}
    for (where, method, _, seed), run in found.items():
        if where == name:
            seeds = best.setdefault(method, {})
            if seed not in seeds or run["validation"] < seeds[seed]["validation"]:
                seeds[seed] = run
    return best


def collect(found: dict[tuple, dict], name: str) -> dict[str, Any]:
    best = best_runs(found, name)
    reference = best.get("none", {})
    table = {}
    for method, seeds in sorted(
        best.items(), key=lambda item: [*TITLES].index(item[0])
    ):
        row: dict[str, Any] = {
            "error": interval([run["test"] for run in seeds.values()]),
            "gain": interval(
                [
                    reference[seed]["test"] - run["test"]
                    for seed, run in seeds.items()
                    if seed in reference
                ]
            ),
            "alphas": sorted(run["alpha"] for run in seeds.values()),
            "seeds": len(seeds),
        }
        if name == "synthetic":
            found_by = [judged(np.array(run["matrix"])) for run in seeds.values()]
            row |= {key: interval([f[key] for f in found_by]) for key in found_by[0]}
            row["exact"] = sum(f["families"] == 1 for f in found_by)
        else:
            pairs = np.triu_indices(data.WQ_TARGETS, 1)
            row["labels"] = interval(
                [
                    float(
                        np.corrcoef(
                            np.array(run["matrix"])[pairs],
                            np.array(run["labels"])[pairs],
                        )[0, 1]
                    )
                    for run in seeds.values()
                ]
            )
        row["matrix"] = np.mean([run["matrix"] for run in seeds.values()], 0).tolist()
        table[method] = row
    return table


def draw(
    table: dict[str, Any], names: list[str], truth: np.ndarray, title: str, file: Path
) -> None:
    """The mean matrix of each method, beside what is known."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [(title, truth)]
    shown += [(TITLES[m], np.array(row["matrix"])) for m, row in table.items()]
    width = 2.4 * len(shown) + 0.6
    figure, axes = plt.subplots(
        1, len(shown), figsize=(width, 2.9), layout="constrained"
    )
    for ax, (label, matrix) in zip(axes, shown, strict=True):
        image = ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set_title(label, fontsize=8)
        ax.set_xticks(range(len(names)), names, fontsize=5, rotation=90)
        ax.set_yticks(range(len(names)), names, fontsize=5)
    figure.colorbar(image, ax=axes, shrink=0.7, label="correlation of tasks")
    figure.savefig(file, dpi=140)
    plt.close(figure)


def number(pair: tuple[float, float], digits: int = 3) -> str:
    return f"{pair[0]:.{digits}f} ± {pair[1]:.{digits}f}"


def verdict(pair: tuple[float, float]) -> str:
    mean, half = pair
    if not math.isfinite(half) or abs(mean) <= half:
        return "no difference that the seeds could show"
    return "better" if mean > 0 else "worse"


def write(
    record: dict[str, Any], found: dict[tuple, dict], out: Path
) -> dict[str, Any]:
    tables = {name: collect(found, name) for name in record["settings"]}
    result = {**record, "tables": tables}
    result["minutes"] = round(sum(run["seconds"] for run in found.values()) / 60, 1)
    stem = "" if record["kind"] == "default" else f"_{record['kind']}"
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (out / f"results{stem}.json").write_text(text + "\n", "utf-8")
    draw(
        tables["synthetic"],
        list(data.SYNTHETIC),
        data.expected().astype(float),
        "how they were made",
        out / f"synthetic{stem}.png",
    )
    if tables.get("wq"):
        runs = [run for key, run in found.items() if key[0] == "wq"]
        labels = np.mean([run["labels"] for run in runs], 0)
        names = runs[0]["tasks"]
        draw(tables["wq"], names, labels, "of the labels", out / f"wq{stem}.png")
    (out / f"README{stem}.md").write_text(readme(result, stem), "utf-8")
    return result


def readme(result: dict[str, Any], stem: str) -> str:
    settings = result["settings"]["synthetic"]
    lines = [
        "# Do learned relations find the families of tasks?",
        "",
        "Written by `run.py`; do not edit.",
        "",
        "Eight regression tasks of two families (how they are made: `data.py`), each "
        f"with {settings['labels']} labels on rows of its own out of 300. The last "
        "task of a family is the first one with its sign turned. A trunk of "
        f"{settings['units']} tanh units, linear heads, Adam({settings['rate']}), "
        f"{settings['steps']} steps on whole batches; the epoch and the factor alpha "
        f"({', '.join(map(str, settings['alphas']))}) are those with the lowest "
        "validation error, per seed. 2,000 test rows.",
        "",
        "Relations are the cosines between the heads' weights for no regulariser and "
        "Frobenius, and the correlations of Ω for the other two (`kmtl.relations`).",
        "",
        "`signs`: share of pairs within a family whose relation has the right sign. "
        "`families`: adjusted Rand index of the two clusters (average linkage on 1 - "
        "|correlation|) against the families, 1 is perfect and 0 is chance. `within` "
        "and `between`: mean |correlation| of pairs of one and of two families. "
        "`error`: mean over tasks of the relative root mean squared error (1 is the "
        "mean as prediction). `gain`: how much lower it is than without a regulariser, "
        f"seed by seed. Means over {len(settings['seeds'])} seeds ± half of the 95 % "
        "interval.",
        "",
        f"![synthetic](synthetic{stem}.png)",
        "",
        "| regulariser | families | signs | within | between | error | gain | "
        "verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, row in result["tables"]["synthetic"].items():
        gain = "–" if method == "none" else number(row["gain"])
        told = "the reference" if method == "none" else verdict(row["gain"])
        lines.append(
            f"| {TITLES[method]} | {number(row['families'], 2)} "
            f"| {number(row['signs'], 2)} | {number(row['within'], 2)} "
            f"| {number(row['between'], 2)} | {number(row['error'])} | {gain} "
            f"| {told} |"
        )
    lines += ["", summary(result)]
    if result["tables"].get("wq"):
        lines += real(result, stem)
    command = "python experiments/task_relations/run.py --data FOLDER"
    lines += ["", made_by(result, command, minutes(60 * result["minutes"])), ""]
    return "\n".join(lines)


def summary(result: dict[str, Any]) -> str:
    """What the synthetic table says, and where its grid was too short."""
    table = result["tables"]["synthetic"]
    largest = max(result["settings"]["synthetic"]["alphas"])
    found = ", ".join(
        f"{TITLES[method]} {row['exact']} of {row['seeds']}"
        for method, row in table.items()
    )
    edge = ", ".join(
        f"{TITLES[method]} {row['alphas'].count(largest)}"
        for method, row in table.items()
        if largest in row["alphas"]
    )
    text = f"Draws in which the two clusters are exactly the families: {found}."
    if edge:
        text += (
            f" The largest factor of the grid, {largest}, was the best one in draws: "
            f"{edge}; a still larger one might serve these better."
        )
    return text


def real(result: dict[str, Any], stem: str) -> list[str]:
    settings = result["settings"]["wq"]
    lines = [
        "",
        "## Water quality: 14 targets",
        "",
        f"The same on `wq` (see `data.py`), {settings['units']} units, all labels, "
        f"{len(settings['seeds'])} random splits of 60 / 20 / 20 %. The truth is not "
        "known; `labels` is the correlation, over pairs of targets, of the learned "
        "relations with the correlations of the targets themselves.",
        "",
        f"![wq](wq{stem}.png)",
        "",
        "| regulariser | labels | error | gain | verdict |",
        "|---|---|---|---|---|",
    ]
    for method, row in result["tables"]["wq"].items():
        gain = "–" if method == "none" else number(row["gain"])
        told = "the reference" if method == "none" else verdict(row["gain"])
        lines.append(
            f"| {TITLES[method]} | {number(row['labels'], 2)} | {number(row['error'])} "
            f"| {gain} | {told} |"
        )
    return lines
