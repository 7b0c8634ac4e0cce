"""What gates, stitches and branches do, now or over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl import _checks
from kmtl.inspection.readings import Gates, is_shares
from kmtl.inspection.readings import gates as present

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

COLORMAP = "viridis"
PANEL = (2.7, 2.1)  # inches


def gates(
    source: Any,
    *,
    layers: str | Sequence[str] | None = None,
    axes: Axes | Sequence[Axes] | None = None,
) -> np.ndarray:
    """Draw readings of gates, stitches and branches, one panel each.

    Of a record over several epochs: shares (a gate's mean weight of each expert) as
    areas that fill the panel, other numbers as lines. Of the present state: bars, or a
    map of colours for a matrix.

    Args:
        source: What `fit` returned with a `kmtl.inspection.GateRecorder` among its
            callbacks, the callback, its `frame`, what `kmtl.gates` returned, or a
            model, whose present state is drawn.
        layers: Names of the layers to draw, or one. None: all that are recorded.
        axes: As many Axes as there are panels; one Axes for one. None makes a figure,
            with one row per reading's name (a task) and one column per gate of it.

    Returns:
        Array of the Axes, one per layer and reading, in the model's order.

    Raises:
        ValueError: where nothing was recorded, a layer is unknown, or the number of
            axes is not that of the panels.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8,), sharing="cross_stitch"
    ... )
    >>> [ax.get_title() for ax in kmtl.plotting.gates(model)]
    ['a_stitch1', 'b_stitch1']
    """
    frame = _frame(source)
    known = list(dict.fromkeys(frame["layer"]))
    if layers is not None:
        layers = [layers] if isinstance(layers, str) else layers
        for name in layers:
            if name not in known:
                raise ValueError(_checks.unknown_name("recorded layer", name, known))
        frame = frame[frame["layer"].isin(list(layers))]
    panels = list(frame.groupby(["layer", "reading"], sort=False))
    chosen = _grid(panels) if axes is None else list(np.ravel(np.asarray(axes)))
    if len(chosen) != len(panels):
        raise ValueError(
            f"`axes` must be {len(panels)}, one per layer and reading. "
            f"Received: {len(chosen)}"
        )
    several = "epoch" in frame and frame["epoch"].nunique() > 1
    for ax, ((layer, reading), rows) in zip(chosen, panels, strict=True):
        if several:
            _over_epochs(ax, rows)
        else:
            _now(ax, rows)
        own = layer.startswith(f"{reading}_") or len(panels) == len(known)
        ax.set_title(layer if own else f"{layer}: {reading}", fontsize=9)
    return np.array(chosen, dtype=object)


def _frame(source: Any) -> pandas.DataFrame:
    """The record in any of the forms that `gates` takes."""
    import pandas

    if isinstance(source, pandas.DataFrame):
        frame = source
    elif isinstance(source, Gates):
        frame = source.frame
    elif isinstance(getattr(source, "gates", None), pandas.DataFrame):
        frame = source.gates
    elif isinstance(getattr(source, "frame", None), pandas.DataFrame):
        frame = source.frame
    elif hasattr(source, "layers"):
        frame = present(source).frame
    else:
        raise TypeError(
            "`source` must be a model, what `kmtl.gates` returned, or the record of a "
            "kmtl.inspection.GateRecorder. Received: source of type "
            f"{type(source).__name__}"
        )
    if not len(frame):
        raise ValueError(
            "`source` has no readings: no layer of the model is recorded, or there was "
            "no epoch. Received: an empty record"
        )
    return frame


def _grid(panels: Sequence[Any]) -> list[Axes]:
    """Axes of a new figure: a row per reading, a column per layer with it."""
    from kmtl.plotting._style import new_axes

    lines: dict[str, int] = {}
    places = []
    for (_, reading), _ in panels:
        column = lines.get(reading, 0)
        lines[reading] = column + 1
        places.append((list(lines).index(reading), column))
    rows, columns = len(lines), max(lines.values())
    size = (PANEL[0] * columns + 0.4, PANEL[1] * rows + 0.3)
    grid = new_axes(rows, columns, size)
    for place in np.ndindex(rows, columns):
        if place not in places:
            grid[place].remove()
    return [grid[place] for place in places]


def _table(rows: pandas.DataFrame) -> tuple[list[str], np.ndarray, list[int]]:
    """Names of the numbers, the numbers `(epochs, entries)`, and the epochs."""
    many = rows["row"].nunique() > 1
    names = [
        f"{row + 1}, {entry}" if many else str(entry)
        for row, entry in zip(rows["row"], rows["entry"], strict=True)
    ]
    table = rows.assign(name=names).pivot(index="epoch", columns="name", values="value")
    order = list(dict.fromkeys(names))
    return order, table[order].to_numpy("float64"), [int(e) for e in table.index]


def _over_epochs(ax: Axes, rows: pandas.DataFrame) -> None:
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    names, values, epochs = _table(rows)
    colors = colormaps[COLORMAP](np.linspace(0.05, 0.92, len(names)))
    if all(is_shares(line) for line in values):
        ax.stackplot(epochs, values.T, labels=names, colors=colors, ec="white", lw=0.4)
        ax.set(ylim=(0, 1), ylabel="share")
        ax.margins(x=0)
    else:
        for name, line, color in zip(names, values.T, colors, strict=True):
            ax.plot(epochs, line, color=color, label=name)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _now(ax: Axes, rows: pandas.DataFrame) -> None:
    from matplotlib import colormaps

    if "epoch" in rows:
        rows = rows[rows["epoch"] == rows["epoch"].max()]
    entries = list(dict.fromkeys(rows["entry"]))
    values = rows["value"].to_numpy("float64").reshape(-1, len(entries))
    if len(values) == 1:
        ax.bar(entries, values[0], color=colormaps[COLORMAP](0.35))
        if is_shares(values[0]):
            ax.set_ylim(0, 1)
            ax.axhline(1 / len(entries), color="0.4", linewidth=0.8, linestyle="--")
            ax.set_ylabel("share")
    else:
        ax.imshow(values, cmap=COLORMAP, aspect="auto")
        for place in np.ndindex(*values.shape):
            dark = values[place] < (values.min() + values.max()) / 2
            color = "white" if dark else "black"
            text = f"{values[place]:.2f}"
            row, column = place
            ax.text(column, row, text, color=color, ha="center", va="center", size=7)
        ax.set_xticks(range(len(entries)), entries)
        ax.set_yticks(range(len(values)), [str(i + 1) for i in range(len(values))])
    ax.tick_params(axis="x", labelsize=7, rotation=30 if len(entries) > 4 else 0)
