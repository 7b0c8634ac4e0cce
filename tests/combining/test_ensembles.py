"""Ensembles that are trained as such, and the one model that comes out."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy import special

import kmtl
from kmtl.combining import boosting, out_of_bag
from kmtl.training import targets
from kmtl.training.batches import ShuffledBatches

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 3)).astype("float32")
Y = {
    "kind": (X[:, 0] > 0).astype("int32") + (X[:, 1] > 1),
    "flag": (X[:, 2] > 0).astype("int32"),
    "size": 100 + 10 * X[:, :2] @ np.array([1.0, -2.0]),
}
Y["kind"][:6] = -1
Y["size"][4:9] = np.nan


def tasks() -> list:
    return [
        kmtl.Classification("kind", classes=3),
        kmtl.BinaryClassification("flag", metrics=("accuracy",)),
        kmtl.Regression("size", transform="standardize"),
    ]


def train(method: str, **options):
    return kmtl.ensemble(
        kmtl.build_mlp, (X, Y), method=method, tasks=tasks(), input_shape=(3,),
        **{"units": (4,), "members": 2, "epochs": 2, "batch_size": 20, **options},
    )  # fmt: skip


@pytest.fixture(scope="module")
def bagged():
    return train("bagging", seed=5)


@pytest.fixture(scope="module")
def boosted():
    rule, eagerly = keras.optimizers.Adam(0.05), {"run_eagerly": True}
    return train("boosting", epochs=6, optimizer=rule, compile_options=eagerly)


def bag(seed: int) -> np.ndarray:
    return np.random.default_rng((seed, 0x0BA6)).integers(0, len(X), len(X))


def test_a_bagged_member_is_that_training_alone(bagged) -> None:
    model = kmtl.build_mlp(input_shape=(3,), tasks=tasks(), units=(4,), seed=6)
    model.compile("adam")
    model.adapt_targets({"size": Y["size"]})
    rows = bag(6)
    own = {name: labels[rows] for name, labels in Y.items()}
    batches = ShuffledBatches(X[rows], own, batch_size=20, seed=6)
    history = model.fit(batches, epochs=2, shuffle=False, verbose=0).history
    for one, other in zip(model.layers, bagged.members[1].layers, strict=True):
        for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
    np.testing.assert_allclose(history["loss"], bagged.histories[1]["loss"], rtol=1e-4)


def test_the_model_is_the_mean(bagged, tmp_path) -> None:
    answers = [member.predict(X, verbose=0) for member in bagged.members]
    mean = bagged.model.predict(X, verbose=0)
    sizes = [answer["size"] for answer in answers]
    np.testing.assert_allclose(mean["size"], np.mean(sizes, axis=0), rtol=1e-5)
    kinds = [special.softmax(answer["kind"], -1) for answer in answers]
    np.testing.assert_allclose(
        special.softmax(mean["kind"], -1), np.mean(kinds, axis=0), atol=1e-5
    )
    spread = bagged.spread(X)
    np.testing.assert_allclose(spread["size"], np.std(sizes, axis=0), rtol=1e-3)
    np.testing.assert_allclose(spread["kind"], np.std(kinds, axis=0), atol=1e-5)
    bagged.model.save(tmp_path / "model.keras")
    loaded = kmtl.load_model(tmp_path / "model.keras")
    again = loaded.predict(X, verbose=0)
    np.testing.assert_allclose(again["size"], mean["size"], rtol=1e-5)


@pytest.mark.thorough(on="jax")
def test_out_of_bag_rows_are_judged_by_those_who_have_not_seen_them(bagged) -> None:
    unseen = np.array([~np.isin(np.arange(len(X)), bag(seed)) for seed in (5, 6)])
    sizes = np.stack([m.predict(X, verbose=0)["size"][:, 0] for m in bagged.members])
    here = unseen.any(0) & ~np.isnan(Y["size"])
    means = (sizes * unseen).sum(0)[here] / unseen.sum(0)[here]
    wanted = np.abs(means - Y["size"][here]).mean()
    np.testing.assert_allclose(bagged.out_of_bag["size"].score, wanted, rtol=1e-4)
    assert bagged.out_of_bag["size"].labels == here.sum()
    # In the scale that members learn in, as every other evaluation's.
    scaled = (means - Y["size"][here]) / np.nanstd(Y["size"])
    np.testing.assert_allclose(
        bagged.out_of_bag["size"].loss, np.mean(scaled**2), rtol=1e-4
    )
    everything = [np.arange(len(X))] * 2
    assert out_of_bag.evaluate(bagged.members, everything, (X, Y)) is None


@pytest.mark.thorough
def test_a_table_with_the_spread(bagged) -> None:
    table = bagged.evaluate((X, Y))
    assert table.index.tolist() == [
        "member 1",
        "member 2",
        "mean",
        "spread",
        "ensemble",
    ]
    own = table["size mae"].iloc[:2]
    assert table.loc["mean", "size mae"] == pytest.approx(own.mean())
    assert table.loc["spread", "size mae"] == pytest.approx(own.std())


@pytest.mark.thorough(on="jax")
def test_snapshots_are_taken_at_the_end_of_each_cycle() -> None:
    eagerly = {"run_eagerly": True}
    rule = keras.optimizers.SGD(0.1)
    found = train("snapshot", epochs=4, optimizer=rule, compile_options=eagerly)
    model = kmtl.build_mlp(input_shape=(3,), tasks=tasks(), units=(4,), seed=0)
    model.compile(keras.optimizers.SGD(0.1), **eagerly)
    ends = []
    for epoch, rate in enumerate([0.1, 0.05, 0.1, 0.05]):  # cosine at 0 and one half
        model.optimizer.learning_rate = rate
        batches = ShuffledBatches(X, Y, batch_size=20, first_epoch=epoch)
        model.fit(batches, shuffle=False, verbose=0)
        if epoch % 2:
            ends.append(model.predict(X, verbose=0)["size"])
    for member, wanted in zip(found.members, ends, strict=True):
        answer = member.predict(X, verbose=0)["size"]
        np.testing.assert_allclose(answer, wanted, rtol=1e-4)


def test_pseudo_residuals() -> None:
    logits = RNG.normal(size=(4, 3)).astype("float32")
    kinds = np.array([0, 1, 2, 0])
    found = boosting.pseudo_residuals(tasks()[0], kinds, logits)
    wanted = np.eye(3)[kinds] - special.softmax(logits, -1)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    values = np.array([[1.0], [4.0]], "float32")
    found = boosting.pseudo_residuals(kmtl.Regression("size"), values, values * 3)
    np.testing.assert_allclose(found, 2 * (values - 3 * values), rtol=1e-6)


def test_what_each_stage_of_boosting_learns(monkeypatch, caplog) -> None:
    """Against residuals by hand, of every kind and with missing labels."""
    monkeypatch.setattr(targets, "_USUAL", (10.0, 20.0))  # which no residual has
    seen = []

    class Noted(ShuffledBatches):
        def __init__(self, x, y, weights, **options):
            seen.append(y)
            super().__init__(x, y, weights, **options)

    monkeypatch.setattr(boosting, "ShuffledBatches", Noted)
    flag = Y["flag"].copy()
    flag[40:] = -1
    tags = (RNG.uniform(size=(48, 2)) < 0.3).astype("float32")
    tags[3, 1] = tags[5] = np.nan
    labels = {"kind": Y["kind"], "flag": flag, "size": Y["size"], "tags": tags}
    run = kmtl.ensemble(
        kmtl.build_mlp, (X, labels),
        tasks=[*tasks(), kmtl.MultiLabel("tags", classes=2)],
        method="boosting", members=2, epochs=1, batch_size=48, input_shape=(3,),
        units=(4,), optimizer=keras.optimizers.Adam(0.05),
        compile_options={"run_eagerly": True, "metrics": {"size": ["mse"]}},
    )  # fmt: skip
    assert "not at the scale" not in caplog.text
    first = run.members[0].predict(X, verbose=0)
    kind = Y["kind"]
    counts = np.bincount(kind[kind >= 0])
    start = {
        "kind": np.log(counts / counts.sum()),
        "flag": special.logit([flag[:40].mean()]),
        "size": np.nanmean(Y["size"], keepdims=True),
        "tags": special.logit(np.nanmean(tags, axis=0)),
    }
    for stage, outputs in enumerate((start, first)):
        there = np.eye(3)[kind] - special.softmax(outputs["kind"], -1)
        wanted = {
            "kind": np.where(kind[:, None] < 0, np.nan, there),
            "flag": np.where(flag < 0, np.nan, flag)[:, None]
            - special.expit(outputs["flag"]),
            "size": 2 * (Y["size"][:, None] - outputs["size"]),
            "tags": tags - special.expit(outputs["tags"]),
        }
        for name, residuals in wanted.items():
            np.testing.assert_allclose(
                seen[stage][name], residuals, rtol=1e-4, atol=1e-4, err_msg=name
            )
    # The user's metric is the sum's, in the labels' unit.
    error = np.nanmean((first["size"][:, 0] - Y["size"]) ** 2)
    np.testing.assert_allclose(run.histories[0]["sum_size_mse"], [error], rtol=1e-4)


@pytest.mark.thorough(on="jax")
def test_out_of_bag_where_the_input_is_the_target() -> None:
    again = kmtl.Reconstruction("again")
    run = kmtl.ensemble(
        kmtl.build_mlp, (X, {"size": Y["size"]}), method="bagging", members=2, epochs=1,
        tasks=[again, tasks()[2]], input_shape=(3,), units=(4,), seed=5,
        compile_options={"run_eagerly": True},
    )  # fmt: skip
    unseen = np.array([~np.isin(np.arange(len(X)), bag(seed)) for seed in (5, 6)])
    answers = np.stack([m.predict(X, verbose=0)["again"] for m in run.members])
    here = unseen.any(0)
    means = (answers * unseen[..., None]).sum(0)[here] / unseen.sum(0)[here][:, None]
    assert run.out_of_bag["again"].score == pytest.approx(
        ((means - X[here]) ** 2).mean(), rel=1e-4
    )


@pytest.mark.thorough(on="jax")
def test_boosting_adds_up_its_stages(boosted) -> None:
    losses = [member.loss_report(X, Y)["total"] for member in compiled(boosted)]
    kind = Y["kind"][6:]
    shares = np.bincount(kind) / len(kind)
    constant = -np.log(shares[kind]).mean()
    first = boosted.members[0].predict(X, verbose=0)
    at = special.log_softmax(first["kind"][6:], -1)[np.arange(len(kind)), kind]
    assert -at.mean() < constant
    assert losses[1] < losses[0]
    # The second sum is the first one and a step along the second net.
    second = boosted.members[1]
    layer = second.get_layer("sum_size")
    nets = [second.get_layer(f"stage{i}")(X)["size"] for i in (1, 2)]
    both = layer.constant + sum(
        f * keras.ops.convert_to_numpy(n)
        for f, n in zip(layer.factors, nets, strict=True)
    )
    np.testing.assert_allclose(second.predict(X, verbose=0)["size"], both, rtol=1e-5)
    np.testing.assert_allclose(layer.constant, np.nanmean(Y["size"]), rtol=1e-5)


def compiled(run) -> list:
    for member in run.members:
        member.compile("sgd")
    return list(run.members)


@pytest.mark.thorough
def test_a_boosted_model_saves(boosted, tmp_path) -> None:
    boosted.model.save(tmp_path / "model.keras")
    loaded = kmtl.load_model(tmp_path / "model.keras")
    one, other = (m.predict(X, verbose=0) for m in (boosted.model, loaded))
    np.testing.assert_allclose(one["size"], other["size"], rtol=1e-6)
    plain = loaded.to_keras()(X)
    np.testing.assert_allclose(plain["size"], one["size"], rtol=1e-5)


@pytest.mark.parametrize("method", ["seeds", "snapshot"])
def test_trainings_with_callbacks_of_their_own(method: str) -> None:
    made: list[keras.callbacks.Callback] = []

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None) -> None:
            assert "val_loss" in logs
            self.model.stop_training = method == "seeds" and epoch == self.last

    def callbacks(member: int) -> list:
        made.append(Stop())
        made[-1].last = member
        return made[-1:]

    found = train(method, epochs=4, validation_data=(X, Y), callbacks=callbacks)
    assert [len(h["loss"]) for h in found.histories] == (
        [1, 2] if method == "seeds" else [4]
    )
    assert len(made) == len(found.histories)


def test_refused() -> None:
    with pytest.raises(TypeError, match="function of a member's number"):
        train("seeds", callbacks=[keras.callbacks.TerminateOnNaN()])
    with pytest.raises(ValueError, match="not for method='boosting'"):
        train("boosting", callbacks=lambda member: [])
    with pytest.raises(ValueError, match="multiple of `members`"):
        train("snapshot", epochs=3)
    with pytest.raises(ValueError, match="at least 2 for each"):
        train("snapshot", epochs=2)
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    with pytest.raises(ValueError, match="plain learning rate"):
        train("snapshot", epochs=4, optimizer=keras.optimizers.SGD(rate))
    with pytest.raises(ValueError, match="give it to the task"):
        train("boosting", compile_options={"loss": {"size": "mae"}})
    with pytest.raises(ValueError, match=r"transform='log1p' of task 'size'"):
        kmtl.ensemble(
            kmtl.build_mlp,
            (X, {"size": np.ones(48)}),
            tasks=[kmtl.Regression("size", transform="log1p")],
            input_shape=(3,),
            method="boosting",
        )
    with pytest.raises(ValueError, match="method"):
        train("stacking")
    with pytest.raises(ValueError, match="judge the stages"):
        train("boosting", validation_data=(X, Y))
    with pytest.raises(ValueError, match=r"takes tasks of kmtl\.Regression"):
        kmtl.ensemble(
            kmtl.build_mlp,
            (X, {"stars": np.ones(48, int)}),
            tasks=[kmtl.Ordinal("stars", classes=3)],
            input_shape=(3,),
            method="boosting",
        )
