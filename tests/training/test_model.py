"""fit and evaluate: names, exact numbers, and the terms that add up to the loss."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import sklearn.metrics as reference
from core_tools import ROWS, table, table_model, table_tasks
from keras import ops

import kmtl
from kmtl.data import Split

pytestmark = pytest.mark.backend

X, Y = table()
LOGS = {
    "loss",
    "kind_loss",
    "kind_accuracy",
    "flag_loss",
    "flag_accuracy",
    "flag_auc",
    "size_loss",
    "size_mae",
    "size_r2",
    "regularization_loss",
}


def softmax_nats(logits, labels):
    logits = logits.astype("float64")
    return np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(labels)), labels]


def sigmoid_nats(logits, labels):
    logits = logits.astype("float64")
    return np.log1p(np.exp(logits)) - labels * logits


def by_hand(model, x, y, weight=None) -> dict[str, float]:
    """Every log of the model, computed from its outputs in numpy."""
    out = model.predict(x, verbose=0)
    weight = weight or {}
    ones = np.ones(len(x))
    logs = {}

    w = (y["kind"] >= 0) * weight.get("kind", ones)
    nats = softmax_nats(out["kind"], np.maximum(y["kind"], 0))
    logs["kind_loss"] = (w * nats).sum() / w.sum()
    there = w > 0
    right = out["kind"].argmax(-1)[there] == y["kind"][there]
    logs["kind_accuracy"] = right.mean()

    w = (y["flag"] >= 0) * weight.get("flag", ones)
    there, w = w > 0, w * np.where(y["flag"] == 1, 3.0, 1.0)
    logits = out["flag"][:, 0]
    nats = sigmoid_nats(logits, np.maximum(y["flag"], 0))
    logs["flag_loss"] = (w * nats).sum() / w.sum()
    logs["flag_accuracy"] = ((logits > 0) == (y["flag"] == 1))[there].mean()
    logs["flag_auc"] = reference.roc_auc_score(y["flag"][there], logits[there])

    w = ~np.isnan(y["size"]) * weight.get("size", ones)[:, None]
    error = out["size"] - np.nan_to_num(y["size"])
    logs["size_loss"] = (w * error**2).sum() / w.sum()
    logs["size_mae"] = np.abs(error)[w > 0].mean()
    logs["size_r2"] = np.mean(
        [
            reference.r2_score(y["size"][keep, i], out["size"][keep, i])
            for i, keep in enumerate(w.T > 0)
        ]
    )
    kernels = [ops.convert_to_numpy(v) for v in model.weights if v.name == "kernel"]
    logs["regularization_loss"] = 0.01 * sum((k**2).sum() for k in kernels)
    logs["loss"] = logs["regularization_loss"] + sum(
        model.task_weights[name] * logs[f"{name}_loss"] for name in model.task_names
    )
    return logs


def assert_logs(logs, expected) -> None:
    assert set(logs) == set(expected)
    for name, value in expected.items():
        got = logs[name][-1] if isinstance(logs[name], list) else logs[name]
        tolerance = 1e-2 if name.endswith("auc") else 1e-5  # it has bins
        assert got == pytest.approx(value, rel=tolerance, abs=1e-6), name


@pytest.fixture(scope="module")
def frozen():
    """A compiled model that does not move, so that its history is known as well."""
    model = table_model(kernel_regularizer=keras.regularizers.L2(0.01))
    model.compile(keras.optimizers.SGD(0.0))
    return model


def test_history_is_exact_in_training_and_validation(frozen) -> None:
    x2, y2 = table(13, seed=5)
    history = frozen.fit(
        X, Y, batch_size=8, epochs=2, validation_data=(x2, y2), verbose=0
    ).history
    expected = by_hand(frozen, X, Y)
    assert set(expected) == LOGS
    validation = {f"val_{k}": v for k, v in by_hand(frozen, x2, y2).items()}
    assert_logs(history, expected | validation)
    assert {len(values) for values in history.values()} == {2}
    again = frozen.fit(X, Y, batch_size=5, validation_split=0.0, verbose=0).history
    assert_logs(again, expected)
    train, part = Split(X, Y, table_tasks()), Split(x2, y2, table_tasks())
    again = frozen.fit(train, batch_size=8, validation_data=part, verbose=0).history
    assert_logs(again, expected | validation)


def test_evaluate_in_every_form_of_data(frozen) -> None:
    expected = by_hand(frozen, X, Y)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            part = slice(8 * i, 8 * i + 8)
            return X[part], {name: labels[part] for name, labels in Y.items()}

    def generator():
        yield from (Batches()[i] for i in range(3))

    tensors = {name: ops.convert_to_tensor(labels) for name, labels in Y.items()}
    lists = {name: labels.tolist() for name, labels in Y.items()}
    forms = [
        (X, Y, 8),
        (X, Y, ROWS),
        ({"inputs": X}["inputs"], lists, 7),
        (ops.convert_to_tensor(X), tensors, 8),
        (Batches(workers=1), None, None),
        (Split(X, Y, table_tasks()), None, 8),
        (X, Y | {"kind": Y["kind"][:, None], "flag": Y["flag"][:, None]}, 8),
    ]
    for x, y, size in forms:
        logs = frozen.evaluate(x, y, batch_size=size, return_dict=True, verbose=0)
        assert_logs(logs, expected)
    logs = frozen.evaluate(generator(), steps=3, return_dict=True, verbose=0)
    assert_logs(logs, expected)
    flat = frozen.evaluate(X, Y, verbose=0)
    assert sorted(flat) == pytest.approx(sorted(expected.values()), abs=2e-2)


def test_sample_weights(frozen) -> None:
    def evaluate(weights):
        return frozen.evaluate(
            X, Y, sample_weight=weights, batch_size=8, return_dict=True, verbose=0
        )

    rng = np.random.default_rng(2)
    some = {"kind": rng.random(ROWS), "size": (rng.random(ROWS) < 0.6) * 2.0}
    assert_logs(evaluate(some), by_hand(frozen, X, Y, some))
    one = {"flag": some["size"]}
    assert_logs(evaluate(one), by_hand(frozen, X, Y, one))
    # An array is for all tasks; None for none.
    everywhere = dict.fromkeys(("kind", "flag", "size"), some["size"])
    assert_logs(evaluate(some["size"]), by_hand(frozen, X, Y, everywhere))
    assert_logs(evaluate({"kind": None}), by_hand(frozen, X, Y))
    # Entry by entry, where labels have columns.
    entries = rng.random((ROWS, 2))
    w = ~np.isnan(Y["size"]) * entries
    error = frozen.predict(X, verbose=0)["size"] - np.nan_to_num(Y["size"])
    assert evaluate({"size": entries})["size_loss"] == pytest.approx(
        (w * error**2).sum() / w.sum(), rel=1e-5
    )
    nothing = evaluate({"kind": np.zeros(ROWS)})
    assert np.isnan([nothing["kind_loss"], nothing["kind_accuracy"]]).all()
    weights = frozen.task_weights
    assert nothing["loss"] - nothing["regularization_loss"] == pytest.approx(
        sum(weights[name] * nothing[f"{name}_loss"] for name in ("flag", "size"))
    )
    assert nothing["size_loss"] == evaluate(None)["size_loss"]


def test_loss_report_adds_up(frozen) -> None:
    report = frozen.loss_report(X, Y)
    expected = by_hand(frozen, X, Y)
    for name in frozen.task_names:
        part = report[name]
        assert part["loss"] == pytest.approx(expected[f"{name}_loss"], rel=1e-5)
        assert part["weight"] == frozen.task_weights[name]
        assert part["weighted"] == pytest.approx(part["loss"] * part["weight"])
    assert report["kind"]["labels"] == (Y["kind"] >= 0).sum()
    assert report["regularization"] == pytest.approx(
        expected["regularization_loss"], rel=1e-5
    )
    terms = sum(report[name]["weighted"] for name in frozen.task_names)
    total = terms + report["regularization"] + report["other"]
    assert report["total"] == pytest.approx(total, rel=1e-5)
    assert report["total"] == pytest.approx(expected["loss"], rel=1e-5)


def test_nothing_labelled_moves_nothing_but_decay() -> None:
    model = table_model()
    model.compile(keras.optimizers.Adam(0.1))
    before = model.get_weights()
    empty = {
        "kind": np.full(ROWS, -1),
        "flag": np.full(ROWS, np.nan),
        "size": np.full((ROWS, 2), np.nan),
    }
    logs = model.fit(X, empty, batch_size=8, verbose=0).history
    assert logs.pop("loss") == [0.0]
    assert all(np.isnan(value[0]) for value in logs.values())
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_one_head_has_the_same_names_as_many() -> None:
    model = table_model(tasks=table_tasks()[:1])
    model.compile("sgd")
    history = model.fit(
        X, Y["kind"], validation_data=(X, {"kind": Y["kind"]}), verbose=0
    ).history
    names = {"loss", "kind_loss", "kind_accuracy"}
    assert set(history) == names | {f"val_{name}" for name in names}
    assert list(model.predict(X, verbose=0)) == ["kind"]
    assert set(model.train_on_batch(X, Y["kind"], return_dict=True)) == names
    assert set(model.test_on_batch(X, {"kind": Y["kind"]}, return_dict=True)) == names


def traces(model) -> list:
    """Grows whenever Python runs the loss, which is when a step is traced."""
    calls, compute = [], model.compute_loss
    model.compute_loss = lambda *args, **kwargs: (
        calls.append(None),
        compute(*args, **kwargs),
    )[1]
    return calls


def test_weights_and_rates_change_training() -> None:
    """Without a trace, but for one where a rate is no longer 0."""
    model = table_model(dropout=0.0)
    model.compile(keras.optimizers.SGD(0.5))
    calls = traces(model)
    start = model.get_weights()

    def moved(seed_shift=0) -> dict[str, float]:
        model.set_weights([*start])
        model.set_task_weights(weights)
        model.set_dropout(rate)
        model.fit(X, Y, batch_size=ROWS, shuffle=False, verbose=0)
        return {
            name: float(np.abs(model.get_layer(name).kernel - kernels[name]).max())
            for name in kernels
        }

    kernels = {
        name: ops.convert_to_numpy(model.get_layer(name).kernel)
        for name in ("kind_head_logits", "size_head_logits")
    }
    weights, rate = {"kind": 1.0, "flag": 1.0, "size": 1.0}, 0.0
    base = moved()
    count = len(calls)
    weights = {"kind": 0.0, "flag": 1.0, "size": 2.0}
    changed = moved()
    assert changed["kind_head_logits"] == 0.0
    assert changed["size_head_logits"] == pytest.approx(
        2 * base["size_head_logits"], rel=1e-4
    )
    assert len(calls) == count
    rate = 0.9
    assert moved()["size_head_logits"] != pytest.approx(changed["size_head_logits"])
    count = len(calls)
    for other in (0.1, 0.0, 0.9):
        rate = other
        moved()
    assert len(calls) == count
    assert model.task_weights == weights
    rates = [
        layer.current_rate()
        for layer in model.layers
        if isinstance(layer, kmtl.layers.Dropout)
    ]
    assert rates == pytest.approx([0.9] * 4)


def test_setters_refuse() -> None:
    model = table_model(dropout=None)
    with pytest.raises(ValueError, match=r"Unknown task 'kid'.*Did you mean 'kind'"):
        model.set_task_weights({"size": 3.0, "kid": 1.0})
    with pytest.raises(ValueError, match=r"weights\['kind'\].*nan"):
        model.set_task_weights({"size": 3.0, "kind": float("nan")})
    assert model.task_weights["size"] == 1.0  # all or nothing
    with pytest.raises(ValueError, match="no dropout layers in its trunk"):
        model.set_dropout(0.5)
    model = table_model(tasks=[kmtl.Regression("size", hidden=(3,), dropout=0.3)])
    with pytest.raises(ValueError, match=r"Unknown dropout layer .* Did you mean"):
        model.set_dropout({"shared_block1_dropot": 0.5})
    with pytest.raises(ValueError, match=r"=1\.5"):
        model.set_dropout({"shared_block1_dropout": 0.5, "size_block2_dropout": 1.5})
    assert model.get_layer("shared_block1_dropout").current_rate() == 0.0
    model.set_dropout({"size_head_dropout1": 0.6})
    model.set_dropout(0.5)  # the trunk's
    assert model.get_layer("size_head_dropout1").current_rate() == pytest.approx(0.6)
    with pytest.raises(ValueError, match="Unknown task 'sise'"):
        model.task("sise")


def test_weights_by_data() -> None:
    model = table_model(loss_weights="data")
    model.compile("sgd")
    model.fit(X, Y, batch_size=8, verbose=0)
    counts = {
        "kind": (Y["kind"] >= 0).sum(),
        "flag": (Y["flag"] >= 0).sum(),
        "size": (~np.isnan(Y["size"])).any(1).sum(),
    }
    total = sum(counts.values())
    for name, count in counts.items():
        assert model.task_weights[name] == pytest.approx(count / total)
    # Every training counts its own data.
    model.fit(X, Y | {"kind": np.full(ROWS, -1)}, batch_size=8, verbose=0)
    assert model.task_weights == pytest.approx(
        {
            name: 0.0 if name == "kind" else count / (total - counts["kind"])
            for name, count in counts.items()
        }
    )
    # Rows that are held out do not count.
    held_out = Y["kind"].copy()
    held_out[: ROWS // 2] = -1
    model.fit(X, Y | {"kind": held_out}, validation_split=0.5, verbose=0)
    assert model.task_weights["kind"] == 0.0
    # Weights set by hand stay, and a new rule counts again.
    model.compile("sgd", loss_weights="data")
    model.set_task_weights({"kind": 7.0})
    model.fit(X[:8], {name: labels[:8] for name, labels in Y.items()}, verbose=0)
    assert model.task_weights["kind"] == 7.0
    assert model.task_weights["size"] != pytest.approx(counts["size"] / total)
    model.compile("sgd", loss_weights="data")
    with pytest.raises(TypeError, match="use up a generator"):
        model.fit(((X, Y) for _ in range(2)), steps_per_epoch=2, verbose=0)
    nothing = {
        "kind": np.full(ROWS, -1),
        "flag": Y["kind"] * 0 - 1,
        "size": Y["size"] * np.nan,
    }
    with pytest.raises(ValueError, match="no task has any label"):
        model.fit(X, nothing, verbose=0)


def test_callbacks_see_the_names(tmp_path) -> None:
    model = table_model()
    model.compile(keras.optimizers.SGD(0.0))
    path = tmp_path / "best.keras"
    stop = keras.callbacks.EarlyStopping(
        monitor="val_size_mae", mode="min", patience=1, restore_best_weights=True
    )
    keep = keras.callbacks.ModelCheckpoint(
        str(path), monitor="val_kind_accuracy", mode="max", save_best_only=True
    )
    history = model.fit(
        X, Y, validation_data=(X, Y), epochs=9, callbacks=[stop, keep], verbose=0
    )
    assert len(history.epoch) == 2  # it cannot get better
    best = keras.models.load_model(path)
    assert type(best) is kmtl.MultiTaskModel
    for a, b in zip(best.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_models_do_not_mix() -> None:
    one, two = table_model(), table_model(tasks=table_tasks()[2:], units=(3,))
    one.compile(keras.optimizers.SGD(0.0))
    two.compile(keras.optimizers.SGD(0.0))
    before = one.evaluate(X, Y, verbose=0, return_dict=True)
    two.fit(X, {"size": Y["size"]}, verbose=0)
    one.fit(X, Y, verbose=0)
    two.set_task_weights({"size": 5.0})
    assert one.evaluate(X, Y, verbose=0, return_dict=True) == before
    assert one.task_weights["size"] == 1.0


def test_reconstruction_without_labels() -> None:
    images = np.random.default_rng(0).random((10, 5, 5, 1)).astype("float32")
    task = kmtl.Reconstruction("image", loss="binary_cross_entropy", metrics="mae")
    model = kmtl.build_cnn(input_shape=(5, 5, 1), tasks=[task], filters=(3,), seed=0)
    model.compile(keras.optimizers.SGD(0.0))
    logits = model.predict(images, verbose=0)["image"]
    probability = 1 / (1 + np.exp(-logits.astype("float64")))
    loss = sigmoid_nats(logits, images).mean()
    expected = {
        "loss": loss,
        "image_loss": loss,
        "image_mae": np.abs(probability - images).mean(),
    }
    history = model.fit(
        images, batch_size=4, validation_data=(images,), verbose=0
    ).history
    assert_logs(history, expected | {f"val_{k}": v for k, v in expected.items()})
    assert_logs(model.evaluate(images, verbose=0, return_dict=True), expected)
    explicit = model.evaluate(images, images, verbose=0, return_dict=True)
    assert_logs(explicit, expected)
    weight = np.arange(10) % 2
    logs = model.evaluate(
        images, sample_weight={"image": weight}, verbose=0, return_dict=True
    )
    odd = sigmoid_nats(logits, images)[1::2].mean()
    assert logs["image_loss"] == pytest.approx(odd, rel=1e-5)
    assert model.evaluate(images, sample_weight=weight, verbose=0)[0] == pytest.approx(
        odd, rel=1e-5
    )
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        model.fit(images * 3, verbose=0)


def test_reconstruction_of_images_without_a_channel_axis() -> None:
    images = np.random.default_rng(0).random((6, 5, 5)).astype("float32")
    model = kmtl.build_cnn(
        input_shape=(5, 5, 1), tasks=[kmtl.Reconstruction("image")], filters=(3,)
    )
    model.compile(keras.optimizers.SGD(0.0))
    out = model.predict(images[..., None], verbose=0)["image"]
    expected = np.square(out[..., 0] - images).mean()
    logs = model.evaluate(images, verbose=0, return_dict=True)
    assert logs["image_loss"] == pytest.approx(expected, rel=1e-5)
    assert logs["image_mse"] == pytest.approx(expected, rel=1e-5)


def test_a_call_predicts_behind_layers_that_train_by_default() -> None:
    """Keras' `Resizing` takes `training=None` for True, and hands it on."""
    x = np.random.default_rng(0).normal(3.0, size=(4, 5, 5, 1)).astype("float32")
    image = keras.Input((5, 5, 1), name="image")
    y = keras.layers.BatchNormalization()(keras.layers.Resizing(3, 3)(image))
    y = keras.layers.Dense(1)(keras.layers.Flatten()(y))
    model = kmtl.MultiTaskModel(
        image, {"size": kmtl.TaskOutput(kmtl.Regression("size"))(y)}
    )
    np.testing.assert_allclose(
        model(x)["size"], model.predict(x, verbose=0)["size"], rtol=1e-5, atol=1e-6
    )
    # In nets of ours plain Keras knows it as well.
    task = kmtl.Segmentation("mask", classes=2, decoder="unet")
    scheme = kmtl.sharing.MTAN(normalization="batch")
    net = kmtl.backbones.CNN(filters=(3, 4))
    ours = kmtl.build(
        backbone=net, input_shape=(5, 5, 1), tasks=[task], sharing=scheme, seed=0
    )
    plain = ours.to_keras()
    found = [layer for layer in plain.layers if "Resizing" in type(layer).__name__]
    assert found
    for output in (ours(x), plain(x)):
        np.testing.assert_allclose(
            output["mask"], ours.predict(x, verbose=0)["mask"], rtol=1e-5, atol=1e-6
        )
