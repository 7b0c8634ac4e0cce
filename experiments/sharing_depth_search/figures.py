"""One figure per problem, drawn from its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tables import DELTA, pooled, table_of

COLORS = ("tab:red", "tab:green", "tab:purple", "tab:brown", "tab:pink")


def draw(problem: Mapping[str, Any], file: Path) -> None:
    """The map of depths and weights, importance, fronts, and the test scores."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from kmtl import plotting

    tasks, sides = problem["tasks"], problem["sides"]
    multi = {k: v for k, v in sides.items() if "delta_m" in v}
    table = table_of(multi["searched"], tasks)
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    plotting.depth_weight(table, DELTA, axes[0, 0], bins=4)
    axes[0, 0].set_title("searched weights: best Δm by depth and weight")
    if problem["importance"].get("all"):
        plotting.importances(pooled(multi), DELTA, axes[0, 1])
    axes[0, 1].set_title("importance over the trials of all sides")
    logs = list(tasks.values())
    ax = plotting.pareto(table, logs[0], logs[1], ax=axes[1, 0])
    for color, (name, entry) in zip(
        COLORS, ((k, v) for k, v in multi.items() if k != "searched"), strict=False
    ):
        rows = [row for row in entry["trials"] if row["trial"] in entry["front"]]
        rows.sort(key=lambda row: row[logs[0]])
        ax.plot(
            [row[logs[0]] for row in rows],
            [row[logs[1]] for row in rows],
            ".:",
            color=color,
            linewidth=0.8,
            label=name,
        )
    singles = [problem["baselines"]["validation"][task] for task in tasks]
    ax.plot(*singles, "k*", markersize=10, label="two single-task models")
    _zoom(ax, problem, multi, logs, singles)
    ax.legend(fontsize=7)
    ax.set_title("searched weights: trials and front; other sides' fronts")
    _bars(axes[1, 1], multi)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _zoom(ax: Any, problem: Any, multi: Any, logs: list[str], singles: list) -> None:
    """Leave out trials that learnt next to nothing: a front is near its best."""
    front = [
        row
        for entry in multi.values()
        for row in entry["trials"]
        if row["trial"] in entry["front"]
    ]
    for log, single, limit in zip(
        logs, singles, (ax.set_xlim, ax.set_ylim), strict=True
    ):
        values = sorted([single, *(row[log] for row in front)])
        room = 0.15 * (values[-1] - values[0]) or 0.01
        limit(values[0] - room, values[-1] + room)


def _bars(ax: Any, multi: Mapping[str, Any]) -> None:
    """Δm on the test split per side, the best on top."""
    order = sorted(multi, key=lambda name: multi[name]["delta_m"][0])
    means = [multi[name]["delta_m"][0] for name in order]
    halves = [multi[name]["delta_m"][1] or 0.0 for name in order]
    colors = ["tab:orange" if name == "searched" else "tab:blue" for name in order]
    ax.barh(order, means, color=colors, height=0.6)
    ax.errorbar(means, order, xerr=halves, fmt="none", ecolor="black", linewidth=0.8)
    for name, place in zip(order, range(len(order)), strict=True):
        seeds = multi[name]["delta_m_by_seed"]
        ax.plot(seeds, [place] * len(seeds), "k.", markersize=3)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel("Δm on the test set, % (higher is better), 95 % interval")
    ax.set_title("winners on final seeds")
