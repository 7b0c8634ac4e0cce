"""Learning curves, one colour per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kmtl._checks import unknown_name
from kmtl.typing import Callback

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kmtl.tasks.base import Task


def curves(
    history: Callback | Mapping[str, Sequence[float]],
    tasks: Sequence[Task] | None = None,
    ax: Axes | None = None,
    *,
    metric: str | None = None,
) -> Axes:
    """Draw a quantity of every task per epoch: dashed in training, solid in validation.

    Args:
        history: What `fit` returned, or its dict log name -> list of values.
        tasks: The tasks whose score (first metric) to draw. None draws the loss of
            every task in the history.
        ax: Axes to draw on. None makes a figure.
        metric: Name of another metric, or `"loss"`, to draw for `tasks`.

    Returns:
        The Axes.

    Raises:
        TypeError: for a history or tasks of another kind.
        ValueError: if the history lacks the quantity.

    Example:

    >>> from kmtl.plotting import curves
    >>> ax = curves({"size_loss": [3.0, 2.0], "val_size_loss": [4.0, 3.5]})
    >>> [line.get_label() for line in ax.get_lines()]
    ['size_loss', 'val_size_loss']
    """
    from kmtl.plotting._style import axes_or_new

    logs: Mapping[str, Sequence[float]] = getattr(history, "history", history)
    if not isinstance(logs, Mapping):
        raise TypeError(
            "`history` must be what `fit` returned, or a dict log name -> values. "
            f"Received: {type(history).__name__}"
        )
    for task in tasks or ():
        if not hasattr(task, "score"):
            raise TypeError(
                "`tasks` must be tasks, such as `model.tasks`. "
                f"Received: {task!r} among them"
            )
    if tasks is None:
        names = [
            name
            for name in logs
            if name.endswith("_loss")
            and not name.startswith("val_")
            and name not in ("regularization_loss", "deep_supervision_loss")
        ]
    else:
        names = [f"{task.name}_{metric or task.score.name}" for task in tasks]
    for name in names:
        if name not in logs:
            raise ValueError(unknown_name("quantity in the history", name, logs))
    if not names:
        raise ValueError(
            f"`history` must hold the loss of a task. Received: {sorted(logs)}"
        )
    ax = axes_or_new(ax)
    for i, name in enumerate(names):
        for key, style in ((name, "--"), (f"val_{name}", "-")):
            if key in logs:
                epochs = range(1, len(logs[key]) + 1)
                ax.plot(epochs, logs[key], style, color=f"C{i % 10}", label=key)
    suffixes = {metric or task.score.name for task in tasks or ()} or {"loss"}
    ax.set(xlabel="epoch", ylabel=suffixes.pop() if len(suffixes) == 1 else "score")
    ax.legend()
    return ax
