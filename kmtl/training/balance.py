"""What a gradient-based weighting does in a step, on any backend.

Rows are the tasks' gradients, either of the shared parameters (one tensor `(T, *shape)`
per variable) or of the features at the seam (one tensor `(T, N, ...)`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
from keras import ops

from kmtl._private.keras import nodes_of
from kmtl.training.packed import Group, groups_in
from kmtl.training.still import StillModel
from kmtl.training.task_variables import (
    rows_of_heads,
    shares_frozen,
    split_variables,
)
from kmtl.typing import Model, Tensor, Variable
from kmtl.weighting.base import Weighting


class SeveralHeads(NamedTuple):
    """A layer of several heads, on a copy of the features for each of them.

    Attributes:
        group: The layer.
        places: Places of its tasks among all, in their order in it.
        stem: Model from the seam to what the layer reads; None where these are one.
    """

    group: Group
    places: list[int]
    stem: keras.Model | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which variables a gradient-based weighting acts on, and where.

    Attributes:
        level: `"features"` or `"parameters"`.
        shared: Trainable variables that several tasks use.
        own: Dict task name -> trainable variables that it alone uses.
        trunk: Model from the inputs to the seam, or None without a seam.
        heads: Dict task name -> model from the seam to its output, of the tasks that
            have a head of their own.
        rows: Trainable variables with a row for each of several heads, and the places
            of these rows' tasks among all, in the order of the rows.
        several: The layers of several heads, at the features level.
    """

    level: str
    shared: list
    own: dict[str, list]
    trunk: keras.Model | None
    heads: dict[str, keras.Model]
    rows: list[tuple[Variable, list[int]]]
    several: tuple[SeveralHeads, ...] = ()

    def of_several(self, copies: Callable[[list[int]], Tensor]) -> dict[str, Tensor]:
        """Packed outputs of the layers of several heads.

        Args:
            copies: Gives copies of the features `(G, N, ...)` of G tasks, by the places
                of these among all.
        """
        found = {}
        for heads in self.several:
            own = copies(heads.places)
            if heads.stem is not None:
                rows = ops.reshape(own, (-1, *ops.shape(own)[2:]))
                rows = heads.stem(rows, training=True)
                own = ops.reshape(rows, (len(heads.places), -1, rows.shape[-1]))
            found[heads.group.key] = heads.group.layer.of_copies(own)
        return found

    @property
    def num_parameters(self) -> int:
        """Number of shared parameters P."""
        return sum(math.prod(variable.shape) for variable in self.shared)


def make_plan(model: Model, weighting: Weighting) -> Plan | None:
    """Plan for a model; refuses what cannot work, before training.

    None where there is nothing to balance: one task, or all is frozen that tasks share.

    Raises:
        ValueError: if nothing is shared, or features level is asked for where the tasks
            part at more than one place or the method keeps a state per parameter.
    """
    shared, own = split_variables(model)
    rows = _rows(model)
    if len(own) == 1 or not (shared or rows or any(own.values())):
        return None
    name = weighting.registered_name
    if not shared and shares_frozen(model):
        return None
    if not shared:
        raise ValueError(
            f"`weighting='{name}'` balances gradients of shared parameters, and this "
            "model shares none: build it with `sharing_depth` >= 1."
        )
    seam = model.seam
    trunk = None
    if seam is not None:
        trunk = StillModel(model.input, seam.output)
        # Beyond the seam a task may read another's head; it is then not the only place.
        before = {id(variable) for variable in trunk.trainable_variables}
        if any(id(variable) not in before for variable in shared):
            seam = trunk = None
    level = weighting.level
    if level is None:
        features = seam is not None and not weighting.parameter_state
        features = features and not weighting.low_memory
        level = "features" if features else "parameters"
    if level == "features" and seam is None:
        raise ValueError(
            f"`level='features'` of weighting '{name}' needs one place where the tasks "
            "part, and this model has none: use level='parameters'."
        )
    if level == "features" and weighting.parameter_state:
        raise ValueError(
            f"Weighting '{name}' keeps a gradient per shared parameter and so has no "
            "features level: use level='parameters'."
        )
    heads, several = {}, []
    if seam is not None:
        names = list(model.task_names)
        groups = groups_in(model)
        if not all(group.whole for group in groups):
            groups = ()
        for group in groups:
            read = nodes_of(group.layer)[0].input_tensors[0]
            stem = None if read is seam.output else StillModel(seam.output, read)
            places = [names.index(name) for name in group.places]
            several.append(SeveralHeads(group, places, stem))
        inside = {name for group in groups for name in group.places}
        heads = {
            task: StillModel(seam.output, tensor)
            for task, tensor in model.output.items()
            if task not in inside
        }
    return Plan(level, shared, own, trunk, heads, rows, tuple(several))


