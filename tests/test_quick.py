"""Nets are built without optimising what draws their weights, and trained with it."""

from __future__ import annotations

import threading
from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl._quick import quickly_compiled

pytestmark = pytest.mark.backend
FLAG = "jax_disable_most_optimizations"


def flag() -> bool:
    import jax

    return bool(jax.config.read(FLAG))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the switch is JAX's")
def test_only_while_a_net_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    zeros = keras.initializers.Zeros.__call__

    def draw(self: keras.Initializer, *args: Any, **options: Any) -> Any:
        seen.append(flag())
        return zeros(self, *args, **options)

    monkeypatch.setattr(keras.initializers.Zeros, "__call__", draw)
    task = kmtl.Regression("size")
    kmtl.build_mlp(input_shape=(3,), tasks=[task], units=(2,))
    assert seen == [True, True]  # two biases
    assert not flag()
    with pytest.raises(ValueError, match="seed"):
        kmtl.build_mlp(input_shape=(3,), tasks=[task], units=(2,), seed=-1)
    assert not flag()


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the switch is JAX's")
def test_until_the_last_thread_has_built() -> None:
    import jax

    inside, leave = threading.Event(), threading.Event()

    @quickly_compiled()
    def wait() -> None:
        inside.set()
        assert leave.wait(60)

    thread = threading.Thread(target=wait)
    with quickly_compiled():
        thread.start()
        assert inside.wait(60)
    assert flag()
    leave.set()
    thread.join()
    assert not flag()
    jax.config.update(FLAG, True)  # as a user has it
    try:
        with quickly_compiled():
            pass
        assert flag()
    finally:
        jax.config.update(FLAG, False)


def test_weights_are_those_of_keras() -> None:
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=[kmtl.Regression("size")], units=(37,), seed=0
    )
    layer = next(one for one in model.layers if isinstance(one, keras.layers.Dense))
    initializer = layer.kernel_initializer
    again = type(initializer).from_config(initializer.get_config())
    expected = keras.ops.convert_to_numpy(again((3, 37), "float32"))
    np.testing.assert_allclose(layer.kernel.numpy(), expected, atol=1e-7)
