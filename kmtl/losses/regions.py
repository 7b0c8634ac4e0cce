"""Losses of whole maps: how well two regions overlap, and where their borders are.

Each gives one number per picture and not per pixel. They take the mask, since pixels
without a label would else count as part of a region. All calculate in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops

from kmtl.typing import Tensor

#: `(truth, shares, mask)`, each `(N, P, K)` or mask `(N, P, 1)`, to `(N,)`.
Region = Callable[[Tensor, Tensor, Tensor], Tensor]
#: Added to both sides of a quotient: a class that is nowhere has overlap 1.
SMOOTHING = 1.0


def shares_of(labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Truth and predicted shares of each class, `(..., K)`, of labels and logits.

    Args:
        labels: `(...)` class numbers, or `(..., K)`: shares, or yes and no for K = 1.
        logits: `(..., K)`; of one sigmoid for K = 1, else of a softmax.
    """
    logits = ops.cast(logits, "float32")
    shares = ops.sigmoid(logits) if logits.shape[-1] == 1 else ops.softmax(logits)
    if len(labels.shape) < len(logits.shape):
        classes = logits.shape[-1]
        return ops.one_hot(ops.cast(labels, "int32"), classes, dtype="float32"), shares
    return ops.cast(labels, "float32"), shares


def of_pictures(region: Region, labels: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
    """A picture's loss, repeated for each of its labels: in the shape of the mask.

    Args:
        region: One of this module's losses.
        labels: `(N, H, W)` or, for one logit, `(N, H, W, 1)`; or shares
            `(N, H, W, K)`.
        logits: `(N, H, W, K)`.
        mask: Of the labels' shape without classes; 0 where one is missing.
    """
    truth, shares = shares_of(labels, logits)
    there = ops.cast(mask, "float32")
    if len(there.shape) == len(logits.shape):
        there = there[..., :1]
    else:
        there = ops.expand_dims(there, -1)
    values = region(truth, shares, there)
    values = ops.reshape(values, (-1, *[1] * (len(mask.shape) - 1)))
    return ops.broadcast_to(values, ops.shape(mask))


def _sum(values: Tensor) -> Tensor:
    """Over the pixels: `(N, H, W, K)` to `(N, K)`."""
    return ops.sum(values, axis=tuple(range(1, len(values.shape) - 1)))


def dice(truth: Tensor, shares: Tensor, mask: Tensor) -> Tensor:
    """`1 - (2 sum(p g) + 1) / (sum(p) + sum(g) + 1)`, the mean over the classes.

    Milletari, Navab and Ahmadi 2016, arXiv:1606.04797, with sums of shares in the
    place of their squares, as in Sudre et al. 2017, arXiv:1707.03237.
    """
    both = _sum(truth * shares * mask)
    sizes = _sum((truth + shares) * mask)
    return ops.mean(1.0 - (2.0 * both + SMOOTHING) / (sizes + SMOOTHING), axis=-1)


def tversky(
    truth: Tensor,
    shares: Tensor,
    mask: Tensor,
    alpha: float = 0.3,
    beta: float = 0.7,
) -> Tensor:
    """`1 - (TP + 1) / (TP + alpha FP + beta FN + 1)`, the mean over the classes.

    Salehi, Erdogmus and Gholipour 2017, arXiv:1706.05721, with their best weights:
    what is missed costs more than what is found in vain.
    """
    found = _sum(truth * shares * mask)
    in_vain = _sum((1.0 - truth) * shares * mask)
    missed = _sum(truth * (1.0 - shares) * mask)
    whole = found + alpha * in_vain + beta * missed
    return ops.mean(1.0 - (found + SMOOTHING) / (whole + SMOOTHING), axis=-1)


def lovasz(truth: Tensor, shares: Tensor, mask: Tensor) -> Tensor:
    """Lovász-softmax: the convex closure of 1 - IoU, over the classes in the picture.

    Berman, Triki and Blaschko 2018, arXiv:1705.08790, per picture, equation 9; of one
    sigmoid the foreground alone, whether it is there or not. Of shares the most
    probable class is the truth.
    """
    classes = shares.shape[-1]
    flat = (ops.shape(shares)[0], -1)
    truth, shares = (ops.reshape(part, (*flat, classes)) for part in (truth, shares))
    there = ops.reshape(mask, (*flat, 1))
    if classes > 1:
        truth = ops.one_hot(ops.argmax(truth, -1), classes, dtype="float32") * there
    else:
        truth = ops.cast(truth > 0.5, "float32") * there
    errors = ops.abs(truth - shares) * there
    # Missing pixels come last, behind those without any error.
    keys = ops.where(there > 0, errors, -1.0)
    order = ops.argsort(-ops.stop_gradient(keys), axis=1)
    errors = ops.take_along_axis(errors, order, axis=1)
    sorted_truth = ops.take_along_axis(truth, order, axis=1)
    sizes = ops.sum(sorted_truth, axis=1, keepdims=True)
    left = sizes - ops.cumsum(sorted_truth, axis=1)
    union = sizes + ops.cumsum(1.0 - sorted_truth, axis=1)
    jaccard = 1.0 - left / ops.maximum(union, 1.0)
    steps = jaccard - ops.pad(jaccard, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    per_class = ops.sum(errors * ops.stop_gradient(steps), axis=1)
    if classes == 1:
        return per_class[:, 0]
    present = ops.cast(sizes[:, 0] > 0, "float32")
    count = ops.sum(present, axis=-1)
    return ops.sum(per_class * present, axis=-1) / ops.maximum(count, 1.0)


def boundary(truth: Tensor, shares: Tensor, mask: Tensor, reach: int = 2) -> Tensor:
    """1 - F1 of the borders, with found ones that are at most `reach` pixels off.

    Bokhovkin and Burnaev 2019, arXiv:1905.07852, equations 1 to 5 with borders of one
    pixel; the mean over the classes. Pixels without a label count as inside of none.
    """
    truth, shares = truth * mask, shares * mask

    def grown(values: Tensor, steps: int) -> Tensor:
        # Keras' own padding would be below all values on JAX and TensorFlow alike.
        return keras.ops.max_pool(values, 2 * steps + 1, strides=1, padding="same")

    def border(values: Tensor) -> Tensor:
        outside = (1.0 - values) * mask
        return (grown(outside, 1) - outside) * mask

    true, found = border(truth), border(shares)
    near_truth, near_found = grown(true, reach), grown(found, reach)
    precision = (_sum(found * near_truth) + 1e-7) / (_sum(found) + 1e-7)
    recall = (_sum(true * near_found) + 1e-7) / (_sum(true) + 1e-7)
    return ops.mean(1.0 - 2.0 * precision * recall / (precision + recall), axis=-1)


#: Names of the losses of maps as tasks have them.
REGIONS: dict[str, Region] = {
    "dice": dice,
    "tversky": tversky,
    "lovasz": lovasz,
    "boundary": boundary,
}
