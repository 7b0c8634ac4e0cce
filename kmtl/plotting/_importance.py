"""How much each hyperparameter mattered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl import _checks

if TYPE_CHECKING:
    import pandas

#: Trials below which a forest says nothing.
FEWEST = 8
#: What the tasks' weights are called together.
WEIGHTS = "task_weights"
_TREES = 100
_REPEATS = 5


def importance(table: pandas.DataFrame, metric: str | None = None) -> pandas.Series:
    """Share of the variation of a metric that each hyperparameter explains.

    A random forest learns the metric from the hyperparameters of the completed trials;
    the importance of one is how much worse the forest fits when its column is shuffled.
    A hyperparameter that does not count in a trial is a value of its own.

    Args:
        table: A tuner, or what its `results()` returned.
        metric: Name of a log. None: the search's first objective.

    Returns:
        A Series by hyperparameter, largest first, that sums to 1 (all 0 where nothing
        explains anything). The tasks' weights are one, `task_weights`: each of them
        follows from the others.

    Raises:
        ValueError: for fewer than 8 completed trials with the metric.

    Reference: Breiman, Machine Learning 45 (2001), section 10.
    """
    import pandas
    from sklearn.ensemble import RandomForestRegressor

    metric, names, rows = completed(table, metric)
    if len(rows) < FEWEST:
        raise ValueError(
            f"Importance needs {FEWEST} completed trials or more. Received: {len(rows)}"
        )
    groups: dict[str, list[int]] = {}
    columns: list[Any] = []
    for name in names:
        if rows[name].nunique(dropna=False) > 1:
            group = WEIGHTS if name.startswith("task_weight_") else name
            groups.setdefault(group, []).append(len(columns))
            columns.append(_numbers(rows[name]))
    gains = pandas.Series(0.0, index=list(groups), name=metric)
    if columns and rows[metric].nunique() > 1:
        values, inputs = rows[metric].to_numpy("float64"), np.column_stack(columns)
        forest = RandomForestRegressor(_TREES, random_state=0).fit(inputs, values)
        fitted = forest.score(inputs, values)
        random = np.random.default_rng(0)
        for group, places in groups.items():
            losses = []
            for _ in range(_REPEATS):
                shuffled = inputs.copy()
                order = random.permutation(len(inputs))
                shuffled[:, places] = inputs[order][:, places]
                losses.append(fitted - forest.score(shuffled, values))
            gains[group] = max(float(np.mean(losses)), 0.0)
        gains /= gains.sum() or 1.0
    return gains.sort_values(ascending=False, kind="stable")


def as_table(given: Any) -> pandas.DataFrame:
    """What `tuner.results()` returned, also of the tuner itself.

    Raises:
        TypeError, ValueError: for anything else.
    """
    if callable(getattr(given, "results", None)):
        given = given.results(all_columns=True)
    if not hasattr(given, "attrs") or not hasattr(given, "columns"):
        raise TypeError(
            "`table` must be a tuner of kmtl or what its `results()` returned. "
            f"Received: {type(given).__name__}"
        )
    if "hyperparameters" not in given.attrs:
        raise ValueError(
            "`table` must be what `tuner.results()` returned, with its `attrs`. "
            f"Received: a table with the columns {', '.join(map(str, given.columns))}"
        )
    return given


def completed(
    table: pandas.DataFrame, metric: str | None = None
) -> tuple[str, list[str], pandas.DataFrame]:
    """The metric, the hyperparameters, and the completed trials that have the metric.

    Raises:
        ValueError: for a table that is not `tuner.results()`, and an unknown metric.
    """
    table = as_table(table)
    names = table.attrs["hyperparameters"]
    if metric is None:
        metric = table.attrs["objectives"][0]
    if metric not in table.columns:
        logs = [name for name in table.columns if str(name).startswith("val_")]
        raise ValueError(_checks.unknown_name("metric", metric, logs))
    numbers = np.isfinite(table[metric].to_numpy("float64", na_value=np.nan))
    rows = table[(table["status"] == "COMPLETED") & numbers]
    return metric, list(names), rows


def is_numeric(column: pandas.Series) -> bool:
    """Whether a hyperparameter is a number in every trial in which it counts."""
    values = column.dropna()
    return all(
        isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        for value in values
    )


def _numbers(column: pandas.Series) -> Any:
    """A column as floats; what does not count is below everything else."""
    if is_numeric(column):
        numbers = column.astype("float64")
        spread = numbers.max() - numbers.min()
        return numbers.fillna(numbers.min() - (spread or 1.0)).to_numpy()
    kinds = sorted(map(str, column.dropna().unique()))
    return np.array(
        [kinds.index(str(value)) if value == value else -1 for value in column], float
    )
