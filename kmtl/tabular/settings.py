"""Settings of scikit-learn's linear models and trees that are tried on a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from kmtl.inputs.table import Table
from kmtl.tabular.scores import kind_of
from kmtl.tasks.base import Task

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
#: The fewest trees, rounds of boosting and steps where there is no time for more.
FEW_TREES, FEW_ROUNDS, FEW_STEPS = 10, 20, 20


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """A model that is not fitted yet.

    Args:
        model: scikit-learn's.
        words: Count -> what it is, in words.
        count: Its parameter that says how many trees, rounds or steps are taken, or
            None where none does.
        most, least: That many, and how few where there is no time for more.
        probes: Two counts, of which the first may be 0, between which the time of one
            more is seen.
        at_once: Whether it takes threads as `n_jobs`, each with trees of its own.
        stops: Whether it may come to its end before `most`.
    """

    model: Any
    words: Callable[[int], str]
    count: str | None = None
    most: int = 1
    least: int = 1
    probes: tuple[int, int] = (0, 1)
    at_once: bool = False
    stops: bool = False

    def made(self, count: int, threads: int = 1) -> Any:
        """The model with so many trees, rounds or steps, to be fitted by threads."""
        from sklearn.base import clone

        model = clone(self.model)
        if self.count is not None:
            model.set_params(**{self.count: count})
        if self.at_once and threads > 1:
            model.set_params(n_jobs=threads)
        return model


def linear(table: Table, task: Task, number: int, seed: int) -> Setting | None:
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
        words = f"ridge, penalty {value:g}"
        return Setting(make_pipeline(front, Ridge(value)), lambda count: words)
    words = f"logistic regression, C {value:g}"
    return Setting(
        make_pipeline(front, LogisticRegression(C=value)),
        lambda count: words,
        "logisticregression__max_iter",
        most=1000,
        least=FEW_STEPS,
        probes=(1, 11),
        stops=True,
    )


def forest(
    table: Table, task: Task, number: int, seed: int, trees: int
) -> Setting | None:
    """Many trees, each of other rows or divisions; categories by their numbers."""
    from sklearn import ensemble

    regression = kind_of(task) == "regression"
    options = FOREST_OF_VALUES if regression else FOREST_OF_CLASSES
    if number >= len(options):
        return None
    kind, leaf, share = options[number]
    model = getattr(ensemble, f"{kind}{'Regressor' if regression else 'Classifier'}")(
        min_samples_leaf=leaf, max_features=share, random_state=seed
    )
    name = {"ExtraTrees": "extra trees", "RandomForest": "random trees"}[kind]
    columns = "all columns" if share == 1.0 else f"{share} of the columns"
    return Setting(
        model,
        lambda count: f"{count} {name}, leaves of {leaf} or more rows, {columns}",
        "n_estimators",
        most=trees,
        least=min(FEW_TREES, trees),
        at_once=True,
    )


def boosting(table: Table, task: Task, number: int, seed: int) -> Setting | None:
    """Trees one after another, each of what those before it have left."""
    from sklearn import ensemble

    if number >= len(BOOSTING):
        return None
    rate, leaves, rounds = BOOSTING[number]
    _, _, codes = columns_of(table)
    sizes = dict(zip(codes, table.cardinalities, strict=True))
    few = [column for column, size in sizes.items() if size <= MOST_CATEGORIES]
    regression = kind_of(task) == "regression"
    kind = "Regressor" if regression else "Classifier"
    model = getattr(ensemble, f"HistGradientBoosting{kind}")(
        learning_rate=rate,
        max_leaf_nodes=leaves,
        early_stopping=False,
        categorical_features=few or None,
        random_state=seed,
    )
    return Setting(
        model,
        lambda count: f"{count} trees of {leaves} leaves, rate {rate:g}",
        "max_iter",
        most=rounds,
        least=min(FEW_ROUNDS, rounds),
        probes=(1, 4),
    )


def trees_for(rows: int, targets: int) -> int:
    """How many trees a forest has: fewer where trees of many rows would fill memory."""
    nodes = 2 * rows * targets  # of a tree whose leaves hold a row each
    return max(LEAST_TREES, min(MOST_TREES, MOST_NODES // nodes))


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
