"""Tables and fronts of a search whose scores are known functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras_tuner
import pytest
from search_tools import TASKS, Planted, make_tuner, run

import kmtl
from kmtl.tuning import PerTask, WeightGrid
from kmtl.tuning.points import parameters_of

pytestmark = pytest.mark.usefixtures("quick")


def rising(a: float, b: float, epoch: int) -> float:
    """Best in the second of three epochs."""
    return a * (0.5, 1.0, 0.75)[epoch]


def opposed(a: float, b: float, epoch: int) -> dict[str, float]:
    """`kind` is good at a = 1, `size` at a = 0."""
    return {"val_kind_accuracy": a, "val_size_mae": a + b}


def test_results_have_a_row_per_trial(tmp_path: Path) -> None:
    tuner = run(make_tuner(tmp_path, rising, max_trials=4), epochs=3)
    table = tuner.results(all_columns=True)
    scores = ["val_kind_accuracy", "val_size_mae"]
    short = tuner.results()
    assert list(short) == ["status", "rank", "score", "epochs", "a", "b", *scores]
    assert short.equals(table[list(short)])
    assert short.attrs == table.attrs
    assert list(table.index) == list(tuner.oracle.trials)
    assert list(table["status"]) == ["COMPLETED"] * 4
    assert table.attrs["hyperparameters"] == ["a", "b"]
    assert table.attrs["scores"] == {
        "kind": "val_kind_accuracy",
        "size": "val_size_mae",
    }
    for trial_id, row in table.iterrows():
        values = tuner.oracle.trials[trial_id].hyperparameters.values
        assert (row["a"], row["b"]) == (values["a"], values["b"])
        assert row["val_kind_accuracy"] == row["score"] == pytest.approx(values["a"])
        assert row["val_size_mae"] == pytest.approx(1 - values["a"])
        assert (row["epochs"], row["executions"]) == (3, 1)
    assert list(table.sort_values("rank")["a"]) == sorted(table["a"], reverse=True)
    assert table["feasible"].all()
    assert table["reason"].isna().all()
    # One value decides both tasks here, so one trial beats all others.
    assert table["on_front"].sum() == 1
    assert table["on_front"][table["score"].idxmax()]


def test_curves_keep_every_epoch(tmp_path: Path) -> None:
    tuner = run(make_tuner(tmp_path, rising, max_trials=2), epochs=3)
    table = tuner.curve_table()
    assert len(table) == 6
    for trial_id, rows in table.groupby("trial"):
        a = tuner.oracle.trials[trial_id].hyperparameters.values["a"]
        assert list(rows["epoch"]) == [1, 2, 3]
        assert list(rows["val_kind_accuracy"]) == pytest.approx([a / 2, a, 0.75 * a])
    again = make_tuner(tmp_path, rising, max_trials=2)  # from the disk
    assert again.curve_table().equals(table)
    assert again.results().equals(tuner.results())


def test_trials_go_to_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.plugins.hparams import metadata
    from tensorboard.util.tensor_util import make_ndarray

    def read(folder: Path) -> Any:
        found = event_accumulator.EventAccumulator(str(folder), {"tensors": 0})
        return found.Reload()

    tuner = run(make_tuner(tmp_path, rising, max_trials=2), epochs=3)
    for _ in range(2):  # the second takes the place of the first
        board = tuner.to_tensorboard(tmp_path / "board")
    tag = metadata.EXPERIMENT_TAG
    content = read(board).SummaryMetadata(tag).plugin_data.content
    about = metadata.parse_experiment_plugin_data(content)
    assert [found.name for found in about.hparam_infos] == ["a", "b"]
    assert about.metric_infos[0].name.tag.startswith("val_")
    for trial_id, trial in tuner.oracle.trials.items():
        found = read(board / f"trial_{trial_id}")
        tag = metadata.SESSION_START_INFO_TAG
        content = found.SummaryMetadata(tag).plugin_data.content
        start = metadata.parse_session_start_info_plugin_data(content)
        values = {name: start.hparams[name].number_value for name in "ab"}
        assert values == trial.hyperparameters.values
        assert start.group_name == trial_id
        events = found.Tensors("val_kind_accuracy")
        assert [event.step for event in events] == [1, 2, 3]
        a = values["a"]
        shown = [float(make_ndarray(event.tensor_proto)) for event in events]
        assert shown == pytest.approx([a / 2, a, 0.75 * a])
        assert metadata.SESSION_END_INFO_TAG in found.Tags()["tensors"]


def test_several_executions_have_a_mean_and_a_spread(tmp_path: Path) -> None:
    seen: list[int] = []

    def noisy(a: float, b: float, epoch: int) -> float:
        seen.append(1)
        return a / 2 + (0.0, 0.2, 0.1)[(len(seen) - 1) % 3]

    tuner = make_tuner(tmp_path, noisy, max_trials=2, executions_per_trial=3)
    table = run(tuner).results()
    assert list(table["executions"]) == [3, 3]
    assert table["val_kind_accuracy"].to_list() == pytest.approx(
        (table["a"] / 2 + 0.1).to_list()
    )
    assert table["val_kind_accuracy_std"].to_list() == pytest.approx([0.1, 0.1])


def test_logs_of_weights_are_not_the_weights_searched(tmp_path: Path) -> None:
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=TASKS,
        input_shape=(2,),
        units=(2,),
        seed=0,
        space=["task_weights"],
        compile_options={"weighting": "uncertainty"},
    )
    tuner = kmtl.RandomSearch(
        hypermodel, "val_size_mae", max_trials=1, seed=0, directory=tmp_path
    )
    table = run(tuner).results(all_columns=True)
    assert table.columns.is_unique
    chosen = hypermodel.space.values(tuner.get_best_hyperparameters()[0])
    for task, weight in chosen["task_weights"].items():
        assert table[f"task_weight_{task}"].iloc[0] == weight
    assert "weight_size" in table  # the weighting's own log


def test_failed_trials_have_a_reason_and_no_rank(tmp_path: Path) -> None:
    def breaking(a: float, b: float, epoch: int) -> float:
        if a > 0.5:
            raise MemoryError("too large")
        return a

    table = run(make_tuner(tmp_path, breaking, max_trials=6)).results()
    failed = table["a"] > 0.5
    assert 0 < failed.sum() < 6
    assert set(table["status"][failed]) == {"FAILED"}
    assert set(table["reason"][failed]) == {"MemoryError: too large"}
    assert table["rank"][failed].isna().all()
    assert "feasible" not in table  # there are no constraints
    assert table["val_kind_accuracy"][failed].isna().all()
    assert sorted(table["rank"][~failed]) == list(range(1, int((~failed).sum()) + 1))


def test_constraints_decide_ranks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuner = make_tuner(
        tmp_path,
        lambda a, b, epoch: a,
        objective=["val_kind_accuracy", "val_size_mae <= 0.5"],
        max_trials=6,
    )
    table = run(tuner).results()
    assert list(table["score"]) == list(table["val_kind_accuracy"])
    tuner.results_summary()
    printed = [
        line.removeprefix("Score: ")
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("Score: ")
    ]
    ranked = table.sort_values("rank")
    assert [float(line.split(",")[0]) for line in printed] == list(ranked["score"])
    broken = [line.endswith(", breaks a constraint") for line in printed]
    assert broken == [not kept for kept in ranked["feasible"]]
    kept = table["a"] >= 0.5
    assert 0 < kept.sum() < 6
    assert (table["feasible"] == kept).all()
    assert table["rank"][kept].max() < table["rank"][~kept].min()
    assert table.attrs["constraints"] == ["val_size_mae <= 0.5"]


def test_scores_are_mean_ranks_where_these_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuner = run(make_tuner(tmp_path, opposed, objective="mean_rank", max_trials=5))
    table = tuner.results().sort_values("rank")
    assert list(table["score"]) == sorted(table["score"])
    # By hand: of each score the best trial has 1, and of both the mean.
    by_hand = table["val_kind_accuracy"].rank(ascending=False)
    by_hand = (by_hand + table["val_size_mae"].rank()) / 2
    assert list(table["score"]) == list(by_hand)
    tuner.results_summary(1)
    out = capsys.readouterr().out
    assert f"Score: {table['score'].iloc[0]}\n" in out
    assert 'direction="min"' in out


def test_front_and_preferences_without_training(tmp_path: Path) -> None:
    builder = Planted(opposed)
    tuner = make_tuner(tmp_path, builder, objective="pareto", max_trials=6)
    run(tuner)
    fits = len(builder.fits)
    front = tuner.pareto_front()
    assert front.names == ("val_kind_accuracy", "val_size_mae")
    values = {
        trial_id: trial.hyperparameters.values
        for trial_id, trial in tuner.oracle.trials.items()
    }
    expected = {
        one
        for one, mine in values.items()
        if not any(
            other["a"] >= mine["a"]
            and other["a"] + other["b"] <= mine["a"] + mine["b"]
            and other != mine
            for other in values.values()
        )
    }
    assert set(front.members) == expected
    assert len(expected) > 1
    table = tuner.results()
    assert set(table.index[table["on_front"]]) == expected
    best = tuner.get_pareto_trials({"val_kind_accuracy": 1.0})
    assert [trial.trial_id for trial in best] == sorted(
        expected, key=lambda one: -values[one]["a"]
    )
    low = sorted(value["a"] + value["b"] for value in values.values())[0]
    bounded = tuner.get_pareto_trials(bounds={"val_size_mae": low})
    assert len(bounded) == 1
    assert front.hypervolume({"val_kind_accuracy": 0.0, "val_size_mae": 2.0}) > 0
    assert len(tuner.get_pareto_models(num_models=2)) == 2
    assert len(builder.fits) == fits


def test_front_of_other_logs(tmp_path: Path) -> None:
    tuner = run(make_tuner(tmp_path, rising, max_trials=3), epochs=2)
    front = tuner.pareto_front(["val_size_mae"])
    assert front.directions == ("min",)
    assert len(front.members) == 1
    with pytest.raises(ValueError, match="Did you mean 'val_size_mae'"):
        tuner.pareto_front(["val_size_mea"])


def parameters(space: Any, **chosen: Any) -> dict[str, Any]:
    model = kmtl.HyperModel(
        kmtl.build_mlp, tasks=TASKS, input_shape=(2,), units=(2, 2), space=space
    )
    hp = keras_tuner.HyperParameters()
    model.declare_hyperparameters(hp)
    hp.values.update(chosen)
    return parameters_of(model, hp)


def test_parameters_are_one_column_per_number() -> None:
    found = parameters(
        {
            "task_weights": WeightGrid(4),
            "sharing_depth": PerTask(),
            "dropout": "per_block",
            "activation": {"soft": "softplus", "hard": "relu"},
            "weighting": ["equal", "dwa"],
            "dwa.temperature": (1.0, 2.0),
        },
        task_weights="0.25/0.75",
        activation="hard",
        dropout_block2=0.25,
        sharing_depth_kind=1,
    )
    assert found == {
        "task_weight_kind": 0.5,
        "task_weight_size": 1.5,
        "sharing_depth_kind": 1,
        "sharing_depth_size": 1,
        "dropout_block1": 0.0,
        "dropout_block2": 0.25,
        "activation": "hard",
        "weighting": "equal",
    }


@pytest.mark.parametrize(
    "objective", ["pareto", ["val_kind_accuracy", "val_size_mae <= 1"]], ids=str
)
@pytest.mark.parametrize(
    "kind",
    [kmtl.RandomSearch, kmtl.BayesianOptimization, kmtl.GridSearch, kmtl.Hyperband],
)
def test_every_tuner_takes_several_goals(
    tmp_path: Path, kind: Any, objective: Any
) -> None:
    options = {"max_trials": 7, "num_initial_points": 3}
    if kind is kmtl.Hyperband:
        options = {"max_epochs": 4, "factor": 2}
    elif kind is not kmtl.BayesianOptimization:
        options.pop("num_initial_points")
    tuner = make_tuner(tmp_path, opposed, kind, objective=objective, **options)
    table = run(tuner).results()
    done = table[table["status"] == "COMPLETED"]
    assert len(done) >= 3
    assert set(table["status"]) <= {"COMPLETED", "PRUNED"}
    assert sorted(done["rank"]) == list(range(1, len(done) + 1))
    values = done[["val_kind_accuracy", "val_size_mae"]].to_numpy()
    first = done["rank"].to_numpy() == 1
    if objective == "pareto":
        better = (values[:, None] - values[None]) * [1.0, -1.0]
        beaten = ((better >= 0).all(-1) & (better > 0).any(-1)).any(0)
        assert (done["on_front"].to_numpy() == ~beaten).all()
        assert not beaten[first].any()
    else:
        kept = values[:, 1] <= 1
        assert (done["feasible"].to_numpy() == kept).all()
        assert values[first, 0] == values[kept, 0].max()
    best = tuner.get_best_hyperparameters()[0].values
    assert best["a"] == done["a"][first].iloc[0]
    assert len(tuner.get_best_models()) == 1
