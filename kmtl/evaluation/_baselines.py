"""Single-task models: what each task reaches when it has a network of its own."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from kmtl import _checks, _files, _swap
from kmtl.data.hashing import fingerprint
from kmtl.data.plans import RowPlan, with_steps
from kmtl.evaluation import _cache
from kmtl.evaluation._own_rows import OwnRows
from kmtl.evaluation._plan import Plan, Progress
from kmtl.evaluation.best_epoch import BestEpoch
from kmtl.evaluation.delta import baseline_scores, scored_tasks
from kmtl.evaluation.results import BaselineRun, Baselines
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_unique_tasks
from kmtl.training import sources
from kmtl.training.batches import ShuffledBatches
from kmtl.training.raw_sets import prepared_data, specs_in
from kmtl.training.user_data import prepare
from kmtl.typing import Callback, Data, Logs, Options, Verbose

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

logger = logging.getLogger("kmtl")

#: A model after its training, and what is stored beside it.
Trained = tuple["MultiTaskModel", dict[str, Any]]
#: From a plan, several tasks, a seed and the data: task name -> what came of it.
Together = Callable[
    [Plan, Sequence[Task], int, Mapping[str, Any]], Mapping[str, Trained]
]


def baselines(
    builder: Callable[..., keras.Model],
    *,
    tasks: Sequence[Task],
    train: Data,
    validation: Data,
    epochs: int,
    test: Data | None = None,
    batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    shuffle: bool = True,
    seeds: Sequence[int] | None = None,
    compile_options: Options | None = None,
    keep: str = "best",
    patience: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    verbose: Verbose = 0,
    **builder_arguments: Any,
) -> Baselines:
    """Train one model per scored task: same backbone, one head, same budget.

    The builder is called with one task at a time and otherwise the same arguments,
    without those that concern several tasks (`sharing`, `sharing_depth`,
    `loss_weights`, and `weighting` and `relations` when compiling; the task's weight is
    1). All models see the same rows, epochs, batch size, optimizer and rule for the
    epoch to keep.

    Each model is trained once. It is stored under a key made from its configuration,
    the contents of the training and validation data, and the versions of kmtl, Keras
    and the backend; the next call with the same ones only reads it. Models that were
    finished before an interruption are kept, damaged ones are trained again.

    Scores on the validation data are for choices (search objectives), those on the
    test data for final tables. Nothing is scored on training data.

    Args:
        builder: `kmtl.build_cnn` or any function that takes `tasks` (and `seed`) and
            returns a model.
        tasks: The tasks; auxiliary ones are left out.
        train: `(x, y)` or `(x, y, sample_weight)`, a `kmtl.data.Split`, a
            `tf.data.Dataset`, or a `keras.utils.PyDataset`, with labels of all tasks.
            Of a `kmtl.data.mixture` each model sees the rows of the sets that have
            labels of its task, as many in each epoch and step as joint training gives
            it. (Where epochs take turns, or shares follow the losses, every row once.)
        validation: The same for the validation data.
        epochs: Epochs, >= 1.
        test: The same for the test data, or None.
        batch_size: Rows per batch, for arrays. Defaults to 32.
        steps_per_epoch, validation_steps: Batches of an epoch, and of a validation.
            None: all.
        shuffle: Whether arrays have a new order in each epoch. Defaults to True.
        seeds: Integers >= 0; one model per task and seed, and scores are means. They
            set the initial weights, the dropout masks and the order of arrays. Defaults
            to the builder argument `seed`, else 0.
        compile_options: Arguments of `compile`, such as `{"optimizer": "adam"}`.
        keep: `"best"`: the weights of the epoch with the best validation score;
            `"last"`: those of the last one. Train the multi-task model in the same way:
            `BestEpoch()` is the rule `"best"` for Δm.
        patience: Stop after so many epochs without a better score. None trains all.
        callbacks: Further Keras callbacks, copied for each model. Part of the key. One
            that monitors what a model does not log is left out there, with a warning.
        cache_dir: Where models are stored. Defaults to `$KMTL_CACHE_DIR/baselines`, or
            `~/.cache/kmtl/baselines`.
        progress: Function `(task name, seed, finished epochs, epochs)`, called after
            each epoch, and once for a model that was stored before.
        verbose: As in `fit`.
        **builder_arguments: Fixed arguments of the builder.

    Returns:
        `Baselines`.

    Raises:
        ValueError: for wrong arguments, data without labels of a task, or a baseline
            that is 0 or not finite: no improvement is relative to that.
        TypeError: for an argument that cannot be part of a key.

    Example:

    >>> tasks = [kmtl.Classification("kind", classes=2), kmtl.Regression("size")]
    >>> x = np.linspace(-1, 1, 32, dtype="float32")[:, None]
    >>> y = {"kind": (x[:, 0] > 0).astype(int), "size": x[:, 0]}
    >>> singles = kmtl.baselines(
    ...     kmtl.build_mlp, tasks=tasks, train=(x, y), validation=(x, y), epochs=2,
    ...     cache_dir="baselines", input_shape=(1,), units=(8,),
    ... )
    >>> sorted(singles.scores)
    ['kind', 'size']
    """
    counted = scored_tasks(check_unique_tasks(tasks))
    for name, data in (("train", train), ("validation", validation), ("test", test)):
        if data is None and name != "test":
            raise ValueError(f"`{name}` data are needed. Received: {name}=None")
    plan = Plan(
        builder=builder,
        arguments=dict(builder_arguments),
        compile_options=dict(compile_options or {}),
        seeds=seeds,
        epochs=_checks.check_int("epochs", epochs, 1),
        batch_size=batch_size,
        keep=_checks.check_choice("keep", keep, ("best", "last")),
        patience=patience,
        callbacks=list(callbacks),
        verbose=verbose,
        progress=progress,
        rows=drawn(train, epochs, batch_size),
        shuffle=shuffle,
        steps_per_epoch=steps_per_epoch,
        validation_steps=validation_steps,
    )
    parts = {"train": train, "validation": validation}
    if test is not None:
        parts["test"] = test
    return baselines_of(plan, counted, parts, cache_dir)


def baselines_of(
    plan: Plan,
    counted: Sequence[Task],
    parts: Mapping[str, Data],
    cache_dir: str | os.PathLike[str] | None,
    together: Together | None = None,
) -> Baselines:
    """The models of a plan, those that are stored and the others.

    Args:
        counted: The tasks that are scored.
        parts: `"train"`, `"validation"` and perhaps `"test"` data.
        cache_dir: As in `baselines`.
        together: What trains all models of a seed that are not stored as one program,
            if it can.
    """
    specs = specs_in(plan.arguments)
    parts = {name: prepared_data(specs, data) for name, data in parts.items()}
    steps = {"train": plan.steps_per_epoch, "validation": plan.validation_steps}
    fingerprints = {
        name: sources.contents(_plain(data), steps.get(name))
        for name, data in parts.items()
    }
    folder = Path(cache_dir) if cache_dir is not None else _cache.default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    _swap.remove_abandoned(folder)
    entries = {
        (task.name, seed): _entry(plan, task, seed, fingerprints, folder)
        for task in counted
        for seed in plan.seeds
    }
    ready: dict[tuple[str, int], Trained] = {}
    for seed in () if together is None else plan.seeds:
        lacking = [
            task.replace(weight=1.0)
            for task in counted
            if not entries[task.name, seed][0].exists()
        ]
        if len(lacking) > 1:
            _check_all_labels(parts, lacking)
            found = together(plan, lacking, seed, parts)  # type: ignore[misc]
            ready |= {(name, seed): one for name, one in found.items()}
    runs = [
        _one_run(plan, task, seed, parts, fingerprints, entries, ready)
        for task in counted
        for seed in plan.seeds
    ]
    made = Baselines(
        tasks=tuple(counted),
        runs=tuple(runs),
        fingerprints=fingerprints,
        configuration={
            **plan.description(None),
            "seeds": list(plan.seeds),
            "versions": _cache.versions(),
        },
    )
    for name in made.splits:  # before a search fails in each of its trials
        baseline_scores(made.scores_on(name), counted, counted)
    return made


def evaluated_on(baselines: Baselines, data: Data, split: str) -> Baselines:
    """The baselines with the scores of their stored models on further data.

    Args:
        baselines: Of a search, for example, which has seen no test data.
        data: As for `kmtl.evaluate`.
        split: What to call them.

    Raises:
        FileNotFoundError: if a model is not stored any more.
    """
    name = fingerprint(_plain(data))
    tasks = {task.name: task.replace(weight=1.0) for task in baselines.tasks}
    runs = []
    for run in baselines.runs:
        place = Path(run.folder)
        if not (place / _cache.MODEL).exists():
            raise FileNotFoundError(
                "The single-task models must be stored to be evaluated on other data "
                f"than {', '.join(baselines.splits)}. Train them again with "
                f"`kmtl.baselines(..., test=...)`. Received: no model in '{place}'"
            )
        found = _restored(_on_test(place, tasks[run.task], data, name))
        runs.append(dataclasses.replace(run, metrics={**run.metrics, split: found}))
    fingerprints = {**baselines.fingerprints, split: name}
    return dataclasses.replace(baselines, runs=tuple(runs), fingerprints=fingerprints)


def _entry(
    plan: Plan, task: Task, seed: int, fingerprints: Mapping[str, str], folder: Path
) -> tuple[Path, str]:
    """Where a model is stored, and under which key."""
    single = task.replace(weight=1.0)
    wanted = _cache.key(
        {
            **plan.description(task),
            "task": _cache.describe(single.to_config(), "task"),
            "seed": seed,
            "train": fingerprints["train"],
            "validation": fingerprints["validation"],
            "versions": _cache.versions(),
        }
    )
    return folder / f"{task.name}-{seed}-{wanted[:16]}", wanted


def _one_run(
    plan: Plan,
    task: Task,
    seed: int,
    parts: Mapping[str, Any],
    fingerprints: Mapping[str, str],
    entries: Mapping[tuple[str, int], tuple[Path, str]],
    trained: Mapping[tuple[str, int], Trained],
) -> BaselineRun:
    single = task.replace(weight=1.0)
    place, wanted = entries[task.name, seed]
    result = _cache.read_entry(place, wanted)
    cached = result is not None
    if result is None:
        ready = trained.get((task.name, seed))
        if ready is None:
            _check_all_labels(parts, [single])
            ready = _train(plan, single, seed, parts)
        model, result = ready
        _cache.write_entry(place, wanted, model, result)
    else:
        plan.progress(task.name, seed, plan.epochs, plan.epochs)
        logger.info("Baseline of '%s' (seed %d) is stored: %s", task.name, seed, place)
    metrics = {"validation": result["metrics"]}
    if "test" in parts:
        metrics["test"] = _on_test(place, single, parts["test"], fingerprints["test"])
    return BaselineRun(
        task=task.name,
        seed=seed,
        metrics={name: _restored(values) for name, values in metrics.items()},
        history={
            name: [float(value) for value in values]
            for name, values in result["history"].items()
        },
        epoch=result["epoch"],
        seconds=result["seconds"],
        folder=str(place),
        cached=cached,
    )


def _train(
    plan: Plan,
    task: Task,
    seed: int,
    parts: Mapping[str, Any],
) -> Trained:
    logger.info("Training the baseline of '%s' (seed %d).", task.name, seed)
    started = time.perf_counter()
    model, best, callbacks = begun(plan, task, seed)
    train = sources.for_task(parts["train"], task)
    data = {"x": train, "steps_per_epoch": plan.steps_per_epoch}
    if isinstance(train, tuple):
        data = _batches(plan, model, task, seed, train)
    validation = sources.for_task(parts["validation"], task)
    history = model.fit(
        **data,
        epochs=plan.epochs,
        validation_data=validation,
        validation_batch_size=plan.batch_size,
        validation_steps=plan.validation_steps,
        shuffle=False,
        verbose=plan.verbose,
        callbacks=callbacks,
    )
    scores = _scores(model, validation, task, plan.batch_size, plan.validation_steps)
    return model, result_of(plan, best, history, scores, time.perf_counter() - started)


def begun(
    plan: Plan, task: Task, seed: int
) -> tuple[MultiTaskModel, BestEpoch, list[Callback]]:
    """A task's model before training, its rule for the epoch to keep, all callbacks."""
    arguments = {**plan.arguments, **({"seed": seed} if plan.takes_seed else {})}
    model = plan.builder(tasks=[task], **copy.deepcopy(arguments))
    model.compile(**plan.compile_for(task))
    best = BestEpoch(task, patience=plan.patience)
    best.restore_best_weights = plan.keep == "best"
    further = copy.deepcopy([c for c in plan.callbacks if _is_followed(c, model)])
    return model, best, [*further, best, _Tell(plan, task.name, seed)]


