"""Best epochs and the end of training by the scores of several tasks."""

from __future__ import annotations

import re
import warnings

import keras
import numpy as np
import pytest

import kmtl
from kmtl.evaluation import BestEpoch

A = kmtl.Regression("a")  # mae: lower is better
B = kmtl.BinaryClassification("b", metrics=("accuracy",))
#: Improvements over the first epoch, in %: b falls back while a gets better.
SCORES = {
    "val_a_mae": [2.0, 1.0, 1.0, 1.5, 0.5, 1.9],
    "val_b_accuracy": [0.5, 0.6, 0.8, 0.7, 0.6, 0.5],
}
MEANS = [0.0, (50 + 20) / 2, (50 + 60) / 2, (25 + 40) / 2, (75 + 20) / 2, 2.5]


@pytest.fixture(scope="module")
def model():
    model = kmtl.build_mlp(input_shape=(2,), tasks=[A, B], units=(2,), seed=0)
    model.compile("sgd")
    return model


def run(model, callback, **scores):
    """The last epoch, and the logs; weights are filled with the epoch's number."""
    scores = {**SCORES, **scores}
    callback.set_model(model)
    model.stop_training = False
    callback.on_train_begin()
    written = []
    for epoch in range(len(SCORES["val_a_mae"])):
        model.set_weights([np.full(w.shape, epoch) for w in model.get_weights()])
        logs = {name: values[epoch] for name, values in scores.items()}
        callback.on_epoch_end(epoch, logs)
        written.append(logs.get("val_mean_improvement"))
        if model.stop_training:
            break
    callback.on_train_end()
    return epoch, written


def epoch_of(model) -> int:
    (value,) = {float(x) for w in model.trainable_weights for x in np.ravel(w)}
    return int(value)


def test_best_of_all_and_of_each(model) -> None:
    callback = BestEpoch([A, B])
    last, written = run(model, callback)
    np.testing.assert_allclose(written, MEANS)
    assert (last, callback.best_epoch, epoch_of(model)) == (5, 2, 2)
    assert (callback.restore("a"), epoch_of(model)) == (4, 4)
    assert (callback.restore("b"), epoch_of(model)) == (2, 2)
    with pytest.raises(ValueError, match="task"):
        callback.restore("c")


@pytest.mark.parametrize(
    ("rule", "patience", "last"),
    [("mean", 2, 4), ("any", 2, 3), ("all", 2, 5), ("any", 3, 5)],
)
def test_what_ends_the_training(model, rule, patience, last) -> None:
    # a improves in epochs 0, 1 and 4, b in 0, 1 and 2, their mean in 0, 1 and 2.
    callback = BestEpoch([A, B], patience=patience, rule=rule)
    scores = {"val_a_mae": [2.0, 1.0, 1.0, 1.0, 1.5, 1.9]} if rule == "all" else {}
    if rule == "all":  # a for the last time in epoch 1, b in epoch 3
        scores["val_b_accuracy"] = [0.5, 0.6, 0.7, 0.8, 0.6, 0.5]
    assert run(model, callback, **scores)[0] == last
    assert epoch_of(model) == callback.best_epoch == (3 if rule == "all" else 2)


def test_a_task_without_scores_in_an_epoch(model) -> None:
    callback = BestEpoch([A, B])
    nan = float("nan")
    _, written = run(model, callback, val_a_mae=[nan, 4.0, 2.0, nan, nan, 4.0])
    np.testing.assert_allclose(written, [0, 10, (50 + 60) / 2, 40, 20, 0])
    assert [int(at) for at in callback.best_epochs] == [2, 2]


def test_directions_that_the_model_knows(model) -> None:
    for log, mode in (("val_a_mae", "min"), ("val_b_accuracy", "max"), ("loss", "min")):
        callback = BestEpoch(log)
        callback.set_model(model)
        callback.on_train_begin()
        assert callback.mode == mode
    callback = BestEpoch("val_other")
    callback.set_model(model)
    with pytest.raises(ValueError, match=r"'max' or 'min'.*val_other"):
        callback.on_train_begin()
    with pytest.raises(ValueError, match=r"`rule` is for several tasks"):
        BestEpoch(A, rule="all")
    callback = BestEpoch([A, kmtl.Regression("c")])
    callback.set_model(model)
    with pytest.raises(ValueError, match="Unknown task 'c'"):
        callback.on_train_begin()
    callback = BestEpoch(kmtl.Regression("c"))
    callback.set_model(model)
    with pytest.raises(ValueError, match="Unknown task 'c'"):
        callback.on_train_begin()
    callback = BestEpoch([A, B])
    callback.set_model(model)
    callback.on_train_begin()
    with pytest.raises(ValueError, match=r"val_b_accuracy.*Received"):
        callback.on_epoch_end(0, {"val_a_mae": 1.0})


@pytest.mark.parametrize(("rule", "last"), [("any", 3), ("all", 3)])
def test_a_task_without_any_score_does_not_count(model, rule, last) -> None:
    """Without labels in validation it can neither get better nor end the training."""
    callback = BestEpoch([A, B], patience=2, rule=rule)
    scores = {"val_a_mae": [2.0, 1.0, 1.5, 1.5, 1.5, 1.5]}
    scores["val_b_accuracy"] = [float("nan")] * 6
    # `pytest.warns` would raise what Keras itself warns of on JAX.
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert run(model, callback, **scores)[0] == last
    (told,) = [str(one.message) for one in seen if one.category is UserWarning]
    assert re.search("left out tasks without any score .*: b", told)


def test_without_validation_it_says_that_it_does_nothing(model) -> None:
    callback = BestEpoch([A, B], patience=2)
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_end(0, {"a_mae": 1.0})
    with pytest.warns(UserWarning, match="no epoch had validation"):
        callback.on_train_end()


def test_no_weight_of_a_task_goes_back_with_the_best_epoch() -> None:
    """A task that has waited in the best epoch is trained again after training."""
    x = np.random.default_rng(0).normal(size=(16, 2)).astype("float32")
    y = {"a": x[:, 0], "b": (x[:, 1] > 0).astype("float32")}
    tasks = [A, B.replace(adversarial=0.5)]
    model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(2,), seed=0)
    model.compile("sgd", run_eagerly=True)
    best = BestEpoch("val_first", mode="max")
    of_each = BestEpoch(tasks)
    first = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(val_first=-epoch)
    )
    plan = kmtl.training.Curriculum(start={"b": 2}, weights={"a": {0: 0.5, 3: 1.0}})
    gradual = kmtl.training.GradualReversal()
    model.fit(
        *(x, y),
        validation_data=(x, y),
        epochs=3,
        verbose=0,
        callbacks=[plan, gradual, first, best, of_each],
    )
    strength = model.get_layer("b_head_reversal").strength
    last = float(np.asarray(strength))
    assert best.best_epoch == 0
    assert model.task_weights == {"a": 1.0, "b": 1.0}
    assert last == pytest.approx(0.5 * (2 / (1 + np.exp(-20 / 3)) - 1))
    for place, name in enumerate("ab"):
        of_each.best_epochs[place] = 0
        setattr(of_each, f"best_weights_{place}", best.best_weights)
        of_each.restore(name)
        assert model.task_weights == {"a": 1.0, "b": 1.0}
        assert float(np.asarray(strength)) == last


def test_a_fit_without_epochs_says_nothing(model, recwarn) -> None:
    callback = BestEpoch([A, B])
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_train_end()
    assert not recwarn.list
