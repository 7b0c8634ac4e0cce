"""The learned relations between tasks as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kmtl.typing import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: From so many tasks on the entries are not written into their cells.
MOST_NUMBERS = 12


def relations(model: Model, kind: str = "correlation", ax: Axes | None = None) -> Axes:
    """Draw the relation matrix of a model compiled with `relations`.

    Args:
        model: A `kmtl.MultiTaskModel`, or a `kmtl.relations` object of one.
        kind: `"correlation"` or `"covariance"`, as for `model.relations.matrix`.
        ax: Axes to draw on. None makes a figure.

    Returns:
        The Axes.

    Raises:
        TypeError: for something that is neither.
        ValueError: for a model without relations.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(4,), seed=0)
    >>> model.compile("adam", relations="mtrl")
    >>> ax = kmtl.plotting.relations(model)
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['a', 'b']
    """
    import numpy as np

    from kmtl.plotting._style import axes_or_new

    learned = getattr(model, "relations", model)
    if learned is None:
        raise ValueError(
            "`model` must have been compiled with `relations`. "
            "Received: a model whose relations are None"
        )
    if not hasattr(learned, "matrix"):
        raise TypeError(
            "`model` must be a kmtl.MultiTaskModel or a kmtl.relations object. "
            f"Received: {type(model).__name__}"
        )
    matrix = learned.matrix(kind)
    ax = axes_or_new(ax)
    values = matrix.to_numpy()
    limit = 1.0 if kind == "correlation" else float(np.abs(values).max()) or 1.0
    image = ax.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
    places = range(len(matrix))
    ax.set_xticks(places, matrix.columns, rotation=45, ha="right")
    ax.set_yticks(places, matrix.index)
    if len(matrix) <= MOST_NUMBERS:
        for i in places:
            for j in places:
                dark = abs(values[i, j]) > 0.6 * limit
                ax.text(
                    j,
                    i,
                    f"{values[i, j]:.2f}",
                    ha="center",
                    va="center",
                    color="white" if dark else "black",
                    fontsize=8,
                )
    ax.figure.colorbar(image, ax=ax, label=f"task {kind}")
    return ax
