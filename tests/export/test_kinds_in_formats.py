"""Every kind of task in ONNX and LiteRT: the numbers of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract.test_contract import EXAMPLES, IMAGES, OF_STEPS
from keras import ops

import kmtl
from kmtl.export import _isolated
from kmtl.testing._models import model_of

FORMATS = {"onnx": "m.onnx", "litert": "m.tflite"}
# Kinds that differ by their options.
MORE = {
    "tagging_crf": kmtl.Tagging("t", classes=3, crf=True),
    "survival_cox": kmtl.Survival("t"),
    "ordinal_corn": kmtl.Ordinal("t", classes=4, method="corn"),
    "distribution_lognormal": kmtl.Distribution("t", family="lognormal"),
    "distribution_mixture": kmtl.Distribution("t", family="mixture"),
    "embedding_arcface": kmtl.Embedding("t", dimensions=4, loss="arcface", classes=2),
}
STEPS = (*OF_STEPS, "tagging_crf")


def tasks_of(kinds: list[str]) -> list[Any]:
    known = {kind: task for kind, (task, _) in EXAMPLES.items()} | MORE
    return [known[kind].replace(name=f"t_{kind}") for kind in kinds]


def rows_of(kind: str) -> np.ndarray:
    return IMAGES[..., 0] if kind in STEPS else IMAGES


def trained(kinds: list[str]) -> kmtl.MultiTaskModel:
    model = model_of(tasks_of(kinds), rows_of(kinds[0]))
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:  # zeros would hide mistakes
        noise = 0.1 * rng.normal(size=variable.shape)
        variable.assign(variable + noise.astype("float32"))
    return model


def run(path: Path, format: str, x: np.ndarray) -> dict[str, np.ndarray]:
    loaded = _isolated.LOADERS[format](str(path), ["serving_default"])
    return loaded["serving_default"]({"inputs": x})


def check(model: kmtl.MultiTaskModel, x: np.ndarray, found: dict) -> None:
    """The file says what the model's outputs mean."""
    outputs = model.predict(x, verbose=0)
    for task in model.tasks:
        read = task.activate(ops.convert_to_tensor(outputs[task.name]))
        parts = task.decoded(ops.convert_to_tensor(outputs[task.name]))
        wanted = {task.name: read}
        if parts is not None:
            named = parts if isinstance(parts, dict) else {"decoded": parts}
            wanted |= {f"{task.name}_{part}": value for part, value in named.items()}
        for name, value in wanted.items():
            if name not in found:  # read by what calls the file
                assert name != task.name
                continue
            given = found[name]
            np.testing.assert_allclose(
                given, ops.convert_to_numpy(value), rtol=1e-4, atol=1e-4, err_msg=name
            )


KINDS = sorted({*EXAMPLES, *MORE})


@pytest.mark.thorough
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("steps", [False, True], ids=["rows", "steps"])
def test_numbers_are_those_of_the_model(
    format: str, steps: bool, tmp_path: Path
) -> None:
    kinds = [kind for kind in KINDS if (kind in STEPS) == steps]
    model = trained(kinds)
    path = tmp_path / FORMATS[format]
    model.export(path, format=format, verbose=False)
    x = rows_of(kinds[0])[:2]
    check(model, x, run(path, format, x))
