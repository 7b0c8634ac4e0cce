"""A task's metric: how to make it, and which direction is better."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from kmtl import _checks


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of a task with its better direction.

    Args:
        name: Suffix in the logs (`<task>_<name>`). A name from the task kind's own
            list needs nothing else.
        metric: A `keras.metrics.Metric` (or its serialised config) for any other
            metric. It is called with one row per present label and its mask as
            `sample_weight`, on logits.
        higher_is_better: True or False. Taken from the kind's list when left out.

    Example:

    >>> import keras
    >>> kmtl.Metric("cosine", keras.metrics.CosineSimilarity(), higher_is_better=True)
    Metric(name='cosine', higher_is_better=True)
    """

    name: str
    metric: Any = dataclasses.field(default=None, repr=False)
    higher_is_better: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise ValueError(
                f"A metric's name must be an identifier. Received: name={self.name!r}"
            )
        object.__setattr__(self, "name", str(self.name))  # NumPy's are not saved
        if self.name == "loss":
            raise ValueError(
                "A metric may not be called 'loss': `<task>_loss` is the task's loss."
            )
        metric = self.metric
        if isinstance(metric, keras.metrics.Metric):
            metric = keras.saving.serialize_keras_object(metric)
            object.__setattr__(self, "metric", metric)
        if metric is not None:
            if not isinstance(metric, dict):
                raise TypeError(
                    f"`metric` must be a keras.metrics.Metric. Received: {metric!r}"
                )
            if not isinstance(self.higher_is_better, bool):
                raise ValueError(
                    f"Metric '{self.name}' needs `higher_is_better=True` or `False`: "
                    "search, tables and delta-m depend on it."
                )

    @property
    def custom(self) -> bool:
        """Whether this is a Keras metric and not one of the kind's own."""
        return self.metric is not None

    @property
    def direction(self) -> str:
        """`"max"` or `"min"`, as KerasTuner and Keras callbacks say it."""
        return "max" if self.higher_is_better else "min"

    def make(self, task: Any) -> keras.metrics.Metric:
        """A fresh Keras metric object."""
        if self.metric is not None:
            metric = keras.saving.deserialize_keras_object(self.metric)
            return metric.__class__.from_config(metric.get_config())
        factory, _ = task.METRICS[self.name]
        return factory(task, self.name)

    def to_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Metric:
        return cls(**config)


def resolve_metrics(task: Any, metrics: Any) -> tuple[Metric, ...]:
    """Names and Metric objects to checked Metric objects with a direction."""
    if isinstance(metrics, (str, Metric)):
        metrics = (metrics,)
    resolved = []
    for metric in metrics:
        if isinstance(metric, str):
            metric = Metric(metric)
        if not isinstance(metric, Metric):
            raise TypeError(
                f"`metrics` of task '{task.name}' must hold names or kmtl.Metric "
                f"objects, which say whether higher is better. Received: {metric!r}"
            )
        if not metric.custom:
            if metric.name not in task.METRICS:
                raise ValueError(
                    _checks.unknown_name(
                        f"metric of {task.registered_name} task '{task.name}'",
                        metric.name,
                        task.METRICS,
                    )
                    + " For any other, pass kmtl.Metric(name, keras_metric, "
                    "higher_is_better=...)."
                )
            direction = task.METRICS[metric.name][1]
            if metric.higher_is_better not in (None, direction):
                raise ValueError(
                    f"Metric '{metric.name}' of task '{task.name}' has "
                    f"higher_is_better={direction}. "
                    f"Received: higher_is_better={metric.higher_is_better}"
                )
            metric = dataclasses.replace(metric, higher_is_better=direction)
        resolved.append(metric)
    names = [metric.name for metric in resolved]
    if len(set(names)) != len(names):
        raise ValueError(
            f"`metrics` of task '{task.name}' must have distinct names. "
            f"Received: {names}"
        )
    return tuple(resolved)
