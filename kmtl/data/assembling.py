"""A frame, and what its columns are to be, to inputs, tasks and splits."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl import _arrays
from kmtl.data.columns import Line, fit_table, plan_inputs, table_of
from kmtl.data.containers import Split, TaskData
from kmtl.data.dividing import divide
from kmtl.data.learnable import check_learnable
from kmtl.data.targets import Target, find_targets
from kmtl.data.weights import WEIGHTS, read_weights

if TYPE_CHECKING:
    from kmtl.inputs.base import Input
    from kmtl.tasks.base import Task


def assemble(
    frame: Any,
    *,
    tasks: Sequence[Task] | Mapping[Task, Any] | None,
    targets: Sequence[str] | None,
    inputs: Any,
    split: Any,
    groups: str | None,
    time: str | None,
    seed: int,
    verbose: bool,
    files: Mapping[str, np.ndarray] | None = None,
    said: Sequence[str] = (),
    said_of_left: str = "",
) -> TaskData:
    """What `kmtl.data.from_dataframe` returns; its arguments.

    Args:
        frame: A checked frame.
        files: Column -> what is in the files that it names: images and maps of labels.
        said: Lines to write above the table of what becomes of columns.
        said_of_left: A line to write below it, if it has columns that are in no input.
    """
    from kmtl.inputs import Table
    from kmtl.inputs.remedies import Remedy

    files = files or {}
    found = find_targets(frame, tasks, targets, files)
    taken = {column: "target" for target in found for column in target.columns}
    plan = plan_inputs(frame, inputs, taken)
    weighing = [(WEIGHTS, target.task.sample_weight) for target in found]
    roles = [("groups", groups), ("time", time), ("split", split), *weighing]
    for role, column in roles:
        if isinstance(column, str):
            taken.setdefault(column, role)
    labels = {target.task.name: target.labels for target in found}
    alike = {target.task.name: target.strata for target in found}
    parts, held = divide(frame, split, alike, groups=groups, time=time, seed=seed)
    check_learnable(found, parts)
    weights = read_weights(frame, found, parts)

    x: dict[str, Any] = {}
    specs: dict[str, Input] = {}
    lines: list[Line] = []
    claimed = {*taken}
    for name, spec in plan.items():
        named = spec.columns if isinstance(spec, Table) else [name]
        claimed |= set(() if named is None or isinstance(named, Mapping) else named)
    free = [column for column in frame.columns if column not in claimed]
    for name, spec in plan.items():
        if isinstance(spec, Table):
            specs[name], told = fit_table(frame, spec, name, free, parts["train"])
            rows = frame
        else:
            rows = files.get(name, frame[name])
            specs[name] = _fitted(spec, name, rows, parts["train"])
            missing = float(frame[name].isna().mean())
            told = [Line(name, name, _kind(specs[name]), missing)]
        what = "the frame" if rows is frame else f"Column '{name}'"
        x[name] = specs[name].prepare(rows, what)
        if rows is not frame:
            # As `fit` would, which counts the rows of a part.
            advice = ": fill or drop such rows, also unlabelled ones"
            _arrays.check_finite(x[name], what, advice)
        lines += told
    read = {column for spec in specs.values() for column in spec.takes_columns()}
    for target in found:
        name, columns = target.task.name, target.columns
        if name in read and name not in columns:
            remedy = Remedy("name", columns[0], "give the task another", target=True)
            raise ValueError(
                f"Task '{name}' of column {', '.join(map(repr, columns))} must not "
                f"have the name of a column that is an input: {remedy}. "
                f"Received: the input column '{name}'"
            )
    shown = {line.column for line in lines if line.role != "-"}
    told_of = {*taken, *(line.column for line in lines)}
    left = [column for column in frame.columns if column not in told_of]
    lines += [
        Line(
            column, "-", "left out: not in `inputs`", float(frame[column].isna().mean())
        )
        for column in left
    ]
    lines += [
        Line(column, role, "not an input")
        for column, role in taken.items()
        if role != "target" and column not in shown
    ]
    lines += [_line(target) for target in found]

    sizes = ", ".join(f"{name} {len(rows)}" for name, rows in parts.items())
    first = f"{len(frame):,} rows: {sizes}"
    last = [said_of_left] if left and said_of_left else []
    text = "\n".join([first, *said, *held, table_of(lines), *last])
    if verbose:
        sys.stdout.write(text + "\n")
    chosen_tasks = [target.task for target in found]
    whole = Split(
        next(iter(x.values())) if len(x) == 1 else x,
        labels,
        chosen_tasks,
        rows=np.arange(len(frame)),
        weights=weights,
    )
    made = {
        name: dataclasses.replace(whole.subset(rows), name=name)
        for name, rows in parts.items()
    }
    return TaskData(chosen_tasks, **made, description=text, inputs=specs)


def checked_frame(given: Any) -> Any:
    """A frame of pandas, its columns named by strings, its rows numbered."""
    import pandas as pd

    if isinstance(given, Mapping):
        given = pd.DataFrame(dict(given))
    elif type(given).__module__.split(".")[0] == "polars":
        given = given.to_pandas()
    if not isinstance(given, pd.DataFrame):
        raise TypeError(
            "`frame` must be a pandas.DataFrame, or a dict of columns. "
            f"Received: {type(given).__name__}"
        )
    check_unique(list(given.columns), "`frame`")
    if not len(given) or not len(given.columns):
        raise ValueError(
            "`frame` must have at least one row and one column. "
            f"Received: shape={given.shape}"
        )
    frame = given.reset_index(drop=True)
    frame.columns = [str(name) for name in frame.columns]
    return frame


def check_unique(names: Sequence[Any], what: str) -> None:
    seen: set[str] = set()
    for name in map(str, names):
        if name in seen:
            raise ValueError(
                f"{what} must have columns of different names: rename or drop one. "
                f"Received: two columns '{name}'"
            )
        seen.add(name)


def _fitted(spec: Input, name: str, rows: Any, train: np.ndarray) -> Input:
    """A kind of one column that knows the training rows; errors name the frame's."""
    own = rows[train] if isinstance(rows, np.ndarray) else rows.iloc[train]
    try:
        return spec.fit(own)
    except (TypeError, ValueError):
        spec.learn(rows, f"Column '{name}'")  # fails for a row as the frame numbers it
        raise


def _kind(spec: Input) -> str:
    """An input's kind and shape, in words."""
    shape = list(spec.shape)
    if spec.ends_in_mask and shape[-1] is not None:
        shape[-1] -= 1  # which says where rows are padded: no channel of the user's
    sizes = " × ".join("?" if size is None else str(size) for size in shape)
    return f"{spec.registered_name}, {sizes}"


def _line(target: Target) -> Line:
    task = target.task
    kind = f"{task.registered_name} '{task.name}'"
    if task.labels:
        names = ", ".join(task.labels[:4]) + (", ..." if len(task.labels) > 4 else "")
        kind += f": {names}"
    if task.transform:
        kind += f", {task.transform}"
    return Line(", ".join(target.columns), "target", kind, target.missing)
