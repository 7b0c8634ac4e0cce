"""A table in one call."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmtl import _checks
from kmtl.data.assembling import checked_frame
from kmtl.data.column_names import ColumnNames
from kmtl.data.containers import TaskData
from kmtl.data.frames import from_dataframe
from kmtl.data.hashing import fingerprint
from kmtl.evaluation import _cache
from kmtl.evaluation.ensemble import average
from kmtl.inputs.table import Table
from kmtl.tabular import leaderboard, scores
from kmtl.tabular.candidate import candidates, left_out
from kmtl.tabular.choosing import choose
from kmtl.tabular.clock import Clock
from kmtl.tabular.journal import Journal
from kmtl.tabular.nets import Net, Trainer
from kmtl.tabular.predictor import TablePredictor
from kmtl.tabular.resampling import blocks_of
from kmtl.tabular.rival_models import model_of, that_can_be_averaged
from kmtl.tabular.rivals import RivalSearch
from kmtl.tabular.search import TOGETHER, Search
from kmtl.tabular.targets import TargetColumn, check_kinds
from kmtl.tasks.base import Task
from kmtl.tasks.class_names import are_learned
from kmtl.training.recipe import Recipe
from kmtl.training.retracing import no_retracing_warnings
from kmtl.typing import PathLike

#: Epochs without a better one after which a net's training ends: many share the time.
PATIENCE = 40
MINUTES = 5.0
SKILL = "skill on validation (0: as the mean, 1: perfect)"
#: With fewer rows neither a choice nor a score says anything.
LEAST_ROWS = 30
#: Labels of a target that training, validation and test must have.
LEAST_LABELS = {"train": 10, "validation": 2, "test": 2}


def fit_table(
    frame: Any,
    targets: Sequence[str] | str | None = None,
    minutes: float | None = None,
    *,
    trials: int | None = None,
    tasks: Sequence[Task] | Mapping[Task, str] | None = None,
    inputs: Table | Sequence[str] | None = None,
    split: Any = (0.7, 0.15, 0.15),
    groups: str | None = None,
    time: str | None = None,
    seed: int = 0,
    directory: PathLike | None = None,
    recipe: Recipe | None = None,
    verbose: bool = True,
) -> TablePredictor:
    """Predict some columns of a table from the others, in one call.

    Columns are typed and rows divided as `kmtl.data.from_dataframe` does it, which
    prints what it takes each column for. Then nets are trained: kmtl's defaults first,
    a net per target next, then others that read numbers, share weights, balance targets
    or regularise in another way (`kmtl.tabular.candidates` has the order), then more
    seeds of the best three. Linear models, forests and gradient boosting of
    scikit-learn are tuned on the same rows. The best few are averaged, chosen greedily
    by the validation rows: nets, and linear models and forests where they help; with
    more than some hundred validation rows mostly by each target's own. At the end all
    are scored on the test rows, once.

    The time is looked at between trainings and after every epoch: none begins when it
    is over, and each takes a quarter of it at most, with as many epochs as fit. The
    first net is trained for an epoch at least, however little time there is. The other
    models have a fifth of it: where that is short for a large table or many classes,
    they are fitted with fewer trees or on fewer rows, or not at all, and the
    leaderboard says which. What comes after the search (the average, the test) takes
    some seconds more. The search ends before its time when all that is planned is done.

    Ctrl-C ends the search, and goes on with what there is: the leaderboard and the
    verdicts say what was not fitted. A second one ends the call. With a `directory` a
    later call of the same arguments goes on with the search; also after a kill.

    Args:
        frame: `pandas.DataFrame` (or one of polars, or a dict of columns), at least 30
            rows.
        targets: Columns to predict, whose kinds are inferred. Missing labels may be in
            any of them.
        minutes: Number > 0. Defaults to 5, or with `trials` to no limit.
        trials: Integer >= 1: nets to train. With it and no `minutes` the result depends
            on the seed alone. Defaults to as many as there is time for.
        tasks: Tasks of your own, named as their columns or in a dict task -> column:
            `kmtl.Regression`, `BinaryClassification`, `Classification` or `Ordinal`.
        inputs: Columns to predict from, or a `kmtl.inputs.Table(columns={"zip":
            "categorical"})`, which says what some are. Defaults to all others.
        split, groups, time: How rows are divided; see `kmtl.data.from_dataframe`.
            Verdicts draw whole groups, or blocks of rows in the order of time, to say
            what may be chance.
        seed: Integer >= 0: of the division, the nets and the trees.
        directory: Folder for finished nets, from which a later call goes on. Its
            `minutes` are those of all calls together. Defaults to none.
        recipe: How nets are trained; fewer `epochs`, for example. Defaults to
            `kmtl.Recipe(patience=40)`: many nets share the time.
        verbose: Write what becomes of the columns, and a line per net.

    Returns:
        A `kmtl.tabular.TablePredictor`: `predict(frame)`, `evaluate(frame)`,
        `leaderboard()`, `verdict`, `trials()`, `export(path)`, `save(path)`.

    Raises:
        ValueError, TypeError: for columns that are not there, targets without labels or
            of one value, too few rows, and arguments out of range; before any training.

    Example:

    >>> from sklearn.datasets import load_wine
    >>> frame = load_wine(as_frame=True).frame.rename(columns={"target": "cultivar"})
    >>> predictor = kmtl.fit_table(
    ...     frame, ["cultivar", "alcohol"], trials=1, verbose=False,
    ...     recipe=kmtl.Recipe(epochs=2),
    ... )
    >>> predictor.predict(frame[:2]).columns.tolist()
    ['cultivar', 'alcohol']
    >>> predictor.leaderboard().groupby("target").size().to_dict()
    {'alcohol': 6, 'cultivar': 6}

    Reference: Caruana et al. (greedy averages), ICML 2004.
    """
    if trials is not None:
        trials = _checks.check_int("trials", trials, 1)
    if minutes is None and trials is None:
        minutes = MINUTES
    if minutes is not None:
        minutes = _checks.check_range("minutes", minutes, 0, low_open=True)
    seed = _checks.check_int("seed", seed, 0)
    recipe = recipe or Recipe(patience=PATIENCE)
    named = ColumnNames(frame).options(
        tasks=tasks,
        targets=targets,
        inputs=inputs,
        split=split,
        groups=groups,
        time=time,
    )
    tasks = named["tasks"]
    _check_inputs(named["inputs"])
    frame = checked_frame(frame)
    if len(frame) < LEAST_ROWS:
        raise ValueError(
            f"`frame` must have at least {LEAST_ROWS} rows, to train, choose and test. "
            f"Received: {len(frame)}"
        )
    given = list(tasks or ())
    check_kinds(given)
    names = named["targets"] or []
    data = from_dataframe(frame, **named, seed=seed, verbose=verbose)
    columns = _columns(tasks, given) + names
    found = tuple(
        TargetColumn.of(
            frame,
            column,
            task,
            inferred=number >= len(given) or are_learned(given[number]),
        )
        for number, (column, task) in enumerate(zip(columns, data.tasks, strict=True))
    )
    _check_labels(data, found)
    assert data.test.rows is not None
    blocks = blocks_of(frame, data.test.rows, named["groups"], named["time"])
    with no_retracing_warnings():
        return _fit(
            data,
            found,
            minutes,
            trials,
            seed,
            directory,
            recipe,
            verbose,
            blocks,
        )


def _fit(
    data: TaskData,
    targets: Sequence[TargetColumn],
    minutes: float | None,
    trials: int | None,
    seed: int,
    directory: PathLike | None,
    recipe: Recipe,
    verbose: bool,
    blocks: np.ndarray | None,
) -> TablePredictor:
    assert data.inputs is not None
    table = next(iter(data.inputs.values()))
    assert isinstance(table, Table)
    journal = None
    if directory is not None:
        journal = Journal(Path(directory), _record(data, table, seed, recipe))
    clock = Clock(minutes, 0.0 if journal is None else journal.seconds)
    skills = {
        task.name: scores.Skill(
            task, data.train.y[task.name], data.validation.y[task.name]
        )
        for task in data.tasks
    }
    trainer = Trainer(data, recipe, seed, skills, clock)

    def say(name: str, words: str) -> None:
        if verbose:
            sys.stdout.write(f"{clock.spent:5.0f} s  {name:24} {words}\n")
            sys.stdout.flush()

    def tell(net: Net | tuple[str, str]) -> None:
        if isinstance(net, Net):
            say(net.name, f"{net.skill:.4f}")
        else:
            say(net[0], f"failed: {net[1]}")

    wanted = candidates(table, len(targets))
    search = Search(trainer, wanted, trials, clock, journal, tell)
    rivals = RivalSearch(
        table,
        data.tasks,
        data.train.x,
        data.train.y,
        data.validation.x,
        skills,
        clock,
        seed,
        say,
    )
    if verbose:
        sys.stdout.write(f"time     {'net':24} {SKILL}\n")
        for name, why in left_out(table, len(targets)).items():
            say(name, f"left out: {why}")
    # The defaults first; then the others, which are cheap; then what there is time for.
    search.run(most=TOGETHER)
    if not search.interrupted:
        rivals.run()
    if not (search.interrupted or rivals.interrupted):
        search.run()
    interrupted = search.interrupted or rivals.interrupted
    if interrupted:
        say("interrupted", "going on with what there is; Ctrl-C again ends it all")
    try:
        predictor = _finished(data, targets, table, trainer, search, rivals, blocks)
    except KeyboardInterrupt:
        if interrupted:
            raise
        say("interrupted", "only the test is left; Ctrl-C again ends it all")
        predictor = _finished(data, targets, table, trainer, search, rivals, blocks)
    if verbose:
        sys.stdout.write(f"{predictor!r}\n")
    return predictor


def _finished(
    data: TaskData,
    targets: Sequence[TargetColumn],
    table: Table,
    trainer: Trainer,
    search: Search,
    rivals: RivalSearch,
    blocks: np.ndarray | None,
) -> TablePredictor:
    """What is trained, averaged and scored on the test rows."""
    sides = rivals.sides
    chosen = choose(search.nets, trainer.skills, that_can_be_averaged(sides.values()))
    on_validation, on_test = (
        leaderboard.answers_of_sides(trainer, chosen, sides, part.x)
        for part in (data.validation, data.test)
    )
    like = trainer.rebuilt(search.nets[0])
    members = [
        trainer.rebuilt(one)
        if isinstance(one, Net)
        else model_of(one.by_target, table, like)
        for one, _ in chosen.members
    ]
    missing = {**search.missing(data.tasks), **rivals.missing}
    return TablePredictor(
        average(members, chosen.shares),
        tuple(targets),
        leaderboard.verdicts_of(
            data, targets, on_test, missing, blocks, chosen.unfinished
        ),
        {
            name: part.rows
            for name, part in data.splits.items()
            if part.rows is not None
        },
        data.description,
        leaderboard.rows_of(
            data, targets, chosen, sides, on_validation, on_test, missing
        ),
        leaderboard.trial_rows(
            search, chosen, list(sides.values()), left_out(table, len(targets))
        ),
    )


def _check_inputs(inputs: Any) -> None:
    """Of one table."""
    if inputs is None or isinstance(inputs, Table):
        return
    if isinstance(inputs, Mapping) or not all(isinstance(one, str) for one in inputs):
        raise TypeError(
            "`inputs` must be names of columns, or a kmtl.inputs.Table: linear models "
            "and trees, which nets are compared with, take a table. For texts and "
            "photos use kmtl.data.from_dataframe and kmtl.build. "
            f"Received: inputs={inputs!r}"
        )


def _columns(tasks: Any, given: Sequence[Task]) -> list[str]:
    """The columns of the user's own tasks."""
    if not isinstance(tasks, Mapping):
        return [task.name for task in given]
    for task, column in tasks.items():
        if not isinstance(column, str):
            raise TypeError(
                f"`tasks` must give task '{task.name}' one column. Received: {column!r}"
            )
    return list(tasks.values())


