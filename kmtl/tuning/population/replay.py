"""A trial that has trained in a population, told to callbacks as `fit` would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from kmtl.training.guards import NonFiniteError
from kmtl.tuning.population.members import Trained
from kmtl.typing import Callback

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel


def replay(
    trained: Trained,
    model: MultiTaskModel,
    callbacks: Sequence[Callback] = (),
    first_epoch: int = 0,
) -> keras.callbacks.History:
    """Call the epoch hooks of `callbacks` with what the trial logged.

    What keeps books on trials (checkpoints, rules that stop, events, histories) works
    on a population's trials as on any. From the best epoch on, `model` has that epoch's
    weights; at the end those of the last epoch, if they were kept.

    Args:
        trained: The trial's training.
        model: Compiled model of the trial's structure; its variables are replaced.
        callbacks: Keras callbacks. One that sets `model.stop_training` ends it.
        first_epoch: Number of epochs trained before.

    Returns:
        The history, as of `model.fit`.

    Raises:
        NonFiniteError: after the last sound epoch of a training that diverged, as
            `model.fit` does.
    """
    epochs = first_epoch + len(trained.curves)
    run = keras.callbacks.CallbackList(
        list(callbacks), add_history=True, model=model, epochs=epochs, verbose=0
    )
    model.stop_training = False
    run.on_train_begin()
    for epoch, logs in enumerate(trained.curves, start=first_epoch):
        run.on_epoch_begin(epoch)
        if trained.best is not None and trained.best.epoch == epoch + 1:
            trained.best.restore(model)
        if trained.last is not None and epoch + 1 == epochs:
            trained.last.restore(model)
        run.on_epoch_end(epoch, dict(logs))
        if model.stop_training:
            break
    if trained.failure is not None:
        raise NonFiniteError(trained.failure, epoch=epochs + 1)
    run.on_train_end()
    return model.history
