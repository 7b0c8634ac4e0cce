"""A `PyDataset` that passes on what another one gives."""

from __future__ import annotations

import keras

from kmtl.typing import Batch


class PassedOn(keras.utils.PyDataset):
    """The batches of another data set, in its order, with its workers.

    Args:
        source: The data set.
    """

    def __init__(self, source: keras.utils.PyDataset):
        super().__init__(
            workers=source.workers,
            use_multiprocessing=source.use_multiprocessing,
            max_queue_size=source.max_queue_size,
        )
        self.source = source

    @property
    def num_batches(self) -> int | None:
        return self.source.num_batches

    def __getitem__(self, index: int) -> Batch:
        return self.source[index]

    def on_epoch_begin(self) -> None:
        self.source.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.source.on_epoch_end()
