from __future__ import annotations

import math
from typing import Any

import keras
import keras_tuner
import pytest
from keras_tuner.engine.trial import Trial
from keras_tuner.src.engine.tuner_utils import get_best_step

import kmtl
from kmtl.tuning import Constraint, Goal, Pareto
from kmtl.tuning.arguments import check_baselines
from kmtl.tuning.objective import (
    PENALTY,
    resolve_objective,
    trial_logs,
    with_floor,
)

TASKS = (
    kmtl.Classification("digit", classes=10, metrics=("accuracy",)),
    kmtl.Regression("ink", metrics=("mae", "rmse")),
    kmtl.Regression(
        "tilt",
        metrics=(
            kmtl.Metric(
                "cosine", keras.metrics.CosineSimilarity(), higher_is_better=True
            ),
        ),
        auxiliary=True,
    ),
)


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("val_digit_accuracy", "max"),
        ("val_ink_mae", "min"),
        ("val_ink_rmse", "min"),
        ("val_tilt_cosine", "max"),
        ("val_ink_loss", "min"),
    ],
)
def test_direction_comes_from_the_task(name: str, direction: str) -> None:
    found = resolve_objective(name, TASKS)
    assert (found.name, found.direction) == (name, direction)
    same = resolve_objective(keras_tuner.Objective(name, direction), TASKS)
    assert (same.name, same.direction) == (name, direction)
    wrong = {"max": "min", "min": "max"}[direction]
    with pytest.raises(ValueError, match=f"Received: direction='{wrong}'"):
        resolve_objective(keras_tuner.Objective(name, wrong), TASKS)


