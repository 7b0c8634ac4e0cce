"""Saved models."""

from __future__ import annotations

from typing import Any

import keras


def load_model(path: Any, **options: Any) -> keras.Model:
    """Load a model saved with `model.save("x.keras")`.

    The same as `keras.models.load_model` after `import kmtl`.

    Args:
        path: String or path of the `.keras` file.
        **options: What `keras.models.load_model` accepts: `custom_objects`,
            `compile`, `safe_mode`.

    Returns:
        The model, with the class it was saved with.
    """
    return keras.models.load_model(path, **options)
