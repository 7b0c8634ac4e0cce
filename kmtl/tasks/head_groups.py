"""Heads of many tasks alike, made as one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kmtl.layers.head_group import HeadGroup, HeadOfGroup
from kmtl.layers.maker import LayerMaker
from kmtl.tasks.base import Task
from kmtl.tasks.heads import HeadContext, last_dense_options, to_vector
from kmtl.typing import Features, Outputs, TaskName

#: Fewer tasks have heads of their own: there is little to save.
FEWEST = 12
#: What may differ between tasks whose heads are made as one, or losses computed.
FREE = (
    "name",
    "weight",
    "metrics",
    "labels",
    "unit",
    "auxiliary",
    "sample_weight",  # whose weights are given per task
)
#: Regularisers of a kernel of several tasks that are the sum of theirs.
_ADDITIVE = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


def grouped_heads(
    tasks: Sequence[Task],
    features: Features,
    contexts: Mapping[TaskName, HeadContext],
) -> Outputs:
    """The logits of all tasks whose heads are one dense layer among many alike.

    Args:
        tasks: The tasks.
        features: Dict task name -> what its head reads.
        contexts: Dict task name -> what its head is made with.

    Returns:
        Dict task name -> logits, of the tasks that have some `FEWEST` like them on the
        same features; the others are to be built one by one.
    """
    alike: dict[tuple, list[Task]] = {}
    for task in tasks:
        if _is_one_dense(task, contexts[task.name].make):
            config = {k: v for k, v in task.to_config().items() if k not in FREE}
            kind = json.dumps(config, sort_keys=True, default=str)
            alike.setdefault((id(features[task.name]), kind), []).append(task)
    found: Outputs = {}
    groups = [group for group in alike.values() if len(group) >= FEWEST]
    for number, group in enumerate(groups, 1):
        prefix = "grouped_heads" + (f"_{number}" if number > 1 else "")
        found.update(_made(group, features[group[0].name], contexts, prefix))
    return found


def _is_one_dense(task: Task, make: LayerMaker) -> bool:
    """Whether the head of a task is a dense layer on a vector, and no more."""
    regularizer = keras.regularizers.get(make.kernel_regularizer)
    return (
        type(task).build_head is Task.build_head
        and type(task).__module__.startswith("kmtl.")
        and type(make) is LayerMaker
        and not task.dense_prediction
        and not task.hidden
        and not task.target_is_input
        and (regularizer is None or type(regularizer) in _ADDITIVE)
    )


def _made(
    tasks: Sequence[Task],
    features: keras.KerasTensor,
    contexts: Mapping[TaskName, HeadContext],
    prefix: str,
) -> Outputs:
    first = tasks[0]
    context = contexts[first.name]
    make = dataclasses.replace(context.make, prefix=prefix, seed_scope=prefix)
    # The pooling is that of all; the rest is named and seeded as single heads are.
    vector = to_vector(features, HeadContext(make, context.input_shape), first.pooling)
    shape: Any = first.output_shape(context.input_shape)
    options = context.make.kernel_options("logits")
    group = make.layer(
        HeadGroup,
        "logits",
        tasks=[task.name for task in tasks],
        units=shape[-1],
        seeds=[contexts[task.name].make.layer_seed("logits") for task in tasks],
        **options,
        **last_dense_options(),
    )
    outputs = group(vector)
    return {
        task.name: contexts[task.name].make.layer(
            HeadOfGroup, "logits", place=place, dtype=group.dtype_policy
        )(outputs)
        for place, task in enumerate(tasks)
    }
