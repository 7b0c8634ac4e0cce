"""Distributions of a number: SciPy's densities, integrals, and a fit of each family."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from scipy import integrate, stats

import kmtl
from kmtl import losses, metrics

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
ROWS = 60
FAMILIES = ("normal", "laplace", "student_t", "lognormal", "mixture")


class Law:
    """SciPy's distribution for one row of outputs."""

    def __init__(self, family: str, row: np.ndarray):
        row = row.astype("float64")
        if family == "mixture":
            self.weights, means, spreads = np.split(row, 3)
            self.parts = [stats.norm(m, s) for m, s in zip(means, spreads, strict=True)]
            return
        self.weights = np.ones(1)
        a, b = row
        self.parts = {
            "normal": lambda: [stats.norm(a, b)],
            "laplace": lambda: [stats.laplace(a, b)],
            "student_t": lambda: [stats.t(3, a, b)],
            "lognormal": lambda: [stats.lognorm(b, scale=a)],
        }[family]()

    def __getattr__(self, name: str) -> Any:
        def mean(*given: float) -> float:
            values = [getattr(part, name)(*given) for part in self.parts]
            return float(np.dot(self.weights, values))

        return mean


def made(family: str, rows: int = ROWS) -> tuple[kmtl.Distribution, Any, Any]:
    """A task, labels, and outputs of its head's last layer."""
    task = kmtl.Distribution("price", family=family, degrees=3.0)
    raw = RNG.normal(size=(rows, task.output_shape(None)[0])).astype("float32")
    layer = {"lognormal": "MedianAndSpread", "mixture": "MixtureOfNormals"}
    name = layer.get(family, "LocationAndSpread")
    own = {"components": 3} if family == "mixture" else {}
    outputs = ops.convert_to_numpy(getattr(kmtl.layers, name)(**own)(raw))
    labels = RNG.normal(size=rows) * 2
    labels = np.exp(labels) if family == "lognormal" else labels
    return task, labels.astype("float32"), outputs


def scored(task: kmtl.Task, name: str, labels: Any, outputs: Any, weights: Any) -> Any:
    metric = task.replace(metrics=(name,)).score.make(task)
    clean, mask = task.clean_labels(labels)
    mask = ops.reshape(ops.convert_to_tensor(weights), mask.shape) * mask
    for rows in (slice(0, 17), slice(17, None)):
        metric.update_state(clean[rows], outputs[rows], mask[rows])
    again = type(metric).from_config(metric.get_config())
    again.update_state(clean, outputs, mask)
    np.testing.assert_allclose(float(again.result()), float(metric.result()), 1e-5)
    return float(metric.result())


