"""Trajectories of every weighting on the two-objective toy problem.

    python experiments/toy_pareto/run.py

writes results.json, trajectories.png and README.md beside this file. Runs on JAX, one
compiled program per method and scale, all five starts side by side.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import jax.numpy as jnp
import keras
import numpy as np
import problem
import report

import kmtl
from kmtl import _registry

HERE = Path(__file__).resolve().parent
RATE = 1e-3  # of Adam, as in the papers
STATE_RATE = 0.025  # for weights that a method learns by gradient, as Nash-MTL's code
MOMENTS = (0.9, 0.999, 1e-8)
KEPT = 100  # points of a trajectory
REACHED = 0.01  # gap to the front that counts as having reached it
#: Where not the defaults. FAMO's authors: no decay of the logits on this problem.
OPTIONS = {"famo": {"gamma": 0.0}}
SCALES = (1.0, 0.1)  # of the first loss: CAGrad's problem and Nash-MTL's


def all_methods() -> list[str]:
    """Every registered weighting that says something about two tasks on its own."""
    # A schedule is given by its user, Auto-Lambda learns on validation data: without
    # them both are equal weights.
    silent = ("schedule", "auto_lambda")
    return [name for name in _registry.names("weighting") if name not in silent]


def make_step(name: str, scale: float) -> tuple[Callable, list]:
    """`(step, values of the method's variables)`.

    `step(theta, variables)` gives the update of theta, that of the variables a method
    learns by gradient (zeros for others), and the variables after the step.
    """
    rule = _registry.get("weighting", name)(**OPTIONS.get(name, {}))
    rule.setup(["first", "second"], 2 if rule.kind == "gradient" else None)
    variables = list(rule.variables)
    learned = {id(variable) for variable in rule.trainable_variables}
    ones = jnp.ones((2,), jnp.float32)
    # Many methods need losses > 0; a constant added to a loss has no gradient.
    lowest = problem.LOWEST * jnp.array([scale, 1.0], jnp.float32)

    def losses(theta: Any) -> Any:
        return problem.losses(theta, jnp, scale) - lowest

    def inside(values: list, function: Callable[[], Any]) -> tuple[Any, list]:
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            result = function()
        found = (scope.get_current_value(variable) for variable in variables)
        after = [old if new is None else new for old, new in zip(values, found)]  # noqa: B905
        return result, after

    def gradient_step(theta: Any, values: list) -> Any:
        rows = jax.jacrev(losses)(theta)
        update, after = inside(
            values, lambda: rule.direction(rows, losses(theta), ones)
        )
        return update, [jnp.zeros_like(v) for v in values], after

    def loss_step(theta: Any, values: list) -> Any:
        def total(theta: Any, free: list) -> Any:
            mixed = [
                new if id(variable) in learned else old
                for variable, new, old in zip(variables, free, values, strict=True)
            ]
            (result, _), after = inside(
                mixed, lambda: rule.combine(losses(theta), ones)
            )
            return result, after

        floats = [v.astype(jnp.float32) for v in values]  # seeds have no gradient
        (update, slopes), after = jax.grad(total, argnums=(0, 1), has_aux=True)(
            theta, floats
        )
        return update, slopes, after

    values = [jnp.asarray(variable.value) for variable in variables]
    flags = [id(variable) in learned for variable in variables]
    step = gradient_step if rule.kind == "gradient" else loss_step

    def full_step(theta: Any, values: list) -> Any:
        update, slopes, after = step(theta, values)
        slopes = [
            slope if flag else None for slope, flag in zip(slopes, flags, strict=True)
        ]
        return update, slopes, after

    return full_step, values


def adam(value: Any, slope: Any, moments: Any, count: Any, rate: float) -> tuple:
    """One step of Adam; `moments` is `(mean, square)`."""
    decay, square_decay, epsilon = MOMENTS
    mean = decay * moments[0] + (1 - decay) * slope
    square = square_decay * moments[1] + (1 - square_decay) * slope**2
    first = mean / (1 - decay**count)
    second = square / (1 - square_decay**count)
    return value - rate * first / (jnp.sqrt(second) + epsilon), (mean, square)


def trajectories(name: str, scale: float, steps: int) -> np.ndarray:
    """`(starts, KEPT + 1, 2)` points, the start first."""
    step, values = make_step(name, scale)
    zeros = [(jnp.zeros_like(v), jnp.zeros_like(v)) for v in values]
    chunk = max(1, steps // KEPT)

    def one(carry: tuple, _: None) -> tuple:
        theta, moments, values, slots, count = carry
        count = count + 1
        update, slopes, after = step(theta, values)
        theta, moments = adam(theta, update, moments, count, RATE)
        for i, slope in enumerate(slopes):
            if slope is not None:
                after[i], slots[i] = adam(after[i], slope, slots[i], count, STATE_RATE)
        return (theta, moments, after, slots, count), None

    def run(start: Any) -> Any:
        def many(carry: tuple, _: None) -> tuple:
            carry, _ = jax.lax.scan(one, carry, None, length=chunk)
            return carry, carry[0]

        none = jnp.zeros_like(start)
        carry = (start, (none, none), values, zeros, jnp.zeros(()))
        _, points = jax.lax.scan(many, carry, None, length=KEPT)
        return jnp.concatenate([start[None], points])

    starts = jnp.array(problem.STARTS, jnp.float32)
    return np.asarray(jax.jit(jax.vmap(run))(starts), "float64")


def evaluate(points: np.ndarray, scale: float, front: problem.Front) -> list[dict]:
    """Where each start ended."""
    ends = []
    for start, path in zip(problem.STARTS, points, strict=True):
        reached = problem.losses(path[-1], np, scale)
        gap = front.gap(reached)
        ends.append(
            {
                "start": list(start),
                "end": [round(float(v), 4) for v in path[-1]],
                "losses": [round(float(v), 4) for v in reached],
                "gap": round(gap, 5),
                "reached": bool(gap <= REACHED),
            }
        )
    return ends


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="*", default=None, help="default: all")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--fast", action="store_true", help="three methods, few steps")
    options = parser.parse_args(arguments)
    methods = options.methods or all_methods()
    steps, grid = options.steps, 2001
    if options.fast:
        methods, grid = options.methods or ["equal", "mgda", "famo"], 401
        steps = min(steps, 2000)
    started = time.perf_counter()
    results: dict[str, Any] = {}
    paths: dict[tuple[str, float], np.ndarray] = {}
    for scale in SCALES:
        front = problem.pareto_front(scale, grid)
        for name in methods:
            began = time.perf_counter()
            points = trajectories(name, scale, steps)
            paths[name, scale] = points
            ends = evaluate(points, scale, front)
            results.setdefault(name, {})[str(scale)] = {
                "reached": sum(end["reached"] for end in ends),
                "ends": ends,
                "seconds": round(time.perf_counter() - began, 1),
            }
            print(
                f"{name} (scale {scale}): {results[name][str(scale)]['reached']} of "
                f"{len(ends)}, {results[name][str(scale)]['seconds']} s",
                flush=True,
            )
    record = {
        "command": "python experiments/toy_pareto/run.py"
        + (" --fast" if options.fast else ""),
        "steps": steps,
        "rate": RATE,
        "reached_gap": REACHED,
        "options": OPTIONS,
        "seconds": round(time.perf_counter() - started, 1),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {
            "kmtl": kmtl.__version__,
            "keras": keras.__version__,
            "jax": jax.__version__,
            "python": platform.python_version(),
        },
        "methods": results,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    report.write(record, paths, SCALES, options.out)
    return record


if __name__ == "__main__":
    main()
