"""What schemes in which a task's head reads another task's have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from kmtl import _checks
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.sharing.base import Sharing, resolve
from kmtl.tasks.base import Task
from kmtl.typing import Features, TaskName, Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadChain(Sharing):
    """Tasks that come after other tasks, on top of any other scheme.

    Args:
        after: Dict task name -> name of the task whose head it reads. A task reads at
            most one other; several may read the same one.
        base: Scheme (or its name) that makes the tasks' features. Defaults to
            `"hard"`.
    """

    after: Mapping[str, str]
    base: Sharing | str = "hard"

    def __post_init__(self) -> None:
        after = self.after
        if not isinstance(after, Mapping) or not all(
            isinstance(name, str) for pair in after.items() for name in pair
        ):
            raise TypeError(
                "`after` must be a dict task name -> name of the task before it, such "
                f"as {{'buy': 'click'}}. Received: after={after!r}"
            )
        if not after:
            raise ValueError(
                "`after` must name at least one task. Without a chain use its base "
                "alone. Received: after={}"
            )
        object.__setattr__(self, "after", dict(after))
        for name in after:
            circle = [name]
            while (before := after.get(circle[-1])) is not None:
                if before in circle:
                    circle = [*circle[circle.index(before) :], before]
                    raise ValueError(
                        "`after` must not lead back to a task: "
                        f"{' after '.join(circle)}. Received: after={dict(after)}"
                    )
                circle.append(before)
        resolve(self.base, "base")

    def adding(self, name: TaskName, names: Sequence[TaskName]) -> Sharing:
        """A new task is in no chain."""
        base = self.scheme.adding(name, names)
        return dataclasses.replace(self, base=base, later=(*self.later, name))

    def joined_by(self, later: Sequence[TaskName]) -> Sharing:
        base = self.scheme.joined_by(later)
        return dataclasses.replace(self, base=base, later=tuple(later))

    def without(self, name: TaskName) -> Sharing:
        base = self.scheme.without(name)
        after = {n: b for n, b in self.after.items() if name not in (n, b)}
        if not after:  # nothing is chained any more
            return base
        later = self.later_without(name)
        return dataclasses.replace(self, base=base, after=after, later=later)

    @property
    def scheme(self) -> Sharing:
        """The scheme that makes the tasks' features."""
        return resolve(self.base, "base")

    def ordered(self, tasks: tuple[Task, ...]) -> list[Task]:
        """The tasks with one before them, each after the one that it reads.

        Raises:
            ValueError: for names in `after` that are not tasks.
        """
        known = {task.name: task for task in tasks}
        for name in [name for pair in self.after.items() for name in pair]:
            if name not in known:
                raise ValueError(_checks.unknown_name("task in `after`", name, known))
        done: list[str] = [name for name in known if name not in self.after]
        found = []
        while len(done) < len(known):
            for name in known:
                if name not in done and self.after[name] in done:
                    done.append(name)
                    found.append(known[name])
        return found

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        return self.scheme.connect(backbone, inputs, tasks, make)
