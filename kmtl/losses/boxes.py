"""Objects on a grid of cells: what a net should answer, how far it is off, and what it
says.

Boxes are x_min, y_min, x_max, y_max in widths and heights of the picture. Labels are
`(N, B, 5)`, boxes and class numbers, with class -1 in rows that hold no object; outputs
`(N, h, w, classes + 4)` are logits of every class and a box for every cell.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

from kmtl._largest import largest
from kmtl.typing import Tensor

#: Share of a box in which its cells learn it (Liu et al. 2019, arXiv:1909.00700).
INNER = 0.54
#: Exponents of the focal loss of heat maps (Law and Deng 2018, arXiv:1808.01244).
FOCUS, NEARNESS = 2.0, 4.0
#: Least area, so that empty boxes have an overlap of 0 and not of NaN.
_LEAST_AREA = 1e-12


def objects(labels: Tensor) -> Tensor:
    """Which rows of labels `(N, B, 5)` hold an object, `(N, B)`."""
    return labels[..., 4] >= 0


def picture_weights(labels: Tensor, mask: Tensor) -> Tensor:
    """Weight of each picture `(N,)`, from those of its numbers `(N, B, 5)`.

    The mean over its objects, and 0 where one of them has none: a picture of which
    something is not known does not count. Without an object the largest.
    """
    mask = ops.cast(mask, "float32")
    least, each = ops.min(mask, axis=-1), ops.mean(mask, axis=-1)
    there = objects(labels)
    count = ops.sum(ops.cast(there, "float32"), axis=-1)
    mean = ops.sum(ops.where(there, each, 0.0), axis=-1) / ops.maximum(count, 1.0)
    known = ops.all(ops.logical_or(ops.logical_not(there), least > 0), axis=-1)
    with_objects = ops.where(known, mean, 0.0)
    return ops.where(count > 0, with_objects, ops.max(each, axis=-1))


def _areas(boxes: Tensor) -> Tensor:
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def overlaps(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, and the generalized one (GIoU), of boxes `(..., 4)`.

    Rezatofighi et al. 2019, arXiv:1902.09630.
    """
    low = ops.maximum(one[..., :2], other[..., :2])
    high = ops.minimum(one[..., 2:], other[..., 2:])
    both = _areas(ops.concatenate([low, high], axis=-1))
    either = _areas(one) + _areas(other) - both
    iou = both / ops.maximum(either, _LEAST_AREA)
    hull = ops.concatenate(
        [
            ops.minimum(one[..., :2], other[..., :2]),
            ops.maximum(one[..., 2:], other[..., 2:]),
        ],
        axis=-1,
    )
    around = _areas(hull)
    return iou, iou - (around - either) / ops.maximum(around, _LEAST_AREA)


# -- what a net should answer ----------------------------------------------------------


def bells(labels: Tensor, height: int, width: int) -> Tensor:
    """A Gaussian bell for each object, 1 in the cell of its middle, `(N, B, h, w)`.

    It follows the box's sides, as in Liu et al. 2019; 0 where there is no object.
    """

    def along(low: Tensor, high: Tensor, cells: int) -> Tensor:
        place = ops.floor(0.5 * (low + high) * cells)
        place = ops.clip(place, 0.0, cells - 1.0)
        spread = (INNER * (high - low) * cells + 1.0) / 6.0
        steps = np.arange(cells, dtype="float32")
        away = (steps - place[..., None]) / ops.maximum(spread, 1e-3)[..., None]
        return ops.exp(-0.5 * ops.square(away))

    across = along(labels[..., 0], labels[..., 2], width)
    down = along(labels[..., 1], labels[..., 3], height)
    there = ops.cast(objects(labels), "float32")
    down = down * there[..., None]
    return down[..., :, None] * across[..., None, :]


