"""What is trained in which epoch, and how much each task counts."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl
from kmtl.training import Curriculum, fit_run

pytestmark = pytest.mark.backend

TASKS = [kmtl.Regression("a", weight=2.0), kmtl.Regression("b")]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 3)).astype("float32")
Y = {"a": X.sum(1), "b": RNG.normal(size=16).astype("float32")}


def made(**options):
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=TASKS, units=(4, 4), normalization="batch", seed=0
    )
    model.compile(keras.optimizers.Adam(0.05), **options)
    return model


class Watch(keras.callbacks.Callback):
    """What changed in each epoch, and the weights of the tasks."""

    def __init__(self):
        super().__init__()
        self.changed, self.weights = [], []

    def _values(self):
        return {
            layer.name: [w.copy() for w in layer.get_weights()]
            for layer in self.model.layers
            if layer.weights and layer.name not in self.model.task_names
        }

    def on_epoch_begin(self, epoch, logs=None):
        self.before = self._values()
        self.weights.append(dict(self.model.task_weights))

    def on_epoch_end(self, epoch, logs=None):
        after = self._values()
        self.changed.append(
            {
                name.replace("shared_", "").removesuffix("_dense")
                for name, values in after.items()
                if any(
                    (one != other).any()
                    for one, other in zip(values, self.before[name], strict=True)
                )
            }
        )


def test_parts_and_weights_by_epoch() -> None:
    model = made()
    watch = Watch()
    plan = Curriculum(
        start={"trunk": 2, "block_2": 1, "b": 1},
        stop={"a": 2},
        weights={"a": {0: 1.0, 2: 0.5}},
    )
    model.fit(X, Y, batch_size=8, epochs=3, callbacks=[plan, watch], verbose=0)
    block = {f"block{i}": {f"block{i}", f"block{i}_norm"} for i in (1, 2)}
    heads = {"a": {"a_head_logits"}, "b": {"b_head_logits"}}
    assert watch.changed == [
        heads["a"],
        heads["a"] | heads["b"] | block["block2"],
        heads["b"] | block["block1"] | block["block2"],
    ]
    assert watch.weights == [
        {"a": 2.0, "b": 0.0},
        {"a": 1.5, "b": 1.0},
        {"a": 0.0, "b": 1.0},
    ]
    assert model.frozen == ()
    assert model.task_weights == {"a": 2.0, "b": 1.0}


class Scores(keras.callbacks.Callback):
    """Writes validation scores into the logs."""

    def __init__(self, **scores):
        super().__init__()
        self.scores = scores

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: values[epoch] for name, values in self.scores.items()})


@pytest.mark.thorough(on="jax")
def test_a_saturated_task_stops_and_the_others_go_on() -> None:
    model = made(run_eagerly=True)
    watch, plan = Watch(), Curriculum(patience=2)
    scores = Scores(
        val_a_mae=[1.0, np.nan, 1.5, 0.1, 0.1, 0.1],
        val_b_mae=[3.0, 2.0, 1.0, 1.0, 1.0, 0.1],
    )
    history = model.fit(
        X, Y, batch_size=16, epochs=6, callbacks=[scores, plan, watch], verbose=0
    )
    assert [int(epoch) for epoch in plan.stopped_epoch] == [2, 4]
    assert [float(best) for best in plan.best] == [1.0, 1.0]
    assert [w["a"] for w in watch.weights] == [2.0, 2.0, 2.0, 0.0, 0.0]
    assert "a_head_logits" not in watch.changed[3]
    assert {"b_head_logits", "block1"} <= watch.changed[3]
    assert len(history.epoch) == 5


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras, NumPy 2
def test_a_task_without_any_score_does_not_stop() -> None:
    """Nor does it keep the training from ending with the last of the others."""
    model = made(run_eagerly=True)
    plan = Curriculum(start={"b": 1}, patience={"a": 1, "b": 2})
    scores = Scores(val_a_mae=[2.0, 1.0, 1.0, 0.0], val_b_mae=[np.nan] * 4)
    with pytest.warns(UserWarning, match=r"does not stop task 'b': it has no score"):
        history = model.fit(
            X, Y, batch_size=16, epochs=4, callbacks=[scores, plan], verbose=0
        )
    assert [int(epoch) for epoch in plan.stopped_epoch] == [2, -1]
    assert len(history.epoch) == 3


@pytest.mark.thorough(on="jax")
def test_a_task_that_joins_is_balanced_from_its_first_epoch() -> None:
    """The epochs in which it waited tell nothing of how its loss falls."""
    model = made(weighting="dwa", loss_weights="data")
    plan = Curriculum(start={"b": 2})
    logs = model.fit(X, Y, batch_size=8, epochs=5, callbacks=[plan], verbose=0).history
    assert logs["weight_b"][:2] == [0, 0]
    assert all(0.4 < weight < 0.6 for weight in logs["weight_b"][2:])
    assert model.task_weights == {"a": 0.5, "b": 0.5}
    half = Y | {"b": np.where(np.arange(16) < 8, Y["b"], np.nan)}
    model.fit(X, half, batch_size=8, verbose=0)  # a Curriculum leaves the rule
    assert model.task_weights == pytest.approx({"a": 2 / 3, "b": 1 / 3})


class Break(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.thorough(on="jax")
@pytest.mark.parametrize("again", [True, False], ids=["the same", "a new one"])
def test_what_a_broken_training_left_is_not_kept(again) -> None:
    model = made(run_eagerly=True)
    model.freeze("block_2")
    options = {"start": {"block_1": 5, "b": 5}, "weights": {"a": {0: 1.0, 1: 0.5}}}
    plan = Curriculum(**options)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, batch_size=16, epochs=3, callbacks=[plan, Break()], verbose=0)
    assert model.task_weights == {"a": 1.0, "b": 0.0}
    assert set(model.frozen) >= {"block_1", "block_2", "b"}
    plan = plan if again else Curriculum(stop={"a": 1})
    watch = Watch()
    model.fit(X, Y, batch_size=16, epochs=1, callbacks=[plan, watch], verbose=0)
    assert watch.weights == [{"a": 2.0, "b": 0.0 if again else 1.0}]
    assert model.task_weights == {"a": 2.0, "b": 1.0}
    assert model.frozen == ("block_2",)


def test_what_was_set_after_a_broken_training_stays() -> None:
    model = made(run_eagerly=True)
    broken = Curriculum(start={"block_1": 1, "b": 1})
    broken.set_model(model)
    broken.on_train_begin()
    broken.on_epoch_begin(0)
    model.unfreeze()
    model.freeze("block_2")
    model.set_task_weights({"b": 3.0})
    plan = Curriculum()
    plan.set_model(model)
    plan.on_train_begin()
    assert model.frozen == ("block_2",)
    assert model.task_weights == {"a": 2.0, "b": 3.0}


@pytest.mark.thorough(on="jax")
def test_steps_are_traced_anew_only_where_parts_change() -> None:
    model, traces = made(), []
    make = model.make_train_function
    model.make_train_function = lambda force=False: (
        traces.append(force) if force else None,
        make(force),
    )[1]
    plan = Curriculum(start={"block_1": 2}, weights={"b": {0: 0.0, 4: 1.0}})
    plan.set_model(model)
    plan.on_train_begin()
    seen = []
    for epoch in range(4):
        plan.on_epoch_begin(epoch)
        seen.append(len(traces))
    assert seen == [1, 1, 2, 2]
    plan.on_train_end()


@pytest.mark.thorough
@pytest.mark.parametrize("weighting", ["uncertainty", "mgda"])
def test_a_run_that_was_cut_off_ends_like_one_that_was_not(tmp_path, weighting) -> None:
    class Cut(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations.numpy() >= self._at:
                raise KeyboardInterrupt

    def run(folder, at=None):
        plan = Curriculum(
            start={"block_1": 3, "block_2": 1, "b": 1},
            weights={"a": {0: 1.0, 4: 0.1}},
            patience={"a": 1},
        )
        callbacks = [plan]
        if at is not None:
            cut = Cut()
            cut._at = at
            callbacks.append(cut)
        model = made(weighting=weighting)
        history = fit_run(
            model,
            (X, Y),
            folder=folder,
            epochs=5,
            batch_size=8,
            validation=(X, Y),
            callbacks=callbacks,
            verbose=0,
        )
        return model, history, plan

    whole, history, plan = run(tmp_path / "whole")
    for at in (1, 5, 8):  # in the first, third and fourth epoch
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", at)
    again, other, plan_again = run(tmp_path / "cut")
    assert other.history == history.history
    assert list(map(int, plan.stopped_epoch)) == list(
        map(int, plan_again.stopped_epoch)
    )
    for one, two in zip(whole.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy(), err_msg=one.path)
    assert again.task_weights == whole.task_weights == {"a": 2.0, "b": 1.0}


@pytest.mark.thorough(on="jax")
def test_refused() -> None:
    def begin(plan, **options):
        plan.set_model(made(run_eagerly=True, **options))
        plan.on_train_begin()

    with pytest.raises(ValueError, match=r"`start`:.*'block_3'.*Did you mean"):
        begin(Curriculum(start={"block_3": 1}))
    with pytest.raises(ValueError, match=r"stop.*after its `start`"):
        Curriculum(start={"a": 3}, stop={"a": 3})
    with pytest.raises(TypeError, match=r"dict from the name"):
        Curriculum(start=["a"])
    with pytest.raises(ValueError, match=r"moco.*parameter"):
        begin(Curriculum(start={"block_1": 1}), weighting="moco")
    plan = Curriculum(patience=1)
    begin(plan)
    with pytest.raises(ValueError, match=r"val_a_mae.*validation data"):
        plan.on_epoch_end(0, {"loss": 1.0})
