"""`kmtl.devices()` and memory growth, with stand-ins for the GPUs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import keras
import pytest

import kmtl
from kmtl import _devices

MIB = 2**20


@pytest.mark.backend
def test_fields_say_what_is_active() -> None:
    found = kmtl.devices()
    assert found.backend == keras.backend.backend()
    assert found.cpu_cores == len(os.sched_getaffinity(0))
    assert found.replicas == 1
    assert found.precision == "float32"
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert kmtl.devices().precision == "mixed_bfloat16"


@pytest.mark.backend
def test_jit_is_what_keras_chooses() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert kmtl.devices().jit_compile == model.jit_compile


@pytest.mark.backend
def test_text_has_a_row_per_field() -> None:
    gpus = (_devices.Accelerator("A", "GPU", 2**34), _devices.Accelerator("B", "TPU"))
    found = _devices.Devices("tensorflow", gpus, 4, "float32", True, 2, True)
    assert str(found).splitlines() == [
        "backend         tensorflow",
        "accelerators    GPU A, 16.0 GiB; TPU B",
        "CPU cores       4",
        "precision       float32",
        "jit by default  yes",
        "replicas        2",
        "memory growth   yes",
    ]
    assert found.line == "GPU A, 16.0 GiB; TPU B, float32, tensorflow"
    none = _devices.Devices("jax", (), 1, "float32", True, 1, None)
    assert "none, runs on the CPU" in str(none)
    assert none.line == "CPU, 1 core, float32, jax"
    assert "memory growth" not in str(none)


@pytest.mark.backend
def test_other_backends_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="Received: KERAS_BACKEND='torch'"):
        kmtl.devices()


class FakeGpus:
    """TensorFlow's view of GPUs that are not there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        tf = pytest.importorskip("tensorflow")
        self.gpus = [
            SimpleNamespace(name=f"/gpu:{index}", device_type="GPU")
            for index in range(count)
        ]
        self.growth = dict.fromkeys((gpu.name for gpu in self.gpus), False)
        self.error: Exception | None = None
        config, experimental = tf.config, tf.config.experimental
        monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
        monkeypatch.setattr(config, "list_physical_devices", self.list)
        monkeypatch.setattr(experimental, "get_memory_growth", self.get)
        monkeypatch.setattr(experimental, "set_memory_growth", self.set)
        monkeypatch.setattr(
            experimental, "get_device_details", lambda gpu: {"device_name": "Fast GPU"}
        )
        monkeypatch.setattr(_devices, "_growth_refused", set())
        monkeypatch.setattr(_devices, "_nvidia_memory", lambda: {"Fast GPU": 8 * MIB})

    def list(self, kind: str | None = None) -> list[Any]:
        return self.gpus if kind in ("GPU", None) else []

    def get(self, gpu: Any) -> bool:
        return self.growth[gpu.name]

    def set(self, gpu: Any, value: bool) -> None:
        if self.error is not None:
            raise self.error
        self.growth[gpu.name] = value


needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="about TensorFlow's settings"
)


@needs_tensorflow
def test_growth_is_turned_on_for_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeGpus(monkeypatch, 2)
    assert _devices.ensure_memory_growth()
    assert fake.growth == {"/gpu:0": True, "/gpu:1": True}
    fake.error = RuntimeError("must not be set twice")
    assert _devices.ensure_memory_growth()


@needs_tensorflow
def test_devices_turns_growth_on_unless_told_not_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FakeGpus(monkeypatch, 1)
    assert kmtl.devices(memory_growth=False).memory_growth is False
    found = kmtl.devices()
    assert found.memory_growth is True
    assert found.accelerators == (_devices.Accelerator("Fast GPU", "GPU", 8 * MIB),)


@needs_tensorflow
def test_jit_with_a_gpu_is_what_keras_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    FakeGpus(monkeypatch, 1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert model.jit_compile is True
    assert kmtl.devices().jit_compile is True
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        assert model.jit_compile is False
        assert kmtl.devices().jit_compile is False


@needs_tensorflow
@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_too_late_is_logged_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
) -> None:
    fake = FakeGpus(monkeypatch, 1)
    fake.error = kind("Physical devices cannot be modified")
    with caplog.at_level(logging.INFO, logger="kmtl"):
        assert not _devices.ensure_memory_growth()
        assert not _devices.ensure_memory_growth()
    assert caplog.messages == [
        "GPU memory growth stays off for /gpu:0: Physical devices cannot be modified"
    ]


