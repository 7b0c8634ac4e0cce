"""Cases and backend-specific plumbing for the tests of loss-based weightings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kmtl import _registry
from kmtl.testing._running import arrays
from kmtl.testing._running import compiled as compile_step
from kmtl.testing.loss_weighting import gradients as gradients
from kmtl.testing.loss_weighting import ready
from kmtl.testing.loss_weighting import run_epochs as run_epochs
from kmtl.testing.loss_weighting import task_names as task_names
from kmtl.weighting import LossWeighting

Case = Callable[[Sequence[str]], LossWeighting]


def _case(method: str, **options: Any) -> Case:
    return lambda names: _registry.get("weighting", method)(**options)


#: Every registered loss-based method as it comes, and the variants worth the battery.
CASES: dict[str, Case] = {
    name: _case(name)
    for name in _registry.names("weighting")
    if _registry.get("weighting", name).kind == "loss"
}
CASES |= {
    "auto_lambda": _case("auto_lambda", seed=3),
    "rlw": _case("rlw", seed=3),
    "rlw-dirichlet": _case("rlw", distribution="dirichlet", seed=3),
    "fixed-normalized": _case("fixed", weights={"t0": 3.0}, normalize=True),
    "by_labels-inverse": _case("by_labels", mode="inverse"),
    "by_labels-counts": lambda names: _registry.get("weighting", "by_labels")(
        counts={name: 10.0 * (int(name[1:]) + 1) for name in names}
    ),
    "uncertainty-mixed": _case(
        "uncertainty", form={"t0": "classification"}, initial_log_variance=0.5
    ),
    "stch-raw": _case(
        "stch", mu=0.5, normalize=False, preferences={"t0": 0.7}, ideal={"t0": 0.1}
    ),
    "stch-preferences": _case("stch", preferences={"t0": 2.0}, warmup_epochs=1),
    "famo-minimum": _case("famo", minimum_losses={"t0": 0.01}, gamma=0.1),
    "cosmos-preferences": _case("cosmos", preferences={"t0": 0.1}),
    "pbi-preferences": _case("pbi", preferences={"t0": 0.1}, ideal={"t0": -0.5}),
    "schedule-step": _case(
        "schedule", points={"t0": {0: 0.2, 9: 1.0}}, unit="step", interpolation="cosine"
    ),
}
RANDOM = ("rlw", "rlw-dirichlet")


def make(case: str, names: Sequence[str]) -> LossWeighting:
    return ready(CASES[case], names)


def state(weighting: LossWeighting) -> list[np.ndarray]:
    return arrays(weighting.variables)


def compiled(weighting: LossWeighting, xla: bool = True) -> Callable:
    """A compiled training `combine`, with the state carried on as in a train step."""
    step = compile_step(weighting, weighting.combine, jit_compile=xla)
    return lambda losses, present: step(
        np.asarray(losses, "float32"), np.asarray(present, "float32")
    )
