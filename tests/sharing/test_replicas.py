"""Two replicas with half the batch give what one gives, for every sharing scheme.

The schemes, their tasks and trunks are those of the contract tests. Not marked
`backend`: on JAX a replica is no program of its own, and tests/training covers that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from kmtl import _registry

CONTRACT = Path(__file__).resolve().parents[1] / "contract" / "test_contract.py"
#: One that has no variables but the blocks', and one whose loss on the gates' use is
#: of the whole batch.
QUICK = ["hard", "sparse_moe"]
#: What makes a scheme draw no random numbers and use no moments of a replica's batch.
CALM = {
    "sparse_moe": {"noise": False},
    "nddr": {"normalization": None},
    "mtan": {"normalization": None},
}

SCRIPT = textwrap.dedent(
    """
    import dataclasses, importlib.util, json, pathlib, sys
    import numpy as np
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    import keras
    import kmtl
    from kmtl.layers import Recorded
    from kmtl.layers.choice import Choice

    path, names, calm = json.loads(sys.argv[1])
    sys.path += [str(pathlib.Path(path).parents[1])]  # the tests' own tools
    spec = importlib.util.spec_from_file_location("contract", path)
    contract = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(contract)

    x = np.concatenate([contract.IMAGES, 1 - contract.IMAGES])

    # One for all: strategies number their collective operations alike, and TensorFlow
    # remembers the shapes by number.
    strategies = {
        replicas: tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
        for replicas in (1, 2)
    }

    def train(name, replicas):
        tasks, labels = contract.scheme_tasks(name)
        y = {}
        for task, values in labels.items():
            y[task] = np.concatenate([values, values[::-1]]).astype("float64")
        y[tasks[0].name][:4] = np.nan  # the first replica has none of this task
        scheme = contract.sharing(name, tasks)
        scheme = dataclasses.replace(scheme, **calm.get(name, {}))
        trunk = contract.backbone(contract.SCHEME_TRUNKS.get(name, "mlp"), name)
        # Both are of a replica's own part of the batch.
        trunk = dataclasses.replace(trunk, dropout=None, normalization=None)
        with strategies[replicas].scope():
            model = kmtl.build(
                backbone=trunk, input_shape=x.shape[1:], tasks=tasks, sharing=scheme,
                seed=0,
            )
            model.compile(keras.optimizers.SGD(0.1))
        layers = list(model._flatten_layers(include_self=False))
        if any(
            isinstance(value, keras.random.SeedGenerator)
            for layer in layers for value in vars(layer).values()
            if not isinstance(layer, Choice)  # one draw for all rows
        ):
            return None
        # Batches of eight and of four rows.
        history = model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history
        weights = {
            v.path: keras.ops.convert_to_numpy(v).ravel()[:6].tolist()
            for v in model.trainable_variables
        }
        readings = {
            f"{layer.name} {key}": np.asarray(value).ravel().tolist()
            for layer in layers if isinstance(layer, Recorded)
            for key, value in layer.readings().items()
        }
        return {"history": history, "weights": weights, "readings": readings}

    found = {name: [train(name, replicas) for replicas in (1, 2)] for name in names}
    print("RESULT" + json.dumps(found, default=float))
    """
)


@pytest.mark.parametrize("names", [QUICK], ids=", ".join)
def test_two_replicas_equal_one(names: list[str]) -> None:
    assert all(compare(name, *pair) for name, pair in trained(names).items())


@pytest.mark.slow
@pytest.mark.thorough
def test_every_scheme_that_draws_nothing() -> None:
    found = trained([n for n in _registry.names("sharing") if n not in QUICK])
    assert [name for name, pair in found.items() if not compare(name, *pair)] == []


def trained(names: list[str]) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([str(CONTRACT), names, CALM])],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(x for x in done.stdout.splitlines() if x.startswith("RESULT"))
    return json.loads(line.removeprefix("RESULT"))


def compare(name: str, one: dict | None, two: dict | None) -> bool:
    """Whether there was something to compare; it was equal."""
    if one is None or two is None:
        assert one is two
        return False
    for kind, values in one.items():
        assert values.keys() == two[kind].keys()
        for key, expected in values.items():
            np.testing.assert_allclose(
                two[kind][key],
                expected,
                rtol=2e-3,
                atol=2e-5,
                err_msg=f"{name}: {kind} {key}",
            )
    moved = any(np.ptp(np.abs(values)) > 0 for values in one["weights"].values())
    assert moved
    return True
