"""What the papers promise, on random, degenerate and badly scaled gradients."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from gradient_weighting_tools import (
    FEW_TASKS,
    HAS_FLOAT64,
    ROLES,
    call,
    direction,
    make,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import kmtl

pytestmark = pytest.mark.backend

DTYPE = "float64" if HAS_FLOAT64 else "float32"
TOLERANCE = 1e-6 if HAS_FLOAT64 else 3e-3
few = settings(max_examples=20 if HAS_FLOAT64 else 4, deadline=None, derandomize=True)

# Small whole numbers give parallel, opposite, zero and dependent rows.
whole = st.sampled_from(FEW_TASKS).flatmap(
    lambda tasks: arrays(
        "float64", (tasks, 4), elements=st.integers(-3, 3).map(float), fill=st.nothing()
    )
)


@st.composite
def independent(draw: st.DrawFn) -> np.ndarray:
    """2 to 6 random rows of length 12, possibly conflicting, of unequal scales."""
    tasks = draw(st.sampled_from(FEW_TASKS[-2:]))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    rows = rng.normal(size=(tasks, 12)) - draw(st.floats(-0.5, 0.5))
    return rows * 10 ** rng.uniform(-2, 2, size=(tasks, 1))


def update_of(name: str, jacobian: np.ndarray, **options: object) -> np.ndarray:
    rule = make(name, *jacobian.shape, DTYPE, **options)
    return direction(rule, jacobian, dtype=DTYPE)


def weights_of(name: str, jacobian: np.ndarray, **options: object) -> np.ndarray:
    """Weights of the first step."""
    rule = make(name, *jacobian.shape, DTYPE, **options)
    jacobian = jacobian.astype(DTYPE)
    ones = np.ones(len(jacobian), DTYPE)
    if rule.uses_gramian:
        gramian = jacobian @ jacobian.T
        return call(rule, "row_weights", gramian, ones, ones).astype("float64")
    call(rule, "direction", jacobian, ones, ones)
    return np.asarray(rule.task_weights()).astype("float64")


@few
@pytest.mark.parametrize("name", ["upgrad", "dualproj", "mgda"])
@given(jacobian=whole)
def test_no_task_loses(name: str, jacobian: np.ndarray) -> None:
    """<g_t, d> >= 0 for all tasks, also for dependent gradients."""
    update = update_of(name, jacobian)
    size = np.linalg.norm(jacobian, axis=1).max() ** 2
    assert (jacobian @ update).min() >= -TOLERANCE * size


@few
@pytest.mark.parametrize("name", ["upgrad", "dualproj", "pcgrad", "cagrad"])
@given(seed=st.integers(0, 10**6))
def test_without_conflict_nothing_is_projected(name: str, seed: int) -> None:
    """For gradients with only nonnegative products: the mean (PCGrad: the sum)."""
    jacobian = np.random.default_rng(seed).uniform(size=(3, 6))
    options = {"c": 0.0} if name == "cagrad" else {}
    expected = jacobian.mean(0) * (3 if name == "pcgrad" else 1)
    np.testing.assert_allclose(
        update_of(name, jacobian, **options), expected, rtol=1e-5
    )


@few
@given(jacobian=whole)
def test_mgda_is_the_shortest_of_the_hull(jacobian: np.ndarray) -> None:
    """Unit-simplex weights, and the KKT condition <g_t, d> >= |d|^2."""
    weights = weights_of("mgda", jacobian)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
    update = weights @ jacobian
    size = np.linalg.norm(jacobian, axis=1).max() ** 2
    assert (jacobian @ update).min() >= update @ update - TOLERANCE * size


@few
@pytest.mark.parametrize("name", ["modo", "sdmgrad", "cr_mogm", "excess_mtl", "moco"])
@given(jacobian=whole)
def test_weights_lie_on_the_unit_simplex(name: str, jacobian: np.ndarray) -> None:
    weights = weights_of(name, jacobian)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)


@few
@given(jacobian=independent())
def test_imtl_g_projections_are_equal(jacobian: np.ndarray) -> None:
    weights = weights_of("imtl_g", jacobian)
    projections = jacobian @ (weights @ jacobian) / np.linalg.norm(jacobian, axis=1)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-4)
    largest = np.abs(weights * np.linalg.norm(jacobian, axis=1)).max()
    assert np.ptp(projections) <= 1e-4 * largest


@few
@given(jacobian=independent())
def test_nash_condition(jacobian: np.ndarray) -> None:
    """alpha (G alpha) = 1 to 1e-3."""
    alpha = weights_of("nash_mtl", jacobian, max_norm=0)
    gains = jacobian @ (alpha @ jacobian)
    np.testing.assert_allclose(alpha * gains, 1, atol=1e-3)


@few
@given(jacobian=independent(), alpha=st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_fairgrad_equation(jacobian: np.ndarray, alpha: float) -> None:
    weights = weights_of("fairgrad", jacobian, alpha=alpha)
    gains = jacobian @ (weights @ jacobian)
    np.testing.assert_allclose(weights ** (1 / alpha) * gains, 1, atol=1e-3)


@few
@given(jacobian=independent())
def test_config_has_equal_cosines_and_the_summed_length(jacobian: np.ndarray) -> None:
    update = update_of("config", jacobian)
    length = np.linalg.norm(update)
    norms = np.linalg.norm(jacobian, axis=1)
    cosines = jacobian @ update / norms / length
    assert np.ptp(cosines) < 1e-3
    np.testing.assert_allclose(length, np.sum(jacobian @ update) / length, rtol=1e-3)


@few
@given(jacobian=independent(), c=st.sampled_from([0.2, 0.5, 0.9]))
def test_cagrad_beats_random_steps_in_its_ball(jacobian: np.ndarray, c: float) -> None:
    """No other step in the ball has a larger least gain."""
    update = update_of("cagrad", jacobian, c=c)
    mean = jacobian.mean(0)
    radius = c * np.linalg.norm(mean)
    assert np.linalg.norm(update - mean) <= radius * (1 + 1e-5)
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(500, len(mean)))
    # Half of them near the update, where a better one would be.
    steps[::2] = (update - mean) / radius + 0.01 * steps[::2]
    steps *= radius / np.linalg.norm(steps, axis=1, keepdims=True)
    gains = (jacobian @ (mean + steps).T).min(0)
    least = (jacobian @ update).min()
    size = np.linalg.norm(jacobian, axis=1).min() * np.linalg.norm(update)
    assert gains.max() <= least + 1e-4 * size


@few
@given(jacobian=independent())
def test_aligned_gradients_contribute_equally(jacobian: np.ndarray) -> None:
    """With full rank, preference p gives <d, B g_t> = scale p_t: p = 1/T here."""
    update = update_of("aligned_mtl", jacobian)
    left, singular, right = np.linalg.svd(jacobian, full_matrices=False)
    expected = singular.min() * (left @ right).mean(0)
    size = np.abs(expected).max()
    np.testing.assert_allclose(update, expected, atol=2e-3 * size)


@few
@given(jacobian=independent(), tau=st.sampled_from([0.0, 0.02, 0.3]))
def test_pcd_gives_each_secondary_its_share(jacobian: np.ndarray, tau: float) -> None:
    update = update_of("pcd", jacobian, tau=tau)
    norms = np.linalg.norm(jacobian, axis=1)
    np.testing.assert_allclose(np.linalg.norm(update), norms[0], rtol=1e-3)
    units = jacobian / norms[:, None]
    # d~ is the update at another length; the primary's part of it is at most 1.
    rest, *_ = np.linalg.lstsq(units.T, update, rcond=None)
    shares = units @ update / rest[0]
    assert shares[1:].min() >= tau - 1e-3


ORDERLESS = [
    "aligned_mtl",
    "cagrad",
    "config",
    "cr_mogm",
    "db_mtl",
    "dualproj",
    "excess_mtl",
    "fairgrad",
    "gradnorm",
    "imtl",
    "imtl_g",
    "mgda",
    "moco",
    "modo",
    "nash_mtl",
    "sdmgrad",
    "trimmed_mean",
    "upgrad",
]


@pytest.mark.parametrize("name", [*ORDERLESS, *sorted(ROLES), "krum"])
def test_order_of_tasks_does_not_matter(name: str) -> None:
    """Where a task has a role, it is named and keeps it."""
    rng = np.random.default_rng(2)
    jacobian = rng.normal(size=(5, 9))
    losses = rng.uniform(0.5, 2, size=5)
    order = np.array([3, 1, 4, 0, 2])
    role = {"metabalance": "target", "pcd": "primary"}.get(name)
    before = make(name, 5, 9, DTYPE, **({role: 1} if role else {}))
    after = make(name, 5, 9, DTYPE, **({role: 1} if role else {}))
    for scale in (1.0, 1.3):
        expected = direction(before, scale * jacobian, losses, dtype=DTYPE)
        found = direction(after, scale * jacobian[order], losses[order], dtype=DTYPE)
        # SDMGrad's momentum steps amplify the rounding of float32.
        loose = name == "sdmgrad" and not HAS_FLOAT64
        tolerance = 1e-2 if loose else 1e-4
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=tolerance)


# Degree of the update in a common scale of the gradients.
DEGREES = {
    "aligned_mtl": 1,
    "cagrad": 1,
    "config": 1,
    "cr_mogm": 1,
    "db_mtl": 1,
    "dualproj": 1,
    "fairgrad": 0,  # w J with w of degree -1
    "gradient_sum": 1,
    "gradnorm": 1,
    "graddrop": 1,
    "gradvac": 1,
    "imtl": 1,
    "imtl_g": 1,
    "krum": 1,
    "metabalance": 1,
    "mgda": 1,
    "nash_mtl": 0,  # the direction has no scale
    "pcd": 1,
    "pcgrad": 1,
    "sdmgrad": 1,
    "trimmed_mean": 1,
    "upgrad": 1,
}


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("name", DEGREES)
def test_common_scale(name: str, scale: float) -> None:
    """c J gives c^degree times the update of J."""
    jacobian = np.random.default_rng(4).normal(size=(4, 9))
    options = {"epsilon": 0.0} if name == "pcd" else {}
    expected = scale ** DEGREES[name] * update_of(name, jacobian, **options)
    found = update_of(name, scale * jacobian, **options)
    tolerance = 2e-3 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize("name", ["gradient_sum", "mgda", "trimmed_mean"])
def test_clipped_gradients_are_short_ones(name: str) -> None:
    """On the Gramian and on the Jacobian; rows that are short enough stay."""
    jacobian = np.random.default_rng(4).normal(size=(4, 9))
    jacobian *= np.array([[0.1], [1.0], [30.0], [1e4]])
    lengths = np.linalg.norm(jacobian, axis=1, keepdims=True)
    assert (lengths[:2] < 5).all()
    assert (lengths[2:] > 5).all()
    clipped = jacobian * np.minimum(1.0, 5.0 / lengths)
    found = update_of(name, jacobian, clip_norm=5.0)
    np.testing.assert_allclose(found, update_of(name, clipped), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gradient_sum", "mgda", "trimmed_mean"])
def test_each_task_has_a_length_of_its_own(name: str) -> None:
    """No entry, and None, are no limit; a task without labels stays without."""
    jacobian = 10.0 * np.random.default_rng(4).normal(size=(4, 9))
    jacobian[2] = 0.0
    present = np.array([1.0, 1.0, 0.0, 1.0], "float32")
    norms = {"t0": 0.5, "t1": None, "t2": 1.0}
    factors = np.array([0.5 / np.linalg.norm(jacobian[0]), 1.0, 1.0, 1.0])
    wanted = direction(make(name, 4, 9), factors[:, None] * jacobian, present=present)
    found = direction(make(name, 4, 9, clip_norm=norms), jacobian, present=present)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_lengths_by_task_are_saved_and_checked() -> None:
    norms = {"a": 1, "b": None}
    rule = kmtl.weighting.PCGrad(clip_norm=norms)
    config = keras.saving.serialize_keras_object(rule)
    again = kmtl.weighting.get(json.loads(json.dumps(config)))
    assert dict(again.clip_norm) == norms
    again.setup(["a", "b", "c"])
    with pytest.raises(ValueError, match=r"'b' in `clip_norm`.*some of: a, c"):
        kmtl.weighting.PCGrad(clip_norm=norms).setup(["a", "c"])
    with pytest.raises(ValueError, match=r"`clip_norm\['a'\]` must be a number in \(0"):
        kmtl.weighting.PCGrad(clip_norm={"a": 0.0})


def test_clipping_is_of_whole_gradients() -> None:
    assert kmtl.weighting.PCGrad(clip_norm=1.0).level == "parameters"
    assert kmtl.weighting.PCGrad(clip_norm=1.0, level="features").level == "features"
    with pytest.raises(ValueError, match=r"on the Gramian.*'graddrop'"):
        kmtl.weighting.GradDrop(clip_norm=1.0, level="features")
    with pytest.raises(ValueError, match="double_sampling=False"):
        make("sdmgrad", 2, 2, clip_norm=1.0)


def test_random_methods_repeat_with_their_seed() -> None:
    jacobian = np.random.default_rng(5).normal(size=(6, 7))
    for name in ("pcgrad", "gradvac", "graddrop"):
        first = update_of(name, jacobian, seed=3)
        np.testing.assert_array_equal(update_of(name, jacobian, seed=3), first)
        others = [update_of(name, jacobian, seed=s) for s in range(4, 9)]
        assert any(np.abs(other - first).max() > 1e-3 for other in others)


def test_random_methods_draw_anew_in_each_step() -> None:
    jacobian = np.random.default_rng(5).normal(size=(6, 7))
    for name in ("pcgrad", "graddrop"):
        rule = make(name, 6, 7)
        updates = [direction(rule, jacobian) for _ in range(6)]
        assert any(np.abs(u - updates[0]).max() > 1e-3 for u in updates)


def test_pcgrad_ends_without_conflict_for_two_tasks() -> None:
    jacobian = np.array([[1.0, 0.0], [-2.0, 1.0]])
    update = update_of("pcgrad", jacobian)
    # g1 - (g1.g2)/|g2|^2 g2 = (1, 0) + 2/5 (-2, 1); g2 - (g2.g1) g1 = (0, 1).
    np.testing.assert_allclose(update, [0.2, 1.4], rtol=1e-6)
    assert (jacobian @ update).min() >= 0


def test_graddrop_keeps_one_sign_per_column() -> None:
    jacobian = np.random.default_rng(6).normal(size=(4, 200))
    update = update_of("graddrop", jacobian)
    positive = np.maximum(jacobian, 0).sum(0)
    negative = np.minimum(jacobian, 0).sum(0)
    is_positive = np.isclose(update, positive, rtol=1e-5)
    assert (is_positive | np.isclose(update, negative, rtol=1e-5)).all()
    share = (positive / (positive - negative)).mean()
    assert abs(is_positive.mean() - share) < 0.1


def test_gradnorm_moves_weight_to_the_slow_task() -> None:
    """Equal gradients; the second task's loss has not fallen, the first's has."""
    jacobian = np.eye(2)
    rule = make("gradnorm", 2, 2, learning_rate=0.1)
    direction(rule, jacobian, [1.0, 1.0])
    for _ in range(3):
        direction(rule, jacobian, [0.1, 1.0])
    first, second = np.asarray(rule.loss_weights)
    assert second > 1.2 > 0.8 > first
    np.testing.assert_allclose(first + second, 2, rtol=1e-6)


def test_excess_mtl_moves_weight_to_the_task_that_stays_far() -> None:
    rule = make("excess_mtl", 2, 2, step_size=0.5)
    for step in range(4):
        direction(rule, [[0.1**step, 0.0], [0.0, 1.0]])
    first, second = np.asarray(rule.simplex_weights)
    assert second > 0.55 > first


def test_metabalance_strategies() -> None:
    jacobian = np.diag([2.0, 8.0, 0.5])
    weights = {
        strategy: weights_of("metabalance", jacobian, relax=1.0, strategy=strategy)
        for strategy in ("both", "reduce", "enlarge")
    }
    np.testing.assert_allclose(weights["both"], [1, 0.25, 4], rtol=1e-5)
    np.testing.assert_allclose(weights["reduce"], [1, 0.25, 1], rtol=1e-5)
    np.testing.assert_allclose(weights["enlarge"], [1, 1, 4], rtol=1e-5)
    half = weights_of("metabalance", jacobian, relax=0.5, target="t1")
    np.testing.assert_allclose(half, [2.5, 1, 8.5], rtol=1e-5)


def test_db_mtl_gives_all_tasks_the_longest_log_gradient() -> None:
    jacobian = np.array([[3.0, 0.0], [0.0, 1.0]])
    rule = make("db_mtl", 2, 2, beta=0.0)
    update = direction(rule, jacobian, [2.0, 0.1])
    # Rows of log losses: 1.5 and 10.
    np.testing.assert_allclose(update, [10, 10], rtol=1e-5)
    factors = np.asarray(rule.head_weights(None, np.array([2.0, 0.1], "float32")))
    np.testing.assert_allclose(factors, [0.5, 10], rtol=1e-5)


def test_cr_mogm_averages_the_weights_of_its_method() -> None:
    rule = make("cr_mogm", 2, 2, alpha=0.5)
    direction(rule, np.diag([1.0, 2.0]))  # MGDA: 0.8, 0.2
    np.testing.assert_allclose(np.asarray(rule.averages), [0.8, 0.2], rtol=1e-5)
    direction(rule, np.diag([1.0, 1.0]))  # 0.5, 0.5
    np.testing.assert_allclose(np.asarray(rule.averages), [0.65, 0.35], rtol=1e-5)
    with pytest.raises(ValueError, match="row weights"):
        kmtl.weighting.CRMOGM("trimmed_mean")


def test_moco_tracks_the_gradients() -> None:
    """Two steps by hand: Y1 = J / 2; Y2 = Y1 + 0.5 / sqrt(2) (J - Y1)."""
    rule = make("moco", 2, 2)
    jacobian = np.array([[1.0, 0.0], [0.0, 1.0]])
    direction(rule, jacobian)
    direction(rule, jacobian)
    expected = 0.5 + 0.5 / np.sqrt(2) * 0.5
    np.testing.assert_allclose(
        np.asarray(rule.tracked), expected * np.eye(2), rtol=1e-6
    )


def test_imtl_learns_loss_scales() -> None:
    """s moves against exp(s) L - 1; the row weights carry exp(s)."""
    rule = make("imtl", 2, 2, learning_rate=0.1)
    direction(rule, np.eye(2), [0.5, 1e6])
    np.testing.assert_allclose(np.asarray(rule.log_scales), [0.05, -0.1], rtol=1e-5)
    update = direction(rule, np.eye(2), [0.5, 1.0])
    # Impartial weights of the scaled rows, times the scale: equal entries.
    np.testing.assert_allclose(update[0], update[1], rtol=1e-5)


def test_aggregate_checks_its_arguments() -> None:
    with pytest.raises(ValueError, match="gradient-based"):
        kmtl.weighting.aggregate("equal", np.eye(2))
    with pytest.raises(ValueError, match="Did you mean 'pcgrad'"):
        kmtl.weighting.aggregate("pcgard", np.eye(2))
    with pytest.raises(ValueError, match="one gradient a row"):
        kmtl.weighting.aggregate("mgda", np.ones(3))
    with pytest.raises(ValueError, match="one entry per row"):
        kmtl.weighting.aggregate("db_mtl", np.eye(2), losses=np.ones(3))
    with pytest.raises(ValueError, match="weighted sum"):
        kmtl.weighting.task_weights("trimmed_mean", np.eye(3))
    with pytest.raises(TypeError, match="belong to the object"):
        kmtl.weighting.aggregate(kmtl.weighting.MGDA(), np.eye(2), seed=1)


def test_aggregate_advances_the_state_of_an_object() -> None:
    rule = kmtl.weighting.MoCo()
    first = np.asarray(kmtl.weighting.aggregate(rule, np.eye(2, dtype="float32")))
    second = np.asarray(kmtl.weighting.aggregate(rule, np.eye(2, dtype="float32")))
    assert (second > first + 0.01).any()


def test_loss_based_weights_by_the_same_function() -> None:
    weights = kmtl.weighting.task_weights("equal", np.array([0.5, 2.0], "float32"))
    np.testing.assert_allclose(np.asarray(weights), np.asarray(weights)[0])
