"""Registrations that last for one test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from kmtl import _registry


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """What is registered inside is forgotten after it, in kmtl and in Keras."""
    for kind in _registry.KINDS:
        _registry.names(kind)  # load all
    classes = {kind: dict(known) for kind, known in _registry._classes.items()}
    found = keras.saving.get_custom_objects()
    before = dict(found)
    yield
    _registry._classes.update(classes)
    found.clear()
    found.update(before)
