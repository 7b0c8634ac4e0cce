"""What a head knows beside its outputs, and its task's loss needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from kmtl.layers.kept import Kept
from kmtl.typing import Config, Tensor


class WithBeside(NamedTuple):
    """Outputs as a loss takes them, and what their head keeps beside them."""

    outputs: Tensor
    beside: Tensor


class Beside(keras.layers.Layer):
    """Base class of layers in a head that keep a tensor for the loss of a task.

    The task gets it in `loss_values_beside`, in training and in validation; it is no
    output, so that nothing of it is exported.

    Args:
        task: Name of the task.
    """

    def __init__(self, task: str, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.task = task
        self._kept = Kept()

    def keep(self, beside: Tensor) -> None:
        """To be called in `call`.

        Args:
            beside: `(N, ...)`, the rows of the outputs.
        """
        self._kept.put(beside)

    def look(self) -> Tensor:
        """What the last call kept."""
        return self._kept.look()

    def get_config(self) -> Config:
        return {**super().get_config(), "task": self.task}
