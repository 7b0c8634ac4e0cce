"""What single-task baselines reached."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmtl import _checks, _files
from kmtl.tasks.base import Task

if TYPE_CHECKING:
    import keras

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class BaselineRun:
    """One single-task model.

    Args:
        task: Name of the task.
        seed: Seed it was trained with.
        metrics: Dict split -> {metric: value}; metric names without the task's.
        history: Dict log name -> list of values, as `fit` returned them.
        epoch: Number of the epoch whose weights were kept, from 1.
        seconds: Training time.
        folder: Where the model is stored.
        cached: Whether it was stored before this call.
    """

    task: str
    seed: int
    metrics: dict[str, dict[str, float]]
    history: dict[str, list[float]]
    epoch: int
    seconds: float
    folder: str
    cached: bool = False


@dataclasses.dataclass(frozen=True, repr=False)
class Baselines:
    """Scores of single-task models, to which multi-task models are compared.

    Made by `kmtl.baselines`. `kmtl.evaluate`, `DeltaM` and the tuners take it. Printed,
    it is a table of what each task's first metric was on each split, as mean and
    standard deviation over the seeds.

    Args:
        tasks: The scored tasks.
        runs: One per task and seed.
        fingerprints: Dict split -> fingerprint of its data.
        configuration: JSON-ready description of how the models were trained.
    """

    tasks: tuple[Task, ...]
    runs: tuple[BaselineRun, ...]
    fingerprints: dict[str, str]
    configuration: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        seeds = ", ".join(map(str, self.seeds))
        lines = [("task", "metric", *self.splits)]
        for task in self.tasks:
            score, name = task.score, task.name
            cells = [name, f"{score.name} {'↑' if score.higher_is_better else '↓'}"]
            for split in self.splits:
                mean = self.metrics_on(split)[name][score.name]
                spread = self.spread_on(split)[name][score.name]
                more = "" if math.isnan(spread) else f" ± {spread:.2g}"
                cells.append(f"{mean:.4g}{more}")
            lines.append(tuple(cells))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            [f"<Baselines: {len(self.runs)} single-task models; seeds: {seeds}>"]
            + ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        )

    @property
    def scores(self) -> dict[str, float]:
        """Dict task name -> its first metric on the validation data, mean of seeds."""
        return self.scores_on("validation")

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the data that the models were evaluated on."""
        return tuple(name for name in self.fingerprints if name != "train")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the models of each task."""
        return tuple(dict.fromkeys(run.seed for run in self.runs))

    def scores_on(self, split: str) -> dict[str, float]:
        """The scores on `"validation"` or `"test"` data."""
        metrics = self.metrics_on(split)
        return {task.name: metrics[task.name][task.score.name] for task in self.tasks}

    def metrics_on(self, split: str) -> dict[str, dict[str, float]]:
        """Dict task name -> {metric: mean of seeds}."""
        _checks.check_choice("split", split, self.splits)
        return {
            name: {metric: _mean(values) for metric, values in found.items()}
            for name, found in self._values(split).items()
        }

    def spread_on(self, split: str) -> dict[str, dict[str, float]]:
        """Dict task name -> {metric: standard deviation over seeds}; NaN for one."""
        _checks.check_choice("split", split, self.splits)
        return {
            name: {metric: _deviation(values) for metric, values in found.items()}
            for name, found in self._values(split).items()
        }

    def noise_on(self, split: str) -> dict[str, float]:
        """Dict task name -> what other seeds alone make of an improvement, in %.

        The standard deviation of the difference between one model and the mean of the
        single-task ones, if both vary alike; tasks with several seeds only.
        """
        means, spreads = self.metrics_on(split), self.spread_on(split)
        factor = 100.0 * math.sqrt(1.0 + 1.0 / len(self.seeds))
        noise = {
            task.name: factor
            * spreads[task.name][task.score.name]
            / (abs(means[task.name][task.score.name]) or math.nan)
            for task in self.tasks
        }
        return {name: value for name, value in noise.items() if math.isfinite(value)}

    def _values(self, split: str) -> dict[str, dict[str, list[float]]]:
        found: dict[str, dict[str, list[float]]] = {}
        for run in self.runs:
            for metric, value in run.metrics[split].items():
                found.setdefault(run.task, {}).setdefault(metric, []).append(value)
        return found

    def load_model(self, task: str, seed: int | None = None) -> keras.Model:
        """The stored model of a task; of the first seed by default."""
        names = [each.name for each in self.tasks]
        _checks.check_task_keys("task", {task: None}, names, partial=True)
        seed = self.seeds[0] if seed is None else seed
        _checks.check_choice("seed", seed, self.seeds)  # type: ignore[arg-type]
        for run in self.runs:
            if (run.task, run.seed) == (task, seed):
                from kmtl.training.loading import load_model

                return load_model(Path(run.folder) / "model.keras")
        raise ValueError(f"No baseline of task '{task}' with seed {seed}.")

    def to_json(self) -> str:
        """Everything but the models, as JSON."""
        runs = [dataclasses.asdict(run) for run in self.runs]
        content = {
            "format": FORMAT,
            "tasks": [task.to_config() for task in self.tasks],
            "runs": _change_numbers(runs, _to_text),
            "fingerprints": self.fingerprints,
            "configuration": self.configuration,
        }
        return json.dumps(content, indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, tasks: Sequence[Task] | None = None) -> Baselines:
        """The baselines that `to_json` wrote; of these tasks instead of those there."""
        content: Mapping[str, Any] = json.loads(text)
        if content.get("format") != FORMAT:
            raise ValueError(
                f"Baselines must have format {FORMAT}. "
                f"Received: format={content.get('format')}"
            )
        runs = []
        for run in content["runs"]:
            numbers = {
                name: _change_numbers(run[name], _to_number)
                for name in ("metrics", "history")
            }
            runs.append(BaselineRun(**{**run, **numbers}))
        return cls(
            tasks=tuple(tasks or map(Task.from_config, content["tasks"])),
            runs=tuple(runs),
            fingerprints=dict(content["fingerprints"]),
            configuration=content["configuration"],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json` to a file, whole or not at all."""
        _files.write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Baselines:
        """Read what `save` wrote.

        Raises:
            DamagedFileError: a ValueError, if it is something else.
        """
        content = Path(path).read_text("utf-8", "replace")
        try:
            return cls.from_json(content)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            what = f"it holds no baselines ({type(error).__name__}: {error})"
            remedy = "Call kmtl.baselines again: what it has trained, it finds again."
            raise _files.DamagedFileError(path, what, remedy) from error


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _deviation(values: list[float]) -> float:
    if len(values) < 2:
        return math.nan
    mean = _mean(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _change_numbers(tree: Any, change: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _change_numbers(part, change) for name, part in tree.items()}
    if isinstance(tree, list):
        return [_change_numbers(part, change) for part in tree]
    return change(tree)


def _to_text(value: Any) -> Any:
    """JSON has no NaN nor infinity: they become text."""
    return (
        str(value) if isinstance(value, float) and not math.isfinite(value) else value
    )


def _to_number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value