def _rows(model: Model) -> list[tuple[Variable, list[int]]]:
    names = list(model.task_names)
    return [
        (variable, [names.index(t) if t in names else len(names) for t in tasks])
        for variable, tasks in rows_of_heads(model)
    ]


def current_plan(model: Model) -> Plan | None:
    """The plan for the variables that are trainable now; None without a balance.

    Layers may have been frozen since the model was compiled.
    """
    weighting, plan = model.weighting, model._state.plan
    if weighting is None or weighting.kind != "gradient":
        return None
    shared, own = split_variables(model)
    rows = [variable for variable, _ in _rows(model)]
    known = (
        ([], {}, [])
        if plan is None
        else (plan.shared, plan.own, [variable for variable, _ in plan.rows])
    )
    if _ids(shared, own, rows) != _ids(*known):
        plan = make_plan(model, weighting)
        if plan is not None and plan.level == "parameters":
            kept = plan.num_parameters if weighting.parameter_state else None
            weighting.setup(model.task_names, kept)
        model._state.plan = plan
    return plan


def _ids(shared: list, own: dict[str, list], rows: list) -> list[int]:
    return [id(v) for part in (shared, *own.values(), rows) for v in part]


def row_factors(factors: Tensor, places: list[int], variable: Tensor) -> Tensor:
    """Each task's factor, at the rows of a variable that are its own."""
    every = ops.concatenate([factors, ops.ones((1,), factors.dtype)])
    shape = (-1, *[1] * (len(variable.shape) - 1))
    return ops.cast(ops.reshape(ops.take(every, places), shape), variable.dtype)


def samples_twice(plan: Plan, weighting: Weighting) -> bool:
    """Whether the rows are those of the two halves of a batch."""
    twice = weighting.uses_gramian and weighting.double_sampling
    return plan.level == "parameters" and twice and not weighting.low_memory


def aggregate(
    weighting: Weighting,
    rows: Sequence[Tensor],
    losses: Tensor,
    present: Tensor,
    reduce: Callable[[Tensor], Tensor] = lambda value: value,
    shares: Tensor | None = None,
) -> tuple[list, Tensor, Tensor]:
    """One update from the tasks' gradients.

    Args:
        weighting: A set up `GradientWeighting`.
        rows: Tensors `(T, ...)`; the Jacobian's columns, in parts.
        losses: `(T,)`, the tasks' losses.
        present: `(T,)`, 1 for the tasks that are balanced, else 0.
        reduce: Sums the Gramian over replicas that hold different columns.
        shares: `(2, T)` where the rows are those of two half batches, `(2T, ...)`: the
            share of each half in the whole. The weights then come from the halves'
            cross products, which is free of the bias of a squared mean.

    Returns:
        `(updates, weights, gramian)`: a tensor per part, in its dtype; `(T,)` weights,
        or None where the method has none; `(T, T)`.
    """
    tasks = present.shape[0]
    count = rows[0].shape[0]
    flat = [ops.cast(ops.reshape(part, (count, -1)), "float32") for part in rows]
    cross = None
    if shares is not None:
        cross = sum(
            ops.matmul(part[:tasks], ops.transpose(part[tasks:])) for part in flat
        )
        first, second = shares[0][:, None], shares[1][:, None]
        flat = [first * part[:tasks] + second * part[tasks:] for part in flat]
    # Rows of absent tasks are 0 already: their loss is a masked sum. A mask here would
    # be one more pass over all T copies of the shared gradients.
    gramian = reduce(
        sum(ops.matmul(part, ops.transpose(part)) for part in flat)  # type: ignore
    )
    if weighting.uses_gramian:
        basis = gramian if cross is None else cross
        weights = ops.cast(weighting.row_weights(basis, losses, present), "float32")
        combined = [ops.matmul(weights[None, :], part)[0] for part in flat]
    else:
        jacobian = flat[0] if len(flat) == 1 else ops.concatenate(flat, axis=1)
        update = ops.cast(weighting.direction(jacobian, losses, present), "float32")
        weights = weighting.task_weights()
        if len(flat) == 1:
            combined = [update]
        else:
            combined, start = [], 0
            for part in flat:
                stop = start + part.shape[1]
                combined.append(update[start:stop])
                start = stop
    updates = [
        ops.cast(ops.reshape(update, ops.shape(part)[1:]), part.dtype)
        for update, part in zip(combined, rows, strict=True)
    ]
    return updates, weights, gramian
