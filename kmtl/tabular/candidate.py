"""The nets that are tried on a table, in their order."""

from __future__ import annotations

import dataclasses
from typing import Any

from kmtl.backbones import Ensemble, TabularMLP
from kmtl.inputs.table import Table
from kmtl.sharing import HardSharing, MMoE, Sharing

#: Cross-stitch nets have a column of blocks per target, and mix all pairs of them.
MOST_STITCHED = 6
#: Embedded numbers are so wide that more columns make the first layer the whole net.
MOST_EMBEDDED = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to build and train a net for all targets.

    Args:
        name: What it is called in tables.
        why: What it is for, in words.
        shares: Whether the targets have weights in common.
        sharing: How.
        units: Width of the blocks.
        numerical: How numbers are embedded; see `kmtl.backbones.TabularMLP`.
        dropout: Rate after each block.
        members: Nets in one that share most weights (`kmtl.backbones.Ensemble`); 1
            for a plain net.
        weighting: How the targets' losses are balanced; None for their plain sum.
        weight_decay: Of the optimizer; None for the recipe's.
    """

    name: str
    why: str
    shares: bool = True
    sharing: Sharing | str = "hard"
    units: tuple[int, ...] = (256, 256)
    numerical: str | None = "both"
    dropout: float = 0.1
    members: int = 1
    weighting: str | None = None
    weight_decay: float | None = None

    @property
    def structure(self) -> Candidate:
        """Equal for candidates that train as one program: all but the dropout."""
        return dataclasses.replace(self, name="", why="", dropout=0.1)

    @property
    def has_free_dropout(self) -> bool:
        """Whether the rate of dropout is one of the model's variables."""
        return self.members == 1

    def backbone(self) -> Any:
        trunk = TabularMLP(
            units=self.units, numerical=self.numerical, dropout=self.dropout
        )
        if self.members == 1:
            return trunk
        return Ensemble(backbone=trunk, members=self.members)


def candidates(table: Table, targets: int) -> list[Candidate]:
    """What is tried, in this order; each structure with little and much dropout.

    First kmtl's defaults, then a net per target of the same kind (with many targets
    later, because that takes long), then other ways to regularise, to read numbers, to
    balance and to share. What does not apply is left out: sharing with one target,
    cross-stitch with many.

    Args:
        table: The inputs, fitted.
        targets: Number of targets.
    """
    several = targets > 1
    wide = len(table.numeric) > MOST_EMBEDDED
    embedded = None if wide or not table.numeric else "both"
    base = Candidate(
        name="shared" if several else "net",
        why="the defaults: all blocks shared" if several else "the defaults",
        shares=several,
        numerical=embedded,
    )
    change = dataclasses.replace
    alone = change(
        base,
        name="alone",
        why="a net per target, nothing shared",
        shares=False,
        sharing="independent",
    )
    members = change(
        base,
        name="members",
        why="eight nets in one that share most weights, each with its own loss",
        members=8,
        units=(128, 128),
    )
    small = change(
        base,
        name="small",
        why="narrow, with strong weight decay",
        units=(64, 64),
        weight_decay=0.1,
    )
    cheap = [members, *_two_rates(small)]
    if embedded is not None:
        plain = change(base, name="plain", why="numbers not embedded", numerical=None)
        cheap += _two_rates(plain)
        cheap.append(
            change(
                members,
                name="members, plain",
                why="eight nets in one, numbers not embedded",
                numerical=None,
                units=(256, 256),
            )
        )
    many = targets > MOST_STITCHED
    found = _two_rates(base)
    if several and not many:
        found.append(alone)
    found += cheap
    if several:
        found += _shared_otherwise(base)
    if many:
        # As many nets as there are targets take their time.
        found.append(alone)
    elif several:
        found.append(_two_rates(alone)[1])
        if embedded is not None:
            plain = change(alone, name="alone, plain", numerical=None)
            found += _two_rates(
                change(plain, why="a net per target, numbers not embedded")
            )
        found.append(
            change(
                base,
                name="cross-stitch",
                why="a column per target, mixed after each block",
                sharing="cross_stitch",
                units=(128, 128),
            )
        )
    found.append(
        change(base, name="deep", why="three blocks", units=(256, 256, 256)),
    )
    return found


def left_out(table: Table, targets: int) -> dict[str, str]:
    """What `candidates` leaves out because of a table's size -> why."""
    found = {}
    if targets > MOST_STITCHED:
        why = f"it mixes all pairs of more than {MOST_STITCHED} targets"
        found["cross-stitch"] = why
    if len(table.numeric) > MOST_EMBEDDED:
        why = f"of more than {MOST_EMBEDDED} columns they are too wide"
        found["embedded numbers"] = why
    return found


def _shared_otherwise(base: Candidate) -> list[Candidate]:
    change = dataclasses.replace
    return [
        change(
            base,
            name="balanced",
            why="losses weighed by learned uncertainty",
            weighting="uncertainty",
        ),
        change(
            base,
            name="split",
            why="the last block is each target's own",
            sharing=HardSharing(depth=1),
        ),
        change(
            base,
            name="experts",
            why="four experts, mixed by each target (MMoE)",
            sharing=MMoE(experts=4),
            units=(128, 128),
        ),
    ]


def _two_rates(candidate: Candidate) -> list[Candidate]:
    return [
        candidate,
        dataclasses.replace(
            candidate,
            name=f"{candidate.name}, dropout",
            why=f"{candidate.why}; dropout 0.3",
            dropout=0.3,
        ),
    ]
