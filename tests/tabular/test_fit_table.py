"""A table in one call: trained, compared, predicted from, saved and exported."""

from __future__ import annotations

import dataclasses
import logging
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from table_tools import ROWS, TARGETS, houses

import kmtl
from kmtl.data.assembling import checked_frame
from kmtl.tabular import Candidate, candidates, fitting, pacing
from kmtl.tabular.clock import Clock
from kmtl.tabular.nets import Trainer

# On JAX the nets train side by side, and compiling them takes long.
pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]
QUICK: dict[str, Any] = {"recipe": kmtl.Recipe(epochs=2), "verbose": False}


def small_nets(table: Any, targets: int) -> list[Candidate]:
    """The first candidates, with few layers of few units: these compile in no time."""
    return [
        dataclasses.replace(one, units=(16,), numerical=None)
        for one in candidates(table, targets)[:4]
    ]


@pytest.fixture(scope="module")
def predictor() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kmtl.tabular.fitting.candidates", small_nets)
        few_trees = ((0.1, 31, 20), (0.05, 7, 40))
        patch.setattr("kmtl.tabular.settings.BOOSTING", few_trees)
        patch.setattr("kmtl.tabular.settings.MOST_TREES", 10)
        return kmtl.fit_table(houses(), TARGETS, trials=3, **QUICK)


@pytest.fixture(scope="module")
def test_rows(predictor: Any) -> pd.DataFrame:
    return houses().iloc[predictor.rows["test"]]


def on_test(predictor: Any, target: str, model: str) -> pd.Series:
    board = predictor.leaderboard().set_index(["target", "model"])
    return board.loc[(target, model)]


def test_parts_are_of_different_rows(predictor: Any) -> None:
    found = np.concatenate(list(predictor.rows.values()))
    assert sorted(found) == list(range(ROWS))


def test_every_side_stands_in_the_leaderboard(predictor: Any) -> None:
    board = predictor.leaderboard()
    sides = {"average", "shared net", "independent nets", "linear model"}
    for target in TARGETS:
        own = board[board["target"] == target]
        assert set(own["model"]) == sides | {"forest", "gradient boosting", "constant"}
        assert own["choice"].str.len().min() > 5
        ranked = own["test"] * np.where(own["better"] == "higher", -1, 1)
        assert ranked.is_monotonic_increasing
    assert board["test"].notna().all()


def test_the_average_scores_as_scikit_learn_says(
    predictor: Any, test_rows: pd.DataFrame
) -> None:
    found = predictor.predict(test_rows, probabilities=True)
    known = test_rows["price in $"].notna()
    error = metrics.root_mean_squared_error(
        test_rows["price in $"][known], found["price in $"][known]
    )
    area = metrics.roc_auc_score(test_rows["sold"] == "yes", found["sold: yes"])
    accuracy = metrics.accuracy_score(test_rows["stars"], found["stars"])
    wanted = dict(zip(TARGETS, (error, area, accuracy), strict=True))
    for target, value in wanted.items():
        row = on_test(predictor, target, "average")
        assert row["test"] == pytest.approx(value, rel=1e-4)
    again = predictor.evaluate(test_rows).groupby("target").first()["value"]
    assert again.to_dict() == pytest.approx(wanted, rel=1e-4)


def test_the_constant_answer_is_of_the_training_rows(predictor: Any) -> None:
    labels = houses()[TARGETS]
    train, test = (labels.iloc[predictor.rows[part]] for part in ("train", "test"))
    row = on_test(predictor, "price in $", "constant")
    mean = train["price in $"].mean()
    error = np.sqrt(np.mean((test["price in $"] - mean) ** 2))
    assert row["test"] == pytest.approx(error, rel=1e-5)
    assert row["choice"] == f"mean of the training labels, {mean:.4g}"
    assert on_test(predictor, "sold", "constant")["test"] == 0.5
    row = on_test(predictor, "stars", "constant")
    common = train["stars"].mode()[0]
    assert row["test"] == pytest.approx(np.mean(test["stars"] == common))
    assert row["choice"] == f"most frequent class of the training labels, {common}"


