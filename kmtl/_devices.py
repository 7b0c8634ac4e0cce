"""What hardware and precision training will use; memory growth on GPUs.

The module has a leading underscore because `kmtl.devices` is the function: importing a
module of that name would put the module in its place.
"""

from __future__ import annotations

import csv
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger("kmtl")

BACKENDS = ("tensorflow", "jax")
NVIDIA_SMI_SECONDS = 10.0
MEBIBYTE = 2**20
GIBIBYTE = 2**30

_growth_refused: set[str] = set()  # reasons already logged


@dataclass(frozen=True)
class Accelerator:
    """One GPU or TPU.

    Args:
        name: String. The model, such as `"NVIDIA A100-SXM4-40GB"`.
        kind: `"GPU"` or `"TPU"`.
        memory: Integer, in bytes. `None` where it is not known. Defaults to `None`.
    """

    name: str
    kind: str
    memory: int | None = None

    def __str__(self) -> str:
        size = "" if self.memory is None else f", {self.memory / GIBIBYTE:.1f} GiB"
        return f"{self.kind} {self.name}{size}"


@dataclass(frozen=True)
class Devices:
    """What `kmtl.devices()` found. `print` it, or read its fields.

    Args:
        backend: `"tensorflow"` or `"jax"`.
        accelerators: Tuple of `Accelerator`. Empty when training runs on the CPU.
        cpu_cores: Integer >= 1. Cores that this process may use.
        precision: String. Keras' global dtype policy, such as `"mixed_bfloat16"`.
        jit_compile: Boolean. Whether `model.compile` compiles with XLA when it is
            not told (`jit_compile="auto"`).
        replicas: Integer >= 1. Replicas of the model under the distribution that is
            active now; a batch is divided among them.
        memory_growth: Boolean. Whether GPU memory is taken as it is needed. `None`
            where that is not TensorFlow's to decide: no GPU, or another backend.
    """

    backend: str
    accelerators: tuple[Accelerator, ...]
    cpu_cores: int
    precision: str
    jit_compile: bool
    replicas: int
    memory_growth: bool | None

    @property
    def line(self) -> str:
        """Hardware, memory and precision in a few words, for lines of progress."""
        cpu = f"CPU, {self.cpu_cores} core{'s' * (self.cpu_cores > 1)}"
        where = "; ".join(map(str, self.accelerators)) or cpu
        return f"{where}, {self.precision}, {self.backend}"

    def __str__(self) -> str:
        accelerators = "; ".join(map(str, self.accelerators)) or "none, runs on the CPU"
        rows = {
            "backend": self.backend,
            "accelerators": accelerators,
            "CPU cores": self.cpu_cores,
            "precision": self.precision,
            "jit by default": "yes" if self.jit_compile else "no",
            "replicas": self.replicas,
        }
        if self.memory_growth is not None:
            rows["memory growth"] = "yes" if self.memory_growth else "no"
        width = max(map(len, rows))
        return "\n".join(f"{key:<{width}}  {value}" for key, value in rows.items())


def devices(memory_growth: bool = True) -> Devices:
    """What training will run on, with the settings that are active now.

    Nothing is allocated: on TensorFlow the GPUs are listed, not initialised.

    Args:
        memory_growth: Boolean. Let TensorFlow take GPU memory as it is needed instead
            of nearly all of it at once; see `ensure_memory_growth`. `False` leaves
            the setting as it is. Defaults to `True`.

    Returns:
        A `Devices`.

    Raises:
        ValueError: if Keras runs on a backend other than TensorFlow or JAX.

    Example:

    >>> import kmtl
    >>> kmtl.devices().precision
    'float32'
    """
    import keras

    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise ValueError(
            f"`KERAS_BACKEND` must be one of {list(BACKENDS)}. "
            f"Received: KERAS_BACKEND={backend!r}"
        )
    if memory_growth:
        ensure_memory_growth()
    if backend == "tensorflow":
        accelerators, replicas, growth = _tensorflow_devices()
    else:
        accelerators, replicas, growth = _jax_devices()
    return Devices(
        backend=backend,
        accelerators=accelerators,
        cpu_cores=cpu_cores(),
        precision=keras.config.dtype_policy().name,
        jit_compile=_jit_by_default(backend),
        replicas=replicas,
        memory_growth=growth,
    )


