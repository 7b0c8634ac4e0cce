"""The most probable classes, by number or by name, as outputs of an export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._largest import largest
from kmtl.export.texts import JoinedTokens
from kmtl.tasks.base import Task
from kmtl.tasks.text_generation import TextGeneration
from kmtl.typing import Config, Outputs, Tensor

CLASSES, SCORES = "_top", "_top_scores"
#: What a task makes of its outputs.
DECODED = "_decoded"
#: Strings that it makes of them.
TEXT = "_text"


def check(top_k: int | None, names: bool, suffix: str) -> None:
    """Refuse what cannot be written.

    Args:
        suffix: Of the format's files, "" for a SavedModel.
    """
    if top_k is not None:
        _checks.check_int("top_k", top_k, 1)
    if not names:
        return
    if top_k is None:
        raise ValueError(
            "`names=True` gives the names of the `top_k` classes: pass top_k=1 for the "
            "most probable one. Received: top_k=None"
        )
    if suffix or keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`names=True` puts strings into the graph, which a SavedModel written on "
            "the TensorFlow backend can hold: leave it out, and look the numbers up in "
            "the `labels` of the export's description. Received: "
            f"backend={keras.backend.backend()}, file '{suffix or 'SavedModel'}'"
        )


def outputs(tasks: Mapping[str, Task], plain: Outputs, k: int, names: bool) -> Outputs:
    """Further outputs of a model: for every task of exclusive classes two.

    Args:
        tasks: Task name -> task.
        plain: Task name -> probabilities, or logits, `(N, classes)`.
        k: Number of classes, the most probable first; all, where there are fewer.
        names: Whether classes are given by name, where the task has `labels`.

    Raises:
        ValueError: where there is no such task, or an output has the name of a task.
    """
    found: dict[str, Any] = {}
    for name, task in tasks.items():
        written = isinstance(task, TextGeneration)  # of a place, without its end
        if not task.classes_last or task.dense_prediction or written:
            continue
        count = min(k, int(plain[name].shape[-1]))
        scores, classes = largest(plain[name], count)
        if names and task.class_names is not None:
            lookup = keras.layers.StringLookup(
                vocabulary=list(task.class_names),
                num_oov_indices=0,
                invert=True,
                name=f"{name}{CLASSES}",
            )
            classes = lookup(ops.cast(classes, "int64"))
        found[f"{name}{CLASSES}"] = classes
        found[f"{name}{SCORES}"] = scores
    if not found:
        raise ValueError(
            "`top_k` is of tasks with exclusive classes, such as kmtl.Classification. "
            f"Received: tasks {', '.join(tasks)}"
        )
    _check_names(found, tasks)
    return found


def decoded(tasks: Mapping[str, Task], plain: Outputs) -> Outputs:
    """Further outputs of a model: what tasks say in a form of their own.

    Args:
        tasks: Task name -> task.
        plain: Task name -> probabilities, or logits.

    Raises:
        ValueError: where an output has the name of a task.
    """
    found: dict[str, Any] = {}
    for task in tasks.values():
        own = decoded_parts(task, plain[task.name])
        if own and writes_strings(task):
            join = _joining(task)
            own[f"{task.name}{TEXT}"] = join(own[f"{task.name}{DECODED}"])
        found |= own
    _check_names(found, tasks)
    return found


def decoded_parts(task: Task, outputs: Tensor) -> Outputs:
    """What a task says in a form of its own, by the names of an export's outputs."""
    made = task.decoded(outputs)
    if made is None:
        return {}
    if not isinstance(made, dict):
        return {f"{task.name}{DECODED}": made}
    return {f"{task.name}_{part}": made[part] for part in task.decoded_parts}


def _joining(task: Any) -> JoinedTokens:
    return JoinedTokens(task.labels, task.separator, name=f"{task.name}{TEXT}")


def writes_strings(task: Any) -> bool:
    """Whether a SavedModel says what a task decodes as strings, too."""
    strings = keras.backend.backend() == "tensorflow"
    return strings and isinstance(task, TextGeneration) and task.labels is not None


def wrong_texts(task: Any, values: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """1 for each string that is not what the values of its row say."""
    wanted = task.decode(values)
    pairs = zip(texts.ravel(), wanted, strict=True)
    return np.array([bytes(text) != own.encode() for text, own in pairs], "float32")


def _check_names(found: Outputs, tasks: Mapping[str, Task]) -> None:
    taken = sorted(set(found) & set(tasks))
    if taken:
        raise ValueError(
            f"An output of the export is called '{taken[0]}', as a task is. Rename it"
        )


def of_task(task: Task, found: Mapping[str, Any]) -> tuple[str, ...]:
    """The names among those of a model's outputs that belong to a task."""
    name = task.name
    parts = [f"{name}_{part}" for part in task.decoded_parts]
    return tuple(
        key
        for key in (name, f"{name}{CLASSES}", f"{name}{SCORES}", *parts, name + TEXT)
        if key in found
    )


def expected(name: str, described: Config, values: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of the best classes, as a check compares them, under both names."""
    if f"{name}{SCORES}" not in described.get("top", ()):
        return {}
    count = described["top"][f"{name}{SCORES}"]["shape"][-1]
    best = -np.sort(-values, axis=-1)[..., :count]
    return {f"{name}{CLASSES}": best, f"{name}{SCORES}": best}


def as_scores(
    name: str, described: Config, classes: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """The scores of the classes that an export gave: of equal ones any may be first."""
    if classes.dtype.kind == "S":
        places = {label.encode(): at for at, label in enumerate(described["labels"])}
        classes = np.vectorize(places.__getitem__)(classes)
    return np.take_along_axis(values, classes.astype("int64"), axis=-1)
