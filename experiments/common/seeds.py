"""Trainings of one net from several seeds at several learning rates, on JAX at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np

import kmtl
from kmtl.tuning.population import Member
from kmtl.tuning.population.run import Population


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The trainings at the learning rate that validation chose.

    Attributes:
        rate: That rate.
        edge: Whether it is the lowest or the highest of those that were tried.
        curves: Per seed, the logs of every epoch.
    """

    rate: float
    edge: bool
    curves: list[list[dict[str, float]]]
    population: Population
    members: list[Member]
    trained: list[Any]

    def models(self) -> Iterator[kmtl.MultiTaskModel]:
        """The trained model of each seed; the next takes its place."""
        for member, found in zip(self.members, self.trained, strict=True):
            model = self.population.model(member)
            (found.best if found.last is None else found.last).restore(model)
            if model.optimizer.use_ema:  # as at the end of `fit`
                model.optimizer.finalize_variable_values(model.trainable_variables)
            yield model


def train(
    builder: Callable[..., kmtl.MultiTaskModel],
    data: tuple,
    validation: tuple,
    *,
    rates: Sequence[float],
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
    score: Callable[[dict[str, float]], float],
    patience: int | None = None,
    **options: Any,
) -> Chosen:
    """Train all rates and seeds, and choose the rate.

    Args:
        data, validation: `(x, y)`.
        score: From the logs of an epoch; the rate of the highest mean over seeds is
            chosen. A training that diverged counts as the lowest of all.
        patience: Epochs without a lower validation loss after which a training ends;
            the weights are those of its best epoch. None: those of the last epoch.
        **options: Of `kmtl.HyperModel`, such as the builder's arguments.
    """
    hypermodel = kmtl.HyperModel(
        builder, space={"learning_rate": (1e-6, 10.0, "log")}, seed=0, **options
    )
    population = Population(
        hypermodel, *data, validation_data=validation, batch_size=batch_size
    )
    members = [
        Member({"learning_rate": rate}, execution=seed)
        for rate in rates
        for seed in seeds
    ]
    stop = {"keep_last": True} if patience is None else early_stopping(patience)
    trained = population.train(members, epochs=epochs, **stop)
    last = [
        one.curves[-1:] if patience is None else sorted(one.curves, key=val_loss)[:1]
        for one in trained
    ]
    scores = np.array(
        [
            np.nan if one.failure else score(*logs)
            for one, logs in zip(trained, last, strict=True)
        ]
    )
    scores[np.isnan(scores)] = np.nanmin(scores) if np.isfinite(scores).any() else 0.0
    place = int(scores.reshape(len(rates), len(seeds)).mean(1).argmax())
    own = slice(place * len(seeds), (place + 1) * len(seeds))
    return Chosen(
        rate=rates[place],
        edge=place in (0, len(rates) - 1),
        curves=[one.curves for one in trained[own]],
        population=population,
        members=members[own],
        trained=trained[own],
    )


def val_loss(logs: dict[str, float]) -> float:
    return logs["val_loss"]


def early_stopping(patience: int) -> dict[str, Any]:
    """Arguments of `Population.train` that stop and take the best epoch."""
    callback = keras.callbacks.EarlyStopping("val_loss", patience=patience)
    objective = keras_tuner.Objective("val_loss", "min")
    return {"callbacks": [callback], "objective": objective}
