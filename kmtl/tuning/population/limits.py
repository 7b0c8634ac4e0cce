"""What can train in a population, and how many at a time."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import keras
import psutil

from kmtl._private.keras import nodes_of, sublayers
from kmtl.data.plans import RowPlan
from kmtl.evaluation.common_scale import CommonScore
from kmtl.evaluation.delta import DeltaM
from kmtl.layers.cluster_centres import ClusterCentres
from kmtl.training.feed import is_arrays
from kmtl.training.sources import is_split, plan_of
from kmtl.tuning import reuse
from kmtl.tuning.hypermodel import HyperModel
from kmtl.typing import (
    AnyHyperModel,
    Callback,
    Data,
    Inputs,
    Labels,
    SampleWeight,
    Tuner,
)
from kmtl.weighting.base import Weighting

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

#: Fit options that a population knows.
FIT_OPTIONS = (
    "sample_weight",
    "batch_size",
    "validation_batch_size",
    "verbose",
    "plan",  # of a mixture
)
#: Activations of one call that a CPU still keeps near by.
CPU_BYTES = 8 * 2**20
MOST_WIDTH = 64
#: Structures whose models are kept.
MOST_STRUCTURES = 32
#: Trials that are asked for at once, at most, where nobody says.
DEFAULT_SIZE = 32
#: Groups of trials, at least, between which proposals learn from results.
LEARNING_PARTS = 5
#: Share of the free memory that a population may take.
MEMORY_SHARE = 0.5


def reason_against(
    hypermodel: AnyHyperModel,
    x: Inputs,
    y: Labels | None = None,
    sample_weight: SampleWeight | None = None,
    *,
    validation_data: Data | None = None,
    plan: RowPlan | None = None,
    fit_options: Sequence[str] = (),
) -> str | None:
    """Why trials cannot train in a population, or None if they can.

    In words that follow "cannot train in a population:". The data are as given to
    `search`; `fit_options` are the names of further arguments of `fit`.
    """
    if keras.backend.backend() != "jax":
        return (
            "populations need the JAX backend (KERAS_BACKEND=jax), and this is "
            f"{keras.backend.backend()}"
        )
    reason = reuse.reason_against(hypermodel)
    if reason is not None:
        return reason
    if type(hypermodel).fit is not HyperModel.fit:
        return f"{type(hypermodel).__name__} has a `fit` of its own"
    for name in fit_options:
        if name not in FIT_OPTIONS:
            return f"`{name}` is not known there"
    if getattr(plan or plan_of(x), "by_loss", False):
        return "which rows are drawn depends on the losses of each (sampling='loss')"
    for name, part in (("x", (x, y, sample_weight)), ("validation", validation_data)):
        first = part[0] if isinstance(part, tuple) and part else part
        if part is not None and not (is_split(first) or is_arrays(part)):
            return f"the {name} data are not arrays"
    return None


def refuse(reason: str | None) -> None:
    if reason is not None:
        raise ValueError(f"These trials cannot train in a population: {reason}.")


def reason_against_model(
    model: MultiTaskModel, searched: Collection[str] = ()
) -> str | None:
    """The same for what only the compiled model tells; `searched` are dimensions."""
    fixed = reuse.fixed_dropout(model)
    if fixed is not None and "dropout" in searched:
        return (
            f"`dropout` is searched, and the rate of layer '{fixed}' is no variable: "
            "give the backbone kmtl's dropout, `self.drop(index, features, make)`"
        )
    for layer in model.layers:
        if isinstance(layer, ClusterCentres):
            return f"the centres of '{layer.name}' begin where k-means puts them"
    for log, (_, metric, _) in model._state.metrics.entries.items():
        if hasattr(metric, "gathered"):
            return f"'{log}' is a metric of all validation rows together"
    weighting = model.weighting
    if weighting is not None:
        name = weighting.registered_name
        begins = type(weighting).on_fit_begin is not Weighting.on_fit_begin
        if begins or getattr(weighting, "looks_ahead", False):
            return f"weighting '{name}' takes data of its own from `fit`"
    if model.run_eagerly or model.jit_compile is False:
        return "the model is compiled with `run_eagerly` or without `jit_compile`"
    return None


def reason_against_callbacks(callbacks: Sequence[Callback]) -> str | None:
    """The same for the callbacks of `search`."""
    known = (DeltaM, CommonScore, keras.callbacks.EarlyStopping)
    for callback in callbacks:
        # A subclass may do more, which would not be called.
        if not isinstance(callback, known) or not _is_known(type(callback)):
            return f"a {type(callback).__name__} acts on one model at a time"
    return None


def _is_known(kind: type) -> bool:
    return kind.__module__.split(".")[0] in ("keras", "kmtl")


def copies(callbacks: Sequence[Callback]) -> list[Any]:
    """A trial's own copies. They stop the trial; its best weights are kept anyway."""
    own = [copy.deepcopy(callback) for callback in callbacks]
    for callback in own:
        if isinstance(callback, keras.callbacks.EarlyStopping):
            callback.restore_best_weights = False
        callback.set_model(SimpleNamespace(stop_training=False))
    return own


