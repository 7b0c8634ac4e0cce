"""Per-task evaluation of a model."""

from __future__ import annotations

from typing import Any

import keras

from kmtl import _checks
from kmtl.data.hashing import fingerprint
from kmtl.evaluation._baselines import evaluated_on
from kmtl.evaluation.delta import baseline_scores, delta_m, scores_in
from kmtl.evaluation.per_class import class_tables
from kmtl.evaluation.results import Baselines
from kmtl.evaluation.table import Evaluation, TaskRow
from kmtl.tasks.base import Task
from kmtl.training import sources
from kmtl.training.kmtl_model import check_model
from kmtl.training.model import MultiTaskModel
from kmtl.training.raw_sets import prepared_data
from kmtl.training.user_data import check_counts
from kmtl.typing import Data, Verbose

ROWS_AT_ONCE = 256


def evaluate(
    model: MultiTaskModel,
    data: Data,
    baselines: Any = None,
    *,
    split: str | None = None,
    batch_size: int | None = None,
    verbose: Verbose = 0,
    per_class: bool = False,
) -> Evaluation:
    """Losses and metrics per task, and the improvement over single-task models.

    The numbers are those of `model.evaluate`. Auxiliary tasks are shown and not scored;
    a task without labels in the data is shown as such and does not count in Δm.

    Args:
        model: The model, compiled or not (it stays as it is).
        data: `(x, y)` or `(x, y, sample_weight)`, a `kmtl.data.Split`, a finite
            `tf.data.Dataset`, or a `keras.utils.PyDataset`. It is read twice.
        baselines: `Baselines`, or a dict task name -> score of the single-task model on
            the same data. None leaves the comparison out.
        split: Name of the data, for the table; with `Baselines` `"validation"` or
            `"test"`: the scores to compare with. By default these are found by the
            fingerprint of the data; on other data the stored single-task models are
            evaluated too.
        batch_size: Rows per batch, for arrays. Defaults to 256.
        verbose: As in `model.evaluate`.
        per_class: Also precision, recall, F1, IoU and support of every class, and
            confusion matrices, as scikit-learn has them, of the tasks of classes: in
            the printed text, and as `per_class`. Of `kmtl.Detection` the average
            precision of every class, as pycocotools has it. The data are read a third
            time.

    Returns:
        `Evaluation`: `print` it, or use `to_dict()`, `to_frame()`, `scores`, `delta_m`.

    Raises:
        TypeError: for a model without tasks.
        ValueError: if the baselines lack a task, or are 0.
        FileNotFoundError: for other data than those of the baselines, if their models
            are not stored any more.

    Example:

    >>> tasks = [kmtl.Regression("size")]
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(4,), seed=0)
    >>> x, y = np.zeros((4, 2)), {"size": np.array([1.0, 1.0, -1.0, np.nan])}
    >>> result = kmtl.evaluate(model, (x, y), baselines={"size": 2.0})
    >>> row = result["size"]
    >>> row.labels, row.coverage, row.score, row.delta
    (3, 0.75, 1.0, 50.0)
    >>> kinds = [kmtl.Classification("kind", labels=("cat", "dog"))]
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=kinds, units=(4,), seed=0)
    >>> result = kmtl.evaluate(model, (x, {"kind": [0, 0, 1, -1]}), per_class=True)
    >>> result.per_class["kind"].recall.tolist()
    [1.0, 0.0]
    """
    check_model(model)
    check_counts(batch_size=batch_size)
    tasks = model.tasks
    data = prepared_data(model.input_specs, data)
    singles, split, noise = _baselines_of(baselines, data, split)
    arrays = model.checked_arrays(data)
    examples, counts = sources.count_labels(arrays or data, tasks)
    x, y, weight = keras.utils.unpack_x_y_sample_weight(arrays or (data,))
    logs = _compiled(model).evaluate(
        x,
        y,
        sample_weight=weight,
        batch_size=(batch_size or ROWS_AT_ONCE) if arrays else None,
        return_dict=True,
        verbose=verbose,
    )
    metrics = _by_task(logs, tasks)
    scored = [task for task in tasks if not task.auxiliary]
    scores = scores_in(logs, scored)
    mean: float | None = None
    deltas: dict[str, float] = {}
    if singles is not None:
        counted = [task for task in scored if scores[task.name] is not None]
        singles = baseline_scores(singles, tasks, counted)
        if counted:
            mean, deltas = delta_m(scores, singles, tasks)
    rows = []
    for task in tasks:
        found = metrics[task.name] if counts[task.name] else {}
        rows.append(
            TaskRow(
                task=task.name,
                kind=task.registered_name,
                auxiliary=task.auxiliary,
                metric=task.score.name,
                direction=task.score.direction,
                labels=counts[task.name],
                coverage=counts[task.name] / examples if examples else 0.0,
                loss=found.get("loss"),
                metrics={name: found[name] for name in found if name != "loss"},
                baseline=(singles or {}).get(task.name),
                delta=deltas.get(task.name),
                noise=noise.get(task.name) if task.name in deltas else None,
                unit=task.unit,
            )
        )
    tables = class_tables(model, arrays or data) if per_class else None
    return Evaluation(tuple(rows), examples, float(logs["loss"]), mean, split, tables)


def _baselines_of(
    baselines: Any, data: Data, split: str | None
) -> tuple[Any, str | None, dict[str, float]]:
    """`(dict task name -> score, or None; name of the data; noise of Δ in %)`."""
    if not isinstance(baselines, Baselines):
        return baselines, split, {}
    if split is None:
        found = fingerprint(sources.arrays_of(data) or data)
        for name in baselines.splits:
            if baselines.fingerprints[name] == found:
                split = name
    chosen = split
    if chosen is None or chosen not in baselines.splits:
        known = tuple(dict.fromkeys((*baselines.splits, "test")))
        chosen = _checks.check_choice("split", split or "test", known)
        baselines = evaluated_on(baselines, data, chosen)
    return baselines.scores_on(chosen), split, baselines.noise_on(chosen)


def _compiled(model: MultiTaskModel) -> MultiTaskModel:
    """The model, or a compiled one on the same layers: the user's stays uncompiled."""
    if model.compiled:
        return model
    twin = type(model)(model.input, model.output, name=model.name)
    twin.compile("sgd", loss=model.replaced_losses)
    return twin


def _by_task(logs: dict[str, Any], tasks: tuple[Task, ...]) -> dict[str, dict]:
    """Logs by task: each task's own metrics first, then those given to `compile`.

    A name may begin with another task's name: the longest one that fits owns it.
    """
    names = sorted((task.name for task in tasks), key=len, reverse=True)
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    own = {
        f"{task.name}_{metric}": (task.name, metric)
        for task in tasks
        for metric in ("loss", *(metric.name for metric in task.metrics))
    }
    for key, (task_name, metric) in own.items():
        found[task_name][metric] = float(logs[key])
    for key, value in logs.items():
        owners = [name for name in names if key.startswith(f"{name}_")]
        if key not in own and owners:
            found[owners[0]][key.removeprefix(f"{owners[0]}_")] = float(value)
    return found
