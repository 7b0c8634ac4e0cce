"""Programs that run once: quickly compiled is all that they need (JAX)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import keras

_FLAG = "jax_disable_most_optimizations"
_LOCK = threading.Lock()
_depth, _before = 0, False


@contextlib.contextmanager
def quickly_compiled() -> Iterator[None]:
    """Within it (or a function that it decorates), JAX does not optimise for a CPU.

    Initial weights are drawn once, by a program for each shape, and XLA takes one to
    two seconds to optimise every one of them: of building a net for images with four
    tasks that was nine tenths. Numbers are the same within rounding. JAX has one such
    switch for all threads; what others compile meanwhile is correct, and slower.
    """
    global _depth, _before
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    if jax.default_backend() != "cpu":
        yield
        return
    with _LOCK:
        _depth += 1
        if _depth == 1:
            _before = jax.config.read(_FLAG)
            jax.config.update(_FLAG, True)
    try:
        yield
    finally:
        with _LOCK:
            _depth -= 1
            if not _depth:
                jax.config.update(_FLAG, _before)