@pytest.mark.parametrize(
    ("objective", "error", "message"),
    [
        ("val_loss", ValueError, "may not be the total loss.*'val_digit_accuracy'"),
        ("loss", ValueError, "may not be the total loss"),
        (keras_tuner.Objective("val_loss", "min"), ValueError, "total loss"),
        ("digit_accuracy", ValueError, "Did you mean 'val_digit_accuracy'"),
        ("val_digit_acuracy", ValueError, "Did you mean 'val_digit_accuracy'"),
        ("val_digit_f1", ValueError, r"Objective\('val_digit_f1', direction="),
        (["val_ink_mae", "val_ink_mae"], ValueError, "name a metric once"),
        (["val_digit_accuracy >= 0.9"], ValueError, "must have a goal"),
        ([], ValueError, "must have a goal"),
        (["val_ink_mae", "val_digit_acc >= 1"], ValueError, "Did you mean"),
        (["val_ink_mae", "digit_accuracy >= 1"], ValueError, "validation data"),
        (["val_ink_mae", "val_loss <= 1"], ValueError, "total loss"),
        (["val_digit_accuracy", "val_ink_mae >= 0.1"], ValueError, "lower.*'<='"),
        (["val_ink_mae", "val_digit_accuracy <= 1"], ValueError, "higher.*'>='"),
        (["val_ink_mae", "val_digit_accuracy >= x"], ValueError, "name >= number"),
        (Pareto(["val_ink_mae"]), ValueError, "two goals or more"),
        (None, TypeError, "must be a name"),
        ([3], TypeError, "must be a name"),
    ],
)
def test_refused_objectives(objective: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        resolve_objective(objective, TASKS)


def test_metric_of_compile_needs_a_direction() -> None:
    found = resolve_objective(keras_tuner.Objective("val_digit_f1", "max"), TASKS)
    assert (found.name, found.direction) == ("val_digit_f1", "max")


# -- several goals, constraints --------------------------------------------------------

LIST = ["val_ink_mae", "val_digit_accuracy >= 0.75"]


def trial(name: str, score: float | None = None, **logs: Any) -> Any:
    """A completed trial whose metrics have these values."""
    made = Trial(keras_tuner.HyperParameters(), trial_id=name, status="COMPLETED")
    for key, value in logs.items():
        made.metrics.register(key, "min")
        made.metrics.update(key, value, step=4)
    made.score, made.best_step = score, 4
    return made


def names(trials: list) -> str:
    return "".join(item.trial_id for item in trials)


def test_goal_and_constraint_by_hand() -> None:
    objective = resolve_objective(LIST, TASKS)
    assert objective.name == "val_ink_mae, val_digit_accuracy >= 0.75"
    assert objective.names == ("val_ink_mae", "val_digit_accuracy")
    assert objective.directions == ("min",)
    good = {"val_ink_mae": 3.0, "val_digit_accuracy": 0.875, "val_loss": 9.0}
    bad = {"val_ink_mae": 1.0, "val_digit_accuracy": 0.375, "val_loss": 9.0}
    assert objective.values(good) == (3.0,)
    assert objective.violations(good) == (-0.125,)
    assert objective.violations(bad) == (0.375,)
    assert objective.get_value(good) == 3.0
    # (0.75 - 0.375) / 0.75 = 0.5 of the bound is missing
    assert objective.get_value(bad) == PENALTY * 1.5
    assert objective.better_than(objective.get_value(good), objective.get_value(bad))
    assert not objective.has_value({"val_ink_mae": 3.0})


def test_values_that_are_no_numbers_are_never_the_best_epoch() -> None:
    for given in ("val_digit_accuracy", LIST, "pareto"):
        objective = resolve_objective(given, TASKS)
        logs = dict.fromkeys(objective.names, 0.5)
        value = objective.get_value(logs)
        for wrong in (math.nan, math.inf, -math.inf):
            logs[objective.names[-1]] = wrong
            broken = objective.get_value(logs)
            assert not objective.better_than(broken, value)
            assert objective.better_than(value, broken)


def test_best_epoch_is_one_that_keeps_to_the_constraint() -> None:
    objective = resolve_objective(LIST, TASKS)
    history = keras.callbacks.History()
    history.history = {
        "val_ink_mae": [math.nan, 1.0, 4.0, 3.0, 2.0],
        "val_digit_accuracy": [0.9, 0.2, 0.8, 0.8, 0.74],
    }
    assert get_best_step(history, objective) == 3
    assert get_best_step(history, resolve_objective("val_ink_mae", TASKS)) == 1
    assert get_best_step(history, resolve_objective("pareto", TASKS)) == 4
    history.history["val_ink_mae"][-1] = math.inf
    assert get_best_step(history, resolve_objective("pareto", TASKS)) == 3


def test_trials_that_break_constraints_come_after_all_others() -> None:
    objective = resolve_objective(LIST, TASKS)
    trials = [
        trial("a", val_ink_mae=1.0, val_digit_accuracy=0.6),
        trial("b", val_ink_mae=3.0, val_digit_accuracy=0.8),
        trial("c", val_ink_mae=0.5, val_digit_accuracy=0.1),
        trial("d", val_ink_mae=2.0, val_digit_accuracy=0.75),
        trial("e", val_ink_mae=9.0, val_digit_accuracy=0.7),
        trial("f"),
    ]
    trials[5].status = "FAILED"
    assert names(objective.rank(trials)) == "dbeac"


def test_one_goal_ranks_by_score_and_puts_nan_last() -> None:
    trials = [trial("a", 0.2), trial("b", math.nan), trial("c", 0.9), trial("d", 0.5)]
    assert names(resolve_objective("val_digit_accuracy", TASKS).rank(trials)) == "cdab"
    assert names(resolve_objective("val_ink_mae", TASKS).rank(trials)) == "adcb"


def test_later_goals_decide_within_the_tolerance_of_the_best() -> None:
    goals = [Goal("val_digit_accuracy", tolerance=0.02), "val_ink_mae"]
    objective = resolve_objective(goals, TASKS)
    assert objective.directions == ("max", "min")
    values = {"a": (0.90, 5), "b": (0.89, 1), "c": (0.87, 0), "d": (0.86, 2)}
    trials = [
        trial(name, val_digit_accuracy=accuracy, val_ink_mae=error)
        for name, (accuracy, error) in values.items()
    ]
    # a and b are equal (b wins by ink); c is 0.03 behind a; d within 0.02 of c
    assert names(objective.rank(trials)) == "bacd"
    plain = resolve_objective(["val_digit_accuracy", "val_ink_mae"], TASKS)
    assert names(plain.rank(trials)) == "abcd"


def test_pareto_ranks_by_front_then_by_room() -> None:
    objective = resolve_objective("pareto", TASKS)
    assert objective.names == ("val_digit_accuracy", "val_ink_mae")  # not the auxiliary
    assert objective.directions == ("max", "min")
    values = {
        "a": (0.5, 2.5),  # dominated by d
        "b": (0.9, 4.0),
        "c": (0.8, 3.9),
        "d": (0.6, 2.0),
        "e": (0.1, 1.0),
    }
    trials = [
        trial(name, val_digit_accuracy=accuracy, val_ink_mae=error)
        for name, (accuracy, error) in values.items()
    ]
    # b and e are the ends; room of d: 0.7/0.8 + 2.9/3; of c: 0.3/0.8 + 2/3
    assert names(objective.rank(trials)) == "bedca"
    assert objective.rank([]) == []


def test_mean_rank_orders_by_ranks_alone() -> None:
    objective = resolve_objective("mean_rank", TASKS)
    assert objective.directions == ("max", "min")
    values = {
        "a": (0.9, 9e9),  # ranks 1 and 4: an error that size buys or costs no more
        "b": (0.8, 2.0),  # 2.5 and 2
        "c": (0.8, 3.0),  # 2.5 and 3
        "d": (0.1, 1.0),  # 4 and 1
    }
    trials = [
        trial(name, val_digit_accuracy=accuracy, val_ink_mae=error)
        for name, (accuracy, error) in values.items()
    ]
    assert names(objective.rank(trials)) == "badc"
    assert objective.scores(trials) == {"a": 2.5, "b": 2.25, "c": 2.75, "d": 2.5}
    # In tables; of trials that have not ended there is none, and no other's changes.
    trials.append(trial("e", val_digit_accuracy=1.0, val_ink_mae=0.5))
    trials[-1].status = "RUNNING"
    assert objective.scores(trials)["b"] == 2.25
    assert objective.scores(trials)["e"] is None
    assert objective != resolve_objective("pareto", TASKS)
    with pytest.raises(ValueError, match="'mean_rank' needs two goals"):
        resolve_objective("mean_rank", TASKS[:1])


def test_delta_m_is_compared_in_its_balanced_form() -> None:
    objective = resolve_objective("val_delta_m", TASKS)
    assert objective.names == ("val_balanced_delta_m",)
    logs = {"val_delta_m": 40.0, "val_balanced_delta_m": -3.0, "val_worst_delta": -9.0}
    assert objective.get_value(logs) == -3.0
    floored = with_floor(objective, 5)
    assert str(floored.constraints[0]) == "val_worst_delta >= -5"
    assert not floored.feasible(logs)
    assert floored.feasible(logs | {"val_worst_delta": -4.9})
    assert with_floor(floored, 5) is floored
    assert with_floor(objective, None) is objective
    with pytest.raises(ValueError, match="max_drop"):
        with_floor(objective, -1)
    with pytest.raises(ValueError, match="needs `baselines`"):
        check_baselines(
            None, with_floor(resolve_objective(LIST, TASKS), 5), TASKS, None
        )


def test_pareto_of_chosen_goals_with_a_constraint() -> None:
    objective = resolve_objective(
        Pareto(
            ["val_ink_mae", Goal("val_tilt_cosine")],
            constraints=[Constraint("val_digit_accuracy", ">=", 0.5)],
        ),
        TASKS,
    )
    assert objective.directions == ("min", "max")
    assert objective.names == ("val_ink_mae", "val_tilt_cosine", "val_digit_accuracy")
    logs = {"val_ink_mae": 2.0, "val_tilt_cosine": 1.0, "val_digit_accuracy": 0.75}
    assert objective.get_value(logs) == -0.5  # (1 - 2) / 2
    trials = [
        trial("a", **{**logs, "val_digit_accuracy": 0.25}),
        trial("b", **{**logs, "val_ink_mae": 3.0}),
    ]
    assert names(objective.rank(trials)) == "ba"


def test_objectives_are_equal_where_their_parts_are() -> None:
    one = resolve_objective("val_ink_mae", TASKS)
    assert one == keras_tuner.Objective("val_ink_mae", "min")
    assert one != keras_tuner.Objective("val_ink_mae", "max")
    assert resolve_objective(LIST, TASKS) == resolve_objective(LIST, TASKS)
    assert resolve_objective(LIST, TASKS) != one
    assert resolve_objective("pareto", TASKS) != resolve_objective(
        ["val_digit_accuracy", "val_ink_mae"], TASKS
    )
    assert resolve_objective(one, TASKS) is one


def test_logs_of_a_trial_are_those_of_its_best_epoch() -> None:
    made = trial("a", 1.0, val_ink_mae=1.0)
    made.metrics.update("val_ink_mae", 3.0, step=4)  # a second execution
    made.metrics.update("val_ink_mae", 7.0, step=9)
    assert trial_logs(made) == {"val_ink_mae": 2.0}
    made.best_step = 9
    assert trial_logs(made) == {"val_ink_mae": 7.0}


@pytest.mark.parametrize(
    "objective",
    [
        "val_delta_m",
        ["val_ink_mae", "val_delta_m >= 0"],
        Pareto(["val_ink_mae", "val_delta_m"]),
    ],
)
def test_delta_m_among_others_needs_baselines(objective: Any) -> None:
    found = resolve_objective(objective, TASKS)
    with pytest.raises(ValueError, match="needs `baselines`"):
        check_baselines(None, found, TASKS, None)
    given = {"digit": 0.9, "ink": 1.0}
    assert check_baselines(given, found, TASKS, None) == given
    assert (
        check_baselines(None, resolve_objective("pareto", TASKS), TASKS, None) is None
    )
    # Nothing is relative to a score of 0: refused before the first trial.
    with pytest.raises(ValueError, match=r"baselines\['ink'\].*other than 0"):
        check_baselines({"digit": 0.9, "ink": 0.0}, found, TASKS, None)
