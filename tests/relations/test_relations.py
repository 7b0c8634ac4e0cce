"""Regularisers of task relations against NumPy, and what a model learns with them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from core_tools import gradient
from keras import ops

import kmtl
from kmtl import _registry
from kmtl.relations import MTRL, Frobenius, TraceNorm
from kmtl.relations.base import EPSILON, closed_form

pytestmark = pytest.mark.backend

NAMES = ("a", "b", "c")
W = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def value(variable) -> np.ndarray:
    return np.array(ops.convert_to_numpy(variable))


def build(**options):
    options = {"tasks": [kmtl.Regression(name) for name in NAMES]} | options
    return kmtl.build_mlp(
        input_shape=(5,), units=(4,), activation="tanh", seed=1, name="net", **options
    )


def data(rows: int = 8):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, 5)).astype("float32")
    return x, {name: rng.normal(size=rows).astype("float32") for name in NAMES}


def compiled(relations, **options):
    model = build()
    model.compile(keras.optimizers.SGD(0.1), relations=relations, **options)
    return model


def root_of(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix.astype("float64"))
    return vectors * np.sqrt(np.maximum(values, 0) + EPSILON) @ vectors.T


def test_closed_form() -> None:
    root = root_of(W.T @ W)
    found = value(closed_form(ops.convert_to_tensor(W)))
    np.testing.assert_allclose(found, root / np.trace(root), rtol=1e-4, atol=1e-6)
    singular = np.linalg.svd(W, compute_uv=False)
    values = np.linalg.eigvalsh(found)[::-1]
    np.testing.assert_allclose(values, singular / singular.sum(), rtol=1e-4)
    equal = np.eye(3) / 3
    found = value(closed_form(0 * ops.convert_to_tensor(W)))
    np.testing.assert_allclose(found, equal, rtol=1e-5)


def test_penalties() -> None:
    """||W||^2; sum of singular values; tr(W Ω^-1 W^T)."""
    singular = np.linalg.svd(W.astype("float64"), compute_uv=False)
    model = compiled(Frobenius(alpha=1.0))
    assert float(model.relations.penalty_of(W)) == pytest.approx((W**2).sum(), rel=1e-5)
    model = compiled(TraceNorm(alpha=1.0))
    found = float(model.relations.penalty_of(ops.convert_to_tensor(W)))
    assert found == pytest.approx(singular.sum(), rel=1e-2)
    smooth = (np.sqrt(singular**2 + EPSILON) - np.sqrt(EPSILON)).sum()
    assert found == pytest.approx(smooth, rel=1e-5)
    mtrl = compiled(MTRL(alpha=1.0, momentum=0.0)).relations
    found = float(mtrl.penalty_of(ops.convert_to_tensor(W)))
    assert found == pytest.approx(3 * (W**2).sum(), rel=1e-5)  # Ω = I / 3 at first
    omega = np.array([[0.5, 0.2, 0], [0.2, 0.3, -0.1], [0, -0.1, 0.2]], "float32")
    mtrl.omega.assign(omega)
    found = float(mtrl.penalty_of(ops.convert_to_tensor(W)))
    expected = np.trace(W @ np.linalg.inv(omega.astype("float64")) @ W.T)
    assert found == pytest.approx(expected, rel=1e-4)
    mtrl.update(ops.convert_to_tensor(W))
    found = float(mtrl.penalty_of(ops.convert_to_tensor(W)))
    assert found == pytest.approx(singular.sum() ** 2, rel=1e-3)


@pytest.mark.parametrize("name", _registry.names("relations"))
def test_gradients_against_finite_differences(name: str) -> None:
    relations = compiled(_registry.get("relations", name)(alpha=1.0)).relations
    if name == "mtrl":
        relations.omega.assign(closed_form(ops.convert_to_tensor(W[::-1])))
    low_rank = W[:, :1] * np.array([[1.0, -2.0, 0.5]], "float32")
    for weights in (W, low_rank):
        _, slope = gradient(relations.penalty_of, weights)
        assert np.isfinite(slope).all()
        direction = np.random.default_rng(2).normal(size=W.shape).astype("float32")
        if weights is low_rank:  # where the norm has a kink, along the kink
            direction = weights * direction[:1, :1]
        step = 1e-2

        def at(t: float, weights: np.ndarray = weights, d: np.ndarray = direction):
            return float(relations.penalty_of(ops.convert_to_tensor(weights + t * d)))

        numeric = (at(step) - at(-step)) / (2 * step)
        assert (slope * direction).sum() == pytest.approx(numeric, rel=5e-3, abs=0.05)


def head(model) -> np.ndarray:
    kernels = [model.get_layer(f"{name}_head_logits").kernel for name in NAMES]
    return np.concatenate([value(kernel) for kernel in kernels], axis=1)


@pytest.mark.thorough(on="jax")
@pytest.mark.parametrize("weighting", [None, "pcgrad"])
def test_a_step_adds_the_gradient_of_the_penalty(weighting) -> None:
    """SGD at rate 0.1: the heads differ by 0.1 * alpha * 2 W Ω^-1."""
    x, y = data()
    models = [
        compiled(r, weighting=weighting) for r in (None, MTRL(0.05, momentum=0.5))
    ]
    start = head(models[0])
    histories = [m.fit(x, y, batch_size=8, verbose=0).history for m in models]
    root = root_of(start.T @ start)
    omega = 0.5 * np.eye(3) / 3 + 0.5 * root / np.trace(root)
    np.testing.assert_allclose(value(models[1].relations.omega), omega, 1e-4, 1e-5)
    inverse = np.linalg.inv(omega)
    moved = head(models[0]) - head(models[1])
    np.testing.assert_allclose(moved, 0.1 * 0.05 * 2 * start @ inverse, 1e-3, 1e-5)
    penalty = 0.05 * np.trace(start @ inverse @ start.T)
    logs = histories[1]
    assert logs["regularization_loss"][0] == pytest.approx(penalty, rel=1e-4)
    expected = histories[0]["loss"][0] + penalty
    assert logs["loss"][0] == pytest.approx(expected, rel=1e-4)
    # In validation the same penalty, with the Ω that there is.
    report = models[1].loss_report(x, y)
    trained = head(models[1])
    penalty = 0.05 * np.trace(trained @ inverse @ trained.T)
    assert report["regularization"] == pytest.approx(penalty, rel=1e-4)
    np.testing.assert_allclose(value(models[1].relations.omega), omega, 1e-4, 1e-5)


@pytest.mark.thorough(on="jax")
def test_saved_and_loaded(tmp_path) -> None:
    x, y = data()
    model = compiled(MTRL(0.1, tasks=["c", "a"]))
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.relations, MTRL)
    assert loaded.relations.get_config() == model.relations.get_config()
    np.testing.assert_array_equal(loaded.relations.matrix(), model.relations.matrix())
    assert list(loaded.relations.matrix().columns) == ["c", "a"]
    model.fit(x, y, verbose=0, shuffle=False)
    loaded.fit(x, y, verbose=0, shuffle=False)
    np.testing.assert_allclose(
        loaded.relations.matrix("covariance"),
        model.relations.matrix("covariance"),
        rtol=1e-5,
    )
    model.compile("sgd")
    assert model.relations is None
    assert not [v for v in model.variables if "omega" in v.path]


def test_signs_of_relations() -> None:
    """Tasks a and b want the same, c the opposite."""
    x, _ = data(32)
    target = x[:, 0]
    y = {"a": target, "b": target + 0.1, "c": -target}
    model = compiled(MTRL(0.01))
    model.fit(x, y, epochs=20, batch_size=4, verbose=0)
    matrix = model.relations.matrix()
    assert list(matrix.index) == list(NAMES)
    assert matrix.loc["a", "b"] > 0.3
    assert matrix.loc["a", "c"] < -0.3
    np.testing.assert_allclose(np.diag(matrix), 1.0, rtol=1e-5)
    assert np.trace(model.relations.matrix("covariance")) == pytest.approx(1, rel=1e-4)


def test_heat_map() -> None:
    model = compiled("mtrl")
    ax = kmtl.plotting.relations(model)
    (image,) = ax.get_images()
    np.testing.assert_allclose(image.get_array(), model.relations.matrix())
    assert [text.get_text() for text in ax.get_xticklabels()] == list(NAMES)
    with pytest.raises(ValueError, match="compiled with `relations`"):
        kmtl.plotting.relations(build())


def test_heads_that_read_each_other_have_their_own_kernel() -> None:
    tasks = [kmtl.BinaryClassification(name) for name in NAMES]
    model = build(tasks=tasks, sharing=kmtl.sharing.ESMM(after={"b": "a", "c": "b"}))
    model.compile("sgd", relations="frobenius")
    np.testing.assert_allclose(model.relations.weights_matrix(), head(model))


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"`alpha` must be a number in \[0"):
        MTRL(alpha=-1)
    with pytest.raises(ValueError, match=r"`momentum` must be a number in \[0, 1\)"):
        MTRL(momentum=1)
    with pytest.raises(ValueError, match=r"Unknown relations 'mtlr'.*'mtrl'"):
        compiled("mtlr")
    with pytest.raises(TypeError, match=r"kmtl.relations or one of frobenius, mtrl"):
        compiled(0.1)
    with pytest.raises(TypeError, match="`tasks` must be a sequence"):
        MTRL(tasks="ab")
    with pytest.raises(ValueError, match=r"Unknown task 'd' in `relations.tasks`"):
        compiled(MTRL(tasks=["a", "d"]))
    with pytest.raises(ValueError, match=r"at least two tasks\. Received: a"):
        compiled(MTRL(tasks=["a"]))
    tasks = [kmtl.Regression("a"), kmtl.Regression("b", units=2)]
    model = build(tasks=tasks)
    with pytest.raises(ValueError, match=r"of one shape.*'b': \(4, 2\)"):
        model.compile("sgd", relations=MTRL())
    assert model.relations is None
    used = MTRL()
    compiled(used)
    tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    with pytest.raises(ValueError, match="`relations` must be a new object for every"):
        build(tasks=tasks).compile("sgd", relations=used)
    with pytest.raises(ValueError, match="Compile a model with"):
        MTRL().weights_matrix()
