"""Vectors in which what belongs together is near."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.class_cosines import ClassCosines
from kmtl.layers.ends import UnitVectors
from kmtl.tasks.base import Task
from kmtl.tasks.heads import HeadContext, vector_head
from kmtl.typing import Inputs, Shape, Tensor

#: float32, in which data sets hold labels, tells whole numbers apart up to here.
MOST_LABEL = 2.0**24
#: Losses with a direction per class.
OF_CLASSES = ("arcface", "cosface")


@register("task", "embedding")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Embedding(Task):
    """Unit vectors that are near for rows of one class and apart for others, for search
    and for classes that come later; labels are whole numbers >= 0, `(N,)`: any number
    of classes, such as persons or products.

    Outputs unit vectors `(N, dimensions)`; compare them by their dot product. To learn
    without labels give the two views of an example the same number, as
    `kmtl.data.two_views` does: the `contrastive` loss then is InfoNCE. Missing: -1 (or
    NaN).

    Losses of the pairs within a batch, which should hold several rows of a class:
    `multi_similarity` (default; Wang et al. 2019, arXiv:1904.06627), `contrastive`
    (Khosla et al. 2020, arXiv:2004.11362), `triplet` (hardest of the batch: Hermans et
    al. 2017, arXiv:1703.07737). Losses with a direction per class, for `classes` that
    are known: `arcface` (Deng et al. 2019, arXiv:1801.07698), `cosface` (Wang et al.
    2018, arXiv:1801.09414).

    Metrics: `recall1` (default), `recall5`: whether one of the class is among the
    nearest 1 or 5 of all rows of an evaluation (while training, of the batch). See
    `kmtl.Task` for the other arguments.

    Args:
        dimensions: Length of the vectors, >= 2. Defaults to 64.
        classes: Number of classes in the training labels, for `arcface` and `cosface`,
            >= 2; labels are then below it.
        temperature: Of the cosines, > 0. Defaults to 0.1 for `contrastive`, to 1/64
            (one over the papers' scale) for `arcface` and `cosface`.
        margin: > 0. Defaults to 0.2 for `triplet`, 0.5 (radians) for `arcface`, 0.35
            for `cosface`.

    Example:

    >>> person = kmtl.Embedding("person", dimensions=8)
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=[person], units=(16,), seed=0)
    >>> model.compile("adam")
    >>> x = np.random.default_rng(0).normal(size=(6, 4))
    >>> logs = model.fit(x, {"person": [7, 7, 7, 3, 3, -1]}, verbose=0).history
    >>> vectors = np.array(model(x)["person"])
    >>> bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4))
    True
    """

    dimensions: int = 64
    classes: int | None = None
    temperature: float | None = None
    margin: float | None = None

    LOSSES: ClassVar = {
        "multi_similarity": losses.multi_similarity,
        "contrastive": losses.contrastive,
        "triplet": losses.triplet,
        "arcface": losses.arcface,
        "cosface": losses.cosface,
    }
    METRICS: ClassVar = {
        "recall1": (lambda task, name: metrics.RecallAtK(1, name=name), True),
        "recall5": (lambda task, name: metrics.RecallAtK(5, name=name), True),
    }
    DEFAULT_METRICS = ("recall1",)
    known = "neighbours"
    on_common_scale = False
    rows_together = True
    whole_labels = True
    has_mean = False  # each net has axes of its own

    def __post_init__(self) -> None:
        dimensions = _checks.check_int("dimensions", self.dimensions, 2)
        object.__setattr__(self, "dimensions", dimensions)
        for name in ("temperature", "margin"):
            value = getattr(self, name)
            if value is not None:
                value = _checks.check_range(name, value, 0, 1e6, low_open=True)
                object.__setattr__(self, name, value)
        if self.classes is not None:
            classes = _checks.check_int("classes", self.classes, 2)
            object.__setattr__(self, "classes", classes)
        super().__post_init__()
        if self.keeps_beside and self.classes is None:
            raise ValueError(
                f"Task '{self.name}' needs `classes`, the number of classes in the "
                f"training labels, for loss={self.loss!r}. Received: classes=None"
            )
        if self.labels is not None:
            raise ValueError(f"Embedding task '{self.name}' has no `labels`.")

    @property
    def label_count(self) -> int:
        return 1

    @property
    def label_range(self) -> tuple[float, float]:
        return 0.0, MOST_LABEL if self.classes is None else self.classes - 1.0

    @property
    def label_rule(self) -> str:
        missing = "" if self.missing is None else f", or {self.missing} where missing"
        return (
            f"Labels of task '{self.name}' must be whole numbers in [0, "
            f"{int(self.label_range[1])}]{missing}: number your classes with "
            "np.unique(names, return_inverse=True)[1]"
        )

    def _check_digits(self, array: np.ndarray) -> None:
        """Whole numbers have their digits."""

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        return self.marked(ops.cast(labels, "int32"), mask), mask

    def marked(self, labels: Tensor, there: Tensor) -> Tensor:
        return ops.where(there > 0, labels, -1)

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return ()

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [()]

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        if self.loss in OF_CLASSES:
            raise ValueError(
                f"Loss '{self.loss}' of task '{self.name}' needs the directions of the "
                "classes, which the head has that the builders make with this loss"
            )
        return self.LOSSES[self.loss](labels, outputs, **self._given())

    def _given(self) -> dict[str, float]:
        """Arguments of the loss that are not its own."""
        wanted = {"contrastive": ("temperature",), "triplet": ("margin",)}
        both = ("margin", "temperature") if self.loss in OF_CLASSES else ()
        names = wanted.get(self.loss, both)
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def keeps_beside(self) -> bool:  # type: ignore[override]
        used = self.loss if isinstance(self.loss, dict) else (self.loss,)
        return any(loss in OF_CLASSES for loss in used)

    def loss_values_beside(
        self, labels: Tensor, outputs: Tensor, mask: Tensor, beside: Tensor
    ) -> Tensor:
        if self.loss not in OF_CLASSES:
            return super().loss_values_beside(labels, outputs, mask, beside)
        return self.LOSSES[self.loss](labels, beside, **self._given())

    def output_shape(self, input_shape: Shape) -> tuple:
        return (self.dimensions,)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        vectors = vector_head(features, head, self, self.dimensions)
        vectors = head.make.layer(UnitVectors, "unit")(vectors)
        if not self.keeps_beside:
            return vectors
        initializer = keras.initializers.GlorotUniform(head.make.layer_seed("classes"))
        made = head.make.layer(
            ClassCosines,
            "classes",
            task=self.name,
            classes=self.classes,
            kernel_initializer=initializer,
        )
        return made(vectors)
