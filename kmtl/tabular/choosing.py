"""What is averaged, and which nets stand in the leaderboard; by validation rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from kmtl.evaluation.ensemble import greedy_shares
from kmtl.tabular.nets import Net
from kmtl.tabular.rivals import Rivals
from kmtl.tabular.scores import Skill

#: The average begins with so many of the best (of few models with a third of them),
#: and so many more are drawn.
FIRST, DRAWS = 5, 10

Member = Net | Rivals


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
    """What was chosen.

    Args:
        members: Of the average, and how often each counts.
        shared: The best single net in which targets share weights, if there is one.
        alone: The best in which each target has its own, or for one target the best.
        counts: Numbers of nets that these two are the best of.
    """

    members: list[tuple[Member, int]]
    shared: Net | None
    alone: Net | None
    counts: tuple[int, int]

    @property
    def nets(self) -> list[Net]:
        """All nets among them, each once."""
        singles = [net for net in (self.shared, self.alone) if net is not None]
        found = [member for member, _ in self.members if isinstance(member, Net)]
        return found + [net for net in singles if net not in found]

    def average(
        self, answers: Mapping[str, Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Target -> mean of the members' answers, given by member and target."""
        return averaged([answers[n.name] for n, _ in self.members], self.shares)

    @property
    def shares(self) -> list[int]:
        return [count for _, count in self.members]


def choose(
    nets: Sequence[Net], skills: Mapping[str, Skill], others: Sequence[Rivals] = ()
) -> Chosen:
    """The best few models, whose average is the best on the validation rows.

    One average for all targets, by their mean skill: an average per target would fit
    the few validation rows as many times.

    Args:
        nets: The trained nets.
        skills: Target -> how answers are judged.
        others: What may be in the average beside nets.
    """
    pool: list[Member] = [*nets, *others]
    answers = [member.answers for member in pool]

    def score(counts: Sequence[int]) -> float:
        mean = averaged(answers, counts)
        return float(np.mean([skill(mean[name]) for name, skill in skills.items()]))

    counts = greedy_shares(score, len(pool), DRAWS, min(FIRST, len(pool) // 3))
    shared = [net for net in nets if net.candidate.shares]
    alone = [net for net in nets if not net.candidate.shares]
    return Chosen(
        [(one, count) for one, count in zip(pool, counts, strict=True) if count],
        _best(shared),
        _best(alone),
        (len(shared), len(alone)),
    )


def averaged(
    answers: Sequence[Mapping[str, np.ndarray]], counts: Sequence[int]
) -> dict[str, np.ndarray]:
    """Target -> weighted mean of answers."""
    kept = [place for place, count in enumerate(counts) if count]
    weights = [counts[place] for place in kept]
    return {
        name: np.average(
            [answers[place][name] for place in kept], axis=0, weights=weights
        )
        for name in answers[0]
    }


def _best(nets: Sequence[Net]) -> Net | None:
    return max(nets, key=lambda net: net.skill, default=None)
