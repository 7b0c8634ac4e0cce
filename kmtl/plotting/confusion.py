"""A confusion matrix as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kmtl.plotting.relations import MOST_NUMBERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def confusion(table: Any, normalize: bool = True, ax: Axes | None = None) -> Axes:
    """Draw which classes are taken for which.

    Args:
        table: One of `kmtl.evaluate(model, data, per_class=True).per_class`.
        normalize: Colour and write shares of each true class instead of numbers.
            Defaults to True.
        ax: Axes to draw on. None makes a figure.

    Returns:
        The Axes.

    Raises:
        TypeError: for something else.
        ValueError: for a task of several yes/no columns, which has no such matrix.

    Example:

    >>> tasks = [kmtl.Classification("kind", classes=3)]
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(4,), seed=0)
    >>> data = np.zeros((3, 2)), {"kind": np.array([0, 1, 2])}
    >>> result = kmtl.evaluate(model, data, per_class=True)
    >>> ax = kmtl.plotting.confusion(result.per_class["kind"])
    >>> ax.get_xlabel(), ax.get_title()
    ('predicted', 'kind')
    """
    import numpy as np

    from kmtl.plotting._style import axes_or_new

    matrix = getattr(table, "confusion", None)
    if not isinstance(matrix, np.ndarray):
        raise TypeError(
            "`table` must be an entry of "
            "`kmtl.evaluate(model, data, per_class=True).per_class`. "
            f"Received: {type(table).__name__}"
        )
    if matrix.ndim != 2:
        raise ValueError(
            f"Task '{table.task}' has yes/no columns, of which each has a matrix: see "
            f"`table.confusion_frame()`. Received: {len(matrix)} columns"
        )
    values = matrix.astype("float64")
    if normalize:
        rows = values.sum(1, keepdims=True)
        values = values / np.where(rows > 0, rows, 1)
    ax = axes_or_new(ax)
    limit = 1.0 if normalize else max(float(values.max()), 1.0)
    image = ax.imshow(values, cmap="Blues", vmin=0, vmax=limit)
    places = range(len(values))
    ax.set_xticks(places, table.names, rotation=45, ha="right")
    ax.set_yticks(places, table.names)
    if len(values) <= MOST_NUMBERS:
        for i in places:
            for j in places:
                text = f"{values[i, j]:.2f}" if normalize else f"{matrix[i, j]}"
                color = "white" if values[i, j] > 0.6 * limit else "black"
                ax.text(j, i, text, ha="center", va="center", color=color, fontsize=8)
    ax.set(xlabel="predicted", ylabel="true", title=table.task)
    what = "share of the true class" if normalize else "labels"
    ax.figure.colorbar(image, ax=ax, label=what)
    return ax
