"""Every loss of Keras for every kind of label: Keras' own number, or a refusal."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.losses import masked_mean

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
ROWS = 8
TASKS = {
    "classes": kmtl.Classification("t", classes=3),
    "yes": kmtl.BinaryClassification("t"),
    "columns": kmtl.MultiLabel("t", classes=2),
    "value": kmtl.Regression("t"),
    "vector": kmtl.Regression("t", units=3),
    "image": kmtl.Reconstruction("t"),
}
WIDTHS = {"classes": 3, "yes": 1, "columns": 2, "value": 1, "vector": 3, "image": 4}
VALUES = ("value", "vector", "image")
#: Where a loss is served; everywhere else it is refused.
SERVED = {
    "BinaryCrossentropy": ("yes", "columns", "image"),
    "BinaryFocalCrossentropy": ("yes", "columns", "image"),
    "CategoricalCrossentropy": ("classes",),
    "CategoricalFocalCrossentropy": ("classes",),
    "CategoricalHinge": ("classes", "vector", "image"),
    "CosineSimilarity": ("vector", "image"),
    "Hinge": ("yes", "columns", *VALUES),
    "Huber": VALUES,
    "LogCosh": VALUES,
    "MeanAbsoluteError": VALUES,
    "MeanAbsolutePercentageError": VALUES,
    "MeanSquaredError": VALUES,
    "MeanSquaredLogarithmicError": VALUES,
    "SparseCategoricalCrossentropy": ("classes",),
    "SquaredHinge": ("yes", "columns", *VALUES),
}
VECTORS = {"CategoricalHinge", "CosineSimilarity"}
ONE_HOT = {
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalHinge",
}
LOSSES = sorted(
    name
    for name, found in vars(keras.losses).items()
    if inspect.isclass(found) and found is not keras.losses.Loss
)


def make(name: str) -> keras.losses.Loss:
    kind = getattr(keras.losses, name)
    logits = "from_logits" in inspect.signature(kind).parameters
    return kind(**({"from_logits": True} if logits else {}))


def batch(kind: str):
    """Raw labels with holes, outputs, and which labels are there."""
    shape = (ROWS,) if kind == "classes" else (ROWS, WIDTHS[kind])
    outputs = RNG.normal(size=(ROWS, WIDTHS[kind])).astype("float32") * 2
    if kind == "classes":
        labels = RNG.integers(0, 3, shape).astype("float32")
    elif kind in ("yes", "columns", "image"):
        labels = RNG.integers(0, 2, shape).astype("float32")
    else:
        labels = RNG.normal(size=shape).astype("float32")
    there = RNG.random(shape) < 0.7
    there[:2] = True
    return np.where(there, labels, np.nan), outputs, there


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name: str) -> None:
    for kind, plain in TASKS.items():
        if kind not in SERVED.get(name, ()):
            with pytest.raises(ValueError, match=r"task 't'.*" + name):
                plain.replace(loss=make(name))
            continue
        task = plain.replace(loss=make(name))
        labels, outputs, there = batch(kind)
        weights = RNG.random(ROWS).astype("float32")
        clean, mask = task.clean_labels(labels)
        each = task.label_weights(clean, mask)
        rows = np.reshape(weights, (-1, *[1] * (there.ndim - 1)))
        got, _ = masked_mean(task.loss_values(clean, outputs), each * rows)
        # Keras' own number, of what is there.
        if kind == "classes":
            y = labels[there].astype(int)
            y = np.eye(3)[y] if name in ONE_HOT else y
            p, w = outputs[there], weights[there]
        elif name in VECTORS:
            whole = there.all(axis=1)
            y, p, w = labels[whole], outputs[whole], weights[whole]
        else:
            y, p = labels[there][:, None], outputs[there][:, None]
            w = np.broadcast_to(rows, there.shape)[there]
        loss = make(name)
        values = ops.convert_to_numpy(loss.call(ops.convert_to_tensor(y), p))
        expected = (values * w).sum() / w.sum()
        assert float(got) == pytest.approx(expected, rel=1e-5), kind
        assert task == kmtl.Task.from_config(task.to_config())


@pytest.mark.parametrize(
    ("loss", "task", "hint"),
    [
        (keras.losses.Poisson(), "vector", "kmtl.Count"),
        (keras.losses.KLDivergence(), "classes", "'cross_entropy'"),
        (keras.losses.KLDivergence(), "vector", "'mse'"),
        (keras.losses.Dice(), "columns", "'focal'"),
        (keras.losses.CosineSimilarity(), "value", "one column"),
        (keras.losses.BinaryCrossentropy(), "yes", "from_logits=True"),
        (keras.losses.BinaryCrossentropy(from_logits=True), "vector", "MultiLabel"),
    ],
)
def test_a_refusal_says_what_to_use(loss, task: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        TASKS[task].replace(loss=loss)


class PerEntry(keras.losses.Loss):
    """Reduces nothing."""

    def call(self, y_true, y_pred):
        return ops.abs(y_true - y_pred)


class OfBatch(keras.losses.Loss):
    """Compares a row with the others."""

    def call(self, y_true, y_pred):
        error = ops.mean(ops.square(y_true - y_pred), axis=-1)
        return error - ops.mean(error)


class Constant(keras.losses.Loss):
    """Looks at nothing."""

    def call(self, y_true, y_pred):
        return ops.zeros_like(y_pred)[..., 0]


class Distance(keras.losses.Loss):
    """Euclidean distance of rows."""

    def call(self, y_true, y_pred):
        return ops.sqrt(ops.sum(ops.square(y_true - y_pred), axis=-1) + 1e-12)


def test_losses_of_ones_own() -> None:
    labels = np.array([[0.0, 1.0, 2.0], [1.0, np.nan, 2.0]], "float32")
    outputs = np.array([[1.0, 1.0, 4.0], [3.0, 2.0, 2.0]], "float32")

    def loss_of(loss) -> float:
        task = TASKS["vector"].replace(loss=loss)
        clean, mask = task.clean_labels(labels)
        weights = task.label_weights(clean, mask)
        return float(masked_mean(task.loss_values(clean, outputs), weights)[0])

    assert loss_of(PerEntry()) == pytest.approx(5 / 5)
    assert loss_of(Distance()) == pytest.approx(5**0.5)  # of the first row
    for loss in (OfBatch(), Constant()):
        with pytest.raises(
            ValueError, match=r"must give one value per label or per row"
        ):
            loss_of(loss)


def test_a_row_for_which_the_whole_net_is_off_has_no_gradient() -> None:
    """A cosine has no derivative at 0: NaN would be in all weights at once."""
    task = kmtl.Regression("a", units=2, loss=keras.losses.CosineSimilarity())
    model = kmtl.build_mlp(input_shape=(3,), tasks=[task], units=(4,), seed=0)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    x = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], "float32")
    y = np.array([[1.0, 2.0], [0.5, -1.0]], "float32")
    outputs = model.predict(x, verbose=0)["a"]
    assert (outputs[0] == 0).all()
    cosine = (y[1] * outputs[1]).sum() / np.sqrt((y[1] ** 2).sum())
    cosine /= np.sqrt((outputs[1] ** 2).sum())
    before = model.get_weights()
    logs = model.train_on_batch(x, {"a": y}, return_dict=True)
    assert logs["a_loss"] == pytest.approx(-cosine / 2, rel=1e-5)
    moved = [
        np.abs(new - old).max()
        for old, new in zip(before, model.get_weights(), strict=True)
    ]
    assert np.isfinite(moved).all()
    assert max(moved) > 0


def test_logits_of_a_reconstruction_become_probabilities() -> None:
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    task = TASKS["image"].replace(loss=loss)
    assert task.output_activation == "sigmoid"
    assert TASKS["image"].output_activation == "linear"
