"""Compile once: trials of one structure take one built and traced model in turn."""

from __future__ import annotations

import dataclasses
import functools
import json
import numbers
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kmtl import _checks, builders
from kmtl.backbones import Backbone
from kmtl.layers.copying import refresh
from kmtl.training.model import MultiTaskModel
from kmtl.training.values import assign, read
from kmtl.tuning.hypermodel import HyperModel
from kmtl.typing import (
    AnyHyperModel,
    Options,
    Values,
    Variable,
)
from kmtl.weighting import base as weighting_base

#: Seeds whose initial weights are kept per structure (a trial's executions).
MOST_SEEDS = 4


class ModelPool:
    """Compiled models that are put back to their beginning instead of built again.

    Building, tracing and compiling take most of a short trial. Two trials that differ
    only in dropout rates, task weights, learning rate and seed share a structure, and
    so one compiled step: all four are variables. A model of the pool trains exactly as
    a freshly built one with the same seed would, and is never traced again.

    Args:
        size: Integer >= 1, structures kept; the one longest unused goes first.
            Defaults to 8.

    Example:

    >>> from kmtl.tuning.reuse import ModelPool
    >>> hypermodel = kmtl.HyperModel(
    ...     kmtl.build_mlp, input_shape=(4,), units=(8,), seed=0,
    ...     tasks=[kmtl.Regression("ink"), kmtl.Regression("slant")],
    ... )
    >>> pool = ModelPool()
    >>> values = hypermodel.default_values()
    >>> first = pool.model(hypermodel, values)
    >>> again = pool.model(hypermodel, {**values, "dropout": 0.25})
    >>> again is first, pool.built
    (True, 1)
    >>> other = pool.model(hypermodel, {**values, "sharing_depth": 0})
    >>> other is first, pool.built
    (False, 2)
    """

    def __init__(self, size: int = 8):
        self.size = _checks.check_int("size", size, 1)
        #: Number of models built and compiled so far.
        self.built = 0
        self._entries: OrderedDict[Any, _Entry] = OrderedDict()

    def model(self, hypermodel: AnyHyperModel, values: Values) -> MultiTaskModel:
        """A compiled model, equal to a new one. It is the pool's: take it in turn."""
        arguments = hypermodel.builder_arguments(values)
        options = hypermodel.compile_arguments(values)
        # A batch size has its own number of steps per execution, which is traced.
        key = structure(arguments), compilation(options), values.get("batch_size")
        entry = self._entries.get(key)
        if entry is not None and entry.is_intact() and entry.takes(arguments):
            self._entries.move_to_end(key)
            entry.reset(hypermodel, arguments, options)
            return entry.model
        model = hypermodel.builder(tasks=hypermodel.tasks, **arguments)
        model.compile(**options)
        model._state.rates_change = any(name.startswith("dropout") for name in values)
        self.built += 1
        self._entries[key] = _Entry(model, arguments)
        while len(self._entries) > self.size:
            self._entries.popitem(last=False)
        return model

    def discard(self, model: MultiTaskModel) -> None:
        """Forget a model, as after a training that failed half-way."""
        for key, entry in list(self._entries.items()):
            if entry.model is model:
                del self._entries[key]

    def clear(self) -> None:
        """Forget all models."""
        self._entries.clear()


