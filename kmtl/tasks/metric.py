"""A task's metric: how to make it, and which direction is better."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import keras

from kmtl import _checks
from kmtl.metrics.keras_forms import form_of, known_name
from kmtl.metrics.keras_metric import OWN, FunctionMetric, KerasMetric
from kmtl.typing import Config, Options


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of a task with its better direction.

    Args:
        name: Suffix in the logs (`<task>_<name>`). A name from the task kind's own
            list needs nothing else.
        metric: A `keras.metrics.Metric` (or its serialised config) for any other
            metric, of Keras or of your own. It gets what it is made for: probabilities
            (logits if it says `from_logits=True`, or takes margins as `Hinge` does),
            one-hot labels where Keras documents them, whole rows where it reduces
            columns. A row counts if all its labels are there. Your own metrics get
            labels and activated outputs as they are; subclasses of those in
            `kmtl.metrics` get logits and a mask.
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
            return served(task, metric.__class__.from_config(metric.get_config()))
        factory, _ = task.METRICS[self.name]
        return factory(task, self.name)

    def to_config(self) -> Config:
        return {
            "name": self.name,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
        }

    @classmethod
    def from_config(cls, config: Options) -> Metric:
        return cls(**config)


def served(task: Any, metric: Any, width: int | None = None) -> keras.metrics.Metric:
    """A metric as the task's labels, logits and mask can be given to it.

    Args:
        metric: A `keras.metrics.Metric`, or a function of labels and outputs.
        width: Number of columns of the outputs, where it is known.

    Raises:
        ValueError: for a metric that means nothing for the task.
    """
    if isinstance(metric, OWN):
        return metric
    if not isinstance(metric, keras.metrics.Metric):
        name = getattr(metric, "__name__", type(metric).__name__)
        return FunctionMetric(metric, task.activate, task.given_labels, name=name)
    if (
        isinstance(metric, keras.metrics.MeanIoU | keras.metrics.IoU)
        and known_name(metric) == type(metric).__name__
    ):
        # Counted in integers by default, which would cut off weights below 1.
        config = {**metric.get_config(), "dtype": "float32"}
        metric = type(metric).from_config(config)
    kind = task.label_kind
    form = form_of(metric, task.name, kind, width, task.output_activation)
    classes = task.class_count if kind == "classes" else None
    return KerasMetric(
        *(metric, form, classes, task.activate, task.given_labels),
        name=plain_name(metric),
    )


def plain_name(metric: keras.metrics.Metric) -> str:
    """A metric's name without the number that Keras counts up in a process.

    The second `keras.metrics.Precision()` of a process is called `precision_1`.
    """
    own = to_snake_case(type(metric).__name__)
    counted = re.fullmatch(rf"{own}_\d+", metric.name)
    return own if counted else str(metric.name)


def to_snake_case(name: str) -> str:
    """`MeanIoU` to `mean_io_u`, as Keras names its objects."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


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
                        f"metric of {task.registered_name} task '{task.name}':",
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
        else:
            metric.make(task)  # refuses what cannot be served
        resolved.append(metric)
    names = [metric.name for metric in resolved]
    if len(set(names)) != len(names):
        raise ValueError(
            f"`metrics` of task '{task.name}' must have distinct names. "
            f"Received: {names}"
        )
    return tuple(resolved)
