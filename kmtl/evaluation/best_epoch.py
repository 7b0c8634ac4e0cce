"""The weights of the best epoch, by the same rule for single- and multi-task models."""

from __future__ import annotations

import math
import sys
from typing import Any

import keras

from kmtl import _checks
from kmtl.evaluation.delta import LOG_NAME
from kmtl.tasks.base import Task
from kmtl.typing import Logs


class BestEpoch(keras.callbacks.EarlyStopping):
    """Ends training with the weights of the best epoch on the validation data.

    `kmtl.baselines` uses it for each single-task model, with the task as criterion. A
    multi-task model is compared fairly when it is trained with `BestEpoch()` as well,
    behind `DeltaM`, which writes the criterion. An epoch whose criterion is NaN (no
    labels, or a broken model) is never better than another.

    Args:
        criterion: A task (its first metric counts), or a name in the logs. Defaults to
            `"val_delta_m"`.
        patience: Stop after so many epochs without improvement, >= 1. None trains all.
        mode: `"max"` or `"min"`, for a name in the logs other than the default.

    Raises:
        ValueError: if the better direction is not known.

    Example:

    >>> from kmtl.evaluation import BestEpoch
    >>> callback = BestEpoch(kmtl.Regression("size"), patience=5)
    >>> callback.monitor, callback.mode
    ('val_size_mae', 'min')
    """

    def __init__(
        self,
        criterion: Task | str = LOG_NAME,
        *,
        patience: int | None = None,
        mode: str | None = None,
    ):
        if isinstance(criterion, Task):
            mode = criterion.score.direction
            criterion = f"val_{criterion.name}_{criterion.score.name}"
        elif criterion == LOG_NAME:
            mode = "max"
        _checks.check_choice("mode", mode, ("max", "min"))
        if patience is not None:
            patience = _checks.check_int("patience", patience, 1)
        super().__init__(
            monitor=criterion,
            mode=mode,
            patience=sys.maxsize if patience is None else patience,
            restore_best_weights=True,
        )
        self.mode = mode

    def get_monitor_value(self, logs: Logs | None) -> Any:
        value = super().get_monitor_value(logs)
        if value is not None and math.isnan(value):
            # Nothing is better than NaN in Keras' comparison, once it is the best.
            return math.inf if self.mode == "min" else -math.inf
        return value
