"""Figures of a search, from the tables `tuner.results()` and `tuner.curve_table()`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kmtl import _checks
from kmtl.plotting._importance import as_table, completed, importance, is_numeric

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

BEST, OTHER, PRUNED = "tab:orange", "tab:blue", "0.6"
COLORS = "viridis"


def parallel_coordinates(
    table: pandas.DataFrame,
    metric: str | None = None,
    ax: Axes | None = None,
    *,
    hyperparameters: Sequence[str] | None = None,
) -> Axes:
    """Draw every completed trial as a line through its hyperparameters to its metric.

    Args:
        table: A tuner, or what its `results()` returned.
        metric: Name of a log. None: the search's first objective.
        ax: Axes to draw on. None makes a figure.
        hyperparameters: Names of those to draw. None: all that vary.

    Returns:
        The Axes. The lines are drawn from the worst trial to the best, those that break
        a constraint before the others; the best is marked if it breaks none.
    """
    from matplotlib import colormaps

    from kmtl.plotting._style import axes_or_new

    table = as_table(table)
    metric, names, rows = completed(table, metric)
    names = _chosen(rows, names, hyperparameters)
    ax = axes_or_new(ax, width=max(6.4, 1.2 * (len(names) + 1)))
    rows = rows.sort_values(metric, ascending=_direction(table, metric) == "max")
    rows = rows.iloc[np.argsort(_kept(rows), kind="stable")]
    scales = [_Scale(rows[name]) for name in [*names, metric]]
    heights = [scale.heights() for scale in scales]
    shades = colormaps[COLORS](np.linspace(0, 1, max(len(rows), 1)))
    for i, trial in enumerate(rows.index):
        line = [column[i] for column in heights]
        top = i == len(rows) - 1 and _kept(rows).any()
        ax.plot(
            range(len(line)),
            line,
            color=BEST if top else shades[i],
            linewidth=2.5 if top else 1.0,
            label=str(trial),
            alpha=1.0 if top else 0.6,
        )
    for place, scale in enumerate(scales):
        ax.axvline(place, color="0.8", linewidth=0.8, zorder=0)
        for height, text in scale.ticks():
            ax.text(
                place + 0.03,
                height,
                text,
                fontsize=7,
                va="center",
                bbox={"color": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
                clip_on=False,
                zorder=4,
            )
    ax.set_xticks(range(len(scales)), [*names, metric], rotation=30, ha="right")
    ax.set_yticks([])
    ax.set_xlim(-0.1, len(scales) - 0.5)  # room for the last axis' numbers
    if len(rows):
        best = f"trial {rows.index[-1]} is the best"
        none = "none keeps to the constraints"
        ax.set_title(f"{len(rows)} trials, {best if _kept(rows).any() else none}")
    return ax


def hyperparameters(
    table: pandas.DataFrame,
    metrics: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
) -> Any:
    """Draw each hyperparameter against each task's metric, one point per trial.

    Args:
        table: A tuner, or what its `results()` returned.
        metrics: Names of logs. None: every task's score.
        names: Hyperparameters to draw. None: all that vary.

    Returns:
        Array of Axes, shape `(metrics, hyperparameters)`.
    """
    from kmtl.plotting._style import new_axes

    table = as_table(table)
    if metrics is None:
        metrics = list(table.attrs.get("scores", {}).values()) or [None]  # type: ignore
    _, known, rows = completed(table, metrics[0])
    chosen = _chosen(rows, known, names)
    size = (2.4 * len(chosen) + 0.6, 2.2 * len(metrics) + 0.4)
    axes = new_axes(len(metrics), len(chosen), size, sharex="col", sharey="row")
    for line, metric in zip(axes, metrics, strict=True):
        metric, _, rows = completed(table, metric)
        best = _best(table, rows, metric)
        for ax, name in zip(line, chosen, strict=True):
            column = rows[name]
            places = column if is_numeric(column) else column.astype(str)
            counts = column.notna()
            ax.scatter(places[counts], rows[metric][counts], s=12, color=OTHER)
            if best is not None and counts[best]:
                ax.scatter([places[best]], [rows[metric][best]], s=30, color=BEST)
            if is_numeric(column) and _is_logarithmic(column):
                ax.set_xscale("log")
            elif not is_numeric(column):
                ax.margins(x=0.25)  # room for the names
        line[0].set_ylabel(metric)
    for ax, name in zip(axes[-1], chosen, strict=True):
        ax.set_xlabel(name)
    axes[0, 0].figure.suptitle(f"{len(rows)} trials, the best in each metric marked")
    return axes


def importances(
    table: pandas.DataFrame, metric: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the importance of every hyperparameter, the largest on top.

    Args:
        table: A tuner, or what its `results()` returned, 8 completed trials or more.
        metric: Name of a log. None: the search's first objective.
        ax: Axes to draw on. None makes a figure.

    Returns:
        The Axes.
    """
    from kmtl.plotting._style import axes_or_new

    table = as_table(table)
    found = importance(table, metric)
    ax = axes_or_new(ax)
    ax.barh(list(found.index), list(found), color=OTHER)
    ax.invert_yaxis()
    ax.set_xlabel("share of the variation explained")
    count = len(completed(table, metric)[2])
    ax.set_title(f"what moves {found.name}\n({count} trials)")
    return ax


