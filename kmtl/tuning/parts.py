"""Dimensions of several numbers: one for every block, one for every task."""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from kmtl import _checks
from kmtl._dimensions import Dimension
from kmtl.typing import HyperParameters


@dataclasses.dataclass(frozen=True)
class PerBlock(Dimension):
    """A dropout rate for each block: `dropout_block1`, `dropout_block2`, ...

    Args:
        low, high: Range of the rates, in [0, 1). Defaults to 0 and 0.5.
        blocks: Largest number of blocks; filled in by the search space. A trial with
            fewer blocks uses the first ones.
    """

    low: float = 0.0
    high: float = 0.5
    _: dataclasses.KW_ONLY
    blocks: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        low = _checks.check_range("low", self.low, 0, 1, high_open=True)
        object.__setattr__(self, "low", low)
        high = _checks.check_range("high", self.high, low, 1, high_open=True)
        object.__setattr__(self, "high", high)

    def declare(self, hp: HyperParameters, name: str) -> tuple[float, ...]:
        return tuple(
            float(hp.Float(f"{name}_block{i + 1}", self.low, self.high))
            for i in range(self.blocks)
        )

    def entries(self, name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Sequence):
            return {name: value}
        return {f"{name}_block{i}": item for i, item in enumerate(value, 1)}

    def shown(self, name: str, value: Any, hp: HyperParameters) -> dict[str, Any]:
        return self.entries(name, value)


