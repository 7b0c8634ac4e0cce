"""Some rows of a data set, with all of their labels."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl.typing import Data

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kmtl.tasks.base import Task

#: Inputs and values of a label that are written out.
MOST = 4
#: A row of more numbers is drawn, not written.
MOST_NUMBERS = 16
#: Sides from which on numbers in rows and columns are a picture.
SIDE = 8
MISSING = "–"


def examples(
    data: Data,
    tasks: Sequence[Task] | None = None,
    *,
    count: int = 6,
    seed: int = 0,
) -> Any:
    """Draw some rows with their labels: are they what they should be?

    Goes with the numbers of `kmtl.data.check`. Photos are shown as such, with the boxes
    of a `kmtl.Detection` on them; series and sounds as curves, other inputs as text.
    Labels stand above; maps of labels (segmentation, depth) are drawn below, a row for
    each task. A label that is missing is a dash, and in maps left white.

    Args:
        data: A `kmtl.data.TaskData` (its training part), a `kmtl.data.Split`, `(x, y)`
            arrays, or a `tf.data.Dataset`, of which the first batch is drawn from.
        tasks: The tasks; None where the data know them.
        count: Rows, >= 1. Defaults to 6.
        seed: Which rows are drawn. Defaults to 0.

    Returns:
        Array of Axes, `(1 + tasks with maps, rows)`.

    Raises:
        ValueError, TypeError: for data that `kmtl.data.check` refuses as well.

    Example:

    >>> axes = kmtl.plotting.examples(kmtl.data.digits(), count=3)
    >>> axes.shape  # the digits, and the maps of their ink below
    (2, 3)
    >>> print(axes[0, 0].get_title(loc="left"))
    digit: 3
    parity: 1
    ink: -1.324
    >>> axes[0, 0].figure.savefig("examples.png")
    """
    from kmtl import _checks
    from kmtl.data.checking import batches_in, parts_in
    from kmtl.data.hashing import leaves_of
    from kmtl.plotting._style import new_axes
    from kmtl.tasks.checks import label_dict

    count = _checks.check_int("count", count, 1)
    parts, tasks = parts_in(data, tasks)
    batch = next(batches_in(next(iter(parts.values()))), None)
    if batch is None:
        raise ValueError("`data` must have a row. Received: none")
    x, y = batch[:2]
    leaves = dict(leaves_of(x))
    total = len(next(iter(leaves.values())))
    rows = np.random.default_rng(seed).permutation(total)[:count]
    inputs = {path.strip("/"): leaf[rows] for path, leaf in leaves.items()}
    given = label_dict(y, tasks)
    labels = {
        task: task.label_array(given[task.name])[rows]
        for task in tasks
        if given.get(task.name) is not None
    }
    maps = [task for task, array in labels.items() if _is_map(task, array)]
    size = (2.2 * len(rows), 2.6 + 2.0 * len(maps))
    axes = new_axes(1 + len(maps), len(rows), size)
    shown = next((name for name in inputs if _is_photo(inputs[name])), None)
    if shown is None:
        shown = next((name for name in inputs if _is_curve(inputs[name])), None)
    for place, ax in enumerate(axes[0]):
        _draw(ax, {name: leaf[place] for name, leaf in inputs.items()}, shown)
        texts = []
        for task, array in labels.items():
            if task in maps:
                continue
            if _is_boxes(task) and shown is not None:
                _boxes(ax, task, inputs[shown][place], array[place])
            else:
                there = task.are_present(array[[place]])[0]
                texts.append(f"{task.name}: {_text(task, array[place], there)}")
        ax.set_title("\n".join(texts), loc="left", fontsize=8)
    for line, task in enumerate(maps, start=1):
        _draw_maps(axes[line], task, labels[task])
    return axes


def _is_boxes(task: Task) -> bool:
    from kmtl.tasks.detection import Detection

    return isinstance(task, Detection)


def _is_map(task: Task, array: np.ndarray) -> bool:
    return array.ndim >= 3 and min(array.shape[1:3]) > 1 and not _is_boxes(task)


def _is_photo(leaf: np.ndarray) -> bool:
    if leaf.dtype.kind not in "biuf":
        return False
    if leaf.ndim == 4:
        return leaf.shape[-1] in (1, 3, 4)
    return leaf.ndim == 3 and min(leaf.shape[1:]) >= SIDE


def _is_curve(leaf: np.ndarray) -> bool:
    many = leaf.ndim == 2 and leaf.shape[1] > MOST_NUMBERS
    return leaf.dtype.kind in "biuf" and (leaf.ndim == 3 or many)


def _draw(ax: Axes, row: Mapping[str, np.ndarray], shown: str | None) -> None:
    """The inputs of a row: one drawn, or all written."""
    if shown is None:
        lines = [
            f"{name}: {_values(value)}" if name else _values(value)
            for name, value in row.items()
        ]
        more = len(lines) - 3 * MOST
        if more > 0:
            lines = [*lines[: 3 * MOST], f"... and {more} more"]
        text = "\n".join(
            textwrap.fill(textwrap.shorten(line, 60), 28) for line in lines
        )
        ax.text(0, 1, text, va="top", fontsize=8)
        ax.set_axis_off()
        return
    value = row[shown]
    if not _is_photo(value[None]):
        ax.plot(value, linewidth=0.8)
        ax.tick_params(labelsize=6)
        return
    ax.imshow(_photo(value), cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()


def _photo(value: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1], whatever their unit; one channel has no axis."""
    value = value[..., 0] if value.ndim == 3 and value.shape[-1] == 1 else value
    if value.dtype.kind in "ui":
        return value / 255.0 if value.max(initial=0) > 1 else value.astype("float64")
    low, high = np.nanmin(value), np.nanmax(value)
    if low >= 0 and high <= 1:
        return value
    return (value - low) / max(high - low, 1e-12)


