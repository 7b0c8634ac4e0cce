"""Where things are in a photo."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
from keras import ops

from kmtl import _arrays, _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.ends import ExpectedPlace
from kmtl.tasks import label_rules
from kmtl.tasks.base import Task
from kmtl.tasks.class_names import count_of
from kmtl.tasks.decoders import DECODERS
from kmtl.tasks.heads import HeadContext, map_head, map_size
from kmtl.typing import Inputs, Shape, Tensor

#: Sides of heat maps by default: a quarter of the photo's, at least this.
_LEAST_SIDE = 16


@register("task", "keypoints")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Keypoints(Task):
    """Places in a photo, such as joints or corners; labels `(N, points, 2)`: x from the
    left in widths and y from the top in heights of the photo, each in [0, 1].

    Of pixels: x / width, y / height. The head makes a heat map for each point; outputs
    `(N, points, 2)` are its expected place (Sun et al. 2018, arXiv:1711.08229; Nibali
    et al. 2018, arXiv:1801.07372), so exports give places too. Missing: NaN in both
    numbers, per point, such as points not to be seen. Losses: `mae` (default), `mse`.
    Metrics: `pck` (default; share within `within` of the label), `oks` (COCO's object
    keypoint similarity), `mae`. See `kmtl.Task` for the other arguments; `hidden` are
    filters per stage.

    Args:
        points: Number of points, >= 1. Defaults to the number of `labels`.
        labels: The points' names.
        within: For `pck`: share of the size, in (0, 1). Defaults to 0.05.
        reference: For `pck` and `oks`: two points, by number, whose distance is the
            size, such as head and neck. Defaults to None: the size of the photo.
        sigmas: For `oks`: how far off people place a point, in sizes: one number, or
            one for each point, such as COCO's, > 0. Defaults to 0.05.
        size: `(height, width)` of the heat maps. Defaults to a quarter of the
            input's, at least 16.
        decoder: As for `kmtl.Segmentation`.

    Example:

    >>> eyes = kmtl.Keypoints("eyes", labels=("left", "right"))
    >>> model = kmtl.build_cnn(
    ...     input_shape=(32, 32, 1), tasks=[eyes], filters=(8,), seed=0
    ... )
    >>> np.array(model(np.zeros((1, 32, 32, 1)))["eyes"]).round(2).tolist()
    [[[0.5, 0.5], [0.5, 0.5]]]
    """

    points: int | None = None  # type: ignore[assignment]
    within: float = 0.05
    reference: tuple[int, int] | None = None
    sigmas: float | tuple[float, ...] = 0.05
    size: tuple[int, int] | None = None
    decoder: str = "conv"
    missing: float | None = math.nan

    LOSSES: ClassVar = {"mae": losses.mae, "mse": losses.mse}
    METRICS: ClassVar = {
        "pck": (
            lambda task, name: metrics.PCK(task.within, task.reference, name=name),
            True,
        ),
        "oks": (
            lambda task, name: metrics.OKS(task.sigmas, task.reference, name=name),
            True,
        ),
        "mae": (lambda task, name: metrics.AbsoluteError(name=name), False),
    }
    DEFAULT_METRICS = ("pck",)
    places_in_image = True

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("points", count_of(self, "points"))
        within = {"low_open": True, "high_open": True}
        put("within", _checks.check_range("within", self.within, 0, 1, **within))
        put("sigmas", self._checked_sigmas())
        _checks.check_choice("decoder", self.decoder, DECODERS)
        if self.size is not None:
            put("size", _checks.check_size(self.size))
        if self.reference is not None:
            pair = _checks.check_ints("reference", self.reference, 0)
            if len(pair) != 2 or pair[0] == pair[1] or max(pair) >= self.label_count:
                raise ValueError(
                    f"`reference` of task '{self.name}' must be two of the points, in "
                    f"[0, {self.label_count - 1}]. Received: {self.reference!r}"
                )
            put("reference", pair)
        super().__post_init__()

    def _checked_sigmas(self) -> float | tuple[float, ...]:
        def checked(value: Any) -> float:
            return _checks.check_range("sigmas", value, 0, 1, low_open=True)

        given: Any = self.sigmas
        if not np.ndim(given):
            return checked(given)
        if len(given) != self.label_count:
            raise ValueError(
                f"`sigmas` of task '{self.name}' must be one number, or one for each "
                f"of its {self.label_count} points. Received: {len(given)}"
            )
        return tuple(map(checked, given))

    @property
    def label_count(self) -> int:
        return int(self.points or 0)

    @property
    def value_columns(self) -> int:
        return 2

    @property
    def label_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    @property
    def label_rule(self) -> str:
        return (
            f"Labels of task '{self.name}' must be in [0, 1], x in widths and y in "
            "heights of the photo (NaN marks a missing point): divide pixels by them"
        )

    def check_labels(self, labels: Tensor, input_shape: Shape = None) -> None:
        super().check_labels(labels, input_shape)
        array = _arrays.as_array(labels, f"Labels of task '{self.name}'", holes=True)
        half = label_rules.half_missing(np, array.astype("float64"))
        if half.any():
            row, point = (int(place) for place in np.argwhere(half)[0])
            raise ValueError(
                f"Labels of task '{self.name}' must have both numbers of a point, or "
                f"NaN in both. Received: {array[row, point].tolist()} for point "
                f"{point} in row {row}"
            )

    broken_label = "a point with one number"

    def breaks_rule(
        self, labels: Tensor, output_shape: Shape, there: Tensor | None = None
    ) -> Tensor:
        floats = ops.cast(ops.convert_to_tensor(labels), "float32")
        if there is not None:
            floats = ops.where(there, floats, np.nan)
        return ops.any(label_rules.half_missing(ops, floats))

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return (self.label_count, 2)

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [(self.label_count, 2)]

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        return ops.cast(labels, "float32"), mask

    def label_weights(self, labels: Tensor, mask: Tensor) -> Tensor:
        return mask * ops.min(mask, axis=-1, keepdims=True)

    def constant_answers(self, labels: np.ndarray) -> list[np.ndarray]:
        return [np.nanmean(labels, axis=0), np.nanmedian(labels, axis=0)]

    def output_shape(self, input_shape: Shape) -> tuple:
        return (self.label_count, 2)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        size = self.size
        if size is None:
            whole = map_size(self, head)
            height, width = (min(n, max(_LEAST_SIDE, -(-n // 4))) for n in whole)
            size = (height, width)
        heat = map_head(features, head, self, self.label_count, size)
        return head.make.layer(ExpectedPlace, "places")(heat)
