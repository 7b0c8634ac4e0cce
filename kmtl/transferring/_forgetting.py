"""What the tasks of two models have lost from the one to the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from kmtl.evaluation import evaluate
from kmtl.training.kmtl_model import check_model
from kmtl.training.model import MultiTaskModel
from kmtl.training.sources import is_split
from kmtl.transferring.tasks import remove_task
from kmtl.typing import Data


@dataclasses.dataclass(frozen=True)
class Forgetting:
    """Old tasks' scores before and after; see `kmtl.forgetting`.

    Attributes:
        rows: Task name -> `(metric, before, after, lost)`; `lost` is how much worse,
            in the metric's unit, below 0 for better.
    """

    rows: Mapping[str, tuple[str, float, float, float]]

    @property
    def worst(self) -> float:
        """The most that a task has lost."""
        return max(row[3] for row in self.rows.values())

    def __str__(self) -> str:
        width = max(map(len, self.rows))
        return "\n".join(
            f"{name:{width}}  {metric} {before:.4g} -> {after:.4g} "
            f"({'lost' if lost > 0 else 'gained'} {abs(lost):.3g})"
            for name, (metric, before, after, lost) in self.rows.items()
        )


def forgetting(before: MultiTaskModel, after: MultiTaskModel, data: Data) -> Forgetting:
    """What the tasks that two models have in common score in each.

    Args:
        before: The model before a task was added, say.
        after: The model after it was trained.
        data: As for `kmtl.evaluate`, with labels of all tasks of both models, or of
            those in common alone where it is arrays.

    Returns:
        A printable `Forgetting`.

    Raises:
        ValueError: if the two have no task in common.

    Example:

    >>> tasks = [kmtl.Regression("a")]
    >>> old = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(4,), seed=0)
    >>> new = kmtl.add_task(old, kmtl.Regression("b"))
    >>> kmtl.forgetting(old, new, (np.ones((4, 2)), {"a": np.ones(4)})).worst
    0.0
    """
    check_model(before, "before")
    check_model(after, "after")
    common = [name for name in before.task_names if name in after.task_names]
    if not common:
        raise ValueError(
            "The models must have tasks in common. Received: "
            f"{', '.join(before.task_names)}, and {', '.join(after.task_names)}"
        )
    results = []
    for model in (before, after):
        for name in set(model.task_names) - set(common):
            model = remove_task(model, name)
        results.append(evaluate(model, _labels_of(data, common)))
    rows = {}
    for name in common:
        old, new = (result[name] for result in results)
        if old.score is None or new.score is None:
            continue
        sign = 1.0 if old.direction == "min" else -1.0
        rows[name] = (old.metric, old.score, new.score, sign * (new.score - old.score))
    return Forgetting(rows)


def _labels_of(data: Data, names: Sequence[str]) -> Data:
    if is_split(data):
        data = tuple(data.arrays())
    if not isinstance(data, (tuple, list)) or not isinstance(data[1], Mapping):
        return data
    x, y, *weight = data
    y = {name: labels for name, labels in y.items() if name in names}
    if weight and isinstance(weight[0], Mapping):
        weight = [{n: w for n, w in weight[0].items() if n in names}]
    return (x, y, *weight)