def _boxes(ax: Axes, task: Any, photo: np.ndarray, label: np.ndarray) -> None:
    from kmtl.plotting.boxes import boxes

    drawn = _photo(photo)
    boxes(task, drawn, label, ax=ax)


def _draw_maps(axes: Any, task: Task, array: np.ndarray) -> None:
    """One map per row, in the colours of the same values."""
    there = task.are_present(array)
    values = np.where(there.reshape(array.shape), array.astype("float64"), np.nan)
    values = values[..., 0] if values.ndim == 4 else values
    if task.class_count is not None:
        how = {"cmap": "tab20", "vmin": 0, "vmax": max(task.class_count - 1, 1)}
    else:
        found = values[np.isfinite(values)]
        how = {"vmin": found.min(initial=0), "vmax": found.max(initial=0)}
    for ax, value in zip(axes, values, strict=True):
        ax.imshow(value, interpolation="nearest", **how)
        ax.set_axis_off()
        ax.set_title(task.name, loc="left", fontsize=8)


def _text(task: Task, value: np.ndarray, there: np.ndarray) -> str:
    """A label as text: names of classes, and dashes for what is missing."""
    if not there.any():
        return MISSING
    names = task.class_names or task.labels
    if value.ndim == 1 and task.label_kind == "yes_no" and names:
        chosen = [
            name
            for name, one, known in zip(names, value, there, strict=True)
            if known and one > 0.5
        ]
        return _joined(chosen) or "none"
    classes = task.label_kind == "classes"
    cells = []
    for one, known in zip(value.ravel(), np.ravel(there), strict=True):
        number = classes and known and float(one).is_integer()
        if number and names and 0 <= int(one) < len(names):
            cells.append(str(names[int(one)]))
        else:
            cells.append(f"{float(one):.4g}" if known else MISSING)
    return _joined(cells)


def _joined(cells: Sequence[str]) -> str:
    return ", ".join(cells[:MOST]) + (", ..." if len(cells) > MOST else "")


def _values(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        return str(value)
    return _joined([f"{float(one):.4g}" for one in array.ravel()])