def activation_bytes(model: MultiTaskModel, batch_size: int) -> int:
    """Size of all layers' outputs for a batch, roughly."""
    total = 0
    for layer in sublayers(model):
        for node in nodes_of(layer)[:1]:
            for tensor in node.output_tensors:
                total += math.prod(size or 1 for size in tensor.shape[1:])
    return 4 * batch_size * total


def member_bytes(model: MultiTaskModel) -> int:
    """Memory of one trial between steps: variables, a copy, its best weights."""
    own = sum(4 * math.prod(v.shape) for v in model.variables)
    optimizer = sum(4 * math.prod(v.shape) for v in model.optimizer.variables)
    return 3 * own + 2 * optimizer


def has_convolution(model: MultiTaskModel) -> bool:
    """Whether the model has layers for which single trials are faster than many."""
    kinds = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
    return any(isinstance(layer, kinds) for layer in sublayers(model))


def choose_width(model: MultiTaskModel, batch_size: int) -> int:
    """Trials per call: many where steps are tiny, few where memory or caches are."""
    import jax

    if jax.default_backend() == "cpu" and has_convolution(model):
        return 1
    return _light_steps(model, batch_size)


def _light_steps(model: MultiTaskModel, batch_size: int) -> int:
    """Models whose steps at the same time do not wait for memory."""
    import jax

    size = max(1, activation_bytes(model, batch_size))
    if jax.default_backend() == "cpu":
        return max(1, min(MOST_WIDTH, CPU_BYTES // size))
    return max(1, min(most_members(model), free_bytes() // (8 * size)))


def size_for(hypermodel: AnyHyperModel) -> int | None:
    """Trials to begin at once unless asked for: 1, or None where models decide."""
    if keras.backend.backend() != "jax" or reuse.reason_against(hypermodel) is not None:
        return 1
    return None


def trials_at_once(tuner: Tuner, batch_size: int) -> int:
    """Trials that suit the model that a tuner's space has by default.

    Also where each is a call of its own, as of small convolutions: an epoch in one call
    spares the work between its steps.
    """
    hypermodel, oracle = tuner.hypermodel, tuner.oracle
    model = hypermodel.build(oracle.get_space())
    size = min(DEFAULT_SIZE, _light_steps(model, batch_size), most_members(model))
    if oracle.learns and oracle.max_trials:
        size = min(size, max(1, oracle.max_trials // LEARNING_PARTS))
    return max(1, size)


def most_members(model: MultiTaskModel) -> int:
    """Trials whose variables fit into a share of the free memory."""
    return max(1, int(MEMORY_SHARE * free_bytes()) // max(1, member_bytes(model)))


def free_bytes() -> int:
    """Free memory of the device."""
    import jax

    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    return psutil.virtual_memory().available
