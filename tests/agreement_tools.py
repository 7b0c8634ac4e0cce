"""Losses and metrics of a task, by scikit-learn and NumPy in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special, stats
from sklearn import metrics as sk

import kmtl

SMALLEST = 1e-7


def _bce(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, logits) - labels * logits


def _nats(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return -np.take_along_axis(logs, labels[..., None].astype(int), -1)[..., 0]


def _focal(nats: np.ndarray) -> np.ndarray:
    return nats * (1.0 - np.exp(-nats) + SMALLEST) ** 2


def _huber(error: np.ndarray) -> np.ndarray:
    return np.where(error <= 1, 0.5 * error**2, error - 0.5)


def _cosine(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """One of the row, for each of its columns."""
    lengths = np.linalg.norm(labels, axis=-1) * np.linalg.norm(outputs, axis=-1)
    found = -(labels * outputs).sum(-1) / np.maximum(lengths, SMALLEST)
    return np.repeat(found[..., None], labels.shape[-1], axis=-1)


def _coral(y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Of the logarithms of the classes' probabilities."""
    above = np.cumsum(np.exp(z)[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    yes = y[..., None] > np.arange(above.shape[-1])
    return -np.log(np.where(yes, above, 1 - above)).sum(-1)


def _pinball(y: np.ndarray, z: np.ndarray) -> np.ndarray:
    levels = np.array(kmtl.Quantile("q").levels)
    return np.where(y > z, levels * (y - z), (1 - levels) * (z - y)).mean(-1)[..., None]


def _crps(y: np.ndarray, z: np.ndarray) -> np.ndarray:
    spread = z[..., 1:]
    w = (y - z[..., :1]) / spread
    inner = w * (2 * stats.norm.cdf(w) - 1) + 2 * stats.norm.pdf(w)
    return spread * (inner - 1 / math.sqrt(math.pi))


def _zero_inflated(y: np.ndarray, z: np.ndarray) -> np.ndarray:
    mean, share, spread = np.split(z, 3, axis=-1)
    size = mean / share * np.exp(-(spread**2) / 2)
    density = stats.lognorm.logpdf(np.where(y > 0, y, 1), spread, scale=size)
    return -np.where(y > 0, np.log(share) + density, np.log1p(-share))


#: Loss -> values from labels and what the net puts out.
NUMBERS = {
    "mse": lambda y, z: (z - y) ** 2,
    "mae": lambda y, z: abs(z - y),
    "huber": lambda y, z: _huber(abs(z - y)),
    "log_cosh": lambda y, z: np.log(np.cosh(z - y)),
    "cosine": lambda y, z: _cosine(y, z),
    "poisson": lambda y, z: special.xlogy(y, y / z) - y + z,
    "negative_binomial": lambda y, z: (
        special.xlogy(y, y / z) - (y + 1) * np.log((1 + y) / (1 + z))
    ),
    "pinball": _pinball,
    "crps": _crps,
    "normal": lambda y, z: -stats.norm.logpdf(y, z[..., :1], z[..., 1:]),
    "zero_inflated": _zero_inflated,
}
YES_NO = {
    "binary_cross_entropy": _bce,
    "cross_entropy": _bce,
    "focal": lambda y, z: _focal(_bce(y, z)),
    "smoothed": lambda y, z: _bce(0.8 * y + 0.1, z),
    "mse": lambda y, z: (1 / (1 + np.exp(-z)) - y) ** 2,
}
CLASSES = {
    "cross_entropy": _nats,
    "focal": lambda y, z: _focal(_nats(y, z)),
    "sparse": _nats,
    "coral": _coral,
}
#: Loss `nll` of a kind -> its name here.
NLL = {"distribution": "normal", "zero_inflated": "zero_inflated"}


def loss_values(task: Any, loss: str, labels: Any, outputs: Any) -> np.ndarray:
    """Loss of every label, float64."""
    labels, outputs = np.asarray(labels, "float64"), np.asarray(outputs, "float64")
    if task.class_count is None:
        table = YES_NO if loss == "binary_cross_entropy" else NUMBERS
        loss = NLL[task.registered_name] if loss == "nll" else loss
    else:
        table = CLASSES if outputs.ndim > labels.ndim else YES_NO
    return table[loss](labels, outputs)


def rows_that_count(loss: str, mask: np.ndarray) -> np.ndarray | float:
    """1 for whole vectors, 0 for those that lack a column, where the loss needs all."""
    return mask.min(-1, keepdims=True) if loss == "cosine" else 1.0


def mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean, NaN without weight: no label is no number."""
    total = weights.sum()
    return float((values * weights).sum() / total) if total else math.nan


def score(
    task: Any, name: str, labels: Any, values: Any, weights: np.ndarray
) -> float | None:
    """A metric from labels and activated outputs; None where it has no value.

    Args:
        task: The task.
        name: Of the metric.
        labels: Clean labels.
        values: Probabilities, or values in the label's unit.
        weights: Weight of each label, 0 where it is missing.
    """
    labels, values = np.asarray(labels, "float64"), np.asarray(values, "float64")
    seen = weights > 0
    if not seen.any():
        return math.nan
    y, w = labels[seen], weights[seen]
    if values.ndim > labels.ndim:  # classes
        return _of_classes(name, y.astype(int), values[seen], w, task)
    if task.class_count is not None:
        return _of_yes_no(name, y.astype(int), values, labels, weights)
    if values.shape != labels.shape:  # several numbers about one
        return _of_one(name, task.registered_name, y, values[seen[:, 0]], w)
    v = values[seen]
    if name == "r2":
        return _r2(labels, values, weights)
    error = sk.mean_squared_error(y, v, sample_weight=w)
    return {
        "mse": lambda: error,
        "rmse": lambda: math.sqrt(error),
        "mae": lambda: sk.mean_absolute_error(y, v, sample_weight=w),
        "kmae": lambda: sk.mean_absolute_error(y, v, sample_weight=w),
        "deviance": lambda: sk.mean_poisson_deviance(y, v, sample_weight=w),
        "smape": lambda: np.average(200 * abs(y - v) / (abs(y) + abs(v)), weights=w),
        "psnr": lambda: -10 * math.log10(error),
        "relative_error": lambda: None,  # other tests have it
    }[name]()


def _of_one(
    name: str, kind: str, y: np.ndarray, v: np.ndarray, w: np.ndarray
) -> float | None:
    """Of quantiles, or of a distribution's parameters."""
    if kind == "quantile":
        inside = (y >= v[:, 0]) & (y <= v[:, 2])
        pinball = [
            sk.mean_pinball_loss(y, v[:, i], alpha=level, sample_weight=w)
            for i, level in enumerate(kmtl.Quantile("q").levels)
        ]
        return float(
            {
                "pinball": lambda: np.mean(pinball),
                "coverage_error": lambda: abs(np.average(inside, weights=w) - 0.9),
                "mae": lambda: sk.mean_absolute_error(y, v[:, 1], sample_weight=w),
            }[name]()
        )
    if name == "auc":
        above = y > 0
        several = len(set(above)) == 2
        return sk.roc_auc_score(above, v[:, 1], sample_weight=w) if several else None
    if name == "nll":
        values = NUMBERS[NLL[kind]](y[:, None], v)[:, 0]
        return float(np.average(values, weights=w))
    error = sk.mean_squared_error(y, v[:, 0], sample_weight=w)
    return {
        "rmse": lambda: math.sqrt(error),
        "mae": lambda: sk.mean_absolute_error(y, v[:, 0], sample_weight=w),
        "crps": lambda: float(np.average(_crps(y[:, None], v)[:, 0], weights=w)),
    }[name]()


def _of_classes(
    name: str, y: np.ndarray, p: np.ndarray, w: np.ndarray, task: Any
) -> float:
    guess = p.argmax(-1)
    used = sorted({*y, *guess})
    median = (np.cumsum(p, axis=-1) < 0.5).sum(-1)
    iou = sk.jaccard_score(
        y, guess, labels=used, average=None, sample_weight=w, zero_division=0
    )
    return float(
        {
            "accuracy": lambda: sk.accuracy_score(y, guess, sample_weight=w),
            "pixel_accuracy": lambda: sk.accuracy_score(y, guess, sample_weight=w),
            "kacc": lambda: sk.accuracy_score(y, guess, sample_weight=w),
            "macro_f1": lambda: sk.f1_score(
                y, guess, labels=used, average="macro", sample_weight=w, zero_division=0
            ),
            "cross_entropy": lambda: sk.log_loss(
                y,
                p / p.sum(-1, keepdims=True),
                labels=range(task.classes),
                sample_weight=w,
            ),
            "mean_iou": lambda: iou.mean(),
            "mae": lambda: sk.mean_absolute_error(y, median, sample_weight=w),
        }[name]()
    )


def _of_yes_no(
    name: str, y: np.ndarray, values: Any, labels: Any, weights: np.ndarray
) -> float | None:
    seen = weights > 0
    w, guess = weights[seen], (values[seen] > 0.5).astype(int)
    if name == "auc":
        parts = zip(labels.T, values.T, weights.T, strict=True)
        areas = [
            sk.roc_auc_score(a[k > 0], b[k > 0], sample_weight=k[k > 0])
            for a, b, k in parts
            if len(set(a[k > 0])) == 2
        ]
        return float(np.mean(areas)) if areas else None
    options = {"sample_weight": w, "zero_division": 0.0}
    if name == "mean_iou":
        used = sorted({*y, *guess})
        found = sk.jaccard_score(y, guess, labels=used, average=None, **options)
        return float(found.mean())
    return float(
        {
            "accuracy": lambda: sk.accuracy_score(y, guess, sample_weight=w),
            "pixel_accuracy": lambda: sk.accuracy_score(y, guess, sample_weight=w),
            "kprec": lambda: sk.precision_score(y, guess, **options),
            "precision": lambda: sk.precision_score(y, guess, **options),
            "recall": lambda: sk.recall_score(y, guess, **options),
            "f1": lambda: sk.f1_score(y, guess, **options),
        }[name]()
    )


def _r2(labels: Any, values: Any, weights: np.ndarray) -> float | None:
    scores = []
    for a, b, k in zip(labels.T, values.T, weights.T, strict=True):
        if (k > 0).sum() > 1:
            scores.append(sk.r2_score(a[k > 0], b[k > 0], sample_weight=k[k > 0]))
        elif (k > 0).any():
            return None  # scikit-learn has no value for one row
    return float(np.mean(scores))


def clean(task: kmtl.Task, labels: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels with 0 where there is none, and where there are some, as float64."""
    if labels is None:
        labels = x
    labels = np.asarray(labels, "float64")
    missing = np.isnan(labels)
    if task.missing is not None:
        missing |= labels == task.missing
    labels = np.where(missing, 0.0, labels)
    if task.registered_name in ("classification", "segmentation", "ordinal"):
        shape: tuple = labels.shape[:1]
        if task.registered_name == "segmentation":
            shape = labels.shape[:3] + (1,) * (task.classes == 2)
        return labels.reshape(shape), 1.0 - missing.reshape(shape)
    if labels.ndim == 1:
        return labels[:, None], 1.0 - missing[:, None]
    if task.registered_name == "dense_regression" and labels.ndim == 3:
        return labels[..., None], 1.0 - missing[..., None]
    return labels, 1.0 - missing