def result_of(
    plan: Plan,
    best: BestEpoch,
    history: keras.callbacks.History,
    scores: Mapping[str, float],
    seconds: float,
) -> dict[str, Any]:
    """What is stored beside a trained model."""
    last = len(history.epoch) - 1
    return {
        "metrics": _stored(scores),
        "history": {
            name: [_plain_number(value) for value in values]
            for name, values in history.history.items()
        },
        "epoch": 1 + (int(best.best_epoch) if plan.keep == "best" else last),
        "seconds": seconds,
    }


def _batches(
    plan: Plan, model: MultiTaskModel, task: Task, seed: int, arrays: tuple
) -> dict[str, Any]:
    """What `fit` takes of arrays."""
    given = keras.utils.unpack_x_y_sample_weight(arrays)
    size, steps = plan.batch_size or 32, plan.steps_per_epoch
    if not plan.shuffle:
        names = ("x", "y", "sample_weight")
        options = {"batch_size": size, "steps_per_epoch": steps}
        return {**dict(zip(names, given, strict=True)), **options}
    given = prepare(model, *given)
    if plan.rows is not None:
        return {
            "x": OwnRows(task.name, *given, plan=plan.rows, batch_size=size, seed=seed)
        }
    rows = len(keras.tree.flatten(given)[0])
    drawn = None if steps is None else with_steps(None, rows, steps)
    return {"x": ShuffledBatches(*given, batch_size=size, seed=seed, plan=drawn)}