def _check_labels(data: TaskData, targets: Sequence[TargetColumn]) -> None:
    for target in targets:
        for name, least in LEAST_LABELS.items():
            labels = data.splits[name].y[target.task.name]
            count = int(scores.present(target.task, labels).sum())
            if count < least:
                raise ValueError(
                    f"Target '{target.column}' must have at least {least} labels in "
                    f"the {name} rows: label more, divide otherwise, or leave it out. "
                    f"Received: {count}"
                )


def _record(data: TaskData, table: Table, seed: int, recipe: Recipe) -> dict[str, Any]:
    """What finished nets depend on."""
    from kmtl import __version__

    # The order of the rows counts: what nets answered is kept by their places.
    parts = {
        name: {"rows": part.arrays(), "places": np.arange(len(part))}
        for name, part in data.splits.items()
    }
    asked = dataclasses.replace(table, fitted_columns=None)  # the rest is of the data
    return {
        "data": {name: fingerprint(part) for name, part in parts.items()},
        "inputs": _cache.key(asked.to_config()),
        "targets": {task.name: _cache.key(task.to_config()) for task in data.tasks},
        "seed": seed,
        "recipe": str(recipe),
        "backend": keras.backend.backend(),
        "versions": f"kmtl {__version__}, keras {keras.__version__}",
    }
