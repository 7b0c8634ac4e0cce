"""Readings of gates, how even they are, and their record over training."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pytest

import kmtl
from kmtl.inspection import GateRecorder
from kmtl.inspection.readings import is_shares

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]


class Told(kmtl.layers.Recorded):
    """Says what it was told to say."""

    def __init__(self, labels=(), **values):
        super().__init__(name="told")
        self.values, self.labels = values, labels

    def call(self, inputs):
        return inputs

    def readings(self):
        return {name: np.asarray(value) for name, value in self.values.items()}

    def reading_labels(self):
        return self.labels


def model_of(layer) -> keras.Model:
    inputs = keras.Input((2,))
    return keras.Model(inputs, layer(inputs))


def test_usage_by_hand() -> None:
    found = kmtl.gates(
        model_of(Told(labels=("x", "y", "z", "w"), even=[0.25] * 4, one=[1, 0, 0, 0.0],
                      half=[0.5, 0.5, 0, 0], signed=[1.5, -0.5, 0, 0]))
    )  # fmt: skip
    usage = {item.reading: item for item in found.usage}
    assert set(usage) == {"even", "one", "half"}  # numbers below 0 are no shares
    assert usage["even"].effective == pytest.approx(4)
    assert usage["even"].entropy == pytest.approx(np.log(4))
    assert usage["even"].imbalance == pytest.approx(1)
    assert usage["even"].unused == ()
    assert (usage["one"].effective, usage["one"].imbalance) == (1.0, 4.0)
    assert usage["one"].unused == ("y", "z", "w")
    assert usage["half"].effective == pytest.approx(2)
    assert usage["half"].shares == {"x": 0.5, "y": 0.5, "z": 0.0, "w": 0.0}
    frame = found.usage_frame()
    assert frame.loc[("told", "one"), "unused"] == "y, z, w"
    text = str(found)
    assert "x 0.250, y 0.250" in text
    assert "told" in text


def test_frame_of_vectors_and_matrices() -> None:
    layer = Told(labels=("x", "y"), row=[0.1, 0.2], square=[[1.0, 2.0], [3.0, 4.0]])
    frame = kmtl.gates(model_of(layer)).frame
    assert list(frame.columns) == ["layer", "reading", "row", "entry", "value"]
    assert frame.query("reading == 'square'").drop(
        columns=["layer", "reading"]
    ).to_dict("list") == {
        "row": [0, 0, 1, 1],
        "entry": ["x", "y"] * 2,
        "value": [1.0, 2.0, 3.0, 4.0],
    }
    unnamed = kmtl.gates(model_of(Told(row=[0.1, 0.2], number=0.5))).frame
    assert list(unnamed["entry"]) == ["1", "2", "1"]


def test_what_shares_are() -> None:
    assert is_shares(np.array([0.3, 0.7]))
    assert not is_shares(np.array([0.3, 0.6]))
    assert not is_shares(np.array([1.0]))
    assert not is_shares(np.array([np.nan, np.nan]))


def test_a_model_without_gates() -> None:
    found = kmtl.gates(model_of(keras.layers.Dense(1)))
    assert len(found.frame) == 0
    assert found.usage == ()
    assert len(found.usage_frame()) == 0
    assert str(found) == "No layer of the model is recorded."


ROWS = 12


def trained(callback, epochs: int = 3, sharing="mmoe"):
    tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    model = kmtl.build_mlp(
        input_shape=(4,), tasks=tasks, units=(5,), sharing=sharing, seed=0
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 4)).astype("float32")
    y = {"a": x[:, :1], "b": -x[:, 1:2]}
    # With this learning rate the weights, and so the gates, stay what they are.
    model.compile(keras.optimizers.SGD(0.0))
    history = model.fit(
        x, y, batch_size=5, epochs=epochs, verbose=0, callbacks=[callback]
    )
    return model, x, history


def test_every_epoch_has_its_own_means() -> None:
    recorder = GateRecorder()
    model, x, history = trained(recorder)
    frame = history.gates
    assert sorted(set(frame["epoch"])) == [1, 2, 3]
    assert sorted(set(frame["layer"])) == ["a_gate1", "b_gate1"]
    shares = np.asarray(model.get_layer("a_gate1")(x)).mean(axis=0)
    assert len(shares) == len(frame.query("epoch == 1 and layer == 'a_gate1'"))
    for epoch in (1, 2, 3):
        found = frame.query(f"epoch == {epoch} and layer == 'a_gate1'")["value"]
        np.testing.assert_allclose(found, shares, rtol=1e-5)
        assert list(frame.query(f"epoch == {epoch}")["reading"].unique()) == ["a", "b"]
    # The means are of one epoch: the count began anew.
    assert float(model.get_layer("a_gate1")._reading_count) == ROWS
    assert recorder.frame.equals(frame)


def test_some_epochs_and_the_last() -> None:
    _, _, history = trained(GateRecorder(every=2), epochs=5, sharing="cross_stitch")
    assert sorted(set(history.gates["epoch"])) == [2, 4, 5]
    with pytest.raises(ValueError, match="`every` must be an integer >= 1"):
        GateRecorder(every=0)


def test_a_model_with_nothing_to_record_is_told(caplog) -> None:
    recorder = GateRecorder()
    with caplog.at_level(logging.WARNING, logger="kmtl"):
        trained(recorder, epochs=1, sharing="hard")
    assert "nothing to record" in caplog.text
    assert len(recorder.frame) == 0


def test_readings_come_by_block_and_in_the_order_of_the_tasks() -> None:
    tasks = [kmtl.Regression(name) for name in ("z", "a")]
    model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(3, 3), sharing="ple")
    layers = list(dict.fromkeys(kmtl.gates(model).frame["layer"]))
    assert layers == ["z_gate1", "a_gate1", "shared_gate1", "z_gate2", "a_gate2"]
