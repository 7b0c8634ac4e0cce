"""Goals and constraints: the parts of an objective, as users write them."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner

from kmtl import _checks
from kmtl.evaluation.delta import LOG_NAME
from kmtl.typing import Logs

#: The log of the total loss.
TOTAL = "val_loss"
#: The objective that keeps all tasks apart.
PARETO = "pareto"
#: The objective that compares trials by their ranks in every task.
MEAN_RANK = "mean_rank"

_CONSTRAINT = re.compile(r"^\s*(?P<name>\S+?)\s*(?P<sign>>=|<=)\s*(?P<bound>\S+)\s*$")


@dataclasses.dataclass(frozen=True)
class Goal:
    """A metric to improve.

    Args:
        name: A validation metric, as for a tuner's `objective`.
        direction: `"max"` or `"min"`. None: the metric's own, where the task knows it.
        tolerance: Float >= 0, in the metric's unit: in a list of priorities, trials
            this close to the best one are left to the next goal. Defaults to 0.
    """

    name: str
    direction: str = None  # type: ignore[assignment]  # known once it is resolved
    _: dataclasses.KW_ONLY
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.direction is not None:
            _checks.check_choice("direction", self.direction, ("max", "min"))
        tolerance = _checks.check_range("tolerance", self.tolerance, 0, 1e30)
        object.__setattr__(self, "tolerance", tolerance)


@dataclasses.dataclass(frozen=True)
class Constraint:
    """A bound that a trial's metric must keep to. `"name >= bound"` means the same.

    Args:
        name: A validation metric, as for a tuner's `objective`.
        sign: `">="` or `"<="`.
        bound: Finite number, in the metric's unit.

    Example:

    >>> constraint = kmtl.tuning.Constraint("val_digit_accuracy", ">=", 0.95)
    >>> str(constraint), round(constraint.violation({"val_digit_accuracy": 0.9}), 6)
    ('val_digit_accuracy >= 0.95', 0.05)
    """

    name: str
    sign: str
    bound: float

    def __post_init__(self) -> None:
        _checks.check_choice("sign", self.sign, (">=", "<="))
        bound = _checks.check_range("bound", self.bound, -1e30, 1e30)
        object.__setattr__(self, "bound", bound)

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.bound:g}"

    def violation(self, logs: Logs) -> float:
        """How far the bound is missed, in the metric's unit; `<= 0` where it is met."""
        value = float(logs[self.name])
        if math.isnan(value):
            return math.inf
        return self.bound - value if self.sign == ">=" else value - self.bound


@dataclasses.dataclass(frozen=True)
class Pareto:
    """Several goals side by side, none before the others.

    Args:
        goals: Names or `Goal`s, two or more. None: the score (first metric) of every
            task that is not auxiliary.
        constraints: `"name >= bound"` strings or `Constraint`s. Defaults to none.
    """

    goals: Sequence[Any] | None = None
    constraints: Sequence[Any] = ()


def parse_goal(
    given: Any, known: Mapping[str, str], scores: Sequence[str]
) -> Goal | Constraint:
    """A checked goal or constraint, from any of its forms.

    `known` has the direction of what the tasks log; `scores` are for messages.
    """
    part: Goal | Constraint
    if isinstance(given, str):
        found = _CONSTRAINT.match(given)
        part = _parse_constraint(given, found) if found else Goal(given)
    elif isinstance(given, (Goal, Constraint)):
        part = given
    elif type(given) is keras_tuner.Objective:
        part = Goal(given.name, given.direction)
    else:
        raise TypeError(
            "`objective` must be a name, a kmtl.tuning.Goal or Constraint, one "
            "keras_tuner.Objective, a list of them in the order of their priority, or "
            f"'{PARETO}'. Received: objective={given!r}"
        )
    name, direction = part.name, known.get(part.name)
    _check_name(name, known, scores)
    hint = f"{_checks.did_you_mean(name, known)} Expected one of: "
    hint += f"{', '.join(sorted(known))}. For a metric added in `compile`, "
    better = f"is better when {'higher' if direction == 'max' else 'lower'}"
    if isinstance(part, Constraint):
        if isinstance(given, str) and direction is None:
            raise ValueError(
                f"Unknown metric '{name}' in a constraint.{hint}give a "
                f"kmtl.tuning.Constraint. Received: objective='{given}'"
            )
        right = ">=" if direction == "max" else "<="
        if direction is not None and part.sign != right:
            raise ValueError(
                f"`objective` '{name}' {better}: its constraint says '{right}'. "
                f"Received: objective='{part}'"
            )
        return part
    if direction is None and part.direction is None:
        raise ValueError(
            f"Unknown objective '{name}'.{hint}say which way is better: "
            f"keras_tuner.Objective('{name}', direction='max')."
        )
    if direction is not None and part.direction not in (None, direction):
        raise ValueError(
            f"`objective` '{name}' {better}. Received: direction='{part.direction}'"
        )
    return dataclasses.replace(part, direction=direction or part.direction)


def _parse_constraint(given: str, found: re.Match[str]) -> Constraint:
    try:
        bound = float(found["bound"])
    except ValueError:
        raise ValueError(
            "a constraint is 'name >= number' or 'name <= number'. "
            f"Received: objective='{given}'"
        ) from None
    return Constraint(found["name"], found["sign"], bound)


def _check_name(name: str, known: Mapping[str, str], scores: Sequence[str]) -> None:
    if name in ("loss", TOTAL) and name not in known:
        raise ValueError(
            "`objective` may not be the total loss where a weight in it differs "
            "between trials or moves in training (task weights, a weighting, l2): it "
            "is lowest where these are smallest, whatever the tasks' scores. Use a "
            f"task's metric ({', '.join(map(repr, scores))}) or '{LOG_NAME}'. "
            f"Received: objective='{name}'"
        )
    if not name.startswith("val_"):
        hint = f"val_{name}" if f"val_{name}" in known else name
        raise ValueError(
            "`objective` must be measured on the validation data: a name that starts "
            f"with 'val_'.{_checks.did_you_mean(hint, known)} "
            f"Received: objective='{name}'"
        )
