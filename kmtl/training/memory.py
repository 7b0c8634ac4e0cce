"""Out of memory: said in a sentence, with a size that would fit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from kmtl._devices import devices
from kmtl.typing import Model

#: What TensorFlow and JAX raise where a device has no memory left, by name: neither
#: backend is imported for the other's errors.
_KINDS = {
    "ResourceExhaustedError",
    "InternalError",  # TensorFlow's, of what XLA compiled
    "JaxRuntimeError",
    "XlaRuntimeError",
}


class OutOfMemoryError(MemoryError):
    """The device has not enough memory for a training of this size.

    Args:
        message: What happened, and what to write instead.
        fits: Batch or population size that should fit, half of the one that did not;
            None where that is 1 or not known.
    """

    def __init__(self, message: str, fits: int | None = None):
        super().__init__(message)
        self.fits = fits


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a backend says that its device has no memory left."""
    kinds = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, OutOfMemoryError):
        return True
    if not kinds & _KINDS or "No space left on device" in str(error):
        return False  # TensorFlow calls a full disk by the same name
    return "ResourceExhaustedError" in kinds or "RESOURCE_EXHAUSTED" in str(error)


def out_of_memory(what: str, size: int | None, remedy: str) -> OutOfMemoryError:
    """The error to raise.

    Args:
        what: Name of the argument that says how much is held at once.
        size: Its value; None where it is not known.
        remedy: What to do if the size cannot be halved, or besides.
    """
    fits = size // 2 if size is not None and size > 1 else None
    given = "" if size is None else f" with {what}={size}"
    half = f"{what}={fits} should fit" if fits else f"Halve the `{what}`"
    if size == 1:
        half = f"No smaller `{what}` is possible"
    return OutOfMemoryError(
        f"The device ran out of memory{given} ({devices(False).line}). "
        f"{half}; {remedy}",
        fits,
    )


@contextlib.contextmanager
def memory_advice(model: Model, batch_size: int | None, arrays: bool) -> Iterator[None]:
    """Within it an out-of-memory error of the backend becomes an `OutOfMemoryError`.

    Args:
        model: The model that trains or predicts.
        batch_size: As given.
        arrays: Whether Keras makes the batches, 32 rows each by default.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error) or isinstance(error, OutOfMemoryError):
            raise
        size = batch_size or (32 if arrays else None)
        precision = (
            ""
            if keras.config.dtype_policy().compute_dtype != "float32"
            else " keras.config.set_dtype_policy('mixed_bfloat16') before building "
            "takes about half as well."
        )
        lost = "" if _is_whole(model) else " Build or load the model again first."
        remedy = (
            "optimizer steps stay those of the larger batch with "
            "`gradient_accumulation_steps=2` in the optimizer." + precision + lost
        )
        raise out_of_memory("batch_size", size, remedy) from error


def _is_whole(model: Model) -> bool:
    """Whether the model still has its weights, taken back from a broken step."""
    if keras.backend.backend() != "jax":
        return True
    # Keras' `fit` lends its arrays to the step, which may have used them up.
    model.jax_state_sync()
    return not any(variable.value.is_deleted() for variable in model.variables)