def plain(predictor: Any) -> tuple[np.ndarray, pd.Series, np.ndarray]:
    """Inputs by pandas alone, the labels of the first target, and training rows."""
    frame = houses().reset_index(drop=True)
    train = predictor.rows["train"]
    x = pd.get_dummies(frame[["rooms", "area", "town"]], columns=["town"], dtype=float)
    for name in ("rooms", "town"):
        x[f"no {name}"] = frame[name].isna().astype(float)
    x["rooms"] = x["rooms"].fillna(frame["rooms"].iloc[train].median())
    for name in ("rooms", "area"):
        x[name] = (x[name] - x[name][train].mean()) / x[name][train].std(ddof=0)
    y = frame["price in $"]
    return x.to_numpy(), y, train[y.iloc[train].notna()]


def test_the_linear_model_is_what_scikit_learn_fits(predictor: Any) -> None:
    x, y, train = plain(predictor)
    row = on_test(predictor, "price in $", "linear model")
    penalty = float(row["choice"].split("penalty ")[1].split(";")[0])
    model = Ridge(penalty).fit(x[train], y[train])
    for part, column in (("test", "test"), ("validation", "validation")):
        rows = predictor.rows[part]
        rows = rows[y[rows].notna()]
        error = metrics.root_mean_squared_error(y[rows], model.predict(x[rows]))
        # A missing town is a column more here: collinear with its flag, penalised.
        assert row[column] == pytest.approx(error, rel=0.02)


def test_the_trees_are_what_scikit_learn_fits(predictor: Any) -> None:
    x, y, train = plain(predictor)
    row = on_test(predictor, "price in $", "gradient boosting")
    words = row["choice"].split(";")[0].replace(",", "").split()
    model = HistGradientBoostingRegressor(
        max_iter=int(words[0]),
        max_leaf_nodes=int(words[3]),
        learning_rate=float(words[6]),
        early_stopping=False,
        random_state=0,
    ).fit(x[train], y[train])
    rows = predictor.rows["test"]
    rows = rows[y[rows].notna()]
    error = metrics.root_mean_squared_error(y[rows], model.predict(x[rows]))
    assert row["test"] == pytest.approx(error, rel=0.1)  # towns as codes, or one-hot


def test_the_best_members_are_averaged(predictor: Any) -> None:
    trials = predictor.trials()
    nets, others = trials[:3], trials[3:]
    assert nets["model"].tolist() == ["shared", "shared, dropout", "alone"]
    assert others["model"].tolist() == ["linear model", "forest", "gradient boosting"]
    assert trials["share"].sum() == pytest.approx(1)
    assert trials["validation_skill"].between(-1, 1).all()
    assert nets["epochs"].tolist() == [2, 2, 2]
    assert trials["share"].iloc[-1] == 0  # boosted trees cannot be exported
    choices = predictor.leaderboard().groupby("model")["choice"]
    told = choices.apply(lambda own: own.str.contains("cannot be in the average").all())
    assert told[told].index.tolist() == ["gradient boosting"]
    # The best is the first that greedy selection takes.
    assert trials.loc[trials["validation_skill"][:-1].idxmax(), "share"] > 0


def test_verdicts_speak_of_every_target(predictor: Any) -> None:
    assert list(predictor.verdict) == TARGETS
    for target, words in predictor.verdict.items():
        assert "share" in words.lower() or "alone" in words.lower()
        assert f"{target}: {words}" in repr(predictor)


def test_predictions_are_as_the_columns_were(predictor: Any) -> None:
    frame = houses()[["town", "area", "rooms"]][:3].copy()
    frame["more"] = 1
    frame.loc[frame.index[0], "town"] = "Rom"
    frame.loc[frame.index[1], "area"] = np.nan
    found = predictor.predict(frame, probabilities=True)
    assert found.index.equals(frame.index)
    assert found["price in $"].notna().all()
    assert found["price in $"].dtype == float
    assert set(found["sold"]) <= {"yes", "no"}
    assert found["stars"].dtype.kind == "i"
    assert set(found["stars"]) <= {2, 3, 4}
    shares = found[["stars: 2", "stars: 3", "stars: 4"]]
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    again = predictor.predict({name: frame[name].tolist() for name in frame})
    pd.testing.assert_frame_equal(
        again, found[TARGETS].reset_index(drop=True), check_dtype=False
    )