def ensure_memory_growth() -> bool:
    """Let TensorFlow take GPU memory as it needs it. For before the first use of a GPU.

    Nothing is done on other backends, without a GPU, where growth is on already, where
    the environment variable `TF_FORCE_GPU_ALLOW_GROWTH` decides, and where it is too
    late because the GPUs are in use or were divided into logical ones (the reason is
    logged once, at level INFO).

    Returns:
        Whether GPU memory grows as needed, on every GPU. `False` without a GPU.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    forced = os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH")
    if forced is not None:  # TensorFlow obeys it, whatever is set from Python
        return bool(gpus) and forced.lower() in ("true", "1")
    for gpu in gpus:
        if tf.config.experimental.get_memory_growth(gpu):
            continue
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except (RuntimeError, ValueError) as error:
            reason = str(error)
            if reason not in _growth_refused:
                _growth_refused.add(reason)
                logger.info("GPU memory growth stays off for %s: %s", gpu.name, reason)
            return False
    return bool(gpus)


def _tensorflow_devices() -> tuple[tuple[Accelerator, ...], int, bool | None]:
    import tensorflow as tf

    config = tf.config.experimental
    gpus = tf.config.list_physical_devices("GPU")
    names = [
        config.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus
    ]
    accelerators = _gpus(names)
    for tpu in tf.config.list_physical_devices("TPU"):
        accelerators.append(Accelerator(tpu.name, "TPU"))
    growth: bool | None = None
    if gpus:
        forced = os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH")
        if forced is not None:
            growth = forced.lower() in ("true", "1")
        else:
            growth = all(config.get_memory_growth(gpu) for gpu in gpus)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return tuple(accelerators), replicas, growth


def peak_memory() -> int | None:
    """Most bytes of the first GPU's memory in use so far; None where nobody counts."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def _jit_by_default(backend: str) -> bool:
    """Keras' rule for `jit_compile="auto"`.

    Written again, as to ask Keras one has to compile a model, and this makes variables,
    and so initialises the GPUs.
    """
    if backend == "jax":
        return True
    import tensorflow as tf
    from tensorflow.python.framework.config import is_op_determinism_enabled

    kinds = {device.device_type for device in tf.config.list_physical_devices()}
    apple = platform.system() == "Darwin" and "arm" in platform.processor().lower()
    return bool(
        kinds - {"CPU"}
        and not tf.distribute.has_strategy()
        and not (apple and "GPU" in kinds)
        and not is_op_determinism_enabled()
    )


def _jax_devices() -> tuple[tuple[Accelerator, ...], int, bool | None]:
    import jax
    import keras

    found = jax.devices()
    accelerators = _gpus(device.device_kind for device in found if _is_gpu(device))
    accelerators += [
        Accelerator(device.device_kind, "TPU")
        for device in found
        if device.platform == "tpu"
    ]
    distribution = keras.distribution.distribution()
    replicas = 1 if distribution is None else distribution.num_model_replicas
    return tuple(accelerators), int(replicas), None


def _is_gpu(device: Any) -> bool:
    return device.platform in ("gpu", "cuda", "rocm")


def _gpus(names: Iterable[str]) -> list[Accelerator]:
    names = list(names)
    memory = _nvidia_memory() if names else {}
    return [Accelerator(name, "GPU", memory.get(name)) for name in names]


def _nvidia_memory() -> dict[str, int]:
    """Total memory in bytes by GPU model, where all GPUs of a model have the same.

    By model and not by index: CUDA and nvidia-smi number GPUs differently, and
    `CUDA_VISIBLE_DEVICES` renumbers them again.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    query = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            [program, *query],
            capture_output=True,
            text=True,
            check=True,
            timeout=NVIDIA_SMI_SECONDS,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("GPU memory sizes are not known: %s", error)
        return {}
    sizes: dict[str, set[int]] = {}
    for name, size in csv.reader(answer.splitlines(), skipinitialspace=True):
        if size.strip().isdigit():  # "[N/A]" on machines with unified memory
            sizes.setdefault(name, set()).add(int(size) * MEBIBYTE)
    return {name: size.pop() for name, size in sizes.items() if len(size) == 1}


def cpu_cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