@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_those_of_scipy(family: str) -> None:
    task, labels, outputs = made(family)
    laws = [Law(family, row) for row in outputs]
    pairs = list(zip(laws, labels.astype("float64"), strict=True))
    nll = np.array([-np.log(law.pdf(y)) for law, y in pairs])
    values = ops.convert_to_numpy(task.loss_values(labels[:, None], outputs))
    np.testing.assert_allclose(values[:, 0], nll, rtol=2e-4, atol=2e-5)
    kept = np.arange(ROWS) % 5 > 0
    weights = kept.astype("float32")
    found = scored(task, "nll", labels, outputs, weights)
    np.testing.assert_allclose(found, nll[kept].mean(), rtol=1e-4)
    middle = [law.median() if len(law.parts) == 1 else law.mean() for law in laws]
    error = np.abs(labels - middle)[kept]
    found = scored(task, "mae", labels, outputs, weights)
    np.testing.assert_allclose(found, error.mean(), rtol=1e-4)
    found = scored(task, "rmse", labels, outputs, weights)
    np.testing.assert_allclose(found, (error**2).mean() ** 0.5, rtol=1e-4)
    inside = np.array([0.05 <= law.cdf(y) <= 0.95 for law, y in pairs])
    found = scored(task, "coverage_error", labels, outputs, weights)
    np.testing.assert_allclose(found, abs(inside[kept].mean() - 0.9), atol=1e-6)
    outputs[3, 0] = np.nan
    assert np.isnan(scored(task, "coverage_error", labels, outputs, weights))


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "student_t"])
def test_crps_is_the_integral(family: str) -> None:
    """Of the squared distance between the distribution functions."""
    task, labels, outputs = made(family, rows=6)
    values = losses.crps(labels[:, None], outputs, family)
    for value, row, y in zip(np.ravel(values), outputs, labels, strict=True):
        law = Law(family, row)
        low, high = (0.0, 1e5) if family == "lognormal" else (-40.0, 40.0)
        whole = integrate.quad(lambda t, law=law: law.cdf(t) ** 2, low, y, limit=200)[0]
        whole += integrate.quad(
            lambda t, law=law: law.sf(t) ** 2,
            y,
            high,
            limit=999,
            points=[y + 5, y + 30],
        )[0]
        np.testing.assert_allclose(value, whole, rtol=2e-3, atol=1e-4)
    found = scored(
        task.replace(loss="crps"), "crps", labels, outputs, np.ones(6, "float32")
    )
    np.testing.assert_allclose(found, np.mean(values), rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("loss", ["nll", "crps"])
def test_gradients_are_bounded_wherever_training_goes(family: str, loss: str) -> None:
    """By numbers that a head may give in a bad step: a small spread far from a label
    has a likelihood of 1e11 and more, and no gradient beyond the error itself."""
    if (family, loss) == ("student_t", "crps"):
        pytest.skip("has none")
    task = kmtl.Distribution("t", family=family, loss=loss)
    width = task.output_shape(None)[0]
    layer = {"lognormal": "MedianAndSpread", "mixture": "MixtureOfNormals"}
    own = {"mixture": {"components": 3}, "lognormal": {}}.get(family, {"pace": 0.1})
    end = getattr(kmtl.layers, layer.get(family, "LocationAndSpread"))(**own)
    far = np.array([-300.0, -60.0, -5.0, 0.0, 5.0, 60.0, 300.0], "float32")
    raw = np.random.default_rng(0).choice(far, (500, width))
    labels = np.full((500, 1), 30.0, "float32")

    def total(values):
        return ops.sum(task.loss_values(labels, end(values)))

    if keras.backend.backend() == "jax":
        import jax

        found = jax.grad(total)(raw)
    else:
        import tensorflow as tf

        variable = tf.Variable(raw)
        with tf.GradientTape() as tape:
            value = total(variable)
        found = tape.gradient(value, variable)
    found = np.asarray(found)
    assert np.isfinite(found).all()
    if loss == "nll":
        assert np.abs(found).max() < 330**2 / 10  # the squared error, at a tenth's pace


@pytest.mark.parametrize("family", FAMILIES)
def test_learned_in_units_of_a_transform(family: str) -> None:
    """Read back in the labels' unit the likelihood differs by the unit alone."""
    task, labels, outputs = made(family)
    for transform in ("mean",) if family == "lognormal" else ("mean", "robust"):
        moved = task.replace(transform=transform)
        layer = kmtl.TaskOutput(moved)
        layer(outputs)  # builds it
        layer.adapt(np.array([[2.0], [3.0], [7.0], [9.0]]))
        read = ops.convert_to_numpy(layer(outputs))
        state = layer._state
        unit = float(np.ravel(state.get("scale", state.get("mean")))[0])
        inside = ops.convert_to_numpy(layer.transform.inverse(labels[:, None], state))
        nll = ops.convert_to_numpy(moved.loss_values(labels[:, None], outputs))
        in_units = ops.convert_to_numpy(moved.loss_values(inside, read))
        np.testing.assert_allclose(in_units, nll + np.log(unit), rtol=2e-3, atol=2e-3)
        back = ops.convert_to_numpy(moved.learned(read, layer.transform, state))
        np.testing.assert_allclose(back, outputs, rtol=1e-4, atol=1e-4)


def test_a_small_spread_beside_a_large_location_keeps_its_digits() -> None:
    task = kmtl.Distribution("size", transform="standardize")
    layer = kmtl.TaskOutput(task)
    values = np.array([[0.0, 0.001], [1.0, 0.003]], "float32")
    layer(values)  # builds it
    layer.adapt(1e6 + 10.0 * np.array([[-1.0], [1.0]]))
    outputs = ops.convert_to_numpy(layer(values))
    np.testing.assert_allclose(outputs, [[1e6, 0.01], [1e6 + 10, 0.03]], rtol=1e-5)
    back = task.learned(outputs, layer.transform, layer._state)
    np.testing.assert_allclose(
        ops.convert_to_numpy(back)[:, 1], values[:, 1], rtol=1e-5
    )


@pytest.mark.thorough
def test_each_family_finds_its_own_data(tmp_path) -> None:
    """Three laws on one trunk: near the likelihood of the law that made the data."""
    x = RNG.normal(size=(2000, 2)).astype("float32")
    side = np.where(RNG.random(2000) < 0.3, 1.0, -1.0)
    y = {
        "price": np.exp(8 + 0.5 * x[:, 0] + 0.4 * RNG.normal(size=2000)),
        "angle": 40 + 5 * (3 * side + x[:, 1] + 0.5 * RNG.normal(size=2000)),
        "noise": 2 + 3 * RNG.normal(size=2000),
    }
    tasks = [
        kmtl.Distribution("price", family="lognormal", transform="mean"),
        kmtl.Distribution("angle", family="mixture", transform="standardize"),
        kmtl.Distribution("noise", family="mixture", components=2, loss="crps"),
    ]
    model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(32,), seed=0)
    model.compile("adam")
    model.optimizer.learning_rate = 0.01
    model.fit(x, y, epochs=40, batch_size=100, verbose=0)
    logs = model.evaluate(x, y, return_dict=True, verbose=0)
    truth = -stats.lognorm(0.4, scale=np.exp(8 + 0.5 * x[:, 0])).logpdf(y["price"])
    assert logs["price_nll"] == pytest.approx(truth.mean(), abs=0.1)
    truth = -np.log(
        0.3 * stats.norm(40 + 5 * (3 + x[:, 1]), 2.5).pdf(y["angle"])
        + 0.7 * stats.norm(40 + 5 * (-3 + x[:, 1]), 2.5).pdf(y["angle"])
    )
    assert logs["angle_nll"] == pytest.approx(truth.mean(), abs=0.1)
    assert logs["noise_nll"] == pytest.approx(
        0.5 * np.log(2 * np.pi * 9) + 0.5, abs=0.1
    )
    found = model.predict(x, verbose=0)
    np.testing.assert_allclose(found["angle"][:, :3].sum(axis=1), 1, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    again = kmtl.load_model(tmp_path / "model.keras")
    assert again.tasks[2].components == 2
    np.testing.assert_allclose(again.predict(x, verbose=0)["price"], found["price"])
    model.export(tmp_path / "saved", verbose=False)
    kmtl.verify_export(tmp_path / "saved", model, x[:8])


def test_metrics_by_name_of_a_family() -> None:
    config = metrics.CRPS("mixture").get_config()
    assert metrics.CRPS.from_config(config).family == "mixture"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kmtl.Distribution("t", transform="log1p"), "`transform` must be"),
        (
            lambda: kmtl.Distribution("t", family="lognormal", transform="robust"),
            r"`transform` must be one of \['mean', None",
        ),
        (
            lambda: kmtl.Distribution("t", family="student_t", loss="crps"),
            "Task 't' has no 'crps'",
        ),
        (lambda: kmtl.Distribution("t", loss="mse"), "nothing of spreads"),
        (lambda: kmtl.Distribution("t", family="mixture", components=1), ">= 2"),
        (
            lambda: kmtl.Distribution("t", family="lognormal").check_labels([1.0, 0.0]),
            "Labels of task 't' must be above 0.*ZeroInflated.*Received: 0",
        ),
    ],
)
def test_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
