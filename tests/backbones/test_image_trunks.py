"""ResNet and ViT: shapes, strides, dilation, and values against plain Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.backbones import ResNet, ViT
from kmtl.testing._models import model_of

pytestmark = pytest.mark.backend

X = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
TASKS = [kmtl.Classification("a", classes=3), kmtl.Regression("b")]


def layer_named(model: keras.Model, name: str) -> keras.layers.Layer:
    return model.get_layer(f"shared_{name}")


def run(model: keras.Model, name: str) -> np.ndarray:
    """What a layer of the shared trunk gives for `X`."""
    sub = keras.Model(model.input, layer_named(model, name).output)
    return ops.convert_to_numpy(sub(X))


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_unit_is_that_of_the_paper(bottleneck: bool) -> None:
    net = ResNet(filters=(4, 8), repeats=1, bottleneck=bottleneck, dropout=None)
    model = model_of(TASKS, X, net)
    given = run(model, "block1_unit1_activation")
    count = 3 if bottleneck else 2

    def part(name: str) -> keras.layers.Layer:
        return layer_named(model, f"block2_unit1_{name}")

    x = given
    for i in range(1, count + 1):
        x = part(f"conv{i}_norm")(part(f"conv{i}_conv")(x))
        x = ops.relu(x) if i < count else x
    shortcut = part("shortcut_norm")(part("shortcut_conv")(given))
    expected = ops.convert_to_numpy(ops.relu(x + shortcut))
    np.testing.assert_allclose(run(model, "block2_unit1_activation"), expected, 1e-5)
    assert expected.shape == (2, 8, 8, 32 if bottleneck else 8)
    strided = part("conv2_conv" if bottleneck else "conv1_conv")
    assert strided.strides == (2, 2)
    assert not strided.use_bias  # the normalisation has one


def test_resnet50_is_that_of_keras() -> None:
    """As many weights as the net of `keras.applications` without its biases."""
    net = ResNet(
        filters=(64, 128, 256, 512), repeats=(3, 4, 6, 3), bottleneck=True,
        stem="imagenet", dropout=None,
    )  # fmt: skip
    inputs = keras.Input((32, 32, 3))
    x, make = inputs, kmtl.layers.LayerMaker()
    for index in range(net.num_blocks):
        x = net.block(index, x, make.part(f"block{index}"))
    ours = keras.Model(inputs, x)
    assert ours.output_shape == (None, 1, 1, 2048)
    # 23,587,712 with biases in all 53 convolutions, which have 26,560 filters.
    assert ours.count_params() == 23_587_712 - 26_560


@pytest.mark.parametrize(
    ("stride", "sides", "dilations"),
    [
        (None, (16, 8, 4), (1, 1, 1)),
        (2, (16, 8, 8), (1, 1, 2)),
        (1, (16, 16, 16), (1, 2, 4)),
    ],
)
def test_dilation_keeps_the_size(stride, sides, dilations) -> None:
    net = ResNet(filters=(4, 4, 4), repeats=2, output_stride=stride, dropout=None)
    model = model_of(TASKS, X, net)
    for i, (side, dilation) in enumerate(zip(sides, dilations, strict=True)):
        prefix = f"block{i + 1}_unit2"
        assert layer_named(model, f"{prefix}_activation").output.shape[1] == side
        conv = layer_named(model, f"{prefix}_conv1_conv")
        assert conv.dilation_rate == (dilation, dilation)


@pytest.mark.parametrize(
    ("normalization", "kind"),
    [
        ("group", keras.layers.GroupNormalization),
        ("layer", keras.layers.LayerNormalization),
        (None, None),
    ],
)
def test_normalizations(normalization: str | None, kind: type | None) -> None:
    net = ResNet(filters=(16,), repeats=1, normalization=normalization, stem="imagenet")
    model = model_of(TASKS, X, net, kmtl.sharing.MMoE(experts=2))
    kinds = [type(x).__name__ for x in model.layers if x.name.endswith("norm")]
    assert bool(kinds) == (kind is not None)
    if normalization == "group":
        (norm, *_) = [
            x for x in model.layers if isinstance(x, keras.layers.GroupNormalization)
        ]
        assert norm.groups == 4  # two of 8 channels, for each expert


def test_experts_of_attention_compute_what_one_alone_does() -> None:
    net = ViT(patch=4, width=8, blocks=1, heads=2, dropout=None)
    one = model_of(TASKS, X, net)
    two = model_of(TASKS, X, net, kmtl.sharing.MMoE(experts=2))
    bank = keras.Model(two.input, two.get_layer("experts_block1_map").output)(X)
    np.testing.assert_allclose(
        bank[..., :8], run(one, "block1_map"), rtol=1e-4, atol=1e-5
    )


def test_vit_sees_patches_and_gives_their_map() -> None:
    net = ViT(patch=4, width=8, blocks=2, heads=2, places=False, dropout=None)
    model = model_of(TASKS, X, net)
    whole = run(model, "block2_map")
    assert whole.shape == (2, 4, 4, 8)
    # Without places, patches in another order give their features in that order.
    rolled = np.roll(X, 4, axis=1)
    sub = keras.Model(model.input, layer_named(model, "block2_map").output)
    np.testing.assert_allclose(sub(rolled), np.roll(whole, 1, axis=1), atol=1e-5)
    placed = model_of(TASKS, X, ViT(patch=4, width=8, blocks=2, heads=2))
    sub = keras.Model(placed.input, layer_named(placed, "block2_map").output)
    assert np.abs(sub(rolled) - np.roll(sub(X), 1, axis=1)).max() > 1e-3


def test_refusals() -> None:
    with pytest.raises(ValueError, match="one per entry of `filters`"):
        ResNet(filters=(4, 4), repeats=(1, 2, 3))
    with pytest.raises(ValueError, match="power of two, at least 4"):
        ResNet(stem="imagenet", output_stride=2)
    with pytest.raises(ValueError, match="normalization"):
        ResNet(normalization="instance")
    with pytest.raises(ValueError, match="multiples of patch=5"):
        kmtl.build(backbone=ViT(patch=5), input_shape=(16, 16, 3), tasks=TASKS)
    with pytest.raises(ValueError, match="heads"):
        ViT(width=10, heads=4)


def test_kernel_initializers() -> None:
    head = kmtl.Regression("a", hidden=(3,), kernel_initializer="ones")
    given = keras.initializers.RandomUniform(2.0, 3.0, seed=5)
    model = kmtl.build_mlp(
        input_shape=(4,), tasks=[head, kmtl.Regression("b")], units=(5, 5), seed=0,
        sharing_depth=1, kernel_initializer=given,
    )  # fmt: skip
    kernels = {
        layer.name: ops.convert_to_numpy(layer.kernel)
        for layer in model.layers
        if hasattr(layer, "kernel")
    }
    for name, kernel in kernels.items():
        if name.startswith("a_head"):
            assert (kernel == 1).all(), name
        elif "block" in name:
            assert ((kernel >= 2) & (kernel <= 3)).all(), name
        else:
            assert (np.abs(kernel) < 2).all(), name
    first, second = kernels["a_block2_dense"], kernels["b_block2_dense"]
    np.testing.assert_array_equal(first, second)  # a block's seed
    third = kmtl.build_mlp(
        input_shape=(4,), tasks=[head], units=(5, 5), seed=1, kernel_initializer=given
    ).get_layer("shared_block1_dense")
    other = ops.convert_to_numpy(third.kernel)
    assert (kernels["shared_block1_dense"] != other).any()
    assert kmtl.Task.from_config(head.to_config()) == head
    net = kmtl.backbones.CNN(kernel_initializer=given)
    assert kmtl.backbones.Backbone.from_config(net.to_config()) == net
    with pytest.raises(ValueError, match="must be a Keras initializer"):
        kmtl.backbones.MLP(kernel_initializer="he_norml")
