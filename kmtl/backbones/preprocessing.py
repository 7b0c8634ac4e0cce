"""What nets of `keras.applications` expect their inputs to be."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl._private.keras import producer
from kmtl.layers.maker import LayerMaker
from kmtl.typing import Tensor

MODES = ("bytes", "tf", "torch", "caffe")
#: Means and standard deviations of ImageNet's channels, red first.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: The same means as the nets of Caffe take them: blue first, of bytes.
CAFFE_MEAN = (103.939, 116.779, 123.68)


def mode_of(function: Callable[..., Any]) -> str | None:
    """The preprocessing of a net of `keras.applications`; None for other functions.

    It is read from the net's own `preprocess_input`, by what that makes of a pixel.
    """
    module = sys.modules.get(getattr(function, "__module__", ""))
    name = getattr(function, "__name__", "")
    if getattr(keras.applications, name, None) is not function:
        return None
    preprocess_input = getattr(module, "preprocess_input", None)
    if preprocess_input is None:
        return None
    pixel = np.array([[[[0.0, 51.0, 255.0]]]], "float32")
    made = preprocess_input(pixel.copy(), data_format="channels_last")
    for mode in MODES:
        if np.allclose(_of_bytes(mode, pixel), made, atol=1e-3):
            return mode
    raise ValueError(
        f"What keras.applications.{name} does to its inputs is not known: give "
        f"`preprocessing`, one of {list(MODES)}, or None for images that you have "
        f"prepared. Received: {inspect.getmodule(function)}"
    )


def _of_bytes(mode: str, pixel: np.ndarray) -> np.ndarray:
    """What a mode makes of a pixel in [0, 255]."""
    if mode == "tf":
        return pixel / 127.5 - 1.0
    if mode == "torch":
        return (pixel / 255.0 - np.array(MEAN)) / np.array(DEVIATION)
    if mode == "caffe":
        return pixel[..., ::-1] - np.array(CAFFE_MEAN)
    return pixel


def preprocess(mode: str | None, images: Tensor, make: LayerMaker) -> Tensor:
    """Images in [0, 1] as a net expects them, by layers of the net."""
    if mode is None:
        return images
    arguments: dict[str, Any] = {"scale": 255.0}
    if mode == "tf":
        arguments = {"scale": 2.0, "offset": -1.0}
    elif mode == "torch":
        arguments = {
            "scale": [1 / deviation for deviation in DEVIATION],
            "offset": [-m / d for m, d in zip(MEAN, DEVIATION, strict=True)],
        }
    elif mode == "caffe":
        flip = producer(ops.flip(images, axis=-1))
        images = make.operation(flip, "to_bgr")(images)
        arguments["offset"] = [-mean for mean in CAFFE_MEAN]
    return make.layer(keras.layers.Rescaling, "preprocessing", **arguments)(images)
