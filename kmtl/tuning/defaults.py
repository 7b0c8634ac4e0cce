"""Default ranges: what `"default"` means for each hyperparameter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from kmtl._dimensions import Choice, Dimension, Float, Int
from kmtl.training.schedules import SCHEDULES
from kmtl.tuning.parts import PerBlock, PerTask, TaskWeights, UniformWeights

#: Weightings that cost no more than a plain step and go with any sharing depth.
WEIGHTINGS = ("equal", "uncertainty", "dwa", "rlw", "famo")
#: Optimizers that one range of learning rates fits.
OPTIMIZERS = ("adam", "adamw", "nadam", "rmsprop")

#: Ways to share a trunk that need no arguments and go with every backbone.
SHARING = ("hard", "cross_stitch", "mmoe", "ple", "mtan", "film")

#: Ranges that depend on nothing else; arguments of schemes and weightings have theirs
#: in `ranges` of the class. New objects are not needed: they are frozen.
RANGES: Mapping[str, Dimension] = {
    # These three, and where the second begins, as measured in
    # experiments/search_spaces.
    "dropout": Float(0.0, 0.3),
    "learning_rate": Float(5e-4, 5e-2, log=True, default=3e-3),
    "task_weights": TaskWeights(0.25, 4.0),
    "activation": Choice(["relu", "gelu", "silu", "tanh"]),
    "normalization": Choice([None, "batch", "layer"]),
    "optimizer": Choice(OPTIMIZERS),
    "learning_rate_schedule": Choice(SCHEDULES),
    "batch_size": Choice([16, 32, 64, 128], default=32),
    "weighting": Choice(WEIGHTINGS),
    "sharing": Choice(SHARING),
    "l2": Float(1e-6, 1e-2, log=True),
    "blocks": Int(1, 4, default=2),
    "sgd.learning_rate": Float(1e-3, 1.0, log=True, default=0.1),
    "sgd.momentum": Float(0.0, 0.99, default=0.9),
    "adamw.weight_decay": Float(1e-5, 0.1, log=True, default=4e-3),
}
#: Other words than "default" that stand for a range.
WORDS: Mapping[str, Mapping[str, Callable[[], Dimension]]] = {
    "dropout": {"per_block": PerBlock},
    "sharing_depth": {"per_task": PerTask},
    "task_weights": {"uniform": UniformWeights},
}
#: `"width"` by the argument that it fills. Every width is compiled anew, and trials of
#: one width train together: few of them, and neighbours as far apart as they matter.
WIDTHS: Mapping[str, Dimension] = {
    # 16 and 32 were near the best in none: experiments/search_spaces.
    "units": Choice([64, 128, 256], default=64),
    "filters": Choice([8, 16, 32, 64], default=32),
}
#: Hyperparameters that the default of another one brings along.
COMPANIONS: Mapping[str, tuple[str, ...]] = {
    "weighting": ("dwa.temperature", "famo.learning_rate"),
    "sharing": (
        "cross_stitch.self_weight",
        "mmoe.experts",
        "ple.shared_experts",
        "ple.task_experts",
        "mtan.bottleneck",
    ),
}


def from_word(name: str, given: Any) -> Any:
    """The dimension that a word stands for; anything else as it is."""
    if isinstance(given, str) and given in WORDS.get(name, {}):
        return WORDS[name][given]()
    return given


def begun(dimension: Int | Float, usual: Any) -> Int | Float:
    """A range with a default, where a search begins.

    At the `usual` value, which holds where nothing is searched, or the end of the range
    nearest to it; where that is no number, at the middle (of the logarithm, on a log
    scale).
    """
    low, high = dimension.low, dimension.high
    if isinstance(usual, bool) or not isinstance(usual, (int, float)):
        middle = math.sqrt(low * high) if dimension.log else low + (high - low) / 2
    else:
        middle = min(max(float(usual), low), high)
    if isinstance(dimension, Float):
        return dataclasses.replace(dimension, default=min(max(middle, low), high))
    most = (dimension.high - dimension.low) // dimension.step
    steps = min(max(round((middle - low) / dimension.step), 0), most)
    default = dimension.low + steps * dimension.step
    return dataclasses.replace(dimension, default=default)
