"""What a layer saw, kept from its call until the loss asks for it."""

from __future__ import annotations

import threading
from typing import Any


class Kept:
    """A value per thread: the replicas of `tf.distribute` run in one each, through
    the same layer object, and change places in the middle of a step."""

    def __init__(self) -> None:
        self._values: dict[int, Any] = {}

    def put(self, value: Any) -> None:
        self._values[threading.get_ident()] = value

    def look(self) -> Any:
        """The value, which stays; None if there is none."""
        return self._values.get(threading.get_ident())

    def take(self) -> Any:
        """The value, once; None if there is none."""
        return self._values.pop(threading.get_ident(), None)
