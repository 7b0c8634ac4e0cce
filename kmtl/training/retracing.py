"""TensorFlow's advice on tracing, where new models are trained one after another."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def no_retracing_warnings() -> Iterator[None]:
    """TensorFlow advises against tracing again, which new models need."""

    def keep(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    tensorflow = logging.getLogger("tensorflow")
    tensorflow.addFilter(keep)
    try:
        yield
    finally:
        tensorflow.removeFilter(keep)
