"""The nets of the stage "fast", and what is compiled of each."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import weighting_nets

import kmtl
from kmtl import _registry

#: Height and width of the images, and classes per pixel, as of NYUv2.
SIZE, PARTS, OBJECTS = (288, 384), 13, 40
BATCH = {**weighting_nets.BATCH, "resnet": 8}
TASKS = {"mlp": 4, "conv": 3, "resnet": 3}
#: In order of worth: method and level.
ENTRIES = (
    ("plain", ""),
    ("equal", "loss"),
    ("pcgrad", "features"),
    ("pcgrad", "parameters"),
    ("upgrad", "parameters"),
    ("uncertainty", "loss"),
    ("upgrad", "features"),
    ("nash_mtl", "features"),
    ("nash_mtl", "parameters"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet(kmtl.backbones.Backbone):
    """ResNet-18 without its classifier (He et al., CVPR 2016); a block is a stage of
    two residual units."""

    filters: tuple[int, ...] = (64, 128, 256, 512)

    INPUT_RANKS = (3,)

    @property
    def num_blocks(self) -> int:
        return len(self.filters)

    def block(self, index: int, features: Any, make: Any) -> Any:
        if index == 0:
            features = self._conv(features, self.filters[0], 7, 2, make.part("stem"))
            features = make.activation("relu", "stem_relu")(features)
            pool = keras.layers.MaxPooling2D
            features = make.layer(pool, "pool", pool_size=3, strides=2, padding="same")(
                features
            )
        for i in range(2):
            stride = 2 if index and not i else 1
            part = make.part(f"unit{i + 1}")
            features = self._unit(features, self.filters[index], stride, part)
        return features

    def _unit(self, features: Any, filters: int, stride: int, make: Any) -> Any:
        x = self._conv(features, filters, 3, stride, make.part("conv1"))
        x = make.activation("relu", "relu1")(x)
        x = self._conv(x, filters, 3, 1, make.part("conv2"))
        if stride > 1 or features.shape[-1] != filters:
            features = self._conv(features, filters, 1, stride, make.part("shortcut"))
        x = make.layer(keras.layers.Add, "add")([features, x])
        return make.activation("relu", "relu2")(x)

    @staticmethod
    def _conv(x: Any, filters: int, kernel: int, stride: int, make: Any) -> Any:
        x = make.conv(filters, kernel, "conv", strides=stride, use_bias=False)(x)
        return make.normalization("batch", "norm")(x)


ResNet.registered_name = "gpu_resnet"


def size(small: bool) -> tuple[int, int]:
    return (32, 64) if small else SIZE


def batch(net: str, small: bool) -> int:
    return 2 if small else BATCH[net]


def build(net: str, small: bool = False) -> kmtl.MultiTaskModel:
    """A fresh model; the same initial weights every time."""
    if net != "resnet":
        return weighting_nets.build(net, TASKS[net], small)
    return kmtl.build(
        backbone=ResNet(filters=(4, 8) if small else (64, 128, 256, 512)),
        input_shape=(*size(small), 3),
        tasks=[
            kmtl.Segmentation("parts", classes=PARTS),
            kmtl.Segmentation("objects", classes=OBJECTS),
            kmtl.DenseRegression("depth", loss="mse", metrics=("mae",)),
        ],
        seed=0,
    )


def data(net: str, small: bool = False) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One random batch."""
    rows = batch(net, small)
    if net != "resnet":
        return weighting_nets.data(net, TASKS[net], rows)
    random = np.random.default_rng(0)
    pixels = (rows, *size(small))
    return random.normal(size=(*pixels, 3)).astype("float32"), {
        "parts": random.integers(0, PARTS, pixels).astype("int32"),
        "objects": random.integers(0, OBJECTS, pixels).astype("int32"),
        "depth": random.normal(size=(*pixels, 1)).astype("float32"),
    }


def plain(net: str, small: bool = False) -> keras.Model:
    """The same layers as a `keras.Model`, with the same losses and metrics."""
    if net != "resnet":
        return weighting_nets.plain(net, TASKS[net], small)
    model = build(net, small).to_keras()
    classes = {"parts": PARTS, "objects": OBJECTS}
    entropy = keras.losses.SparseCategoricalCrossentropy
    metrics: dict[str, list] = {
        name: [keras.metrics.MeanIoU(count, sparse_y_pred=False), "accuracy"]
        for name, count in classes.items()
    }
    model.compile(
        "adam",
        loss={name: entropy(from_logits=True) for name in classes} | {"depth": "mse"},
        metrics={**metrics, "depth": ["mae"]},
    )
    return model


def rule(method: str, level: str, own: tuple | None = None) -> Any:
    """A weighting; one that looks ahead learns on the rows `own`."""
    cls = _registry.get("weighting", method)
    options: dict[str, Any] = {"level": level} if cls.kind == "gradient" else {}
    if cls.kind == "loss" and cls.looks_ahead:
        options["data"] = own
    return cls(**options)


def levels(method: str) -> tuple[str, ...]:
    """Where a method can act."""
    cls = _registry.get("weighting", method)
    if cls.kind == "loss":
        return ("loss",)
    return ("parameters",) if cls.parameter_state else ("features", "parameters")


def compiled(net: str, entry: tuple[str, str], small: bool = False) -> keras.Model:
    """A model with one of `ENTRIES`, and Adam."""
    if entry[0] == "plain":
        return plain(net, small)
    model = build(net, small)
    model.compile("adam", weighting=rule(*entry, own=data(net, small)))
    return model
