"""Shared fixtures, and the limits that let several test processes share a machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import long_tests
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
GIGABYTES_PER_WORKER = 2  # a worker with TensorFlow and JAX loaded holds about one
MOST_WORKERS = 8

# All of these are read when a backend is first imported, so they are set here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    # One process per core already: more threads in each would only contend.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# Fixed examples, and none that fails for a slow machine.
hypothesis.settings.register_profile(
    "kmtl",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("kmtl")


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers for `-n auto`: none for one file, else by cores and free memory."""
    asked = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    if asked:
        return int(asked)
    if len(config.args) == 1 and config.args[0].split("::")[0].endswith(".py"):
        return 0
    import psutil

    memory = psutil.virtual_memory().available // 2**30 // GIGABYTES_PER_WORKER
    return max(1, min(available_cores(), memory, MOST_WORKERS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The runs on JAX are by far the longest tests: they start first."""
    items.sort(key=lambda item: not item.path.name.startswith("test_jax_backend"))
    if os.environ.get("KMTL_THOROUGH"):
        return
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        # Nets of a few numbers run a few steps: TensorFlow's rewriting of each graph
        # before its first step is a fifth of the whole run. With KMTL_THOROUGH, in the
        # README's commands and in all processes that tests start, it is on.
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    skip = pytest.mark.skip(reason="takes long; set KMTL_THOROUGH=1 to run it")
    for item in items:
        mark = item.get_closest_marker("thorough")
        on = mark.kwargs.get("on") if mark else None
        test = item.nodeid.removeprefix("tests/")
        if (mark and on in (None, backend)) or long_tests.left_out(test, backend):
            item.add_marker(skip)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the test's fixtures, which may train as well."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        eager = not os.environ.get("KMTL_THOROUGH") and long_tests.runs_eagerly(
            item.nodeid.removeprefix("tests/")
        )
        if tf.config.functions_run_eagerly() != eager:
            tf.config.run_functions_eagerly(eager)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Seed Python, NumPy and the backend, and undo a changed dtype policy."""
    import keras

    keras.utils.set_random_seed(0)
    policy = keras.config.dtype_policy()
    yield
    if keras.config.dtype_policy() != policy:
        keras.config.set_dtype_policy(policy)


def _data_dir() -> Path | None:
    """`KMTL_DATA_DIR`, else a folder of data sets beside the repository."""
    given = os.environ.get("KMTL_DATA_DIR")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the real data sets; the test is skipped where there is none."""
    folder = _data_dir()
    if folder is None:
        pytest.skip("no data sets here: set KMTL_DATA_DIR to a folder that has them")
    return folder


@pytest.fixture(scope="session")
def tfds_data_dir() -> Path:
    """A tensorflow-datasets folder with prepared sets; skips where there is none."""
    given = os.environ.get("TFDS_DATA_DIR")
    shared = _data_dir()
    folder = Path(given) if given else shared / "tfds" if shared else None
    if folder is None or not folder.is_dir():
        pytest.skip("no prepared tfds sets here: set TFDS_DATA_DIR to their folder")
    return folder
