"""Trainings of one net from several seeds at several learning rates, on JAX at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

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
            found.best.restore(model)
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
    **options: Any,
) -> Chosen:
    """Train all rates and seeds, and choose the rate.

    Args:
        data, validation: `(x, y)`.
        score: From the logs of the last epoch; the rate of the highest mean over seeds
            is chosen. A training that diverged counts as the lowest of all.
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
    trained = population.train(members, epochs=epochs)
    scores = np.array(
        [np.nan if one.failure else score(one.curves[-1]) for one in trained]
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
