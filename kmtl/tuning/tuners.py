"""KerasTuner's tuners, on objectives that the searched weights cannot game."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import keras_tuner

from kmtl import _checks
from kmtl.evaluation.common_scale import MEAN_SCORE
from kmtl.evaluation.delta import LOG_NAME
from kmtl.tuning import arguments
from kmtl.tuning.base import SearchTuner
from kmtl.tuning.display import SearchEvent
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.objective import score_log
from kmtl.tuning.oracles import (
    BayesianOptimizationOracle,
    GridSearchOracle,
    HyperbandOracle,
    RandomSearchOracle,
)
from kmtl.typing import AnyHyperModel

logger = logging.getLogger("kmtl")

#: Names of samplers.
SAMPLERS = ("auto", "gp", "tpe", "random")


class RandomSearch(SearchTuner, keras_tuner.RandomSearch):
    """KerasTuner's random search for multi-task models.

    Args:
        hypermodel: A `kmtl.HyperModel` (or a function of `hp` that returns a compiled
            `kmtl.MultiTaskModel`).
        objective: `"val_<task>_<metric>"` for any metric of a task, whose direction is
            known; `"val_<task>_loss"`, the task's unweighted loss; `"val_delta_m"`, the
            improvement over single-task models, in a form that no task's gain can carry
            while another one collapses (`kmtl.evaluation.balanced`; tables show plain
            Δm beside it), or `"val_worst_delta"`, that of the worst task;
            `"val_mean_score"` or `"val_worst_score"`, the tasks' scores on a common
            scale that needs no single-task models (`kmtl.evaluation.common_scale`);
            `"pareto"`, the score of every task that is not auxiliary, side by side, or
            a `kmtl.tuning.Pareto` of chosen ones; `"mean_rank"`, the same scores,
            trials in the order of their mean rank; a `kmtl.tuning.Goal`, or a
            `keras_tuner.Objective` for a metric added in `compile`; or a list of such
            in the order of their priority, and of constraints:
            `["val_mask_iou", "val_digit_accuracy >= 0.95"]`. `"val_loss"`, the total
            loss, only where no weight in it is searched or moves in training: small
            task weights make it small.
        max_trials: Integer >= 1, trials in all. A search that has ended goes on when
            it is run again with more. Defaults to 10.
        baselines: For `"val_delta_m"`: the result of `kmtl.baselines`, a dict task name
            -> score of the task's first metric, or `"auto"`: single-task models of the
            same builder are trained before the first trial, once, with the steps, rows
            and callbacks that `search` gives the trials, and kept in the project
            folder; a search that goes on, be it on another backend, keeps their
            scores. With other objectives, `val_delta_m` is logged as well.
        seed: Integer >= 0 that decides the trials proposed. None is different every
            time. (The models have the seed of their HyperModel.)
        listener: Callable that receives a `kmtl.tuning.SearchEvent` when the search,
            a trial or an epoch begins or ends, for displays.
        **options: The options below, and KerasTuner's `directory`, `project_name`,
            `overwrite`, `executions_per_trial`, `max_model_size`,
            `distribution_strategy`, `tuner_id`, `hyperparameters`, `tune_new_entries`,
            `allow_new_entries`, `max_retries_per_trial` and
            `max_consecutive_failed_trials`: that many failures in a row end the search.
            Defaults to 5. `optimizer`, `loss` and `metrics` are refused: they would
            drop the loss weights.

    Options:
        - `storage`: where the trials are written: None for a journal file in the
          project folder, the path of a journal file, or a database URL
          (`"sqlite:///search.db"`, `"postgresql://..."`, `"mysql://..."`). It is an
          Optuna study of the project's name, which `optuna-dashboard` shows as it is:
          `optuna-dashboard FOLDER/study.journal`, or with the URL. Programs with the
          same storage and `project_name` work on one search, on any machine.
        - `pruner`: what stops hopeless trials early, as `PRUNED`, which is no failure:
          `"asha"`, `"median"`, a `kmtl.tuning.Asha` or `Median`, for one objective
          any pruner of Optuna, or `"auto"`: at half of its epochs one trial in two goes
          on, where there are 8 epochs or more, and no folds. Defaults to None.
        - `max_minutes`: number > 0: after so many minutes `search` begins no trial, and
          the one that trains stops after its epoch; the next `search` goes on with it.
          Defaults to None.
        - `warm_start`: an earlier tuner, or its project folder: the values of its 5
          best trials, as far as this space has them, are tried first. (`enqueue` takes
          any other known points.) Defaults to None.
        - `workers`: integer >= 1: so many processes of this machine train trials side
          by side, each on a GPU of its own where there are enough. One that dies is
          replaced, and its trial goes on. What they print is in the project's folder
          `workers`. The hypermodel, the data and the callbacks are pickled for them and
          go to them through pipes: this process keeps a copy in memory, and none is on
          the disk. `"ray"`: a worker on every GPU of a Ray cluster, or on every CPU of
          one without GPUs (`kmtl.tuning.Ray` says otherwise); with a `storage` and a
          `directory` that all its machines reach. Defaults to 1: this process.
        - `recycle_after`: integer >= 1: a worker is replaced after so many trials, so
          that its memory stays small. Defaults to 20.
        - `population`: integer >= 1, on JAX: so many trials are begun at once, and
          those of one structure train as one program (`kmtl.tuning.population`), with
          the results of one after another. What cannot, trains one at a time, and the
          log says why. Proposals do not know the results of trials begun with them.
          `"auto"`: as many as suit the model's size and the memory (of proposals that
          learn from results a fifth of `max_trials`), and one at a time elsewhere: on
          TensorFlow, for convolutional nets on a CPU, with `workers` or `storage`.
          Defaults to `"auto"`.
        - `max_drop`: number >= 0, in %: a constraint beside any objective: no task's
          score may be worse than its single-task score by more. Needs `baselines`.
          Defaults to None.
        - `keep_checkpoints`: integer >= 1: the weights of so many of the best trials
          stay on the disk, and those of the first one (of `"pareto"`, those of the
          whole front too). Defaults to 3.

    A search is continued by running the same program again, also after a kill: finished
    trials are kept, an interrupted one goes on from its checkpoint, written every 30
    seconds, and after every epoch once it was killed. A trial is given up only when its
    process was killed three times in a row while it trained alone there and had not
    finished an epoch since the kill before. A disk or database that fails, as a full
    one, stops the search and fails no trial. A project of a search with another space,
    objective, tasks, model, seed or `executions_per_trial` is refused, and so are other
    arrays, epochs or batches for `search`. Values of a trial that failed are not
    proposed again. `overwrite=True` deletes the files of a search of kmtl, and nothing
    else in its folder; not while a process of this machine works on it.

    Raises:
        ValueError, TypeError: for the above, before anything is trained.

    Example:

    >>> tasks = [kmtl.Classification("kind", classes=2), kmtl.Regression("size")]
    >>> tuner = kmtl.RandomSearch(
    ...     kmtl.HyperModel(kmtl.build_mlp, tasks=tasks, input_shape=(3,), units=(4,),
    ...                     space=["task_weights"], seed=0),
    ...     objective="val_kind_accuracy", max_trials=2, seed=0, directory="searches",
    ... )
    >>> x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    >>> y = {"kind": (x[:, 0] > 0).astype("int32"), "size": x[:, 1]}
    >>> tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    >>> model = tuner.get_best_models()[0]
    >>> round(sum(model.task_weights.values()), 4)
    2.0
    """

    oracle_class = RandomSearchOracle

    def __init__(
        self,
        hypermodel: AnyHyperModel = None,
        objective: Any = None,
        max_trials: int = 10,
        *,
        baselines: Any = None,
        seed: int | None = None,
        listener: Callable[[SearchEvent], None] | None = None,
        **options: Any,
    ):
        settings = {"max_trials": _checks.check_int("max_trials", max_trials, 1)}
        SearchTuner.__init__(
            self, settings, hypermodel, objective, baselines, seed, listener, **options
        )


class BayesianOptimization(SearchTuner, keras_tuner.BayesianOptimization):
    """Search by a Gaussian process, for multi-task models.

    Args:
        hypermodel, objective, max_trials, baselines, seed, listener, **options: As for
            `kmtl.RandomSearch`.
        num_initial_points: Random trials before the first proposal. Defaults to a
            third of `max_trials`, at least 3 and at most 3 per hyperparameter.
        alpha: Float > 0, smallest variance of the noise of a score, relative to that
            of all scores; how much there is, is learned. Defaults to 1e-4.
        beta: Float >= 0: the larger, the more is explored. Defaults to 2.6.
        sampler: `"gp"`, a Gaussian process, which learns how noisy scores are and which
            hyperparameters matter; `"tpe"`, Optuna's tree of Parzen estimators, which
            takes several objectives and constraints; or `"auto"`: `"tpe"` for those,
            else `"gp"`. Both search task weights along the T - 1 logarithms of their
            ratios. Defaults to `"auto"`.

    Raises:
        ValueError, TypeError: as for `kmtl.RandomSearch`.
    """

    oracle_class = BayesianOptimizationOracle
    fixed_settings = ("num_initial_points", "alpha", "beta", "sampler")

    def __init__(
        self,
        hypermodel: AnyHyperModel = None,
        objective: Any = None,
        max_trials: int = 10,
        num_initial_points: int | None = None,
        alpha: float = 1e-4,
        beta: float = 2.6,
        *,
        sampler: str = "auto",
        baselines: Any = None,
        seed: int | None = None,
        listener: Callable[[SearchEvent], None] | None = None,
        **options: Any,
    ):
        if num_initial_points is not None:
            num_initial_points = _checks.check_int(
                "num_initial_points", num_initial_points, 1
            )
        settings = {
            "max_trials": _checks.check_int("max_trials", max_trials, 1),
            "num_initial_points": num_initial_points,
            "alpha": _checks.check_range("alpha", alpha, 0, low_open=True),
            "beta": _checks.check_range("beta", beta, 0),
            "sampler": _checks.check_choice("sampler", sampler, ("auto", "gp", "tpe")),
        }
        SearchTuner.__init__(
            self, settings, hypermodel, objective, baselines, seed, listener, **options
        )


class GridSearch(SearchTuner, keras_tuner.GridSearch):
    """KerasTuner's grid search for multi-task models, which can be continued.

    Every combination of values is tried once, the defaults first, the last
    hyperparameter changing fastest. Ranges without steps have 10 values each. Several
    processes share the grid.

    Args:
        hypermodel, objective, baselines, seed, listener, **options: As for
            `kmtl.RandomSearch`.
        max_trials: Integer >= 1, trials in all. None: the whole grid. Defaults to None.

    Raises:
        ValueError, TypeError: as for `kmtl.RandomSearch`.
    """

    oracle_class = GridSearchOracle

    def __init__(
        self,
        hypermodel: AnyHyperModel = None,
        objective: Any = None,
        max_trials: int | None = None,
        *,
        baselines: Any = None,
        seed: int | None = None,
        listener: Callable[[SearchEvent], None] | None = None,
        **options: Any,
    ):
        if max_trials is not None:
            max_trials = _checks.check_int("max_trials", max_trials, 1)
        settings = {"max_trials": max_trials}
        SearchTuner.__init__(
            self, settings, hypermodel, objective, baselines, seed, listener, **options
        )


class Hyperband(SearchTuner, keras_tuner.Hyperband):
    """KerasTuner's Hyperband for multi-task models.

    Many trials begin, and at every rung one in `factor` trains on: the live model, with
    its optimizer (whose state KerasTuner's own promotions lose). The others end there,
    as `PRUNED`. A trial is compared with those of its bracket that have come as far, so
    none waits for others, in one process or many.

    Args:
        hypermodel, objective, baselines, seed, listener, **options: As for
            `kmtl.RandomSearch`, but for `pruner`.
        max_epochs: Integer >= 1, epochs of the longest trials. Defaults to 27, which is
            49 trials with rungs at 1, 3 and 9 epochs.
        factor: Integer >= 2: one in `factor` trials goes on, for `factor` times the
            epochs. Defaults to 3.
        hyperband_iterations: Integer >= 1, repetitions of the whole. Defaults to 1.

    Raises:
        ValueError, TypeError: as for `kmtl.RandomSearch`.
    """

    oracle_class = HyperbandOracle
    fixed_settings = ("max_epochs", "factor", "hyperband_iterations")

    def __init__(
        self,
        hypermodel: AnyHyperModel = None,
        objective: Any = None,
        max_epochs: int = 27,
        factor: int = 3,
        hyperband_iterations: int = 1,
        *,
        baselines: Any = None,
        seed: int | None = None,
        listener: Callable[[SearchEvent], None] | None = None,
        **options: Any,
    ):
        if options.get("pruner") is not None:
            raise ValueError(
                "`pruner` is not taken here: Hyperband stops trials by its own rule. "
                f"Received: pruner={options['pruner']!r}"
            )
        iterations = _checks.check_int("hyperband_iterations", hyperband_iterations, 1)
        settings = {
            "max_epochs": _checks.check_int("max_epochs", max_epochs, 1),
            "factor": _checks.check_int("factor", factor, 2),
            "hyperband_iterations": iterations,
        }
        SearchTuner.__init__(
            self, settings, hypermodel, objective, baselines, seed, listener, **options
        )

    def _check_epochs(self, epochs: Any) -> int:
        if epochs not in (None, self.oracle.max_epochs):
            logger.warning(
                "Hyperband decides the epochs: `epochs=%s` is ignored, the longest "
                "trials have `max_epochs=%s`.",
                epochs,
                self.oracle.max_epochs,
            )
        return self.oracle.max_epochs


class Search(SearchTuner):
    """A search of multi-task models in which nothing has to be chosen.

    The first trial has the defaults, the second the same and nothing shared, which is
    what single-task models reach (where a sharing depth from 0 on is searched, and no
    points are given). After some random ones a Gaussian process proposes what to try;
    trials that are hopeless end early; all are compared by their improvement
    over single-task models, in which no task's gain pays for another one's collapse;
    the best three are trained again on fresh seeds before one is called the best. On
    JAX, small nets train many at a time. Each of these can be given instead.

    Args:
        hypermodel: A `kmtl.HyperModel` (or a function of `hp` that returns a compiled
            `kmtl.MultiTaskModel`).
        objective: As for `kmtl.RandomSearch`. None: `"val_delta_m"`; for one task that
            counts, its score; without baselines `"val_mean_score"`.
        max_trials: Integer >= 1, trials in all. Defaults to 20.
        sampler: `"gp"`, `"tpe"` or `"auto"`, as for `kmtl.BayesianOptimization`; or
            `"random"`. Defaults to `"auto"`.
        pruner: As for `kmtl.RandomSearch`. Defaults to `"auto"`: successive halving
            (`kmtl.tuning.Asha`) where a trial has 8 epochs or more.
        baselines: As for `kmtl.RandomSearch`. Defaults to `"auto"`: single-task models
            are trained before the first trial, where a kmtl.HyperModel with two tasks
            or more can make them.
        seed: Integer >= 0 that decides the trials proposed. None is different every
            time.
        listener, **options: As for `kmtl.RandomSearch`.

    Raises:
        ValueError, TypeError: as for `kmtl.RandomSearch`.

    Example:

    >>> tasks = [kmtl.Classification("kind", classes=2), kmtl.Regression("size")]
    >>> hypermodel = kmtl.HyperModel(
    ...     kmtl.build_mlp, tasks=tasks, input_shape=(3,), units=(4,), seed=0
    ... )
    >>> tuner = kmtl.Search(hypermodel, max_trials=2, seed=0, directory="found")
    >>> x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    >>> y = {"kind": (x[:, 0] > 0).astype("int32"), "size": x[:, 1]}
    >>> tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    >>> sorted(tuner.baselines.scores)
    ['kind', 'size']

    Reference: Snoek et al., Practical Bayesian optimization of machine learning
    algorithms, NIPS 2012; Bergstra et al., NIPS 2011 (`"tpe"`);
    Li et al., A system for massively parallel hyperparameter tuning, MLSys 2020.
    """

    oracle_class = BayesianOptimizationOracle
    fixed_settings = ("sampler",)

    def __init__(
        self,
        hypermodel: AnyHyperModel = None,
        objective: Any = None,
        max_trials: int = 20,
        *,
        sampler: str = "auto",
        pruner: Any = "auto",
        baselines: Any = "auto",
        seed: int | None = None,
        listener: Callable[[SearchEvent], None] | None = None,
        **options: Any,
    ):
        settings = {
            "max_trials": _checks.check_int("max_trials", max_trials, 1),
            "sampler": _checks.check_choice("sampler", sampler, SAMPLERS),
        }
        if hypermodel is not None:
            objective, baselines = _comparison(hypermodel, objective, baselines)
        options["pruner"] = pruner
        super().__init__(
            settings, hypermodel, objective, baselines, seed, listener, **options
        )


def _comparison(
    hypermodel: AnyHyperModel, objective: Any, baselines: Any
) -> tuple[Any, Any]:
    """The objective and the baselines of a search, where they were not given."""
    tasks = arguments.tasks_of(hypermodel)
    counted = [task for task in tasks if not task.auxiliary]
    # One net for one task is its own single-task model.
    makes_them = isinstance(hypermodel, HyperModel) and len(counted) > 1
    if isinstance(baselines, str) and baselines == "auto" and not makes_them:
        baselines = None
    if objective is None:
        if len(counted) == 1:
            objective = score_log(counted[0])
        else:
            objective = MEAN_SCORE if baselines is None else LOG_NAME
    return objective, baselines
