"""Losses that layers add, kept apart by replica."""

from __future__ import annotations

import threading
from typing import Any

import keras


class OwnLosses(keras.layers.Layer):
    """Base class of layers that call `add_loss`.

    Under `tf.distribute` the replicas run through one layer object, each in a thread of
    its own, and change places wherever one of them waits for the others. What Keras
    keeps in one list per layer would then be another replica's loss, or both.
    """

    @property
    def _losses(self) -> list:
        return self._losses_of_threads.setdefault(threading.get_ident(), [])

    @_losses.setter
    def _losses(self, value: Any) -> None:
        object.__setattr__(self, "_losses_of_threads", {})
