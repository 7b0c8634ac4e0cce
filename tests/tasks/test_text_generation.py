"""Texts written token by token: what a decoder sees, learns, writes and exports."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pandas
import pytest
from keras import ops

import kmtl
from kmtl.layers.text_decoder import TextDecoder
from kmtl.losses.sequences import texts_in

RNG = np.random.default_rng(0)


def decoder(**options) -> TextDecoder:
    layer = TextDecoder(
        "t",
        **{
            "tokens": 3,
            "length": 3,
            "units": 8,
            "blocks": 1,
            "heads": 2,
            "seed": 1,
            **options,
        },
    )
    layer.build((None, 4, 5))
    # Sharper than at the start, so that texts differ by more than rounding.
    layer.parts["logits"].kernel.assign(4 * layer.parts["logits"].kernel)
    return layer


@pytest.mark.backend
def test_tokens_see_those_before_them_and_the_memory() -> None:
    layer, memory = decoder(), RNG.normal(size=(2, 4, 5)).astype("float32")
    layer(memory, training=True)
    labels = np.array([[0, 1, 2, 3], [2, 2, 3, 0]])
    first = ops.convert_to_numpy(layer.taught(labels))
    labels[0, 2], memory[1, 0] = 0, 9.0
    changed = ops.convert_to_numpy(layer.taught(labels))
    np.testing.assert_allclose(first[0, :3], changed[0, :3], atol=1e-5)
    assert np.abs(first[0, 3] - changed[0, 3]).max() > 1e-3
    layer(memory, training=True)
    again = ops.convert_to_numpy(layer.taught(labels))
    assert np.abs(first[1] - again[1]).max() > 1e-3
    # Places that are not there are not read.
    there = np.array([[1, 1, 1, 1], [0, 1, 1, 1]], "float32")
    layer([memory, there], training=True)
    masked = ops.convert_to_numpy(layer.taught(labels))
    memory[1, 0] = -5.0
    layer([memory, there], training=True)
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer.taught(labels)), masked, atol=1e-5
    )


@pytest.mark.backend
def test_greedy_and_beam_against_all_texts() -> None:
    """A beam as wide as there are texts finds the best of all; greedy takes each token
    in its turn. Scores along a text are those after its tokens as labels."""
    memory = RNG.normal(size=(4, 4, 5)).astype("float32")
    greedy, wide = decoder(), decoder(beam=40)
    wide.set_weights(greedy.get_weights())
    end = 3
    texts = [
        [*text, *[end] * (4 - size)]
        for size in range(4)
        for text in itertools.product(range(3), repeat=size)
    ]
    written = ops.convert_to_numpy(greedy(memory))
    found = ops.convert_to_numpy(texts_in(written))
    best = ops.convert_to_numpy(texts_in(wide(memory)))
    greedy(memory)
    every = []
    for text in texts:
        scores = greedy.taught(np.array([text] * 4))
        log = ops.convert_to_numpy(ops.log_softmax(scores))
        steps = min(text.index(end) + 1, 3)  # the last place is forced
        every.append(log[:, range(steps), text[:steps]].mean(axis=1))
    for row, place in enumerate(np.argmax(every, axis=0)):
        wanted = [token if token < end else -1 for token in texts[place][:3]]
        assert best[row].tolist() == wanted
    for row in range(4):
        given = [int(t) if t >= 0 else end for t in found[row]] + [end]
        scores = ops.convert_to_numpy(greedy.taught(np.array([given] * 4)))[row]
        size = int((found[row] >= 0).sum())
        steps = scores[: size + 1].argmax(-1)[:3]
        assert steps.tolist() == given[: min(size + 1, 3)]
        np.testing.assert_allclose(
            scores[: size + 1], written[row, : size + 1], atol=1e-5
        )


WORDS = ("w", "a", "b", "c")


@pytest.fixture(scope="module")
def trained():
    x = RNG.integers(1, 4, (240, 3))
    texts = [" ".join(WORDS[token] for token in row[::-1]) for row in x]
    texts[::8] = [None] * 30
    backwards = kmtl.TextGeneration.from_labels(
        "backwards",
        texts,
        units=16,
        blocks=1,
        heads=2,
        metrics=("accuracy", "perplexity", "bleu", "exact"),
    )
    tasks = [backwards, kmtl.BinaryClassification("first")]
    net = kmtl.backbones.Transformer(width=16, heads=2, blocks=1, vocabulary=5)
    model = kmtl.build(backbone=net, input_shape=(3,), tasks=tasks, seed=0)
    model.compile(keras.optimizers.Adam(0.01), weighting=None)
    y = {"backwards": texts, "first": (x[:, 0] == 1).astype(int)}
    history = model.fit(x, y, epochs=14, batch_size=40, verbose=0).history
    return model, x, y, history


@pytest.mark.thorough
@pytest.mark.backend
def test_learns_to_write_backwards(trained) -> None:
    model, x, y, history = trained
    assert history["backwards_accuracy"][-1] > 0.95 > history["backwards_accuracy"][0]
    assert np.isnan(history["backwards_bleu"]).all()
    scores = model.evaluate(x, y, return_dict=True, verbose=0)
    row = kmtl.evaluate(model, (x, y))["backwards"]
    assert row.labels > 0
    assert row.metrics["bleu"] == pytest.approx(scores["backwards_bleu"])
    assert scores["backwards_perplexity"] == pytest.approx(
        np.exp(scores["backwards_loss"]), rel=1e-5
    )
    said = model.task("backwards").decode(model.predict(x, verbose=0)["backwards"])
    right = [a == b for a, b in zip(said, y["backwards"], strict=True) if b is not None]
    assert np.mean(right) > 0.9
    assert scores["backwards_exact"] == pytest.approx(np.mean(right), abs=1e-6)
    missing = {**y, "backwards": [None] * len(x)}
    alone = model.evaluate(x, missing, return_dict=True, verbose=0)
    assert np.isnan(alone["backwards_loss"])
    assert alone["loss"] == pytest.approx(alone["first_loss"], rel=1e-5)


def test_data_sets_say_where_texts_end() -> None:
    pytest.importorskip("tensorflow")
    task = kmtl.TextGeneration(
        "said", tokens=3, length=3, units=8, blocks=1, heads=2, metrics=("accuracy",)
    )
    size = kmtl.Regression("size")
    model = kmtl.build_mlp(input_shape=(2,), tasks=[task, size], units=(4,), seed=0)
    model.compile("sgd", run_eagerly=keras.backend.backend() == "tensorflow")
    x = RNG.normal(size=(5, 2)).astype("float32")
    said = np.array([[0, 1, -1], [2, 2, 2], [-1, -1, -1], [0, -1, -1], [1, 0, -1]])
    y = {"said": said, "size": RNG.normal(size=5)}
    weights = {"said": np.array([1, 2, 1, 0, 0.5], "float32")}
    data = kmtl.data.from_arrays(
        x, y, tasks=[task, size], masks=weights, batch_size=3, shuffle=False
    )
    _, labels, masks = next(iter(data))
    assert labels["said"].numpy().tolist() == said[:3].tolist()
    assert masks["said"].numpy().tolist() == [1.0, 2.0, 0.0]
    found = model.evaluate(data, return_dict=True, verbose=0)
    wanted = model.evaluate(
        x, y, batch_size=3, sample_weight=weights, return_dict=True, verbose=0
    )
    assert found == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(ValueError, match="must be one per row"):
        kmtl.data.from_arrays(
            x, y, tasks=[task, size], masks={"said": np.ones((5, 3))}, batch_size=3
        )


@pytest.mark.thorough
def test_saved_and_exported(tmp_path) -> None:
    """Texts are strings in a SavedModel, written by a loop in its graph."""
    tf = pytest.importorskip("tensorflow")
    x = RNG.normal(size=(5, 3)).astype("float32")
    task = kmtl.TextGeneration(
        "t", labels=("a", "b"), length=3, units=8, blocks=1, heads=2
    )
    model = kmtl.build_mlp(input_shape=(3,), tasks=[task], units=(4,), seed=0)
    (scores,) = (w for w in model.weights if w.path.endswith("logits/kernel"))
    scores.assign(5 * scores)  # so that texts differ
    outputs = model.predict(x, verbose=0)["t"]
    said = task.decode(outputs)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.tasks == model.tasks
    np.testing.assert_allclose(loaded.predict(x, verbose=0)["t"], outputs, atol=1e-5)
    model.export(tmp_path / "saved", verbose=False)
    kept = tf.saved_model.load(str(tmp_path / "saved"))
    served = kept.serve(x)
    assert [text.decode() for text in served["t_text"].numpy()] == said
    found = ops.convert_to_numpy(texts_in(outputs))
    np.testing.assert_array_equal(served["t_decoded"], found)
    kmtl.verify_export(tmp_path / "saved", model, x)


@pytest.mark.thorough
@pytest.mark.backend
@pytest.mark.parametrize(
    "weighting", ["mgda", {"name": "pcgrad", "level": "parameters"}, "uncertainty"]
)
def test_balanced(weighting) -> None:
    """Feature level, parameter level, and weights of losses; a map as the memory."""
    x = RNG.random((8, 4, 4, 1)).astype("float32")
    tasks = [
        kmtl.TextGeneration("text", tokens=3, length=2, units=8, blocks=1, heads=2),
        kmtl.Regression("size"),
    ]
    model = kmtl.build_cnn(input_shape=(4, 4, 1), tasks=tasks, filters=(4,), seed=0)
    options = dict(weighting) if isinstance(weighting, dict) else {}
    if options:
        weighting = kmtl.weighting.PCGrad(level="parameters")
    model.compile("adam", weighting=weighting)
    y = {"text": [[0, 1], [2], [1, 1], None] * 2, "size": x.mean(axis=(1, 2, 3))}
    logs = model.fit(x, y, batch_size=8, epochs=2, verbose=0).history
    assert logs["text_loss"][1] < logs["text_loss"][0]


def test_labels() -> None:
    task = kmtl.TextGeneration("t", labels=("a", "b", "[UNK]"), length=3)
    wanted = [[0, 1, np.nan], [2, np.nan, np.nan], [np.nan] * 3]
    forms = (
        ["a b", "zebra", None],
        pandas.Series(["a b", "zebra", None], dtype="string"),
        [["a", "b"], ["x"], []],
        [[0, 1], [2], None],
        np.array([[0, 1], [2, -1], [-1, -1]]),
    )
    for form in forms:
        found = task.label_array(form)
        np.testing.assert_array_equal(np.where(found == -1, np.nan, found), wanted)
        clean, mask = task.clean_labels(found)
        assert ops.convert_to_numpy(clean).tolist() == [
            [0, 1, 3, 0],
            [2, 3, 0, 0],
            [0] * 4,
        ]
        assert ops.convert_to_numpy(mask).tolist() == [
            [1, 1, 1, 0],
            [1, 1, 0, 0],
            [0] * 4,
        ]
    assert np.isnan(task.label_array([None, None])).tolist() == [[True] * 3] * 2
    letters = kmtl.TextGeneration.from_labels("t", ["ba", "abc"], split="characters")
    assert (letters.labels, letters.length) == (("a", "b", "c"), 3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tokens": None}, TypeError, "from_labels"),
        ({"length": None}, TypeError, "must have `length`"),
        ({"units": 12, "heads": 4}, ValueError, r"multiple of 2 \* heads"),
        ({"labels": ("a", "a", "b")}, ValueError, "3 different tokens"),
        ({"class_weight": "balanced"}, ValueError, "`class_weight`"),
        ({"loss": keras.losses.MeanSquaredError()}, ValueError, "must be one of"),
        ({"split": "letters"}, ValueError, "split"),
    ],
)
def test_refused(options, error, message: str) -> None:
    with pytest.raises(error, match=message):
        kmtl.TextGeneration("t", **{"tokens": 3, "length": 2, **options})


def test_labels_that_do_not_fit_are_refused() -> None:
    task = kmtl.TextGeneration("t", labels=("a", "b"), length=2)
    with pytest.raises(ValueError, match=r"'\[UNK\]' among `labels`.*'c' in row 1"):
        task.label_array(["a", "a c"])
    with pytest.raises(ValueError, match="at most 2 steps"):
        task.label_array(["a b a"])
    with pytest.raises(ValueError, match="tokens from the left"):
        task.check_labels(np.array([[-1, 1]]))
    with pytest.raises(ValueError, match=r"integers in \[0, 1\]"):
        task.check_labels(np.array([[2, -1]]))
    with pytest.raises(ValueError, match="are texts: say what tokens"):
        kmtl.TextGeneration("t", tokens=2, length=2).label_array(["a"])
