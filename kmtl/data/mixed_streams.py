"""Several `tf.data` sets, each labelled for its own tasks, as one of batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kmtl.data.cleaning import label_dtype, tensorflow
from kmtl.data.mixed_rows import check_alike, label_tail
from kmtl.data.mixed_sets import LabelledSet, all_tasks, rows_of
from kmtl.data.plans import RowPlan, shares_of
from kmtl.tasks.soft import are_vectors
from kmtl.typing import Batch, Data

if TYPE_CHECKING:
    from kmtl.tasks.base import Task


def mixed_stream(
    sets: Sequence[LabelledSet],
    *,
    sampling: Any,
    steps: str | int,
    temperature: float,
    alternate: bool | str,
    seed: int,
    batch_size: int,
) -> Data:
    """A `tf.data.Dataset` of `(x, y, masks)` batches; arguments of `mixture`."""
    if alternate == "epoch":
        raise ValueError(
            "Sets take turns by epochs where all of them are arrays or splits: a "
            "tf.data.Dataset begins anew in every epoch. Take alternate=True. "
            "Received: alternate='epoch'"
        )
    tf = tensorflow()
    names = [one.name for one in sets]
    streams, rows = [], []
    for one in sets:
        stream, count = _stream(one, seed)
        streams.append(stream)
        rows.append(count)
    _check_counts(names, rows, sampling, steps)
    # Where nothing depends on the rows, any number does.
    known = [1 if count is None else count for count in rows]
    shares = shares_of(sampling, names, known, temperature)
    plan = RowPlan(tuple(names), tuple(known), shares, steps, alternate, seed)
    fill = _Filler(all_tasks(sets), streams, names)
    owners = plan.sets(batch_size)
    whole = [
        stream.map(fill, num_parallel_calls=tf.data.AUTOTUNE).unbatch().repeat()
        for stream in streams
    ]
    if alternate:
        whole = [stream.batch(batch_size) for stream in whole]
        owners = owners[::batch_size]
    # `choose_from_datasets` ends with the choices, so that the length is known.
    choices = tf.data.Dataset.from_tensor_slices(owners)
    data = tf.data.Dataset.choose_from_datasets(whole, choices)
    if not alternate:
        data = data.batch(batch_size)
    batches = -(-plan.length(batch_size) // batch_size)
    data = data.apply(tf.data.experimental.assert_cardinality(batches))
    return data.prefetch(tf.data.AUTOTUNE)


def _stream(one: LabelledSet, seed: int) -> tuple[Any, int | None]:
    """Batches `(x, y, masks)` of a set's own tasks, and its rows if they are known."""
    tf = tensorflow()
    data, rows = one.data, None
    if not hasattr(data, "element_spec"):
        from kmtl.data.arrays import from_arrays

        x, y = one.arrays()
        rows = rows_of(x)
        data = from_arrays(
            x, y, one.weights(), tasks=one.tasks, shuffle=True, seed=seed
        )
    from kmtl.data.moving import cleaned

    own = {task.name for task in one.tasks}

    @tf.autograph.experimental.do_not_convert
    def clean(*batch: Any) -> Batch:
        x, y, *weights = batch
        if isinstance(y, Mapping):
            y = {name: labels for name, labels in y.items() if name in own}
        return cleaned((x, y, *weights), one.tasks)

    element = data.element_spec
    if not isinstance(element, tuple) or len(element) not in (2, 3):
        raise ValueError(
            "A tf.data.Dataset must give (inputs, {task: labels}) or (inputs, {task: "
            f"labels}}, {{task: mask}}). Received: {element} for '{one.name}'"
        )
    first = next(iter(data.take(1)), None)
    if first is None:
        raise ValueError(f"A set must have rows. Received: none for '{one.name}'")
    _, labels, _ = clean(*first)
    lacking = [task.name for task in one.tasks if task.name not in labels]
    if lacking:
        raise ValueError(
            f"Labels of task '{lacking[0]}' must be given, also where the input is the "
            f"target: other sets have inputs of their own. Received: '{one.name}' "
            f"with {', '.join(labels)}"
        )
    for task in one.tasks:
        given = element[1][task.name] if isinstance(element[1], Mapping) else element[1]
        if given.shape.rank == 0:
            raise ValueError(
                "A tf.data.Dataset must give batches: call `.batch(32)` on it. "
                f"Received: single examples for '{one.name}'"
            )
        task.check_labels(labels[task.name].numpy())
    count = int(data.cardinality())
    if rows is None and count > 0:
        rows = count * int(next(iter(labels.values())).shape[0])
    return data.map(clean), rows


