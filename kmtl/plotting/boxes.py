"""A photo with boxes around its objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kmtl.tasks.detection import Detection

LABELLED, FOUND = "tab:green", "tab:orange"


def boxes(
    task: Detection,
    photo: Any,
    labels: Any = None,
    found: Mapping[str, Any] | None = None,
    *,
    min_score: float = 0.3,
    ax: Axes | None = None,
) -> Axes:
    """Draw the labelled objects of a photo (dashed), and those that a model finds.

    Args:
        task: The `kmtl.Detection`, which knows the names of the classes.
        photo: `(height, width, channels)`: uint8, or floats in [0, 1].
        labels: Rows x_min, y_min, x_max, y_max, class of the photo, as in the task's
            labels. None for a photo without.
        found: The photo's entry of `task.decode(outputs)`.
        min_score: Score in [0, 1] from which on found objects are drawn. Defaults to
            0.3.
        ax: Axes to draw on. None makes a figure.

    Returns:
        The Axes.

    Raises:
        TypeError: for another task, or `found` of another form.
        ValueError: for a photo of another shape.

    Example:

    >>> cars = kmtl.Detection("cars", labels=("car", "bus"))
    >>> model = kmtl.build_cnn(
    ...     input_shape=(32, 32, 1), tasks=[cars], filters=(8,), seed=0
    ... )
    >>> photos = np.random.default_rng(0).random((2, 32, 32, 1))
    >>> found = cars.decode(model.predict(photos, verbose=0)["cars"])
    >>> ax = kmtl.plotting.boxes(
    ...     cars, photos[0], labels=[(0.1, 0.2, 0.5, 0.4, "car")], found=found[0]
    ... )
    >>> ax.texts[0].get_text()
    'car'
    """
    import matplotlib.pyplot as plt
    import numpy as np

    from kmtl import _checks
    from kmtl.tasks.detection import Detection

    if not isinstance(task, Detection):
        raise TypeError(
            f"`task` must be a kmtl.Detection. Received: {type(task).__name__}"
        )
    min_score = _checks.check_range("min_score", min_score, 0, 1)
    picture = np.asarray(photo)
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim != 3 or picture.shape[-1] not in (1, 3, 4):
        raise ValueError(
            "`photo` must be one of shape (height, width, channels), of 1, 3 or 4 "
            f"channels. Received: shape={np.shape(photo)}"
        )
    parts = ("boxes", "scores", "classes")
    if found is not None and not (
        isinstance(found, Mapping) and all(part in found for part in parts)
    ):
        raise TypeError(
            f"`found` must be one entry of `task.decode(outputs)`, with "
            f"{', '.join(parts)}. Received: {type(found).__name__}"
        )
    if ax is None:
        ax = plt.subplots()[1]
    height, width = picture.shape[:2]
    if picture.dtype.kind == "f":
        picture = picture.clip(0, 1)
    grey = picture.shape[-1] == 1
    ax.imshow(
        picture[..., 0] if grey else picture,
        cmap="gray" if grey else None,
        extent=(0, width, height, 0),
    )

    def draw(box: Any, text: str, colour: str, style: str) -> None:
        left, top, right, bottom = np.asarray(box, "float64") * (2 * [width, height])
        ax.add_patch(
            plt.Rectangle(
                (left, top),
                right - left,
                bottom - top,
                fill=False,
                edgecolor=colour,
                linestyle=style,
                linewidth=1.5,
            )
        )
        label = {"facecolor": colour, "pad": 1, "linewidth": 0}
        ax.text(left, top, text, fontsize=8, color="white", va="bottom", bbox=label)

    def named(kind: Any) -> str:
        numbered = task.labels is not None and not isinstance(kind, str)
        return str(task.labels[int(kind)] if numbered and task.labels else kind)

    if labels is not None:
        for *box, kind in task.label_array([labels])[0]:
            if kind >= 0:  # NaN is no object either
                draw(box, named(kind), LABELLED, "--")
    if found is not None:
        rows = zip(*(found[part] for part in parts), strict=True)
        for box, score, kind in rows:
            if score >= min_score:
                draw(box, f"{named(kind)} {score:.2f}", FOUND, "-")
    ax.set(title=task.name, xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    return ax
