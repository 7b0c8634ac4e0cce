"""Keeps the notices of the libraries below us off the user's screen."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


def import_backend() -> None:
    """Import Keras, and TensorFlow if it is the backend, without their greetings.

    TensorFlow's first lines (oneDNN, missing CUDA drivers) are written before its log
    level is known. They are shown after all if the import fails.
    """
    with _kept_standard_error():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices()  # the first look at devices is noisy too
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    # The Gaussian process of a search with few trials: nothing a user can act on.
    warnings.filterwarnings("ignore", module="sklearn")


@contextlib.contextmanager
def _kept_standard_error() -> Iterator[None]:
    """Hold back what the process writes to file descriptor 2, C++ included."""
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(screen, held.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)
