"""The tasks' metric objects of one compiled model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.metrics.keras_forms import direction_of
from kmtl.metrics.keras_metric import KerasMetric
from kmtl.metrics.side_by_side import side_by_side
from kmtl.tasks.base import Task
from kmtl.tasks.metric import Metric, plain_name, served
from kmtl.training.alike import Folded
from kmtl.training.labels import with_any
from kmtl.typing import TaskName, Tensor


class TaskMetrics:
    """Per task: its own metrics, and those given to `compile`.

    Args:
        tasks: Dict task name -> task.
        shapes: Dict task name -> shape of a batch of its outputs.
        metrics: `compile(metrics=...)`: dict task name -> metric or list of metrics.
        weighted_metrics: The same, with sample weights applied.
        groups: Groups of tasks alike, whose own metrics are kept side by side.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        shapes: Mapping[str, tuple[int | None, ...]],
        metrics: Mapping[TaskName, Any] | None,
        weighted_metrics: Mapping[TaskName, Any] | None,
        groups: Sequence[tuple[TaskName, ...]] = (),
    ):
        self.tasks = dict(tasks)
        self.shapes = dict(shapes)
        self._given: dict[str, dict | None] = {}
        #: Log name -> (task, metric object, weighted), of metrics by themselves.
        self.entries: dict[str, tuple[str, keras.metrics.Metric, bool]] = {}
        # group of tasks -> their metric objects, and of each the log names
        self._alike: dict[tuple, list[tuple[keras.metrics.Metric, list[str]]]] = {}
        #: Log names, in the order of the tasks.
        self.names: tuple[str, ...] = ()
        #: Log name -> `"max"` or `"min"`, where it is known.
        self.directions: dict[str, str] = {}
        together = self._side_by_side(groups)
        for name, task in self.tasks.items():
            for metric in task.metrics:
                if (name, metric.name) in together:
                    self._note(name, metric.name, metric.direction)
                    continue
                weighted = task.sample_weight is not None
                made = metric.make(task)
                self._add(name, metric.name, made, weighted, metric.direction)
        self._extend("metrics", metrics, False)
        self._extend("weighted_metrics", weighted_metrics, True)

    def _side_by_side(self, groups: Sequence[tuple[TaskName, ...]]) -> set[tuple]:
        """Make the metrics that groups of tasks have in common.

        Returns:
            Pairs of names, of a task and of a metric, that they stand for.
        """
        together: set[tuple] = set()
        for group in groups:
            first, *others = (self.tasks[name] for name in group)
            found = self._alike[group] = []
            for metric in first.metrics:
                if any(metric not in task.metrics for task in others):
                    continue
                made = side_by_side(metric.make(first), len(group))
                if made is not None:
                    found.append((made, [f"{name}_{metric.name}" for name in group]))
                    together.update((name, metric.name) for name in group)
        return together

    def _note(self, task: TaskName, label: str, direction: str | None) -> None:
        key = f"{task}_{label}"
        if label == "loss" or key in self.names:
            raise ValueError(
                f"Task '{task}' would log '{key}' twice. Give one of its metrics "
                f"another name, such as name='{label}_2nd'."
            )
        self.names = (*self.names, key)
        if direction is not None:
            self.directions[key] = direction

    def _extend(
        self, argument: str, given: Mapping[TaskName, Any] | None, weighted: bool
    ) -> None:
        given = _checks.check_task_keys(argument, given or {}, self.tasks, partial=True)
        kept: dict[str, list] = {}
        for name, specs in given.items():
            kept[name] = []
            for spec in specs if isinstance(specs, (list, tuple)) else [specs]:
                if spec is None:
                    continue
                if not weighted and any(
                    spec == m.name for m in self.tasks[name].metrics
                ):
                    continue  # logged already
                label, made, direction = self._make(self.tasks[name], spec)
                if f"{name}_{label}" in self.names and weighted:
                    label = f"weighted_{label}"
                self._add(name, label, made, weighted, direction)
                kept[name].append(
                    spec.to_config() if isinstance(spec, Metric) else spec
                )
        self._given[argument] = kept or None

    def _add(
        self,
        task: str,
        label: str,
        metric: keras.metrics.Metric,
        weighted: bool,
        direction: str | None,
    ) -> None:
        key = f"{task}_{label}"
        known = (entry[1] for entry in self.entries.values())
        if any(_inner(metric) is _inner(other) for other in known):
            raise ValueError(
                f"Metric object '{label}' is given twice, and would mix two streams. "
                f"Give task '{task}' an object of its own."
            )
        self._note(task, label, direction)
        if isinstance(metric, KerasMetric):
            metric.build_for(self.shapes[task])
        self.entries[key] = (task, metric, weighted)

    def config(self, argument: str) -> dict | None:
        """What was given, for `get_compile_config`."""
        return self._given[argument]

    def objects(self) -> list:
        """The Keras metric objects."""
        return [metric for _, metric in self._named()]

    @property
    def groups(self) -> list[tuple[TaskName, ...]]:
        """Groups of tasks with metrics side by side."""
        return [group for group, pairs in self._alike.items() if pairs]

    def are_alone(self, name: str) -> bool:
        """Whether a task has metrics that are not kept with those of others."""
        return any(task == name for task, *_ in self.entries.values())

    def update_alike(self, groups: Sequence[Folded]) -> None:
        """Add a batch of the groups of tasks alike."""
        for group in groups:
            seen = group.mask * ops.cast(group.weights > 0, group.mask.dtype)
            if group.task.sample_weight is not None:
                seen = group.weights
            for metric, _ in self._alike[group.names]:
                metric.update_state(group.labels, group.outputs, seen)

    def update(
        self,
        name: str,
        labels: Tensor,
        outputs: tuple[Tensor, Tensor],
        mask: Tensor,
        weights: Tensor,
    ) -> None:
        """Add a batch of one task.

        Args:
            outputs: Those that the loss saw, and those that the net gives by itself.
            mask: 1 where the label is there.
            weights: Mask times sample weights. Where it is 0 the label counts as
                missing; unweighted metrics ignore its size otherwise.
        """
        seen = with_any(weights, mask)
        for task, metric, weighted in self.entries.values():
            if task == name:
                own = getattr(metric, "as_written", False)
                given = weights if weighted else seen
                metric.update_state(labels, outputs[own], given)

    def vectors(self) -> list[tuple[tuple[str, ...], Tensor]]:
        """What `results` gives, as names and a vector of their values, in any order."""
        return [
            (names, ops.reshape(ops.cast(metric.result(), "float32"), (len(names),)))
            for names, metric in self._named()
        ]

    def results(self) -> dict[str, Tensor]:
        """Log name -> value."""
        found = _by_name((names, metric.result()) for names, metric in self._named())
        return {key: found[key] for key in self.names}

    def exact_results(self, rows: int | None = None) -> dict[str, Tensor]:
        """Log name -> value of the metrics that are less exact inside of steps.

        Args:
            rows: How many may have been seen at most, where that is known.
        """
        return _by_name(
            (names, metric.exact_result(rows))
            for names, metric in self._named()
            if hasattr(metric, "exact_result")
        )

    def _named(self) -> list[tuple[tuple[str, ...], keras.metrics.Metric]]:
        """The metrics, each with the log names of its values."""
        alone = [((key,), entry[1]) for key, entry in self.entries.items()]
        pairs = [pair for pairs in self._alike.values() for pair in pairs]
        return [*alone, *((tuple(keys), metric) for metric, keys in pairs)]

    def _make(
        self, task: Task, spec: Any
    ) -> tuple[str, keras.metrics.Metric, str | None]:
        """`(name, metric object, direction)` of a metric given to `compile`."""
        if isinstance(spec, Mapping) and set(spec) == {
            "name",
            "metric",
            "higher_is_better",
        }:
            spec = Metric.from_config(spec)
        if isinstance(spec, Metric):
            spec = task.replace(metrics=(spec,)).metrics[0]
            return spec.name, spec.make(task), spec.direction
        if isinstance(spec, str) and spec in task.METRICS:
            factory, higher = task.METRICS[spec]
            return spec, factory(task, spec), "max" if higher else "min"
        if getattr(spec, "__module__", "").startswith("keras.") and not isinstance(
            spec, (type, keras.metrics.Metric)
        ):
            spec = spec.__name__  # of Keras' functions there are classes
        try:
            metric = keras.metrics.get(spec)
        except ValueError as error:
            raise ValueError(
                _checks.unknown_name(
                    f"metric of task '{task.name}':", spec, task.METRICS
                )
                + " Or a Keras metric."
            ) from error
        if isinstance(metric, type):
            metric = metric()
        made = served(task, metric, self.shapes[task.name][-1])
        name = plain_name(metric) if made is metric else made.name
        return name, made, direction_of(metric)


def _inner(metric: keras.metrics.Metric) -> keras.metrics.Metric:
    return metric.metric if isinstance(metric, KerasMetric) else metric


def _by_name(found: Iterable[tuple[tuple[str, ...], Tensor]]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for names, result in found:
        parts = ops.unstack(result, len(names)) if result.ndim else [result]
        values.update(zip(names, parts, strict=True))
    return values
