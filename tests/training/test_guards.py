"""Labels, inputs and weights of streams, and numbers that are not finite."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import kmtl
from kmtl.training import NonFiniteError

pytestmark = pytest.mark.backend

ROWS, BATCH = 20, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 3)).astype("float32")
Y = {
    "kind": np.arange(ROWS) % 3,
    "size": RNG.normal(size=ROWS).astype("float32"),
}
TASKS = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]


def build(normalization: str | None = None, **options):
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=TASKS, units=(4,), normalization=normalization, seed=0
    )
    model.compile(keras.optimizers.SGD(0.01), **options)
    return model


@pytest.fixture(scope="module")
def traced():
    return build()


@pytest.fixture
def model(traced):
    """With weights as at the start: NaN has been through it."""
    start = traced.get_weights()
    yield traced
    traced.set_weights(start)


@pytest.fixture(scope="module")
def stepping():
    """Two steps per execution: flags are those of single steps."""
    return build(steps_per_execution=2)


def changed(part: dict, name: str, value: float) -> dict:
    """A row of the third batch."""
    copy = {key: np.array(array) for key, array in part.items()}
    copy[name][9] = value
    return copy


def stream(x=X, y=Y, *weights):
    return tf.data.Dataset.from_tensor_slices((x, y, *weights)).batch(BATCH)


def with_nan() -> np.ndarray:
    x = X.copy()
    x[13, 1] = np.nan
    return x


RULE = r"task 'kind' must be integers in \[0, 2\], or -1 where missing. Received: "
ONES = {name: np.ones(ROWS, "float32") for name in Y}
FLOATS = Y | {"kind": Y["kind"].astype("float32")}
WRONG = {
    "high": (stream(y=changed(Y, "kind", 7)), RULE + "7, first in step 3 of epoch 1"),
    "low": (stream(y=changed(Y, "kind", -2)), RULE + "-2, first in step 3"),
    "fraction": (stream(y=changed(FLOATS, "kind", 1.5)), RULE + "a number that is not"),
    "infinite": (
        stream(y=changed(Y, "size", np.inf)),
        "task 'size' must be finite .* Received: infinity, first in step 3",
    ),
    "inputs": (stream(with_nan()), "Input 'inputs' must be finite .* step 4 of epoch"),
    "weights": (
        stream(X, Y, changed(ONES, "size", -1)),
        "`sample_weight` of task 'size' must be finite numbers >= 0.* step 3",
    ),
    "infinite_weights": (
        stream(X, Y, changed(ONES, "kind", np.inf)),
        "`sample_weight` of task 'kind' must be finite .* or infinity, first in step 3",
    ),
    "nan_weights": (
        stream(X, Y, changed(ONES, "kind", np.nan)),
        "`sample_weight` of task 'kind' must be finite",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_streams_end_with_what_was_wrong_in_a_later_batch(model, case: str) -> None:
    data, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        model.fit(data, verbose=0)


def test_several_steps_per_call(stepping) -> None:
    stepping.fit(stream().take(4), verbose=0)
    with pytest.raises(ValueError, match="7, first in step 3 of epoch 1"):
        stepping.fit(stream(y=changed(Y, "kind", 7)).take(4), verbose=0)


def test_validation_and_evaluation(model) -> None:
    wrong = stream(y=changed(Y, "kind", 3))
    for call in (
        lambda: model.fit(X, Y, validation_data=wrong, verbose=0),
        lambda: model.evaluate(wrong, verbose=0),
    ):
        with pytest.raises(ValueError, match="Received: 3, first in step 3 of the eva"):
            call()
    # Wrong training labels are found although validation resets the flags.
    with pytest.raises(ValueError, match="Received: 3, first in step 3 of epoch 1"):
        model.fit(wrong, validation_data=(X, Y), verbose=0)
    # A flag does not outlive its epoch, and is no log.
    history = model.fit(stream(), epochs=2, verbose=0).history
    assert set(history) == {
        "loss", "kind_loss", "kind_accuracy", "size_loss", "size_mae",
    }  # fmt: skip
    assert np.isfinite(list(history.values())).all()


def test_half_precision_with_loss_scaling() -> None:
    """Steps that only the scaled gradients overflow are skipped, and no failure."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy("float32")
    model.optimizer.initial_scale = 2.0**40
    history = model.fit(stream(), epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    with pytest.raises(ValueError, match=RULE + "7, first in step 3 of epoch 1"):
        model.fit(stream(y=changed(Y, "kind", 7)), verbose=0)
    with pytest.raises(ValueError, match=r"Input 'inputs' must .* step 4 of epoch"):
        model.fit(stream(with_nan()), verbose=0)
    with pytest.raises(NonFiniteError, match=r"task size .* in step 3 of epoch 1"):
        model.fit(stream(y=changed(Y, "size", 3e38)), verbose=0)


def test_missing_labels_raise_no_flag(model) -> None:
    model.fit(stream(y=changed(changed(Y, "kind", -1), "size", np.nan)), verbose=0)
    model.fit(stream(y=changed(FLOATS, "kind", np.nan)), verbose=0)


@pytest.mark.parametrize("several", [False, True])
def test_missing_labels_of_a_task_that_takes_no_zero(several: bool) -> None:
    names = ("price", "rent")[: 1 + several]
    tasks = [kmtl.Distribution(name, family="lognormal") for name in names]
    model = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(4,), seed=0)
    model.compile("sgd")
    labels = np.where(np.arange(ROWS) % 3, np.exp(Y["size"]), np.nan)
    labels = dict.fromkeys(names, labels.astype("float32"))
    arrays = model.evaluate(X, labels, verbose=0, return_dict=True)
    data = tf.data.Dataset.from_tensor_slices((X, labels)).batch(BATCH)
    streamed = model.evaluate(data, verbose=0, return_dict=True)
    assert streamed == pytest.approx(arrays, rel=1e-5)
    wrong = {name: np.nan_to_num(values) for name, values in labels.items()}
    data = tf.data.Dataset.from_tensor_slices((X, wrong)).batch(BATCH)
    with pytest.raises(ValueError, match=r"must be above 0.*Received: 0"):
        model.evaluate(data, verbose=0)


