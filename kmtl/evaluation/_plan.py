"""The configuration of single-task baselines."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kmtl import _checks
from kmtl.data.plans import RowPlan
from kmtl.evaluation import _cache
from kmtl.tasks.base import Task
from kmtl.training.rate_factors import is_of_trunk
from kmtl.typing import Config, Verbose

#: Builder arguments that say how tasks share or weigh: a single task does neither.
MULTI_TASK_ARGUMENTS = ("sharing", "sharing_depth", "loss_weights")
MULTI_TASK_COMPILE = ("weighting", "relations", "loss_weights", "joint_losses")
PER_TASK_COMPILE = ("loss", "metrics", "weighted_metrics")

Progress = Callable[[str, int, int, int], None]


class Plan:
    """The configuration that all single-task models share."""

    def __init__(
        self,
        builder: Callable[..., keras.Model],
        arguments: dict[str, Any],
        compile_options: dict[str, Any],
        *,
        epochs: int,
        batch_size: int | None,
        callbacks: list[keras.callbacks.Callback],
        progress: Progress | None,
        seeds: Sequence[int] | None = None,
        keep: str = "best",
        patience: int | None = None,
        verbose: Verbose = 0,
        rows: RowPlan | None = None,
        shuffle: bool = True,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
    ):
        #: Draws the rows of a mixture.
        self.rows = rows
        self.shuffle = shuffle
        self.steps_per_epoch = steps_per_epoch
        self.validation_steps = validation_steps
        self.builder = builder
        self.epochs = epochs
        self.batch_size = batch_size
        self.keep = keep
        self.patience = patience
        self.callbacks = callbacks
        self.verbose = verbose
        self.progress = progress or (lambda task, seed, epoch, epochs: None)
        parameters = inspect.signature(builder).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self.takes_seed = anything or "seed" in parameters
        given = arguments.pop("seed", None)
        if seeds is None:
            seeds = (0 if given is None else given,)
        self.seeds = _checks.check_ints("seeds", seeds, 0)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(
                f"`seeds` must be distinct, at least one. Received: seeds={self.seeds}"
            )
        if len(self.seeds) > 1 and not self.takes_seed:
            raise ValueError(
                "Several `seeds` need a builder that takes `seed`. "
                f"Received: builder={builder.__name__}, seeds={self.seeds}"
            )
        needed = [
            name
            for name, p in parameters.items()
            if p.default is inspect.Parameter.empty
        ]
        self.arguments = {
            name: value
            for name, value in arguments.items()
            if name not in MULTI_TASK_ARGUMENTS or name in needed
        }
        self.compile_options = {
            name: value
            for name, value in compile_options.items()
            if name not in MULTI_TASK_COMPILE
        }
        optimizer = self.compile_options.get("optimizer", "adam")
        # As a config: an optimizer object belongs to one model. Without its name, in
        # which Keras counts the optimizers of the process.
        found = keras.optimizers.serialize(keras.optimizers.get(optimizer))
        found["config"].pop("name", None)
        self.compile_options["optimizer"] = found

    def compile_for(self, task: Task) -> dict[str, Any]:
        options = copy.deepcopy(self.compile_options)
        if options.get("lr_multipliers"):
            options["lr_multipliers"] = {
                part: factor
                for part, factor in options["lr_multipliers"].items()
                if part == task.name or is_of_trunk(part)
            }
        for name in PER_TASK_COMPILE:
            if isinstance(options.get(name), Mapping):
                chosen = options[name].get(task.name)
                options[name] = None if chosen is None else {task.name: chosen}
        options["optimizer"] = keras.optimizers.get(options["optimizer"])
        return options

    def description(self, task: Task | None) -> Config:
        """JSON-ready; of one task's model, or of what all have in common."""
        options = dict(self.compile_options)
        if task is not None:
            options |= {
                name: (options[name] or {}).get(task.name)
                for name in PER_TASK_COMPILE
                if name in options
            }
        description = {
            "builder": self.builder,
            "arguments": self.arguments,
            "compile_options": options,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "keep": self.keep,
            "patience": self.patience,
            "callbacks": self.callbacks,
            "dtype": keras.config.dtype_policy().name,
        }
        further = {
            "rows": self.rows,
            "shuffle": None if self.shuffle else False,
            "steps_per_epoch": self.steps_per_epoch,
            "validation_steps": self.validation_steps,
        }
        # What is not given has no part in keys: those from before it was taken hold.
        description |= {n: part for n, part in further.items() if part is not None}
        return {name: _cache.describe(part, name) for name, part in description.items()}
