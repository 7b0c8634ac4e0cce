"""What KerasTuner keeps private. Checked on KerasTuner 1.4.8.

Its tuners are built to be run by its own chief, on its own store of trials; kmtl's
oracles keep the trials in an Optuna study, and so have to speak for both.
"""

from __future__ import annotations

import copy
from typing import Any

import keras_tuner

from kmtl.typing import (
    Callback,
    HyperParameters,
    Oracle,
    Trial,
    Tuner,
)

#: Methods of KerasTuner's classes that ours override.
OVERRIDDEN = (
    # How trials become points of the Gaussian process: pruned ones count in ours.
    "_vectorize_trials",
    # The first call of `build` only declares the space; ours is declared already.
    "_populate_initial_space",
    # Each execution of a trial trains in a pooled model, on its fold.
    "_build_and_fit_model",
    # KerasTuner's Hyperband loads weights into a model without an optimizer's state.
    "_build_hypermodel",
    # A storage error is nobody's failure; a stopped trial says why it failed.
    "_run_and_update_trial",
    "_try_run_and_update_trial",
    # The file that a tuner writes for itself: KerasTuner would reload in a constructor.
    "_get_tuner_fname",
)


def is_worker(tuner: Tuner) -> bool:
    """Whether KerasTuner's own chief, in another process, hands out the trials."""
    return tuner._is_worker()


def try_build(tuner: Tuner, hyperparameters: HyperParameters) -> Any:
    """A trial's model, refused if too large, which `hypermodel.build` does not do."""
    return tuner._try_build(hyperparameters)


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


def display(oracle: Oracle) -> Any:
    """What prints the beginning and the end of trials."""
    return oracle._display


def set_random_state(oracle: Oracle, state: Any) -> None:
    """From what the Gaussian process draws where its search begins."""
    oracle._random_state = state
