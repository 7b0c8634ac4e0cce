"""What nets are compared with, and averaged with: linear models and trees of
scikit-learn."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from kmtl.inputs.table import Table
from kmtl.tabular import settings
from kmtl.tabular.clock import Clock
from kmtl.tabular.pacing import fitted, threads_for
from kmtl.tabular.scores import Skill, kind_of, present
from kmtl.tabular.settings import Setting
from kmtl.tasks.base import Task

LINEAR, FOREST, TREES = "linear model", "forest", "gradient boosting"
KINDS = (LINEAR, FOREST, TREES)
#: Share of the time for all of them.
SHARE = 0.2
#: Seconds of each first fit, where its part of that is less.
LEAST_SECONDS = 0.5
#: A fit of so many seconds is told.
SLOW = 2.0
INTERRUPTED = "interrupted before"

#: Kind -> the setting of a number, for a task, with a seed; None after the last one.
Makers = Mapping[str, Callable[[Table, Task, int, int], Setting | None]]


@dataclasses.dataclass(frozen=True, eq=False)
class Rival:
    """A fitted model of one target.

    Args:
        task: The target's task.
        model: scikit-learn's.
        choice: Its settings, in words.
        skill: On the validation rows.
    """

    task: Task
    model: Any
    choice: str
    skill: float

    def answers(self, x: np.ndarray) -> np.ndarray:
        """What it says of prepared rows, as `kmtl.tabular.scores` takes it."""
        with threadpool_limits(threads_for(x.size)):
            return _answers(self.task, self.model, x)


@dataclasses.dataclass(frozen=True, eq=False)
class Rivals:
    """One kind of models, one for each target: what a net for all of them is.

    Args:
        name: Of the kind.
        by_target: Target -> its model, of those that were fitted.
        answers: Target -> answers for the validation rows.
    """

    name: str
    by_target: Mapping[str, Rival]
    answers: Mapping[str, np.ndarray]

    @property
    def skill(self) -> float:
        """Mean over the targets."""
        return float(np.mean([rival.skill for rival in self.by_target.values()]))


class RivalSearch:
    """Of each kind, for each target, the best of its settings on the validation rows.

    Args:
        table: Says what the columns of `x` are.
        tasks: The targets' tasks.
        x, y: Prepared training rows.
        validation_x: Prepared validation rows.
        skills: Per target, how its answers for these are judged.
        clock: They have a share of its time.
        seed: Of the trees.
        tell: Called with what was fitted, and how good it is.
    """

    def __init__(
        self,
        table: Table,
        tasks: Sequence[Task],
        x: np.ndarray,
        y: Mapping[str, np.ndarray],
        validation_x: np.ndarray,
        skills: Mapping[str, Skill],
        clock: Clock,
        seed: int,
        tell: Callable[[str, str], None] = lambda name, words: None,
    ):
        self.table, self.tasks, self.seed = table, list(tasks), seed
        self.x, self.y, self.validation_x = x, y, validation_x
        self.skills, self.clock, self.tell = skills, clock, tell
        self.interrupted = False
        #: Kind and target -> why no model of that kind is fitted for it.
        self.missing: dict[tuple[str, str], str] = {
            (kind, task.name): INTERRUPTED for kind in KINDS for task in self.tasks
        }
        self._best: dict[tuple[str, str], tuple[Rival, np.ndarray]] = {}
        self._tried: dict[tuple[str, str], int] = {}

    def run(self) -> None:
        """Fit a first setting of each, then others while their share of time lasts.

        Ctrl-C ends it with what is fitted.
        """
        try:
            self._run()
        except KeyboardInterrupt:
            self.interrupted = True

    @property
    def sides(self) -> dict[str, Rivals]:
        """Kind -> its models, of kinds that have some."""
        found = {}
        for kind in KINDS:
            own = {t.name: self._best.get((kind, t.name)) for t in self.tasks}
            there = {name: pair for name, pair in own.items() if pair is not None}
            if there:
                found[kind] = Rivals(
                    kind,
                    {
                        name: self._told(kind, rival)
                        for name, (rival, _) in there.items()
                    },
                    {name: answers for name, (_, answers) in there.items()},
                )
        return found

    def _told(self, kind: str, rival: Rival) -> Rival:
        tried = self._tried[kind, rival.task.name]
        return dataclasses.replace(rival, choice=f"{rival.choice}; best of {tried}")

    def _run(self) -> None:
        share = self.clock.share(SHARE, of_this_call=True)
        own = Clock(None if share is None else share / 60)
        trees = settings.trees_for(len(self.x), len(self.tasks))
        makers: Makers = {
            LINEAR: settings.linear,
            FOREST: functools.partial(settings.forest, trees=trees),
            TREES: settings.boosting,
        }
        firsts = len(KINDS) * len(self.tasks)
        for kind, make in makers.items():
            for task in self.tasks:
                # What the ones before have left is there for those that follow.
                left = own.share(1)
                seconds = None if left is None else max(LEAST_SECONDS, left / firsts)
                firsts -= 1
                self._try(kind, task, make, 0, seconds)
            self._tell(kind, kind)
        before = {kind: side.skill for kind, side in self.sides.items()}
        for number, kind, task in self._further():
            if not own.over and (kind, task.name) in self._best:
                self._try(kind, task, makers[kind], number, own.share(1))
        for kind, side in self.sides.items():
            if side.skill > before[kind]:
                self._tell(kind, f"{kind}, tuned")

    def _further(self) -> Iterator[tuple[int, str, Task]]:
        lists = (settings.RIDGE, settings.LOGISTIC, settings.BOOSTING)
        forests = (settings.FOREST_OF_VALUES, settings.FOREST_OF_CLASSES)
        for number in range(1, max(map(len, (*lists, *forests)))):
            for kind in KINDS:
                for task in self.tasks:
                    yield number, kind, task

    def _try(
        self,
        kind: str,
        task: Task,
        make: Callable[[Table, Task, int, int], Setting | None],
        number: int,
        seconds: float | None,
    ) -> None:
        setting = make(self.table, task, number, self.seed)
        if setting is None:
            return
        start, key = time.monotonic(), (kind, task.name)
        found = self._fitted(task, setting, seconds, whole=number > 0)
        if isinstance(found, str):
            if not number:
                self.missing[key] = found
                self.tell(f"{kind}: {task.name}", f"not fitted: {found}")
            return
        answers = found.answers(self.validation_x)
        skill = self.skills[task.name](answers)
        rival = dataclasses.replace(found, skill=skill)
        self.missing.pop(key, None)
        self._tried[key] = self._tried.get(key, 0) + 1
        if key not in self._best or skill > self._best[key][0].skill:
            self._best[key] = (rival, answers)
        if len(self.tasks) > 1 and time.monotonic() - start > SLOW:
            self.tell(f"{kind}: {task.name}", f"{skill:.4f}")

    def _fitted(
        self, task: Task, setting: Setting, seconds: float | None, whole: bool
    ) -> Rival | str:
        from sklearn.dummy import DummyClassifier

        there = present(task, self.y[task.name])
        x, labels = self.x[there], self.y[task.name][there].reshape(-1)
        if kind_of(task) != "regression":
            labels = labels.astype(np.int64)
            if len(np.unique(labels)) < 2:
                model = DummyClassifier().fit(x, labels)
                return Rival(task, model, "one class in all training rows", -np.inf)
        found = fitted(setting, x, labels, seconds, whole)
        return found if isinstance(found, str) else Rival(task, *found, -np.inf)

    def _tell(self, kind: str, name: str) -> None:
        side = self.sides.get(kind)
        if side is not None:
            self.tell(name, f"{side.skill:.4f}")


def _answers(task: Task, model: Any, x: np.ndarray) -> np.ndarray:
    if kind_of(task) == "regression":
        return np.asarray(model.predict(x), "float64").reshape(-1)
    # Classes that no training row has are not among the model's.
    chances = np.zeros((len(x), task.label_count))
    chances[:, model.classes_.astype(np.int64)] = model.predict_proba(x)
    return chances[:, 1] if kind_of(task) == "binary_classification" else chances