def pareto(
    table: pandas.DataFrame,
    x: str | None = None,
    y: str | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw two metrics of all completed trials, and their front.

    Args:
        table: A tuner, or what its `results()` returned.
        x, y: Names of logs. None: the first two goals of a search with several, else
            the first two tasks' scores.
        ax: Axes to draw on. None makes a figure.

    Returns:
        The Axes. The front is that of these two metrics alone.
    """
    from kmtl.evaluation.pareto import ParetoFront
    from kmtl.plotting._style import axes_or_new

    table = as_table(table)
    goals = table.attrs.get("objectives", [])
    if len(goals) < 2:
        goals = list(table.attrs.get("scores", {}).values())
    if (x is None or y is None) and len(goals) < 2:
        raise ValueError(
            "`x` and `y` must be given for a search with one goal and one task. "
            f"Received: x={x!r}, y={y!r}"
        )
    x = goals[0] if x is None else x
    y = goals[1] if y is None else y
    x, _, rows = completed(table, x)
    y, _, rows = completed(table.loc[rows.index], y)
    rows = rows[_kept(rows)]
    ways = (_direction(table, x), _direction(table, y))
    front = ParetoFront((x, y), ways, rows[[x, y]].to_numpy(), tuple(rows.index))
    ax = axes_or_new(ax)
    ax.scatter(rows[x], rows[y], s=14, color=OTHER, label="trials")
    best = rows.loc[list(front.members)].sort_values(x)
    # A step: what no trial reaches is not drawn as if one did.
    where: Literal["pre", "post"] = "post" if ways[0] == "min" else "pre"
    ax.step(
        best[x],
        best[y],
        where=where,
        color=BEST,
        marker="o",
        markersize=5,
        label="front",
    )
    arrows = {"max": "higher is better", "min": "lower is better"}
    ax.set(xlabel=f"{x} ({arrows[ways[0]]})", ylabel=f"{y} ({arrows[ways[1]]})")
    ax.set_title(f"{len(best)} of {len(rows)} trials on the front")
    ax.legend()
    return ax


def learning_curves(
    curves: pandas.DataFrame,
    metric: str | None = None,
    ax: Axes | None = None,
    *,
    best: int = 1,
) -> Axes:
    """Draw a metric of every trial per epoch; the best trials on top.

    Args:
        curves: A tuner, or what its `curve_table()` returned.
        metric: Name of a log. None: the search's first objective.
        ax: Axes to draw on. None makes a figure.
        best: Integer >= 0: number of trials to highlight.

    Returns:
        The Axes. Of several executions the mean is drawn; stopped trials are dashed.
    """
    from matplotlib.ticker import MaxNLocator

    from kmtl.plotting._style import axes_or_new

    if callable(getattr(curves, "curve_table", None)):
        curves = curves.curve_table()
    if metric is None:
        metric = curves.attrs["objectives"][0]
    if metric not in curves.columns:
        logs = list(curves.columns[5:])
        raise ValueError(_checks.unknown_name("metric", metric, logs))
    ax = axes_or_new(ax)
    for trial, rows in curves.groupby("trial", sort=False):
        means = rows.groupby("epoch")[metric].mean()
        rank = rows["rank"].iloc[0]
        top = bool(rows["rank"].notna().iloc[0]) and rank <= best
        stopped = rows["status"].iloc[0] == "PRUNED"
        ax.plot(
            means.index,
            means.to_numpy(),
            color=BEST if top else PRUNED if stopped else OTHER,
            linestyle="--" if stopped else "-",
            linewidth=2 if top else 0.8,
            alpha=1.0 if top else 0.5,
            zorder=3 if top else 2,
            label=f"trial {trial}" if top else f"_{trial}",
        )
    count = curves["trial"].nunique()
    ax.set(xlabel="epoch", ylabel=metric, title=f"{metric} of {count} trials")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if ax.get_legend_handles_labels()[1]:
        ax.legend()
    return ax


def depth_weight(
    table: pandas.DataFrame,
    metric: str | None = None,
    ax: Axes | None = None,
    *,
    weight: str | None = None,
    bins: int = 5,
) -> Axes:
    """Draw the best value of a metric by sharing depth and a task's weight.

    Args:
        table: A tuner, or what its `results()` returned.
        metric: Name of a log. None: the search's first objective.
        ax: Axes to draw on. None makes a figure.
        weight: A column `task_weight_<task>`. None: that of the first task.
        bins: Integer >= 1: number of ranges of the weight. Fewer values than that are
            drawn as they are.

    Returns:
        The Axes. Cells without a trial are empty; each cell says its value and its
        number of trials, without those that break a constraint. The best trial's is
        framed.
    """
    from matplotlib.patches import Rectangle

    from kmtl.plotting._style import axes_or_new

    table = as_table(table)
    metric, names, rows = completed(table, metric)
    weights = [name for name in names if name.startswith("task_weight_")]
    if "sharing_depth" not in names or not weights:
        raise ValueError(
            "The search must have varied `sharing_depth` (one for all tasks) and "
            f"`task_weights`. Received: {', '.join(names)}"
        )
    if weight is None:
        weight = weights[0]
    elif weight not in weights:
        raise ValueError(_checks.unknown_name("weight", weight, weights))
    _checks.check_int("bins", bins, 1)
    rows = rows[rows["sharing_depth"].notna() & rows[weight].notna()]
    rows = rows[_kept(rows)]
    depths = sorted(rows["sharing_depth"].unique())
    places, labels = _binned(rows[weight].to_numpy("float64"), bins)
    choose = np.max if _direction(table, metric) == "max" else np.min
    cells = np.full((len(depths), len(labels)), np.nan)
    ax = axes_or_new(ax)
    for i, depth in enumerate(depths):
        for j in range(len(labels)):
            inside = (rows["sharing_depth"].to_numpy() == depth) & (places == j)
            if inside.any():
                cells[i, j] = choose(rows[metric].to_numpy()[inside])
                text = f"{cells[i, j]:.3g}\n({inside.sum()})"
                box = {"color": "white", "alpha": 0.6, "linewidth": 0}
                ax.text(j, i, text, ha="center", va="center", fontsize=7, bbox=box)
    image = ax.imshow(cells, aspect="auto", origin="lower", cmap=COLORS)
    best = _best(table, rows, metric)
    if best is not None:
        i = depths.index(rows["sharing_depth"][best])
        j = places[list(rows.index).index(best)]
        frame = Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, fill=False)
        frame.set(edgecolor=BEST, linewidth=3)
        ax.add_patch(frame)
    ax.figure.colorbar(image, ax=ax, label=f"best {metric}")
    ax.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    ax.set_yticks(range(len(depths)), [f"{depth:g}" for depth in depths])
    title = "best trial of each cell (trials)"
    ax.set(
        xlabel=weight,
        ylabel="sharing_depth",
        title=title if best is None else f"{title}; framed: trial {best}",
    )
    return ax


class _Scale:
    """Heights between 0 and 1 for one column of parallel coordinates."""

    def __init__(self, column: pandas.Series):
        self.numeric = is_numeric(column)
        self.column = column
        if self.numeric:
            self.log = _is_logarithmic(column)
            values = column.to_numpy("float64", na_value=np.nan)
            self.values = np.log(values) if self.log else values
            finite = self.values[np.isfinite(self.values)]
            self.low = finite.min() if len(finite) else 0.0
            self.span = (finite.max() - self.low if len(finite) else 0.0) or 1.0
        else:
            self.kinds = list(dict.fromkeys(map(str, column.dropna())))

    def heights(self) -> list[float]:
        if self.numeric:
            return list((self.values - self.low) / self.span)
        most = max(len(self.kinds) - 1, 1)
        return [
            self.kinds.index(str(value)) / most if value == value else np.nan
            for value in self.column
        ]

    def ticks(self) -> list[tuple[float, str]]:
        if not self.numeric:
            most = max(len(self.kinds) - 1, 1)
            return [(i / most, kind) for i, kind in enumerate(self.kinds)]
        ends = (
            [0.0, 1.0] if np.nanmax(self.values, initial=self.low) > self.low else [0]
        )
        undo = np.exp if self.log else float
        return [(end, f"{undo(self.low + end * self.span):.3g}") for end in ends]


def _chosen(
    rows: pandas.DataFrame, known: Sequence[str], given: Sequence[str] | None
) -> list[str]:
    if given is None:
        return [name for name in known if rows[name].nunique(dropna=False) > 1]
    for name in given:
        if name not in known:
            raise ValueError(_checks.unknown_name("hyperparameter", name, known))
    return list(given)


def _direction(table: pandas.DataFrame, metric: str) -> str:
    known = table.attrs["directions"]
    if metric not in known:
        raise ValueError(
            f"`{metric}` has no direction that is known: draw a task's validation "
            f"metric or an objective. Expected one of: {', '.join(sorted(known))}"
        )
    return known[metric]


def _best(table: pandas.DataFrame, rows: pandas.DataFrame, metric: str) -> Any:
    """Label of the row with the best value, of those that keep to the constraints."""
    if not len(rows):
        return None
    kept = _kept(rows)
    rows = rows[kept] if kept.any() else rows
    highest = _direction(table, metric) == "max"
    return rows[metric].idxmax() if highest else rows[metric].idxmin()


def _kept(rows: pandas.DataFrame) -> np.ndarray:
    """Which trials break no constraint."""
    if "feasible" not in rows:
        return np.ones(len(rows), bool)
    return rows["feasible"].fillna(True).to_numpy(bool)


def _is_logarithmic(column: pandas.Series) -> bool:
    """Whether positive numbers spread over a factor of 50, most of them low."""
    values = column.dropna().to_numpy("float64")
    if not len(values) or values.min() <= 0 or values.max() <= 50 * values.min():
        return False
    # A uniform sample also spreads so far; its median is in the middle.
    return bool(np.median(values) < 0.8 * values.min() + 0.2 * values.max())


def _binned(values: np.ndarray, bins: int) -> tuple[np.ndarray, list[str]]:
    """Number of the bin of each value, and the bins' labels."""
    distinct = np.unique(values)
    if len(distinct) <= bins:
        return np.searchsorted(distinct, values), [f"{value:.3g}" for value in distinct]
    edges = np.linspace(values.min(), values.max(), bins + 1)
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
    # As many digits as tell neighbours apart.
    for digits in range(2, 9):
        texts = [f"{edge:.{digits}g}" for edge in edges]
        if len(set(texts)) == len(texts):
            break
    return places, [f"{low}–{high}" for low, high in itertools.pairwise(texts)]