def test_a_loss_that_overflows_is_named_with_its_step(model) -> None:
    y = Y | {"size": np.where(np.arange(ROWS) == 9, 3e38, Y["size"])}
    with pytest.raises(NonFiniteError, match=r"task size .* in step 3 of epoch 1") as e:
        model.fit(X, y, batch_size=BATCH, shuffle=False, verbose=0)
    assert isinstance(e.value, FloatingPointError)
    assert (e.value.tasks, e.value.epoch, e.value.step) == (("size",), 1, 3)
    assert not np.isfinite(e.value.logs["size_loss"])


class Poison(keras.callbacks.Callback):
    """A NaN in the second epoch of which no loss tells."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            layer = self.model.get_layer("shared_block1_norm")
            layer.moving_variance.assign(np.full(4, np.nan))


def test_a_weight_that_is_not_finite_ends_fit_and_keeps_the_history() -> None:
    model = build(normalization="batch")
    kept = []
    save = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: kept.append(epoch)
    )
    message = r"Weight '.*moving_variance' has 4 of 4 .* at the end of epoch 2"
    with pytest.raises(NonFiniteError, match=message) as e:
        model.fit(X, Y, epochs=3, callbacks=[Poison(), save], verbose=0)
    assert (e.value.epoch, e.value.step) == (2, None)
    assert np.isfinite(e.value.logs["loss"])
    assert kept == [0]  # no callback of the user's sees such a model
    assert len(model.history.history["loss"]) == 1
    with pytest.raises(NonFiniteError, match="of the evaluation"):
        model.evaluate(X, Y, verbose=0)


def test_a_list_of_callbacks_of_keras() -> None:
    model = build(weighting="uncertainty")
    seen = keras.callbacks.CallbackList(
        [], add_history=True, model=model, epochs=1, steps=1
    )
    for _ in range(2):
        model.fit(X, Y, callbacks=seen, verbose=0)
    assert "weight_kind" in model.history.history
    with pytest.raises(ValueError, match="Received: 7"):
        model.fit(stream(y=changed(Y, "kind", 7)), callbacks=seen, verbose=0)


def test_single_steps_check_their_batch(model) -> None:
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"Received: 7"):
        model.train_on_batch(X, changed(Y, "kind", 7))
    with pytest.raises(ValueError, match=r"Received: 7"):
        model.test_on_batch(X, changed(Y, "kind", 7))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.isfinite(model.train_on_batch(X.tolist(), Y, return_dict=True)["loss"])


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_gradient_weightings_look_as_well(level: str) -> None:
    model = build(weighting=kmtl.weighting.PCGrad(level=level, seed=0))
    with pytest.raises(ValueError, match=RULE + "7, first in step 3 of epoch 1"):
        model.fit(stream(y=changed(Y, "kind", 7)), verbose=0)
