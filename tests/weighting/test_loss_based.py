"""Values, gradients and behaviour of each loss-based weighting."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import loss_weighting_tools as tools
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl import weighting as package
from kmtl.weighting import LossWeighting, Schedule

pytestmark = pytest.mark.backend

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "scalarizers.json").read_text()
)
PRECISIONS = [("float32", 1e-4)]
if keras.backend.backend() == "tensorflow":  # JAX has no float64 unless asked at start
    PRECISIONS.append(("float64", 1e-6))


def ready(weighting: LossWeighting, tasks: int) -> LossWeighting:
    weighting.setup(tools.task_names(tasks))
    return weighting


def weights_of(
    weighting: LossWeighting, losses: Sequence[float], **options: Any
) -> Any:
    _, weights = weighting.combine(losses, [1] * len(losses), **options)
    return ops.convert_to_numpy(weights)


def ramp(tasks: int) -> dict[str, float]:
    """1 / T, 2 / T, ..., 1: the preferences of the golden values."""
    return {name: (i + 1) / tasks for i, name in enumerate(tools.task_names(tasks))}


# Golden entry -> the same definition here.
SAME_DEFINITION = {
    "Mean()": lambda t: package.Fixed(normalize=True),
    "Sum()": lambda t: package.Equal(),
    "Constant(1..T/T)": lambda t: package.Fixed(ramp(t)),
    "GeometricMean()": lambda t: package.GLS(),
    "UW(T)": lambda t: package.Uncertainty(),
    "IMTLL(T)": lambda t: package.IMTLL(),
    "STCH(mu=1)": lambda t: package.STCH(mu=1, normalize=False),
    "STCH(mu=0.1)": lambda t: package.STCH(mu=0.1, normalize=False),
    "COSMOS(lambda=2,1..T/T)": lambda t: package.COSMOS(ramp(t), 2.0),
    "PBI(theta=5,1..T/T)": lambda t: package.PBI(ramp(t), 5.0),
    "FAMO(T)": lambda t: package.FAMO(),
    # Recorded with the number of tasks in the place of the temperature.
    "DWA(T)": lambda t: package.DWA(temperature=t),
}


@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("vector", ["v3", "v2"])
@pytest.mark.parametrize("entry", sorted(SAME_DEFINITION))
def test_golden(entry: str, vector: str, precision: str, tolerance: float) -> None:
    losses = np.array(GOLDEN[vector]["losses"], precision)
    expected = GOLDEN[vector]["outputs"][f"torchjd.{entry}"]
    tasks = len(losses)
    present = np.ones(tasks, "float32")
    weighting = ready(SAME_DEFINITION[entry](tasks), tasks)
    for variable, values in zip(
        weighting.trainable_variables, expected.get("params", {}).values(), strict=False
    ):
        variable.assign(np.array(values, "float32"))
    if entry == "DWA(T)":  # epoch 0: the losses, epoch 1: a little less
        for epoch in range(2):
            factor = 1 - 0.1 * epoch * (np.arange(tasks) + 1) / tasks
            weighting.combine(losses * factor, present)
            weighting.on_epoch_end(epoch)
    total, weights, grad, own = tools.gradients(weighting, losses, present)
    assert total == pytest.approx(expected["value"], rel=tolerance)
    # Softmax terms of e-88 are 0 in float32.
    np.testing.assert_allclose(grad, expected["grad"], rtol=tolerance, atol=1e-30)
    np.testing.assert_allclose(weights, expected["grad"], rtol=tolerance, atol=1e-30)
    expected_own = list(expected.get("param_grads", {}).values())
    assert len(own) == len(expected_own)
    for ours, theirs in zip(own, expected_own, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance)


def test_golden_covers_every_entry() -> None:
    for vector in ("v3", "v2"):
        names = {entry.split(".", 1)[1] for entry in GOLDEN[vector]["outputs"]}
        assert names == set(SAME_DEFINITION)


@pytest.mark.parametrize("vector", ["v3", "v2"])
def test_famo_logits_golden(vector: str) -> None:
    """With the loss after the update on the same batch, as in the official code."""
    losses = np.array(GOLDEN[vector]["losses"])
    expected = GOLDEN[vector]["outputs"]["torchjd.FAMO(T)"]["logits_after_3_updates"]
    tasks = len(losses)
    famo = ready(package.FAMO(), tasks)
    ones = np.ones(tasks, "float32")
    before = losses
    for factor in (0.9, 0.95, 0.8):
        after = losses * factor * (1 + 0.05 * np.arange(tasks))
        famo.update(np.log(before / after).astype("float32"), ones)
        before = losses * factor
    logits = ops.convert_to_numpy(famo.logits)
    np.testing.assert_allclose(logits, expected, rtol=1e-4)


def test_famo_takes_the_next_batch_as_after() -> None:
    sequence = [[1.0, 1.0], [0.5, 0.9], [0.3, 0.8]]
    inside, outside = ready(package.FAMO(), 2), ready(package.FAMO(), 2)
    for losses in sequence:
        weights_of(inside, losses)
    for before, after in itertools.pairwise(sequence):
        decrease = np.log(np.array(before) / np.array(after)).astype("float32")
        outside.update(decrease, np.ones(2, "float32"))
    logits = ops.convert_to_numpy(inside.logits)
    assert logits[0] < logits[1]  # the task that improves more gets less
    np.testing.assert_allclose(logits, ops.convert_to_numpy(outside.logits), rtol=1e-3)
    # d total / d log(loss) is proportional to softmax(logits); weights x loss sum to 1
    # times the losses' normaliser.
    weights = weights_of(inside, sequence[-1], training=False)
    shares = weights * sequence[-1] / np.sum(weights * sequence[-1])
    np.testing.assert_allclose(shares, np.exp(logits) / np.exp(logits).sum(), rtol=1e-5)


def test_famo_compares_an_absent_task_with_its_last_loss() -> None:
    famo = ready(package.FAMO(gamma=0.0), 2)
    famo.combine([1.0, 1.0], [1, 1])
    famo.combine([0.5, 7.0], [1, 0])  # alone: nothing to compare with
    np.testing.assert_array_equal(ops.convert_to_numpy(famo.logits), [0, 0])
    famo.combine([0.5, 0.5], [1, 1])  # since last seen: 0.5 -> 0.5 and 1 -> 0.5
    logits = ops.convert_to_numpy(famo.logits)
    # Adam's bias correction: t0 is in its second update, t1 in its first.
    second = 0.025 * (0.1 / 0.19) / math.sqrt(0.001 / 0.001999)
    np.testing.assert_allclose(logits, [second, -0.025], rtol=1e-4)


@pytest.mark.parametrize("mode", ["proportional", "inverse"])
@pytest.mark.parametrize("given", [True, False])
def test_by_labels(mode: str, given: bool) -> None:
    counts = {"t0": 90.0, "t1": 10.0, "t2": 50.0} if given else None
    weighting = ready(package.ByLabels(mode, counts), 3)
    expected = np.array([90, 10, 50]) ** (1.0 if mode == "proportional" else -1.0)
    if not given:
        weighting.combine([1.0, 1.0, 1.0], [80, 0, 20])
        weighting.combine([1.0, 1.0, 1.0], [10, 10, 30])
        # Validation uses the counts and does not add to them.
        weighting.combine([1.0, 1.0, 1.0], [1, 99, 1], training=False)
    weights = weights_of(weighting, [1.0, 2.0, 3.0], training=False)
    np.testing.assert_allclose(weights, 3 * expected / expected.sum(), rtol=1e-5)
    _, weights = weighting.combine([1.0, 2.0, 3.0], [1, 1, 0], training=False)
    two = 2 * expected[:2] / expected[:2].sum()
    np.testing.assert_allclose(ops.convert_to_numpy(weights)[:2], two, rtol=1e-5)


def test_by_labels_of_nothing_seen_is_equal() -> None:
    weighting = ready(package.ByLabels("inverse"), 2)
    np.testing.assert_allclose(weights_of(weighting, [1, 2], training=False), [1, 1])


@pytest.mark.parametrize(("form", "factor"), [("regression", 2), ("classification", 1)])
def test_uncertainty_is_at_rest_where_the_paper_says(form: str, factor: float) -> None:
    losses = np.array([0.02, 3.0], "float32")
    weighting = ready(package.Uncertainty(form), 2)
    # d/ds: -f exp(-s) L + 1/2 = 0 at exp(s) = 2 f L, with f = 1/2 or 1.
    weighting.log_variance.assign(np.log(2 / factor * losses))
    _, weights, _, own = tools.gradients(weighting, losses, np.ones(2))
    np.testing.assert_allclose(own[0], 0, atol=1e-6)
    np.testing.assert_allclose(weights * losses, 0.5, rtol=1e-5)


def test_uncertainty_forms_by_task() -> None:
    weighting = ready(package.Uncertainty({"t1": "classification"}), 2)
    np.testing.assert_allclose(weights_of(weighting, [1.0, 1.0]), [0.5, 1.0])
    # An absent task's log-variance does not move.
    _, _, _, own = tools.gradients(weighting, np.ones(2, "float32"), np.array([0, 1]))
    np.testing.assert_allclose(own[0], [0, -0.5])


def test_imtl_l_is_at_rest_where_scaled_losses_are_one() -> None:
    losses = np.array([1e-12, 1.0, 1e12], "float32")
    weighting = ready(package.IMTLL(), 3)
    weighting.log_scale.assign(-np.log(losses))
    _, weights, _, own = tools.gradients(weighting, losses, np.ones(3))
    np.testing.assert_allclose(own[0], 0, atol=1e-5)
    np.testing.assert_allclose(weights * losses, 1, rtol=1e-5)


@pytest.mark.parametrize("method", [package.Uncertainty, package.IMTLL])
def test_one_wild_step_keeps_the_scale_in_bounds(method: Any) -> None:
    weighting = ready(method(), 2)
    optimizer = keras.optimizers.SGD(1.0)
    losses = np.array([1e12, 1e-12], "float32")
    for _ in range(2):
        total, _, grad, own = tools.gradients(weighting, losses, np.ones(2))
        assert math.isfinite(total)
        assert np.all(np.isfinite(grad))
        gradients = [ops.convert_to_tensor(g) for g in own]
        optimizer.apply(gradients, weighting.trainable_variables)
        value = ops.convert_to_numpy(weighting.trainable_variables[0])
        assert np.abs(value).max() <= 40.0


def test_uw_so() -> None:
    losses = np.array([0.5, 1.0, 4.0], "float32")
    weighting = ready(package.UWSO(temperature=0.5), 3)
    exponentials = np.exp(1 / losses / 0.5)
    expected = exponentials / exponentials.sum()
    total, _, grad, _ = tools.gradients(weighting, losses, np.ones(3))
    np.testing.assert_allclose(grad, expected, rtol=1e-5)  # no gradient through w
    assert total == pytest.approx(np.sum(expected * losses), rel=1e-5)


def test_dwa_by_hand() -> None:
    dwa = ready(package.DWA(temperature=1.0), 2)
    np.testing.assert_allclose(weights_of(dwa, [4.0, 2.0]), [1, 1])
    np.testing.assert_allclose(weights_of(dwa, [2.0, 2.0]), [1, 1])
    dwa.on_epoch_end(0, {})  # means 3, 2
    np.testing.assert_allclose(weights_of(dwa, [1.5, 2.0]), [1, 1])
    dwa.on_epoch_end(1, {})  # ratios 0.5, 1
    expected = 2 * np.exp([0.5, 1]) / np.exp([0.5, 1]).sum()
    np.testing.assert_allclose(weights_of(dwa, [9.0, 9.0]), expected, rtol=1e-5)
    # An epoch without labels of a task leaves its ratio; the other goes on: 1 -> 3 / 2.
    dwa.reset()
    for epoch, (losses, present) in enumerate(
        [([3.0, 2.0], [1, 1]), ([1.5, 2.0], [1, 1]), ([5.0, 3.0], [0, 1])]
    ):
        dwa.combine(losses, present)
        dwa.on_epoch_end(epoch, {})
    expected = 2 * np.exp([0.5, 1.5]) / np.exp([0.5, 1.5]).sum()
    np.testing.assert_allclose(weights_of(dwa, [1.0, 1.0]), expected, rtol=1e-5)


def test_log_loss() -> None:
    losses = np.array([0.5, 4.0], "float32")
    total, _, grad, _ = tools.gradients(ready(package.LogLoss(), 2), losses, np.ones(2))
    assert total == pytest.approx(math.log(2.0), rel=1e-5)
    np.testing.assert_allclose(grad, [2, 0.25], rtol=1e-5)


@pytest.mark.parametrize("method", [package.GLS, package.LogLoss, package.STCH])
def test_direction_does_not_know_units(method: Any) -> None:
    """weights x loss, the pull on log-losses, is the same after a change of units."""
    losses, units = np.array([0.5, 3.0, 8.0]), np.array([1e-3, 1.0, 1e4])
    pulls = []
    for scale in (1.0, units):
        weighting = ready(method(), 3)
        tools.run_epochs(weighting, np.tile(losses * scale, (6, 1)), np.ones(3))
        weights = weights_of(weighting, losses * scale * [0.5, 1.0, 0.9])
        pull = weights * losses * scale * [0.5, 1.0, 0.9]
        pulls.append(pull / pull.sum())
    np.testing.assert_allclose(*pulls, rtol=1e-4)


def test_stch_phases_by_hand() -> None:
    stch = ready(package.STCH(mu=0.5, warmup_epochs=1), 2)
    losses = [[1.0, 4.0], [2.0, 4.0]]
    for epoch in range(2):  # warm-up, then the nadir's epoch: sum of log losses
        stch.on_epoch_begin(epoch)
        for row in losses:
            total, weights = stch.combine(row, [1, 1])
            assert float(total) == pytest.approx(math.log(row[0] * row[1]), rel=1e-5)
            np.testing.assert_allclose(weights, 1 / np.array(row), rtol=1e-5)
    stch.on_epoch_begin(2)  # nadir (1.5, 4)
    total, weights = stch.combine([0.75, 4.0], [1, 1])
    exponentials = np.exp(np.log([0.5, 1.0]) / 0.5)  # 0.25, 1
    expected = 2 * 0.5 * math.log(exponentials.sum())
    assert float(total) == pytest.approx(expected, rel=1e-5)
    shares = exponentials / exponentials.sum()
    np.testing.assert_allclose(weights, 2 * shares / [0.75, 4.0], rtol=1e-5)


def test_stch_task_that_comes_late_gets_a_nadir() -> None:
    stch = ready(package.STCH(warmup_epochs=0), 2)
    for epoch, present in enumerate([[1, 0], [1, 1], [1, 1]]):
        stch.on_epoch_begin(epoch)
        stch.combine([2.0, 8.0 / (epoch + 1)], present)
    np.testing.assert_allclose(ops.convert_to_numpy(stch.nadir), [2.0, 4.0])


def test_stch_is_near_the_maximum_for_small_mu() -> None:
    stch = ready(package.STCH(mu=1e-3, normalize=False, preferences={}), 3)
    total, weights = stch.combine([0.5, 2.0, 1.0], [1, 1, 1])
    assert float(total) == pytest.approx(2.0, rel=1e-5)
    np.testing.assert_allclose(weights, [0, 1, 0], atol=1e-6)


def test_pbi_on_the_ray_pays_no_penalty() -> None:
    pbi = ready(package.PBI({"t0": 0.6, "t1": 0.8}, penalty=100.0), 2)
    total, weights = pbi.combine([3.0, 4.0], [1, 1])
    assert float(total) == pytest.approx(5.0, rel=1e-3)
    assert np.all(np.isfinite(weights))
    total, weights = pbi.combine([0.0, 0.0], [1, 1])
    assert float(total) == 0
    assert np.all(np.isfinite(weights))


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_rlw_distribution(distribution: str) -> None:
    tasks = 64
    rlw = ready(package.RLW(distribution, seed=1), tasks)
    draws = np.array([weights_of(rlw, [1.0] * tasks) for _ in range(40)])
    np.testing.assert_allclose(draws.sum(axis=1), 1, rtol=1e-5)
    assert not np.allclose(draws[0], draws[1])
    if distribution == "normal":  # log-weights are normal, but for a shift per draw
        assert np.log(draws).std(axis=1).mean() == pytest.approx(1, abs=0.05)
    else:  # variance of a component of Dirichlet(1, ..., 1)
        expected = (tasks - 1) / (tasks**2 * (tasks + 1))
        assert draws.var() == pytest.approx(expected, rel=0.1)
    again = ready(package.RLW(distribution, seed=1), tasks)
    np.testing.assert_array_equal(draws[0], weights_of(again, [1.0] * tasks))
    validation = weights_of(rlw, [1.0] * tasks, training=False)
    np.testing.assert_allclose(validation, 1 / tasks, rtol=1e-5)


def schedule_at(schedule: Schedule, position: float, tasks: int = 2) -> list[float]:
    ready(schedule, tasks)
    return np.round(ops.convert_to_numpy(schedule.weights_at(position)), 5).tolist()


@pytest.mark.parametrize(
    ("interpolation", "expected"),
    [
        ("linear", [0.2, 0.2, 0.5, 0.8, 0.4, 0.0, 0.0]),
        ("cosine", [0.2, 0.2, 0.5, 0.8, 0.4, 0.0, 0.0]),
        ("step", [0.2, 0.2, 0.2, 0.8, 0.8, 0.0, 0.0]),
    ],
)
def test_schedule_interpolation(interpolation: str, expected: list[float]) -> None:
    points = {"t1": {2: 0.2, 4: 0.8, 8: 0.0}}
    schedule = Schedule(points, interpolation)
    for position, weight in zip([0, 2, 3, 4, 6, 8, 99], expected, strict=True):
        assert schedule_at(schedule, position) == pytest.approx([1.0, weight])
    if interpolation == "cosine":  # flat at the points: a quarter of the way is 0.146
        assert schedule_at(schedule, 2.5)[1] == pytest.approx(0.2 + 0.6 * 0.14645)


def test_schedule_plans() -> None:
    plan = Schedule.hand_over("t0", "t1", start=2, end=6)
    assert [schedule_at(plan, e) for e in (0, 4, 6)] == [[1, 0], [0.5, 0.5], [0, 1]]
    plan = Schedule.warm_up({"t1": 4})
    assert [schedule_at(plan, e) for e in (0, 1, 9)] == [[1, 0], [1, 0.25], [1, 1]]
    plan = Schedule.curriculum(["t1", "t0"], every=3)
    assert [schedule_at(plan, e) for e in (0, 2, 3)] == [[0, 1], [0, 1], [1, 1]]
    plan = Schedule.curriculum(["t1", "t0"], every=3, ramp=2)
    assert [schedule_at(plan, e) for e in (3, 4, 5)] == [[0, 1], [0.5, 1], [1, 1]]


def test_schedule_follows_steps_or_epochs() -> None:
    by_step = ready(Schedule({"t0": {0: 0.0, 2: 1.0}}, unit="step"), 1)
    by_step.on_epoch_begin(7)
    weights = [float(weights_of(by_step, [1.0])[0]) for _ in range(4)]
    assert weights == [0.0, 0.5, 1.0, 1.0]
    by_epoch = ready(Schedule({"t0": {0: 0.0, 2: 1.0}}), 1)
    by_epoch.on_epoch_begin(1)
    assert [float(weights_of(by_epoch, [1.0])[0]) for _ in range(2)] == [0.5, 0.5]


def test_fixed_normalises_over_present_tasks() -> None:
    fixed = ready(package.Fixed({"t0": 3.0, "t2": 0.0}, normalize=True), 3)
    np.testing.assert_allclose(weights_of(fixed, [1, 1, 1]), [0.75, 0.25, 0])
    _, weights = fixed.combine([1, 1, 1], [0, 1, 1])
    np.testing.assert_allclose(weights, [0, 1, 0])
    _, weights = fixed.combine([1, 1, 1], [0, 0, 1])  # nothing to normalise
    np.testing.assert_allclose(weights, [0, 0, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: package.DWA(temperature=0), "temperature"),
        (lambda: package.UWSO(temperature=-1), "temperature"),
        (lambda: package.RLW("gaussian"), "distribution"),
        (lambda: package.Uncertainty("clasification"), "Did you mean 'classification'"),
        (lambda: package.Fixed({"t0": -1.0}), r"weights\['t0'\]"),
        (lambda: package.Fixed({"t0": math.nan}), r"weights\['t0'\]"),
        (lambda: package.ByLabels(counts={"t0": 0}), r"counts\['t0'\]"),
        (lambda: package.STCH(mu=0), "mu"),
        (lambda: package.STCH(ideal={"t0": 1.0}), "normalize=False"),
        (lambda: Schedule({"t0": {-1: 1.0}}), "position"),
        (lambda: Schedule({"t0": {}}), "at least one point"),
        (lambda: Schedule.hand_over("t0", "t1", 4, 4), "end"),
        (lambda: ready(package.Fixed({"t9": 1.0}), 2), "Unknown task 't9'"),
        (lambda: ready(package.ByLabels(counts={"t0": 1}), 2), "lacks task t1"),
        (lambda: ready(Schedule({"t9": 1.0}), 2), "Unknown task 't9' in `points`"),
    ],
)
def test_bad_hyperparameters_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["uw_so", "gls", "uncertainty"])
def test_the_loss_of_an_evaluation_is_that_of_all_its_rows(name: str) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(10, 3)).astype("float32")
    y = {"a": 3 * x[:, 0] ** 2, "b": np.where(np.arange(10) < 4, np.nan, x[:, 1])}
    tasks = [kmtl.Regression(task) for task in y]
    model = kmtl.build_mlp(
        input_shape=(3,),
        tasks=tasks,
        units=(4,),
        kernel_regularizer=keras.regularizers.L2(0.01),
        seed=0,
    )
    model.compile("sgd", weighting=name)
    history = model.fit(x, y, validation_data=(x, y), batch_size=4, verbose=0).history
    found = [
        model.evaluate(x, y, batch_size=size, verbose=0, return_dict=True)
        for size in (3, 10)
    ]
    losses = [found[0][f"{task}_loss"] for task in y]
    total, _ = model.weighting.combine(losses, [1, 1], training=False)
    wanted = float(total) + found[0]["regularization_loss"]
    values = [part["loss"] for part in found] + history["val_loss"]
    assert values == pytest.approx([wanted] * 3, rel=1e-5)
