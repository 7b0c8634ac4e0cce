"""Which of an optimizer's variables belong to which of a model's."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Sequence

from keras import ops

from kmtl._private.keras import variable_index
from kmtl.typing import Optimizer, Tensor, Variable

#: Optimizer -> {id of one of its variables: id of the model's variable}.
_noted: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
#: How Keras calls the sums of gradients that it keeps until a step.
_ACCUMULATOR = "gradient_accumulator"
#: Optimizer -> the variables that it was built for.
_built_for: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def build_optimizer(optimizer: Optimizer, variables: Sequence[Variable]) -> None:
    """Build an optimizer, if it is not, and note what it makes for each variable."""
    if not optimizer.built:
        _noted[optimizer] = _build(optimizer, variables)
        _built_for[optimizer] = list(variables)


def known_variables(optimizer: Optimizer) -> list[Variable] | None:
    """The variables that an optimizer was built for; None if others have built it."""
    return _built_for.get(optimizer)


def note_known(optimizer: Optimizer, among: Sequence[Variable]) -> None:
    """Note what an optimizer was built for that Keras has built, as `evaluate` may.

    Args:
        among: The model's variables.
    """
    if not optimizer.built or optimizer in _built_for:
        return
    found: dict[int, Variable] = {}
    for variable in among:
        try:
            found[variable_index(optimizer, variable)] = variable
        except KeyError:
            continue
    if found and sorted(found) == list(range(len(found))):
        _built_for[optimizer] = [found[place] for place in range(len(found))]


def rebuilt(optimizer: Optimizer, variables: Sequence[Variable]) -> Optimizer:
    """An optimizer like another one, for other variables, with what it had kept."""
    made = type(optimizer).from_config(optimizer.get_config())
    build_optimizer(made, variables)
    known = _built_for[optimizer]
    places = {id(variable): place for place, variable in enumerate(known)}
    old, new = optimizer_slots(optimizer, known), optimizer_slots(made, variables)
    pairs = [(_general(optimizer, old), _general(made, new))]
    pairs += [
        (old[places[id(variable)]], new[place])
        for place, variable in enumerate(variables)
        if id(variable) in places
    ]
    for sources, targets in pairs:
        for source, target in zip(sources, targets, strict=True):
            value = ops.convert_to_numpy(optimizer.variables[source])
            made.variables[target].assign(value)
    return made


def _general(optimizer: Optimizer, slots: dict[int, list[int]]) -> list[int]:
    """Indices of the variables that are no model variable's slot."""
    taken = {index for group in slots.values() for index in group}
    return [i for i in range(len(optimizer.variables)) if i not in taken]


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


def accumulation(optimizer: Optimizer) -> int | None:
    """Number of batches whose gradients make up a step; None for one."""
    return getattr(optimizer, "inner_optimizer", optimizer).gradient_accumulation_steps


def learned_earlier(
    optimizer: Optimizer, slots: Sequence[int], values: Sequence[Tensor], rows: bool
) -> Tensor:
    """Whether this step applies gradients of earlier batches to some variables.

    Args:
        slots: Indices in `optimizer.variables` of what is kept for the variables.
        values: Values of `optimizer.variables` before the step.
        rows: Tell it for each row of the variables.

    Returns:
        Bool tensor, `()` or `(number of rows,)`.
    """
    made = optimizer.variables
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    # Not `iterations`, which counts the steps and not the batches.
    batches = next(v for v in inner.variables if v.name == "iteration")
    place = next(i for i, v in enumerate(made) if v is batches)
    steps = accumulation(optimizer)
    applies = ops.equal((ops.convert_to_tensor(values[place]) + 1) % steps, 0)
    found = []
    for i in slots:
        if made[i].path.endswith(_ACCUMULATOR):
            value = ops.convert_to_tensor(values[i])
            axes = tuple(range(1 if rows else 0, len(value.shape)))
            found.append(ops.any(ops.not_equal(value, 0), axis=axes))
    earlier = functools.reduce(ops.logical_or, found, ops.convert_to_tensor(False))
    return ops.logical_and(applies, earlier)


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
