"""What KerasTuner keeps private. Checked on KerasTuner 1.4.8.

Its tuners keep trials in a store of their own; kmtl's oracles keep them in an Optuna
study, and so have to speak for both.
"""

from __future__ import annotations

import copy

import keras_tuner

from kmtl.typing import Callback, Trial, Tuner

#: Methods of KerasTuner's classes that ours override.
OVERRIDDEN = (
    # The first call of `build` only declares the space; ours is declared already.
    "_populate_initial_space",
)


def own_callbacks(
    tuner: Tuner, callbacks: list[Callback], trial: Trial, execution: int
) -> list[Callback]:
    """Copies of the callbacks for a training; TensorBoard logs to a folder of its own.

    `Tuner.run_trial` does it inside of what else it does.
    """
    try:
        copies = copy.deepcopy(callbacks)
    except Exception as error:
        raise keras_tuner.errors.FatalValueError(
            "`callbacks` of a search must be such that they can be copied, since every "
            f"trial has its own. Received: {callbacks}"
        ) from error
    tuner._configure_tensorboard_dir(copies, trial, execution)
    return copies
