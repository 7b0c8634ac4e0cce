"""Tables and fronts of trials, as kmtl's figures and measures take them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kmtl.evaluation import ParetoFront, relative_improvement

#: Hyperparameters that all multi-task sides search, and which side it is.
POOLED = ("side", "sharing_depth", "dropout", "learning_rate")
DELTA = "val_delta_m"


def front_of(
    trials: Iterable[Mapping[str, Any]],
    tasks: Mapping[str, str],
    ways: Mapping[str, str],
    baselines: Mapping[str, float],
) -> ParetoFront:
    """Completed trials by their improvement over the single-task models, in %."""
    done = [row for row in trials if row["status"] == "COMPLETED"]
    values = [
        [
            relative_improvement(ways[log], row[log], baselines[task])
            for task, log in tasks.items()
        ]
        for row in done
    ]
    labels = tuple(row["trial"] for row in done)
    return ParetoFront(tuple(tasks), ("max",) * len(tasks), values, labels)  # type: ignore[arg-type]


def table_of(entry: Mapping[str, Any], scores: Mapping[str, str] | None = None) -> Any:
    """What `tuner.results()` was, as far as figures need it."""
    import pandas

    table = pandas.DataFrame(entry["trials"]).set_index("trial")
    table.attrs = {
        "hyperparameters": list(entry["hyperparameters"]),
        "objectives": [entry["objective"]],
        "constraints": [],
        "directions": dict(entry["directions"]),
        "scores": dict(scores or {}),
    }
    return table


def pooled(sides: Mapping[str, Any]) -> Any:
    """The trials of all sides as one table, with the side as a hyperparameter."""
    rows = [
        {**row, "side": side, "trial": f"{side}/{row['trial']}"}
        for side, entry in sides.items()
        for row in entry["trials"]
    ]
    first = next(iter(sides.values()))
    return table_of({**first, "trials": rows, "hyperparameters": POOLED})
