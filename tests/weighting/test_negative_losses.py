"""Losses that may be negative, and the weightings that need positive ones."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl import _registry, weighting

DIRECTION = kmtl.Regression("direction", units=3, loss=keras.losses.CosineSimilarity())
SIZE = kmtl.Regression("size")
REFUSED = {
    "cosmos",
    "db_mtl",
    "dwa",
    "famo",
    "gls",
    "gradnorm",
    "imtl",
    "imtl_l",
    "log_loss",
    "pbi",
    "stch",
    "uncertainty",
    "uw_so",
}


def refuses(rule: Any, task: kmtl.Task = DIRECTION) -> bool:
    said = ""
    try:
        rule.check_losses([SIZE, task])
    except ValueError as error:
        said = str(error)
    return "needs losses above 0, and that of task 'direction' may be" in said


def test_rules_that_need_positive_losses_refuse_a_cosine() -> None:
    rules = [
        _registry.get("weighting", name)() for name in _registry.names("weighting")
    ]
    assert {rule.registered_name for rule in rules if refuses(rule)} == REFUSED
    for rule in rules:
        rule.check_losses([SIZE])


@pytest.mark.parametrize(
    ("rule", "refused"),
    [
        (weighting.FAMO(minimum_losses={"direction": -1.0}), False),
        (weighting.FAMO(minimum_losses={"size": 0.0}), True),
        (weighting.PBI(ideal={"direction": -1.0}), False),
        (weighting.STCH(normalize=False), False),
        (weighting.MGDA("loss"), True),
        (weighting.MoCo(normalize=True), True),
        (weighting.CRMOGM(method=weighting.MGDA("loss+")), True),
    ],
)
def test_arguments_count(rule: Any, refused: bool) -> None:
    assert refuses(rule) == refused


def test_losses_with_a_lower_bound_of_0_are_taken() -> None:
    logits = keras.losses.BinaryCrossentropy(from_logits=True)
    for task in (
        kmtl.Reconstruction("direction", loss=logits),
        kmtl.Regression("direction", units=3, loss=keras.losses.LogCosh()),
        kmtl.Classification(
            "direction",
            classes=3,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ),
    ):
        assert not refuses(weighting.Uncertainty(), task)


def test_compile_refuses_before_anything_changes() -> None:
    tasks = [kmtl.Regression("direction", units=3), SIZE]
    model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(3,), seed=0)
    model.compile("sgd", weighting="equal")
    with pytest.raises(ValueError, match=r"`weighting='dwa'` needs .* 'direction'"):
        model.compile("sgd", loss={"direction": DIRECTION.loss}, weighting="dwa")
    assert model.weighting.registered_name == "equal"
    assert model.task("direction").loss == "mse"
    model.compile("sgd", loss={"direction": DIRECTION.loss}, weighting="pcgrad")
    x, y = np.ones((4, 2)), {"direction": np.ones((4, 3)), "size": np.ones(4)}
    history = model.fit(x, y, verbose=0).history
    assert np.isfinite(history["loss"]).all()
