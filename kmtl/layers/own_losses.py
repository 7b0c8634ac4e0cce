"""Losses that layers add, kept apart by replica."""

from __future__ import annotations

import keras

from kmtl._private.keras import LossesOfThreads


class OwnLosses(LossesOfThreads, keras.layers.Layer):
    """Base class of layers that call `add_loss`.

    Under `tf.distribute` the replicas run through one layer object at the same time:
    what Keras keeps in one list per layer would be another replica's loss, or both.
    """
