"""The leaderboard: what each side reaches on rows that nobody has seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl.data.containers import TaskData
from kmtl.tabular.choosing import Chosen
from kmtl.tabular.nets import Trainer
from kmtl.tabular.rival_models import can_be_modelled
from kmtl.tabular.rivals import Rivals
from kmtl.tabular.scores import constant, kind_of, lead, scores, sign
from kmtl.tabular.search import Search
from kmtl.tabular.targets import TargetColumn
from kmtl.tabular.verdicts import ALONE, AVERAGE, CONSTANT, SHARED, verdict

if TYPE_CHECKING:
    import pandas

COLUMNS = ("target", "model", "metric", "better", "test", "validation", "choice")

#: Side and target -> why there is no such model.
Missing = Mapping[tuple[str, str], str]
#: Side -> target -> answers.
Answers = dict[str, dict[str, np.ndarray]]


def answers_of_sides(
    trainer: Trainer,
    chosen: Chosen,
    rivals: Mapping[str, Rivals],
    x: np.ndarray,
) -> Answers:
    """What every side says of some prepared rows."""
    others = {
        kind: {name: one.answers(x) for name, one in side.by_target.items()}
        for kind, side in rivals.items()
    }
    by_net = {net.name: trainer.answers(net, x) for net in chosen.nets}
    found = {AVERAGE: chosen.average({**by_net, **others})}
    for side, net in ((SHARED, chosen.shared), (ALONE, chosen.alone)):
        if net is not None:
            found[side] = by_net[net.name]
    found |= others
    train = trainer.data.train.y
    found[CONSTANT] = {
        task.name: constant(task, train[task.name], len(x))
        for task in trainer.data.tasks
    }
    return found


def rows_of(
    data: TaskData,
    targets: Sequence[TargetColumn],
    chosen: Chosen,
    rivals: Mapping[str, Rivals],
    on_validation: Answers,
    on_test: Answers,
    missing: Missing,
) -> list[dict[str, Any]]:
    """Rows of the leaderboard: per target all sides, the best on the test first, and
    last those that were not fitted."""
    found = []
    for target in targets:
        task, name = target.task, target.task.name
        rows: list[dict[str, Any]] = []
        line: dict[str, Any] = {
            "target": target.column,
            "metric": lead(task) + (f" ({task.unit})" if task.unit else ""),
            "better": "higher" if sign(task) > 0 else "lower",
        }
        for side, answers in on_test.items():
            if name not in answers:
                continue
            test = scores(task, data.test.y[name], answers[name])
            validation = scores(
                task, data.validation.y[name], on_validation[side][name]
            )
            rows.append(
                {
                    **line,
                    "model": "net" if side == ALONE and len(targets) == 1 else side,
                    "test": test[lead(task)],
                    "validation": validation[lead(task)],
                    "choice": _same(target, answers[name])
                    if side == CONSTANT
                    else _choice(side, name, chosen, rivals),
                }
            )
        key = sign(task)
        rows.sort(key=lambda row: -key * np.nan_to_num(row["test"], nan=-key * 1e300))
        nothing = {"test": math.nan, "validation": math.nan}
        for side, why in _missing_of(name, missing).items():
            choice = f"not fitted: {why}"
            rows.append({**line, **nothing, "model": side, "choice": choice})
        found += rows
    return found


def verdicts_of(
    data: TaskData,
    targets: Sequence[TargetColumn],
    on_test: Answers,
    missing: Missing,
    blocks: np.ndarray | None,
    unfinished: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Column -> what its rows of the leaderboard say."""
    found = {}
    for target in targets:
        name = target.task.name
        own = {
            side: answers[name] for side, answers in on_test.items() if name in answers
        }
        found[target.column] = verdict(
            target.task,
            data.test.y[name],
            own,
            _missing_of(name, missing),
            blocks,
            unfinished,
        )
    return found


def _same(target: TargetColumn, answers: np.ndarray) -> str:
    """What the constant answer is, in words."""
    kind, found = kind_of(target.task), target.named(answers[:1])[0]
    if kind == "regression":
        return f"mean of the training labels, {found:.4g}"
    which = "median" if kind == "ordinal" else "most frequent"
    return f"{which} class of the training labels, {found}"


def _missing_of(target: str, missing: Missing) -> dict[str, str]:
    return {side: why for (side, name), why in missing.items() if name == target}


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(list(rows), columns=list(COLUMNS))


def _choice(
    side: str,
    name: str,
    chosen: Chosen,
    rivals: Mapping[str, Rivals],
) -> str:
    """How a side was chosen, in words."""
    if side in rivals:
        rival = rivals[side].by_target[name]
        if can_be_modelled(side, rival.task):
            return rival.choice
        return f"{rival.choice}; cannot be in the average"
    if side == AVERAGE:
        own = {member.name: shares[name] for member, shares in chosen.members}
        parts = [
            f"{100 * share:.0f} % {member}"
            for member, share in sorted(own.items(), key=lambda pair: -pair[1])
            if share
        ]
        return f"mean of {', '.join(parts)}"
    net = chosen.shared if side == SHARED else chosen.alone
    count = chosen.counts[0 if side == SHARED else 1]
    assert net is not None
    had = f"; {net.had_time_for}, as time was short" if net.had_time_for else ""
    return f"{net.name}: {net.candidate.why}{had}; best of {count}"


def trial_rows(
    search: Search,
    chosen: Chosen,
    others: Sequence[Rivals],
    left_out: Mapping[str, str],
) -> list[dict[str, Any]]:
    """One row per trained net, then for nets that failed and that do not apply, and
    for each other side.

    Args:
        search: Has the nets.
        chosen: Has the shares.
        others: The other sides.
        left_out: Name of a candidate -> why it is not tried.
    """
    nets = search.nets
    gone = {name: f"failed: {why}" for name, why in search.failures.items()}
    gone |= {name: f"left out: {why}" for name, why in left_out.items()}
    shares = {
        member.name: float(np.mean(list(own.values())))
        for member, own in chosen.members
    }
    rows = [
        {
            "model": net.name,
            "why": net.candidate.why,
            "validation_skill": net.skill,
            "epochs": net.epochs,
            "seconds": round(net.seconds, 1),
            "share": shares.get(net.name, 0.0),
        }
        for net in nets
    ]
    for name, why in gone.items():
        rows.append(
            {
                "model": name,
                "why": why.partition("\n")[0],
                "validation_skill": math.nan,
                "epochs": 0,
                "seconds": math.nan,
                "share": 0.0,
            }
        )
    for side in others:
        rows.append(
            {
                "model": side.name,
                "why": "no net: one per target, by scikit-learn",
                "validation_skill": side.skill,
                "epochs": 0,
                "seconds": math.nan,
                "share": shares.get(side.name, 0.0),
            }
        )
    return rows
