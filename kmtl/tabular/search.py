"""Which nets are trained, in which order, until the time or the trials are spent."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from kmtl.tabular.candidate import Candidate
from kmtl.tabular.clock import Clock
from kmtl.tabular.journal import Journal
from kmtl.tabular.nets import Net, Trainer
from kmtl.tabular.verdicts import ALONE, SHARED
from kmtl.tasks.base import Task

#: When all candidates have been tried, so many of the best are trained on more seeds.
REPEATED = 3
#: So many more.
SEEDS = 4
#: Trained side by side where that can be.
TOGETHER = 2

Trial = tuple[Candidate, int]


class Search:
    """The trained nets of a table.

    Args:
        trainer: Trains them.
        wanted: The candidates, in their order.
        trials: Nets at most; None for as many as there is time for.
        clock: The time.
        journal: Finished nets of earlier calls, and where new ones go; or None.
        tell: Called with each net, or with a name and why there is none.
    """

    def __init__(
        self,
        trainer: Trainer,
        wanted: Sequence[Candidate],
        trials: int | None,
        clock: Clock,
        journal: Journal | None,
        tell: Callable[[Net | tuple[str, str]], None],
    ):
        self.trainer, self.wanted, self.trials = trainer, list(wanted), trials
        self.clock, self.journal, self.tell = clock, journal, tell
        self.nets: list[Net] = []
        #: Name -> why there is no such net.
        self.failures: dict[str, str] = {}
        self.interrupted = False

    def run(self, most: int | None = None) -> None:
        """Train on, until so many trials have ended in all, or the search has.

        Ctrl-C ends it with the nets that there are.

        Raises:
            RuntimeError: where no net could be trained.
        """
        try:
            for wave in filter(None, self._waves()):
                ended = len(self.nets) + len(self.failures)
                limits = [n for n in (most, self.trials) if n is not None]
                left = min(limits) - ended if limits else len(wave)
                if left < 1:
                    break
                wave = wave[:left]
                if self._known(wave):
                    continue
                if ended and self.clock.over:
                    break
                self._train(wave)
        except KeyboardInterrupt:
            if not self.nets:
                raise
            self.interrupted = True
        if not self.nets:
            reasons = "; ".join(f"{k}: {v}" for k, v in self.failures.items())
            raise RuntimeError(f"No net could be trained on this table. {reasons}")

    def missing(self, tasks: Sequence[Task]) -> dict[tuple[str, str], str]:
        """Nets that share, or do not, of which all that were begun failed, and task ->
        why."""
        found: dict[tuple[str, str], str] = {}
        for side, shares in ((SHARED, True), (ALONE, False)):
            failed = [
                self.failures[one.name].partition("\n")[0]
                for one in self.wanted
                if one.shares == shares and one.name in self.failures
            ]
            if failed and all(net.candidate.shares != shares for net in self.nets):
                found |= {(side, task.name): f"failed: {failed[0]}" for task in tasks}
        return found

    def _waves(self) -> Iterator[list[Trial]]:
        """What is trained next: candidates of one structure, then seeds of the best."""
        groups = itertools.groupby(self.wanted, key=lambda one: one.structure)
        for _, group in groups:
            yield [(candidate, 0) for candidate in group if self._is_open(candidate, 0)]
        best = sorted(self.nets, key=lambda net: -net.skill)[:REPEATED]
        for first in range(1, SEEDS + 1, TOGETHER):
            for net in best:
                seeds = range(first, first + TOGETHER)
                yield [
                    (net.candidate, seed)
                    for seed in seeds
                    if self._is_open(net.candidate, seed)
                ]

    def _is_open(self, candidate: Candidate, seed: int) -> bool:
        name = name_of(candidate, seed)
        return name not in self.failures and all(net.name != name for net in self.nets)

    def _known(self, wave: list[Trial]) -> bool:
        """Take finished nets of an earlier call; whether that is all of the wave."""
        for trial in list(wave):
            net = None if self.journal is None else self.journal.net(*trial)
            if net is None:
                continue
            wave.remove(trial)
            if isinstance(net, Net):
                self.nets.append(net)
            else:
                self.failures[name_of(*trial)] = net
        return not wave

    def _train(self, wave: list[Trial]) -> None:
        found = self.trainer.train(wave)
        for (candidate, seed), net in zip(wave, found, strict=False):
            if isinstance(net, str):
                self.failures[name_of(candidate, seed)] = net
                self.tell((name_of(candidate, seed), net))
            else:
                self.nets.append(net)
                self.tell(net)
            if self.journal is not None:
                self.journal.add(candidate, seed, net)


def name_of(candidate: Candidate, seed: int) -> str:
    return f"{candidate.name}, seed {seed}" if seed else candidate.name
