"""The leaderboard: what each side reaches on rows that nobody has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl.data.containers import TaskData
from kmtl.tabular.choosing import Chosen
from kmtl.tabular.nets import Net, Trainer
from kmtl.tabular.rivals import LINEAR, TREES, Rival
from kmtl.tabular.scores import lead, scores, sign
from kmtl.tabular.targets import TargetColumn
from kmtl.tabular.verdicts import ALONE, AVERAGE, SHARED, verdict

if TYPE_CHECKING:
    import pandas

COLUMNS = ("target", "model", "metric", "better", "test", "validation", "choice")

#: Side -> target -> answers.
Answers = dict[str, dict[str, np.ndarray]]


def answers_of_sides(
    trainer: Trainer,
    chosen: Chosen,
    rivals: Mapping[str, Mapping[str, Rival]],
    x: np.ndarray,
) -> Answers:
    """What every side says of some prepared rows."""
    by_net = {net.name: trainer.answers(net, x) for net in chosen.nets}
    found = {AVERAGE: chosen.average(by_net)}
    for side, net in ((SHARED, chosen.shared), (ALONE, chosen.alone)):
        if net is not None:
            found[side] = by_net[net.name]
    for kind in (LINEAR, TREES):
        found[kind] = {name: one.answers(x) for name, one in rivals[kind].items()}
    return found


def rows_of(
    data: TaskData,
    targets: Sequence[TargetColumn],
    chosen: Chosen,
    rivals: Mapping[str, Mapping[str, Rival]],
    on_validation: Answers,
    on_test: Answers,
) -> list[dict[str, Any]]:
    """Rows of the leaderboard: per target all sides, the best on the test first."""
    found = []
    for target in targets:
        task, name = target.task, target.task.name
        rows = []
        for side, answers in on_test.items():
            test = scores(task, data.test.y[name], answers[name])
            validation = scores(
                task, data.validation.y[name], on_validation[side][name]
            )
            rows.append(
                {
                    "target": target.column,
                    "model": "net" if side == ALONE and len(targets) == 1 else side,
                    "metric": lead(task) + (f" ({task.unit})" if task.unit else ""),
                    "better": "higher" if sign(task) > 0 else "lower",
                    "test": test[lead(task)],
                    "validation": validation[lead(task)],
                    "choice": _choice(side, name, chosen, rivals),
                }
            )
        key = sign(task)
        rows.sort(key=lambda row: -key * np.nan_to_num(row["test"], nan=-key * 1e300))
        found += rows
    return found


def verdicts_of(
    data: TaskData, targets: Sequence[TargetColumn], on_test: Answers
) -> dict[str, str]:
    """Column -> what its rows of the leaderboard say."""
    return {
        target.column: verdict(
            target.task,
            data.test.y[target.task.name],
            {side: answers[target.task.name] for side, answers in on_test.items()},
        )
        for target in targets
    }


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(list(rows), columns=list(COLUMNS))


def _choice(
    side: str,
    name: str,
    chosen: Chosen,
    rivals: Mapping[str, Mapping[str, Rival]],
) -> str:
    """How a side was chosen, in words."""
    if side in rivals:
        return rivals[side][name].choice
    if side == AVERAGE:
        parts = [
            net.name + (f" (× {count})" if count > 1 else "")
            for net, count in chosen.members
        ]
        return f"mean of {'; '.join(parts)}"
    net = chosen.shared if side == SHARED else chosen.alone
    count = chosen.counts[0 if side == SHARED else 1]
    assert net is not None
    return f"{net.name}: {net.candidate.why}; best of {count}"


def trial_rows(nets: Sequence[Net], chosen: Chosen) -> list[dict[str, Any]]:
    """One row per trained net."""
    shares = {net.name: count for net, count in chosen.members}
    total = sum(shares.values())
    return [
        {
            "net": net.name,
            "why": net.candidate.why,
            "validation_skill": net.skill,
            "epochs": net.epochs,
            "seconds": round(net.seconds, 1),
            "share": shares.get(net.name, 0) / total,
        }
        for net in nets
    ]