@needs_tensorflow
@pytest.mark.parametrize(("value", "growing"), [("true", True), ("false", False)])
def test_environment_decides(
    monkeypatch: pytest.MonkeyPatch, value: str, growing: bool
) -> None:
    fake = FakeGpus(monkeypatch, 1)
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", value)
    assert _devices.ensure_memory_growth() is growing
    assert fake.growth == {"/gpu:0": False}
    assert kmtl.devices().memory_growth is growing


@needs_tensorflow
def test_without_a_gpu_there_is_nothing_to_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FakeGpus(monkeypatch, 0)
    assert not _devices.ensure_memory_growth()
    assert kmtl.devices().memory_growth is None
    assert kmtl.devices().accelerators == ()


@needs_tensorflow
def test_replicas_of_a_strategy_and_nothing_initialised() -> None:
    """Two logical CPUs in a new process; listing must come before that, too."""
    code = (
        "import kmtl, tensorflow as tf\n"
        "before = kmtl.devices().replicas\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "two = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, two)\n"  # fails if initialised
        "with tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1']).scope():\n"
        "    print(before, kmtl.devices().replicas)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert finished.stdout == "1 2\n"


@pytest.mark.backend
def test_replicas_on_jax() -> None:
    if keras.backend.backend() != "jax":
        pytest.skip("keras.distribution is JAX's")
    distribution = keras.distribution.DataParallel(devices=["cpu:0"])
    with distribution.scope():
        assert kmtl.devices().replicas == 1


@pytest.mark.backend
def test_gpus_on_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    jax = pytest.importorskip("jax")
    platforms = [("cuda", "Fast GPU"), ("tpu", "TPU v4"), ("cpu", "cpu")]
    fakes = [SimpleNamespace(platform=p, device_kind=kind) for p, kind in platforms]
    monkeypatch.setattr(jax, "devices", lambda: fakes)
    monkeypatch.setattr(_devices, "_nvidia_memory", lambda: {})
    accelerators, replicas, growth = _devices._jax_devices()
    assert [str(one) for one in accelerators] == ["GPU Fast GPU", "TPU TPU v4"]
    assert (replicas, growth) == (1, None)


@pytest.mark.backend
def test_peak_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _devices.peak_memory() is None  # of a CPU
    if keras.backend.backend() == "jax":
        import jax

        fake = SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 3 * MIB})
        monkeypatch.setattr(jax, "local_devices", lambda: [fake])
    else:
        import tensorflow as tf

        FakeGpus(monkeypatch, 1)
        information = {"current": MIB, "peak": 3 * MIB}
        experimental = tf.config.experimental
        monkeypatch.setattr(experimental, "get_memory_info", lambda name: information)
    assert _devices.peak_memory() == 3 * MIB


@pytest.mark.backend
@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("Fast GPU, 81559\nFast GPU, 81559\n", {"Fast GPU": 81559 * MIB}),
        ("Fast GPU, 40960\nFast GPU, 81920\nOld, 8\n", {"Old": 8 * MIB}),  # which one?
        ("Fast GPU, [N/A]\n", {}),
        ("", {}),
    ],
)
def test_memory_by_model(
    monkeypatch: pytest.MonkeyPatch, printed: str, expected: dict[str, int]
) -> None:
    monkeypatch.setattr(_devices.shutil, "which", lambda name: "/bin/nvidia-smi")
    monkeypatch.setattr(
        _devices.subprocess, "run", lambda *args, **kw: SimpleNamespace(stdout=printed)
    )
    assert _devices._nvidia_memory() == expected


@pytest.mark.backend
def test_memory_is_unknown_where_nvidia_smi_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(_devices.shutil, "which", lambda name: "/bin/nvidia-smi")
    monkeypatch.setattr(_devices.subprocess, "run", fail)
    assert _devices._nvidia_memory() == {}
    monkeypatch.setattr(_devices.shutil, "which", lambda name: None)
    assert _devices._nvidia_memory() == {}
