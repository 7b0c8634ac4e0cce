"""Symbols without an alignment: all alignments of short rows, one by one."""

from __future__ import annotations

import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl import metrics
from kmtl.losses.sequences import edit_distance, greedy

RNG = np.random.default_rng(0)
ROWS, STEPS, SYMBOLS = 6, 4, 2
LOGITS = RNG.normal(size=(ROWS, STEPS, SYMBOLS + 1)).astype("float32")
LABELS = np.array([[0, 1], [1, -1], [0, 0], [-1, -1], [1, 0], [1, 1]])


def collapsed(path: tuple[int, ...]) -> list[int]:
    """What the outputs of the steps say: changes, without blanks."""
    changes = [p for i, p in enumerate(path) if not i or p != path[i - 1]]
    return [symbol - 1 for symbol in changes if symbol]


@pytest.mark.backend
def test_likelihood_of_all_alignments() -> None:
    task = kmtl.CTC("t", classes=SYMBOLS)
    clean, mask = task.clean_labels(LABELS)
    values = ops.convert_to_numpy(task.loss_values(clean, LOGITS))
    np.testing.assert_array_equal(ops.convert_to_numpy(mask), LABELS >= 0)
    share = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True)
    for row in range(ROWS):
        wanted = [symbol for symbol in LABELS[row] if symbol >= 0]
        total = sum(
            np.prod([share[row, step, p] for step, p in enumerate(path)])
            for path in itertools.product(range(SYMBOLS + 1), repeat=STEPS)
            if collapsed(path) == wanted
        )
        expected = -np.log(total) / len(wanted) if wanted else 0.0
        np.testing.assert_allclose(values[row], expected, rtol=1e-4, atol=1e-5)


def distance(one: list[int], other: list[int]) -> int:
    """Levenshtein's, by the rule itself."""
    if not one or not other:
        return len(one) + len(other)
    return min(
        distance(one[1:], other) + 1,
        distance(one, other[1:]) + 1,
        distance(one[1:], other[1:]) + (one[0] != other[0]),
    )


def test_greedy_decoding_and_error_rate() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20, 6, 4)).astype("float32")
    labels = rng.integers(0, 3, (20, 5))
    labels = np.where(np.arange(5) < rng.integers(0, 6, (20, 1)), labels, -1)
    found = ops.convert_to_numpy(greedy(logits))
    edits = ops.convert_to_numpy(edit_distance(labels, found))
    total = 0
    for row in range(20):
        own = collapsed(tuple(logits[row].argmax(axis=-1)))
        assert found[row].tolist() == own + [-1] * (6 - len(own))
        wanted = [symbol for symbol in labels[row].tolist() if symbol >= 0]
        assert edits[row] == distance(wanted, own)
        total += edits[row] if wanted else 0
    metric = metrics.SymbolErrorRate()
    clean, mask = np.maximum(labels, 0), (labels >= 0).astype("float32")
    for rows in (slice(0, 9), slice(9, None)):
        metric.update_state(clean[rows], logits[rows], mask[rows])
    assert float(metric.result()) == pytest.approx(total / mask.sum(), rel=1e-6)


def test_word_error_rate() -> None:
    task = kmtl.CTC("t", labels=tuple("ab "), metrics="word_error_rate")
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(30, 14, 4)).astype("float32")
    texts = ["".join(rng.choice(list("ab "), rng.integers(0, 7))) for _ in range(30)]
    texts[:5] = [" ", "a  b ", "  ab", "abab a", "b"]
    clean, mask = task.clean_labels(task.label_array(texts))
    metric = task.score.make(task)
    metric.update_state(clean, logits, mask)
    edits = count = 0
    for text, found in zip(texts, task.decode(logits), strict=True):
        if text:  # else it is not labelled
            edits += distance(text.split(), found.split())
            count += len(text.split())
    assert float(metric.result()) == pytest.approx(edits / count, rel=1e-6)
    assert metric.from_config(metric.get_config()).space == 2


def test_word_error_rate_of_batches_of_other_lengths() -> None:
    """The compiled step learns of lengths that it was not traced for."""
    metrics = ("error_rate", "word_error_rate")
    task = kmtl.CTC("t", labels=tuple("ab "), metrics=metrics)
    net = kmtl.backbones.RNN(units=(4,))
    model = kmtl.build(backbone=net, input_shape=(12, 3), tasks=[task], seed=0)
    model.compile("adam")
    x = np.random.default_rng(0).random((6, 12, 3)).astype("float32")
    texts = ["a b b", "a", "ab a", None, "b", "a a a a"]
    whole = model.evaluate(x, {"t": texts}, return_dict=True, verbose=0)
    model.evaluate(x[:2], {"t": ["a", "b"]}, verbose=0)
    again = kmtl.evaluate(model, (x, {"t": texts}), batch_size=2)["t"].metrics
    for name in metrics:
        assert again[name] == pytest.approx(whole[f"t_{name}"], rel=1e-5)
    nothing = model.evaluate(x[:2], {"t": [None] * 2}, return_dict=True, verbose=0)
    assert np.isnan(nothing["t_word_error_rate"])


SERIES = [RNG.normal(size=(n, 3)).astype("float32") for n in (8, 4, 6, 3)]
SAID = ["ab", "a", "ba", "b"]
TRUNKS = {  # and how many steps become one
    "rnn": (kmtl.backbones.RNN(units=(8,)), 1),
    "strided": (kmtl.backbones.ConvNet1D(filters=(8,)), 2),
}


def of_series(net: kmtl.backbones.Backbone, length: int) -> kmtl.MultiTaskModel:
    """A model of series that are padded to that length."""
    series = kmtl.inputs.Series(length=length, channels=3, scale=None)
    task = kmtl.CTC("t", labels=("a", "b"))
    model = kmtl.build(backbone=net, inputs=series, tasks=[task], seed=0)
    model.compile(keras.optimizers.SGD(0.1))
    return model


