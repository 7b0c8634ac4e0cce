"""Single-task models as one, against NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl
from kmtl.combining import merging

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)).astype("float32")
TASKS = (
    kmtl.Classification("kind", classes=3),
    kmtl.Regression("size", transform="standardize"),
)


def single(task, seed=0, moved: float = 0.3, **options):
    """A model that is a little away from its beginning, as if it had trained."""
    options = {"units": (5, 3), "normalization": "batch", **options}
    model = kmtl.build_mlp(input_shape=(4,), tasks=[task], seed=seed, **options)
    rng = np.random.default_rng(len(task.name) + ord(task.name[0]))
    for variable in model.trainable_variables:
        variable.assign(variable + moved * rng.normal(size=variable.shape))
    if task.transform:
        model.adapt_targets({task.name: np.array([1.0, 3.0])})
    return model


@pytest.fixture(scope="module")
def singles():
    return [single(task) for task in TASKS]


def trunk(model) -> list:
    layers = [layer for layer in model.layers if layer.name.startswith("shared_")]
    return [np.array(v) for layer in layers for v in layer.get_weights()]


def test_average(singles) -> None:
    model = kmtl.merge(singles, shares=[3, 1])
    assert model.task_names == ("kind", "size")
    one, other = map(trunk, singles)
    for merged, a, b in zip(trunk(model), one, other, strict=True):
        np.testing.assert_allclose(merged, 0.75 * a + 0.25 * b, rtol=1e-5)
    for name, source in zip(model.task_names, singles, strict=True):
        for layer in source.layers:
            if layer.name.startswith(name):
                weights = model.get_layer(layer.name).get_weights()
                assert all(map(np.array_equal, weights, layer.get_weights()))
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(trunk(model)[0], one[0])


@pytest.mark.thorough(on="jax")
def test_merged_with_all_shares_it_is_the_model(singles, tmp_path) -> None:
    model = kmtl.merge(singles, shares=[0, 1])
    wanted = singles[1].predict(X, verbose=0)["size"]
    np.testing.assert_allclose(model.predict(X, verbose=0)["size"], wanted, rtol=1e-5)
    assert model.seam is not None
    model.save(tmp_path / "model.keras")
    loaded = kmtl.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(X)["size"], wanted, rtol=1e-5)


@pytest.mark.thorough(on="jax")
def test_task_arithmetic(singles) -> None:
    start = kmtl.build_mlp(
        input_shape=(4,), tasks=TASKS[:1], units=(5, 3), normalization="batch", seed=0
    )
    model = kmtl.merge(singles, "task_arithmetic", scale=0.7)
    first = start.get_layer("shared_block1_dense").get_weights()[0]
    one, other = (m.get_layer("shared_block1_dense").get_weights()[0] for m in singles)
    wanted = first + 0.7 * ((one - first) + (other - first))
    found = model.get_layer("shared_block1_dense").get_weights()[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    given = kmtl.merge(singles, "task_arithmetic", scale=0.7, initial=start)
    np.testing.assert_allclose(
        given.get_layer("shared_block1_dense").get_weights()[0], wanted, rtol=1e-4,
        atol=1e-6,
    )  # fmt: skip


def test_ties_trims_elects_and_takes_the_mean_of_those_that_agree() -> None:
    start = [np.array([1.0, 1.0]), np.array([1.0, 1.0])]
    changes = [
        ([0.9, 0.1], [-0.5, 0.0]),
        ([0.3, 0.4], [0.2, 0.01]),
        ([-0.6, 0.2], [0.8, 0.0]),
    ]
    trunks = [[s + np.array(c) for s, c in zip(start, pair)] for pair in changes]  # noqa: B905
    # Kept, two of four each: .9 -.5 | .3 .4 | -.6 .8
    # Sums by entry: .6 (elected +: .9, .3), .4 (.4), .3 (+: .8), 0
    first, second = merging.ties(trunks, start, density=0.5, scale=2.0)
    np.testing.assert_allclose(first, [1 + 2 * 0.6, 1 + 2 * 0.4])
    np.testing.assert_allclose(second, [1 + 2 * 0.8, 1.0])


@pytest.mark.thorough(on="jax")
def test_regmean_is_the_least_squares_kernel(singles) -> None:
    kernels = [m.get_layer("shared_block1_dense").get_weights()[0] for m in singles]
    inputs = [X[:24], 2 * X[22:]]  # of other numbers of rows
    found = kmtl.merge(
        singles, "regmean", data=dict(zip(("kind", "size"), inputs, strict=True)),
        alpha=1.0,
    )  # fmt: skip
    means = [x / np.sqrt(len(x)) for x in inputs]
    rows = np.concatenate(means)
    products = np.concatenate([x @ k for x, k in zip(means, kernels, strict=True)])
    wanted = np.linalg.lstsq(rows, products, rcond=None)[0]
    merged = found.get_layer("shared_block1_dense").get_weights()[0]
    np.testing.assert_allclose(merged, wanted, rtol=1e-3, atol=1e-4)
    diagonal = merging.regmean_kernel(inputs, kernels, 0.0)
    sizes = [np.square(x).mean(0)[:, None] for x in inputs]
    mean = sum(s * k for s, k in zip(sizes, kernels, strict=True)) / sum(sizes)
    np.testing.assert_allclose(diagonal, mean, rtol=1e-5)


@pytest.mark.thorough(on="jax")
def test_other_beginnings_are_refused(singles) -> None:
    with pytest.raises(ValueError, match="one `seed`"):
        kmtl.merge([singles[0], single(TASKS[1], seed=1)])
    with pytest.raises(ValueError, match="one `seed`"):
        kmtl.merge([single(task, seed=None) for task in TASKS])
    far = single(TASKS[1])
    for variable in far.trainable_variables:
        variable.assign(RNG.normal(size=variable.shape))
    with pytest.raises(ValueError, match="cosine"):
        kmtl.merge([singles[0], far])


def normalized(task, shift: float, trainable: bool = True, dropout: float = 0.0):
    normalization = keras.layers.Normalization(name="scaled")
    normalization.adapt(X + shift)
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(3, kernel_initializer=_glorot(), name="dense")
    dense.trainable = trainable
    x = kmtl.layers.Dropout(dropout, name="dropped")(dense(normalization(inputs)))
    backbone = kmtl.backbones.FromKeras(keras.Model(inputs, x))
    return kmtl.build(input_shape=(4,), tasks=[task], backbone=backbone, seed=0)


def _glorot():
    return keras.initializers.GlorotUniform(seed=1)


def test_state_that_has_no_mean_must_be_the_same() -> None:
    first = normalized(TASKS[0], 0.0)
    merged = kmtl.merge([first, normalized(TASKS[1], 0.0, dropout=0.5)])
    said = merged.predict(X, verbose=0)["kind"]
    np.testing.assert_allclose(said, first.predict(X, verbose=0)["kind"], rtol=1e-4)
    with pytest.raises(ValueError, match=r"same inputs.*_scaled'.*`mean`"):
        kmtl.merge([first, normalized(TASKS[1], 2.0)])
    frozen = [normalized(task, 0.0, trainable=False) for task in TASKS]
    for method in merging.METHODS[:3]:
        merged = kmtl.merge(frozen, method).predict(X, verbose=0)
        for name, model in zip(("kind", "size"), frozen, strict=True):
            wanted = model.predict(X, verbose=0)[name]
            np.testing.assert_allclose(merged[name], wanted, rtol=1e-4)
    kernel = frozen[1].get_layer("shared_block1_dense").kernel
    kernel.assign(kernel * 1.1)
    with pytest.raises(ValueError, match=r"same inputs.*_dense'.*`kernel`"):
        kmtl.merge(frozen)


@pytest.mark.thorough(on="jax")
def test_refused(singles) -> None:
    with pytest.raises(ValueError, match="other tasks each"):
        kmtl.merge([singles[0], single(TASKS[0])])
    with pytest.raises(ValueError, match="shared_block1_dense"):
        kmtl.merge([singles[0], single(TASKS[1], units=(6, 3))])
    with pytest.raises(ValueError, match="a trunk that ends"):
        kmtl.merge([single(task, sharing_depth=0) for task in TASKS])
    with pytest.raises(ValueError, match="`data`"):
        kmtl.merge(singles, "regmean")
    with pytest.raises(ValueError, match="belongs to"):
        kmtl.merge(singles, "ties", data=X)
    for method, options in (
        ("average", {"scale": 0.5}),
        ("regmean", {"scale": 0.5}),
        ("task_arithmetic", {"density": 0.5}),
        ("ties", {"alpha": 0.5}),
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` belongs to"):
            kmtl.merge(singles, method, **options)
    with pytest.raises(TypeError, match="must be a kmtl model"):
        kmtl.merge([keras.Sequential([keras.Input((1,))]), singles[0]])
