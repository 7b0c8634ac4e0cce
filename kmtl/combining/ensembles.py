"""Ensembles: several trainings of one kind of model, and the mean of their answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from kmtl import _checks
from kmtl.combining import boosting, out_of_bag
from kmtl.combining.ensemble_run import EnsembleRun
from kmtl.combining.members import Training, built
from kmtl.evaluation.ensemble import average, check_means
from kmtl.tasks.base import Task
from kmtl.training.model import MultiTaskModel
from kmtl.training.sources import refuse_plan
from kmtl.tuning.hypermodel import HyperModel
from kmtl.typing import Data, Options, Verbose

METHODS = ("seeds", "bagging", "snapshot", "boosting")


def ensemble(
    builder: Callable[..., MultiTaskModel],
    data: Data,
    *,
    tasks: Sequence[Task],
    members: int = 5,
    method: str = "seeds",
    epochs: int = 20,
    batch_size: int = 32,
    optimizer: Any = "adam",
    compile_options: Options | None = None,
    validation_data: Data | None = None,
    callbacks: Callable[[int], Sequence[keras.callbacks.Callback]] | None = None,
    seed: int = 0,
    shrinkage: float = 0.5,
    verbose: Verbose = 0,
    **fixed: Any,
) -> EnsembleRun:
    """Train several models, and make one model of them.

    On JAX the members of `"seeds"` and `"bagging"` train side by side as one program,
    where they can; else one after another, with the same batches.

    Args:
        builder: `kmtl.build_mlp`, `kmtl.build_cnn`, `kmtl.build`, or any callable that
            takes `tasks` and `seed` and returns a `kmtl.MultiTaskModel`.
        data: `(x, y)` or `(x, y, sample_weight)`, arrays, or a `kmtl.data.Split`.
        tasks: The tasks.
        members: Number of members, >= 2. Defaults to 5.
        method: `"seeds"` (the default): other initial weights and orders of rows.
            `"bagging"`: these, and rows drawn with replacement for each member.
            `"snapshot"`: one training whose learning rate falls as a cosine within
            each of as many cycles; a member is what it is at the end of one.
            `"boosting"`: each member learns what the sum of those before it leaves,
            the negative gradient of every task's loss. A regression's loss is taken in
            the labels' unit, and its nets learn what is left standardized, with
            `transform="standardize"` and without; other transforms are refused.
        epochs: Epochs of each member; with `"snapshot"` of all together, two or more
            for each cycle.
        batch_size: Rows per step. Defaults to 32.
        optimizer: Keras optimizer or its name. Defaults to `"adam"`.
        compile_options: Dict of further arguments of `compile`, such as `weighting`.
            Of boosting, `metrics` are those of the sums: `sum_<task>_<metric>` in the
            histories, on the training data.
        validation_data: As for `fit`, for the histories. Not for boosting.
        callbacks: Function of a member's number, from 0, that makes the callbacks of
            its training, new ones each time: `lambda member: [EarlyStopping(...)]`.
            Members then train one after another. Of snapshots it is called once. Not
            for boosting.
        seed: Integer >= 0; member i has `seed + i`. Defaults to 0.
        shrinkage: Of boosting: share of its best step that a stage makes, in (0, 1].
            Defaults to 0.5.
        verbose: As for `fit`, where members train one after another. Defaults to 0.
        **fixed: The builder's other arguments.

    Returns:
        `EnsembleRun`, with the one model in `model`: for classes the mean of
        probabilities, for values the mean; for boosting the sum.

    Raises:
        ValueError, TypeError: for arguments out of range, data that are no arrays, and
            for boosting tasks that are no values or classes of an example.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    >>> found = kmtl.ensemble(
    ...     kmtl.build_mlp, (x, {"sum": x.sum(1)}), tasks=[kmtl.Regression("sum")],
    ...     input_shape=(3,), units=(8,), members=2, epochs=1,
    ... )
    >>> found.model.predict(x, verbose=0)["sum"].shape
    (40, 1)

    Reference: Lakshminarayanan et al. (seeds), NeurIPS 2017, arXiv:1612.01474;
    Breiman, Bagging predictors, Machine Learning 24, 1996; Huang et al. (snapshots),
    ICLR 2017, arXiv:1704.00109; Friedman, Greedy function approximation: a gradient
    boosting machine, Annals of Statistics 29, 2001.
    """
    members = _checks.check_int("members", members, 2)
    method = _checks.check_choice("method", method, METHODS)
    epochs = _checks.check_int("epochs", epochs, 1)
    batch_size = _checks.check_int("batch_size", batch_size, 1)
    seed = _checks.check_int("seed", seed, 0)
    shrinkage = _checks.check_range("shrinkage", shrinkage, 0, 1, low_open=True)
    if method == "snapshot" and epochs % members:
        raise ValueError(
            "`epochs` must be a multiple of `members` for snapshots, one cycle for "
            f"each. Received: epochs={epochs}, members={members}"
        )
    if method == "snapshot" and epochs < 2 * members:
        raise ValueError(
            "`epochs` must be at least 2 for each of `members` for snapshots: within "
            "one epoch the learning rate does not fall. Received: "
            f"epochs={epochs}, members={members}"
        )
    if method == "boosting" and (compile_options or {}).get("loss") is not None:
        raise ValueError(
            "`loss` in `compile_options` is not for method='boosting', whose nets "
            "learn the gradient of the tasks' own losses: give it to the task, as "
            "kmtl.Regression(..., loss=...). Received: compile_options with "
            f"loss={(compile_options or {})['loss']!r}"
        )
    if method == "boosting" and validation_data is not None:
        raise ValueError(
            "`validation_data` is not for method='boosting', whose nets learn what is "
            "left of the training labels: judge the stages with "
            "`kmtl.ensemble(...).evaluate(validation_data)`. Received: validation_data "
            f"of type {type(validation_data).__name__}"
        )
    if callbacks is not None:
        _check_callbacks(callbacks, method)
    hypermodel = HyperModel(
        builder,
        tasks=tasks,
        space=(),
        optimizer=optimizer,
        compile_options=compile_options,
        seed=seed,
        **fixed,
    )
    first = built(hypermodel)
    if method == "snapshot":
        _check_free_rate(first.optimizer)
    if method != "boosting":  # which refuses what has no residuals
        check_means(first.tasks, members)
    refuse_plan(data, "The members of an ensemble draw rows themselves")
    arrays = first.checked_arrays(data)
    if arrays is None:
        raise TypeError(
            "`data` must be arrays, `(x, y)` or `(x, y, sample_weight)`, or a "
            f"kmtl.data.Split: members draw rows from them. Received: "
            f"{type(data).__name__}"
        )
    training = Training(
        hypermodel,
        arrays,
        members,
        epochs,
        batch_size,
        validation_data,
        verbose,
        callbacks,
    )
    if method == "boosting":
        stages, histories = boosting.boost(
            functools.partial(built, hypermodel),
            lambda: hypermodel.compile_arguments(hypermodel.default_values()),
            arrays,
            members=members,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            shrinkage=shrinkage,
            verbose=verbose,
        )
        return EnsembleRun(stages[-1], tuple(stages), method, tuple(histories))
    if method == "snapshot":
        models, histories = training.snapshots()
    else:
        models, histories = training.alone(bagged=method == "bagging")
    scores = None
    if method == "bagging":
        rows = [training.bag(i) for i in range(members)]
        scores = out_of_bag.evaluate(models, rows, arrays)
    return EnsembleRun(average(models), tuple(models), method, tuple(histories), scores)


def _check_callbacks(callbacks: Any, method: str) -> None:
    if method == "boosting":
        raise ValueError(
            "`callbacks` are not for method='boosting', whose nets are stages of one "
            "sum. Received: callbacks"
        )
    if not callable(callbacks) or isinstance(callbacks, keras.callbacks.Callback):
        raise TypeError(
            "`callbacks` must be a function of a member's number that makes new ones: "
            "a callback remembers the training it was in. "
            f"Received: {type(callbacks).__name__}"
        )


def _check_free_rate(optimizer: Any) -> None:
    """Refuse a learning rate that cannot be set."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    # A schedule is written down as a dict, a rate as a number.
    if isinstance(optimizer.get_config().get("learning_rate"), dict):
        raise ValueError(
            "`optimizer` must have a plain learning rate for method='snapshot', which "
            "lowers it within each cycle: give its first value as a number. Received: "
            f"{type(optimizer).__name__} with a LearningRateSchedule"
        )
