"""A callback that keeps what gates did in every epoch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import keras

from kmtl.inspection.readings import COLUMNS, gates, recorded_layers
from kmtl.typing import Logs

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger("kmtl")


class GateRecorder(keras.callbacks.Callback):
    """Records the readings of all gates, stitches and branches in every epoch.

    The readings are reset when an epoch begins, so that those of a gate are means over
    the examples of one epoch. After `fit`, and after every epoch, the record is
    `history.gates`, where `history` is what `fit` returns, and the callback's `frame`.

    Args:
        every: Integer >= 1: record each such epoch and the last one. Defaults to 1.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(1,), tasks=tasks, units=(4,), sharing="cross_stitch"
    ... )
    >>> model.compile("adam")
    >>> x = np.linspace(0, 1, 8, dtype="float32")[:, None]
    >>> history = model.fit(
    ...     x, {"a": x, "b": -x}, epochs=2, verbose=0,
    ...     callbacks=[kmtl.inspection.GateRecorder()],
    ... )
    >>> list(history.gates.columns)
    ['epoch', 'layer', 'reading', 'row', 'entry', 'value']
    >>> sorted(set(history.gates["epoch"]))
    [1, 2]
    """

    def __init__(self, every: int = 1):
        from kmtl._checks import check_int

        super().__init__()
        self.every = check_int("every", every, 1)
        self._frames: dict[int, pandas.DataFrame] = {}

    @property
    def frame(self) -> pandas.DataFrame:
        """A pandas DataFrame with a row per number: `epoch` (from 1), `layer`,
        `reading`, `row`, `entry` and `value`."""
        import pandas

        if not self._frames:
            return pandas.DataFrame(columns=["epoch", *COLUMNS])
        return pandas.concat(
            [found.assign(epoch=epoch) for epoch, found in self._frames.items()],
            ignore_index=True,
        )[["epoch", *COLUMNS]]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if not recorded_layers(self.model):
            logger.warning(
                "GateRecorder has nothing to record: no layer of model '%s' is a "
                "kmtl.layers.Recorded.",
                self.model.name,
            )

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        for layer in recorded_layers(self.model):
            layer.reset_readings()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        epochs = (self.params or {}).get("epochs")
        if (epoch + 1) % self.every and epoch + 1 != epochs:
            return
        self._frames[epoch + 1] = gates(self.model).frame
        if getattr(self.model, "history", None) is not None:
            self.model.history.gates = self.frame
