"""Reconstruction from a part of the input, from noise, and through a distribution."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.training import HideInputs
from kmtl.training.attacking import changed

RNG = np.random.default_rng(0)
ROWS = 8
X = RNG.random((ROWS, 6, 6, 1)).astype("float32")
KIND = RNG.integers(0, 3, ROWS)
HOLES = X.copy()
HOLES[2] = np.nan
HOLES[4, :, :3] = np.nan


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    tasks = [
        kmtl.Classification("kind", classes=3),
        kmtl.Reconstruction(
            "image", loss="binary_cross_entropy", variational=2, kl_weight=0.5
        ),
    ]
    made = kmtl.build_cnn(input_shape=(6, 6, 1), filters=(4,), tasks=tasks, seed=0)
    made.compile(keras.optimizers.SGD(0.1))
    return made


def divergence(model: kmtl.MultiTaskModel) -> np.ndarray:
    """KL of each row from the standard normal distribution, in nats."""
    inner = keras.Model(model.input, model.get_layer("image_head_distribution").output)
    mean, log = np.split(np.array(inner(X), "float64"), 2, axis=-1)
    return 0.5 * (mean**2 + np.exp(log) - 1 - log).sum(axis=1)


@pytest.mark.backend
def test_the_losses_add_up(model) -> None:
    logs = model.evaluate(
        X, {"kind": KIND, "image": HOLES}, return_dict=True, verbose=0
    )
    there = ~np.isnan(HOLES)
    logits = np.array(model(X)["image"], "float64")
    entropy = np.logaddexp(0, logits) - np.where(there, HOLES, 0) * logits
    values = entropy[there].mean()
    rows = there.any(axis=(1, 2, 3))  # of which something is known
    own = divergence(model)[rows].sum() / there.sum()
    assert logs["image_kl_loss"] == pytest.approx(own, rel=1e-4)
    assert logs["image_binary_cross_entropy_loss"] == pytest.approx(values, rel=1e-4)
    assert logs["image_loss"] == pytest.approx(values + 0.5 * own, rel=1e-4)
    total = logs["kind_loss"] + logs["image_loss"]
    assert logs["loss"] == pytest.approx(total, rel=1e-5)


@pytest.mark.backend
def test_draws_while_training_alone(model) -> None:
    calm = [ops.convert_to_numpy(model(X)["image"]) for _ in range(2)]
    np.testing.assert_array_equal(*calm)
    drawn = [ops.convert_to_numpy(model(X, training=True)["image"]) for _ in range(2)]
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3
    layer = kmtl.layers.GaussianLatent("t", seed=0)
    rows = np.tile(np.array([[1.0, np.log(4.0)]], "float32"), (4000, 1))
    found = ops.convert_to_numpy(layer(rows, training=True))
    assert found.mean() == pytest.approx(1.0, abs=0.15)
    assert found.std() == pytest.approx(2.0, abs=0.15)


def test_trains_saves_loads_and_exports(model, tmp_path) -> None:
    logs = model.fit(X, {"kind": KIND}, batch_size=4, epochs=2, verbose=0).history
    assert logs["image_kl_loss"][0] > 0
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.task("image") == model.task("image")
    wanted = model.evaluate(X, {"kind": KIND}, return_dict=True, verbose=0)
    found = loaded.evaluate(X, {"kind": KIND}, return_dict=True, verbose=0)
    assert found == pytest.approx(wanted, rel=1e-5)
    plain = model.to_keras(activated=True)
    shares = ops.sigmoid(model(X)["image"])
    np.testing.assert_allclose(plain(X)["image"], shares, rtol=1e-5, atol=1e-6)


@pytest.mark.backend
def test_the_loss_of_what_is_hidden() -> None:
    tasks = [kmtl.Reconstruction("image"), kmtl.Classification("kind", classes=3)]
    model = kmtl.build_cnn(input_shape=(6, 6, 1), filters=(4,), tasks=tasks, seed=0)
    hide = HideInputs(0.5, patch=4, value=-1.0, seed=0, share=0.5)
    model.compile("sgd", adversary=hide)
    seen, y = changed(model, hide, (X, {"kind": KIND}, None))
    seen, target = map(ops.convert_to_numpy, (seen, y["image"]))
    gone = ~np.isnan(target)
    assert 0 < gone.mean() < 0.5
    np.testing.assert_array_equal(seen, np.where(gone, -1.0, X))
    np.testing.assert_array_equal(target[gone], X[gone])
    assert not gone[::2].any()  # of half of the rows nothing is hidden
    for corner in (gone[:, :4, :4], gone[:, 4:, :4], gone[:, 4:, 4:]):
        flat = corner.reshape(ROWS, -1)
        np.testing.assert_array_equal(flat.all(axis=1), flat.any(axis=1))
    report = model.loss_report(seen, {"kind": KIND, "image": target})
    errors = np.square(ops.convert_to_numpy(model(seen)["image"]) - X)
    assert report["image"]["loss"] == pytest.approx(errors[gone].mean(), rel=1e-4)
    again = HideInputs.from_config(hide.get_config())
    assert again.get_config() == hide.get_config()


@pytest.mark.backend
def test_of_a_series_the_steps_that_are_there() -> None:
    rows = [RNG.normal(5, 2, (n, 2)).astype("float32") for n in (4, 2, 3)]
    kind = kmtl.inputs.Series(length=6).fit(rows)
    task = kmtl.Reconstruction("again")
    model = kmtl.build(backbone="rnn", inputs={"x": kind}, tasks=[task], seed=0)
    model.compile("sgd", metrics={"again": ["mae"]})
    found = model.predict({"x": rows}, verbose=0)["again"]
    assert found.shape == (3, 6, 2)
    errors = np.concatenate(
        [one[: len(row)] - row for one, row in zip(found, rows, strict=True)]
    )
    logs = model.evaluate({"x": rows}, return_dict=True, verbose=0)
    assert logs["again_loss"] == pytest.approx(np.square(errors).mean(), rel=1e-4)
    assert logs["again_mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    given = {"again": [*np.full((3, 6, 2), 1.0)]}
    logs = model.evaluate({"x": rows}, given, return_dict=True, verbose=0)
    assert logs["again_loss"] == pytest.approx(np.square(found - 1).mean(), rel=1e-4)
    hide = HideInputs(0.5, patch=1, value=0.0, seed=0)
    model.compile("sgd", adversary=hide)
    x = kind.prepare(rows, "`x`")
    _, y = changed(model, hide, ({"x": x}, {}, None))
    target = ops.convert_to_numpy(y["again"])
    hidden = ~np.isnan(target)
    assert 0 < hidden.sum() < 18
    np.testing.assert_array_equal(target[hidden], x[..., :-1][hidden])
    assert not hidden[x[..., -1] == 0].any()
    model.fit({"x": rows}, verbose=0)


def test_single_numbers_and_steps_are_hidden() -> None:
    hide = HideInputs(0.3, patch=2, seed=1)
    rows, steps = (
        ops.convert_to_numpy(hide.shown(hide.change([ops.ones(shape)], None))[1][0])
        for shape in ((200, 5), (200, 5, 3))
    )
    assert rows.mean(axis=0) == pytest.approx(0.3, abs=0.12)
    assert (steps == steps[..., :1]).all()
    np.testing.assert_array_equal(steps[:, 0], steps[:, 1])
    np.testing.assert_array_equal(steps[:, 2], steps[:, 3])
    assert steps.mean() == pytest.approx(0.3, abs=0.1)
    assert (steps[:, 0] != steps[:, 2]).any()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: kmtl.Reconstruction("t", variational=0), "`variational` must be"),
        (lambda: kmtl.Reconstruction("t", variational=2, kl_weight=-1), "`kl_weight`"),
        (lambda: kmtl.Reconstruction("t", variational=2, decoder="unet"), "look past"),
        (lambda: HideInputs(1.0), "`rate` must be"),
        (lambda: HideInputs(patch=0), "`patch` must be"),
        (
            lambda: kmtl.TaskOutput(kmtl.Reconstruction("t", variational=2), members=2),
            "must have one net",
        ),
    ],
)
def test_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.parametrize(
    ("kind", "backbone", "instead"),
    [
        (kmtl.inputs.Text().fit(["a b", "c"]), "rnn", r"kmtl\.TextGeneration"),
        (kmtl.inputs.Tokens().fit([[1, 2], [3]]), "rnn", r"numbers of tokens are no"),
        (
            kmtl.inputs.Table().fit({"age": [1.0, 2.0, None], "city": ["a", "b", "b"]}),
            "tabular",
            r"task for each column.*Regression.*Classification",
        ),
        (
            kmtl.inputs.Audio(1000, bands=3).fit([np.ones(99, "float32")]),
            "rnn",
            r"spectrograms as a kmtl\.inputs\.Series",
        ),
    ],
)
def test_inputs_that_are_no_target(kind, backbone: str, instead: str) -> None:
    tasks = [kmtl.Reconstruction("again", input="x"), kmtl.Regression("size")]
    more = kmtl.inputs.Array((2,), scale=None)
    name = f"kmtl.inputs.{type(kind).__name__}"
    message = rf"'again' .*Array, .*Image.*{instead}.*Received: input 'x', {name}"
    with pytest.raises(ValueError, match=message):
        kmtl.build(inputs={"x": kind}, backbone=backbone, tasks=tasks)
    net = {"x": backbone, "more": "mlp"}
    with pytest.raises(ValueError, match=message):
        kmtl.build(inputs={"x": kind, "more": more}, backbone=net, tasks=tasks)
    kmtl.build(
        inputs={"x": kind, "more": more},
        backbone=net,
        tasks=[tasks[0].replace(input="more")],
    )
