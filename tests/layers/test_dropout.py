"""Dropout with a variable rate: what a rate of 0 costs, and the same masks as ever."""

from __future__ import annotations

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