def test_one_row_may_be_a_dict_of_cells_and_there_may_be_none(predictor: Any) -> None:
    frame = houses()[["rooms", "area", "town"]]
    found = predictor.predict(frame, probabilities=True)
    row = predictor.predict({"rooms": 3.0, "area": 70.0, "town": None})
    as_columns = predictor.predict({"rooms": [3.0], "area": [70.0], "town": [None]})
    pd.testing.assert_frame_equal(row, as_columns)
    none = predictor.predict(frame[:0], probabilities=True)
    assert none.index.equals(frame[:0].index)
    assert none.shape == (0, found.shape[1])
    pd.testing.assert_series_equal(none.dtypes.drop("sold"), found.dtypes.drop("sold"))
    with pytest.raises(ValueError, match="lacks column area"):
        predictor.predict(frame[:0].drop(columns="area"))


def test_rows_for_use_are_checked(predictor: Any, test_rows: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="lacks column area"):
        predictor.predict(test_rows.drop(columns="area"))
    with pytest.raises(ValueError, match="column of target 'sold'"):
        predictor.evaluate(test_rows.drop(columns="sold"))
    with pytest.raises(ValueError, match=r"'sold' must hold the classes.*'maybe'"):
        predictor.evaluate(test_rows.assign(sold="maybe"))
    with pytest.raises(ValueError, match=r"'price in \$' must hold numbers"):
        predictor.evaluate(test_rows.assign(**{"price in $": "much"}))


def test_saved_and_loaded(
    predictor: Any, test_rows: pd.DataFrame, tmp_path: Path
) -> None:
    path = predictor.save(tmp_path / "houses")
    again = kmtl.load_table(path)
    pd.testing.assert_frame_equal(
        again.predict(test_rows), predictor.predict(test_rows), rtol=1e-5
    )
    pd.testing.assert_frame_equal(again.leaderboard(), predictor.leaderboard())
    pd.testing.assert_frame_equal(again.trials(), predictor.trials())
    assert again.verdict == predictor.verdict
    with pytest.raises(FileExistsError, match="overwrite=True"):
        predictor.save(path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="saved predictor"):
        predictor.save(tmp_path / "other", overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"TablePredictor.save"):
        kmtl.load_table(tmp_path / "other")


@pytest.mark.thorough
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="names of classes")
def test_the_export_takes_raw_columns_and_gives_names(
    predictor: Any, test_rows: pd.DataFrame, tmp_path: Path
) -> None:
    import tensorflow as tf

    path = predictor.export(tmp_path / "served")
    served = tf.saved_model.load(path).signatures["serving_default"]
    town = test_rows["town"].fillna("").astype(str).tolist()
    found = served(
        rooms=tf.constant(test_rows["rooms"], tf.float32),
        area=tf.constant(test_rows["area"], tf.float32),
        town=tf.constant(town),
    )
    wanted = predictor.predict(test_rows, probabilities=True)
    for output, column in (("price_in", "price in $"), ("sold", "sold: yes")):
        np.testing.assert_allclose(found[output][:, 0], wanted[column], rtol=1e-4)
    names = [name.decode() for name in found["stars_top"].numpy()[:, 0]]
    assert names == wanted["stars"].astype(str).tolist()


NOTHING = pd.Series(np.nan, index=houses().index)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"targets": ["prise in $"]}, "Did you mean 'price in \\$'"),
        ({}, {"targets": None}, "`tasks` or `targets` must say"),
        ({"sold": NOTHING}, {}, "Target 'sold' must have at least one label"),
        ({"sold": "yes"}, {}, "Target 'sold' must have at least two different"),
        ({}, {"minutes": 0}, "`minutes` must be"),
        ({}, {"minutes": -1.0}, "`minutes` must be"),
        ({}, {"trials": 0}, "`trials` must be"),
        ({}, {"rows": 29}, "`frame` must have at least 30 rows.*29"),
        ({}, {"inputs": {"note": kmtl.inputs.Text()}}, "`inputs` must be names"),
        ({}, {"tasks": [kmtl.Count("stars")]}, "'stars' of kind count"),
        ({"sold": NOTHING.where(NOTHING.index < 155, 1.0).mask(
            NOTHING.index == 159, 2.0)}, {}, "Target 'sold' must have at least"),
    ],
)  # fmt: skip
def test_errors_come_before_training(
    change: dict[str, Any],
    options: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kmtl.tabular.fitting.Trainer", None)
    options = {"targets": ["sold"], **options}
    frame = houses().assign(**change)[: options.pop("rows", ROWS)]
    with pytest.raises((ValueError, TypeError), match=message):
        kmtl.fit_table(frame, **options, verbose=False)


@pytest.mark.parametrize("given", [lambda name: name, str], ids=["as it is", "text"])
def test_columns_need_not_be_named_by_text(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmtl.tabular.fitting._fit", lambda data, found, *_: found)
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 5)))
    found = kmtl.fit_table(
        frame,
        targets=[given(3)],
        tasks={kmtl.Regression("own"): given(1)},
        inputs=[given(0), given(4)],
        verbose=False,
    )
    assert [target.column for target in found] == ["1", "3"]
    for target in found:
        np.testing.assert_array_equal(
            target.labels(checked_frame(frame)), frame[int(target.column)]
        )


