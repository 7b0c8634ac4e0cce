"""tensorflow-datasets to a masked, batched `tf.data.Dataset`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kmtl import _checks
from kmtl.data import folders
from kmtl.data.caches import fill_caches
from kmtl.typing import Data, Inputs, PathLike, Tensor

if TYPE_CHECKING:
    from kmtl.tasks.base import Task

SHUFFLE_BUFFER = 10_000

Source = str | Callable[[Mapping[str, Any]], Any]


def from_tfds(
    name: str,
    *,
    inputs: Source | Sequence[str] | Mapping[str, Source],
    tasks: Mapping[Task, Source] | Sequence[Task],
    split: str = "train",
    batch_size: int = 32,
    shuffle: bool = False,
    seed: int | None = 0,
    shuffle_buffer: int = SHUFFLE_BUFFER,
    scale_images: bool = False,
    cache: bool | str | os.PathLike = True,
    drop_remainder: bool = False,
    data_dir: str | os.PathLike | None = None,
    download: bool = True,
) -> Any:
    """A `tf.data.Dataset` of `(inputs, {task: label}, {task: mask})` from tfds.

    The named features are selected (in parallel) and read into memory, then shuffled,
    batched and prefetched. Missing labels (NaN, or the task's
    `missing`) become 0 with a mask of 0. The labels of the first batch are checked
    here, the class indices of every batch while it is read.

    A *source* is the name of a feature (`"label"`, or `"objects/bbox"` inside a nested
    one), or a function of the dict of all features of one example, in TensorFlow.

    Args:
        name: Name of the data set, as for `tfds.builder`: `"mnist"`,
            `"glue/sst2"`, `"mnist:3.0.1"`.
        inputs: A source; or a dict input name -> source, or a list of feature names,
            for a model of several inputs.
        tasks: Dict task -> source of its label; or a list of tasks, each with the
            feature of its own name.
        split: Split in tfds' language, such as `"train"` or `"train[:90%]"`.
        batch_size: Rows per batch, >= 1. Defaults to 32.
        shuffle: New order in each epoch. Defaults to False.
        seed: Integer >= 0, for the same orders each time; None for new ones. See
            `kmtl.data.from_arrays`.
        shuffle_buffer: Examples from which the next one is drawn, >= 1; at least the
            number of examples shuffles perfectly. Defaults to 10,000.
        scale_images: uint8 inputs become float32 in [0, 1]. Defaults to False: they
            are kept, for models built with `input_dtype="uint8"`.
        cache: Keep selected features in memory (True, the default), in a file of this
            path, or not at all (False), for functions that draw at random and for
            sets larger than memory.
        drop_remainder: Leave out a last batch that is smaller.
        data_dir: tfds' folder of prepared sets. Defaults to `$TFDS_DATA_DIR`, else
            `$KMTL_DATA_DIR/tfds` where it has the set, else `~/tensorflow_datasets`.
        download: Whether tfds may download and prepare the set if it has not yet.

    Returns:
        A `tf.data.Dataset`, of known length where tfds knows the number of examples.

    Raises:
        ValueError: for an unknown data set, split or feature (with suggestions), or
            labels that do not fit their task.
        FileNotFoundError: if the set is not prepared and `download` is False.

    Example (needs the data set):

    ```python
    train = kmtl.data.from_tfds(
        "mnist",
        split="train[:90%]",
        inputs="image",
        tasks={
            kmtl.Classification("digit", classes=10): "label",
            kmtl.Segmentation("mask", classes=2): lambda f: f["image"] > 127,
        },
        shuffle=True,
    )
    ```
    """
    sources = _task_sources(tasks)
    batch_size = _checks.check_int("batch_size", batch_size, 1)
    shuffle_buffer = _checks.check_int("shuffle_buffer", shuffle_buffer, 1)
    if seed is not None:
        seed = _checks.check_int("seed", seed, 0)
    builder = _builder(name, data_dir)
    known = _feature_names(builder.info.features)
    chosen_inputs = _input_sources(inputs)
    for role, group in (("inputs", chosen_inputs), ("tasks", sources)):
        for key, source in group.items():
            _check_source(role, key, source, known, name)

    from kmtl.data.cleaning import clean_labels, tensorflow

    tf = tensorflow()
    by_name = {task.name: task for task in tasks}

    def select(features: Any) -> tuple[Any, dict[str, Any]]:
        picked = {key: _pick(features, s) for key, s in chosen_inputs.items()}
        if scale_images:
            picked = {key: _scaled(tf, value) for key, value in picked.items()}
        x = picked if _several(inputs) else picked[""]
        return x, {key: _pick(features, source) for key, source in sources.items()}

    def clean(x: Inputs, y: Mapping[str, Any]) -> tuple[Any, dict, dict]:
        labels, masks = {}, {}
        for key, label in y.items():
            labels[key], masks[key] = clean_labels(by_name[key], label)
            labels[key] = _checked(tf, by_name[key], labels[key])
        return x, labels, masks

    data = _read(builder, split, download)
    data = data.map(select, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    _check_first(data, batch_size, by_name)
    if cache:
        data = data.cache() if cache is True else data.cache(os.fspath(cache))
        fill_caches(data)
    if shuffle:
        data = data.shuffle(shuffle_buffer, seed=seed, reshuffle_each_iteration=True)
    data = data.batch(batch_size, drop_remainder=drop_remainder)
    data = data.map(clean, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return data.prefetch(tf.data.AUTOTUNE)


def _task_sources(tasks: Any) -> dict[str, Source]:
    from kmtl.tasks.checks import check_unique_tasks

    checked = check_unique_tasks(list(tasks))
    if isinstance(tasks, Mapping):
        return {task.name: tasks[task] for task in checked}
    return {task.name: task.name for task in checked}


def _several(inputs: Any) -> bool:
    return not (isinstance(inputs, str) or callable(inputs))


def _input_sources(inputs: Any) -> dict[str, Source]:
    if not _several(inputs):
        return {"": inputs}
    if isinstance(inputs, Mapping):
        named = dict(inputs)
    elif isinstance(inputs, Sequence):
        named = {name: name for name in inputs}
    else:
        raise TypeError(
            "`inputs` must be a feature name, a function, a list of names or a dict. "
            f"Received: inputs={inputs!r}"
        )
    if not named:
        raise ValueError("`inputs` must name at least one feature. Received: none")
    return named


def _builder(name: str, data_dir: PathLike | None) -> Any:
    import tensorflow_datasets as tfds

    if not isinstance(name, str):
        raise TypeError(f"`name` must be a string. Received: name={name!r}")
    try:
        return tfds.builder(name, data_dir=folders.prepared_folder(name, data_dir))
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise ValueError(
            "`name` must be a data set of tensorflow-datasets."
            f"{_checks.did_you_mean(name, known)} Received: name={name!r}"
        ) from error


def _read(builder: Any, split: str, download: bool) -> Any:
    import tensorflow_datasets as tfds

    if not isinstance(split, str):
        raise TypeError(
            f"`split` must be one split, as a string. Received: split={split!r}"
        )
    if download:
        builder.download_and_prepare()
    elif not builder.info.splits:
        raise FileNotFoundError(
            f"Data set '{builder.name}' is not prepared in {builder.data_dir}. Pass "
            "`data_dir`, or allow `download=True`. Received: download=False"
        )
    known = list(builder.info.splits)
    base = split.split("[")[0]
    if known and "+" not in split and base not in [*known, "all"]:
        raise ValueError(
            f"Unknown split '{base}' of '{builder.name}'."
            f"{_checks.did_you_mean(base, known)} Expected one of: {', '.join(known)}, "
            "or a part such as 'train[:90%]'."
        )
    return builder.as_dataset(
        split=split,
        shuffle_files=False,
        # The cache below holds what is selected, not what was read.
        read_config=tfds.ReadConfig(try_autocache=False),
    )


def _feature_names(features: Any, prefix: str = "") -> dict[str, Any]:
    """All features, nested ones as `outer/inner`."""
    found = {}
    for name, feature in features.items():
        found[prefix + name] = feature
        inner = getattr(feature, "feature", feature)  # a Sequence holds one feature
        if hasattr(inner, "items"):
            found.update(_feature_names(inner, f"{prefix}{name}/"))
    return found


def _check_source(
    role: str, key: str, source: Any, known: Mapping[str, Any], name: str
) -> None:
    where = f"`{role}`" if not key or key == source else f"`{role}` for '{key}'"
    if callable(source):
        return
    if not isinstance(source, str):
        raise TypeError(
            f"{where} must be a feature name or a function of the features. "
            f"Received: {source!r}"
        )
    if source not in known:
        raise ValueError(
            f"Unknown feature '{source}' in {where}."
            f"{_checks.did_you_mean(source, known)} Data set '{name}' has: "
            f"{', '.join(known)}."
        )


def _pick(features: Any, source: Source) -> Any:
    if callable(source):
        return source(features)
    value = features
    for part in source.split("/"):
        value = value[part]
    return value


def _scaled(tf: Any, value: Any) -> Any:
    return tf.cast(value, tf.float32) / 255.0 if value.dtype == tf.uint8 else value


def _checked(tf: Any, task: Task, labels: Tensor) -> Any:
    """Labels that stop the pipeline where a class index is out of range."""
    if task.class_count is None:
        return labels
    rule = (
        f"Labels of task '{task.name}' must be integers in [0, {task.class_count - 1}]"
    )
    low = tf.debugging.assert_non_negative(labels, message=rule)
    high = tf.debugging.assert_less(labels, task.class_count, message=rule)
    with tf.control_dependencies([op for op in (low, high) if op is not None]):
        return tf.identity(labels)


def _check_first(data: Data, batch_size: int, tasks: Mapping[str, Task]) -> None:
    """`Task.check_labels` on one batch: shapes, dtypes and values, before training."""
    first = next(iter(data.take(batch_size).batch(batch_size)), None)
    if first is None:
        raise ValueError("The split must have at least one example. Received: none")
    inputs, labels = first
    shape = None if isinstance(inputs, Mapping) else tuple(inputs.shape[1:])
    for name, label in labels.items():
        tasks[name].check_labels(label.numpy(), shape)
