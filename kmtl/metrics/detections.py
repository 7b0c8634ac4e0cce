"""How well objects are found in pictures."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kmtl.losses import boxes as grid
from kmtl.metrics.undefined import nan_where, where_known
from kmtl.typing import Config, DType, Tensor

#: Overlaps from which an object counts as found, of COCO's main metric.
COCO = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
#: Precision is read at so many recalls, 0, 0.01, ..., 1.
RECALLS = 101
#: Logits are told apart up to here, a probability of 1 - 6e-6.
_HIGHEST = 12.0
#: Steps that are added up at once.
_BLOCK = 32


@keras.saving.register_keras_serializable(package="kmtl")
class AveragePrecision(keras.metrics.Metric):
    """Mean average precision, as COCO has it: over the classes that have objects, and
    over overlaps from which an object counts as found.

    Its state is a histogram of the scores of found objects, and of the right ones among
    them at each overlap, for each class: so scores are told apart in steps, of
    (12 - logit(least)) / bins in the logit, and objects of one step are taken to be in
    any order. The exact number, for which all of them have to be kept, is that of
    `kmtl.evaluate(..., per_class=True)`. NaN without any labelled object.

    Args:
        classes: Number of classes.
        overlaps: Intersections over union in (0, 1]. Defaults to COCO's 0.5, 0.55, ...,
            0.95.
        most: Objects that count in a picture, those of the highest scores.
        least: Score in (0, 1) from which on they count.
        bins: Steps, a multiple of 32. Defaults to 2048, which errs by about 1e-3, and
            by several of it over a few dozen objects.
    """

    #: The result does not depend on how the rows are batched.
    any_batches = True

    def __init__(
        self,
        classes: int,
        overlaps: Sequence[float] = COCO,
        most: int = 100,
        least: float = 0.05,
        bins: int = 2048,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.classes = classes
        self.overlaps = tuple(overlaps)
        self.most, self.least, self.bins = most, least, bins
        #: All found objects, and the right ones at each overlap.
        self.found = self.add_variable(
            (classes * bins, 1 + len(self.overlaps)),
            "zeros",
            dtype=self.dtype,
            name="found",
        )
        self.labelled = self.add_variable(
            (classes,), "zeros", dtype=self.dtype, name="labelled"
        )
        self.count = self.add_variable((), "zeros", dtype=self.dtype, name="count")

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Labels `(N, B, 5)`, outputs `(N, h, w, classes + 4)`, weights as labels: a
        picture has that of `kmtl.losses.boxes.picture_weights`."""
        labels = ops.cast(labels, "float32")
        outputs = ops.cast(outputs, "float32")
        mask = ops.ones_like(labels) if sample_weight is None else sample_weight
        mask = ops.broadcast_to(ops.cast(mask, "float32"), ops.shape(labels))
        weight = grid.picture_weights(labels, mask)
        broken = ops.any(ops.isnan(outputs), axis=(1, 2, 3))
        broken = ops.any(ops.logical_and(broken, weight > 0))
        self.count.assign_add(nan_where(broken, ops.sum(weight)))
        there = ops.cast(grid.objects(labels), "float32") * weight[:, None]
        kinds = ops.cast(ops.maximum(labels[..., 4], 0.0), "int32")
        self.labelled.assign_add(self._summed(there, kinds, self.classes))

        boxes, logits, kinds = grid.peaks(outputs, self.most, self.least)
        right = grid.matched(grid.pairs(boxes, kinds, labels), self.overlaps)
        right = ops.transpose(ops.cast(right, self.dtype), (0, 2, 1))
        every = ops.concatenate([ops.ones_like(right[..., :1]), right], axis=-1)
        counts = ops.cast(kinds >= 0, self.dtype) * weight[:, None]
        low = float(np.log(self.least) - np.log1p(-self.least))
        step = (logits - low) / (_HIGHEST - low) * self.bins
        step = ops.cast(ops.clip(step, 0, self.bins - 1), "int32")
        place = ops.maximum(kinds, 0) * self.bins + step
        every = every * counts[..., None]
        self.found.assign_add(self._summed(every, place, self.classes * self.bins))

    def _summed(self, values: Tensor, places: Tensor, size: int) -> Tensor:
        """Sums of what is in the same place: of `(N, B, ...)` to `(size, ...)`."""
        flat = ops.reshape(values, (-1, *values.shape[2:]))
        places = ops.reshape(places, (-1,))
        return ops.cast(ops.segment_sum(flat, places, num_segments=size), self.dtype)

    def result(self) -> Tensor:
        """The mean over classes and overlaps."""
        steps = ops.reshape(self.found, (self.classes, self.bins, self.found.shape[-1]))
        # From each step on: all that have at least its score.
        above = ops.flip(_running(ops.flip(steps, axis=1), False), axis=1)
        every, right = above[..., :1], above[..., 1:]
        labelled = ops.convert_to_tensor(self.labelled)
        # Of the wrong ones in a step with r right ones, in any order, a share of
        # 1 / (r + 1) comes after the last of these, where a recall is reached.
        after = (steps[..., :1] - steps[..., 1:]) / (steps[..., 1:] + 1.0)
        precision = ops.divide_no_nan(right, every - after)
        # That of a recall is the best there is at this recall or more.
        precision = _running(precision, True)
        recall = right / ops.maximum(labelled, 1e-9)[:, None, None]
        reached = ops.floor(recall * (RECALLS - 1) + 1e-3) + 1.0
        reached = reached - ops.pad(reached, ((0, 0), (0, 1), (0, 0)))[:, 1:]
        area = ops.mean(ops.sum(precision * reached, axis=1), axis=-1) / RECALLS
        known = ops.cast(labelled > 0, self.dtype)
        classes = ops.sum(known)
        value = ops.divide_no_nan(ops.sum(area * known), classes)
        return where_known(self.count * classes, value)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "classes": self.classes,
            "overlaps": list(self.overlaps),
            "most": self.most,
            "least": self.least,
            "bins": self.bins,
        }


def _running(values: Tensor, largest: bool) -> Tensor:
    """Running sums, or maxima, along axis 1 of numbers >= 0, `(C, bins, K)`.

    In blocks, each and then from block to block: compilers take minutes for a scan of
    so many steps, and this is in every training step.
    """

    def along(parts: Tensor) -> Tensor:
        """Along the last axis but one."""
        size = parts.shape[-2]
        before = np.tri(size, dtype="float32")
        if not largest:
            return ops.matmul(before, parts)
        pairs = ops.expand_dims(parts, -3) * before[..., None]
        return ops.max(pairs, axis=-2)

    classes, bins, columns = values.shape
    blocks = ops.reshape(values, (classes, bins // _BLOCK, _BLOCK, columns))
    inner = along(blocks)
    until = along(inner[:, :, -1])
    before = ops.pad(until[:, :-1], ((0, 0), (1, 0), (0, 0)))[:, :, None]
    both = ops.maximum(inner, before) if largest else inner + before
    return ops.reshape(both, (classes, bins, columns))
