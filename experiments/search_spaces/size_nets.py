"""Populations of nets of many sizes and weight decays, on JAX, for sizes.py."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import keras_tuner

import kmtl
from kmtl.evaluation import common_scale
from kmtl.training.sources import batches_of
from kmtl.training.user_data import prepare_validation
from kmtl.tuning.population import Member
from kmtl.tuning.reuse import ModelPool

OBJECTIVE = keras_tuner.Objective("val_mean_score", "max")
DECAY = "adamw.weight_decay"
#: What all trials draw.
ALWAYS = ("learning_rate", "dropout")


class Decayed(keras.optimizers.AdamW):
    """AdamW whose weight decay is a variable, so that its trials share a program."""

    def build(self, variables: Sequence[Any]) -> None:
        if not self.built:
            self.decay = self.add_variable((), name="decay")
        super().build(variables)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        for variable in variables:
            kept = 1 - self.decay * self.learning_rate
            variable.assign(variable * keras.ops.cast(kept, variable.dtype))


class HyperModel(kmtl.HyperModel):
    def compile_arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        given = super().compile_arguments(values)
        return {**given, "optimizer": Decayed(values["learning_rate"])}


class Pool(ModelPool):
    def model(self, hypermodel: Any, values: Mapping[str, Any]) -> Any:
        model = super().model(hypermodel, values)
        model.optimizer.decay.assign(values[DECAY])
        return model


class Nets:
    """Trains nets on a problem.

    Args:
        made: `kmtl.data.TaskData`.
    """

    def __init__(self, made: Any):
        front: dict[str, Any] = {"inputs": made.inputs}
        if made.inputs is None:
            front = {"input_shape": made.input_shape}
        space = [*ALWAYS, "width", "blocks"]
        self.made = made
        self.hypermodel = HyperModel(
            kmtl.build_mlp, tasks=made.tasks, space=space, seed=0, **front
        )

    def trained(
        self, members: Sequence[Member], epochs: int, test: bool = False
    ) -> list[tuple[float, float]]:
        """Scores on the validation rows and, if asked for, on the test rows.

        Both at the epoch that is best for validation; NaN of nets that diverged.
        """
        from kmtl.tuning.population import Population  # needs JAX

        made, pool = self.made, Pool(32)
        model = pool.model(self.hypermodel, members[0].values)
        score = score_on(model, made.validation)
        score_of_test = score_on(model, made.test) if test else None
        population = Population(
            self.hypermodel, made.train, validation_data=made.validation, pool=pool
        )
        found = population.train(
            members, epochs=epochs, objective=OBJECTIVE, callbacks=[score]
        )
        scores = []
        for member, one in zip(members, found, strict=True):
            best = tested = math.nan
            if one.failure is None:
                best = max(one.history[OBJECTIVE.name])
            if score_of_test is not None and one.failure is None:
                model = population.model(member)
                one.best.restore(model)
                logs = model.evaluate(*made.test.arrays(), return_dict=True, verbose=0)
                logs = {f"val_{name}": value for name, value in logs.items()}
                score_of_test.on_epoch_end(0, logs)
                tested = logs[OBJECTIVE.name]
            scores.append((best, tested))
        return scores


def score_on(model: Any, rows: Any) -> common_scale.CommonScore:
    """What scores all tasks together on some rows."""
    scale = common_scale.measure(model, batches_of(prepare_validation(model, rows)))
    return common_scale.CommonScore(scale, model.tasks)