class _Entry:
    """One structure's model, and what puts it back to its beginning."""

    def __init__(self, model: MultiTaskModel, arguments: Options):
        model.build_optimizer()
        self.model = model
        compiled = list(model.optimizer.variables)
        if model.relations is not None:
            compiled += model.relations.variables
        if model.adversary is not None:
            compiled += model.adversary.variables
        self._compiled = compiled, [_kept(variable) for variable in compiled]
        self._trainable = [id(v) for v in model.trainable_variables]
        self._objects = _objects(model)
        rates = frozen(dropout_of(arguments)) if fixed_dropout(model) else None
        self._fixed_rates = rates
        # seed -> (dropout as given, initial values of the layers)
        self._initial: dict[int, tuple[Any, list[np.ndarray]]] = {}
        if arguments.get("seed") is not None:
            self._remember(arguments, [_kept(v) for v in _layer_variables(model)])

    def is_intact(self) -> bool:
        """Whether no callback has frozen layers or compiled the model anew."""
        model = self.model
        objects = _objects(model)
        trainable = [id(v) for v in model.trainable_variables]
        return self._objects == objects and self._trainable == trainable

    def takes(self, arguments: Options) -> bool:
        """Whether the model can have the dropout of these arguments."""
        fixed = self._fixed_rates
        return fixed is None or fixed == frozen(dropout_of(arguments))

    def reset(
        self,
        hypermodel: AnyHyperModel,
        arguments: Options,
        options: Options,
    ) -> None:
        """Make the model equal to a new one of these arguments."""
        model = self.model
        assign(_layer_variables(model), self._start(hypermodel, arguments))
        refresh(model)
        rates = dropout_of(arguments)
        if _are_rates(rates) and self._fixed_rates is None:
            model.set_dropout(rates)
        tasks, rule = builders.with_loss_weights(
            hypermodel.tasks, arguments.get("loss_weights")
        )
        for task in tasks:
            model.task_outputs[task.name].set_weight(task.weight, rule)
        assign(*self._compiled)
        rate = _rate(options["optimizer"])
        if rate is not None:
            model.optimizer.learning_rate = rate
        weighting, log = model.weighting, model.balance_log
        new = weighting_base.get(options.get("weighting"))
        if weighting is not None and new is not None and log is not None:
            new.setup(weighting.task_names, weighting.num_parameters)
            # Not its own: without a seed, a new one begins elsewhere.
            weighting._initial_values = new._initial_values
            weighting.reset()
            log.reset()
        model.reset_metrics()
        model.stop_training = False

    def _start(self, hypermodel: AnyHyperModel, arguments: Options) -> list[np.ndarray]:
        """Initial values of the layers' variables, from memory or from a new model."""
        seed, rates = arguments.get("seed"), dropout_of(arguments)
        if seed in self._initial:
            known, values = self._initial[seed]
            if _are_rates(rates) or frozen(rates) == known:
                return values
        new = hypermodel.builder(tasks=hypermodel.tasks, **arguments)
        values = [_kept(v) for v in _layer_variables(new)]
        if seed is not None:
            self._remember(arguments, values)
        return values

    def _remember(self, arguments: Options, values: list) -> None:
        self._initial[arguments["seed"]] = (frozen(dropout_of(arguments)), values)
        while len(self._initial) > MOST_SEEDS:
            del self._initial[next(iter(self._initial))]


def _objects(model: MultiTaskModel) -> tuple:
    """What `compile` gave the model."""
    return model.optimizer, model.weighting, model.relations, model.adversary


# -- what makes a structure -----------------------------------------------------------


def reason_against(
    hypermodel: AnyHyperModel, distribution_strategy: Any = None
) -> str | None:
    """Why the models of a hypermodel cannot be used again, or None if they can."""
    if not isinstance(hypermodel, HyperModel):
        return "only the models of a kmtl.HyperModel are known well enough"
    if not hypermodel.reuse:
        return "`reuse=False`"
    if type(hypermodel).build is not HyperModel.build:
        return f"{type(hypermodel).__name__} has a `build` of its own"
    builder = hypermodel.builder
    while isinstance(builder, functools.partial):
        builder = builder.func
    if getattr(builder, "__module__", "") != builders.__name__:
        return "`builder` is not one of kmtl's: what it builds may depend on anything"
    if distribution_strategy is not None or keras.distribution.distribution():
        return "the variables are distributed"
    return None


def structure(arguments: Options) -> Any:
    """Hashable: equal for builder arguments that give the same compiled step."""
    kept = {name: value for name, value in arguments.items() if name != "seed"}
    if not isinstance(kept.get("loss_weights"), str):
        kept.pop("loss_weights", None)
    if "dropout" in kept:
        kept["dropout"] = _without_rates(kept["dropout"])
    backbone = kept.get("backbone")
    if isinstance(backbone, Backbone):
        fields = _fields(backbone)
        fields["dropout"] = _without_rates(fields["dropout"])
        kept["backbone"] = (type(backbone), frozen(fields))
    return frozen(dict(sorted(kept.items())))


