"""The model: a functional Keras model that knows its tasks."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from kmtl import _checks, _registry
from kmtl._private.keras import (
    CACHED_EVALUATION,
    JAX_STATE,
    forget_layer,
    keeping_values,
    sublayers,
)
from kmtl.layers.dropout import watched
from kmtl.layers.named import with_names
from kmtl.losses.joint import Joint
from kmtl.relations import base as relations_base
from kmtl.relations.base import Relations
from kmtl.tasks.checks import label_dict
from kmtl.training import (
    alike,
    all_rows,
    executions,
    freezing,
    placing,
    rate_factors,
    sources,
    streams,
    targets,
    total_loss,
    values,
)
from kmtl.training.adversaries import Adversary
from kmtl.training.balance import current_plan
from kmtl.training.balance_log import BalanceLog
from kmtl.training.batches import ShuffledBatches
from kmtl.training.built_with import BuiltWith
from kmtl.training.callbacks import check_callbacks, with_hooks
from kmtl.training.compile_state import CompileState
from kmtl.training.compiling import check
from kmtl.training.guards import Guards, check_guards
from kmtl.training.labels import apply_sample_weight, clean_labels, named
from kmtl.training.memory import memory_advice
from kmtl.training.optimizer_slots import build_optimizer
from kmtl.training.packed import groups_in, in_units, opened, packing
from kmtl.training.packed_labels import open_labels, packed_labels
from kmtl.training.packed_logs import by_name, logs_for, packed_logs, with_logs
from kmtl.training.progress import shown
from kmtl.training.task_access import TaskAccess
from kmtl.training.teaching import as_written
from kmtl.training.trackers import LossTerms
from kmtl.training.unfinished import put_weights
from kmtl.training.user_data import (
    COUNTS,
    check_counts,
    check_ends,
    check_planned,
    prepare,
    prepare_rows,
    prepare_validation,
)
from kmtl.typing import (
    Callbacks,
    Config,
    Data,
    Inputs,
    Labels,
    Logs,
    Model,
    Optimizer,
    Options,
    Outputs,
    SampleWeight,
    TaskName,
    Tensor,
    Verbose,
)
from kmtl.weighting import base as weighting_base
from kmtl.weighting.base import Weighting


@keras.saving.register_keras_serializable(package="kmtl")
class MultiTaskModel(TaskAccess):
    """A functional Keras model with one named output per task.

    Made by the builders (`kmtl.build_mlp`, `kmtl.build_cnn`, `kmtl.build`), or by hand
    as `MultiTaskModel(inputs, {task.name: TaskOutput(task)(logits), ...})`. Everything
    that Keras offers for a model works: `summary`, `fit`, `evaluate`, `predict`
    (logits, and values in the labels' units), `save`, `load_model`, callbacks,
    distribution, precision.

    `compile` needs only an optimizer: losses, weights and metrics come from the tasks.

    Example:

    >>> import numpy as np
    >>> tasks = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8,), seed=0)
    >>> model.compile("adam")
    >>> x = np.zeros((6, 4), "float32")
    >>> y = {"kind": np.array([0, 1, 2, 0, 1, -1]), "size": np.full(6, np.nan)}
    >>> history = model.fit(x, y, verbose=0)
    >>> sorted(history.history)
    ['kind_accuracy', 'kind_loss', 'loss', 'size_loss', 'size_mae']
    """

    train_function: Any  # Keras has both
    test_function: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for layer in sublayers(self):
            if not layer.trainable:  # freeze what it made after it was frozen, too
                layer.trainable = True  # TensorFlow ignores a value that is no other
                layer.trainable = False
        self.weighting: weighting_base.Weighting | None = None
        self.relations: relations_base.Relations | None = None
        self.adversary: Adversary | None = None
        self.balance_log: BalanceLog | None = None
        self._state = CompileState()
        #: What `kmtl.build` was given; None for a net made by hand.
        self.built_with: BuiltWith | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        # Keras looks for layers in whatever a model is given: in every step in each of
        # some thousand arrays, which takes longer than the step of a small net.
        if name == JAX_STATE:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # -- compile ----------------------------------------------------------------------

    def compile(
        self,
        optimizer: str | Optimizer = "adam",
        loss: Mapping[TaskName, Any] | None = None,
        loss_weights: Mapping[str, float] | str | None = None,
        metrics: Mapping[TaskName, Any] | None = None,
        weighted_metrics: Mapping[TaskName, Any] | None = None,
        run_eagerly: bool = False,
        steps_per_execution: int | str = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        *,
        weighting: str | Config | Weighting | None = None,
        relations: str | Relations | None = None,
        joint_losses: Joint | Sequence[Joint] | None = None,
        lr_multipliers: Mapping[str, float] | None = None,
        adversary: Adversary | None = None,
    ) -> None:
        """Make the model ready to train. Only the optimizer is needed.

        Args:
            optimizer: Keras optimizer or its name. Defaults to `"adam"`. Steps leave
                the own part of a task without labels in the batch alone, with what the
                optimizer keeps for it. `gradient_accumulation_steps=k` in it makes a
                step of the mean of k batches' gradients: that of all their rows, where
                a task has as many labels in each (a batch without any counts as 0).
            loss: Dict task name -> loss that replaces the task's own, for some tasks,
                until the next `compile`: the model's `tasks` have it, files too.
            loss_weights: Dict task name -> weight for some tasks, `"uniform"` (1/T
                each), `"data"` (in proportion to each task's number of labels, summing
                to 1, counted when a `fit` starts, for its data), or None: the weights,
                or the rule for them, as they are. `set_task_weights` ends the rule.
            metrics: Dict task name -> further metrics (names or Keras metrics) that
                see present labels without sample weights, as Keras does.
            weighted_metrics: The same, with sample weights applied.
            run_eagerly, jit_compile, auto_scale_loss: As in `keras.Model.compile`.
            steps_per_execution: Integer >= 1, as there: so many steps run in one call,
                and callbacks are called for batches once in as many. `"auto"`: up to
                32 where nobody minds, which is up to twice as fast for a small net,
                with the same numbers; 1 where a callback looks at batches, and for
                data of unknown length. Defaults to 1.
            weighting: Name or object of `kmtl.weighting`: a rule that balances the
                tasks on top of their weights. None sums the weighted losses.
            relations: Name or object of `kmtl.relations`: a regulariser of the heads'
                weights that learns how the tasks are related. Defaults to none.
            joint_losses: One or several `kmtl.losses.Joint`: losses over the outputs of
                several heads, added with weights of their own. Defaults to none.
            lr_multipliers: Factors >= 0 of the learning rate (and of decoupled weight
                decay), for a pretrained trunk, say: `{"trunk": 0.1}`. Keys are
                `"trunk"` (all blocks), `"block_1"` and so on (that block, shared or the
                tasks' own), and names of tasks, for their heads. Parts that are not
                named, gates among them, have 1. Defaults to none.
            adversary: Changes the inputs of every training step: an attack, such as
                `kmtl.training.FGSM(0.1)` or `PGD(0.1)`, or
                `kmtl.training.InputNoise(0.1)`. Defaults to none.

        Raises:
            ValueError: for names that are not tasks, unknown losses and metrics, and a
                weighting or relations object of another model. The model is then as it
                was before.
        """
        run_eagerly = False if run_eagerly is None else run_eagerly
        _checks.check_choice("run_eagerly", run_eagerly, (True, False))
        _checks.check_choice("auto_scale_loss", auto_scale_loss, (True, False))
        made = check(
            self,
            optimizer=optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
            weighting=weighting,
            relations=relations,
            joint_losses=joint_losses,
            lr_multipliers=lr_multipliers,
            adversary=adversary,
        )
        chooses_steps = made.options["steps_per_execution"] == executions.AUTO
        begin = {"steps_per_execution": 1} if chooses_steps else {}
        super().compile(**{**made.options, **begin})
        rate_factors.install(self, self.optimizer, made.factors)
        for name, layer in self.task_outputs.items():
            layer.set_loss(made.losses.get(name))
            if made.weights == "data":
                layer.weight_rule = made.weights
        if isinstance(made.weights, Mapping):
            self.set_task_weights(made.weights)
        rule, log = made.weighting, None
        if rule is not None:
            rule.belong_to(self)
            log = BalanceLog(self.task_names, getattr(rule, "monitor", False))
        if made.relations is not None:
            made.relations.belong_to(self)
        if made.adversary is not None:
            made.adversary.belong_to(self)
        for name, part in (
            ("weighting", rule),
            ("relations", made.relations),
            ("adversary", made.adversary),
            ("balance_log", log),
        ):
            old = getattr(self, name)
            if old is not None and old is not part:
                forget_layer(self, old)
            setattr(self, name, part)
        self._state = CompileState(
            plan=made.plan,
            alike=made.alike,
            terms=LossTerms(self.task_names, made.terms, made.joint),
            metrics=made.metrics,
            guards=Guards(
                list(made.tasks.values()),
                [self.output[name].shape[1:] for name in made.tasks],
                [t.name for t in self.inputs],
            ),
            joint=made.joint,
            chooses_steps=chooses_steps,
            config=made.config(),
        )

    def get_compile_config(self) -> Config:
        if not self.compiled:
            return {}
        # A file without the optimizer's variables does not load cleanly.
        if self.built:
            with self._scope():
                self.build_optimizer()
        config = {**self._state.config, "loss": self.replaced_losses or None}
        if self.built and (places := freezing.frozen_and_known(self)):
            config["frozen_in_optimizer"] = places
        return keras.saving.serialize_keras_object(config)

    def compile_from_config(self, config: Config) -> None:
        options = keras.saving.deserialize_keras_object(config)
        places = options.pop("frozen_in_optimizer", ())
        self.compile(**options)
        if self.built:
            build_optimizer(self.optimizer, freezing.known_again(self, places))
            self.build_optimizer()

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: Options | None = None
    ) -> Model:
        _registry.load_plugins()  # which define classes that the config may name
        config = dict(config)
        record = config.pop("built_with", None)
        model = super().from_config(config, custom_objects=custom_objects)
        model.built_with = None if record is None else BuiltWith(**record)
        return model

    def get_config(self) -> Config:
        config = with_names(super().get_config(), self.layers)
        if self.built_with is not None:
            config["built_with"] = self.built_with.to_config()
        return config

    # -- losses -----------------------------------------------------------------------

    def train_step(self, *args: Any) -> Any:
        # TensorFlow passes (data), JAX (state, data).
        kind = "step" if current_plan(self) is None else "gradient"
        backend = keras.backend.backend()
        module = importlib.import_module(f"kmtl.training.{kind}_{backend}")
        args = open_labels(self, args)
        with packing(self), self._fast_layers():
            return module.train_step(self, *args)

    def test_step(self, *args: Any) -> Any:
        args = open_labels(self, args)
        with packing(self), self._fast_layers():
            return super().test_step(*args)

    def predict_step(self, *args: Any) -> Any:
        with self._fast_layers():
            return super().predict_step(*args)

    def _fast_layers(self) -> contextlib.AbstractContextManager[None]:
        """Within it XLA compiles what it runs fast on a CPU."""
        jax = keras.backend.backend() == "jax"
        if not jax or self.run_eagerly or not self.jit_compile:
            return contextlib.nullcontext()
        from kmtl.training.cpu_kernels import cpu_kernels

        return cpu_kernels(self)

    def call(
        self,
        inputs: Inputs,
        training: bool | None = None,
        mask: Any = None,
        **kwargs: Any,
    ) -> Outputs:
        """Outputs by task name; within steps those of many tasks alike are packed."""
        # Keras' layers that change photos take None for True, and hand that on to all
        # layers behind them: normalisation would take the batch's statistics.
        training = False if training is None else training
        net = self._state.packed
        if net is None:
            return super().call(inputs, training=training, mask=mask, **kwargs)
        outputs = net.call(inputs, training=training, mask=mask, **kwargs)
        return in_units(self, outputs)

    @functools.cached_property
    def head_groups(self) -> tuple:
        """The layers that hold the heads of many tasks alike, with their tasks."""
        return groups_in(self)

    def _require_compile(self, method: str) -> None:
        if not self.compiled:
            raise ValueError(f"You must call `compile()` before calling `{method}()`.")

    def compute_loss(
        self,
        x: Inputs | None = None,
        y: Labels | None = None,
        y_pred: Any = None,
        sample_weight: SampleWeight | None = None,
        training: bool = True,
    ) -> Tensor:
        """Total loss of a batch; also updates the running loss terms."""
        return total_loss.compute(self, x, y, y_pred, sample_weight, training)

    def loss_report(
        self,
        x: Inputs,
        y: Labels | None = None,
        sample_weight: SampleWeight | None = None,
    ) -> dict:
        """The terms of the loss on a batch: they add up to the total.

        Returns:
            Dict with, per task, `{"loss", "weight", "weighted", "labels"}`, and under
            `"regularization"`, `"other"` (what a weighting adds) and `"total"` a float.
        """
        self._require_compile("loss_report")
        targets.check_adapted(self, "loss_report")
        x, y, sample_weight = prepare(self, x, y, sample_weight)
        return total_loss.report(self, x, y, sample_weight)

    def scale_report(
        self,
        x: Inputs,
        y: Labels | None = None,
        sample_weight: SampleWeight | None = None,
    ) -> Any:
        """Each task's loss and gradient norm on a batch, and weights to start with.

        For before the first step: a task whose gradient is a hundred times another's
        decides alone where the shared trunk goes. The model is not changed.

        Args:
            x: Inputs of one batch (arrays).
            y: Dict task name -> labels.
            sample_weight: As in `fit`.

        Returns:
            A printable `kmtl.training.scale.ScaleReport`; its `suggested` is a dict for
            `set_task_weights`.

        Example:

        >>> tasks = [kmtl.Regression("metres"), kmtl.Regression("grams")]
        >>> model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(4,), seed=0)
        >>> y = {"metres": np.ones(8), "grams": np.full(8, 1000.0)}
        >>> report = model.scale_report(np.ones((8, 2), "float32"), y)
        >>> report.suggested["metres"] > 100 * report.suggested["grams"]
        True
        """
        from kmtl.training.scale import scale_report

        return scale_report(self, x, y, sample_weight)

    # -- metrics ----------------------------------------------------------------------

    @property
    def metrics(self) -> list:
        found = super().metrics
        if self.compiled:
            own = (self._state.terms, self._state.guards)
            found = [*found, *own, *self._state.metrics.objects()]
        return found

    @property
    def metrics_names(self) -> list[str]:
        """Names of the logs, in the order of the values that `evaluate` returns."""
        if not self.compiled:
            return []
        names = [metric.name for metric in super().metrics]
        own = (*self._state.terms.names, *self._state.metrics.names)
        return list(dict.fromkeys([*names, *own]))

    @property
    def metric_directions(self) -> dict[str, str]:
        """Log name -> `"max"` or `"min"`, of the tasks' metrics that say so."""
        return dict(self._state.metrics.directions) if self.compiled else {}

    def _in_order(self, logs: Logs, return_dict: bool) -> Any:
        """Logs as Keras returns them: a dict, or the values of `metrics_names`."""
        return logs if return_dict else [logs[name] for name in self.metrics_names]

    def compute_metrics(
        self,
        x: Inputs,
        y: Labels,
        y_pred: Outputs,
        sample_weight: SampleWeight | None = None,
    ) -> Logs:
        """Update the tasks' metrics and return all logs."""
        y, x = label_dict(y, self.tasks), named(self, x)
        given, y_pred = y_pred, opened(self, y_pred)
        metrics = self._state.metrics
        groups = alike.fold_whole(self, metrics.groups, x, y, y_pred, sample_weight)
        metrics.update_alike(groups)
        for task in self.tasks:
            if metrics.are_alone(task.name):
                self._update_metrics(task, x, y, (y_pred, given), sample_weight)
        if self._state.packed is not None:
            return packed_logs(self)
        return self.get_metrics_result()

    def _update_metrics(
        self, task: Any, x: Any, y: Any, outputs: tuple, sample_weight: Any
    ) -> None:
        """Update the metrics of one task that are not kept with those of others.

        `outputs` are opened, and as the net gives them.
        """
        name, (y_pred, given) = task.name, outputs
        labels, mask = clean_labels(task, x, y, y_pred[name])
        weights = apply_sample_weight(mask, sample_weight, name)
        seen, written = y_pred[name], as_written(given, name)
        both = seen, seen if written is None else written
        self._state.metrics.update(name, labels, both, mask, weights)

    def make_train_function(self, force: bool = False) -> None:
        state = self._state
        for layer in state.left_out:
            layer.look()
        if force or self.train_function is None:
            state.left_out.clear()
            make = self._made_train_function
            rates = state.rates_change
            self.train_function = make() if rates else watched(make, state.left_out)

    def _made_train_function(self) -> Any:
        before = self.train_function
        with self._traced_anew("train_step"):
            super().make_train_function(force=True)
        made, self.train_function = self.train_function, before
        return with_logs(self, made)

    @contextlib.contextmanager
    def _traced_anew(self, step: str) -> Iterator[None]:
        """Within it Keras makes functions of a step that JAX knows no trace of.

        JAX takes equal methods for one: while a step is held, as by a traceback, the
        next one would be what was traced for that.
        """
        own = self.__dict__.get(step)
        self.__dict__[step] = functools.partial(getattr(self, step))
        try:
            yield
        finally:
            del self.__dict__[step]
            if own is not None:
                self.__dict__[step] = own

    def make_test_function(self, force: bool = False) -> None:
        with self._traced_anew("test_step"):
            super().make_test_function(force)
        self.test_function = with_logs(self, self.test_function)

    def get_metrics_result(self) -> Logs:
        logs = {metric.name: metric.result() for metric in super().metrics}
        logs.update(self._state.terms.result())
        logs.update(self._state.metrics.results())
        return logs

    def _get_metrics_result_or_logs(self, logs: Logs | None) -> Any:
        # Keras would compute every result once more, operation by operation; the last
        # step has computed them from the same state. Replicas have parts of it each.
        own = type(self).train_step is MultiTaskModel.train_step
        if logs and own and not self._has_replicas():
            return {**by_name(self, logs), **self._exact_logs()}
        return super()._get_metrics_result_or_logs(logs)

    def _exact_logs(self) -> dict[str, float]:
        found = self._state.metrics.exact_results()
        return {name: float(value) for name, value in found.items()}

    def _has_replicas(self) -> bool:
        if keras.backend.backend() != "tensorflow":
            return keras.distribution.distribution() is not None
        return self.distribute_strategy.num_replicas_in_sync > 1

    # -- training ---------------------------------------------------------------------

    def checked_arrays(self, data: Data) -> tuple | None:
        """`(x, y)` or `(x, y, sample_weight)` of arrays or a split, as `fit` has them.

        Args:
            data: A tuple of them, a `kmtl.data.Split`, or a data set.

        Returns:
            The arrays, checked; None for a data set.

        Raises:
            ValueError, TypeError: as `fit` does for data that do not fit the tasks.
        """
        arrays = sources.arrays_of(data)
        if arrays is None:
            return None
        parts = keras.utils.unpack_x_y_sample_weight(arrays)
        x, y, weight = prepare(self, *parts)
        return (x, y) if weight is None else (x, y, weight)

    def fit(
        self,
        x: Inputs | None = None,
        y: Labels | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Verbose = "auto",
        callbacks: Callbacks = None,
        validation_split: float = 0.0,
        validation_data: Data | None = None,
        shuffle: bool = True,
        class_weight: None = None,
        sample_weight: SampleWeight | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train, as `keras.Model.fit`.

        Args:
            x: Inputs, a `kmtl.data.Split`, or a data set of `(x, y)` or
                `(x, y, sample_weight)`. The rows of a `kmtl.data.mixture` come in an
                order that its seed and the number of the epoch decide.
            y: Dict task name -> labels (a plain array when there is one task). NaN and
                each task's `missing` value mark labels that are not there.
            sample_weight: Dict task name -> weights, for some or all tasks, or one
                array for all. Weight 0 leaves the label out, also of the metrics.
            class_weight: Refused: give tasks their `class_weight`.
            verbose: `"auto"` (default) or `"tasks"`: one short line per epoch, with the
                time left (`kmtl.training.Progress`). 0, 1 and 2 as for
                `keras.Model.fit`: nothing, its bar, a line of all logs.
            **kwargs: As for `keras.Model.fit`, like the arguments not named here.

        Raises:
            ValueError: when labels do not fit their task, inputs the model, or numbers
                are not finite: before any training for arrays and splits, which are
                checked whole, and for the first batch of data sets and generators;
                after the epoch, with the step, for what their later batches hold.
            kmtl.training.NonFiniteError: after an epoch in which a task's loss, or a
                weight of the model, became NaN or infinite; it names task and step.
                The epochs before are in `model.history`.
            kmtl.training.OutOfMemoryError: when the device has not enough memory; it
                names a batch size that should fit.
        """
        self._require_compile("fit")
        check_counts(
            batch_size=batch_size,
            epochs=epochs,
            **{name: kwargs.get(name) for name in COUNTS},
        )
        _checks.check_int("initial_epoch", kwargs.get("initial_epoch", 0))
        check_callbacks(callbacks)
        if class_weight is not None:
            raise ValueError(
                "`class_weight` belongs to a task: "
                "kmtl.Classification(..., class_weight={0: 1.0, 1: 4.0})."
            )
        validation_split = _checks.check_range(
            "validation_split", validation_split or 0.0, 0, 1, high_open=True
        )
        check_ends(x, "steps_per_epoch", kwargs.get("steps_per_epoch"))
        check_ends(validation_data, "validation_steps", kwargs.get("validation_steps"))
        plan = kwargs.pop("plan", None) or sources.plan_of(x)  # searches give it
        x, y, sample_weight = prepare(self, x, y, sample_weight)
        if plan is not None:
            check_planned(y, shuffle, validation_split, kwargs)
        if validation_data is not None:
            validation_data = prepare_validation(self, validation_data)
        split, steps = validation_split, kwargs.get("steps_per_epoch")
        targets.adapt(self, x, y, sample_weight, validation_split=split, steps=steps)
        with self._scope():
            placing.place_centres(self, x, split, steps)
        verbose, callbacks = shown(verbose, callbacks)
        if self._state.chooses_steps:
            counts = (kwargs.get("steps_per_epoch"), kwargs.get("validation_steps"))
            executions.choose_steps(self, callbacks, x, validation_data, counts=counts)
        current_plan(self)  # refuses what has been frozen since, before JAX's step
        ruled = [n for n, layer in self.task_outputs.items() if layer.weight_rule]
        shares: dict[str, float] = {}
        if ruled:
            data = x
            if y is not None:
                data = sources.training_rows((x, y, sample_weight), split)
            shares = sources.label_shares(data, self.tasks)
        lacks = sources.lacks_labels(
            self.tasks, named(self, x), y, sample_weight, self._state.alike
        )
        self._expect(
            complete=not lacks,
            streams=any(map(sources.needs_looks, (x, validation_data))),
        )
        with self._scope():
            if self.weighting is not None:
                self.weighting.on_fit_begin(self, validation_data)
            self.build_optimizer()
        put_weights(self, {name: shares[name] for name in ruled})
        advice = memory_advice(self, batch_size, arrays=y is not None)
        if plan is not None:
            x = ShuffledBatches(
                x,
                y,
                sample_weight,
                batch_size=batch_size or 32,
                first_epoch=kwargs.get("initial_epoch", 0),
                plan=plan,
            )
            y = sample_weight = None
            kwargs.setdefault("validation_batch_size", batch_size)
            batch_size, shuffle = None, False
        y = packed_labels(self, y, sample_weight)
        if isinstance(validation_data, tuple):
            given = keras.utils.unpack_x_y_sample_weight(validation_data)
            labels = packed_labels(self, *given[1:])
            validation_data = keras.utils.pack_x_y_sample_weight(
                given[0], labels, given[2]
            )
        quiet, kept = logs_for(self, verbose, callbacks), keeping_values(self)
        with kept, advice, quiet, streams.first_hand(x, validation_data):
            history = super().fit(
                x=x,
                y=y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=with_hooks(self, callbacks, x),
                validation_split=validation_split,
                validation_data=validation_data,
                # Keras warns about its own default where the data set has the say.
                shuffle=shuffle
                and not (hasattr(x, "element_spec") or sources.is_stream(x)),
                sample_weight=sample_weight,
                **kwargs,
            )
        freezing.part_from_averages(self)
        placing.tell_collapse(self, history.history)
        return history

    def adapt_targets(self, y: Labels) -> None:
        """Fit the transforms of the tasks' labels, as the first `fit` does.

        For `train_on_batch`, for generators, which would be used up, and to fit them
        anew for other data: `fit` keeps what is fitted.

        Args:
            y: Dict task name -> training labels, for some or all tasks with a
                `transform`; or a finite data set as for `fit`, which is read once.

        Raises:
            ValueError: for a task without any label, and labels that do not fit theirs.

        Example:

        >>> price = kmtl.Regression("price", transform="standardize")
        >>> model = kmtl.build_mlp(input_shape=(2,), tasks=[price], units=(4,), seed=0)
        >>> model.compile("adam")
        >>> model.adapt_targets({"price": [1e5, 2e5, 3e5]})
        >>> loss = model.train_on_batch(np.ones((2, 2)), {"price": [1e5, 2e5]})[0]
        >>> bool(loss < 10)
        True
        """
        with self._scope():
            targets.adapt_to(self, *targets.labels_of(self, y))

    def build_optimizer(self) -> None:
        """Make the optimizer's variables, if there are none; `fit` does it itself."""
        # TensorFlow traces a step a second time if it has made variables.
        build_optimizer(self.optimizer, self.trainable_variables)
        freezing.cover(self)

    def _expect(self, complete: bool | None = None, streams: bool = False) -> None:
        """Trace steps with what the data need, and without what they do not.

        Args:
            complete: Whether every row has a label of every task: without the care for
                absent tasks.
            streams: Whether the data have not been checked whole: steps look at them,
                from now on.
        """
        if complete is not None and complete != self._state.complete:
            self._state.complete = complete
            self.train_function = None
        if streams and not self._state.streams:
            self._state.streams = True
            self.train_function = self.test_function = None

    def reset_metrics(self) -> None:
        """Reset the state of all metrics, as `keras.Model.reset_metrics`."""
        values.reset(self.metrics)

    def train_on_batch(
        self,
        x: Inputs,
        y: Labels | None = None,
        sample_weight: SampleWeight | None = None,
        class_weight: None = None,
        return_dict: bool = False,
    ) -> Any:
        """One step on a batch, as `keras.Model.train_on_batch`, checked as by `fit`."""
        self._require_compile("train_on_batch")
        targets.check_adapted(self, "train_on_batch")
        placing.check_placed(self, "train_on_batch")
        x, y, sample_weight = prepare(self, x, y, sample_weight)
        self._expect(complete=False)
        with logs_for(self, True, None):
            logs = super().train_on_batch(
                x, y, sample_weight, class_weight=class_weight, return_dict=True
            )
        self._state.guards.check(self, "since the last `reset_metrics()`")
        return self._in_order(logs, return_dict)

    def test_on_batch(
        self,
        x: Inputs,
        y: Labels | None = None,
        sample_weight: SampleWeight | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Losses and metrics on a batch, as `keras.Model.test_on_batch`, checked as by
        `evaluate`."""
        self._require_compile("test_on_batch")
        x, y, sample_weight = prepare(self, x, y, sample_weight)
        with logs_for(self, True, None):
            logs = super().test_on_batch(x, y, sample_weight, return_dict=True)
        logs.update(self._exact_logs())
        self._state.guards.check(self, "since the last `reset_metrics()`")
        return self._in_order(logs, return_dict)

    def prepare_inputs(self, x: Inputs) -> Inputs:
        """What the net takes, of what users have: arrays, or a data set of them.

        `fit`, `evaluate` and `predict` do it themselves; by hand it is for what Keras
        does alone, such as `model(x)`, and once for data that are used many times.

        Args:
            x: Inputs, or a data set, as `predict` takes them.

        Returns:
            One array (for several inputs a dict of them), checked, or the data set.

        Example:

        >>> rows = {"age": [31, 45, 62], "city": ["Bonn", "Ulm", "Ulm"]}
        >>> facts = kmtl.inputs.Table().fit(rows)
        >>> model = kmtl.build(
        ...     inputs={"facts": facts}, tasks=[kmtl.Regression("y")], backbone="mlp"
        ... )
        >>> model.prepare_inputs(rows).tolist()
        [[-14.0, 1.0], [0.0, 2.0], [17.0, 2.0]]
        """
        return prepare_rows(self, x)

    def predict(
        self,
        x: Inputs,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        steps: int | None = None,
        callbacks: Callbacks = None,
    ) -> Outputs:
        """Dict task name -> outputs, as `keras.Model.predict`.

        Args:
            x: Inputs, or a data set of inputs (labels in it are left out). A model with
                `input_specs` takes what these say: frames, strings, photos.
            batch_size, verbose, steps, callbacks: As in Keras.
        """
        check_counts(batch_size=batch_size, steps=steps)
        check_ends(x, "steps", steps)
        x = prepare_rows(self, x)
        with keeping_values(self), executions.one_by_one(self):
            return super().predict(
                x,
                batch_size=batch_size,
                verbose=verbose,
                steps=steps,
                callbacks=callbacks,
            )

    def predict_on_batch(self, x: Inputs) -> Outputs:
        """Dict task name -> outputs, as `keras.Model.predict_on_batch`."""
        x = prepare_rows(self, x, empty=True)
        with keeping_values(self), executions.one_by_one(self):
            return super().predict_on_batch(x)

    def _scope(self) -> Any:
        """Where this model's variables are made."""
        if keras.backend.backend() == "tensorflow":
            return self.distribute_strategy.scope()
        return contextlib.nullcontext()

    def evaluate(
        self,
        x: Inputs | None = None,
        y: Labels | None = None,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        sample_weight: SampleWeight | None = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Losses and metrics on data, as `keras.Model.evaluate`.

        Returns:
            A list of numbers, which `metrics_names` names, or with `return_dict=True` a
            dict. The loss and metrics of a task without any label are NaN, and add
            nothing to `loss`, which is what the weighting makes of the losses of all
            rows, however they are batched (under weights that move when an epoch has
            ended, as those of `dwa`, it is not the last `val_loss` of `fit`). Metrics
            that rows make up together, such as a recall among the nearest rows, are
            those of all rows, for which the data are read twice; of a generator, and on
            several devices, the mean over batches.
        """
        self._require_compile("evaluate")
        if not kwargs.get(CACHED_EVALUATION):
            check_counts(batch_size=batch_size, steps=kwargs.get("steps"))
            check_ends(x, "steps", kwargs.get("steps"))
            x, y, sample_weight = prepare(self, x, y, sample_weight)
            self._expect(streams=sources.needs_looks(x))
            if self._state.chooses_steps:
                callbacks, counts = kwargs.get("callbacks"), (kwargs.get("steps"),)
                executions.choose_steps(self, callbacks, x, counts=counts)
        advice = memory_advice(self, batch_size, arrays=y is not None)
        quiet = logs_for(self, verbose, kwargs.get("callbacks"))
        with keeping_values(self), advice, quiet, streams.first_hand(x):
            logs = super().evaluate(
                x=x,
                y=packed_labels(self, y, sample_weight),
                batch_size=batch_size,
                verbose=verbose,
                sample_weight=sample_weight,
                return_dict=True,
                **kwargs,
            )
        # Within `fit` the hooks have looked at the weights before this began.
        weights = not kwargs.get(CACHED_EVALUATION)
        check_guards(self, "of the evaluation", weights=weights)
        loss = total_loss.of_all(self)
        if loss is not None:
            logs["loss"] = float(keras.ops.convert_to_numpy(loss))
        given = (x, y, sample_weight, batch_size, kwargs.get("steps"))
        logs.update(all_rows.of_all_rows(self, *given))
        return self._in_order(logs, return_dict)
