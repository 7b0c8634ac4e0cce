"""Dropout with a variable rate: what a rate of 0 costs, and the same masks as ever."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
from keras import ops

import kmtl

pytestmark = pytest.mark.backend
X = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")


def expected(rate: float, seed: int, calls: int) -> np.ndarray:
    """Output of the last of several calls."""
    generator = keras.random.SeedGenerator(seed)
    for _ in range(calls):
        noise = keras.random.uniform(X.shape, seed=generator)
    kept = ops.convert_to_numpy(noise) >= np.float32(rate)
    scale = np.float32(1) / (np.float32(1) - np.float32(rate))
    return np.where(kept, X * scale, np.float32(0))


def compiled(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, autograph=False)


def random_operations(layer: keras.layers.Layer) -> tuple[list[str], list[str]]:
    """Kinds of operations of a step that draw numbers: always, and in a branch."""
    x = ops.convert_to_tensor(X)
    if keras.backend.backend() == "jax":
        import jax

        def step(x, fixed):
            return layer.stateless_call([], fixed, x, training=True)

        found = jax.make_jaxpr(step)(
            x, [variable.value for variable in layer.non_trainable_variables]
        )

        def kinds(jaxpr, inside):
            for equation in jaxpr.eqns:
                yield equation.primitive.name, inside
                for part in jax.tree.leaves(
                    list(equation.params.values()),
                    is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr"),
                ):
                    part = getattr(part, "jaxpr", part)
                    if hasattr(part, "eqns"):
                        name = equation.primitive.name
                        yield from kinds(part, inside or name == "cond")

        every = list(kinds(found.jaxpr, False))
        drawn = [(name, inside) for name, inside in every if "random" in name]
    else:
        import tensorflow as tf

        function = tf.function(lambda x: layer(x, training=True), autograph=False)
        graph = function.get_concrete_function(x).graph.as_graph_def()
        nodes = [(node.op, False) for node in graph.node]
        nodes += [(n.op, True) for f in graph.library.function for n in f.node_def]
        drawn = [(name, inside) for name, inside in nodes if "Random" in name]
    return [n for n, inside in drawn if not inside], [n for n, i in drawn if i]


def test_masks_are_drawn_in_a_branch_only() -> None:
    layer = kmtl.layers.Dropout(0.0, seed=1)
    layer(X, training=True)
    always, in_a_branch = random_operations(layer)
    assert always == []
    assert in_a_branch


@pytest.mark.parametrize("in_graph", [False, True])
def test_values_by_seed(in_graph: bool) -> None:
    """The rate and the seed alone decide; steps at rate 0 move the seed on too."""
    layer = kmtl.layers.Dropout(0.0, seed=3)
    x = ops.convert_to_tensor(X)
    np.testing.assert_array_equal(layer(x, training=True), X)
    layer.set_rate(0.4)
    if not in_graph:
        second = layer(x, training=True)
    elif keras.backend.backend() == "jax":
        fixed = [variable.value for variable in layer.non_trainable_variables]
        step = compiled(lambda f, x: layer.stateless_call([], f, x, training=True))
        second, _ = step(fixed, x)
    else:
        second = compiled(lambda x: layer(x, training=True))(x)
    np.testing.assert_array_equal(ops.convert_to_numpy(second), expected(0.4, 3, 2))


def test_rate_0_passes_everything_on() -> None:
    layer = kmtl.layers.Dropout(0.0, seed=0)
    odd = np.array([[np.nan, np.inf, -0.0, 1e38]], "float32")
    np.testing.assert_array_equal(layer(odd, training=True), odd)
    half = kmtl.layers.Dropout(0.0, seed=0, dtype="mixed_bfloat16")
    out = half(np.ones((2, 2), "float32"), training=True)
    assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"


def test_training_at_rate_0_is_training_without_dropout() -> None:
    """Losses and weights are the same, whatever balances the tasks, and after the rate
    was raised no step is traced anew."""

    def trained(dropout, weighting):
        model = kmtl.build_mlp(
            input_shape=(5,),
            tasks=[kmtl.Regression("a"), kmtl.Regression("b")],
            units=(4, 4),
            dropout=dropout,
            seed=0,
        )
        model.compile(keras.optimizers.SGD(0.1), weighting=weighting)
        y = {"a": X[:, 0], "b": X[:, 1] ** 2}
        history = model.fit(X, y, batch_size=3, epochs=2, shuffle=False, verbose=0)
        return model, history.history

    def weightings():
        yield None
        yield kmtl.weighting.CAGrad(level="parameters")

    for without, at_zero in zip(weightings(), weightings(), strict=True):
        plain, expected_logs = trained(None, without)
        model, logs = trained(0.0, at_zero)
        for name, values in expected_logs.items():
            np.testing.assert_allclose(logs[name], values, rtol=1e-5, err_msg=name)
        for mine, theirs in zip(
            model.trainable_variables, plain.trainable_variables, strict=True
        ):
            np.testing.assert_allclose(
                ops.convert_to_numpy(mine), ops.convert_to_numpy(theirs), atol=1e-6
            )


def net(dropout: float = 0.0) -> kmtl.MultiTaskModel:
    model = kmtl.build_mlp(
        input_shape=(5,), tasks=[kmtl.Regression("a")], dropout=dropout, seed=0
    )
    model.compile(keras.optimizers.SGD(0.1))
    return model


def train(model: kmtl.MultiTaskModel, *callbacks, epochs: int = 1) -> None:
    options = {"batch_size": 3, "shuffle": False, "verbose": 0}
    model.fit(X, {"a": X[:, 0]}, epochs=epochs, callbacks=[*callbacks], **options)


def draws(model: kmtl.MultiTaskModel) -> list[bool]:
    """Per layer whether it has drawn masks in steps that come now."""
    layers = [x for x in model.layers if isinstance(x, kmtl.layers.Dropout)]

    def seeds() -> list:
        return [ops.convert_to_numpy(x.seed_generator.state) for x in layers]

    before = seeds()
    train(model)
    return [bool((a != b).any()) for a, b in zip(before, seeds(), strict=True)]


def test_steps_leave_layers_at_rate_0_out(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    uniform = keras.random.uniform
    monkeypatch.setattr(
        keras.random, "uniform", lambda *a, **k: drawn.append(1) or uniform(*a, **k)
    )
    model = net()
    assert draws(model) == [False, False]
    assert not drawn
    model.set_dropout([0.0, 0.5])
    assert draws(model) == [False, True]
    assert len(drawn) == 1


def by_weights(model: kmtl.MultiTaskModel) -> None:
    model.set_weights(net(0.5).get_weights())


def by_variable(model: kmtl.MultiTaskModel) -> None:
    for layer in model.layers:
        if isinstance(layer, kmtl.layers.Dropout):
            layer.rate.assign(0.5)


def beside_keras(model: kmtl.MultiTaskModel) -> None:
    """As `tf.train.Checkpoint` does."""
    if keras.backend.backend() == "jax":
        return by_variable(model)
    for layer in model.layers:
        if isinstance(layer, kmtl.layers.Dropout):
            layer.rate.value.assign(0.5)
    return None


@pytest.mark.parametrize(
    "raise_rates",
    [lambda model: model.set_dropout(0.5), by_weights, by_variable, beside_keras],
)
def test_a_rate_that_is_raised_drops(raise_rates) -> None:
    """Whoever raises it, and whatever was traced before."""
    model = net()
    assert draws(model) == [False, False]
    raise_rates(model)
    assert draws(model) == [True, True]
    model.set_dropout(0.0)
    assert draws(model) == [True, True]  # not traced anew for that


@pytest.mark.parametrize("renew", [lambda model: None, lambda model: model.compile()])
def test_a_rate_drops_where_a_step_of_before_is_held(renew) -> None:
    """As a notebook holds it, in the traceback of a `fit` that was interrupted."""
    model = net()
    train(model)
    held = inspect.getclosurevars(model.train_function).nonlocals["step"]
    renew(model)
    train(model)
    model.set_dropout(0.5)
    assert draws(model) == [True, True]
    del held


def test_a_loss_is_evaluated_where_an_evaluation_of_before_is_held() -> None:
    """Dropout takes no part in it: traces are held alike."""
    model = net()
    model.compile("sgd", loss={"a": "mae"})
    absolute = model.evaluate(X, {"a": X[:, 0]}, return_dict=True, verbose=0)
    held = model.test_function
    model.compile("sgd", loss={"a": "mse"})
    squared = model.evaluate(X, {"a": X[:, 0]}, return_dict=True, verbose=0)
    assert squared["a_loss"] != absolute["a_loss"]
    del held


def test_a_rate_that_a_file_raises_drops(tmp_path) -> None:
    model = net()
    train(model)
    other = net()
    other.set_dropout(0.5)
    other.save(tmp_path / "net.keras")
    other.save_weights(tmp_path / "net.weights.h5")
    model.load_weights(tmp_path / "net.weights.h5")
    assert draws(model) == [True, True]
    assert draws(keras.models.load_model(tmp_path / "net.keras")) == [True, True]


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_train_batch_end"])
def test_a_rate_that_a_callback_raises_drops(hook: str) -> None:
    class Raise(keras.callbacks.Callback):
        pass

    def run(self, step, logs=None):
        if step == (1 if hook == "on_epoch_begin" else 0):
            self.model.set_dropout(0.5)

    setattr(Raise, hook, run)
    model, other = net(), net()
    train(model, Raise(), epochs=2)
    train(other, epochs=2)
    gap = np.abs(model.predict(X, verbose=0)["a"] - other.predict(X, verbose=0)["a"])
    assert gap.max() > 1e-4


def test_a_step_of_ones_own_has_the_layers() -> None:
    """Nobody looks at the rates before it: it is traced with all."""
    if keras.backend.backend() == "jax":
        pytest.skip("its steps are given the rates")
    model = net()
    train(model)
    step = compiled(lambda: model.train_step((X, {"a": X[:, 0]})))
    layer = model.get_layer("shared_block1_dropout")
    before = ops.convert_to_numpy(layer.seed_generator.state)
    step()
    assert (ops.convert_to_numpy(layer.seed_generator.state) != before).any()
