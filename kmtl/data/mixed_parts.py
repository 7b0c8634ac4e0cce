"""Whole data sets, of three parts each, mixed part by part."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from kmtl.data.containers import TaskData
from kmtl.data.mixed_sets import LabelledSet, mixed
from kmtl.typing import Options


def mixed_data(sets: Sequence[LabelledSet], options: Options) -> TaskData:
    """A `TaskData` of several: the training part is drawn as `options` say.

    Args:
        sets: As `kmtl.data.mixture` has them, of `TaskData`.
        options: Of `kmtl.data.mixing.mixed`.

    Raises:
        ValueError: for two inputs of one name, which were fitted on different rows.
    """
    inputs = _inputs(sets)
    parts = {}
    for name in ("train", "validation", "test"):
        own = [
            dataclasses.replace(one, data=_named(one.data, name, inputs is not None))
            for one in sets
        ]
        made = mixed(own, **options)
        parts[name] = made if name == "train" else made.union()
    texts = [f"{one.name}: {one.data.description}" for one in sets]
    return TaskData(
        parts["train"].tasks, **parts, description="\n".join(texts), inputs=inputs
    )


def _named(data: TaskData, part: str, named: bool) -> Any:
    """A part of the data, its inputs by name where the others' are."""
    found = getattr(data, part)
    if named and data.inputs is not None and len(data.inputs) == 1:
        return dataclasses.replace(found, x={next(iter(data.inputs)): found.x})
    return found


def _inputs(sets: Sequence[LabelledSet]) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for one in sets:
        for name, spec in (one.data.inputs or {}).items():
            if name in found:
                raise ValueError(
                    f"Input '{name}' must be in one set only: it was fitted on the "
                    "rows of each. Fit one on all rows, prepare what the sets have "
                    "with it, and mix arrays. Received: two sets with it"
                )
            found[name] = spec
    return found or None
