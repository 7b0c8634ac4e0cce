"""Programs that run once: quickly compiled is all that they need (JAX)."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import keras

_FLAG = "jax_disable_most_optimizations"
_LOCK = threading.Lock()
_depth, _before = 0, False
_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


@contextlib.contextmanager
def quickly_compiled() -> Iterator[None]:
    """Within it, JAX does not optimise for a CPU.

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


def compiling_quickly(function: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """A function all of which is within `quickly_compiled`.

    A context manager that decorates stays in the function's closure, and such functions
    cannot be described: results of single tasks are kept under their builder.
    """

    @functools.wraps(function)
    def run(*args: _Given.args, **kwargs: _Given.kwargs) -> _Made:
        with quickly_compiled():
            return function(*args, **kwargs)

    return run
