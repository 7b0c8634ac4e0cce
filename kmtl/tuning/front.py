"""The search to begin with: one call, in which the choices are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kmtl import _checks
from kmtl.evaluation.common_scale import MEAN_SCORE
from kmtl.evaluation.delta import LOG_NAME
from kmtl.tuning import arguments
from kmtl.tuning.base import SearchTuner
from kmtl.tuning.events import SearchEvent
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.objective import score_log
from kmtl.tuning.oracles import BayesianOptimizationOracle
from kmtl.typing import AnyHyperModel

#: Names of samplers.
SAMPLERS = ("tpe", "gp", "random")


class Search(SearchTuner):
    """A search of multi-task models in which nothing has to be chosen.

    The first trial has the defaults, the second the same and nothing shared, which is
    what single-task models reach (where a sharing depth from 0 on is searched, and no
    points are given). After some random ones a tree of Parzen estimators proposes what
    to try; trials that are hopeless end early; all are compared by their improvement
    over single-task models, in which no task's gain pays for another one's collapse;
    the best three are trained again on fresh seeds before one is called the best. On
    JAX, small nets train many at a time. Each of these can be given instead.

    Args:
        hypermodel: A `kmtl.HyperModel` (or a function of `hp` that returns a compiled
            `kmtl.MultiTaskModel`).
        objective: As for `kmtl.RandomSearch`. None: `"val_delta_m"`; for one task that
            counts, its score; without baselines `"val_mean_score"`.
        max_trials: Integer >= 1, trials in all. Defaults to 20.
        sampler: `"tpe"`, Optuna's tree of Parzen estimators; `"gp"`, KerasTuner's
            Gaussian process; or `"random"`. Defaults to `"tpe"`.
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

    Reference: Bergstra et al., Algorithms for hyper-parameter optimization, NIPS 2011;
    Li et al., A system for massively parallel hyperparameter tuning, MLSys 2020.
    """

    def __init__(
        self,
        hypermodel: AnyHyperModel = None,
        objective: Any = None,
        max_trials: int = 20,
        *,
        sampler: str = "tpe",
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
        super().__init__(
            BayesianOptimizationOracle,
            settings,
            ("sampler",),
            hypermodel=hypermodel,
            objective=objective,
            baselines=baselines,
            seed=seed,
            listener=listener,
            pruner=pruner,
            **options,
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