def test_classes_of_a_given_task_are_called_as_in_the_column(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kmtl.tabular.fitting._fit", lambda data, found, *_: found)
    frame = pd.DataFrame({"x": np.arange(90.0), "kind": [7, 3, 5] * 30})
    task = kmtl.Classification("k", labels="auto")
    (target,) = kmtl.fit_table(frame, tasks={task: "kind"}, verbose=False)
    assert target.values == (3, 5, 7)
    assert target.labels(frame).tolist() == [2, 0, 1] * 30


@pytest.mark.parametrize("given", [houses().to_numpy(), "houses.csv", None])
def test_only_frames_are_taken(given: Any) -> None:
    with pytest.raises(TypeError, match=r"`frame` must be a pandas.DataFrame"):
        kmtl.fit_table(given, ["price"])


@pytest.mark.thorough
def test_the_same_seed_gives_the_same(
    predictor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmtl.tabular.fitting.candidates", small_nets)
    few_trees = ((0.1, 31, 20), (0.05, 7, 40))
    monkeypatch.setattr("kmtl.tabular.settings.BOOSTING", few_trees)
    monkeypatch.setattr("kmtl.tabular.settings.MOST_TREES", 10)
    again = kmtl.fit_table(houses(), TARGETS, trials=3, **QUICK)
    pd.testing.assert_frame_equal(
        again.leaderboard(), predictor.leaderboard(), rtol=1e-5
    )
    # Interrupted after the first, and gone on with.
    options = {"directory": tmp_path / "search", **QUICK}
    kmtl.fit_table(houses(), TARGETS, trials=1, **options)
    files = sorted(p.name for p in (tmp_path / "search" / "nets").iterdir())
    assert files == ["shared-0.npz"]
    later = kmtl.fit_table(houses(), TARGETS, trials=3, **options)
    pd.testing.assert_frame_equal(
        later.leaderboard(), predictor.leaderboard(), rtol=1e-3
    )
    with pytest.raises(ValueError, match=r"of the same search.*data, seed differ"):
        kmtl.fit_table(houses(), TARGETS, trials=3, seed=1, split=(0.6, 0.2, 0.2),
                       **options)  # fmt: skip


@pytest.mark.thorough
def test_every_candidate_trains_and_averages() -> None:
    wanted = kmtl.tabular.candidates(
        kmtl.inputs.Table().fit(houses()[["rooms", "area", "town"]]), 3
    )
    found = kmtl.fit_table(houses(), TARGETS, trials=len(wanted) + 2, **QUICK)
    names = found.trials()["model"].tolist()
    assert names[: len(wanted)] == [candidate.name for candidate in wanted]
    assert names[len(wanted)].endswith(", seed 1")
    assert names[len(wanted) + 1].endswith(", seed 2")


@pytest.mark.thorough
def test_one_target_tiny_time_and_own_tasks(capsys: Any) -> None:
    frame = houses().rename(columns={"price in $": "price"})
    found = kmtl.fit_table(
        frame,
        minutes=0.001,
        tasks={kmtl.Regression("cost", transform="log1p", unit="$"): "price"},
    )
    assert len(found.trials()) >= 1
    board = found.leaderboard()
    assert set(board["model"]) == {
        *("average", "net", "linear model", "forest", "gradient boosting", "constant"),
    }
    assert set(board["metric"]) == {"rmse ($)"}
    assert found.predict(frame).columns.tolist() == ["price"]
    assert "regression 'cost', log1p" in capsys.readouterr().out


def test_nets_whose_balance_has_weights_are_averaged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def balanced(table: Any, targets: int) -> list[Candidate]:
        [first, *_] = small_nets(table, targets)
        return [dataclasses.replace(first, weighting="uncertainty")]

    monkeypatch.setattr("kmtl.tabular.fitting.candidates", balanced)
    monkeypatch.setattr("kmtl.tabular.settings.BOOSTING", ((0.1, 7, 2),))
    monkeypatch.setattr("kmtl.tabular.settings.MOST_TREES", 5)
    monkeypatch.setattr("kmtl.tabular.choosing.greedy_shares", lambda *_: [1, 0, 0])
    found = kmtl.fit_table(houses(), TARGETS[:2], trials=1, **QUICK)
    rows = houses().iloc[found.rows["test"]]
    area = metrics.roc_auc_score(
        rows["sold"] == "yes", found.predict(rows, probabilities=True)["sold: yes"]
    )
    assert on_test(found, "sold", "average")["test"] == pytest.approx(area, rel=1e-4)


def test_ctrl_c_ends_the_search_and_a_second_one_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("kmtl.tabular.fitting.candidates", small_nets)
    monkeypatch.setattr("kmtl.tabular.settings.MOST_TREES", 5)
    calls: list[Any] = []

    def interrupt(after: int, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > after:
            raise KeyboardInterrupt
        return pacing.fitted(*arguments)

    def fit() -> Any:
        calls.clear()
        options = {**QUICK, "verbose": True, "directory": tmp_path / "search"}
        return kmtl.fit_table(houses(), TARGETS[:2], trials=1, **options)

    # Among the other models.
    monkeypatch.setattr("kmtl.tabular.rivals.fitted", partial(interrupt, 2))
    found = fit()
    assert "Ctrl-C again" in capsys.readouterr().out
    assert len(found.predict(houses()[:3])) == 3
    board = found.leaderboard()
    gone = board[board["test"].isna()]
    assert set(gone["model"]) == {"forest", "gradient boosting"}
    assert set(gone["choice"]) == {"not fitted: interrupted before"}
    words = "Not compared with a forest (interrupted before), boosting (interrupted"
    assert all(words in verdict for verdict in found.verdict.values())

    def stops(times: int, *arguments: Any) -> Any:
        ends.append(arguments)
        if len(ends) <= times:
            raise KeyboardInterrupt
        return finished(*arguments)

    # Once more at the end, or there alone.
    ends: list[Any] = []
    finished = fitting._finished
    monkeypatch.setattr("kmtl.tabular.fitting._finished", partial(stops, 1))
    with pytest.raises(KeyboardInterrupt):
        fit()
    ends.clear()
    monkeypatch.setattr("kmtl.tabular.settings.BOOSTING", ((0.1, 7, 2),))
    monkeypatch.setattr("kmtl.tabular.rivals.fitted", pacing.fitted)
    assert fit().leaderboard()["test"].notna().all()
    assert len(ends) == 2


def test_a_predictor_is_a_value(predictor: Any) -> None:
    assert dataclasses.is_dataclass(predictor)
    assert "mean of" in repr(predictor).splitlines()[0]


def test_tensorflow_does_not_advise_against_tracing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each net is a model of its own; a page of warnings was on the screen."""
    log = logging.getLogger("tensorflow")

    def fit(*_: Any) -> None:
        log.warning("5 out of the last 7 calls triggered tf.function retracing.")
        log.warning("Something else")

    monkeypatch.setattr("kmtl.tabular.fitting._fit", fit)
    monkeypatch.setattr(log, "propagate", True)
    with caplog.at_level(logging.WARNING, "tensorflow"):
        kmtl.fit_table(houses(), "sold", verbose=False)
    assert caplog.messages == ["Something else"]


def test_nets_are_trained_by_the_recipe() -> None:
    data = kmtl.data.from_dataframe(houses(60), targets=["sold"], verbose=False)
    recipe = kmtl.Recipe(schedule="constant", weight_decay=0.5, learning_rate=0.02)
    trainer = Trainer(data, recipe, 0, {}, Clock(None))
    net = Candidate(name="net", why="", units=(4,), numerical=None)
    optimizer = trainer._model(net, 0).optimizer
    assert optimizer.weight_decay == 0.5
    assert float(optimizer.learning_rate) == pytest.approx(0.02)
    values = trainer._values(net)
    assert trainer._hypermodel(net).schedule_callbacks(values) == []
    own = dataclasses.replace(net, weight_decay=0.1)
    assert trainer._model(own, 0).optimizer.weight_decay == 0.1