def drawn(train: Data, epochs: int, batch_size: int | None) -> RowPlan | None:
    """How the rows of a mixture are drawn, where single tasks can follow that."""
    plan = sources.plan_of(train)
    if plan is None or not (plan.by_loss or plan.alternate == "epoch"):
        return plan
    seen = "" if plan.by_loss else f" {plan.seen(epochs, batch_size or 32).tolist()}"
    logger.warning(
        "Single-task models see every row of the mixture once in each of %d epochs, "
        "not as joint training does: its sets %s of %s rows give it%s by %s. For an "
        "equal budget give `baselines` of models that you trained.",
        epochs,
        list(plan.names),
        list(plan.rows),
        seen,
        "their losses" if plan.by_loss else "epochs in turns",
    )
    return None


def _is_followed(callback: Callback, model: MultiTaskModel) -> bool:
    """Whether a single-task model logs what a callback monitors."""
    monitor = getattr(callback, "monitor", None)
    logs = {"loss", *model.get_metrics_result()}
    if not isinstance(monitor, str) or monitor.removeprefix("val_") in logs:
        return True
    logger.warning(
        "The single-task model of '%s' trains without %s, which monitors '%s'.",
        model.task_names[0],
        type(callback).__name__,
        monitor,
    )
    return False


class _Tell(keras.callbacks.Callback):
    """Reports finished epochs."""

    def __init__(self, plan: Plan, task: str, seed: int):
        super().__init__()
        self.plan, self.task, self.seed = plan, task, seed

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.plan.progress(self.task, self.seed, epoch + 1, self.plan.epochs)