def heat_maps(labels: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Of each class the highest of its objects' bells, `(N, h, w, classes)`.

    Args:
        labels: `(N, B, 5)`.
        shape: `(h, w, classes)`.
    """
    height, width, classes = shape
    rows = ops.shape(labels)[0]
    kinds = ops.cast(labels[..., 4], "int32")
    place = ops.arange(rows, dtype="int32")[:, None] * classes + kinds
    nowhere = rows * classes
    place = ops.where(objects(labels), place, nowhere)
    flat = ops.reshape(bells(labels, height, width), (-1, height * width))
    highest = ops.segment_max(flat, ops.reshape(place, (-1,)), nowhere + 1)
    # Of a class without an object there is no highest: the least number of all.
    maps = ops.reshape(ops.maximum(highest[:-1], 0.0), (-1, classes, height, width))
    return ops.transpose(maps, (0, 2, 3, 1))


def cell_boxes(labels: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The box that each cell learns `(N, h, w, 4)`, and how much, `(N, h, w)`.

    A cell learns the object whose bell is highest there, in proportion to its height;
    the cells of an object weigh 1 in all.
    """
    bell = bells(labels, height, width)
    best = ops.max(bell, axis=1)
    owner = ops.cast(
        _one_hot(ops.argmax(bell, axis=1), ops.shape(labels)[1]), "float32"
    )
    weight = owner * best[..., None]
    whole = ops.sum(weight, axis=(1, 2), keepdims=True)
    weight = ops.sum(weight / ops.maximum(whole, 1e-6), axis=-1)
    return ops.einsum("nhwb,nbk->nhwk", owner, labels[..., :4]), weight


# -- losses ----------------------------------------------------------------------------


def _per_object(sums: Tensor, labels: Tensor) -> Tensor:
    """A picture's sum, divided by its number of objects, for each number of it."""
    count = ops.sum(ops.cast(objects(labels), "float32"), axis=-1)
    each = sums / ops.maximum(count, 1.0)
    return ops.broadcast_to(each[:, None, None], ops.shape(labels))


def heat(labels: Tensor, outputs: Tensor) -> Tensor:
    """Focal loss of the heat maps, per object of the picture.

    Law and Deng 2018, arXiv:1808.01244, equation 1, as in CenterNet (Zhou et al. 2019,
    arXiv:1904.07850): a cell near an object costs little.

    Args:
        labels: `(N, B, 5)`.
        outputs: `(N, h, w, classes + 4)`.

    Returns:
        `(N, B, 5)`, the same for all numbers of a picture.
    """
    logits = ops.cast(outputs[..., :-4], "float32")
    height, width, classes = logits.shape[1:]
    truth = heat_maps(labels, (height, width, classes))
    share = ops.sigmoid(logits)
    there = -ops.power(1.0 - share, FOCUS) * ops.log_sigmoid(logits)
    nothing = -ops.power(share, FOCUS) * ops.log_sigmoid(-logits)
    nothing = ops.power(1.0 - truth, NEARNESS) * nothing
    cells = ops.where(truth >= 1.0, there, nothing)
    return _per_object(ops.sum(cells, axis=(1, 2, 3)), labels)


def giou(labels: Tensor, outputs: Tensor) -> Tensor:
    """1 - GIoU of the boxes in the cells around an object's middle, per object.

    Rezatofighi et al. 2019, arXiv:1902.09630, weighed as in Liu et al. 2019,
    arXiv:1909.00700. Arguments and value as of `heat`.
    """
    found = ops.cast(outputs[..., -4:], "float32")
    height, width = found.shape[1:3]
    boxes, weight = cell_boxes(labels, height, width)
    lost = (1.0 - overlaps(found, boxes)[1]) * weight
    return _per_object(ops.sum(lost, axis=(1, 2)), labels)


# -- what it says ----------------------------------------------------------------------


def peaks(outputs: Tensor, most: int, least: float) -> tuple[Tensor, ...]:
    """The objects that outputs speak of: cells whose logit is the highest of the 3 x 3
    around them, which is CenterNet's way of suppressing all but the best of a place.

    Args:
        outputs: `(N, h, w, classes + 4)`.
        most: How many at most, of a picture.
        least: Score below which there is none.

    Returns:
        Boxes `(N, D, 4)`, logits `(N, D)`, from the highest down, and classes `(N, D)`,
        -1 where there is no object any more; D is `most`, or the number of cells times
        classes where that is less.
    """
    outputs = ops.cast(outputs, "float32")
    logits, boxes = outputs[..., :-4], outputs[..., -4:]
    height, width, classes = logits.shape[1:]
    around = ops.max_pool(logits, 3, strides=1, padding="same")
    never = -1e9
    kept = ops.where(logits >= around, logits, never)
    kept = ops.reshape(kept, (-1, height * width * classes))
    best, place = largest(kept, min(most, height * width * classes))
    cell = ops.cast(place // classes, "int32")
    flat = ops.reshape(boxes, (-1, height * width, 4))
    found = ops.take_along_axis(flat, ops.repeat(cell[..., None], 4, axis=-1), axis=1)
    there = best >= _logit(least)
    kinds = ops.where(there, ops.cast(place % classes, "int32"), -1)
    found = ops.where(there[..., None], ops.clip(found, 0.0, 1.0), 0.0)
    return found, ops.where(there, best, never), kinds


def matched(iou: Tensor, thresholds: Any) -> Tensor:
    """Which found objects are right, `(N, T, D)`, bool.

    As COCO has it: from the highest score down, each takes the object that it covers
    best of those that none has taken before, if by at least the threshold. (Here all
    ask at once, and whoever has the higher score gets it, until nothing changes.)

    Args:
        iou: `(N, D, B)`, found objects from the highest score down; -1 for pairs that
            may not be.
        thresholds: `(T,)`.
    """
    count, labelled = iou.shape[1], ops.shape(iou)[2]
    iou = iou[:, None]
    bar = ops.reshape(ops.convert_to_tensor(thresholds, "float32"), (1, -1, 1, 1))
    possible = iou >= ops.minimum(bar, 1.0 - 1e-7)
    rank = ops.arange(count, dtype="int32")[:, None]

    def asked(open_: Tensor) -> Tensor:
        wish = ops.where(open_, iou, -1.0)
        # Of equals the last one, as COCO's own program takes it.
        last = ops.cast(ops.argmax(ops.flip(wish, axis=-1), axis=-1), "int32")
        choice = labelled - 1 - last
        return ops.logical_and(_one_hot(choice, labelled), open_)

    def refused(open_: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        asking = asked(open_)
        first = ops.min(ops.where(asking, rank, count), axis=2, keepdims=True)
        late = ops.logical_and(asking, rank > first)
        return ops.logical_and(open_, ops.logical_not(late)), ops.any(late)

    left, _ = ops.while_loop(
        lambda open_, more: more, refused, (possible, ops.any(possible))
    )
    return ops.any(asked(left), axis=-1)


def pairs(boxes: Tensor, kinds: Tensor, labels: Tensor) -> Tensor:
    """Overlaps of found and labelled objects of one class, `(N, D, B)`, -1 for others.

    Args:
        boxes, kinds: As `peaks` gives them.
        labels: `(N, B, 5)`.
    """
    iou = overlaps(boxes[:, :, None], labels[:, None, :, :4])[0]
    same = kinds[:, :, None] == ops.cast(labels[:, None, :, 4], "int32")
    same = ops.logical_and(same, kinds[:, :, None] >= 0)
    return ops.where(same, iou, -1.0)


def _one_hot(places: Tensor, size: Any) -> Tensor:
    """Bool; the size may be unknown while TensorFlow traces."""
    return ops.cast(places, "int32")[..., None] == ops.arange(size, dtype="int32")


def _logit(share: float) -> float:
    return math.log(share) - math.log1p(-share)
