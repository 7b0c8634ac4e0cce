"""A look at data before anything is trained on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl import _arrays
from kmtl.data.containers import Split, TaskData
from kmtl.data.data_report import DataReport, Finding
from kmtl.data.hashing import DIGEST_BYTES, leaves_of, row_bytes
from kmtl.data.label_counts import LabelCounts, label_findings, some
from kmtl.typing import Batch, Data

if TYPE_CHECKING:
    from kmtl.tasks.base import Task

ROWS_AT_ONCE = 4096


def check(
    data: TaskData | Data | Mapping[str, Data],
    tasks: Sequence[Task] | None = None,
    *,
    stop: bool = True,
) -> DataReport:
    """Look at all labels and inputs: can they be trained on, and what is odd in them?

    Stops, with everything that is wrong at once, at what cannot be trained on or would
    spoil a model in silence: labels of a wrong shape, kind or range; a task without any
    training label; NaN and infinity in inputs, also of rows without labels. Notes what
    may be meant: classes that no training row has, or nearly all; labels of one value;
    labels far from standard units; parts without labels of a task; inputs that are in
    two parts (leakage), or twice in one; columns of one value.

    Args:
        data: A `kmtl.data.TaskData`; a `kmtl.data.Split` or mixture; `(x, y)` or
            `(x, y, sample_weight)`; a finite `tf.data.Dataset`; or a dict name of a
            part -> one of these, the training part first.
        tasks: The tasks; None where the data know them.
        stop: Raise where the data cannot be trained on. False returns the report of
            these, too. Defaults to True.

    Returns:
        A `DataReport`: `print` shows it, `to_frame()` is a table of pandas, `findings`
        are what there is to say. `kmtl.plotting.examples` draws rows with their labels.

    Raises:
        ValueError: naming all that stops, with what to do.

    Cost: one pass over the data, and 16 bytes of memory per row.

    Example:

    >>> x = np.arange(12.0).reshape(6, 2)
    >>> x[:, 1] = 0
    >>> tasks = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
    >>> y = {"kind": [0, 1, 1, 0, 1, -1], "size": [1.0, 2, 3, 4, 5, 6]}
    >>> report = kmtl.data.check({"train": (x, y), "test": (x[:2], None)}, tasks)
    Traceback (most recent call last):
    ValueError: These data cannot be trained on (stop=False returns the report):
    - test: Labels lack tasks kind, size. Expected: kind, size. ...
    >>> test = x[:2], {"kind": [0, 1], "size": [1.0, 2]}
    >>> print(kmtl.data.check({"train": (x, y), "test": test}, tasks))
    <BLANKLINE>
      Part    Task   Kind               Labels   Range       Balance
     ─────────────────────────────────────────────────────────────────────────
      train   kind   classification    5 (83%)   2 classes   40.00% to 60.00%
      train   size   regression       6 (100%)   1 to 6      3.5 ± 1.71
      test    kind   classification   2 (100%)   2 classes   50.00% to 50.00%
      test    size   regression       2 (100%)   1 to 2      1.5 ± 0.5
    <BLANKLINE>
    note  train, kind: no training label of class 2: ...
    """
    parts, tasks = parts_in(data, tasks)
    seen: dict[bytes, tuple[str, int]] = {}
    rows, findings = [], []
    for number, (name, part) in enumerate(parts.items()):
        one = _Part(name, tasks, seen)
        try:
            for batch in batches_in(part):
                one.add(batch)
        except (ValueError, TypeError) as error:
            findings.append(Finding(True, name, str(error)))
            continue
        rows += [counts.row(name) for counts in one.counts]
        findings += one.findings(trains=number == 0)
    findings.sort(key=lambda finding: not finding.stops)
    report = DataReport(tuple(rows), tuple(findings))
    if stop and not report.ok:
        raise ValueError(
            "These data cannot be trained on (stop=False returns the report):\n"
            + "\n".join(f"- {found}" for found in findings if found.stops)
        )
    return report


def parts_in(data: Any, tasks: Any) -> tuple[dict[str, Data], tuple[Task, ...]]:
    """The parts of data by name, the training part first, and their tasks."""
    from kmtl.tasks.checks import check_unique_tasks

    if isinstance(data, TaskData):
        parts: dict[str, Data] = dict(data.splits)
        tasks = data.tasks if tasks is None else tasks
    elif isinstance(data, Mapping):
        parts = dict(data)
    else:
        parts = {getattr(data, "name", None) or "data": data}
    known = [part.tasks for part in parts.values() if isinstance(part, Split)]
    if tasks is None and known:
        tasks = known[0]
    if tasks is None:
        raise ValueError(
            "`tasks` must be given for data that do not know them. Received: tasks=None"
        )
    return parts, check_unique_tasks(tasks)


def batches_in(data: Data) -> Iterator[Batch]:
    """`(x, y)` or `(x, y, weight)`, of arrays in pieces."""
    if isinstance(data, Split):
        data = data.arrays()
    if hasattr(data, "element_spec"):
        if int(data.cardinality()) == -1:
            raise ValueError("must have an end: leave out `repeat()`, or take a part")
        yield from data
        return
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise TypeError(
            "must be (x, y) or (x, y, sample_weight), a kmtl.data.Split or a "
            f"tf.data.Dataset. Received: {type(data).__name__}"
        )
    yield tuple(data)


class _Part:
    """One part of the data: its tasks' labels, its inputs, and rows seen before.

    Args:
        name: Of the part.
        tasks: The tasks.
        seen: Digest of a row's inputs -> part and number of the row where it was first.
    """

    def __init__(
        self, name: str, tasks: Sequence[Task], seen: dict[bytes, tuple[str, int]]
    ):
        self.name, self.tasks, self.seen = name, tasks, seen
        self.counts = [LabelCounts(task) for task in tasks]
        self.rows = 0
        self._twice: dict[str, list[tuple[int, int]]] = {}
        self._wrong: dict[str, str] = {}
        #: Input -> smallest and largest number of each column.
        self._spans: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, batch: Batch) -> None:
        from kmtl.tasks.checks import label_dict

        x, y, *weights = batch
        leaves = {path: leaf for path, leaf in leaves_of(x) if leaf.ndim}
        if not leaves:
            raise ValueError("Inputs must have a batch axis. Received: none")
        lengths = {len(leaf) for leaf in leaves.values()}
        if len(lengths) > 1:
            raise ValueError(
                "All inputs must have the same number of rows. "
                f"Received: {sorted(lengths)}"
            )
        rows = lengths.pop()
        if not rows:
            return
        for path, leaf in leaves.items():
            if not hasattr(x, "columns"):  # missing cells are filled in the model
                self._look(path, leaf)
        self._remember(leaves, rows)
        labels = label_dict(y, self.tasks)
        shape = None if isinstance(x, Mapping) else np.shape(x)[1:]
        given = weights[0] if weights else None
        if not isinstance(given, Mapping):
            given = dict.fromkeys(labels, given)
        for counts in self.counts:
            name = counts.task.name
            counts.add(rows, labels.get(name), given.get(name), shape)
        self.rows += rows

    def _look(self, path: str, leaf: np.ndarray) -> None:
        if leaf.dtype.kind not in "biuf":
            return
        what = f"`x{''.join(f'[{key!r}]' for key in path.split('/') if key)}`"
        try:
            _arrays.check_finite(leaf, what, ": fill or drop such rows")
        except ValueError as error:
            self._wrong.setdefault(path, str(error))
            return
        if leaf.ndim == 2 and len(leaf):
            low, high = leaf.min(0), leaf.max(0)
            if path in self._spans:
                old_low, old_high = self._spans[path]
                low, high = np.minimum(low, old_low), np.maximum(high, old_high)
            self._spans[path] = (low, high)

    def _remember(self, leaves: Mapping[str, np.ndarray], rows: int) -> None:
        """Rows by the bytes of their inputs, in pieces: the bytes are copies.

        Floats as models see them: a row may be float64 here and float32 there.
        """
        for start in range(0, rows, ROWS_AT_ONCE):
            piece = [leaves[path][start : start + ROWS_AT_ONCE] for path in leaves]
            piece = [x.astype("float32") if x.dtype.kind == "f" else x for x in piece]
            for offset, row in enumerate(row_bytes(piece), self.rows + start):
                digest = hashlib.blake2b(row, digest_size=DIGEST_BYTES).digest()
                first = self.seen.setdefault(digest, (self.name, offset))
                if first != (self.name, offset):
                    pairs = self._twice.setdefault(first[0], [])
                    pairs.append((first[1], offset))

    def findings(self, trains: bool) -> list[Finding]:
        """What there is to say; `trains` of the part that is trained on."""
        if not self.rows:
            return [Finding(True, self.name, "There must be a row. Received: none")]
        found = [Finding(True, self.name, text) for text in self._wrong.values()]
        for counts in self.counts:
            where = f"{self.name}, {counts.task.name}"
            found += [
                Finding(stops, where, text)
                for stops, text in label_findings(counts, trains)
            ]
        for part, pairs in self._twice.items():
            found.append(Finding(False, self.name, self._same(part, pairs)))
        for path, (low, high) in self._spans.items() if trains else ():
            columns = np.flatnonzero(low == high)
            if len(columns):
                name = path.strip("/")
                found.append(
                    Finding(
                        False,
                        self.name + (f", {name}" if name else ""),
                        f"columns of one value, which tell nothing apart: "
                        f"{some(columns)}",
                    )
                )
        return found

    def _same(self, part: str, pairs: Sequence[tuple[int, int]]) -> str:
        first, second = pairs[0]
        rows = f"{len(pairs)} row{'s' if len(pairs) > 1 else ''}"
        if part == self.name:
            return f"{rows} with inputs of an earlier one, such as {second} of {first}"
        return (
            f"{rows} with inputs that are in {part}, too (row {second} is row {first} "
            "there): scores will be too good. Drop them, or divide by groups "
            "(kmtl.data.split(..., groups=...))"
        )
