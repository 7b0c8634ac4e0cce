"""Saved models."""

from __future__ import annotations

from typing import Any

import keras

from kmtl import _registry
from kmtl._quick import compiling_quickly
from kmtl.typing import PathLike


@compiling_quickly
def load_model(path: PathLike, **options: Any) -> keras.Model:
    """Load a model saved with `model.save("x.keras")`.

    The same as `keras.models.load_model` after `import kmtl`. Classes of your own in it
    must have been registered (`kmtl.register`), or come from a plugin.

    Args:
        path: String or path of the `.keras` file.
        **options: What `keras.models.load_model` accepts: `custom_objects`,
            `compile`, `safe_mode`.

    Returns:
        The model, with the class it was saved with.
    """
    _registry.load_plugins()
    return keras.models.load_model(path, **options)
