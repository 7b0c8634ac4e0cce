"""A model's train step as a function of its state: compiled, compared, timed."""

from __future__ import annotations

import concurrent.futures
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras

import kmtl

THREADS = max(1, min(8, os.cpu_count() or 1))


class Step:
    """The step that `fit` runs, with the state and batch to begin with.

    Args:
        model: Compiled model, kmtl's or plain Keras.
        x, y: One batch, with all labels.
    """

    def __init__(self, model: keras.Model, x: Any, y: dict):
        self.model = model
        parts: Any = (x, y)
        if isinstance(model, kmtl.MultiTaskModel):
            if model.weighting is not None:
                model.weighting.on_fit_begin(model, parts)
            model.build_optimizer()
            parts = model.checked_arrays(parts)
            model._expect(complete=True)
        else:
            model.train_on_batch(x, y)  # makes the metrics
        model.reset_metrics()
        self.data = jax.tree.map(jnp.asarray, parts)
        self.state = tuple(
            [jnp.array(variable.value) for variable in variables]
            for variables in (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
                model.metrics_variables,
            )
        )
        self.function = jax.jit(model.train_step, donate_argnums=0)

    def lower(self, device: Any = None) -> Any:
        """Trace for a device."""
        state, data = self.on(device)
        lowered = self.function.lower(state, data)
        if isinstance(self.model, kmtl.MultiTaskModel):
            self.model._state.present = None  # a tracer by now
        return lowered

    def on(self, device: Any = None) -> tuple[Any, Any]:
        """Copies of the state, and the data, on a device."""
        state = jax.tree.map(jnp.array, self.state)
        return jax.device_put((state, self.data), device)


def compile_all(lowered: Sequence[Any]) -> list[Any]:
    """Compiled programs; XLA compiles several at a time.

    In the place of one that cannot be compiled is the error.
    """

    def compiled(one: Any) -> Any:
        try:
            return one.compile()
        except Exception as error:  # reported by who uses it; the others go on
            return error

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(compiled, lowered))


def usable(program: Any) -> Any:
    """The program; raises the error that is in its place."""
    if isinstance(program, Exception):
        raise program
    return program


def words(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def timed(call: Callable, state: Any, data: Any, steps: int, warm: int) -> dict:
    """Milliseconds per step on the same batch.

    Returns:
        `"milliseconds"`, the median of steps that each wait for the device, and
        `"in_a_row"`, the mean where only the last is waited for, as in an epoch.
    """
    for _ in range(warm):
        _, state = call(state, data)
    jax.block_until_ready(state)
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        logs, state = call(state, data)
        jax.block_until_ready((logs, state))
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    for _ in range(steps):
        logs, state = call(state, data)
    jax.block_until_ready((logs, state))
    in_a_row = (time.perf_counter() - began) / steps
    return {
        "milliseconds": 1e3 * statistics.median(seconds),
        "in_a_row": 1e3 * in_a_row,
    }


def peak_bytes(compiled: Any) -> int:
    """Device memory of a compiled step at its most: arguments, outputs, in between."""
    found = compiled.memory_analysis()
    held = found.argument_size_in_bytes + found.output_size_in_bytes
    return held - found.alias_size_in_bytes + found.temp_size_in_bytes


def matrix_peak(dtype: str, size: int) -> float:
    """Operations per second of a product of two square matrices of random numbers."""
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        product(a, a).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(seconds)
