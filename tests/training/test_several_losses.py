"""Several losses on one head: logged by name, adding up, saved."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(10, 4, 4, 1)).astype("float32")
Y = {
    "mask": RNG.integers(0, 2, (10, 4, 4)).astype("float32"),
    "wind": RNG.normal(size=(10, 2)).astype("float32"),
}
Y["mask"][0, 0] = np.nan
Y["wind"][3, 1] = np.nan
COSINE = keras.losses.CosineSimilarity()


@pytest.fixture(scope="module")
def model():
    mask = kmtl.Segmentation(
        "mask", classes=2, decoder="dense", loss={"cross_entropy": 1, "dice": 0.5}
    )
    tasks = [mask, kmtl.Regression("wind", units=2, weight=2.0)]
    made = kmtl.build_mlp(input_shape=(4, 4, 1), tasks=tasks, units=(4,), seed=0)
    made.compile(
        keras.optimizers.SGD(0.1),
        loss={"wind": {"mse": 1.0, "angle": (COSINE, 0.25)}},
        run_eagerly=True,
    )
    made.fit(X, Y, batch_size=5, verbose=0)
    return made


def test_they_add_up_over_batches(model) -> None:
    logs = model.evaluate(X, Y, batch_size=4, verbose=0, return_dict=True)
    assert model.metrics_names[:7] == [
        "loss",
        "mask_loss",
        "wind_loss",
        "mask_cross_entropy_loss",
        "mask_dice_loss",
        "wind_mse_loss",
        "wind_angle_loss",
    ]
    mask = logs["mask_cross_entropy_loss"] + 0.5 * logs["mask_dice_loss"]
    assert logs["mask_loss"] == pytest.approx(mask, rel=1e-5)
    wind = logs["wind_mse_loss"] + 0.25 * logs["wind_angle_loss"]
    assert logs["wind_loss"] == pytest.approx(wind, rel=1e-5)
    total = logs["mask_loss"] + 2 * logs["wind_loss"]
    assert logs["loss"] == pytest.approx(total, rel=1e-5)


def test_each_is_the_mean_over_the_same_labels(model) -> None:
    logs = model.evaluate(X, Y, batch_size=4, verbose=0, return_dict=True)
    outputs = model.predict(X, verbose=0)
    # A cosine is of whole rows: row 3, which misses a number, is out of both.
    rows = ~np.isnan(Y["wind"]).any(1)
    labels, wind = Y["wind"][rows], outputs["wind"][rows]
    assert logs["wind_mse_loss"] == pytest.approx(((labels - wind) ** 2).mean(), 1e-4)
    norms = np.linalg.norm(labels, axis=1) * np.linalg.norm(wind, axis=1)
    cosine = (labels * wind).sum(1) / norms
    assert logs["wind_angle_loss"] == pytest.approx(-cosine.mean(), rel=1e-4)


def test_saved_and_told(model, tmp_path) -> None:
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.tasks == model.tasks
    assert loaded.task("wind").loss["angle"][1] == 0.25
    assert list(loaded.replaced_losses) == ["wind"]
    assert loaded.metrics_names == model.metrics_names
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    for name, value in loaded.evaluate(X, Y, verbose=0, return_dict=True).items():
        assert value == pytest.approx(logs[name], rel=1e-5)
    config = model.task("wind").to_config()
    assert kmtl.Task.from_config(config) == model.task("wind")
    report = model.loss_report(X, Y)
    assert report["wind"]["loss"] == pytest.approx(logs["wind_loss"], rel=1e-5)


def test_what_may_be_negative_is_known() -> None:
    task = kmtl.Regression("t", units=2, loss={"mse": 1, "angle": (COSINE, 1)})
    made = kmtl.build_mlp(input_shape=(2,), tasks=[task], units=(2,), seed=0)
    with pytest.raises(ValueError, match="may be negative"):
        made.compile(weighting="gls")


@pytest.mark.parametrize(
    ("task", "loss", "error", "match"),
    [
        (kmtl.Regression, {}, ValueError, "an empty dict"),
        (kmtl.Regression, {"mes": 1}, ValueError, "'mse'"),
        (kmtl.Regression, {"mse": -1}, ValueError, r"loss\['mse'\]"),
        (kmtl.Regression, {COSINE: 1}, TypeError, "as a name"),
        (kmtl.Regression, {"a": ({"mse": 1}, 1)}, TypeError, "a dict within 'a'"),
        (
            kmtl.Regression,
            {"a": (keras.losses.BinaryCrossentropy(from_logits=True), 1)},
            ValueError,
            "may not take them for logits",
        ),
        (
            kmtl.Reconstruction,
            {"mse": 1, "binary_cross_entropy": 1},
            ValueError,
            "take the same outputs",
        ),
    ],
)
def test_refusals(task, loss, error, match) -> None:
    with pytest.raises(error, match=match):
        task("t", loss=loss)


def test_a_log_name_twice() -> None:
    tasks = [
        kmtl.Regression("a", loss={"mse": 1, "mae": 1}),
        kmtl.Regression("a_mae"),
    ]
    made = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(2,), seed=0)
    with pytest.raises(ValueError, match="'a_mae_loss', which there is already"):
        made.compile()