@dataclasses.dataclass(frozen=True)
class PerTask(Dimension):
    """A sharing depth for each task: `sharing_depth_<task>`.

    The smaller it is, the earlier a task leaves the shared trunk. Depths that give the
    same model are brought together: nobody goes deeper in company than the second
    deepest task.

    Args:
        low: Integer >= 0. Defaults to 0.
        high: Integer. None (the default) is the number of blocks.
        tasks: The tasks' names; filled in by the search space.
    """

    low: int = 0
    high: int | None = None
    _: dataclasses.KW_ONLY
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        low = _checks.check_int("low", self.low, 0)
        object.__setattr__(self, "low", low)
        if self.high is not None:
            object.__setattr__(self, "high", _checks.check_int("high", self.high, low))

    def declare(self, hp: HyperParameters, name: str) -> dict[str, int]:
        high = self.low if self.high is None else self.high
        return {
            task: int(hp.Int(f"{name}_{task}", self.low, high, default=high))
            for task in self.tasks
        }

    def entries(self, name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            return {name: value}
        return {f"{name}_{task}": item for task, item in value.items()}


def effective_depths(depths: dict[str, int], blocks: int | None) -> dict[str, int]:
    """Depths without what makes no difference, for a model with so many blocks."""
    highest = max(depths.values()) if blocks is None else blocks
    cut = {name: min(depth, highest) for name, depth in depths.items()}
    company = sorted(cut.values())[-2] if len(cut) > 1 else highest
    return {name: min(depth, company) for name, depth in cut.items()}


# -- task weights ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WeightDimension(Dimension):
    """What `space["task_weights"]` may be: all tasks' weights together.

    Args:
        total: What the weights sum to, > 0. None: their number, so that equal weights
            are 1 each, as those of single-task models and of a model that is built
            without any. (To plain SGD a smaller sum is a smaller learning rate.)
        tasks: The tasks' names; filled in by the search space.
    """

    _: dataclasses.KW_ONLY
    total: float | None = None
    tasks: tuple[str, ...] = ()
    #: Whether a weight may be 0.
    reaches_0: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.total is not None:
            _checks.check_range("total", self.total, 0, 1e30, low_open=True)

    @property
    def sum(self) -> float:
        """What the weights sum to, once the tasks are known."""
        return float(len(self.tasks) if self.total is None else self.total)

    def bound_to(self, tasks: tuple[str, ...]) -> WeightDimension:
        """The same for these tasks."""
        return dataclasses.replace(self, tasks=tasks)

    @abc.abstractmethod
    def declare(self, hp: HyperParameters, name: str) -> dict[str, float]:
        """Enter the weights into `hp` and return them: dict task name -> weight."""

    def entries(self, name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            return {name: value}
        _checks.check_task_keys(name, value, self.tasks)
        weights = [float(value[task]) for task in self.tasks]
        least = min(weights)
        if least < 0 or math.fsum(weights) <= 0 or (not self.reaches_0 and least == 0):
            raise ValueError(
                f"`{name}` must be > 0 in all (`TaskWeights`: for every task). "
                f"Received: {name}={dict(value)!r}"
            )
        return self._of_weights(name, weights) or {name: value}

    def shown(self, name: str, value: Any, hp: HyperParameters) -> dict[str, Any]:
        return super().shown("task_weight", value, hp)

    @abc.abstractmethod
    def _of_weights(self, name: str, weights: Sequence[float]) -> dict[str, Any]:
        """The hyperparameters of weights in the order of the tasks, if there are."""


@dataclasses.dataclass(frozen=True)
class TaskWeights(WeightDimension):
    """Weights of the tasks on the simplex, spread evenly over their ratios.

    T tasks have T - 1 hyperparameters: `weight_ratio_<task>`, how many times the weight
    of the first task each other task has, uniform in the logarithm from `low` to
    `high`. The weights are then scaled to sum to `total`. One parameter per task would
    leave a direction along which nothing changes, which a Gaussian process would have
    to learn from trials.

    Args:
        low: Smallest ratio, > 0. Defaults to 1/10.
        high: Largest ratio. Defaults to 10.
        total: What the weights sum to, > 0. None (the default): the number of tasks,
            so that equal weights are 1 each, as a builder's are.
        tasks: The tasks' names; filled in by the search space.

    Example:

    >>> import keras_tuner
    >>> weights = kmtl.tuning.TaskWeights(tasks=("digit", "mask"))
    >>> hp = keras_tuner.HyperParameters()
    >>> weights.declare(hp, "task_weights")
    {'digit': 1.0, 'mask': 1.0}
    >>> hp.values["weight_ratio_mask"] = 3.0
    >>> weights.declare(hp, "task_weights")
    {'digit': 0.5, 'mask': 1.5}
    """

    low: float = 0.1
    high: float = 10.0
    reaches_0: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        low = _checks.check_range("low", self.low, 0, 1e30, low_open=True)
        _checks.check_range("high", self.high, low, 1e30)

    def declare(self, hp: HyperParameters, name: str) -> dict[str, float]:
        ratios = [1.0]
        default = min(max(1.0, self.low), self.high)
        for task in self.tasks[1:]:
            ratio = hp.Float(
                f"weight_ratio_{task}",
                float(self.low),
                float(self.high),
                sampling="log",
                default=default,
            )
            ratios.append(float(ratio))
        unit = self.sum / math.fsum(ratios)
        return {
            task: ratio * unit for task, ratio in zip(self.tasks, ratios, strict=True)
        }

    def _of_weights(self, name: str, weights: Sequence[float]) -> dict[str, Any]:
        return {
            f"weight_ratio_{task}": weight / weights[0]
            for task, weight in zip(self.tasks[1:], weights[1:], strict=True)
        }


@dataclasses.dataclass(frozen=True)
class UniformWeights(WeightDimension):
    """Weights of the tasks, uniform on the simplex: every mixture is as likely.

    T tasks have T - 1 hyperparameters in [0, 1], `weight_stick_<task>`: the quantile of
    the part that a task takes of what the tasks before it have left. The last task gets
    the rest. Unlike `TaskWeights`, it reaches weights of almost 0.

    Args:
        low: Smallest weight, >= 0, `low * T < total`. Defaults to 0.
        total: What the weights sum to, > 0. None (the default): the number of tasks.
        tasks: The tasks' names; filled in by the search space.

    Example:

    >>> import keras_tuner
    >>> weights = kmtl.tuning.UniformWeights(tasks=("digit", "mask"))
    >>> hp = keras_tuner.HyperParameters()
    >>> weights.declare(hp, "task_weights")
    {'digit': 1.0, 'mask': 1.0}
    >>> hp.values["weight_stick_digit"] = 0.2
    >>> weights.declare(hp, "task_weights")
    {'digit': 0.4, 'mask': 1.6}
    """

    low: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        most = self.sum / len(self.tasks) if self.tasks else math.inf
        _checks.check_range("low", self.low, 0, most, high_open=True)

    def declare(self, hp: HyperParameters, name: str) -> dict[str, float]:
        left = free = self.sum - self.low * len(self.tasks)
        weights = {}
        for place, task in enumerate(self.tasks[:-1]):
            others = len(self.tasks) - 1 - place
            default = 1.0 - (others / (others + 1)) ** others  # equal weights
            quantile = hp.Float(f"weight_stick_{task}", 0.0, 1.0, default=default)
            rest = left * (1.0 - float(quantile)) ** (1.0 / others)
            weights[task] = left - rest
            left = rest
        weights[self.tasks[-1]] = left
        digits = 15 - math.ceil(math.log10(free))  # 0.2, not 0.19999999999999996
        return {name: round(part, digits) + self.low for name, part in weights.items()}

    def _of_weights(self, name: str, weights: Sequence[float]) -> dict[str, Any]:
        scale = self.sum / math.fsum(weights)
        parts = [weight * scale - self.low for weight in weights]
        left, found = math.fsum(parts), {}
        for place, task in enumerate(self.tasks[:-1]):
            others = len(parts) - 1 - place
            rest = left - parts[place]
            quantile = 1.0 - (rest / left) ** others if left > 0 else 0.0
            found[f"weight_stick_{task}"] = min(max(quantile, 0.0), 1.0)
            left = rest
        return found


@dataclasses.dataclass(frozen=True)
class WeightGrid(WeightDimension):
    """Weights of the tasks from a list.

    Args:
        points: Integer n: all multiples of 1/n above 0 that sum to 1, times `total`,
            which are (n - 1 over T - 1) points for T tasks; or a list of dicts task
            name -> weight, taken as they are.
        total: What the weights of an integer `points` sum to, > 0. None (the default):
            the number of tasks.
        tasks: The tasks' names; filled in by the search space.

    Example:

    >>> grid = kmtl.tuning.WeightGrid(4, tasks=("digit", "mask"))
    >>> grid.names
    ('0.25/0.75', '0.5/0.5', '0.75/0.25')
    >>> grid.weights[0]
    {'digit': 0.5, 'mask': 1.5}
    """

    points: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.points, (list, tuple)):
            if self.total is not None:
                raise ValueError(
                    "`total` must be None for a list of `points`, which are taken as "
                    f"they are. Received: total={self.total}"
                )
            if not self.points:
                raise ValueError("`points` must have one point or more. Received: []")
            for point in self.points:
                if not isinstance(point, Mapping):
                    raise TypeError(
                        "`points` must be an integer or a list of dicts task name -> "
                        f"weight. Received: {point!r}"
                    )
            object.__setattr__(self, "points", tuple(map(_Point, self.points)))
        else:
            low = max(len(self.tasks), 1)
            points = _checks.check_int("points", self.points, low)
            object.__setattr__(self, "points", points)
        if self.tasks and len(set(self.names)) != len(self.names):
            raise ValueError(
                f"`points` must be distinct. Received: {', '.join(self.names)}"
            )

    @property
    def weights(self) -> tuple[dict[str, float], ...]:
        """All points, as dicts task name -> weight."""
        unit = 1.0 if isinstance(self.points, tuple) else self.sum
        return tuple(
            {name: unit * part for name, part in point.items()}
            for point in self._shares
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the points in tables: weights or shares, in the order of tasks."""
        return tuple(
            "/".join(f"{part:.6g}" for part in point.values()) for point in self._shares
        )

    @property
    def _shares(self) -> tuple[dict[str, float], ...]:
        if isinstance(self.points, tuple):
            return tuple(_checked(point, self.tasks) for point in self.points)
        shares = range(1, self.points - len(self.tasks) + 2)
        return tuple(
            dict(zip(self.tasks, [k / self.points for k in point], strict=True))
            for point in itertools.product(shares, repeat=len(self.tasks))
            if sum(point) == self.points
        )

    def declare(self, hp: HyperParameters, name: str) -> dict[str, float]:
        names = self.names
        even = [len(set(point.values())) == 1 for point in self.weights]
        default = names[even.index(True) if any(even) else 0]
        chosen = hp.Choice(name, list(names), default=default, ordered=False)
        return dict(self.weights[names.index(chosen)])

    def _of_weights(self, name: str, weights: Sequence[float]) -> dict[str, Any]:
        scale = math.fsum(weights)
        for known, point in zip(self.names, self.weights, strict=True):
            total = math.fsum(point.values())
            if all(
                math.isclose(weight / scale, part / total, rel_tol=1e-6)
                for weight, part in zip(weights, point.values(), strict=True)
            ):
                return {name: known}
        return {}


class _Point(dict):
    """A dict that a frozen dataclass can hash."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self.items())))


def _checked(point: Mapping[str, float], tasks: Sequence[str]) -> dict[str, float]:
    _checks.check_task_keys("points", point, tasks)
    return {
        task: _checks.check_range(f"points['{task}']", point[task], 0, 1e30)
        for task in tasks
    }
