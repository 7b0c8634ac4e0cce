"""Initial predictions of dense tasks, and what the tasks tell each other by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from kmtl import _checks
from kmtl.layers.deep_supervision import DeepSupervision
from kmtl.layers.maker import LayerMaker
from kmtl.sharing._shapes import resized
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, Tensor


def check_arguments(scheme: Any) -> None:
    """Check and put in order `weight` and `channels` of a scheme."""
    weight = _checks.check_range(
        "weight", scheme.weight, 0, low_open=True, high_open=True
    )
    object.__setattr__(scheme, "weight", weight)
    if scheme.channels is not None:
        channels = _checks.check_int("channels", scheme.channels, 1)
        object.__setattr__(scheme, "channels", channels)


def dense_tasks(tasks: Sequence[Task], name: str) -> list[Task]:
    """The tasks that predict maps.

    Raises:
        ValueError: if there are none.
    """
    found = [task for task in tasks if task.dense_prediction]
    if not found:
        raise ValueError(
            f"Sharing '{name}' distils between tasks that predict maps (such as "
            "kmtl.Segmentation), and there are none: take another scheme. "
            f"Received: tasks {', '.join(task.name for task in tasks)}"
        )
    return found


def check_map(features: Tensor, task: Task, name: str) -> None:
    """Refuse features that are not a map."""
    if len(features.shape) != 4:
        raise ValueError(
            f"Sharing '{name}' needs feature maps (height, width, channels), as of "
            f"kmtl.build_cnn. Received: features of shape {tuple(features.shape)} for "
            f"task '{task.name}'"
        )


def initial_features(
    task: Task,
    features: Tensor,
    head: Callable[..., Tensor],
    make: LayerMaker,
    scheme: Any,
    suffix: str = "",
) -> Tensor:
    """Features of a task that have predicted once: `(N, h, w, channels)`.

    E = relu(conv(features)), an initial prediction from E, supervised, and
    F = relu(conv([E, soft prediction at the size of E])).
    """
    part = make.part(f"{task.name}_initial{suffix}")
    channels = scheme.channels or int(features.shape[-1])
    own = part.conv(channels, 3, "conv")(features)
    own = part.activation("relu", "activation")(own)
    logits = head(task, own, f"head_initial{suffix}")
    logits = part.layer(
        DeepSupervision, "supervision", task=task.name, weight=scheme.weight
    )(logits)
    soft = part.layer(
        keras.layers.Activation,
        "prediction",
        activation=task.output_activation,
        dtype="float32",
    )(logits)
    soft = resized(soft, tuple(own.shape[1:3]), part)
    joined = part.layer(keras.layers.Concatenate, "join")([own, soft])
    refined = part.conv(channels, 3, "refinement")(joined)
    return part.activation("relu", "refined")(refined)


def distilled(
    scheme: Sharing, features: Features, make: LayerMaker, suffix: str = ""
) -> Features:
    """F_t + σ(G_t F_t) ⊙ sum_{s != t} W_ts F_s, with 3 x 3 convolutions G and W."""
    result = {}
    for name, own in features.items():
        part = make.part(f"{name}_distillation{suffix}")
        # By name, so that the order of the tasks does not matter.
        readable = scheme.readable(name, sorted(features))
        others = [features[other] for other in readable if other != name]
        if not others:
            result[name] = own
            continue
        channels = int(own.shape[-1])
        if len(others) > 1:  # one convolution of all of them is the sum of theirs
            others = [part.layer(keras.layers.Concatenate, "others")(others)]
        message = part.conv(channels, 3, "message")(others[0])
        gate = part.conv(channels, 3, "attention")(own)
        gate = part.activation("sigmoid", "gate")(gate)
        message = part.layer(keras.layers.Multiply, "gated")([gate, message])
        result[name] = part.layer(keras.layers.Add, "sum")([own, message])
    return result
