"""What is averaged, and which nets stand in the leaderboard; by validation rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from kmtl.evaluation.ensemble import greedy_shares
from kmtl.tabular.nets import Net
from kmtl.tabular.rivals import Rivals
from kmtl.tabular.scores import Skill
from kmtl.tabular.verdicts import ALONE, SHARED

#: The average begins with so many of the best (of few models with a third of them),
#: and so many more are drawn.
FIRST, DRAWS = 5, 10
#: A target has shares of its own as far as its labelled validation rows decide: with so
#: many, half of them; and alone where they are better by so many standard errors. (With
#: some twenty rows they are mostly worse than common ones, with a thousand better by a
#: tenth of the error; seen on tables that `experiments/tables` has not.)
ROWS, ERRORS = 200, 2.0

Member = Net | Rivals


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
    """What was chosen.

    Args:
        members: Of the average, with the share of each in every target.
        shared: The best single net in which targets share weights, if there is one.
        alone: The best in which each target has its own, or for one target the best.
        counts: Numbers of nets that these two are the best of.
    """

    members: list[tuple[Member, dict[str, float]]]
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
        found = {}
        for name in self.members[0][1]:
            own = [(one.name, shares[name]) for one, shares in self.members]
            parts = [(answers[one][name], share) for one, share in own if share]
            found[name] = mean_of(*zip(*parts, strict=True))
        return found

    @property
    def unfinished(self) -> dict[str, str]:
        """The one of `shared` and `alone` that had time for less than half of the
        other's epochs -> for how many. It may be worse for that alone."""
        if self.shared is None or self.alone is None:
            return {}
        sides = {SHARED: self.shared, ALONE: self.alone}
        most = max(net.epochs for net in sides.values())
        return {
            side: net.had_time_for
            for side, net in sides.items()
            if net.had_time_for and 2 * net.epochs < most
        }

    @property
    def shares(self) -> dict[str, list[float]]:
        """Target -> share of each member."""
        targets = self.members[0][1]
        return {name: [own[name] for _, own in self.members] for name in targets}


def choose(
    nets: Sequence[Net], skills: Mapping[str, Skill], others: Sequence[Rivals] = ()
) -> Chosen:
    """The best few models, whose average is the best on the validation rows.

    They are chosen for all targets at once, by the mean skill: a choice per target
    would fit the few validation rows as many times. Then each target weighs them, and
    the `others`, anew, as far as its rows decide (`ROWS`, `ERRORS`). What answers for
    some targets only is weighed there alone.

    Args:
        nets: The trained nets.
        skills: Target -> how answers are judged.
        others: What may be in the average beside nets.
    """
    pool: list[Member] = [*nets, *others]

    def shares_of(members: Sequence[Member], targets: Iterable[str]) -> list[float]:
        def score(counts: Sequence[int]) -> float:
            return float(np.mean([skill_of(name, counts) for name in targets]))

        def skill_of(name: str, counts: Sequence[int]) -> float:
            return skills[name](mean_of([m.answers[name] for m in members], counts))

        size = len(members)
        counts = greedy_shares(score, size, DRAWS, min(FIRST, size // 3))
        return [count / sum(counts) for count in counts]

    whole = [member for member in pool if member.answers.keys() >= skills.keys()]
    common = dict.fromkeys(pool, 0.0)
    common |= zip(whole, shares_of(whole, skills), strict=True)
    kept = [member for member in pool if common[member] or member in others]
    shares: dict[Member, dict[str, float]] = {
        member: dict.fromkeys(skills, 0.0) for member in kept
    }
    for name, skill in skills.items():
        rows = int(skill.rows.sum())
        weight = rows / (rows + ROWS) if len(skills) > 1 else 0.0
        able = [member for member in kept if name in member.answers]
        own = shares_of(able, [name])
        both = [
            weight * mine + (1 - weight) * common[member]
            for member, mine in zip(able, own, strict=True)
        ]
        answers = [member.answers[name] for member in able]
        gain = skill.losses(mean_of(answers, both)) - skill.losses(
            mean_of(answers, own)
        )
        if weight and gain.mean() > ERRORS * stats.sem(gain):
            both = own
        for member, share in zip(able, both, strict=True):
            shares[member][name] = share
    shared = [net for net in nets if net.candidate.shares]
    alone = [net for net in nets if not net.candidate.shares]
    return Chosen(
        [(member, own) for member, own in shares.items() if any(own.values())],
        _best(shared),
        _best(alone),
        (len(shared), len(alone)),
    )


def mean_of(answers: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Weighted mean of some models' answers for a target."""
    kept = [place for place, weight in enumerate(weights) if weight]
    return np.average(
        [answers[place] for place in kept],
        axis=0,
        weights=[weights[place] for place in kept],
    )


def _best(nets: Sequence[Net]) -> Net | None:
    return max(nets, key=lambda net: net.skill, default=None)
