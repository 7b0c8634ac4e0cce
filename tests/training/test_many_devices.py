"""JAX: data parallel, model parallel and several processes give one device's numbers.

Eight devices of the CPU stand for a host, two processes on this machine for two hosts.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from typing import Any

import keras
import numpy as np
import pytest

pytestmark = [
    pytest.mark.backend,
    pytest.mark.skipif(
        keras.backend.backend() != "jax", reason="keras.distribution is JAX's"
    ),
]

#: What every process trains; prints its history and the norms of its weights.
TRAIN = textwrap.dedent(
    """
    import json, sys
    import jax, keras, numpy as np
    import kmtl

    def data():
        rng = np.random.default_rng(0)
        x = rng.normal(size=(32, 6)).astype("float32")
        y = {
            "size": rng.normal(size=32).astype("float32"),
            "kind": rng.integers(0, 3, 32).astype("int32"),
        }
        y["size"][rng.random(32) < 0.5] = np.nan
        return x, y

    def train(x, y, batch, weighting="uncertainty"):
        model = kmtl.build_mlp(
            input_shape=(6,), units=(64, 8), seed=1,
            tasks=[kmtl.Regression("size"), kmtl.Classification("kind", classes=3)],
        )
        model.compile(keras.optimizers.Adam(0.01), weighting=weighting)
        history = model.fit(
            x, y, batch_size=batch, epochs=2, shuffle=False, verbose=0
        ).history
        norms = [
            float(np.linalg.norm(keras.ops.convert_to_numpy(v)))
            for v in model.trainable_variables
        ]
        return model, {"history": history, "norms": norms}

    def tell(results):
        print("RESULT" + json.dumps(results, default=float), flush=True)
    """
)
ONE_HOST = TRAIN + textwrap.dedent(
    """
    distribution = keras.distribution
    _, one = train(*data(), 16)
    distribution.set_distribution(distribution.DataParallel())
    _, split = train(*data(), 16)
    mesh = distribution.DeviceMesh((2, 4), ("batch", "model"))
    layout = distribution.LayoutMap(mesh)
    layout[".*shared_block1_dense.*kernel"] = (None, "model")
    layout[".*shared_block1_dense.*bias"] = ("model",)
    distribution.set_distribution(
        distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    )
    model, wide = train(*data(), 16)
    kernel = model.get_layer("shared_block1_dense").kernel
    parts = {shard.data.shape for shard in kernel.value.addressable_shards}
    tell([one, split, wide, [len(jax.devices()), sorted(parts)]])
    """
)
HOSTS = TRAIN + textwrap.dedent(
    """
    rank, port = int(sys.argv[1]), sys.argv[2]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize(f"localhost:{port}", 2, rank)
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(auto_shard_dataset=False)
    )
    x, y = data()  # this process's half of every batch of 16
    own = (np.arange(32) % 16) // 8 == rank
    tell(train(x[own], {name: labels[own] for name, labels in y.items()}, 8)[1])
    """
)


def start(code: str, devices: int, *arguments: Any) -> subprocess.Popen:
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def result(process: subprocess.Popen) -> Any:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    line = next(x for x in out.splitlines() if x.startswith("RESULT"))
    return json.loads(line.removeprefix("RESULT"))


def compare(found: dict, expected: dict) -> None:
    assert set(found["history"]) == set(expected["history"])
    for name, values in expected["history"].items():
        np.testing.assert_allclose(
            found["history"][name], values, rtol=1e-4, atol=1e-6, err_msg=name
        )
    np.testing.assert_allclose(found["norms"], expected["norms"], rtol=1e-4)


@pytest.fixture(scope="module")
def one_host() -> Any:
    return result(start(ONE_HOST, 8))


def test_data_and_model_parallel_equal_one_device(one_host: Any) -> None:
    one, split, wide, (devices, parts) = one_host
    assert devices == 8
    assert parts == [[6, 16]]  # the kernel of the wide block, over four devices
    compare(split, one)
    compare(wide, one)


@pytest.mark.thorough
def test_two_processes_equal_one(one_host: Any) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [start(HOSTS, 1, rank, port) for rank in range(2)]
    first, second = map(result, processes)
    assert first == second
    compare(first, one_host[0])
