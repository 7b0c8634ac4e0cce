"""Stage 3, search: how trials per minute grow with the size of a population.

Populations of 1 to 1,024 trials, all in one call, on the digits CNN of the search
benchmark and on the LeNet of MultiMNIST; and the number that kmtl chooses by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import search_nets
import stage

import kmtl
from kmtl.training.memory import OutOfMemoryError
from kmtl.tuning.population import Member, limits

SIZES = (1, 4, 16, 64, 256, 1024)
EPOCHS = 3
OF_A_SEARCH = 10  # epochs of a trial, for trials per minute
FULL = (50_000, 10_000, 1)  # MultiMNIST's images
ENOUGH = 0.95  # of the best rate: more trials at once bring nothing


def digits(run: stage.Stage) -> tuple[kmtl.HyperModel, Any, Any, int]:
    small = run.fast
    model = search_nets.hypermodel("cnn", [4] if small else [16, 32], reuse=True)
    return (model, *search_nets.data("cnn", small), search_nets.BATCH)


def multimnist(run: stage.Stage) -> tuple[kmtl.HyperModel, Any, Any, int]:
    net, data = stage.load("multimnist/net.py"), stage.load("multimnist/data.py")
    train, validation, _ = data.load(FULL, run.data)
    model = kmtl.HyperModel(
        kmtl.build,
        backbone=net.LeNet(),
        tasks=[kmtl.Classification(n, classes=10, hidden=(50,)) for n in net.TASKS],
        input_shape=(28, 28, 1),
        space=["task_weights", "learning_rate"],
        seed=0,
    )
    return model, (train.x, train.y), (validation.x, validation.y), 256


PROBLEMS: dict[str, Callable] = {"digits": digits, "multimnist": multimnist}


def members(hypermodel: kmtl.HyperModel, count: int) -> list[Member]:
    """Trials that differ in task weights and learning rate."""
    random = np.random.default_rng(0)
    values = hypermodel.default_values()
    found = []
    for _ in range(count):
        own = {"learning_rate": float(10 ** random.uniform(-4, -2))}
        for name in values:
            if name.startswith("weight_ratio_"):
                own[name] = float(10 ** random.uniform(-1, 1))
        found.append(Member({**values, **own}))
    return found


def measure(run: stage.Stage, problem: tuple, size: int) -> dict[str, Any]:
    """Seconds of the first epoch, with compiling, and of a later one."""
    from kmtl.tuning.population import Population

    hypermodel, train, validation, batch = problem
    population = Population(
        hypermodel,
        *train,
        validation_data=validation,
        batch_size=batch,
        width=size,
        population=size,
    )
    marks = [time.perf_counter()]

    def mark(ended: Any) -> None:
        marks.append(time.perf_counter())

    try:
        population.train(
            members(hypermodel, size),
            epochs=2 if run.fast else EPOCHS,
            on_epoch_end=mark,
        )
    except OutOfMemoryError as error:
        return {"failure": str(error), "fits": error.fits}
    first, *later = np.diff(marks)
    epoch = float(np.median(later))
    return {
        "first_seconds": float(first),
        "epoch_seconds": epoch,
        "trials_per_minute": 60 * size / (OF_A_SEARCH * epoch),
        "with_compiling": 60 * size / (first + (OF_A_SEARCH - 1) * epoch),
        "peak_bytes": (jax.local_devices()[0].memory_stats() or {}).get(
            "peak_bytes_in_use"
        ),
    }


def chosen(problem: tuple) -> dict[str, Any]:
    """What kmtl chooses by itself for this device."""
    from kmtl.tuning.population import Population

    hypermodel, train, _, batch = problem
    model = Population(hypermodel, *train).model(members(hypermodel, 1)[0])
    return {
        "trials_per_call": limits.choose_width(model, batch),
        "trials_in_memory": limits.most_members(model),
    }


def verdict(run: stage.Stage, name: str) -> dict[str, Any]:
    """The smallest measured size with nearly the best rate; the largest that ran."""
    rates = {
        record["size"]: record["trials_per_minute"]
        for record in run.records.found.values()
        if record["card"] == run.card
        and record["problem"] == name
        and "trials_per_minute" in record
    }
    if not rates:
        return {}
    best = max(rates.values())
    enough = min(size for size, rate in rates.items() if rate >= ENOUGH * best)
    return {"enough": enough, "largest": max(rates)}


def main() -> None:
    run = stage.Stage("search", ("problem", "size"))
    names = ["digits"] if run.fast else list(PROBLEMS)
    for i, name in enumerate(names):
        ends = run.left * (1 - 1 / (len(names) - i))
        try:
            problem = PROBLEMS[name](run)
        except FileNotFoundError as error:
            print(f"{name} is left out: {error}", flush=True)
            continue
        last = 0.0
        for size in (2,) if run.fast else SIZES:
            if run.has(problem=name, size=size):
                continue
            if run.left - 3 * last < ends:  # the next takes up to four times as long
                break
            began = time.perf_counter()
            found = measure(run, problem, size)
            last = time.perf_counter() - began
            run.add(problem=name, size=size, **found)
            if "failure" in found:
                break
        run.add(problem=name, size=0, **chosen(problem), **verdict(run, name))


if __name__ == "__main__":
    main()
