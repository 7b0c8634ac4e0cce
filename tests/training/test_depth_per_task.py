"""Gradient-based weightings where the tasks part at different depths."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from core_tools import table, table_model

pytestmark = pytest.mark.backend

X, Y = table()
Y = {name: Y[name].copy() for name in Y}
Y["kind"][:] = np.abs(Y["kind"])  # every task has labels in the one batch
DEPTHS = {"kind": 2, "flag": 2, "size": 1}
ROWS = len(X)


def build():
    return table_model(sharing_depth=DEPTHS, seed=3)


def update(model, weighting=None, **options):
    """Weights before minus weights after one step of size 1."""
    before = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    model.compile(keras.optimizers.SGD(1.0), weighting=weighting, **options)
    model.fit(X, Y, batch_size=ROWS, shuffle=False, verbose=0)
    after = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    paths = [v.path for v in model.trainable_variables]
    return {p: a - b for p, a, b in zip(paths, before, after, strict=True)}


def flat(parts, prefix="shared"):
    return np.concatenate([v.ravel() for p, v in parts.items() if p.startswith(prefix)])


@pytest.fixture(scope="module")
def single():
    """Each task's gradient alone, weights as in the model."""
    found = {}
    for name, weight in build().task_weights.items():
        model = build()
        model.set_task_weights({n: weight * (n == name) for n in DEPTHS})
        found[name] = update(model)
    return found


def test_a_task_has_no_gradient_of_blocks_it_left(single) -> None:
    assert np.abs(flat(single["size"], "shared_block2")).max() == 0.0
    assert np.abs(flat(single["size"], "shared_block1")).max() > 0.0
    for name in ("kind", "flag"):
        assert np.abs(flat(single[name], "shared_block2")).max() > 0.0


def test_parameter_level_covers_all_shared_blocks(single) -> None:
    """MGDA's update is the least-norm point of the hull of the tasks' whole rows."""
    found = flat(update(build(), "mgda"))
    rows = np.stack([flat(single[name]) for name in DEPTHS])
    weights, *_ = np.linalg.lstsq(rows.T, found, rcond=None)
    np.testing.assert_allclose(weights @ rows, found, atol=1e-5)
    assert weights.min() > -1e-4
    assert weights.sum() == pytest.approx(1.0, abs=1e-3)
    # Optimal: no row has a smaller product with the point than the point itself.
    assert (rows @ found).min() >= found @ found - 1e-3 * abs(found @ found)


def test_equal_weights_are_the_sum_of_the_rows(single) -> None:
    found = update(build())
    for path, value in found.items():
        expected = sum(single[name][path] for name in DEPTHS)
        np.testing.assert_allclose(value, expected, atol=1e-5)


def test_features_level_is_refused() -> None:
    from kmtl.weighting import PCGrad

    model = build()
    with pytest.raises(ValueError, match="one place where the tasks part"):
        update(model, PCGrad(level="features"))


def test_own_blocks_move_by_their_task_alone(single) -> None:
    found = update(build(), "pcgrad")
    own = {p: v for p, v in found.items() if p.startswith("size_block2")}
    assert own
    for path, value in own.items():
        np.testing.assert_allclose(value, single["size"][path], atol=1e-5)
