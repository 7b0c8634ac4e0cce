"""PAD-Net and its multi-scale relative."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from column_tools import survives, value

import kmtl
from kmtl.layers import DeepSupervision
from kmtl.sharing import ESMM, MTINet, PADNet, Sharing

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]

TASKS = [
    kmtl.Segmentation("mask", classes=2, hidden=(3,), activation="tanh"),
    kmtl.Segmentation("part", classes=3, hidden=(3,), activation="tanh"),
    kmtl.Regression("ink"),
]


def build(sharing, **options):
    options = {"tasks": TASKS, "filters": (4, 4), "input_shape": (4, 4, 2)} | options
    return kmtl.build_cnn(sharing=sharing, seed=1, name="net", **options)


def data(rows: int = 4):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4, 4, 2)).astype("float32")
    y = {
        "mask": rng.integers(0, 2, (rows, 4, 4)),
        "part": rng.integers(0, 3, (rows, 4, 4)),
        "ink": rng.normal(size=rows),
    }
    return x, y


def conv(layer, x: np.ndarray) -> np.ndarray:
    """'same' convolution with a 3 x 3 kernel, written out."""
    kernel, bias = value(layer.kernel), value(layer.bias)
    n, h, w, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((n, h, w, kernel.shape[-1]))
    for i in range(3):
        for j in range(3):
            y += padded[:, i : i + h, j : j + w] @ kernel[i, j]
    return y + bias


def test_message_passing_against_the_paper() -> None:
    """F_i + σ(G_i * F_i) ⊙ Σ_j W_ij * F_j, and F from the initial predictions."""
    model = build(PADNet(), filters=(4,))
    x, _ = data()

    def at(*names: str) -> list[np.ndarray]:
        outputs = [model.get_layer(name).output for name in names]
        return [value(y) for y in keras.Model(model.inputs[0], outputs)(x)]

    own, logits, features = at(
        "mask_initial_activation", "mask_initial_supervision", "mask_initial_refined"
    )
    assert own.shape == (4, 2, 2, 4)
    assert logits.shape == (4, 4, 4, 1)
    soft = 1 / (1 + np.exp(-logits))
    soft = soft.reshape(4, 2, 2, 2, 2, 1).mean((2, 4))
    joined = np.concatenate([own, soft], -1)
    expected = np.maximum(conv(model.get_layer("mask_initial_refinement"), joined), 0)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    other, found = at("part_initial_refined", "mask_distillation_sum")
    gate = conv(model.get_layer("mask_distillation_attention"), features)
    message = conv(model.get_layer("mask_distillation_message"), other)
    expected = features + message / (1 + np.exp(-gate))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_messages_of_several_tasks_are_summed() -> None:
    """One convolution of all others is the sum of one per task."""
    tasks = [*TASKS[:2], kmtl.Segmentation("edge", classes=2)]
    model = build(PADNet(channels=2), tasks=tasks, filters=(4,))
    layer = model.get_layer("edge_distillation_message")
    assert layer.kernel.shape == (3, 3, 4, 2)
    assert [t.name for t in tasks[:2]] == [
        x._keras_history.operation.name.split("_")[0]
        for x in model.get_layer("edge_distillation_others").input
    ]


@pytest.mark.parametrize(
    "scheme", [PADNet(weight=0.5), MTINet(channels=3), PADNet(base="cross_stitch")]
)
def test_training_saving_and_plain_keras(scheme, tmp_path) -> None:
    # Large enough, and smooth, so that no layer of rectifiers is off altogether.
    model, (x, y) = build(scheme, pooling=None, activation="tanh"), data()
    before = [value(v).copy() for v in model.trainable_variables]
    weighting = "pcgrad" if isinstance(scheme, MTINet) else None
    model.compile(keras.optimizers.SGD(0.5), weighting=weighting)
    logs = model.fit(x, y, batch_size=4, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    assert logs["deep_supervision_loss"][0] > 0.1
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (value(variable) != old).any(), variable.path
    survives(model, tmp_path)
    config = json.loads(json.dumps(scheme.to_config()))
    assert Sharing.from_config(config) == scheme


def test_initial_predictions_get_the_weight() -> None:
    layers = build(PADNet(weight=0.25)).layers
    found = {x.task: x.weight for x in layers if isinstance(x, DeepSupervision)}
    assert found == {"mask": 0.25, "part": 0.25}


def test_scales() -> None:
    model = build(MTINet(scales=(1, 2), channels=3))
    names = {layer.name for layer in model.layers}
    for scale in (1, 2):
        assert f"part_initial{scale}_supervision" in names
    # The finer scale reads the trunk's 4 channels and the 3 of the coarser.
    assert model.get_layer("mask_initial1_conv").kernel.shape == (3, 3, 7, 3)
    assert model.get_layer("mask_initial2_conv").kernel.shape == (3, 3, 4, 3)
    assert model.get_layer("mask_scales_join").output.shape == (None, 2, 2, 6)
    one = build(MTINet(scales=(1,)), tasks=TASKS[:2])
    assert not [x.name for x in one.layers if "block2" in x.name]


def test_one_dense_task_keeps_the_seam() -> None:
    model = build(PADNet(), tasks=[TASKS[0], TASKS[2]])
    model.compile("sgd", weighting="pcgrad")
    assert model._state.plan.level == "features"
    x, y = data()
    y.pop("part")
    logs = model.fit(x, y, verbose=0).history
    assert logs["deep_supervision_loss"][0] > 0.1
    several = build(PADNet())
    several.compile("sgd", weighting="pcgrad")
    assert several._state.plan.level == "parameters"


def test_half_precision() -> None:
    full = build(PADNet())
    x, _ = data()
    for policy in ("mixed_float16", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)  # undone by the `seeded` fixture
        half = build(PADNet())
        for name, found in half(x).items():
            assert keras.backend.standardize_dtype(found.dtype) == "float32"
            np.testing.assert_allclose(found, full(x)[name], atol=0.1)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="there are none: take another scheme"):
        build(PADNet(), tasks=TASKS[2:])
    with pytest.raises(ValueError, match="needs feature maps"):
        kmtl.build_mlp(input_shape=(4, 4, 2), tasks=TASKS, sharing=PADNet())
    with pytest.raises(ValueError, match="must leave the heads to it"):
        PADNet(base=ESMM(after={"b": "a"}))
    with pytest.raises(ValueError, match="`weight` must be a number in"):
        MTINet(weight=0)
    with pytest.raises(ValueError, match="ascending order"):
        MTINet(scales=(2, 1))
    with pytest.raises(ValueError, match=r"`scales` must be an integer >= 1 and <= 2"):
        build(MTINet(scales=(3,)))
    with pytest.raises(ValueError, match="use 'pad_net' as the base"):
        build(
            kmtl.sharing.AITM(after={"part": "mask"}, base="mti_net", calibrator=0),
            tasks=[kmtl.Regression("mask"), kmtl.Regression("part")],
        )
