"""Mixtures whose shares follow the losses of the epochs before."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl
from kmtl.data.plans import LossPlan

pytestmark = pytest.mark.backend

A, B = kmtl.Regression("a"), kmtl.Classification("b", classes=2)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("float32")


def mixed(sampling="loss", **options) -> kmtl.data.Split:
    """`a` is learned at once, `b` is noise."""
    sets = {A: (X[:30], X[:30] @ [1.0, 2.0, 3.0]), B: (X[30:], np.arange(10) % 2)}
    return kmtl.data.mixture(sets, sampling, steps=8, **options)


def net(mixture: kmtl.data.Split, rate: float = 0.05) -> kmtl.MultiTaskModel:
    model = kmtl.build_mlp(input_shape=(3,), tasks=mixture.tasks, units=(8,), seed=0)
    model.compile(keras.optimizers.Adam(rate))
    return model


class TestPlan:
    PLAN = LossPlan(("a", "b+c"), (30, 10), (0.5, 0.5), 10)

    def told(self, *losses: tuple[float, float]) -> LossPlan:
        plan = self.PLAN
        for a, rest in losses:
            plan = plan.after({"a_loss": a, "b_loss": rest, "c_loss": rest})
        return plan

    def test_shares_are_relative_losses(self):
        plan = self.told((8.0, 2.0), (2.0, 1.5))
        assert plan.shares_in(0).tolist() == plan.shares_in(1).tolist() == [0.5, 0.5]
        np.testing.assert_allclose(plan.shares_in(2), [0.25, 0.75])
        # 40 rows, of which each set has one before they are shared out.
        assert plan.counts_in(2, 4).tolist() == [1 + 10, 1 + 28]
        assert plan.counts_in(1, 4).tolist() == [20, 20]
        assert plan.seen(3, 4).tolist() == [51, 69]
        assert self.told((8.0, 1.0), (0.0, 1.0)).counts_in(2, 4).tolist() == [1, 39]

    def test_what_is_not_known_changes_nothing(self):
        unknown = self.told((np.nan, 2.0), (np.nan, 1.0))
        assert unknown.shares_in(2).tolist() == [0.5, 0.5]
        late = self.told((np.nan, 2.0), (4.0, 1.0), (1.0, np.nan))
        np.testing.assert_allclose(late.shares_in(3), [1 / 3, 2 / 3])
        with pytest.raises(ValueError, match=r"losses of the epochs before epoch 2"):
            self.told((1.0, 1.0)).shares_in(2)

    def test_rows_go_on_where_the_last_epoch_ended(self):
        plan = self.told((1.0, 1.0), (0.5, 1.0), (0.1, 1.0))
        orders = [plan.order(0, epoch, 4) for epoch in range(4)]
        assert all(len(order) == 40 for order in orders)
        seen = np.bincount(np.concatenate(orders), minlength=40)
        assert {np.ptp(part) for part in (seen[:30], seen[30:])} <= {0, 1}
        assert [seen[:30].sum(), seen[30:].sum()] == plan.seen(4, 4).tolist()

    def test_turns_by_batches_and_by_epochs(self):
        losses = ((1.0, 1.0), (0.25, 0.75))
        by_batch = LossPlan(("a", "b"), (30, 10), (0.5, 0.5), 10, True)
        by_epoch = LossPlan(("a", "b"), (30, 10), (0.5, 0.5), 10, "epoch")
        for a, b in losses:
            logs = {"a_loss": a, "b_loss": b}
            by_batch, by_epoch = by_batch.after(logs), by_epoch.after(logs)
        batches = by_batch.sets(4, 2).reshape(-1, 4)
        assert (batches == batches[:, :1]).all()
        assert np.bincount(batches[:, 0]).tolist() == [3, 7]
        # One turn of each, then that which is due: 1/2 + 1/2 + 1/4 - 1, or 3/4.
        assert by_epoch.turns(3).tolist() == [0, 1, 1]
        assert len(by_epoch.order(0, 2, 4)) == 40

    def test_losses_are_no_setting(self):
        assert "losses" not in self.told((1.0, 1.0)).describe()
        assert self.told((1.0, 1.0)) == self.PLAN


@pytest.mark.parametrize(
    "alternate",
    [
        False,
        pytest.param(True, marks=pytest.mark.thorough),
        pytest.param("epoch", marks=pytest.mark.thorough),
    ],
)
def test_a_run_that_goes_on_is_the_unbroken_one(alternate, tmp_path) -> None:
    mixture = mixed(alternate=alternate)
    whole = net(mixture).fit(mixture, batch_size=5, epochs=5, verbose=0).history
    for epochs in (2, 3, 5):
        model = net(mixture)
        run = kmtl.training.fit_run(
            *(model, mixture), folder=tmp_path, epochs=epochs, batch_size=5, verbose=0
        )
    for name in ("loss", "a_loss", "b_loss"):
        np.testing.assert_allclose(run.history[name], whole[name], rtol=1e-5)
    assert len(whole["loss"]) == 5


def test_what_is_learned_slowly_is_seen_more() -> None:
    mixture = mixed()
    seen = []

    class Note(keras.callbacks.Callback):
        def __init__(self, batches):
            super().__init__()
            self.batches = batches

        def on_epoch_begin(self, epoch, logs=None):
            seen.append(self.batches.plan.counts_in(epoch, 5).tolist())

    from kmtl.training.batches import ShuffledBatches

    x, y = mixture.arrays()
    batches = ShuffledBatches(x, y, batch_size=5, plan=mixture.plan)
    model = net(mixture)
    logs = model.fit(batches, epochs=8, verbose=0, callbacks=[Note(batches)]).history
    assert seen[0] == seen[1] == [20, 20]
    assert logs["a_loss"][-2] < 0.3 * logs["a_loss"][0]
    ratios = [logs[f"{name}_loss"][-2] / logs[f"{name}_loss"][0] for name in "ab"]
    wanted = 1 + 38 * ratios[1] / sum(ratios)
    assert seen[-1][1] == pytest.approx(wanted, abs=1)
    assert seen[-1][1] > 25
    # The mixture itself remembers nothing: another model begins anew.
    assert mixture.plan.losses == ()


def test_many_tasks_alike_are_told_by_name() -> None:
    tasks = [kmtl.Regression(f"t{number}") for number in range(13)]
    labels = {task.name: X[:20, 0] for task in tasks}
    sets = {tuple(tasks): (X[:20], labels), B: (X[20:], np.arange(20) % 2)}
    mixture = kmtl.data.mixture(sets, "loss", steps=4)
    model = net(mixture)
    history = model.fit(mixture, batch_size=5, epochs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert mixture.plan.names[0].count("+") == 12


def test_refused(tmp_path) -> None:
    spread = kmtl.Distribution("spread")
    with pytest.raises(ValueError, match="'spread' may be negative"):
        kmtl.data.mixture({spread: (X, X[:, 0])}, "loss")
    mixture = mixed()
    assert mixture.counts()["rows_per_epoch"].tolist() == [128, 128]
    with pytest.raises(ValueError, match="first epoch alone"):
        mixture.counts(epochs=2)
    with pytest.raises(ValueError, match=r"begin at epoch 0, or take .*fit_run"):
        net(mixture).fit(mixture, initial_epoch=2, epochs=3, verbose=0)
    tuner = kmtl.RandomSearch(
        kmtl.HyperModel(kmtl.build_mlp, tasks=mixture.tasks, input_shape=(3,)),
        objective="val_mean_score",
        directory=tmp_path,
    )
    with pytest.raises(ValueError, match="another `sampling` than 'loss'"):
        tuner.search(mixture, validation_data=mixture.union(), epochs=1)
    # A run that was begun with other shares.
    kmtl.training.fit_run(
        net(mixture), mixture, folder=tmp_path / "run", epochs=1, verbose=0
    )
    equal = mixed("equal")
    with pytest.raises(ValueError, match=r"Different: mixture\.sampling"):
        kmtl.training.fit_run(net(equal), equal, folder=tmp_path / "run", epochs=2)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        stream = tf.data.Dataset.from_tensor_slices((X, X[:, 0])).batch(5)
        with pytest.raises(ValueError, match=r"a tf\.data\.Dataset for 'a'"):
            kmtl.data.mixture({A: stream}, "loss")


def test_what_draws_rows_itself_takes_the_union() -> None:
    mixture = mixed()
    with pytest.raises(ValueError, match=r"`mixture\.union\(\)`"):
        kmtl.ensemble(
            kmtl.build_mlp, mixture, tasks=mixture.tasks, input_shape=(3,), epochs=1
        )
    with pytest.raises(ValueError, match=r"`mixture\.union\(\)`"):
        kmtl.distill(net(mixture), net(mixture), mixture)