def _on_test(place: Path, task: Task, test: Data, name: str) -> dict[str, Any]:
    """Metrics on test data: evaluated once per contents of the data."""
    path = place / f"test-{name[:16]}.json"
    if path.exists():
        try:
            found: dict[str, Any] = _files.read_json(path, "", keys=("metrics",))
            return dict(found["metrics"])
        except (_files.DamagedFileError, TypeError) as error:
            logger.warning("'%s' is damaged, evaluating again: %s", path, error)
    model = keras.models.load_model(place / _cache.MODEL)
    metrics = _stored(_scores(model, sources.for_task(test, task), task, None))
    _files.write_json(path, {"metrics": metrics})
    return metrics


def _scores(
    model: MultiTaskModel,
    data: Data,
    task: Task,
    batch_size: int | None,
    steps: int | None = None,
) -> dict[str, float]:
    """Metric name (without the task's) -> value."""
    arrays = data if isinstance(data, tuple) else (data,)
    x, y, weight = keras.utils.unpack_x_y_sample_weight(arrays)
    logs = model.evaluate(
        x,
        y,
        sample_weight=weight,
        batch_size=batch_size,
        steps=steps,
        return_dict=True,
        verbose=0,
    )
    prefix = f"{task.name}_"
    return {
        name.removeprefix(prefix): float(value)
        for name, value in logs.items()
        if name.startswith(prefix)
    }


def _check_all_labels(parts: Mapping[str, Any], tasks: Sequence[Task]) -> None:
    for task in tasks:
        for part, data in parts.items():
            _, counts = sources.count_labels(sources.for_task(data, task), [task])
            if not counts[task.name]:
                raise ValueError(
                    f"`{part}` must have labels of every scored task: it has none of "
                    f"'{task.name}'. Make that task auxiliary, or leave it out."
                )


def _plain(data: Data) -> Data:
    """Data as `fingerprint` takes them."""
    return sources.arrays_of(data) or data


def _plain_number(value: Any) -> Any:
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _stored(metrics: Mapping[str, float]) -> dict[str, Any]:
    return {name: _plain_number(value) for name, value in metrics.items()}


def _restored(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
