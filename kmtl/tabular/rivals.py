"""What nets are compared with, and averaged with: linear models and trees of
scikit-learn."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kmtl.inputs.table import Table
from kmtl.tabular.clock import Clock
from kmtl.tabular.scores import Skill, kind_of, present
from kmtl.tasks.base import Task

LINEAR, FOREST, TREES = "linear model", "forest", "gradient boosting"
#: Share of the time within which further settings are tried; the first always is.
SHARE = 0.2
#: scikit-learn's trees take so many categories of a column.
MOST_CATEGORIES = 255

#: Strengths of the penalty, first what is tried first.
RIDGE = (1.0, 10.0, 0.1, 100.0, 1000.0)
LOGISTIC = (1.0, 0.1, 0.01, 10.0)
#: Rate, leaves and trees; the first are scikit-learn's defaults.
BOOSTING = ((0.1, 31, 100), (0.05, 15, 400), (0.1, 7, 200))
#: Kind, rows in a leaf at least, and share of the columns that a division looks at.
FOREST_OF_VALUES = (
    ("ExtraTrees", 1, 1.0),
    ("RandomForest", 1, "sqrt"),
    ("ExtraTrees", 5, 1.0),
    ("RandomForest", 5, 1.0),
)
FOREST_OF_CLASSES = (
    ("RandomForest", 1, "sqrt"),
    ("RandomForest", 5, "sqrt"),
    ("ExtraTrees", 2, "sqrt"),
)
#: Trees of a forest: as many as there are nodes for, in all targets together.
MOST_TREES, LEAST_TREES, MOST_NODES = 300, 50, 4_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Rival:
    """A fitted model of one target.

    Args:
        task: The target's task.
        model: scikit-learn's.
        choice: Its settings, in words.
        skill: On the validation rows.
    """

    task: Task
    model: Any
    choice: str
    skill: float

    def answers(self, x: np.ndarray) -> np.ndarray:
        """What it says of prepared rows, as `kmtl.tabular.scores` takes it."""
        return _answers(self.task, self.model, x)


@dataclasses.dataclass(frozen=True, eq=False)
class Rivals:
    """One kind of models, one for each target: what a net for all of them is.

    Args:
        name: Of the kind.
        by_target: Target -> its model.
        answers: Target -> answers for the validation rows.
    """

    name: str
    by_target: Mapping[str, Rival]
    answers: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, name: str, by_target: Mapping[str, Rival], x: np.ndarray) -> Rivals:
        """With the answers for prepared validation rows."""
        answers = {target: rival.answers(x) for target, rival in by_target.items()}
        return cls(name, by_target, answers)

    @property
    def skill(self) -> float:
        """Mean over the targets."""
        return float(np.mean([rival.skill for rival in self.by_target.values()]))


def fit_rivals(
    table: Table,
    tasks: list[Task],
    x: np.ndarray,
    y: Mapping[str, np.ndarray],
    validation_x: np.ndarray,
    skills: Mapping[str, Skill],
    clock: Clock,
    seed: int,
) -> dict[str, Rivals]:
    """Kind -> of each target the best of its settings on the validation rows.

    Args:
        table: Says what the columns of `x` are.
        tasks: The targets' tasks.
        x, y: Prepared training rows.
        validation_x: Prepared validation rows.
        skills: Per target, how its answers for these are judged.
        clock: Further settings are tried within a share of its time.
        seed: Of the trees.
    """
    whole = clock.share(SHARE)
    own = Clock(None if whole is None else whole / 60)
    forest = functools.partial(_forest, trees=_trees_for(len(x), len(tasks)))
    kinds: dict[str, Callable[[Table, Task, int, int], Any]] = {
        LINEAR: _linear,
        FOREST: forest,
        TREES: _trees,
    }
    found: dict[str, dict[str, Rival]] = {kind: {} for kind in kinds}
    tried: dict[tuple[str, str], int] = {}
    most = max(map(len, (RIDGE, LOGISTIC, BOOSTING, FOREST_OF_VALUES)))
    for number in range(most):
        for kind, settings in kinds.items():
            for task in tasks:
                if number and own.over:
                    continue
                made = settings(table, task, number, seed)
                if made is None:
                    continue
                model, choice = made
                rival = _fitted(task, model, choice, x, y[task.name], validation_x)
                rival = dataclasses.replace(
                    rival, skill=skills[task.name](rival.answers(validation_x))
                )
                tried[kind, task.name] = number + 1
                best = found[kind].get(task.name)
                if best is None or rival.skill > best.skill:
                    found[kind][task.name] = rival
    for kind, by_target in found.items():
        for name, one in by_target.items():
            choice = f"{one.choice}; best of {tried[kind, name]}"
            by_target[name] = dataclasses.replace(one, choice=choice)
    return {
        kind: Rivals.of(kind, by_target, validation_x)
        for kind, by_target in found.items()
    }


def _fitted(
    task: Task,
    model: Any,
    choice: str,
    x: np.ndarray,
    labels: np.ndarray,
    validation_x: np.ndarray,
) -> Rival:
    from sklearn.dummy import DummyClassifier
    from sklearn.exceptions import ConvergenceWarning

    there = present(task, labels)
    labels = labels[there].reshape(-1)
    if kind_of(task) != "regression" and len(np.unique(labels)) < 2:
        model, choice = DummyClassifier(), "one class in all training rows"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x[there], labels)
    return Rival(task, model, choice, -np.inf)


def _answers(task: Task, model: Any, x: np.ndarray) -> np.ndarray:
    if kind_of(task) == "regression":
        return np.asarray(model.predict(x), "float64").reshape(-1)
    # Classes that no training row has are not among the model's.
    chances = np.zeros((len(x), task.label_count))
    chances[:, model.classes_.astype(np.int64)] = model.predict_proba(x)
    return chances[:, 1] if kind_of(task) == "binary_classification" else chances


def _trees_for(rows: int, targets: int) -> int:
    """How many trees a forest has: fewer where trees of many rows would fill memory."""
    nodes = 2 * rows * targets  # of a tree whose leaves hold a row each
    return max(LEAST_TREES, min(MOST_TREES, MOST_NODES // nodes))


def _linear(table: Table, task: Task, number: int, seed: int) -> Any:
    """Ridge or logistic regression on standard units and one-hot categories."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    regression = kind_of(task) == "regression"
    options = RIDGE if regression else LOGISTIC
    if number >= len(options):
        return None
    value = options[number]
    numbers, flags, codes = columns_of(table)
    front = ColumnTransformer(
        [
            ("numbers", StandardScaler(), numbers),
            ("flags", "passthrough", flags),
            ("codes", OneHotEncoder(handle_unknown="ignore"), codes),
        ]
    )
    if regression:
        return make_pipeline(front, Ridge(value)), f"ridge, penalty {value:g}"
    model = LogisticRegression(C=value, max_iter=1000)
    return make_pipeline(front, model), f"logistic regression, C {value:g}"


