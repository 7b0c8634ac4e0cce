"""The figures that functions make where no Axes are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Dots per inch of a saved figure, where nobody says.
SAVED_DPI = 300


class SharpFigure(Figure):
    """A figure that is saved fit for print; on the screen it is as any other."""

    def savefig(self, fname: Any, **options: Any) -> None:
        super().savefig(fname, **{"dpi": SAVED_DPI, **options})


def new_axes(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 4.8), **how: Any
) -> Any:
    """Array of the Axes of a new figure, which has room for all its texts.

    Args:
        rows, columns: Of the array.
        size: Width and height in inches.
        **how: Further arguments of `pyplot.subplots`.
    """
    import matplotlib.pyplot as plt

    return plt.subplots(
        rows,
        columns,
        squeeze=False,
        figsize=size,
        layout="constrained",
        FigureClass=SharpFigure,
        **how,
    )[1]


def axes_or_new(ax: Axes | None, width: float = 6.4) -> Axes:
    """The Axes given, or those of a new figure."""
    return new_axes(size=(width, 4.8))[0, 0] if ax is None else ax
