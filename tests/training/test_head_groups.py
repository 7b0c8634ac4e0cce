"""Heads made as one layer come to what single heads with the same weights come to."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import pytest

import kmtl
from kmtl.tasks import head_groups
from kmtl.training import alike

ROWS = 10
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 4)).astype("float32")
TASKS = [
    kmtl.Regression("size0", transform="standardize"),
    kmtl.Classification("kind0", classes=3),
    kmtl.Regression("width", hidden=(3,)),
    kmtl.Regression("size1", transform="standardize", weight=2.0),
    kmtl.Classification("kind1", classes=3),
]
Y = {
    "size0": RNG.normal(size=ROWS),
    "kind0": RNG.integers(-1, 3, ROWS),
    "width": RNG.normal(size=ROWS),
    "size1": 100 + RNG.normal(size=ROWS),
    "kind1": np.full(ROWS, -1),  # a task that is absent
}


def build(
    fewest: int, tasks: list = TASKS, seed: int | None = 0
) -> kmtl.MultiTaskModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_groups, "FEWEST", fewest)
        return kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(5,), seed=seed)


def compiled(model: kmtl.MultiTaskModel, **options: object) -> kmtl.MultiTaskModel:
    eagerly = keras.backend.backend() == "tensorflow"
    optimizer = keras.optimizers.Adam(0.1, weight_decay=0.01)
    model.compile(optimizer, run_eagerly=eagerly, **options)
    model.adapt_targets({"size0": Y["size0"], "size1": Y["size1"]})
    return model


@pytest.fixture(autouse=True)
def few() -> Iterator[None]:
    """Two tasks are enough for losses as one, where a model is compiled so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike, "FEWEST", 2)
        yield


def heads(model: kmtl.MultiTaskModel) -> dict[str, np.ndarray]:
    return {
        f"{layer.name} {i}": value
        for layer in model.layers
        if "_head_" in layer.name
        for i, value in enumerate(layer.get_weights())
    }


def same(found: dict, wanted: dict) -> None:
    assert list(found) == list(wanted)
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, 2e-5, 1e-6, err_msg=key)


@pytest.mark.backend
@pytest.mark.parametrize(
    "weighting",
    [None, "mgda", pytest.param("gradnorm", marks=pytest.mark.thorough)],
)
def test_steps_are_those_of_single_heads(weighting: str | None) -> None:
    single, grouped = build(99), build(2)
    assert len(grouped.trainable_variables) == len(single.trainable_variables) - 4
    same(heads(grouped), heads(single))  # drawn as single ones are
    for model in (single, grouped):
        compiled(model, weighting=weighting)
    for _ in range(2):
        logs = [
            model.train_on_batch(X, Y, return_dict=True) for model in (single, grouped)
        ]
        same(logs[1], logs[0])
    same(heads(grouped), heads(single))
    same(grouped.predict(X, verbose=0), single.predict(X, verbose=0))
    same(
        grouped.evaluate(X, Y, return_dict=True, verbose=0),
        single.evaluate(X, Y, return_dict=True, verbose=0),
    )


def test_files_have_single_heads(tmp_path) -> None:
    single, grouped = build(99), build(2, seed=None)
    single.save_weights(tmp_path / "single.weights.h5")
    grouped.load_weights(tmp_path / "single.weights.h5")
    same(heads(grouped), heads(single))
    again = build(2, seed=None)
    grouped.save_weights(tmp_path / "grouped.weights.h5")
    again.load_weights(tmp_path / "grouped.weights.h5")
    same(heads(again), heads(single))
    compiled(grouped).save(tmp_path / "model.keras")
    loaded = kmtl.load_model(tmp_path / "model.keras")
    same(heads(loaded), heads(single))
    plain = grouped.to_keras()
    assert {type(layer).__module__.split(".")[0] for layer in plain.layers} == {"keras"}
    wanted = grouped(X)
    for name, output in plain(X).items():
        np.testing.assert_allclose(output, wanted[name], 1e-5, 1e-6)


def test_a_task_more_and_a_task_less() -> None:
    model = build(2)
    wanted = model(X)
    less = kmtl.remove_task(model, "kind1")
    outputs = less(X)
    same(outputs, {name: wanted[name] for name in outputs})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_groups, "FEWEST", 2)
        more = kmtl.add_task(less, kmtl.Classification("kind2", classes=3))
        again = kmtl.add_task(
            less, kmtl.Classification("kind2", classes=3), freeze=False
        )
    assert not more.head_groups
    assert again.head_groups
    assert "kind2" not in more.frozen
    assert "kind0" in more.frozen
    for made in (more, again):
        outputs = made(X)
        for name in less.task_names:
            np.testing.assert_allclose(outputs[name], wanted[name], 1e-5, 1e-6)


def test_heads_of_one_layer_are_frozen_together() -> None:
    model = build(2)
    with pytest.raises(ValueError, match=r"kmtl\.ungrouped"):
        model.freeze("size0")
    model.freeze("size0", "size1")
    assert model.frozen == ("size0", "size1")
    model.unfreeze()
    model.freeze("trunk")
    assert model.frozen == ("trunk", "block_1")
    apart = kmtl.ungrouped(model)
    apart.freeze("size0")
    assert apart.frozen == ("trunk", "block_1", "size0")
    same(heads(apart), heads(model))


def test_rates_are_those_of_the_tasks() -> None:
    model = build(2)
    before = heads(model)
    optimizer = keras.optimizers.SGD(0.1)
    model.compile(optimizer, lr_multipliers={"size1": 0.0}, run_eagerly=True)
    model.adapt_targets({"size0": Y["size0"], "size1": Y["size1"]})
    model.train_on_batch(X, Y)
    after = heads(model)
    moved = {key for key in before if not np.array_equal(before[key], after[key])}
    assert "size1_head_logits 0" not in moved
    assert "size0_head_logits 0" in moved
    assert "kind1_head_logits 0" not in moved  # no labels
