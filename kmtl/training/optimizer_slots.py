"""Which of an optimizer's variables belong to which of a model's."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence

from kmtl.typing import Optimizer, Variable

#: Optimizer -> {id of one of its variables: id of the model's variable}.
_noted: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def build_optimizer(optimizer: Optimizer, variables: Sequence[Variable]) -> None:
    """Build an optimizer, if it is not, and note what it makes for each variable."""
    if not optimizer.built:
        _noted[optimizer] = _build(optimizer, variables)


def optimizer_slots(
    optimizer: Optimizer, variables: Sequence[Variable]
) -> dict[int, list[int]]:
    """Index in `variables` -> indices in `optimizer.variables` of its slots."""
    noted = _noted.get(optimizer, {})
    slots, unknown = _slots(optimizer.variables, variables, noted)
    if unknown and not noted:  # built by somebody else: see what a twin makes
        twin = type(optimizer).from_config(optimizer.get_config())
        noted = _build(twin, variables)
        twins = twin.variables
        if [v.shape for v in twins] == [v.shape for v in optimizer.variables]:
            slots, _ = _slots(twins, variables, noted)
    return slots


def _slots(
    made: Sequence[Variable], variables: Sequence[Variable], noted: dict[int, int]
) -> tuple[dict[int, list[int]], bool]:
    """The slots, by what was noted, else by name; and whether some are unknown.

    Keras calls most slots `<variable path>_<slot name>`; the longest path that fits
    wins, so `a/kernel` does not take what belongs to `a/kernel_b`. Adafactor's have no
    path, and inside a `MultiOptimizer` nothing can be noted.
    """
    paths = [variable.path.replace("/", "_") + "_" for variable in variables]
    places = {id(variable): i for i, variable in enumerate(variables)}
    slots: dict[int, list[int]] = {i: [] for i in range(len(paths))}
    unknown = False
    for index, slot in enumerate(made):
        if id(slot) in noted:
            place = places.get(noted[id(slot)])
        else:
            name = slot.path.rsplit("/", 1)[-1]
            fitting = [i for i, path in enumerate(paths) if name.startswith(path)]
            place = max(fitting, key=lambda i: len(paths[i]), default=None)
            unknown |= place is None and len(slot.shape) > 0
        if place is not None:
            slots[place].append(index)
    return slots, unknown


def _build(optimizer: Optimizer, variables: Sequence[Variable]) -> dict[int, int]:
    """Build, and tell for each new variable on which of the model's it was made."""
    noted: dict[int, int] = {}
    known = {id(variable) for variable in optimizer.variables}

    def note(variable: Variable) -> None:
        for made in optimizer.variables:
            if id(made) not in known:
                known.add(id(made))
                if variable is not None:
                    noted[id(made)] = id(variable)

    optimizer.build(_Noting(variables, note))
    return noted


class _Noting(list):
    """A list that tells, when it is gone through, what was done with each entry.

    An optimizer makes a variable's slots while it goes through the variables.
    """

    def __init__(self, entries: Sequence[Variable], note: Callable[[Variable], None]):
        super().__init__(entries)
        self._note = note

    def __iter__(self) -> Iterator[Variable]:
        self._note(None)
        for entry in super().__iter__():
            yield entry
            self._note(entry)
