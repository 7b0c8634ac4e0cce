"""`kmtl.Search`: what is chosen where nothing is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras_tuner
import pytest
from search_tools import TASKS, Planted, make_tuner, outcome, run, valley

import kmtl
from kmtl.evaluation.balanced import BALANCED
from kmtl.tuning import Asha

pytestmark = pytest.mark.usefixtures("quick")


def front(folder: Path, **options: Any) -> Any:
    options = {"kind": kmtl.Search, "baselines": None, **options}
    return make_tuner(folder, **options)


def names(folder: Path, tasks: Any, **options: Any) -> tuple[list[str], Any]:
    hypermodel = kmtl.HyperModel(
        Planted(valley), tasks=tasks, space={"a": (0.0, 1.0)}, optimizer="sgd"
    )
    tuner = kmtl.Search(hypermodel, directory=folder, **options)
    return [goal.name for goal in tuner.oracle.objective.goals], tuner


def test_it_is_one_of_kerastuners() -> None:
    assert issubclass(kmtl.Search, keras_tuner.Tuner)


def test_what_trials_are_compared_by(tmp_path: Path) -> None:
    goals, tuner = names(tmp_path / "a", TASKS)
    assert (goals, tuner.baselines) == ([BALANCED], "auto")
    goals, _ = names(tmp_path / "b", TASKS, baselines={"kind": 0.5, "size": 0.5})
    assert goals == [BALANCED]
    goals, _ = names(tmp_path / "c", TASKS, baselines=None)
    assert goals == ["val_mean_score"]
    goals, tuner = names(tmp_path / "d", TASKS[:1])
    assert (goals, tuner.baselines) == (["val_kind_accuracy"], None)
    aside = [TASKS[0], TASKS[1].replace(auxiliary=True)]
    goals, tuner = names(tmp_path / "e", aside)
    assert (goals, tuner.baselines) == (["val_kind_accuracy"], None)
    goals, tuner = names(tmp_path / "f", TASKS, objective="val_size_mae")
    assert (goals, tuner.baselines) == (["val_size_mae"], "auto")


def test_a_function_has_no_single_task_models(tmp_path: Path) -> None:
    def build(hp: Any) -> Any:
        model = kmtl.build_mlp(input_shape=(2,), tasks=TASKS, units=(2,))
        model.compile(sgd(hp.Float("rate", 0.1, 0.2)))
        return model

    def sgd(rate: float) -> Any:
        return {"class_name": "SGD", "config": {"learning_rate": rate}}

    tuner = kmtl.Search(build, directory=tmp_path)
    assert tuner.baselines is None
    assert [goal.name for goal in tuner.oracle.objective.goals] == ["val_mean_score"]


def test_proposals_are_those_of_the_sampler(tmp_path: Path) -> None:
    """By a process after random ones; by chance alone where that is asked for."""
    mine = run(front(tmp_path / "mine", max_trials=8, seed=3))
    for sampler in ("gp", "tpe"):
        other = make_tuner(
            tmp_path / sampler,
            kind=kmtl.BayesianOptimization,
            sampler=sampler,
            max_trials=8,
            seed=3,
        )
        assert (outcome(mine) == outcome(run(other))) is (sampler == "gp")
    chance = front(tmp_path / "chance", max_trials=8, seed=3, sampler="random")
    plain = run(make_tuner(tmp_path / "plain", max_trials=8, seed=3))
    assert outcome(run(chance)) == outcome(plain)
    assert outcome(mine)[:1] == outcome(plain)[:1]  # the defaults
    assert outcome(mine)[1:] != outcome(plain)[1:]
    assert mine.oracle.learns
    assert not chance.oracle.learns


def test_long_trials_are_halved(tmp_path: Path) -> None:
    score = Planted(valley)
    long = run(front(tmp_path / "long", score=score, max_trials=8), epochs=10)
    assert long.oracle.rule == Asha(min_epochs=5, factor=2)
    # At 5 epochs one in two goes on.
    assert {last for _, _, _, last in score.fits} == {5, 10}
    states = [trial.status for trial in long.oracle.trials.values()]
    assert [last < 10 for _, _, _, last in score.fits] == [
        s == "PRUNED" for s in states
    ]
    short = run(front(tmp_path / "short", max_trials=4), epochs=7)
    assert short.oracle.rule is None
    assert all(t.status == "COMPLETED" for t in short.oracle.trials.values())
    asked = run(front(tmp_path / "asked", pruner=None), epochs=10)
    assert asked.oracle.rule is None


@pytest.mark.parametrize(
    ("singles", "said"),
    [
        # An accuracy of 0.96 is twice 0.48, an error of 0.04 half of 0.08.
        (
            {"kind": 0.48, "size": 0.08},
            "Sharing pays: it is better than separate nets by 75 %",
        ),
        # -3.03 % and -33.33 %
        ({"kind": 0.99, "size": 0.03}, "separate nets are better by 18 %"),
    ],
)
def test_whether_sharing_pays_is_said(
    tmp_path: Path, singles: dict[str, float], said: str
) -> None:
    tuner = front(tmp_path, objective=None, baselines=singles, max_trials=2)
    tuner.enqueue({"a": 0.5, "b": 0.2})
    tuner.enqueue({"a": 0.0, "b": 0.9})
    assert said in run(tuner).conclusion().text


class OfDepths(Planted):
    """`a` of the score is how deep a trial shares."""

    def __call__(  # type: ignore[override]
        self, *, tasks: Any, sharing_depth: int = 1, b: float = 0.0, seed: Any = None
    ) -> Any:
        return super().__call__(tasks=tasks, a=sharing_depth, b=b)


@pytest.mark.parametrize(
    ("loss", "depths", "executions", "said"),
    [
        (0.1, (1, 0), 3, "shares no block: these tasks do not gain from sharing here"),
        (0.005, (1, 0), 3, "cannot be told (val_kind_accuracy 0.91 against 0.905 of"),
        (0.1, (1, 0), 1, "cannot be told from one training each"),
        (0.1, (0, 0), 3, "cannot be told: there is no trial that shares one"),
    ],
)
def test_a_winner_that_shares_nothing_is_compared_with_one_that_does(
    tmp_path: Path, loss: float, depths: Any, executions: int, said: str
) -> None:
    def score(a: float, b: float, epoch: int) -> float:
        return 0.9 + 0.01 * (len(builder.fits) % 3) - loss * a

    builder = OfDepths(score)
    tuner = kmtl.RandomSearch(
        kmtl.HyperModel(
            builder,
            tasks=TASKS,
            space={"sharing_depth": (0, 1), "b": (0.0, 1.0)},
            optimizer="sgd",
        ),
        "val_kind_accuracy",
        baselines={"kind": 0.9, "size": 0.1},
        max_trials=2,
        executions_per_trial=executions,
        directory=tmp_path,
    )
    for place, depth in enumerate(depths):
        tuner.enqueue({"sharing_depth": depth, "b": place / 2})
    assert said in run(tuner).conclusion().text


def test_names_that_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`sampler` must be one of"):
        front(tmp_path, sampler="grid")
    with pytest.raises(TypeError, match="`hypermodel` must be"):
        kmtl.Search()
