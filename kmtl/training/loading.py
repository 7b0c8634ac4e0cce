"""Saved models."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras

from kmtl import _files, _registry
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

    Raises:
        ValueError: for a path at which there is no model, and as a
            `kmtl.DamagedFileError` for a file that is none.
    """
    _registry.load_plugins()
    is_file = str(path).endswith(".keras") and Path(path).is_file()
    if is_file and not zipfile.is_zipfile(path):  # Keras says that there is none
        raise _files.DamagedFileError(
            path, "it is no archive", "Save the model again, or take another copy."
        )
    return keras.models.load_model(path, **options)
