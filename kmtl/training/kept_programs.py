"""Programs that later processes need not compile again (JAX)."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

logger = logging.getLogger("kmtl")

#: Bytes of programs that are kept; the oldest go first.
MOST_BYTES = 500_000_000
#: Of compiling, from which on a program is kept (JAX's own: 1).
LEAST_SECONDS = 0.1
_LOCK = threading.RLock()


def compiled(lowered: Any, options: dict[str, Any]) -> Any:
    """`lowered.compile(options)`, or what that was in an earlier process.

    JAX's persistent cache does it, in a folder of this machine and this user alone:
    programs are made for one processor, and whoever can write there can run code here.
    A cache that the user has chosen (`JAX_COMPILATION_CACHE_DIR`) serves as it is, and
    with `JAX_ENABLE_COMPILATION_CACHE=0` nothing is kept. JAX's settings are
    those of all threads: what others compile meanwhile is kept as well.
    """
    with _LOCK:  # in which other threads have kmtl's folder there
        chosen = jax.config.jax_compilation_cache_dir is not None
    if chosen or not jax.config.jax_enable_compilation_cache:
        return lowered.compile(options)
    folder = _folder()
    if folder is None:
        return lowered.compile(options)
    try:
        with _kept_in(folder):
            return lowered.compile(options)
    except Exception as error:
        problem = str(error)
    program = lowered.compile(options)  # raises what is wrong with the program itself
    # A file that a kill left half written, or a full disk.
    logger.debug("Compiled programs in %s are removed: %s", folder, problem)
    with contextlib.suppress(OSError):
        _remove(folder, 0)
    return program


@contextlib.contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    seconds = "jax_persistent_cache_min_compile_time_secs"
    changes = {
        "jax_compilation_cache_dir": str(folder),
        seconds: min(getattr(jax.config, seconds), LEAST_SECONDS),
        # In place of a warning each time, of which nobody can be rid.
        "jax_raise_persistent_cache_errors": True,
    }
    with _LOCK:
        before = {name: getattr(jax.config, name) for name in changes}
        try:
            for name, value in changes.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()  # it looks where to be only once
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


def _folder() -> Path | None:
    """Where programs are kept; None where nothing can be, or others could write."""
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    try:
        path = Path(tempfile.gettempdir()) / f"kmtl{user}" / "programs"
        for folder in (path.parent, path):
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            if user and (found.st_uid != os.getuid() or found.st_mode & 0o022):
                logger.debug("No program is kept: others can write to %s", folder)
                return None
        if not os.access(path, os.W_OK):
            logger.debug("No program is kept: nobody can write to %s", path)
            return None
        _remove(path, MOST_BYTES)
    except OSError as error:
        logger.debug("No program is kept: %s", error)
        return None
    return path


def _remove(folder: Path, most: int) -> None:
    """Remove files, the oldest first, until fewer bytes are left; for 0 all of them."""
    files = sorted(
        ((found.st_mtime, found.st_size, path) for path, found in _files(folder)),
        reverse=True,
    )
    total = 0
    for _, size, path in files:
        total += size
        if total >= most:
            path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    # On GPUs, XLA keeps what it has tuned in a folder within it.
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            found = path.stat()
            if stat.S_ISREG(found.st_mode):
                yield path, found
