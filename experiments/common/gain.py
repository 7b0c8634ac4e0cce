"""What sharing gave: one trunk for all tasks, against a trunk for each of them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

import kmtl
from common import kind_of, parser, seeds, table

matplotlib.use("Agg")

#: As kmtl calls them: what is compared, and what it is compared with.
METHODS = {"separate": "independent", "shared": "hard"}


@dataclasses.dataclass(frozen=True)
class Problem:
    """Tasks and their data, in three parts `(x, y)`."""

    tasks: Sequence[kmtl.Task]
    train: tuple
    validation: tuple
    test: tuple


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment of this kind.

    Args:
        file: `__file__` of its script.
        text: Its docstring.
        data: What the folder of `--data` holds.
        words: Head of the README, with settings in braces: what the tasks are, who
            would use it, and what `error` is.
        load: From settings and the folder to the problem.
        error: From a task's score on the test part, and its name, to its error.
        settings: Of the default run, with `"data"`, `"seeds"`, `"rates"`, `"units"`,
            `"epochs"`, `"batch_size"`, `"patience"`.
        fast: Those that differ with `--fast`.
        more: From settings and the folder to what else `words` has in braces.
    """

    file: str
    text: str | None
    data: str
    words: str
    load: Callable[[dict[str, Any], Path | None], Problem]
    error: Callable[[float, str], float]
    settings: dict[str, Any]
    fast: dict[str, Any]
    more: Callable[[dict[str, Any], Path | None], dict[str, Any]] | None = None


def run(experiment: Experiment, arguments: list[str] | None = None) -> dict[str, Any]:
    """Train what is not in the file of finished runs yet, and write the README."""
    here = Path(experiment.file).resolve().parent
    options = parser(experiment.text, here, experiment.data).parse_args(arguments)
    kind = kind_of(options)
    settings = {**experiment.settings, **(experiment.fast if options.fast else {})}
    if experiment.more is not None:
        settings |= experiment.more(settings, options.data)
    runs = table.Runs(options.out / f"runs_{kind}.jsonl")
    name = settings["data"][0]
    problem = None
    for method, sharing in METHODS.items():
        wanted = [s for s in settings["seeds"] if (name, method, s) not in runs.found]
        if options.report or not wanted:
            continue
        problem = problem or experiment.load(settings, options.data)
        began = time.perf_counter()
        chosen = _train(problem, sharing, settings)
        seconds = (time.perf_counter() - began) / len(settings["seeds"])
        for seed, model in zip(settings["seeds"], chosen.models(), strict=True):
            found = kmtl.evaluate(model, problem.test, batch_size=1000).scores
            errors = {
                task: experiment.error(score, task) for task, score in found.items()
            }
            shown = {"weights": float(model.count_params())}
            mean = float(np.mean([*errors.values()]))
            line = {"data": name, "method": method, "seed": seed, "error": mean}
            line |= {"columns": shown, "errors": errors, "rate": chosen.rate}
            line |= {"edge": chosen.edge, "seconds": round(seconds, 1)}
            if seed in wanted:
                runs.add(line)
        print(method, chosen.rate, round(seconds, 1), flush=True)
    gains = _gains(runs, name)
    words = experiment.words + _in_words(gains)
    if not options.fast:
        _figure(gains, options.out / "gains.png")
        words += "\n\n![gain of every task](gains.png)"
    found = table.write(
        runs, kind, settings, tuple(METHODS), "separate", words, here.name, options.out
    )
    found["gains"] = {task: list(gain) for task, gain in gains.items()}
    text = json.dumps(found, indent=1) + "\n"
    (options.out / "results.json").write_text(text, "utf-8")
    return found


def _train(problem: Problem, sharing: str, settings: dict[str, Any]) -> seeds.Chosen:
    return seeds.train(
        kmtl.build_mlp,
        problem.train,
        problem.validation,
        tasks=list(problem.tasks),
        input_shape=problem.train[0].shape[1:],
        units=settings["units"],
        sharing=sharing,
        dropout=settings.get("dropout"),
        rates=settings["rates"],
        seeds=settings["seeds"],
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        patience=settings["patience"],
        score=lambda logs: -logs["val_loss"],
    )


def _gains(runs: table.Runs, name: str) -> dict[str, tuple[float, float]]:
    """Per task, how much lower its error is where tasks share, seed by seed."""
    errors = {key[1:]: run["errors"] for key, run in runs.found.items()}
    pairs = [
        (errors[("separate", seed)], own)
        for (method, seed), own in errors.items()
        if method == "shared" and ("separate", seed) in errors
    ]
    if not pairs:
        return {}
    return {
        task: table.interval([apart[task] - own[task] for apart, own in pairs])
        for task in pairs[0][1]
    }


def _in_words(gains: dict[str, tuple[float, float]]) -> str:
    """How many tasks sharing helped, and how many it hurt."""
    said = [table.verdict(gain) for gain in gains.values()]
    better, worse = said.count("better"), said.count("worse")
    rest = len(said) - better - worse
    return (
        f"\n\nOf the {len(said)} tasks {better} are better where all share a trunk, "
        f"{worse} worse, and of {rest} the seeds show no difference."
    )


def _figure(gains: dict[str, tuple[float, float]], file: Path) -> None:
    import matplotlib.pyplot as plt

    order = sorted(gains, key=lambda task: gains[task][0])
    means, halves = zip(*(gains[task] for task in order), strict=True)
    figure, axes = plt.subplots(figsize=(6, 1 + 0.22 * min(len(order), 40)))
    if len(order) <= 40:
        axes.errorbar(means, range(len(order)), xerr=halves, fmt="o", capsize=3)
        axes.set_yticks(range(len(order)), order)
    else:
        axes.hist(means, bins=40)
        axes.set_ylabel("tasks")
    axes.axvline(0, color="0.6", linewidth=1)
    axes.set_xlabel("error lower where tasks share (95 % interval over seeds)")
    figure.tight_layout()
    figure.savefig(file, dpi=150)
    plt.close(figure)