def _check_counts(
    names: Sequence[str], rows: Sequence[int | None], sampling: Any, steps: Any
) -> None:
    by_rows = sampling in ("proportional", "temperature")
    for name, count in zip(names, rows, strict=True):
        if count is None and (by_rows or isinstance(steps, str)):
            raise ValueError(
                f"The number of batches of '{name}' must be known: tell it by "
                "`.apply(tf.data.experimental.assert_cardinality(n))`, or give "
                "`steps` as a number and `sampling` as 'equal' or shares. "
                f"Received: sampling={sampling!r}, steps={steps!r}"
            )


class _Filler:
    """Fills what a set lacks: labels and masks of 0, and inputs of 0."""

    def __init__(
        self, tasks: Sequence[Task], streams: Sequence[Data], names: Sequence[str]
    ):
        specs = [stream.element_spec for stream in streams]
        self.labels = {}
        for task in tasks:
            own = [s[1][task.name] for s in specs if task.name in s[1]]
            vectors = [s for s in own if are_vectors(task, s.shape)]
            # Class numbers become vectors where another set has these.
            tail = label_tail(task, [s.shape[1:] for s in vectors or own])
            kind = "float32" if vectors else label_dtype(task)
            #: Shape of a label, its dtype, and the shape of its mask.
            self.labels[task.name] = (tail, kind, tail[:-1] if vectors else tail)
        inputs = [spec[0] for spec in specs]
        named = [x if isinstance(x, Mapping) else {"": x} for x in inputs]
        if len({isinstance(x, Mapping) for x in inputs}) > 1:
            raise ValueError(
                "All sets must have inputs of one form: arrays, or dicts input name -> "
                f"array. Received: some of each in {', '.join(names)}"
            )
        self.inputs = {}
        for key in dict.fromkeys(key for part in named for key in part):
            given = {n: p[key] for n, p in zip(names, named, strict=True) if key in p}
            check_alike(given, f"`x['{key}']`" if key else "`x`")
            self.inputs[key] = next(iter(given.values()))

    def __call__(self, x: Any, y: Any, masks: Any) -> Batch:
        tf = tensorflow()
        rows = tf.shape(next(iter(y.values())))[:1]

        def nothing(tail: Any, kind: Any) -> Any:
            shape = tf.concat([rows, tf.constant(list(tail), tf.int32)], 0)
            filler = "" if tf.as_dtype(kind) == tf.string else 0
            made = tf.fill(shape, tf.cast(filler, kind) if filler == 0 else filler)
            return tf.ensure_shape(made, (None, *tail))

        labels, present = {}, {}
        for name, (tail, kind, numbers) in self.labels.items():
            if name not in y:
                labels[name] = nothing(tail, kind)
                present[name] = nothing(numbers, tf.float32)
                continue
            labels[name], present[name] = y[name], masks[name]
            if numbers != tail and y[name].shape[1:] != tail:
                shape = tf.shape(y[name])[: len(tail)]  # (N, 1) is (N,)
                labels[name] = tf.one_hot(tf.reshape(y[name], shape), tail[-1])
                present[name] = tf.reshape(masks[name], shape)
        if isinstance(x, Mapping):
            x = {
                key: x[key] if key in x else nothing(spec.shape[1:], spec.dtype)
                for key, spec in self.inputs.items()
            }
        return x, labels, present
