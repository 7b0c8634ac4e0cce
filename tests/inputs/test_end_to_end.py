"""Photos, texts, token ids, series and sounds through a whole model's life."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.backbones import CNN, RNN, ConvNet1D, Transformer
from kmtl.inputs import Audio, Image, Series, Text, Tokens

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
ROWS = {
    "photo": [RNG.integers(0, 256, (6, 5, 3), dtype="uint8") for _ in range(4)],
    "words": ["Play some jazz!", "again", None, "play it, Sam; play it"],
    "ids": [[1, 2, 3, 4], [5], [6, 7], [2, 2, 2]],
    "series": [RNG.normal(size=(n, 2)) for n in (3, 1, 4, 2)],
    "sound": [RNG.uniform(-0.5, 0.5, n) for n in (700, 400, 800, 600)],
}
LABELS = {"kind": np.array([0, 1, 2, 1]), "size": np.array([1.0, 2.0, np.nan, 0.0])}
TASKS = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]


def inputs() -> dict[str, kmtl.inputs.Input]:
    kinds = {
        "photo": Image((6, 5, 3)),
        "words": Text(),
        "ids": Tokens(),
        "series": Series(),
        "sound": Audio(4000, bands=6),
    }
    return {name: kind.fit(ROWS[name]) for name, kind in kinds.items()}


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    net = {
        "photo": CNN(filters=(4,)),
        "words": ConvNet1D(filters=(4,), embedding=4),
        "ids": Transformer(width=4, heads=2, blocks=1),
        "series": RNN(units=(4,), bidirectional=False),
        "sound": ConvNet1D(filters=(4,), kernel_size=3),
    }
    made = kmtl.build(inputs=inputs(), backbone=net, tasks=TASKS, seed=0)
    made.compile("sgd")
    before = [ops.convert_to_numpy(v) for v in made.trainable_variables]
    logs = made.fit(ROWS, LABELS, batch_size=4, verbose=0).history
    assert np.isfinite(logs["loss"][0])
    for variable, old in zip(made.trainable_variables, before, strict=True):
        moved = (ops.convert_to_numpy(variable) != old).any()
        assert moved, f"no gradient reaches {variable.path}"
    return made


def close(found, expected) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


def test_rows_as_users_have_them(model) -> None:
    expected = model.predict(ROWS, verbose=0)
    ready = {
        name: spec.prepare(ROWS[name], "`x`")
        for name, spec in model.input_specs.items()
    }
    close(model.predict(ready, verbose=0), expected)
    turned = {"customer": [7, 8, 9, 10], **dict(reversed(ROWS.items()))}
    close(model.predict(turned, verbose=0), expected)
    two = {name: rows[2:] for name, rows in ROWS.items()}
    close(model.predict(two, verbose=0), {k: v[2:] for k, v in expected.items()})
    logs = model.evaluate(ROWS, LABELS, return_dict=True, verbose=0)
    right = expected["kind"].argmax(-1) == LABELS["kind"]
    assert logs["kind_accuracy"] == pytest.approx(right.mean())
    lacking = {name: rows for name, rows in ROWS.items() if name != "words"}
    with pytest.raises(ValueError, match=r"lacks input 'words'"):
        model.predict(lacking, verbose=0)
    with pytest.raises(TypeError, match=r"`x\['photo'\]` must hold photos"):
        model.predict({**ROWS, "photo": ROWS["words"][:2] * 2}, verbose=0)


def test_saved_and_loaded(model, tmp_path) -> None:
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = kmtl.load_model(path)
    assert loaded.input_specs == model.input_specs
    close(loaded.predict(ROWS, verbose=0), model.predict(ROWS, verbose=0))


def test_an_export_takes_rows_as_users_have_them(model, tmp_path) -> None:
    """Strings, waves, ragged rows padded by whoever asks; on either backend."""
    tf = pytest.importorskip("tensorflow")
    model.export(tmp_path / "served", outputs="logits")
    served = tf.saved_model.load(str(tmp_path / "served"))
    series = np.full((4, 5, 2), np.nan, "float32")
    for place, row in zip(series, ROWS["series"], strict=True):
        place[: len(row)] = row
    sound = np.zeros((4, 900), "float32")
    for place, row in zip(sound, ROWS["sound"], strict=True):
        place[: len(row)] = row
    raw = {
        "photo": np.stack(ROWS["photo"]),
        "words": np.array([text or "" for text in ROWS["words"]]),
        "ids": np.array([row + [0] * (6 - len(row)) for row in ROWS["ids"]], "int32"),
        "series": series,
        "sound": sound,
    }
    tensors = {name: tf.constant(value) for name, value in raw.items()}
    found = served.signatures["serving_default"](**tensors)
    close({k: v.numpy() for k, v in found.items()}, model.predict(ROWS, verbose=0))


def test_a_trunk_without_sequences_reads_bags_of_words() -> None:
    words = {"words": inputs()["words"]}
    model = kmtl.build(
        inputs=words, backbone=kmtl.backbones.MLP(units=(4,)), tasks=TASKS, seed=0
    )
    one, other = (
        model.predict({"words": [text]}, verbose=0)["size"]
        for text in ("play some jazz", "jazz some play")
    )
    np.testing.assert_allclose(one, other, rtol=1e-6)
    # As the plain model does, in a compiled step too.
    ids = words["words"].prepare(ROWS["words"], "`x`")
    expected = model.predict(ids, verbose=0)
    close(model.to_keras(activated=False).predict(ids, verbose=0), expected)
    # A data set of strings is cut into tokens batch by batch.
    tf = pytest.importorskip("tensorflow")
    texts = np.array([text or "" for text in ROWS["words"]])
    data = tf.data.Dataset.from_tensor_slices({"words": texts}).batch(3)
    close(model.predict(data, verbose=0), expected)


def test_a_sound_as_a_map() -> None:
    sound = Audio(4000, bands=6, give="map").fit(ROWS["sound"])
    model = kmtl.build(
        inputs={"sound": sound}, backbone=CNN(filters=(3,)), tasks=TASKS, seed=0
    )
    assert model.predict(ROWS["sound"], verbose=0)["size"].shape == (4, 1)
