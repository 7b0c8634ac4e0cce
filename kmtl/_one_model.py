"""Layers that belong to one model."""

from __future__ import annotations

import weakref

from kmtl.typing import Model


class OneModel:
    """Mixin of layers with state that `compile` gives to one model, for good.

    In a second model the state of the first would carry over, and each would train the
    other's. So also where the first is gone: when that is, nobody can tell. The same
    model may be compiled with the layer again.
    """

    _model: weakref.ref | None = None

    def check_is_free(self, model: Model, argument: str) -> None:
        """Refuse a layer that another model has been compiled with."""
        if self._model is not None and self._model() is not model:
            kind = type(self).__name__
            raise ValueError(
                f"`{argument}` must be a new object for every model: this {kind} "
                "belongs to another, and brings along what it learned there. Pass "
                f"{kind}(...) anew, or {kind}.from_config(old.get_config()). "
                f"Received: {argument}={self!r}"
            )

    def belong_to(self, model: Model) -> None:
        """Give the layer to a model; `check_is_free` comes before it."""
        self._model = weakref.ref(model)
