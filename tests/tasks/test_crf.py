"""Tags with a conditional random field, against all sequences one by one."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.losses import chains

pytestmark = pytest.mark.backend

ROWS, STEPS, CLASSES = 4, 5, 3
RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(ROWS, STEPS, CLASSES)).astype("float32")
MOVES = RNG.normal(size=(CLASSES, CLASSES)).astype("float32")
FIRST, LAST = RNG.normal(size=(2, CLASSES)).astype("float32")
# Padded behind, not at all, with a hole, and to nothing.
THERE = np.array([[1, 1, 1, 0, 0], [1] * 5, [1, 0, 1, 1, 0], [0] * 5], "float32")
LABELS = RNG.integers(0, CLASSES, (ROWS, STEPS))
#: Labels that are missing: the later pieces of a word.
KNOWN = np.array([[1, 0, 1, 0, 0], [1, 1, 0, 1, 1], [0, 0, 0, 1, 0], [0] * 5])


def sequences(row: int) -> list[tuple[tuple[int, ...], float]]:
    """All sequences of the steps that are there, and their scores."""
    steps = np.flatnonzero(THERE[row])
    found = []
    for tags in itertools.product(range(CLASSES), repeat=len(steps)):
        score = sum(
            SCORES[row, step, tag] for step, tag in zip(steps, tags, strict=True)
        )
        score += sum(MOVES[a, b] for a, b in itertools.pairwise(tags))
        if tags:
            score += FIRST[tags[0]] + LAST[tags[-1]]
        found.append((tags, float(score)))
    return found


def chain() -> chains.Chain:
    parts = (SCORES, THERE, MOVES, FIRST, LAST)
    return chains.Chain(*map(ops.convert_to_tensor, parts))


def expected_losses() -> np.ndarray:
    """-log p of the labels that are known, over their number."""
    losses = np.zeros(ROWS)
    for row in range(ROWS):
        steps = np.flatnonzero(THERE[row])
        known = KNOWN[row][steps] > 0
        right, total = 0.0, 0.0
        for tags, score in sequences(row):
            total += np.exp(score)
            if (np.array(tags)[known] == LABELS[row][steps][known]).all():
                right += np.exp(score)
        losses[row] = -np.log(right / total) / max(known.sum(), 1)
    return losses


def test_loss_is_that_of_all_sequences() -> None:
    found = chains.chain_loss(LABELS, chain(), KNOWN)
    wanted = np.repeat(expected_losses()[:, None], STEPS, axis=1)
    assert wanted[:3].min() > 0.01
    assert wanted[3, 0] == 0
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    again = chains.unpacked(chains.packed(chain()))
    for one, other in zip(again, chain(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_outputs_are_the_best_sequence_through_each_class() -> None:
    layer = kmtl.layers.ChainField("tags", classes=CLASSES)
    layer.build([(None, STEPS, CLASSES), (None, STEPS)])
    layer.set_weights([MOVES, FIRST, LAST])
    found = ops.convert_to_numpy(layer([SCORES, THERE]))
    decoded = kmtl.Tagging("tags", classes=CLASSES, crf=True).decoded(found)
    decoded = ops.convert_to_numpy(decoded)
    for row in range(ROWS):
        every = sequences(row)
        best, top = max(every, key=lambda pair: pair[1])
        steps = np.flatnonzero(THERE[row])
        wanted = np.zeros((STEPS, CLASSES))
        for place, step in enumerate(steps):
            for tag in range(CLASSES):
                through = [score for tags, score in every if tags[place] == tag]
                wanted[step, tag] = max(through) - top
        np.testing.assert_allclose(found[row], wanted, atol=1e-5)
        assert decoded[row][steps].tolist() == list(best)
        assert (decoded[row][THERE[row] == 0] == -1).all()


def test_padding_changes_nothing() -> None:
    """Whatever stands behind the last step, and however much of it."""
    other = np.where(THERE[..., None] > 0, SCORES, 7.0).astype("float32")
    longer = np.pad(other, ((0, 0), (0, 2), (0, 0)), constant_values=-3.0)
    given = chain()._replace(steps=ops.convert_to_tensor(longer))
    given = given._replace(there=ops.convert_to_tensor(np.pad(THERE, ((0, 0), (0, 2)))))
    wide = [np.pad(part, ((0, 0), (0, 2))) for part in (LABELS, KNOWN)]
    found = chains.chain_loss(wide[0], given, wide[1])
    wanted = chains.chain_loss(LABELS, chain(), KNOWN)
    np.testing.assert_allclose(found[:, :STEPS], wanted, rtol=1e-6)
    best = chains.best_through(given)[:, :STEPS]
    np.testing.assert_allclose(best, chains.best_through(chain()), atol=1e-6)


BIO = ("O", "B-a", "I-a", "B-b", "I-b")


@pytest.fixture(scope="module")
def trained():
    """What is inside a span only its first word tells, which a linear head on single
    words cannot know, and neighbours can."""
    rng = np.random.default_rng(0)
    x = np.zeros((200, 8), "int32")
    tags = []
    for row, length in enumerate(rng.integers(4, 9, 200)):
        own: list[str] = []
        while len(own) < length:
            kind = rng.choice(["a", "b"])
            own += ["O"] * rng.integers(0, 2) + [f"B-{kind}"] + [f"I-{kind}"] * 2
        tags.append(own[:length])
        words = {"O": 1, "B-a": 2, "B-b": 3, "I-a": 4, "I-b": 4}
        x[row, :length] = [words[tag] for tag in tags[-1]]
    slots = kmtl.Tagging(
        "slots", labels=BIO, length=8, crf=True, metrics=("span_f1", "accuracy")
    )
    tasks = [slots, kmtl.BinaryClassification("intent")]
    net = kmtl.backbones.ConvNet1D(
        filters=(8,), kernel_size=1, pooling=None, vocabulary=5, embedding=4
    )
    model = kmtl.build(backbone=net, input_shape=(8,), tasks=tasks, seed=0)
    model.compile(keras.optimizers.Adam(0.05))
    y = {"slots": tags, "intent": (x[:, 0] == 1).astype(int)}
    model.fit(x, y, epochs=8, batch_size=50, verbose=0)
    return model, x, y


@pytest.mark.thorough(on="jax")
def test_neighbours_tell_what_words_do_not(trained, tmp_path) -> None:
    model, x, y = trained
    scores = model.evaluate(x, y, return_dict=True, verbose=0)
    assert scores["slots_span_f1"] > 0.95
    outputs = model.predict(x, verbose=0)
    path = ops.convert_to_numpy(model.task("slots").decoded(outputs["slots"]))
    assert (path[x == 0] == -1).all()
    assert (path[x > 0] >= 0).all()
    flat = [BIO.index(tag) for row in y["slots"] for tag in row]
    assert scores["slots_accuracy"] == pytest.approx((path[x > 0] == flat).mean())
    moves = next(v for v in model.trainable_variables if v.path.endswith("moves"))
    moves = ops.convert_to_numpy(moves)
    assert moves[1, 2] > moves[1, 4]
    assert moves[3, 4] > moves[3, 2]
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.task("slots") == model.task("slots")
    for name, output in loaded.predict(x, verbose=0).items():
        np.testing.assert_array_equal(output, outputs[name])


@pytest.mark.thorough(on="jax")
def test_padded_sentences_are_those_that_are_not(trained) -> None:
    """A sentence alone, without its padding, has the same tags."""
    model, x, y = trained
    row = int(np.flatnonzero((x > 0).sum(1) == 5)[0])
    report = model.loss_report(
        x[row : row + 1], {"slots": [y["slots"][row]], "intent": [0]}
    )
    layer = next(la for la in model.layers if isinstance(la, kmtl.layers.ChainField))
    scores = keras.Model(model.input, layer.input[0]).predict(
        x[row : row + 1], verbose=0
    )
    weights = [ops.convert_to_tensor(w) for w in layer.get_weights()]
    short = chains.Chain(scores[:, :5], ops.ones((1, 5)), *weights)
    labels = np.array([[BIO.index(tag) for tag in y["slots"][row]]])
    alone = chains.chain_loss(labels, short, np.ones((1, 5)))
    assert report["slots"]["loss"] == pytest.approx(float(alone[0, 0]), rel=1e-4)


@pytest.mark.thorough(on="jax")
def test_the_path_is_exported(trained, tmp_path) -> None:
    model, x, _ = trained
    model.export(tmp_path / "saved", verbose=False)
    kmtl.verify_export(tmp_path / "saved", model, x[:4])
    tf = pytest.importorskip("tensorflow")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))  # keeps its variables
    served = loaded.serve(x[:9])
    outputs = model.predict(x[:9], verbose=0)["slots"]
    path = model.task("slots").decoded(outputs)
    np.testing.assert_array_equal(served["slots_decoded"], ops.convert_to_numpy(path))
    np.testing.assert_allclose(
        served["slots"], ops.convert_to_numpy(ops.softmax(outputs)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "focal"}, "must be 'crf' with `crf=True`"),
        ({"loss": {"crf": 1, "focal": 1}}, "must be 'crf' with `crf=True`"),
        ({"crf": False, "loss": "crf"}, "must be 'crf' with `crf=True`"),
        ({"class_weight": {0: 2.0}}, "`class_weight`.*must be None"),
        ({"label_smoothing": 0.1}, "cross_entropy"),
        ({"metrics": "cross_entropy"}, "may not have 'cross_entropy'"),
    ],
)
def test_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kmtl.Tagging("t", **{"classes": 3, "crf": True, **options})


def test_heads_that_do_not_fit_are_refused() -> None:
    tags = kmtl.Tagging("t", classes=3, crf=True)
    with pytest.raises(ValueError, match="builders make"):
        tags.loss_values(LABELS, SCORES)
    inputs = keras.Input((STEPS, CLASSES))
    outputs = {"t": kmtl.TaskOutput(tags)(inputs)}
    with pytest.raises(ValueError, match="a head that the builders make"):
        kmtl.MultiTaskModel(inputs, outputs)
    net = kmtl.backbones.ConvNet1D(filters=(4,), pooling=None)
    with pytest.raises(ValueError, match="sequences of one length"):
        kmtl.build(backbone=net, input_shape=(None, 2), tasks=[tags])


@pytest.mark.thorough
def test_the_contract_of_tasks() -> None:
    tags = kmtl.Tagging("t", labels=("O", "B-a", "I-a"), crf=True)
    x = RNG.normal(size=(6, STEPS, 2)).astype("float32")
    kmtl.testing.check_task(tags, RNG.integers(0, 3, (6, STEPS)), x)
