"""What objects are in a photo, and where."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from kmtl import _arrays, _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.ends import CellBoxes
from kmtl.losses import boxes as grid
from kmtl.metrics.detections import COCO
from kmtl.tasks import label_rules
from kmtl.tasks.base import Task
from kmtl.tasks.class_names import count_of
from kmtl.tasks.decoders import DECODERS
from kmtl.tasks.heads import HeadContext, map_head, map_size
from kmtl.typing import Inputs, Shape, Tensor

#: Sides of the grid by default: a quarter of the photo's, at least this.
_LEAST_SIDE = 16
#: x_min, y_min, x_max, y_max, class.
_COLUMNS = 5
#: No object.
_NOTHING = (0.0, 0.0, 0.0, 0.0, -1.0)


def _average_precision(overlaps: tuple[float, ...]) -> Any:
    def make(task: Any, name: str) -> keras.metrics.Metric:
        return metrics.AveragePrecision(
            task.label_count, overlaps, task.max_detections, task.min_score, name=name
        )

    return make


@register("task", "detection")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Detection(Task):
    """Objects in a photo: a box and a class each, any number of them, none too.

    Labels are `(N, max_boxes, 5)`: x_min, y_min, x_max, y_max, x from the left in
    widths and y from the top in heights of the photo, each in [0, 1], and the class in
    [0, classes). Rows of class -1 hold no object. Lists of as many rows as there are
    objects are padded; `kmtl.data.boxes` makes labels of pixels, of COCO's and Pascal
    VOC's annotations. Missing: NaN in all numbers of a photo (or None in a list), which
    is something else than a photo without an object.

    The net is CenterNet (Zhou et al. 2019, arXiv:1904.07850), without anchors: outputs
    `(N, h, w, classes + 4)` are the logits of every class and a box (as in labels) for
    each cell of a grid. An object is a cell whose score is the highest of the nine
    around: no other suppression (NMS) is needed. `decode` gives boxes, scores and
    classes; so does a SavedModel, as `<name>_boxes` `(N, max_detections, 4)`,
    `<name>_scores`, `<name>_classes` (-1 behind the last object) and `<name>_count`.

    Losses, both by default: `heat` (focal, of the classes) and `giou` (of the boxes;
    Liu et al. 2019, arXiv:1909.00700); other weights: `loss={"heat": 1, "giou": 2}`.
    They are per object. Augmentation takes boxes along (`kmtl.data.augment`), and
    `kmtl.plotting.boxes` draws them. Metrics: `map` (default; COCO's mean average
    precision over overlaps of 0.5 to 0.95), `map50` (overlap 0.5), which tell scores
    apart in steps; the exact ones, with those of every class:
    `kmtl.evaluate(..., per_class=True)`. See `kmtl.Task` for the other arguments;
    `hidden` are filters per stage.

    Args:
        classes: Number of classes, >= 1. Defaults to the number of `labels`.
        labels: The classes' names.
        size: `(height, width)` of the grid. Defaults to a quarter of the input's, at
            least 16: of several objects of a class in one cell one is found.
        decoder: As for `kmtl.Segmentation`.
        max_boxes: Objects to which label lists are padded. Defaults to the longest.
        max_detections: Objects that are found at most, >= 1. Defaults to 100.
        min_score: Score in (0, 1) from which on they count. Defaults to 0.05.

    Example:

    >>> cars = kmtl.Detection("cars", labels=("car", "bus"))
    >>> model = kmtl.build_cnn(
    ...     input_shape=(32, 32, 1), tasks=[cars], filters=(8,), seed=0
    ... )
    >>> model.compile("adam")
    >>> y = [[(0.1, 0.2, 0.5, 0.4, "car")], [], None]  # the last one: not labelled
    >>> logs = model.fit(np.ones((3, 32, 32, 1)), {"cars": y}, verbose=0).history
    >>> sorted(logs)
    ['cars_giou_loss', 'cars_heat_loss', 'cars_loss', 'cars_map', 'cars_map50', 'loss']
    >>> found = cars.decode(model.predict(np.ones((1, 32, 32, 1)), verbose=0)["cars"])
    >>> found[0]["boxes"].shape, len(found[0]["scores"]) == len(found[0]["classes"])
    ((100, 4), True)
    """

    classes: int | None = None  # type: ignore[assignment]
    size: tuple[int, int] | None = None
    decoder: str = "conv"
    max_boxes: int | None = None
    max_detections: int = 100
    min_score: float = 0.05
    missing: float | None = math.nan

    LOSSES: ClassVar = {"heat": losses.heat, "giou": losses.giou}
    METRICS: ClassVar = {
        "map": (_average_precision(COCO), True),
        "map50": (_average_precision((0.5,)), True),
    }
    DEFAULT_METRICS = ("map", "map50")
    known = "objects"
    places_in_image = boxes_in_image = True
    decoded_parts = ("boxes", "scores", "classes", "count")

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("classes", count_of(self, "classes"))
        for name in ("max_boxes", "max_detections"):
            value = getattr(self, name)
            if value is not None or name == "max_detections":
                put(name, _checks.check_int(name, value, 1))
        score = {"low_open": True, "high_open": True}
        put(
            "min_score", _checks.check_range("min_score", self.min_score, 0, 1, **score)
        )
        _checks.check_choice("decoder", self.decoder, DECODERS)
        if self.size is not None:
            put("size", _checks.check_size(self.size))
        if self.loss is None:
            put("loss", {"heat": 1.0, "giou": 2.0})
        super().__post_init__()
        if self.missing is not None and not math.isnan(self.missing):
            raise ValueError(
                f"`missing` of task '{self.name}' must be NaN: -1 as a class says that "
                f"there is no object. Received: missing={self.missing!r}"
            )

    def _check_loss(self, loss: Any) -> Any:
        if not isinstance(loss, str):
            raise ValueError(
                f"`loss` of task '{self.name}' must be of {list(self.LOSSES)}, such as "
                f"{{'heat': 1, 'giou': 2}}. Received: loss={loss!r}"
            )
        return super()._check_loss(loss)

    # -- labels ----------------------------------------------------------------------

    @property
    def label_count(self) -> int:
        return int(self.classes or 0)

    @property
    def label_range(self) -> tuple[float, float]:
        return -1.0, max(1.0, self.label_count - 1.0)

    @property
    def label_rule(self) -> str:
        return (
            f"Labels of task '{self.name}' must be rows x_min, y_min, x_max, y_max in "
            "widths and heights of the photo, in [0, 1], with x_min < x_max and y_min "
            f"< y_max, and a class in [0, {self.label_count - 1}] (-1: no object): "
            "kmtl.data.boxes makes them of pixels"
        )

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return (ops.shape(labels)[1], _COLUMNS)  # may be unknown in a tf.data graph

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [(self.max_boxes, _COLUMNS)]

    def label_array(self, labels: Tensor) -> np.ndarray:
        """Labels `(N, max_boxes, 5)`, of arrays, or of a list of rows per photo."""
        if not isinstance(labels, (list, tuple)) and getattr(labels, "ndim", 3) != 1:
            return super().label_array(labels)
        rows = [None if _is_missing(row) else self._objects(row) for row in labels]
        longest = max((len(row) for row in rows if row is not None), default=0)
        most = self.max_boxes or max(1, longest)
        if longest > most:
            raise ValueError(
                f"Labels of task '{self.name}' must have at most {most} objects in a "
                f"photo, its `max_boxes`. Received: {longest}"
            )
        array = np.full((len(rows), most, _COLUMNS), np.nan, "float32")
        for place, row in zip(array, rows, strict=True):
            if row is not None:
                place[:] = _NOTHING
                place[: len(row)] = row
        return array

    def _objects(self, row: Any) -> np.ndarray:
        """Rows of one photo, with the numbers of classes that are given by name."""
        if isinstance(row, dict):
            raise ValueError(
                f"{self.label_rule}. Received: a dict of {', '.join(map(str, row))}"
            )
        given = [tuple(one) for one in row]
        for one in given:
            if len(one) != _COLUMNS:
                raise ValueError(f"{self.label_rule}. Received: {one!r}")
            if isinstance(one[4], str) and one[4] not in (self.labels or ()):
                raise ValueError(
                    _checks.unknown_name(
                        f"class of task '{self.name}':", one[4], self.labels or ()
                    )
                )
        numbers = [
            (*one[:4], self.labels.index(one[4]))
            if isinstance(one[4], str) and self.labels
            else one
            for one in given
        ]
        return np.asarray(numbers, "float64").reshape(-1, _COLUMNS)

    def are_present(self, labels: np.ndarray) -> np.ndarray:
        gone = np.isnan(labels.astype("float64"))
        # Photo by photo; those who look at labels may have them flat.
        return np.broadcast_to(
            ~gone.reshape(len(gone), -1)
            .any(axis=1)
            .reshape(-1, *[1] * (labels.ndim - 1)),
            labels.shape,
        )

    def check_labels(self, labels: Tensor, input_shape: Shape = None) -> None:
        super().check_labels(labels, input_shape)
        array = _arrays.as_array(labels, f"Labels of task '{self.name}'", holes=True)
        array = array.astype("float64")
        half = label_rules.half_missing(np, array, (1, 2))
        if half.any():
            raise ValueError(
                f"Labels of task '{self.name}' must be NaN in all numbers of a photo "
                "without labels, and in none of others (class -1: no object). "
                f"Received: some in row {int(np.flatnonzero(half)[0])}"
            )
        wrong = label_rules.no_boxes(np, array, self.label_count)
        if wrong.any():
            raise ValueError(f"{self.label_rule}. Received: {array[wrong][0].tolist()}")

    broken_label = "another row, or NaN in a part of a photo's numbers"

    def breaks_rule(
        self, labels: Tensor, output_shape: Shape, there: Tensor | None = None
    ) -> Tensor:
        labels = self.with_holes(labels, there)
        half = label_rules.half_missing(ops, labels, (1, 2))
        wrong = label_rules.no_boxes(ops, labels, self.label_count)
        return ops.logical_or(ops.any(half), ops.any(wrong))

    def check_values(self, values: np.ndarray) -> None:
        """`check_labels` looks at rows."""

    def _check_digits(self, array: np.ndarray) -> None:
        """Shares of a photo have their digits."""

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels = ops.cast(ops.convert_to_tensor(labels), "float32")
        labels = ops.reshape(labels, (-1, *self.label_shape(labels)))
        gone = ops.any(ops.isnan(labels), axis=(1, 2), keepdims=True)
        nothing = ops.convert_to_tensor(_NOTHING, "float32")
        mask = ops.where(gone, ops.zeros_like(labels), ops.ones_like(labels))
        return ops.where(gone, nothing, labels), mask

    def label_weights(self, labels: Tensor, mask: Tensor) -> Tensor:
        """As much for a photo as it has objects, and 1 without any."""
        counts = ops.cast(grid.picture_weights(labels, mask) > 0, "float32")
        found = ops.sum(ops.cast(grid.objects(labels), "float32"), axis=-1)
        counts = counts * ops.maximum(found, 1.0)
        there = ops.cast(mask > 0, "float32")
        share = counts / ops.maximum(ops.sum(there, axis=(1, 2)), 1.0)
        return there * share[:, None, None]

    def constant_answers(self, labels: np.ndarray) -> list[np.ndarray]:
        return [np.array([*[-20.0] * self.label_count, 0.0, 0.0, 0.0, 0.0])]

    # -- outputs ---------------------------------------------------------------------

    def output_shape(self, input_shape: Shape) -> tuple:
        return (None, None, self.label_count + 4)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        size = self.size
        if size is None:
            whole = map_size(self, head)
            height, width = (min(n, max(_LEAST_SIDE, -(-n // 4))) for n in whole)
            size = (height, width)
        raw = map_head(features, head, self, self.label_count + 4, size)
        return head.make.layer(CellBoxes, "boxes")(raw)

    def decoded(self, outputs: Tensor) -> dict[str, Tensor]:
        boxes, logits, kinds = grid.peaks(outputs, self.max_detections, self.min_score)
        there = kinds >= 0
        scores = ops.where(there, ops.sigmoid(logits), 0.0)
        count = ops.sum(ops.cast(there, "int32"), axis=-1)
        return {"boxes": boxes, "scores": scores, "classes": kinds, "count": count}

    def decode(self, outputs: Tensor) -> list[dict[str, Any]]:
        """The objects of every photo, from the highest score down.

        Args:
            outputs: `(N, h, w, classes + 4)`, as `predict` gives them.

        Returns:
            For each photo a dict of `boxes` `(n, 4)`, in widths and heights of the
            photo, `scores` `(n,)` and `classes`, names where the task has `labels`.
        """
        found = self.decoded(ops.convert_to_tensor(outputs))
        parts = {name: ops.convert_to_numpy(part) for name, part in found.items()}
        photos = []
        for row, count in enumerate(parts["count"].tolist()):
            kinds: Any = parts["classes"][row, :count]
            if self.labels is not None:
                kinds = [self.labels[kind] for kind in kinds]
            photos.append(
                {
                    "boxes": parts["boxes"][row, :count],
                    "scores": parts["scores"][row, :count],
                    "classes": kinds,
                }
            )
        return photos


def _is_missing(row: Any) -> bool:
    """None, or NaN, which pandas makes of it, or rows of nothing but NaN."""
    if row is None or isinstance(row, float):
        return row is None or math.isnan(row)
    numbers = [part for one in row for part in one]
    return bool(numbers) and all(
        isinstance(part, float | np.floating) and np.isnan(part) for part in numbers
    )
