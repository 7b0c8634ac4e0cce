"""A KerasTuner HyperModel for multi-task models."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras import ops

from kmtl import _checks, _registry
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_unique_tasks
from kmtl.training.feed import Feed, choose_steps_per_execution
from kmtl.training.model import MultiTaskModel
from kmtl.training.schedules import LearningRateSchedule
from kmtl.training.sources import is_dataset, is_stream, plan_of
from kmtl.tuning.signature import (
    FIT_NAMES,
    TASK_WEIGHTS,
    is_gradient_weighting,
    with_arguments,
)
from kmtl.tuning.space import Space
from kmtl.typing import AnyHyperModel, Config, Data, HyperParameters, Options, Values

#: Arguments of `fit` that say what it reads; those that do not change how.
ARRAY_ARGUMENTS = ("x", "y", "sample_weight", "validation_data")
DATA_ARGUMENTS = (*ARRAY_ARGUMENTS, "batch_size", "validation_batch_size")
PLAIN_ARGUMENTS = {"epochs", "initial_epoch", "callbacks", "verbose", "plan"}


class HyperModel(keras_tuner.HyperModel):
    """A builder, its tasks and a search space, for any tuner of KerasTuner.

    Losses, weights and metrics come from the tasks, so nothing of `compile` can be
    dropped or paired wrongly on the way.

    Args:
        builder: `kmtl.build_mlp`, `kmtl.build_cnn`, `kmtl.build`, or any callable that
            takes `tasks` and returns a `kmtl.MultiTaskModel` (not compiled).
        tasks: The tasks.
        space: What varies. None: sharing depth (0 to all blocks), dropout (0 to 0.3),
            task weights (ratios 1/4 to 4, 1 on average) and learning rate (5e-4 to
            5e-2, log; 3e-3 in the first trial), without those that are fixed or do not
            apply. A list of names, or a dict name -> range; see `kmtl.tuning.Space`.
        optimizer: Keras optimizer or its name. An optimizer object brings its learning
            rate, which then leaves the default space. Defaults to `"adam"`.
        compile_options: Dict of further arguments of `MultiTaskModel.compile`, such as
            `weighting`, `relations`, `jit_compile`, `steps_per_execution`.
        seed: Integer >= 0: initial weights, dropout masks and the order of arrays given
            to `fit` depend on nothing else, the same for every trial. None is
            different every time.
        name: Name of the hypermodel.
        reuse: Whether kmtl's tuners train trials of one structure on one model, put
            back to its beginning, instead of building and tracing each. Scores are the
            same. Defaults to True; see `kmtl.tuning.reuse.reason_against` for when it
            cannot be.
        **fixed: The builder's other arguments. What is fixed is not searched.

    Raises:
        ValueError, TypeError: for names the builder does not know, bad ranges, and
            what is given twice or not at all.

    Example:

    >>> tasks = [kmtl.Classification("digit", classes=10), kmtl.Regression("ink")]
    >>> hypermodel = kmtl.HyperModel(
    ...     kmtl.build_mlp, tasks=tasks, input_shape=(64,), dropout=0.2, seed=0,
    ...     space={"sharing_depth": "default", "units": [(32,), (32, 32)],
    ...            "learning_rate": (1e-3, 1e-2, "log")},
    ... )
    >>> import keras_tuner
    >>> hp = keras_tuner.HyperParameters()
    >>> hypermodel.build(hp).compiled
    True
    >>> hp.values["units"], hp.values["sharing_depth"] = "(32, 32)", 1
    >>> arguments = hypermodel.arguments(hp)
    >>> arguments["units"], arguments["sharing_depth"], arguments["dropout"]
    ((32, 32), 1, 0.2)
    """

    def __init__(
        self,
        builder: Callable[..., MultiTaskModel],
        *,
        tasks: Sequence[Task],
        space: Mapping[str, Any] | Sequence[str] | None = None,
        optimizer: Any = "adam",
        compile_options: Options | None = None,
        seed: int | None = None,
        name: str | None = None,
        reuse: bool = True,
        **fixed: Any,
    ):
        super().__init__(name=name)
        self.reuse = bool(reuse)
        self.builder = builder
        self.tasks = check_unique_tasks(tasks)
        self.seed = None if seed is None else _checks.check_int("seed", seed, 0)
        self.compile_options = dict(compile_options or {})
        self.fixed = fixed
        if "optimizer" in self.compile_options:
            raise ValueError(
                "Give `optimizer` to HyperModel, not in `compile_options`."
            )
        if "loss_weights" in self.compile_options:
            raise ValueError(
                "Give `loss_weights` to HyperModel, as an argument of the builder, not "
                "in `compile_options`: there it would replace the weights of a trial."
            )
        self.optimizer = optimizer
        rate = self._make_optimizer({}).get_config()["learning_rate"]
        settled = set()
        if not isinstance(optimizer, str):
            settled.add("optimizer")
            if space is None or isinstance(rate, Mapping):  # a schedule
                settled.add("learning_rate")
            if isinstance(rate, Mapping):
                settled.add("learning_rate_schedule")
        settled |= {"weighting"} & set(self.compile_options)
        if self.seed is not None:
            settled.add("seed")
        chosen = {
            "optimizer": optimizer,
            "weighting": self.compile_options.get("weighting"),
            "learning_rate": rate,
        }
        #: The `kmtl.tuning.Space`.
        self.space = Space(builder, self.tasks, space, fixed, settled, chosen)
        #: Which training of the same trial this is; it shifts the seed.
        self.execution = 0
        self._feed: Feed | None = None

    # -- KerasTuner's side ------------------------------------------------------------

    def declare_hyperparameters(self, hp: HyperParameters) -> None:
        """Enter the whole space into `hp`, without building a model."""
        self.space.values(hp)

    def build(self, hp: HyperParameters) -> MultiTaskModel:
        """A compiled model with the values that `hp` has.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """
        values = self.space.values(hp)
        model = self.builder(tasks=self.tasks, **self.builder_arguments(values))
        if not isinstance(model, MultiTaskModel):
            raise keras_tuner.errors.FatalTypeError(
                "`builder` must return a kmtl.MultiTaskModel. "
                f"Received: {model!r} of type {type(model).__name__}"
            )
        model.compile(**self.compile_arguments(values))
        return model

    def fit(
        self, hp: HyperParameters, model: MultiTaskModel, *args: Any, **kwargs: Any
    ) -> Any:
        """Train the model: `model.fit` with the arguments given to `search`.

        With a `seed`, arrays are shuffled by it, also those of a `kmtl.data.Split`,
        lists and frames (Keras would use the global seed). A data set decides its own
        order. Where nothing looks at single batches,
        a small model on TensorFlow runs a whole epoch in one call, unless
        `compile_options` say `steps_per_execution`.
        """
        if any(name in self.space.dimensions for name in FIT_NAMES):
            kwargs = self._fit_arguments(self.space.values(hp), args, kwargs)
        args, kwargs = self._fast_data(model, args, kwargs)
        return model.fit(*args, **kwargs)

    # -- the user's side --------------------------------------------------------------

    def arguments(self, hp: HyperParameters) -> dict[str, Any]:
        """The builder's keyword arguments: `builder(**arguments)` builds that model.

        The optimizer and its learning rate are not among them: `build(hp)` gives the
        compiled model.

        Args:
            hp: `keras_tuner.HyperParameters`, as from `get_best_hyperparameters`.
        """
        values = self.space.values(hp)
        return {"tasks": self.tasks, **self.builder_arguments(values)}

    # -- parts ------------------------------------------------------------------------

    @property
    def _shifted_seed(self) -> int | None:
        return None if self.seed is None else self.seed + self.execution

    @property
    def has_one_total_loss(self) -> bool:
        """Whether the total loss is the same sum in all trials, and in all epochs."""
        weighting = self.compile_options.get("weighting")
        if weighting is not None and not is_gradient_weighting(weighting):
            name = getattr(weighting, "registered_name", weighting)
            if name != "equal":
                return False  # it moves weights in training
        in_it = {TASK_WEIGHTS, "weighting", "l2", *_registry.names("weighting")}
        searched = {name.partition(".")[0] for name in self.space.dimensions}
        return not any(name in in_it or "regularizer" in name for name in searched)

    def default_values(self) -> dict[str, Any]:
        """Every hyperparameter's value before any sampling."""
        return self.space.values(keras_tuner.HyperParameters())

    def builder_arguments(self, values: Values) -> dict[str, Any]:
        """The builder's keyword arguments but the tasks, for values of the space."""
        signature = self.space.signature
        arguments = signature.builder_values(values)
        if self.seed is not None and signature.takes("seed"):
            arguments["seed"] = self._shifted_seed
        return arguments

    def _make_optimizer(self, values: Values) -> Any:
        """A fresh optimizer: one object cannot train two models."""
        chosen = values.get("optimizer", self.optimizer)
        given = with_arguments("optimizer", chosen, values)
        if isinstance(given, keras.optimizers.Optimizer):
            given = keras.optimizers.serialize(given)
        optimizer = keras.optimizers.get(given)
        if "learning_rate" in values:
            optimizer.learning_rate = values["learning_rate"]
        return optimizer

    def _fit_arguments(
        self, values: Values, args: tuple, kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """`fit`'s arguments with the batch size and the schedule of a trial."""
        found = dict(kwargs)
        if "batch_size" in values:
            data = args[0] if args else kwargs.get("x")
            if kwargs.get("batch_size") is not None or _has_order(data):
                raise keras_tuner.errors.FatalValueError(
                    "`batch_size` is searched: give arrays to `search`, and no "
                    f"`batch_size`. Received: batch_size={kwargs.get('batch_size')} "
                    f"and data of type {type(data).__name__}"
                )
            found["batch_size"] = values["batch_size"]
        schedule = self.schedule_callbacks(values)
        if schedule:
            found["callbacks"] = [*schedule, *(kwargs.get("callbacks") or ())]
        return found

    def schedule_callbacks(self, values: Values) -> list[keras.callbacks.Callback]:
        """What changes the learning rate in `fit`, where the values have a schedule."""
        schedule = values.get("learning_rate_schedule", "constant")
        if schedule == "constant":
            return []
        rate = self._make_optimizer(values).learning_rate
        return [LearningRateSchedule(schedule, float(ops.convert_to_numpy(rate)))]

    def compile_arguments(self, values: Values) -> dict[str, Any]:
        """Arguments of `compile`, new objects: metrics and weightings have state."""
        options = dict(self.compile_options)
        chosen = values.get("weighting", options.get("weighting"))
        if is_gradient_weighting(chosen) and not self.space.shares(values):
            chosen = options["weighting"] = None  # it has nothing to balance
        if chosen is not None or "weighting" in values:
            options["weighting"] = with_arguments("weighting", chosen, values)
        copies = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(options)
        )
        data = getattr(options.get("weighting"), "data", None)
        if data is not None:  # Auto-Lambda's, which no config holds
            copies["weighting"].data = data
        return {"optimizer": self._make_optimizer(values), **copies}

    def _fast_data(
        self, model: MultiTaskModel, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        """Arrays as the pipeline that all trials share; anything else as it is."""
        given = {**dict(zip(("x", "y"), args, strict=False)), **kwargs}
        parts = [given.get(key) for key in ("x", "y", "sample_weight")]
        others = {name: given[name] for name in given if name not in DATA_ARGUMENTS}
        if (
            len(args) > 2
            or parts[0] is None
            or _has_order(parts[0])
            or others.pop("shuffle", True) is not True
            or not others.keys() <= PLAIN_ARGUMENTS
        ):
            return args, kwargs
        data = {name: given[name] for name in ARRAY_ARGUMENTS if name in given}
        if self._feed is None or not self._feed.fits(data):
            self._feed = Feed(model, data)
        seed = self._shifted_seed
        if seed is None:  # Keras would draw the order of rows from the same source
            seed = int(np.random.randint(2**31))
        plan = others.pop("plan", None)
        if self._feed.is_pipeline(model) and (
            "steps_per_execution" not in self.compile_options
        ):
            steps = self._feed.steps(given.get("batch_size"), plan)
            choose_steps_per_execution(model, steps, others.get("callbacks"))
        own = self._feed.arguments(model, seed, given)
        return (), {**others, **own, "shuffle": False}

    def forget_data(self) -> None:
        """Let go of the data of earlier fits, and look at the next anew."""
        self._feed = None

    def __getstate__(self) -> Config:
        return {**self.__dict__, "_feed": None}


def _has_order(data: Data) -> bool:
    """Whether the data themselves say which rows come when."""
    return is_dataset(data) or is_stream(data) or plan_of(data) is not None


@contextlib.contextmanager
def execution_of(hypermodel: AnyHyperModel, number: int) -> Iterator[None]:
    """Within it a kmtl.HyperModel has the seeds of that training of a trial."""
    if not isinstance(hypermodel, HyperModel):
        yield
        return
    before, hypermodel.execution = hypermodel.execution, number
    try:
        yield
    finally:
        hypermodel.execution = before
