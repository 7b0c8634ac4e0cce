"""Ensembles: several trainings of one kind of model, and the mean of their answers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import keras_tuner
import numpy as np

from kmtl import _checks
from kmtl.combining import boosting, out_of_bag
from kmtl.evaluation.ensemble import average, compare
from kmtl.evaluation.table import Evaluation
from kmtl.tasks.base import Task
from kmtl.training import targets
from kmtl.training.batches import ShuffledBatches
from kmtl.training.model import MultiTaskModel
from kmtl.training.schedules import factor
from kmtl.training.user_data import prepare_validation
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.population import limits
from kmtl.typing import Data, Inputs, Logs, Options, Outputs, Verbose

if TYPE_CHECKING:
    import pandas

METHODS = ("seeds", "bagging", "snapshot", "boosting")


@dataclasses.dataclass(frozen=True, eq=False)
class EnsembleRun:
    """An ensemble that was trained.

    Attributes:
        model: The one model of all members; it saves, loads and exports as any other.
        members: The members; of boosting the sums of the first stages, up to all.
        method: How they were trained.
        histories: Per training log name -> values per epoch.
        out_of_bag: Of bagging, the scores of rows by the members that had not trained
            on them; else None.
    """

    model: MultiTaskModel
    members: tuple[MultiTaskModel, ...]
    method: str
    histories: tuple[dict[str, list[float]], ...]
    out_of_bag: Evaluation | None = None

    def evaluate(self, data: Data, **options: Any) -> pandas.DataFrame:
        """The scores of the members, their mean and spread, and the ensemble's.

        Args:
            data, **options: As for `kmtl.evaluate`.

        Returns:
            A DataFrame: a row per member, then `"mean"` and `"spread"` (the standard
            deviation over members), and `"ensemble"`; a column per task's score.
        """
        import pandas

        word = "stages" if self.method == "boosting" else "member"
        named = {f"{word} {i}": m for i, m in enumerate(self.members, 1)}
        table = compare({**named, "ensemble": self.model}, data, **options)
        own = table.iloc[:-1]
        ddof = 1 if len(own) > 1 else 0
        extra = pandas.DataFrame({"mean": own.mean(), "spread": own.std(ddof=ddof)}).T
        found = pandas.concat([own, extra, table.iloc[-1:]])
        found.index.name = table.index.name
        return found

    def spread(self, x: Inputs, batch_size: int | None = None) -> Outputs:
        """How far the members' answers are apart: a standard deviation per answer.

        Of probabilities for classes, in the labels' unit for values.

        Args:
            x: Inputs, as for `predict`.
            batch_size: As for `predict`.

        Returns:
            Dict task name -> array of the shape of the task's outputs.

        Raises:
            ValueError: for boosting, whose stages are no answers of their own.
        """
        if self.method == "boosting":
            raise ValueError(
                "`spread` needs members that answer alone, which stages of boosting do "
                "not: train with method='seeds' or 'bagging'"
            )
        found = [m.predict(x, batch_size=batch_size, verbose=0) for m in self.members]
        return {
            task.name: np.std(
                [
                    keras.ops.convert_to_numpy(task.activate(answers[task.name]))
                    for answers in found
                ],
                axis=0,
            )
            for task in self.model.tasks
        }


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
    arrays = first.checked_arrays(data)
    if arrays is None:
        raise TypeError(
            "`data` must be arrays, `(x, y)` or `(x, y, sample_weight)`, or a "
            f"kmtl.data.Split: members draw rows from them. Received: "
            f"{type(data).__name__}"
        )
    training = _Training(
        hypermodel, arrays, members, epochs, batch_size, validation_data, verbose
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


def built(hypermodel: HyperModel, execution: int = 0) -> MultiTaskModel:
    """A compiled model with the seed of an execution."""
    hypermodel.execution = execution
    try:
        return hypermodel.build(keras_tuner.HyperParameters())
    finally:
        hypermodel.execution = 0


@dataclasses.dataclass
class _Training:
    """The trainings of an ensemble."""

    hypermodel: HyperModel
    arrays: tuple
    members: int
    epochs: int
    batch_size: int
    validation: Data | None
    verbose: Verbose

    @property
    def rows(self) -> int:
        return len(keras.tree.flatten(self.arrays[0])[0])

    def bag(self, member: int) -> np.ndarray:
        """Numbers of the rows that a member draws, `(N,)`."""
        assert self.hypermodel.seed is not None
        drawn = np.random.default_rng((self.hypermodel.seed + member, 0x0BA6))
        return drawn.integers(0, self.rows, self.rows)

    def alone(self, bagged: bool) -> tuple[list, list]:
        """Members that know nothing of each other, and their histories."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(self.arrays)
        reason = limits.reason_against(
            self.hypermodel, x, y, weight, validation_data=self.validation
        )
        models = [built(self.hypermodel, i) for i in range(self.members)]
        if reason is None and limits.reason_against_model(models[0]) is None:
            return self._side_by_side(models, bagged)
        histories = []
        for i, model in enumerate(models):
            batches = self._batches(i, self.bag(i) if bagged else None)
            self._learn_labels(model)
            history = self._fit(model, batches)
            histories.append(history.history)
        return models, histories

    def _side_by_side(self, models: list, bagged: bool) -> tuple[list, list]:
        from kmtl.combining.bagged_population import BaggedPopulation
        from kmtl.tuning.population.members import Member
        from kmtl.tuning.population.run import Population

        x, y, weight = keras.utils.unpack_x_y_sample_weight(self.arrays)
        options: dict[str, Any] = {
            "sample_weight": weight,
            "validation_data": self.validation,
            "batch_size": self.batch_size,
        }
        population = (
            BaggedPopulation(self.hypermodel, x, y, bag=self.bag, **options)
            if bagged
            else Population(self.hypermodel, x, y, **options)
        )
        values = self.hypermodel.default_values()
        wanted = [Member(values, i) for i in range(self.members)]
        trained = population.train(wanted, epochs=self.epochs, keep_last=True)
        for model, found in zip(models, trained, strict=True):
            if found.failure is not None:
                from kmtl.training.guards import NonFiniteError

                raise NonFiniteError(found.failure)
            assert found.last is not None
            found.last.restore(model)
        return models, [found.history for found in trained]

    def snapshots(self) -> tuple[list, list]:
        """What one training is at the ends of its cycles, and its history."""
        model = built(self.hypermodel)
        cycles = _Cycles(self.epochs // self.members)
        self._learn_labels(model)
        history = self._fit(model, self._batches(0, None), [cycles])
        models = []
        for weights in cycles.found:
            member = built(self.hypermodel)
            for layer, values in zip(member.layers, weights, strict=True):
                layer.set_weights(values)
            models.append(member)
        return models, [history.history]

    def _batches(self, member: int, rows: np.ndarray | None) -> ShuffledBatches:
        parts = self.arrays
        if rows is not None:
            parts = keras.tree.map_structure(lambda array: array[rows], parts)
        assert self.hypermodel.seed is not None
        seed = self.hypermodel.seed + member
        return ShuffledBatches(*parts, batch_size=self.batch_size, seed=seed)

    def _learn_labels(self, model: MultiTaskModel) -> None:
        """Of all rows, also where a member trains on some."""
        targets.adapt(model, *keras.utils.unpack_x_y_sample_weight(self.arrays))

    def _fit(
        self, model: MultiTaskModel, batches: ShuffledBatches, callbacks: Any = None
    ) -> keras.callbacks.History:
        validation = self.validation
        if validation is not None:
            validation = prepare_validation(model, validation)
        return model.fit(
            batches,
            epochs=self.epochs,
            validation_data=validation,
            callbacks=callbacks,
            verbose=self.verbose,
            shuffle=False,  # of the batches, which are shuffled rows
        )


class _Cycles(keras.callbacks.Callback):
    """The learning rate from its beginning towards 0 in every cycle, epoch by epoch.

    Args:
        length: Epochs of a cycle.
    """

    def __init__(self, length: int):
        super().__init__()
        self.length = length
        #: Per finished cycle the weights of every layer.
        self.found: list[list[list[np.ndarray]]] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        rate = self.model.optimizer.learning_rate
        self.first = float(keras.ops.convert_to_numpy(rate))

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        share = factor("cosine", epoch % self.length, self.length)
        self.model.optimizer.learning_rate = self.first * share

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if (epoch + 1) % self.length == 0:
            layers = self.model.layers
            self.found.append([layer.get_weights() for layer in layers])
