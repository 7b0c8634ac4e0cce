"""Runs tests marked `backend` a second time, on JAX.

The backend is chosen when Keras is imported, so this takes a process of its own.
"""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import pytest

import kmtl

REPOSITORY = Path(__file__).resolve().parents[1]
MOST_LINES = 400
CACHE_BYTES = 500 * 2**20
#: Two passes of about the same length, which a run with workers has side by side.
PASSES = 2
FIRST = [
    "tests/weighting",
    "tests/contract",
    "tests/training/test_gradient_weightings.py",
]

skip_where_impossible = [
    pytest.mark.skipif(
        importlib.util.find_spec("jax") is None,
        reason="JAX is not installed: pip install '.[jax]'",
    ),
    pytest.mark.skipif(
        keras.backend.backend() == "jax", reason="these tests run on JAX already"
    ),
]


def files_with_the_mark(but: Sequence[str]) -> list[str]:
    """Files of tests that name the mark: the others need not be imported."""
    files = sorted((REPOSITORY / "tests").rglob("test_*.py"))
    paths = [file.relative_to(REPOSITORY).as_posix() for file in files]
    return [
        path
        for path in paths
        if not path.startswith(tuple(but))
        and "mark.backend" in (REPOSITORY / path).read_text("utf-8")
    ]


def run_on_jax(files: Sequence[str], request: pytest.FixtureRequest) -> None:
    """Fails with the end of the other processes' output, if a test fails there.

    With KMTL_THOROUGH each folder has a process of its own: what JAX compiles stays in
    memory, and after some thousand programs it fails to write one into its cache.
    """
    groups: dict[str, list[str]] = {}
    for file in files:
        part = file.split("/")[1] if os.environ.get("KMTL_THOROUGH") else ""
        groups.setdefault(part, []).append(file)
    failed = [text for own in groups.values() if (text := _failure(own, request))]
    if failed:
        pytest.fail("\n".join(failed), pytrace=False)


def _failure(arguments: Sequence[str], request: pytest.FixtureRequest) -> str:
    """What a run of some files on JAX said, where a test failed; else nothing."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "TF_NUM_", "OMP_NUM_"))
    }
    environment["KERAS_BACKEND"] = "jax"
    # Nets of a few numbers run once: code that is quick to make beats quick code.
    flags = [environment.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0"]
    flags.append("--xla_llvm_disable_expensive_passes=true")
    environment["XLA_FLAGS"] = " ".join(flags).strip()
    # Most of the time goes into compiling: nothing is compiled twice, here or in the
    # next run.
    cache = Path(tempfile.gettempdir()) / f"kmtl-tests-jax-{getpass.getuser()}"
    if sum(file.stat().st_size for file in cache.glob("*")) > CACHE_BYTES:
        shutil.rmtree(cache, ignore_errors=True)
    environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    environment["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    # In a run of N workers this one stands for its share of the cores only.
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")) // (2 * PASSES)
    command = [sys.executable, "-P", "-m", "pytest", "-m", "backend", *arguments]
    command += ["-n", str(workers if workers > 1 else 0), "-q", "--color=no"]
    command += ["-p", "no:cacheprovider"]
    if request.config.option.markexpr == "not slow":
        command[command.index("backend")] = "backend and not slow"
    if Path(kmtl.__file__).parents[1] == REPOSITORY:  # not installed, but on the path
        paths = [str(REPOSITORY), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    finished = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = finished.stdout.splitlines()
    if finished.returncode:
        return "\n".join(lines[-MOST_LINES:])
    assert "passed" in lines[-1]
    return ""