def _forest(table: Table, task: Task, number: int, seed: int, trees: int) -> Any:
    """Many trees, each of other rows or divisions; categories by their numbers."""
    from sklearn import ensemble

    regression = kind_of(task) == "regression"
    options = FOREST_OF_VALUES if regression else FOREST_OF_CLASSES
    if number >= len(options):
        return None
    kind, leaf, share = options[number]
    model = getattr(ensemble, f"{kind}{'Regressor' if regression else 'Classifier'}")(
        trees, min_samples_leaf=leaf, max_features=share, random_state=seed
    )
    name = {"ExtraTrees": "extra trees", "RandomForest": "random trees"}[kind]
    columns = "all columns" if share == 1.0 else f"{share} of the columns"
    return model, f"{trees} {name}, leaves of {leaf} or more rows, {columns}"


def _trees(table: Table, task: Task, number: int, seed: int) -> Any:
    from sklearn import ensemble

    if number >= len(BOOSTING):
        return None
    rate, leaves, count = BOOSTING[number]
    _, _, codes = columns_of(table)
    sizes = dict(zip(codes, table.cardinalities, strict=True))
    few = [column for column, size in sizes.items() if size <= MOST_CATEGORIES]
    regression = kind_of(task) == "regression"
    kind = "Regressor" if regression else "Classifier"
    model = getattr(ensemble, f"HistGradientBoosting{kind}")(
        learning_rate=rate,
        max_leaf_nodes=leaves,
        max_iter=count,
        early_stopping=False,
        categorical_features=few or None,
        random_state=seed,
    )
    return model, f"{count} trees of {leaves} leaves, rate {rate:g}"


def columns_of(table: Table) -> tuple[list[int], list[int], list[int]]:
    """Places of numbers, of flags for missing cells, and of codes of categories."""
    first = len(table.parts)
    second = first + len(table.indicators)
    last = second + len(table.categorical)
    return (
        list(range(first)),
        list(range(first, second)),
        list(range(second, last)),
    )
