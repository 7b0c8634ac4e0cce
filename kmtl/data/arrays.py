"""Arrays to a checked, masked, batched `tf.data.Dataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl import _arrays, _checks
from kmtl.typing import Inputs, Labels, Tensor

if TYPE_CHECKING:
    from kmtl.tasks.base import Task


def from_arrays(
    x: Inputs,
    y: Labels | None = None,
    masks: Mapping[str, Any] | None = None,
    *,
    tasks: Sequence[Task],
    batch_size: int = 32,
    shuffle: bool = False,
    seed: int | None = 0,
    drop_remainder: bool = False,
) -> Any:
    """A `tf.data.Dataset` of `(inputs, {task: label}, {task: mask})` from arrays.

    Labels are checked whole, before anything is trained. Missing ones (NaN, or the
    task's `missing`) become 0 with a mask of 0. The arrays stay in memory (there is
    nothing to cache), whole batches are gathered from them, and the next batches are
    prepared while one is in use.

    Args:
        x: Inputs `(N, ...)`, or a dict input name -> array: finite numbers, or strings
            for models that take them. float64 becomes float32, bool becomes float32;
            other dtypes (uint8 images) are kept.
        y: Dict task name -> labels `(N, ...)`; a plain array where there is one task.
            A task whose target is the input may be left out.
        masks: Dict task name -> numbers >= 0, `(N,)` or in the labels' shape, for some
            or all tasks: 0 leaves a label out, other values weigh it. Of tasks with
            `sample_weight` they must be given.
        tasks: The tasks.
        batch_size: Rows per batch, >= 1. Defaults to 32.
        shuffle: New order of all rows in each epoch. Defaults to False.
        seed: Integer >= 0: data sets made in the same way give the same orders, epoch
            by epoch (under one `keras.utils.set_random_seed`, which changes them all).
            None is different every time.
        drop_remainder: Leave out a last batch that is smaller.

    Returns:
        A `tf.data.Dataset` of known length. Labels are int32 for tasks with classes,
        else float32, in the shape given; masks are float32 in the same shape.

    Raises:
        ValueError, TypeError: naming the task, what is expected and what was received.

    Example:

    >>> tasks = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
    >>> data = kmtl.data.from_arrays(
    ...     np.zeros((4, 2)),
    ...     {"kind": np.array([0, 1, -1, 2]), "size": np.array([1.0, np.nan, 2, 3])},
    ...     tasks=tasks,
    ...     batch_size=4,
    ... )
    >>> inputs, labels, masks = next(iter(data))
    >>> labels["kind"].numpy().tolist(), masks["kind"].numpy().tolist()
    ([0, 1, 0, 2], [1.0, 1.0, 0.0, 1.0])
    """
    from kmtl.tasks.checks import check_unique_tasks, check_weighted

    tasks = check_unique_tasks(tasks)
    check_weighted(tasks, masks or {}, "`masks={{'{0}': ...}}`")
    batch_size = _checks.check_int("batch_size", batch_size, 1)
    if seed is not None:
        seed = _checks.check_int("seed", seed, 0)
    if isinstance(x, Mapping):
        x = {name: input_array(part, f"`x['{name}']`") for name, part in x.items()}
    else:
        x = input_array(x)
    rows = _row_count(x)
    y = _labels(y, tasks, rows, x)
    weights = _masks(masks, y, tasks, rows)

    from kmtl.data.cleaning import clean_labels, tensorflow

    tf = tensorflow()
    by_name = {task.name: task for task in tasks}
    with tf.device("CPU:0"):  # the arrays may be larger than a GPU's memory
        x, y, weights = tf.nest.map_structure(tf.constant, (x, y, weights))

    @tf.autograph.experimental.do_not_convert  # it would read the sources of all this
    def batch(indices: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        def take(array: Tensor) -> Tensor:
            return tf.gather(array, indices)

        labels, present = {}, {}
        for name, array in y.items():
            weight = take(weights[name]) if name in weights else None
            labels[name], present[name] = clean_labels(
                by_name[name], take(array), weight
            )
        return tf.nest.map_structure(take, x), labels, present

    data = tf.data.Dataset.range(rows)
    if shuffle:
        data = data.shuffle(rows, seed=seed, reshuffle_each_iteration=True)
    data = data.batch(batch_size, drop_remainder=drop_remainder)
    data = data.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return data.prefetch(tf.data.AUTOTUNE)


def input_array(x: Inputs, what: str = "`x`") -> np.ndarray:
    """Inputs as `from_arrays` takes them: finite numbers, or strings."""
    array = _arrays.as_array(x, what)
    if array.ndim == 0:
        raise ValueError(f"{what} must have a batch axis. Received: shape=()")
    if _arrays.is_text(array):
        return array
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what} must hold numbers. Received: dtype={array.dtype}")
    _arrays.check_finite(array, what, ": fill or drop such rows, also unlabelled ones")
    wide = array.dtype == np.float64 or array.dtype.kind == "b"
    return array.astype("float32") if wide else _arrays.within_int32(array)


def _row_count(x: Inputs) -> int:
    if not isinstance(x, Mapping):
        x = {"x": x}
    counts = {name: len(part) for name, part in x.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(
            f"All inputs must have the same number of rows. Received: {counts}"
        )
    rows = next(iter(counts.values()))
    if not rows:
        raise ValueError("`x` must have at least one row. Received: 0 rows")
    return rows


def _labels(
    y: Labels, tasks: Sequence[Task], rows: int, x: Inputs
) -> dict[str, np.ndarray]:
    from kmtl.tasks.checks import label_dict

    shape = None if isinstance(x, Mapping) else x.shape[1:]
    by_name = {task.name: task for task in tasks}
    labels = {
        name: by_name[name].label_array(part)
        for name, part in label_dict(y, tasks).items()
    }
    for name, array in labels.items():
        by_name[name].check_labels(array, shape)
        if len(array) != rows:
            raise ValueError(
                f"Labels of task '{name}' must have as many rows as the inputs "
                f"({rows}). Received: {len(array)}"
            )
    return labels


def _masks(
    masks: Mapping[str, Any] | None,
    y: Mapping[str, np.ndarray],
    tasks: Sequence[Task],
    rows: int,
) -> dict[str, np.ndarray]:
    """User's masks in shapes that broadcast to the labels'."""
    names = [task.name for task in tasks]
    given = _checks.check_task_keys("masks", masks or {}, names, partial=True)
    checked = {}
    for name, mask in given.items():
        if name not in y:
            raise ValueError(
                f"`masks` of task '{name}' needs labels of that task in `y`; its "
                "target is the input. Give the target as a label."
            )
        mask = _arrays.as_array(mask, f"`masks` of task '{name}'")
        shape = y[name].shape
        if mask.shape not in (shape, shape[: mask.ndim]) or mask.ndim == 0:
            raise ValueError(
                f"`masks` of task '{name}' must have shape ({rows},) or the labels' "
                f"shape {shape}. Received: shape={mask.shape}"
            )
        _arrays.check_weights(mask, f"`masks` of task '{name}'")
        mask = mask.astype("float32")
        checked[name] = mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
    return checked
