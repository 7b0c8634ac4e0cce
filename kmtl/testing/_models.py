"""Small models of what is tested, trained for a step, saved and loaded."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from kmtl.backbones import CNN, MLP, ConvNet1D
from kmtl.backbones.base import Backbone
from kmtl.builders import build
from kmtl.inputs.array import Array
from kmtl.tasks.base import Task
from kmtl.typing import Inputs, Options

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

ROWS, SIDE = 6, 5
# On TensorFlow the last batch is a part of one; JAX compiles each shape for seconds.
BATCH = {"tensorflow": 4, "jax": 3}
IMAGES = np.random.default_rng(0).random((ROWS, SIDE, SIDE, 1)).astype("float32")
VECTORS = IMAGES[:, :, 0, 0]


def one_array(x: Inputs) -> np.ndarray:
    """The inputs, or the first of them."""
    return np.asarray(next(iter(x.values())) if isinstance(x, Mapping) else x)


def model_of(
    tasks: Sequence[Task],
    x: Inputs,
    backbone: Backbone | None = None,
    sharing: Any = None,
) -> MultiTaskModel:
    """A small model for these inputs, on a trunk of two blocks by default.

    Args:
        x: One array, or a dict input name -> array.
    """
    if isinstance(x, Mapping):
        arrays: Any = {
            name: Array(part.shape[1:], scale=None) for name, part in x.items()
        }
        net: Any = backbone
        return build(
            backbone=net, inputs=arrays, tasks=tasks, sharing=sharing or "hard", seed=0
        )
    if backbone is None:
        small: dict[int, Any] = {
            3: ConvNet1D(filters=(3, 4), pooling=None),
            4: CNN(filters=(3, 4)),
        }
        backbone = small.get(x.ndim) or MLP(units=(4, 3))
    return build(
        backbone=backbone,
        input_shape=x.shape[1:],
        tasks=tasks,
        sharing=sharing or "hard",
        seed=0,
    )


def through_json(config: Options) -> Any:
    """The config as a file would give it back."""
    return json.loads(json.dumps(config))


def check_outputs(outputs: Mapping[str, Any]) -> None:
    """Outputs are finite and in float32."""
    for name, output in outputs.items():
        assert np.isfinite(ops.convert_to_numpy(output)).all(), name
        assert keras.backend.standardize_dtype(output.dtype) == "float32", name


def exercise(
    model: MultiTaskModel, x: Inputs, labels: Mapping[str, np.ndarray]
) -> None:
    """Train a step, evaluate without any label, save, and load."""
    model.compile(keras.optimizers.SGD(0.01))
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    batch = BATCH[keras.backend.backend()]
    history = model.fit(x, dict(labels), batch_size=batch, verbose=0).history
    assert all(np.isfinite(value[0]) for value in history.values()), history
    for variable, old in zip(model.trainable_variables, before, strict=True):
        moved = (ops.convert_to_numpy(variable) != old).any()
        assert moved, f"no gradient reaches {variable.path}"
    empty = {name: np.full(values.shape, np.nan) for name, values in labels.items()}
    logs = model.evaluate(x, empty, return_dict=True, verbose=0)
    # Sums over the tasks: without labels they are 0.
    sums = ("regularization_loss", "deep_supervision_loss")
    rest = sum(logs.pop(name, 0.0) for name in sums)
    np.testing.assert_allclose(logs.pop("loss"), rest, rtol=1e-6)
    for name, value in logs.items():
        assert np.isnan(value), f"{name}={value} without labels"
    outputs = model.predict(x, verbose=0)
    check_outputs(outputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded: Any = keras.models.load_model(path)
    assert loaded.tasks == model.tasks
    for name, output in loaded.predict(x, verbose=0).items():
        # (Kernels on several threads add up in any order.)
        np.testing.assert_allclose(output, outputs[name], rtol=1e-4, atol=1e-5)
