"""Models averaged as one: numbers, files, choice of members."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from scipy.special import expit, softmax

import kmtl
from kmtl.evaluation.ensemble import average, compare, greedy_shares, set_shares

pytestmark = pytest.mark.backend

TASKS = (
    kmtl.Classification("digit", classes=3),
    kmtl.BinaryClassification("odd"),
    kmtl.Regression("ink", transform="log1p"),
)
SHARES = (2.0, 1.0)


def data() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(12, 4)).astype("float32")
    y = {
        "digit": draw.integers(0, 3, 12),
        "odd": draw.integers(0, 2, 12),
        "ink": 10 * np.exp(x[:, 0]),
    }
    return x, y


@pytest.fixture(scope="module")
def members() -> list[Any]:
    models = [
        kmtl.build_mlp(
            input_shape=(4,), tasks=TASKS, units=units, sharing_depth=1, seed=seed
        )
        for seed, units in enumerate([(6,), (4, 4)])
    ]
    _, y = data()
    for model, shift in zip(models, (0.0, 3.0), strict=True):  # transforms differ
        model.adapt_targets({**y, "ink": y["ink"] + shift})
        for variable in model.trainable_variables:
            variable.assign(variable + 0.3)
    return models


@pytest.fixture(scope="module")
def mean(members: list[Any]) -> Any:
    return average(members, SHARES)


def test_probabilities_and_values_are_averaged(members: list[Any], mean: Any) -> None:
    x, _ = data()
    one, two = (model.predict(x, verbose=0) for model in members)
    found = mean.predict(x, verbose=0)
    for name, activate in (
        ("digit", lambda z: softmax(z, axis=-1)),
        ("odd", expit),
        ("ink", lambda z: z),  # in the unit: the inverse is the member's own
    ):
        expected = (2 * activate(one[name]) + activate(two[name])) / 3
        np.testing.assert_allclose(activate(found[name]), expected, rtol=2e-5)
    assert mean.tasks == members[0].tasks


@pytest.mark.parametrize(
    "size",
    [
        kmtl.Regression("size", transform="log1p"),
        kmtl.Regression("size", transform="quantile"),
        kmtl.Distribution("size", transform="standardize"),
    ],
    ids=("log1p", "quantile", "distribution"),
)
def test_losses_are_as_the_members(size: Any, tmp_path: Path) -> None:
    """In the scale that they learned in, with their weights of classes."""
    kind = kmtl.BinaryClassification("kind", class_weight="balanced")
    x, y = data()
    y = {"kind": np.arange(12) < 3, "size": y["ink"]}
    models = [
        kmtl.build_mlp(input_shape=(4,), tasks=[kind, size], units=(4,), seed=seed)
        for seed in (0, 1)
    ]
    for model in models:
        model.adapt_targets(y)
        model.compile()
    losses = [model.evaluate(x, y, verbose=0, return_dict=True) for model in models]
    mean = average(models)
    set_shares(mean, (0, 1))
    mean.compile()
    mean.save(tmp_path / "mean.keras")
    for found in (mean, kmtl.load_model(tmp_path / "mean.keras")):
        logs = found.evaluate(x, y, verbose=0, return_dict=True)
        assert logs == pytest.approx(losses[1], rel=1e-4)
        assert found.task("size").transform == size.transform
    outputs = mean.predict(x, verbose=0)["size"]
    plain = mean.to_keras().predict(x, verbose=0)["size"]
    np.testing.assert_allclose(plain, outputs, rtol=1e-5)


def test_penalties_count_by_the_shares(tmp_path: Path) -> None:
    regularizer, (x, y) = keras.regularizers.L2(0.01), data()
    models = [
        kmtl.build_mlp(
            input_shape=(4,), tasks=TASKS[1:2], units=(units,), seed=0,
            kernel_regularizer=regularizer,
        )
        for units in (4, 16)
    ]  # fmt: skip
    odd = {"odd": y["odd"]}

    def logs(model: Any) -> Any:
        model.compile("sgd")
        return model.evaluate(x, odd, verbose=0, return_dict=True)

    alone = [logs(model) for model in models]
    assert logs(average(models[:1])) == pytest.approx(alone[0], rel=1e-5)
    both = average(models, SHARES)
    both.save(tmp_path / "mean.keras")
    penalties = [part["regularization_loss"] for part in alone]
    for mean in (both, kmtl.load_model(tmp_path / "mean.keras")):
        found = logs(mean)
        wanted = np.average(penalties, weights=SHARES)
        assert found["regularization_loss"] == pytest.approx(wanted, rel=1e-5)
        assert found["loss"] == pytest.approx(found["odd_loss"] + wanted, rel=1e-5)


def test_a_mean_at_the_end_of_its_range_has_a_loss() -> None:
    """Members answer -1 and less, of which there is no logarithm."""
    tasks = [kmtl.Regression("out", transform=name) for name in ("log1p", None)]
    logs, plain = (
        kmtl.build_mlp(input_shape=(4,), tasks=[task], units=(4,), seed=0)
        for task in tasks
    )
    x, _ = data()
    y = {"out": np.arange(12.0)}
    logs.adapt_targets(y)
    mean = average([logs, plain], (0, 1))
    mean.compile()
    plain.trainable_variables[-1].assign([-10.0])
    assert (mean.predict(x, verbose=0)["out"] <= -1).any()
    assert np.isfinite(mean.evaluate(x, y, verbose=0, return_dict=True)["loss"])


def test_shares_may_differ_by_task(members: list[Any], mean: Any) -> None:
    x, _ = data()
    by_task = {"digit": [0, 1], "odd": SHARES, "ink": [1, 0]}
    found = average(members, by_task).predict(x, verbose=0)
    one, two = (model.predict(x, verbose=0) for model in members)
    np.testing.assert_allclose(
        softmax(found["digit"], axis=-1), softmax(two["digit"], axis=-1), rtol=2e-5
    )
    common = mean.predict(x, verbose=0)
    np.testing.assert_allclose(found["odd"], common["odd"], rtol=2e-5)
    np.testing.assert_allclose(found["ink"], one["ink"], rtol=2e-5)
    with pytest.raises(ValueError, match="lacks tasks odd, ink"):
        average(members, {"digit": [1, 1]})
    with pytest.raises(ValueError, match=r"each of the 2 models.*'ink': \[1\]"):
        average(members, {**by_task, "ink": [1]})


@pytest.mark.parametrize(
    "task",
    [
        kmtl.Classification("out", classes=3),
        kmtl.MultiLabel("out", classes=3),
        kmtl.Regression("out", units=3),
    ],
    ids=lambda task: type(task).__name__,
)
def test_as_many_members_as_classes(task: Any) -> None:
    """Shares stand on the axis of members, as long as that of classes or not."""
    models = [
        kmtl.build_mlp(input_shape=(4,), tasks=[task], units=(4,), seed=seed)
        for seed in range(3)
    ]
    mean = average(models, (1, 1, 3))
    x, _ = data()
    found = mean.to_keras().predict(x, verbose=0)["out"]
    np.testing.assert_allclose(found, mean.predict(x, verbose=0)["out"], atol=1e-5)


def test_members_that_are_ensembles_themselves() -> None:
    backbone = kmtl.backbones.Ensemble(
        backbone=kmtl.backbones.MLP(units=(4,)), members=3
    )
    models = [
        kmtl.build(backbone=backbone, input_shape=(4,), tasks=TASKS, seed=seed)
        for seed in (0, 1)
    ]
    x, _ = data()
    one, two = (model.predict(x, verbose=0) for model in models)
    mean = average(models)
    found = mean.predict(x, verbose=0)
    plain = mean.to_keras(activated=True).predict(x, verbose=0)
    assert found["digit"].shape == (12, 3)
    for name, activate in (
        ("digit", lambda z: softmax(z, axis=-1)),
        ("odd", expit),
        ("ink", lambda z: z),
    ):
        expected = (activate(one[name]) + activate(two[name])) / 2
        np.testing.assert_allclose(activate(found[name]), expected, rtol=2e-5)
        # A member ends in an output of that name as well: activated once, not twice.
        np.testing.assert_allclose(plain[name], expected, rtol=2e-5)


def test_it_is_a_model_as_any_other(
    members: list[Any], mean: Any, tmp_path: Path
) -> None:
    x, y = data()
    result = kmtl.evaluate(mean, (x, y))
    probabilities = softmax(mean.predict(x, verbose=0)["digit"], axis=-1)
    accuracy = np.mean(probabilities.argmax(-1) == y["digit"])
    assert result["digit"].score == pytest.approx(accuracy)
    mean.save(tmp_path / "mean.keras")
    loaded = kmtl.load_model(tmp_path / "mean.keras")
    plain = mean.to_keras(activated=True)
    expected = mean.predict(x, verbose=0)
    for name, values in loaded.predict(x, verbose=0).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5)
    assert not any("kmtl" in type(layer).__module__ for layer in plain.layers)
    found = plain.predict(x, verbose=0)
    np.testing.assert_allclose(found["digit"], probabilities, rtol=1e-5)
    np.testing.assert_allclose(found["ink"], expected["ink"], rtol=1e-5)
    table = compare({"one": members[0], "mean": mean}, (x, y), {"digit": 0.5, "odd": 1,
                    "ink": 2.0})  # fmt: skip
    assert table.loc["mean", "digit accuracy"] == pytest.approx(accuracy)
    assert table.loc["mean", "digit Δ %"] == pytest.approx(200 * accuracy - 100)
    assert list(table.index) == ["one", "mean"]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="what others serve")
def test_it_is_one_saved_model(mean: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    x, _ = data()
    served = tf.saved_model.load(mean.export(tmp_path / "served"))
    found = served.signatures["serving_default"](tf.constant(x))
    assert sorted(found) == ["digit", "ink", "odd"]
    logits = mean.predict(x, verbose=0)
    expected = softmax(logits["digit"], axis=-1)
    np.testing.assert_allclose(found["digit"].numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(found["ink"].numpy(), logits["ink"], rtol=1e-5)


def test_small_probabilities_are_not_rounded_away() -> None:
    layer = kmtl.layers.AverageOutputs([1, 1, 0], "softmax")
    logits = [np.array([[0.0, -200.0]], "float32")] * 2 + [np.zeros((1, 2), "float32")]
    found = np.asarray(layer(logits))
    assert found[0, 0] - found[0, 1] == pytest.approx(69, abs=1)  # of a share of 1e-30
    layer = kmtl.layers.AverageOutputs([1, 1], "sigmoid")
    found = np.asarray(layer([np.full((1, 1), -90.0), np.full((1, 1), -90.0)]))
    assert found[0, 0] == pytest.approx(-90, abs=1e-3)


def test_shares_can_be_changed(members: list[Any]) -> None:
    x, _ = data()
    model = average(members)
    set_shares(model, (0, 5))
    expected = members[1].predict(x, verbose=0)["ink"]
    found = model.predict(x, verbose=0)["ink"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_members_are_chosen_greedily_with_replacement() -> None:
    # Answers to be averaged near to 1: by hand 0.9; (0.9 + 1.3)/2; 0.9, 0.9, 1.3.
    answers = np.array([0.5, 0.9, 1.3])

    def score(counts: Any) -> float:
        return -abs(np.average(answers, weights=counts) - 1.0)

    assert greedy_shares(score, 3, 1) == [0, 1, 0]
    assert greedy_shares(score, 3, 2) == [0, 1, 0]  # 1.1 is no better than 0.9
    assert greedy_shares(score, 3, 3) == [0, 2, 1]
    assert greedy_shares(lambda counts: float("nan"), 2, 2) == [1, 0]
    # The two best alone come first, and stay where no other does better.
    assert greedy_shares(score, 3, 1, first=2) == [0, 2, 1]
    assert greedy_shares(lambda counts: 1.0 - counts[2], 3, 1, first=2) == [1, 1, 0]


def test_models_that_differ_are_refused(members: list[Any]) -> None:
    def build(width: int = 4, **tasks: Any) -> Any:
        return kmtl.build_mlp(input_shape=(width,), units=(2,), seed=0, **tasks)

    with pytest.raises(ValueError, match="lack"):
        average([members[0], build(tasks=TASKS[:2])])
    with pytest.raises(ValueError, match="same inputs"):
        average([members[0], build(5, tasks=TASKS)])
    wide = [kmtl.Classification("digit", classes=4), *TASKS[1:]]
    with pytest.raises(ValueError, match=r"one shape.*'digit'"):
        average([members[0], build(tasks=wide)])

    def by_hand(*names: str | None) -> Any:
        inputs = [keras.Input((2,), name=name) for name in names]
        merged = keras.layers.Concatenate()([*inputs, inputs[0]])
        task = kmtl.Regression("out")
        output = kmtl.TaskOutput(task)(keras.layers.Dense(1)(merged))
        return kmtl.MultiTaskModel(inputs, {"out": output})

    x = np.ones((3, 2), "float32")
    unnamed = [by_hand(None, None) for _ in range(2)]  # Keras counts them
    assert average(unnamed).predict([x, x], verbose=0)["out"].shape == (3, 1)
    with pytest.raises(ValueError, match="same inputs"):
        average([by_hand("left", "right"), by_hand("right", "left")])
    with pytest.raises(ValueError, match="at least one"):
        average([])
    with pytest.raises(TypeError, match="must be a kmtl model"):
        average([3])


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (
            kmtl.Classification("t", labels=("red", "green")),
            kmtl.Classification("t", labels=("green", "red")),
            r"labels=\('red', 'green'\) and labels=\('green', 'red'\)",
        ),
        (kmtl.Regression("t"), kmtl.BinaryClassification("t"), "kind='regression'"),
        (kmtl.Regression("t"), kmtl.Count("t"), "kind='count'"),
        (kmtl.Regression("t", unit="g"), kmtl.Regression("t", unit="kg"), "unit='kg'"),
        (
            kmtl.Quantile("t", levels=(0.1, 0.5)),
            kmtl.Quantile("t", levels=(0.5, 0.9)),
            r"levels=\(0.5, 0.9\)",
        ),
    ],
)
def test_tasks_that_mean_something_else_are_refused(
    one: Any, other: Any, said: str
) -> None:
    def build(task: Any) -> Any:
        return kmtl.build_mlp(input_shape=(4,), tasks=[task], units=(2,), seed=0)

    with pytest.raises(ValueError, match=f"'t'.*{said}"):
        average([build(one), build(other)])


def test_tasks_may_differ_in_what_is_not_their_meaning() -> None:
    first = kmtl.Classification("t", classes=2)
    second = kmtl.Classification(
        "t", labels=("red", "green"), hidden=(3,), loss="focal", weight=2.0,
        metrics=("macro_f1",), missing=9,
    )  # fmt: skip
    models = [
        kmtl.build_mlp(input_shape=(4,), tasks=[task], units=(2,), seed=0)
        for task in (first, second)
    ]
    assert average(models).output["t"].shape == (None, 2)
