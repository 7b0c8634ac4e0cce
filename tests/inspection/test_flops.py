"""Operations, by hand and against what the backend counts."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kmtl
from kmtl.inspection import flops_rule, node_flops
from kmtl.inspection.flops import _einsum_flops

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]


def counted(layer: keras.layers.Layer, *shapes: tuple) -> int:
    """Operations of one call of a layer, all of which must be counted."""
    inputs = [keras.Input(shape) for shape in shapes]
    output = layer(inputs[0] if len(inputs) == 1 else inputs)
    count, unknown = node_flops(
        keras.tree.flatten(output)[0]._keras_history.operation._inbound_nodes[-1]
    )
    assert unknown == []
    return count


@pytest.mark.parametrize(
    ("layer", "shapes", "expected"),
    [
        # 5 x 3 multiply-adds, 3 biases, 3 activations
        (layers.Dense(3, activation="relu"), [(5,)], 30 + 3 + 3),
        (layers.Dense(3, use_bias=False), [(7, 5)], 7 * 30),
        (layers.Dense(3, activation="softmax"), [(5,)], 30 + 3 + 15),
        # 6 x 6 x 4 numbers of 9 x 2 multiply-adds each
        (layers.Conv2D(4, 3, padding="same"), [(6, 6, 2)], 144 * 36 + 144),
        (layers.Conv2D(4, 3, use_bias=False), [(6, 6, 2)], 64 * 36),
        (layers.Conv2D(4, 3, groups=2, use_bias=False), [(6, 6, 2)], 64 * 18),
        (layers.Conv1D(4, 3, strides=2, use_bias=False), [(7, 2)], 12 * 12),
        (layers.Conv2DTranspose(4, 3, use_bias=False), [(6, 6, 2)], 72 * 9 * 4 * 2),
        (layers.DepthwiseConv2D(3, use_bias=False), [(6, 6, 2)], 32 * 18),
        (
            layers.SeparableConv2D(4, 3, use_bias=False),
            [(6, 6, 2)],
            16 * (2 * 18 + 2 * 2 * 4),
        ),
        (layers.BatchNormalization(), [(6, 6, 2)], 144),
        (layers.LayerNormalization(), [(5,)], 35),
        (layers.MaxPooling2D(2), [(6, 6, 2)], 18 * 4),
        (layers.GlobalAveragePooling2D(), [(6, 6, 2)], 72),
        (layers.UpSampling2D(2), [(6, 6, 2)], 0),
        (layers.UpSampling2D(2, interpolation="bilinear"), [(2, 2, 1)], 16 * 8),
        (layers.Add(), [(5,), (5,), (5,)], 10),
        (layers.Average(), [(5,), (5,), (5,)], 15),
        (layers.Concatenate(), [(5,), (5,)], 0),
        (layers.Flatten(), [(5, 2)], 0),
        (kmtl.layers.Dropout(0.5), [(5,)], 0),
        (layers.EinsumDense("abc,cd->abd", (7, 3)), [(7, 5)], 7 * 30),
        (layers.Activation("tanh"), [(5,)], 5),
        (layers.Activation("linear"), [(5,)], 0),
        # 4 steps of 3 units: 4 gates of 5 + 3 multiply-adds each, and 17 more
        (kmtl.layers.Recurrent("lstm", 3), [(4, 5)], 12 * (64 + 17)),
        (kmtl.layers.Recurrent("gru", 3, True), [(4, 5)], 24 * (48 + 16)),
        # two products of 4 x 7 with 6 channels; 2 heads' scores, scaled and softmaxed
        (kmtl.layers.Attention(2), [(4, 6), (7, 6), (7, 6)], 4 * 168 + 6 * 56),
    ],
    ids=lambda value: type(value).__name__,
)
def test_by_hand(layer, shapes, expected) -> None:
    assert counted(layer, *shapes) == expected


def test_operations_of_keras_ops() -> None:
    x, y = keras.Input((4, 5)), keras.Input((5,))

    def count(tensor) -> int:
        found, unknown = node_flops(tensor._keras_history.operation._inbound_nodes[-1])
        assert unknown == []
        return found

    assert count(ops.einsum("bij,bj->bi", x, y)) == 2 * 20
    assert count(ops.matmul(x, np.ones((5, 3), "float32"))) == 2 * 4 * 5 * 3
    assert count(ops.sum(x, axis=1)) == 20
    assert count(ops.softmax(y)) == 25
    assert count(x * 2.0) == 20
    assert count(ops.stack([y, y], axis=1)) == 0
    assert count(ops.max_pool(keras.Input((4, 4, 1)), 2)) == 16


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)], 2 * 24),
        ("ij,ij->ij", [(2, 3), (2, 3)], 6),  # nothing is summed
        ("ij->i", [(2, 3)], 6),  # no product
        ("...i,ij->...j", [(7, 2, 3), (3, 4)], 2 * 7 * 24),
        ("be,be...->b...", [(1, 3), (1, 3, 5, 2)], 2 * 30),
    ],
)
def test_einsum(equation, shapes, expected) -> None:
    assert _einsum_flops(equation, shapes, []) == expected


@keras.saving.register_keras_serializable(package="kmtl_tests")
class Scaled(keras.layers.Layer):
    """A layer that no rule knows."""

    def build(self, input_shape) -> None:
        self.scale = self.add_weight(shape=(input_shape[-1],))

    def call(self, inputs):
        return inputs * self.scale


class Unfolds(Scaled):
    """Says what it is made of."""

    def to_keras(self) -> keras.Model:
        inputs = keras.Input((5,))
        return keras.Model(inputs, ops.softmax(layers.Dense(5)(inputs)))


def node(layer):
    return layer(keras.Input((5,)))._keras_history.operation._inbound_nodes[-1]


def test_what_has_no_rule_is_told() -> None:
    assert node_flops(node(Scaled(name="own"))) == (0, ["own (Scaled)"])
    # A subclass may compute anything: the rule of its parent is not taken.
    derived = type("Derived", (layers.Dense,), {})
    assert node_flops(node(derived(3, name="mine"))) == (0, ["mine (Derived)"])
    free = keras.Input((None, 3))
    call = layers.Dense(2, name="open")(free)._keras_history.operation
    assert node_flops(call._inbound_nodes[-1])[1] == ["open (sizes that are not known)"]


def test_layers_are_counted_by_what_they_are_made_of() -> None:
    assert node_flops(node(Unfolds())) == (2 * 25 + 5 + 25, [])
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(3), Scaled(name="own")])
    assert node_flops(node(inner)) == (33, ["own (Scaled)"])


def test_a_rule_of_ones_own() -> None:
    class Halved(Scaled):
        pass

    @flops_rule(Halved)
    def rule(layer, inputs, outputs) -> int:
        return 3 * inputs[0][-1]

    assert node_flops(node(Halved())) == (15, [])


def by_backend(model: keras.Model) -> int:
    """Operations of a forward pass of one example, as the backend counts them."""
    x = np.zeros((1, *model.input_shape[1:]), "float32")
    if keras.backend.backend() == "jax":
        import jax

        call = jax.jit(lambda x: model(x, training=False))
        cost = call.lower(x).compile().cost_analysis()
        return int((cost[0] if isinstance(cost, list) else cost)["flops"])
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    spec = tf.TensorSpec(x.shape)
    call = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    graph = convert_variables_to_constants_v2(call).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    found = tf.compat.v1.profiler.profile(
        graph, run_meta=tf.compat.v1.RunMetadata(), cmd="op", options=options
    )
    return int(found.total_float_ops)


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_against_the_backend(net: str) -> None:
    """The products agree to the last one; biases and activations within their number:
    each backend has a rule of its own for those."""
    if net == "mlp":
        model = kmtl.build_mlp(
            input_shape=(32,), tasks=[kmtl.Regression("a")], units=(64, 64)
        )
        products = 2 * (32 * 64 + 64 * 64 + 64)
        small = 2 * (64 + 64) + 1
    else:
        inputs = keras.Input((12, 12, 3))
        x = layers.Conv2D(8, 3, activation="relu")(inputs)
        x = layers.Conv2D(16, 3, strides=2, activation="relu")(x)
        features = layers.GlobalMaxPooling2D()(x)
        out = kmtl.TaskOutput(kmtl.Regression("a"))(layers.Dense(1)(features))
        model = kmtl.MultiTaskModel(inputs, {"a": out})
        products = 2 * (10 * 10 * 8 * 27 + 4 * 4 * 16 * 72 + 16)
        small = 2 * (800 + 256) + 256 + 1
    ours = kmtl.summary(model).total.flops
    assert ours == products + small
    theirs = by_backend(model)
    assert products <= theirs <= products + small