@pytest.mark.backend
@pytest.mark.parametrize("trunk", TRUNKS)
def test_padding_of_the_input_is_left_out(trunk: str, tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    net, stride = TRUNKS[trunk]
    models = [of_series(net, length) for length in (8, 40)]
    models[1].set_weights(models[0].get_weights())
    for trained in (False, True):
        if trained:  # the same steps
            for model in models:
                model.fit(SERIES, {"t": SAID}, batch_size=4, epochs=3, verbose=0)
            for one, other in zip(*(m.get_weights() for m in models), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        outputs = [model.predict(SERIES, verbose=0)["t"] for model in models]
        total = 0.0
        for row, (series, text) in enumerate(zip(SERIES, SAID, strict=True)):
            steps = -(-len(series) // stride)
            total += float(
                tf.nn.ctc_loss(
                    [["ab".index(symbol) + 1 for symbol in text]],
                    tf.constant(outputs[0][row : row + 1, :steps]),
                    [len(text)],
                    [steps],
                    logits_time_major=False,
                    blank_index=0,
                )[0]
            )
        expected = total / sum(map(len, SAID))
        reports = [
            model.evaluate(SERIES, {"t": SAID}, return_dict=True, verbose=0)
            for model in models
        ]
        for report in reports:
            assert report["t_loss"] == pytest.approx(expected, rel=1e-4)
        rates = [report["t_error_rate"] for report in reports]
        assert rates[0] == pytest.approx(rates[1], rel=1e-6)
        said = [models[0].task("t").decode(found) for found in outputs]
        assert said[0] == said[1]
    models[1].save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.predict(SERIES, verbose=0)["t"]
    np.testing.assert_allclose(again, outputs[1], rtol=1e-5, atol=1e-5)
    logs = loaded.evaluate(SERIES, {"t": SAID}, return_dict=True, verbose=0)
    assert logs["t_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.backend
def test_nothing_is_read_out_of_padding() -> None:
    model = of_series(TRUNKS["rnn"][0], 12)
    bias = next(v for v in model.trainable_variables if tuple(v.shape) == (3,))
    bias.assign([0.0, 50.0, 0.0])  # says "a" at every step
    outputs = model.predict(SERIES, verbose=0)["t"]
    for found, series in zip(outputs, SERIES, strict=True):
        there = np.arange(12) < len(series)
        assert found.argmax(axis=-1).tolist() == there.astype(int).tolist()
    assert model.task("t").decode(outputs) == ["a"] * 4


@pytest.mark.backend
def test_more_symbols_than_steps_that_are_there() -> None:
    """A large loss, which stays finite."""
    model = of_series(TRUNKS["rnn"][0], 12)
    logs = model.evaluate(SERIES[3:], {"t": ["ababa"]}, return_dict=True, verbose=0)
    assert 100 < logs["t_loss"] < 1000
    model.fit(SERIES[3:], {"t": ["ababa"]}, verbose=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_rows_of_arrays() -> None:
    task = kmtl.CTC("t", classes=5)
    rows = [np.array([1, 2]), np.array([3])]
    nan = np.nan
    np.testing.assert_array_equal(task.label_array(rows), [[1, 2], [3, nan]])
    several = np.empty(2, object)
    several[:] = rows
    np.testing.assert_array_equal(task.label_array(several), [[1, 2], [3, nan]])


def test_too_long_for_the_trunk() -> None:
    task = kmtl.CTC("t", labels=("a", "b"))
    task.check_fits(task.label_array(["abab", "aa", None]), (4, 3))
    with pytest.raises(ValueError, match="3 symbols in row 1, which need 5 steps"):
        task.check_fits(task.label_array(["abab", "aaa"]), (4, 3))
    net = kmtl.backbones.ConvNet1D(filters=(2,))  # pools four steps to two
    model = kmtl.build(backbone=net, input_shape=(4, 1), tasks=[task], seed=0)
    model.compile("sgd")
    with pytest.raises(ValueError, match="the 2 steps that the trunk keeps"):
        model.fit(np.ones((2, 4, 1)), {"t": ["a", "bb"]}, verbose=0)


def test_texts() -> None:
    task = kmtl.CTC.from_labels("t", ["ab", None, "b"], length=3)
    assert task.labels == ("a", "b")
    given = task.label_array(["ba", "a", None])
    np.testing.assert_array_equal(
        given, [[1, 0, np.nan], [0, np.nan, np.nan], [np.nan] * 3]
    )
    steps = np.eye(3)[[[2, 2, 0, 2, 1]]]
    assert task.decode(steps) == ["bba"]
    assert kmtl.CTC("t", classes=2).decode(steps) == [[1, 1, 0]]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: kmtl.CTC("t"), "needs `classes`"),
        (lambda: kmtl.CTC("t", classes=2, loss="mse"), "must be 'ctc'"),
        (lambda: kmtl.CTC("t", classes=2, class_weight={0: 1.0}), "must be None"),
        (lambda: kmtl.CTC("t", classes=2).label_array(["ab"]), "what symbols"),
        (
            lambda: kmtl.CTC("t", labels=("a", "b"), metrics="word_error_rate"),
            "which ends words",
        ),
        (lambda: kmtl.CTC("t", labels=("a",)).label_array(["b"]), "must be among a"),
        (
            lambda: kmtl.CTC("t", classes=2).check_labels([[-1, 1]]),
            "from the left.*in row 0",
        ),
        (lambda: kmtl.CTC("t", classes=2).check_labels([[2]]), r"in \[0, 1\]"),
    ],
)
def test_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()