def compilation(options: Options) -> str:
    """Equal for arguments of `compile` that give the same compiled step."""
    optimizer = options["optimizer"]
    config = optimizer.get_config()
    config.pop("name")  # Keras counts them
    if _rate(optimizer) is not None:
        config.pop("learning_rate")
    parts = {**options, "optimizer": [type(optimizer).__qualname__, config]}
    return json.dumps(parts, sort_keys=True, default=_described)


def _described(value: Any) -> Any:
    """Not by Keras' serialization, which imports TensorFlow on every backend."""
    if callable(getattr(value, "get_config", None)):
        kind = type(value)
        return [f"{kind.__module__}.{kind.__qualname__}", value.get_config()]
    return value.tolist() if isinstance(value, np.ndarray) else repr(value)


def dropout_of(arguments: Options) -> Any:
    """The dropout among a builder's arguments, or in its backbone."""
    if "dropout" in arguments:
        return arguments["dropout"]
    return getattr(arguments.get("backbone"), "dropout", None)


def fixed_dropout(model: MultiTaskModel) -> str | None:
    """Name of a layer whose dropout rate is no variable, as in a user's backbone."""
    kinds = (
        keras.layers.Dropout,  # and the spatial ones
        keras.layers.AlphaDropout,
        keras.layers.GaussianDropout,
    )
    fixed = (layer.name for layer in model.layers if isinstance(layer, kinds))
    return next(fixed, None)


def frozen(value: Any) -> Any:
    """Hashable form of an argument; what it does not know equals only itself."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return type(value).__name__, value
    if isinstance(value, np.generic):
        return frozen(value.item())
    if isinstance(value, type):
        return value
    if isinstance(value, Mapping):
        return "dict", tuple((key, frozen(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return "list", tuple(map(frozen, value))
    if dataclasses.is_dataclass(value) and type(value).__dataclass_params__.frozen:  # type: ignore[union-attr]
        return type(value), frozen(_fields(value))
    if isinstance(value, _Same):  # of a part that is frozen already
        return value
    if isinstance(value, keras.Model):  # its config says nothing of its weights
        return _Same(value)
    if type(value).__module__.startswith("keras.") and callable(
        getattr(value, "get_config", None)
    ):
        return type(value), frozen(value.get_config())
    return _Same(value)


def _fields(value: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(value)]
    return {name: getattr(value, name) for name in names}


class _Same:
    """Equal to what wraps the same object, which it keeps alive."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _without_rates(dropout: Any) -> Any:
    """The same with "rate" for every number: None leaves a layer out."""
    if _is_number(dropout):
        return "rate"
    if isinstance(dropout, Mapping):
        return {key: _without_rates(value) for key, value in dropout.items()}
    if isinstance(dropout, (list, tuple)):
        return [_without_rates(value) for value in dropout]
    return dropout


def _are_rates(dropout: Any) -> bool:
    """Whether `set_dropout` takes it: one rate, or one per block."""
    if isinstance(dropout, (list, tuple)):
        return bool(dropout) and all(map(_is_number, dropout))
    return _is_number(dropout)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _rate(optimizer: Any) -> float | None:
    """The learning rate of an optimizer that has a variable for it."""
    rate = optimizer.get_config()["learning_rate"]
    return float(rate) if _is_number(rate) else None


def _layer_variables(model: MultiTaskModel) -> list[Any]:
    """Variables of the layers alone: not of what `compile` added."""
    found = {id(v): v for layer in model.layers for v in layer.variables}
    return list(found.values())


def _kept(variable: Variable) -> np.ndarray:
    """A copy of a variable's value; of one number, without its memory."""
    (value,) = read([variable])
    if value.size and (value == value.flat[0]).all():
        return np.broadcast_to(value.flat[:1].reshape(()).copy(), value.shape)
    return value
