"""Functions that make generators to a masked, batched `tf.data.Dataset`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl import _checks
from kmtl.typing import Data, Inputs, Labels

if TYPE_CHECKING:
    from kmtl.tasks.base import Task


#: What an element consists of.
PARTS = ("inputs", "labels", "weights")


def from_generator(
    make: Callable[[], Iterable],
    *,
    tasks: Sequence[Task],
    batch_size: int | None = None,
    batches: int | None = None,
) -> Data:
    """A `tf.data.Dataset` of `(inputs, {task: label}, {task: mask})` from a generator.

    `make` is called for every pass, so that epochs, searches and `kmtl.evaluate` can
    read the data again, which a generator itself allows once. The first batch is looked
    at here: names, shapes (but for the batch axis), dtypes of inputs and labels; all
    others must be like it. Missing labels (NaN, or the task's `missing`) become 0 with
    a mask of 0.

    For what Keras takes itself (`keras.utils.PyDataset`, a PyTorch `DataLoader`,
    Grain's data sets) this is not needed: give them to `fit` as they are.

    Args:
        make: Function without arguments that returns an iterable of `(inputs, {task:
            labels})`, or `(inputs, {task: labels}, {task: weights})`, as NumPy arrays;
            inputs are an array or a dict of them.
        tasks: The tasks.
        batch_size: None if `make` gives batches; else it gives single examples, of
            which so many are put together.
        batches: Number of batches of a pass, if it is known; else Keras finds it in the
            first epoch, of whose end it then warns.

    Returns:
        A `tf.data.Dataset`.

    Raises:
        ValueError, TypeError: for a first batch that does not fit the tasks, or none.
            Later ones stop the epoch.

    Example:

    >>> def rows():
    ...     rng = np.random.default_rng(0)
    ...     for _ in range(5):
    ...         x = rng.normal(size=(8, 3)).astype("float32")
    ...         yield x, {"size": x.sum(1), "positive": x[:, 0] > 0}
    >>> tasks = [kmtl.Regression("size"), kmtl.BinaryClassification("positive")]
    >>> data = kmtl.data.from_generator(rows, tasks=tasks, batches=5)
    >>> model = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(8,), seed=0)
    >>> model.compile("adam")
    >>> history = model.fit(data, epochs=2, verbose=0)
    >>> kmtl.evaluate(model, data).examples
    40
    """
    from kmtl.data.cleaning import clean_labels, tensorflow
    from kmtl.tasks.checks import check_unique_tasks

    tasks = check_unique_tasks(tasks)
    if batch_size is not None:
        batch_size = _checks.check_int("batch_size", batch_size, 1)
    if batches is not None:
        batches = _checks.check_int("batches", batches, 1)
    if not callable(make):
        raise TypeError(
            "`make` must be a function that returns a new generator at each call, such "
            "as the function that has the `yield`, without calling it. "
            f"Received: {type(make).__name__}"
        )
    first = next(iter(make()), None)
    if first is None:
        raise ValueError("`make` must give at least one element. Received: none")
    tf = tensorflow()
    by_name = {task.name: task for task in tasks}
    single = batch_size is not None
    plain = _parts(first, tasks, single)
    _check_labels(plain, by_name, single)
    # Labels as float32, in which a missing one has its place in every batch.
    kinds = tuple(
        tf.nest.map_structure(_dtype if place == 0 else lambda _: "float32", part)
        for place, part in enumerate(plain)
    )

    def signature(leaf: Any, dtype: str) -> Any:
        shape = leaf.shape if single else (None, *leaf.shape[1:])
        return tf.TensorSpec(shape, tf.as_dtype(dtype))

    def elements() -> Iterable:
        for number, element in enumerate(make(), start=1):
            parts = _alike(_parts(element, tasks, single), plain, number)
            yield tuple(
                _cast(part, dtype, what, number)
                for what, part, dtype in zip(PARTS, parts, kinds, strict=True)
            )

    spec = tf.nest.map_structure(signature, plain, kinds)
    data = tf.data.Dataset.from_generator(elements, output_signature=spec)
    if batch_size is not None:
        data = data.batch(batch_size)

    @tf.autograph.experimental.do_not_convert
    def clean(x: Inputs, y: Labels, weights: Labels) -> tuple:
        labels, masks = {}, {}
        for name, label in y.items():
            weight = weights.get(name)
            if weight is not None:
                while len(weight.shape) < len(label.shape):
                    weight = weight[..., None]
            labels[name], masks[name] = clean_labels(by_name[name], label, weight)
        return x, labels, masks

    data = data.map(clean, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if batches is not None:
        data = data.apply(tf.data.experimental.assert_cardinality(batches))
    return data.prefetch(tf.data.AUTOTUNE)


def _parts(element: Any, tasks: Sequence[Task], single: bool) -> tuple:
    """Inputs, labels and weights of an element, as arrays; weights per task."""

    def array(make: Callable[..., Any], value: Any, *what: str) -> Any:
        return np.asarray(make([value], *what)[0] if single else make(value, *what))

    from kmtl import _arrays
    from kmtl.tasks.checks import check_weighted, label_dict

    if not isinstance(element, (tuple, list)) or len(element) not in (2, 3):
        raise ValueError(
            "A generator must give (inputs, {task: labels}) or (inputs, {task: labels},"
            " {task: weights}). Received: "
            + (
                f"{len(element)} parts"
                if isinstance(element, (tuple, list))
                else type(element).__name__
            )
        )
    x, y, *rest = element
    by_name = {task.name: task for task in tasks}
    if isinstance(x, Mapping):
        x = {
            name: array(_arrays.as_array, part, f"`x['{name}']`")
            for name, part in x.items()
        }
    else:
        x = array(_arrays.as_array, x, "`x`")
    labels = {
        name: array(by_name[name].label_array, part)
        for name, part in label_dict(y, tasks).items()
    }
    weights = rest[0] if rest and rest[0] is not None else {}
    if not isinstance(weights, Mapping):
        weights = dict.fromkeys(labels, weights)
    weights = _checks.check_task_keys("weights", weights, labels, partial=True)
    check_weighted(tasks, weights, "weights of '{0}' as the third part of an element")
    return (
        x,
        labels,
        {
            name: array(_arrays.as_array, weight, f"Weights of task '{name}'")
            for name, weight in weights.items()
        },
    )


def _dtype(leaf: Any) -> str:
    """As models take it; strings are objects in NumPy and strings in TensorFlow."""
    if leaf.dtype.kind in "OSU":
        return "string"
    wide = leaf.dtype == "float64" or leaf.dtype.kind == "b"
    return "float32" if wide else str(leaf.dtype)


def _cast(part: Any, dtype: Any, what: str, number: int) -> Any:
    """An array, or a dict of them, in the dtypes of the first element.

    Floats may be rounded; whole numbers stay what they are.
    """
    if isinstance(part, dict):
        return {
            name: _cast(leaf, dtype[name], f"{what} '{name}'", number)
            for name, leaf in part.items()
        }
    if "string" in (dtype, _dtype(part)):
        kept, made = dtype == _dtype(part), part
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            made = part.astype(dtype)
        whole = made.dtype.kind in "iu"
        kept = made.dtype == part.dtype or bool(
            (made == part).all()
            if whole
            else (np.isfinite(made) | np.logical_not(_finite(part))).all()
        )
    if not kept:
        raise ValueError(
            f"Element {number} must have {what} that fit the dtype of the first "
            "element: give all of them in one dtype, such as np.float32. "
            f"Received: {part.dtype}, where the first element has {dtype}"
        )
    return made


def _finite(array: Any) -> Any:
    return np.isfinite(array) if array.dtype.kind in "fc" else True


def _check_labels(parts: tuple, tasks: dict[str, Task], single: bool) -> None:
    x, y, _ = parts
    shape = None if isinstance(x, dict) else (x.shape if single else x.shape[1:])
    for name, labels in y.items():
        tasks[name].check_labels(labels[None] if single else labels, shape)


def _alike(parts: tuple, first: tuple, number: int) -> tuple:
    """An element with the names of the first one; shapes are TensorFlow's to check."""
    for what, part, wanted in zip(PARTS, parts, first, strict=True):
        if isinstance(wanted, dict) and set(part) != set(wanted):
            raise ValueError(
                f"Element {number} must have the {what} of the first: "
                f"{', '.join(wanted)}. Where no label exists, give NaN (float) or the "
                f"task's `missing` value (-1). Received: {', '.join(part) or 'none'}"
            )
    return parts
