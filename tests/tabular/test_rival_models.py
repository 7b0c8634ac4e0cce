"""Linear models and forests of scikit-learn as models of kmtl."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from table_tools import houses

import kmtl
from kmtl.evaluation import average
from kmtl.tabular.clock import Clock
from kmtl.tabular.nets import answers_of
from kmtl.tabular.rival_models import MODELLED, model_of, that_can_be_averaged
from kmtl.tabular.rivals import RivalSearch
from kmtl.tabular.scores import Skill
from kmtl.tabular.settings import trees_for

pytestmark = pytest.mark.backend
TASKS = [
    kmtl.Regression("price", transform="standardize", unit="$"),
    kmtl.BinaryClassification("sold"),
    kmtl.Classification("stars", classes=4),  # no row has class 1
    kmtl.BinaryClassification("always"),
    kmtl.Ordinal("grade", classes=4),
]


@pytest.fixture(scope="module")
def fitted() -> Any:
    frame = houses()
    table = kmtl.inputs.Table().fit(frame[["rooms", "area", "town"]])
    x = table.prepare(frame[["rooms", "area", "town"]], "rows")
    price = frame["price in $"].to_numpy("float32").reshape(-1, 1)
    stars = frame["stars"].to_numpy() % 2 * 2 + (np.arange(len(frame)) % 7 == 0)
    y = {
        "price": price,
        "sold": (frame["sold"] == "yes").to_numpy("int32").reshape(-1, 1),
        "stars": np.where(stars == 1, 3, stars).astype("int32"),
        "always": np.ones((len(frame), 1), "int32"),
        "grade": np.where(stars == 1, 3, stars).astype("int32"),
    }
    skills = {task.name: Skill(task, y[task.name], y[task.name]) for task in TASKS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kmtl.tabular.settings.MOST_TREES", 10)
        patch.setattr("kmtl.tabular.settings.LEAST_TREES", 10)
        patch.setattr("kmtl.tabular.settings.BOOSTING", ((0.1, 7, 2),))
        patch.setattr("kmtl.tabular.rivals.LEAST_SECONDS", 60.0)
        search = RivalSearch(table, TASKS, x, y, x, skills, Clock(0.0001), seed=0)
        search.run()
        rivals = search.sides
    net = kmtl.build(
        backbone=kmtl.backbones.TabularMLP(units=(4,), numerical=None),
        inputs={"table": table},
        tasks=TASKS,
    )
    return table, x, rivals, net


@pytest.mark.parametrize("kind", MODELLED)
def test_it_says_what_scikit_learn_says(kind: str, fitted: Any, tmp_path: Path) -> None:
    table, x, rivals, net = fitted
    made = model_of(rivals[kind].by_target, table, net)
    outputs = made.predict(x, verbose=0)
    found = answers_of(made.tasks, outputs)
    for task in TASKS:
        wanted = rivals[kind].answers[task.name]
        scale = np.abs(wanted).max() if task.name == "price" else 1.0
        np.testing.assert_allclose(found[task.name], wanted, atol=2e-5 * scale)
    made.save(tmp_path / "made.keras")
    again = keras.models.load_model(tmp_path / "made.keras")
    for name, value in again.predict(x, verbose=0).items():
        np.testing.assert_allclose(value, outputs[name], rtol=1e-6)


def test_categories_that_training_had_not_weigh_nothing(fitted: Any) -> None:
    table, x, rivals, net = fitted
    made = model_of(rivals["linear model"].by_target, table, net)
    strange = x[:3].copy()
    strange[:, -1] = 0  # an unknown town
    found = answers_of(made.tasks, made.predict(strange, verbose=0))
    rival = rivals["linear model"].by_target["price"]
    np.testing.assert_allclose(found["price"], rival.answers(strange), rtol=1e-5)


def test_it_is_averaged_with_nets(fitted: Any) -> None:
    table, x, rivals, net = fitted
    made = model_of(rivals["forest"].by_target, table, net)
    both = average([net, made], [1, 3])
    parts = [answers_of(m.tasks, m.predict(x, verbose=0)) for m in (net, made)]
    found = answers_of(both.tasks, both.predict(x, verbose=0))
    for name, value in found.items():
        wanted = parts[0][name] / 4 + parts[1][name] * 3 / 4
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-6)


def test_a_side_is_averaged_in_those_targets_that_it_can_be(fitted: Any) -> None:
    table, x, rivals, net = fitted
    found = that_can_be_averaged(rivals.values())
    assert [side.name for side in found] == list(MODELLED)  # not boosted trees
    assert all(list(side.answers) == [task.name for task in TASKS] for side in found)
    some = {name: rivals["forest"].by_target[name] for name in ("price", "grade")}
    made = model_of(some, table, net)
    shares = {task.name: [1.0, 0.0] for task in TASKS} | {"grade": [0.0, 1.0]}
    both = average([net, made], shares)
    answers = answers_of(both.tasks, both.predict(x, verbose=0))
    of_net = answers_of(net.tasks, net.predict(x, verbose=0))
    wanted = {**of_net, "grade": rivals["forest"].answers["grade"]}
    for name, value in answers.items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-4, atol=1e-5)


class OwnScale(kmtl.Regression):
    """Of which no model of kmtl says what a forest says."""

    @property
    def output_activation(self) -> str:
        return "softplus"


def test_a_target_without_such_a_model_leaves_the_others_theirs(fitted: Any) -> None:
    _, _, rivals, _ = fitted
    forest = rivals["forest"]
    other = dataclasses.replace(forest.by_target["price"], task=OwnScale("price"))
    side = dataclasses.replace(forest, by_target={**forest.by_target, "price": other})
    (found,) = that_can_be_averaged([side])
    assert list(found.answers) == list(found.by_target)
    assert set(forest.answers) - set(found.answers) == {"price"}


def test_forests_of_many_rows_have_fewer_trees() -> None:
    assert trees_for(500, 3) == 300
    assert trees_for(10_000, 2) == 100
    assert trees_for(10**6, 2) == 50


@pytest.mark.thorough
@pytest.mark.parametrize("kind", MODELLED)
def test_its_export_takes_raw_columns(kind: str, fitted: Any, tmp_path: Path) -> None:
    table, _, rivals, net = fitted
    made = average([net, model_of(rivals[kind].by_target, table, net)])
    made.export(tmp_path / "export")
    rows = houses()[["rooms", "area", "town"]].iloc[:5]
    report = kmtl.verify_export(tmp_path / "export", made, rows)
    assert report, pd.DataFrame(rows)
