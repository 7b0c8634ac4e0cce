"""Texts and token ids: against Keras' own layers, and what is refused."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pytest

import kmtl
from kmtl.inputs import Text, Tokens, strings
from kmtl.inputs.text import SALT

TEXTS = [
    "Play some jazz, please!",
    "play   the\tnew song -- again",
    "ÄRGER über it's (odd) tags [x]",
    "",
    "B b A a c",
]
on_both = pytest.mark.backend


@pytest.mark.parametrize("split", ["word", "character"])
@pytest.mark.parametrize("standardize", strings.STANDARDS)
def test_is_text_vectorization(split: str, standardize: str | None) -> None:
    """Vocabulary and ids, of the host and of what is served."""
    tf = pytest.importorskip("tensorflow")
    layer = keras.layers.TextVectorization(
        standardize=standardize,
        split="whitespace" if split == "word" else "character",
        max_tokens=30,
        output_sequence_length=9,
    )
    layer.adapt(TEXTS)
    spec = Text(9, split=split, standardize=standardize, max_tokens=30).fit(TEXTS)
    assert ["", "[UNK]", *spec.vocabulary] == layer.get_vocabulary()
    others = [*TEXTS, "an UNKNOWN song!", "c\nb\x0ba"]
    expected = np.asarray(layer(others))
    np.testing.assert_array_equal(spec.prepare(others, "`x`"), expected)
    served = spec.serve({"x": tf.constant(others)})
    np.testing.assert_array_equal(served, expected)


def test_hashed_is_keras_hashing() -> None:
    tf = pytest.importorskip("tensorflow")
    spec = Text(6, hashed=50, standardize=None)
    assert spec.fitted
    assert spec.tokens == 51
    words = ["play", "some", "jazz", "ÄRGER", "a-much-longer-word-than-eight", "b"]
    layer = keras.layers.Hashing(51, mask_value="", salt=[SALT, SALT])
    expected = np.asarray(layer(np.array([words])))
    found = spec.prepare([" ".join(words)], "`x`")
    np.testing.assert_array_equal(found, expected)
    served = spec.serve({"x": tf.constant([" ".join(words)])})
    np.testing.assert_array_equal(served, expected)


@on_both
def test_the_hash_is_that_of_its_paper() -> None:
    """The example of appendix A."""
    key = bytes(range(16))
    keys = (int.from_bytes(part, "little") for part in (key[:8], key[8:]))
    assert strings.siphash(bytes(range(15)), *keys) == 0xA129CA6149BE45E5


@on_both
def test_texts_of_every_form() -> None:
    pandas = pytest.importorskip("pandas")
    spec = Text().fit(TEXTS)
    expected = spec.prepare(["play jazz", ""], "`x`")
    for given in (
        ("play jazz", None),
        [b"play jazz", float("nan")],
        np.array([["play jazz"], [""]]),
        pandas.Series(["play jazz", pandas.NA]),
        pandas.Series(["play jazz", None], dtype="string"),
        pandas.Series(["play jazz", None], dtype="category"),
        pandas.Categorical(["play jazz", None]),
        pandas.DataFrame({"said": ["play jazz", None]}),
        pandas.DataFrame({"said": ["play jazz", None]}, dtype="category"),
    ):
        np.testing.assert_array_equal(spec.prepare(given, "`x`"), expected)


def test_a_frame_of_several_columns_is_no_text() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"said": ["a"], "by": ["b"]})
    with pytest.raises(
        ValueError, match=r"give one column.*Received: columns said, by"
    ):
        Text().fit(frame)


def test_served_ids_are_those_that_predict_takes() -> None:
    tf = pytest.importorskip("tensorflow")
    spec = Tokens().fit([[1, 4]])
    for bad in ([[1, 5]], [[-1, 2]], [[1, 1, 9]]):
        with pytest.raises(ValueError, match=r"whole numbers in \[0, 4\]"):
            spec.prepare(bad, "`x`")
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"'x' must hold whole.*\[0, 4\]"
        ):
            spec.serve({"x": tf.constant(bad)})


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int):
        return {"t": TEXTS[:4]}, {"y": np.arange(4.0)}


@on_both
def test_lists_of_texts_in_data_sets() -> None:
    inputs = {"t": Text().fit(TEXTS)}
    model = kmtl.build(
        inputs=inputs, backbone="mlp", tasks=[kmtl.Regression("y")], seed=0
    )
    model.compile("adam")
    model.fit(Batches(), verbose=0)
    batch = Batches()[0]
    model.fit(iter([batch] * 3), steps_per_epoch=2, verbose=0)
    expected = model.evaluate(*batch, verbose=0, return_dict=True)
    found = model.evaluate(Batches(), verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)


@on_both
def test_tokens_of_punctuation_alone_keep_their_place_where_asked() -> None:
    counts = {"lower_and_strip_punctuation": 2, "strip_punctuation": 2}
    for standardize, count in {**counts, "lower": 4, None: 4}.items():
        assert Text(standardize=standardize).fit(["Well , Bonn ."]).length == count


def test_rare_tokens_stand_for_the_unknown() -> None:
    spec = Text(min_count=2).fit(["a b b", "a c", "a"])
    assert spec.vocabulary == ("a", "b")
    assert spec.prepare(["c a d"], "`x`").tolist() == [[1, 2, 1]]
    assert Text(max_tokens=3).fit(["a b b"]).vocabulary == ("b",)


@on_both
@pytest.mark.parametrize(
    ("spec", "rows"),
    [
        (Text(2).fit(["a b"]), ["a b a", "a b"]),
        (Tokens(9, 2), [[1, 2, 3], [1, 2]]),
    ],
    ids=["text", "tokens"],
)
def test_what_is_too_long_is_said_once(spec, rows, caplog) -> None:
    with caplog.at_level(logging.WARNING, "kmtl"):
        found = spec.prepare(rows, "`x`")
        assert found[0].tolist() == found[1].tolist()
        spec.prepare(rows, "`x`")
    (record,) = caplog.records
    assert "`x` holds 1" in record.getMessage()
    assert "more than 2 tokens" in record.getMessage()


@on_both
def test_refusals() -> None:
    text, ids = Text().fit(TEXTS), Tokens().fit([[1, 4]])
    for call, message in (
        (lambda: text.prepare([1.5], "`x`"), r"`x` must hold texts.* 1\.5 in row 0"),
        (lambda: text.prepare("one", "`x`"), r"must be a sequence of texts"),
        (
            lambda: Text().fit([np.zeros((4, 4, 3))] * 2),
            r"must hold texts.*Image.*an array of shape \(4, 4, 3\) in row 0",
        ),
        (lambda: text.prepare([["a", "b"]], "`x`"), r"must hold texts.*\['a', 'b'\]"),
        (lambda: text.prepare(np.ones((2, 3)), "`x`"), r"one text per row"),
        (lambda: Text().fit(["", " "]), r"must hold tokens.*2 texts without any"),
        (lambda: Text(min_count=2).fit(["a"]), r"`min_count` leaves no token"),
        (lambda: Text(vocabulary=("a", "a")), r"`vocabulary` must hold distinct"),
        (lambda: Text(hashed=3, vocabulary=("a",)), r"exclude each other"),
        (lambda: Text().tokens, r"must be fitted on the training texts"),
        (lambda: ids.prepare([[1], [5]], "`x`"), r"whole numbers in \[0, 4\].*row 1"),
        (lambda: ids.prepare([[1.5]], "`x`"), r"whole numbers in.*1\.5 in row 0"),
        (lambda: ids.prepare(["a b"], "`x`"), r"use kmtl\.inputs\.Text.*'a b'"),
        (lambda: ids.prepare([[[1]]], "`x`"), r"rows of token ids"),
        (lambda: Tokens().fit([[], [0]]), r"must hold ids.*2 empty rows"),
        (lambda: Tokens(5, padding=7), r"`padding` must be"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    with pytest.raises(ValueError, match=r"must be fitted.*Text\(\.\.\.\)\.fit"):
        kmtl.build(inputs={"t": Text()}, backbone="rnn", tasks=[kmtl.Regression("y")])
    net = kmtl.backbones.RNN(vocabulary=3)
    with pytest.raises(ValueError, match=r"`vocabulary` of backbone 'rnn'"):
        kmtl.build(inputs={"t": text}, backbone=net, tasks=[kmtl.Regression("y")])


@on_both
def test_padding_of_another_id() -> None:
    spec = Tokens(padding=3).fit([[0, 1, 2], [1]])
    assert spec.tokens == 4
    found = spec.prepare(np.array([[1, 0, 3], [3, 3, 3]]), "`x`")
    assert found.tolist() == [[1, 0, 3], [3, 3, 3]]
    inputs = {"t": spec}
    tasks = [kmtl.Regression("y")]
    model = kmtl.build(inputs=inputs, backbone="mlp", tasks=tasks)
    bag = keras.Model(model.input, model.get_layer("t_input_bag").output)(found)
    counts = np.log1p([[1, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(bag, counts, rtol=1e-6)
