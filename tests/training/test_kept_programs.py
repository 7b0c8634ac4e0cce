"""Programs that were compiled once are found again, by this user and machine alone."""

from __future__ import annotations

import concurrent.futures
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

pytestmark = [
    pytest.mark.backend,
    pytest.mark.skipif(
        keras.backend.backend() != "jax", reason="programs of epochs are JAX's"
    ),
]


@pytest.fixture
def hits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the cache found, one name each, in a machine without any programs."""
    import jax

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    changes = {
        "jax_compilation_cache_dir": None,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in changes}
    for name, value in changes.items():
        jax.config.update(name, value)
    found: list[str] = []

    def listen(event: str, **_: Any) -> None:
        if event.endswith(("/cache_hits", "/cache_misses")):
            found.append(event.rsplit("_", 1)[-1])

    jax.monitoring.register_event_listener(listen)
    yield found
    jax.monitoring.unregister_event_listener(listen)
    for name, value in before.items():
        jax.config.update(name, value)


def result() -> np.ndarray:
    """What a program computes that is traced anew each time."""
    import jax
    import jax.numpy as jnp

    from kmtl.training import kept_programs

    def step(x: Any) -> Any:
        return jnp.tanh(x @ x.T).sum(axis=0)

    x = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
    options = {"xla_backend_optimization_level": 1}
    return np.asarray(kept_programs.compiled(jax.jit(step).lower(x), options)(x))


def programs(folder: Path) -> list[Path]:
    return sorted(folder.glob("kmtl*/programs/*-cache"))


def test_programs_are_found_again(hits: list[str], tmp_path: Path) -> None:
    import jax

    first = result()
    assert hits == ["misses"]
    assert len(programs(tmp_path)) == 1
    np.testing.assert_array_equal(result(), first)
    assert hits == ["misses", "hits"]
    # Only for the programs of a search: what users compile is where they want it.
    assert jax.config.jax_compilation_cache_dir is None
    assert not jax.config.jax_raise_persistent_cache_errors
    jax.jit(lambda x: x * 3.25 + 1)(np.arange(5.0))
    assert len(programs(tmp_path)) == 1


def test_a_broken_file_is_compiled_anew(hits: list[str], tmp_path: Path) -> None:
    first = result()
    [file] = programs(tmp_path)
    file.write_bytes(file.read_bytes()[:50])  # as a kill leaves it
    np.testing.assert_array_equal(result(), first)
    assert not programs(tmp_path)
    np.testing.assert_array_equal(result(), first)
    assert programs(tmp_path) == [file]


def test_what_the_user_has_chosen_serves(
    hits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_enable_compilation_cache", False)
    try:
        result()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert not hits
    assert not (tmp_path / "own").exists()
    compilation_cache.set_cache_dir(str(tmp_path / "own"))
    compilation_cache.reset_cache()
    try:
        result()
    finally:
        compilation_cache.set_cache_dir(None)
        compilation_cache.reset_cache()
    assert len(list((tmp_path / "own").glob("*-cache"))) == 1
    assert not programs(tmp_path)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users of a system")
def test_no_program_of_others_is_run(hits: list[str], tmp_path: Path) -> None:
    folder = tmp_path / f"kmtl-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    result()
    assert not hits
    assert not programs(tmp_path)
    folder.chmod(0o700)
    (folder / "programs").symlink_to(tmp_path)  # where others may write
    result()
    assert not hits


def test_the_oldest_go_first(
    hits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kmtl.training import kept_programs

    result()
    [file] = programs(tmp_path)
    old = file.with_name("old-cache")
    old.write_bytes(b"0" * 100)
    os.utime(old, (1, 1))
    size = file.stat().st_size
    monkeypatch.setattr(kept_programs, "MOST_BYTES", size + 99)
    result()
    assert programs(tmp_path) == [file]


def test_without_a_place_programs_are_compiled(
    hits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = result()
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    np.testing.assert_array_equal(result(), first)


def test_no_temporary_folder_is_no_trouble(
    hits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", missing)
    result()
    assert not hits


def test_programs_are_compiled_once_where_nobody_can_write(
    hits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # also for root
    result()
    assert hits == ["misses"]


def test_errors_of_programs_come_through(hits: list[str], tmp_path: Path) -> None:
    """And cost nothing that is kept, nor are they hidden by what cannot be removed."""
    from kmtl.training import kept_programs

    result()
    kept = programs(tmp_path)

    class Lowered:
        def compile(self, options: dict[str, Any]) -> Any:
            raise MemoryError("RESOURCE_EXHAUSTED")

    with pytest.raises(MemoryError, match="RESOURCE_EXHAUSTED"):
        kept_programs.compiled(Lowered(), {})
    assert programs(tmp_path) == kept


def test_folders_within_it_are_left(hits: list[str], tmp_path: Path) -> None:
    """As XLA makes one on GPUs."""
    first = result()
    [file] = programs(tmp_path)
    tuned = file.parent / "xla_gpu_per_fusion_autotune_cache_dir" / "tuned"
    tuned.parent.mkdir()
    tuned.touch()
    file.write_bytes(b"")  # as a full disk leaves it
    np.testing.assert_array_equal(result(), first)
    assert not programs(tmp_path)
    assert not tuned.exists()


def test_threads_wait_to_see_what_the_user_has_chosen(
    hits: list[str], tmp_path: Path
) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: result(), range(8)))
    assert all(np.array_equal(one, found[0]) for one in found)
    assert hits == ["misses"] + ["hits"] * 7
