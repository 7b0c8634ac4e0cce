"""Default ranges: what `"default"` means for each hyperparameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kmtl.tuning.dimensions import Choice, Dimension, Float, Int
from kmtl.tuning.parts import PerBlock, PerTask
from kmtl.tuning.schedules import SCHEDULES
from kmtl.tuning.weights import TaskWeights, UniformWeights

#: Weightings that cost no more than a plain step and go with any sharing depth.
WEIGHTINGS = ("equal", "uncertainty", "dwa", "rlw", "famo")
#: Optimizers that one range of learning rates fits.
OPTIMIZERS = ("adam", "adamw", "nadam", "rmsprop")

#: Ways to share a trunk that need no arguments and go with every backbone.
SHARING = ("hard", "cross_stitch", "mmoe", "ple", "mtan", "film")

#: Ranges that depend on nothing else. New objects are not needed: they are frozen.
RANGES: Mapping[str, Dimension] = {
    "dropout": Float(0.0, 0.5),
    "learning_rate": Float(1e-4, 1e-2, log=True, default=1e-3),
    "task_weights": TaskWeights(),
    "activation": Choice(["relu", "gelu", "silu", "tanh"]),
    "normalization": Choice([None, "batch", "layer"]),
    "optimizer": Choice(OPTIMIZERS),
    "learning_rate_schedule": Choice(SCHEDULES),
    "batch_size": Choice([16, 32, 64, 128], default=32),
    "weighting": Choice(WEIGHTINGS),
    "sharing": Choice(SHARING),
    "l2": Float(1e-6, 1e-2, log=True),
    "blocks": Int(1, 4, default=2),
    "dwa.temperature": Float(0.5, 8.0, log=True, default=2.0),
    "uw_so.temperature": Float(0.25, 4.0, log=True, default=1.0),
    "famo.learning_rate": Float(2.5e-3, 0.25, log=True, default=0.025),
    "stch.mu": Float(0.1, 10.0, log=True, default=1.0),
    "gradnorm.alpha": Float(0.1, 3.0, default=1.5),
    "cagrad.c": Float(0.1, 0.9, default=0.5),
    "fairgrad.alpha": Float(0.5, 4.0, log=True, default=1.0),
    "gradvac.beta": Float(1e-3, 0.5, log=True, default=0.01),
    "db_mtl.beta": Float(0.0, 0.99, default=0.9),
    "mmoe.experts": Int(2, 8, default=4),
    "mmoe.temperature": Float(0.25, 4.0, log=True, default=1.0),
    "cgc.shared_experts": Int(1, 4, default=2),
    "cgc.task_experts": Int(1, 4, default=1),
    "cgc.temperature": Float(0.25, 4.0, log=True, default=1.0),
    "ple.shared_experts": Int(1, 4, default=2),
    "ple.task_experts": Int(1, 4, default=1),
    "ple.temperature": Float(0.25, 4.0, log=True, default=1.0),
    "dselect_k.experts": Int(2, 8, default=4),
    "dselect_k.selected": Int(1, 2, default=2),
    "dselect_k.entropy": Float(1e-5, 0.1, log=True, default=1e-3),
    "sparse_moe.experts": Int(2, 8, default=4),
    "sparse_moe.selected": Int(1, 2, default=2),
    "sparse_moe.balance": Float(1e-4, 0.1, log=True, default=0.01),
    "adashare.sparsity": Float(1e-3, 1.0, log=True, default=0.05),
    "adashare.sharing": Float(1e-3, 1.0, log=True, default=0.05),
    "adapters.bottleneck": Int(2, 64, log=True, default=8),
    "learning_to_branch.width": Int(2, 6, default=3),
    "lora.rank": Int(1, 16, log=True, default=4),
    "cross_stitch.self_weight": Float(0.5, 1.0, default=0.9),
    "sluice.subspaces": Choice([1, 2, 4], default=2),
    "sluice.orthogonality": Float(1e-3, 1.0, log=True, default=0.1),
    "nddr.self_weight": Float(0.5, 1.0, default=0.9),
    "nddr.weight_decay": Float(1e-5, 1e-2, log=True, default=5e-4),
    "mtan.bottleneck": Choice([1, 2, 4]),
    "pad_net.weight": Float(0.1, 2.0, log=True, default=1.0),
    "mti_net.weight": Float(0.1, 2.0, log=True, default=1.0),
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
#: `"width"` by the argument that it fills.
WIDTHS: Mapping[str, Dimension] = {
    "units": Int(16, 256, log=True, default=64),
    "filters": Int(8, 64, log=True, default=32),
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
