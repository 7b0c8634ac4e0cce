"""The trials of one call: their stacked values, and one trial's out of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from kmtl.tuning.population.program import State
from kmtl.typing import Variable

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel


class Chunk:
    """Trials in one call; the last one fills up what `places` leave free.

    Attributes:
        places: Which trials, in the order of the states' leading axis.
        states: Stacked values, `(width, ...)` each.
    """

    def __init__(self, places: list[int], states: State):
        self.places = places
        self.states = states


def make_chunks(
    places: list[int], width: int, states: Mapping[int, State]
) -> list[Chunk]:
    chunks = []
    for start in range(0, len(places), width):
        part = places[start : start + width]
        full = [states[place] for place in part]
        full += [full[-1]] * (width - len(full))
        stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *full)
        chunks.append(Chunk(part, stacked))
    return chunks


class Between:
    """Puts one trial's values of some variables into the model, and takes them back."""

    def __init__(
        self, model: MultiTaskModel, variables: Sequence[Variable], chunk: Chunk
    ):
        self.chunk = chunk
        lists = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
        )
        wanted = {id(variable) for variable in variables}
        #: (variable, part of the state, place in it)
        self.places = [
            (variable, part, i)
            for part, variables in enumerate(lists)
            for i, variable in enumerate(variables)
            if id(variable) in wanted
        ]

    def __enter__(self) -> Callable[[int], Any]:
        states = self.chunk.states
        self.arrays = [np.array(states[part][i]) for _, part, i in self.places]
        return self._trial

    @contextlib.contextmanager
    def _trial(self, at: int) -> Iterator[None]:
        for (variable, _, _), array in zip(self.places, self.arrays, strict=True):
            variable.assign(array[at])
        yield
        for (variable, _, _), array in zip(self.places, self.arrays, strict=True):
            array[at] = np.asarray(variable.value)

    def __exit__(self, *_: Any) -> None:
        for (_, part, i), array in zip(self.places, self.arrays, strict=True):
            self.chunk.states[part][i] = jnp.asarray(array)
