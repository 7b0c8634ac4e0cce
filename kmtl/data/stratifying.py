"""Rows, or groups of them, into parts that are alike in several targets at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Of rows that are alike, so many at least are divided one by one.
LEFT = 50
#: Of exchanges at the end, and of rows of a part that take part in each.
EXCHANGES = 300
OFFERED = 1000


def part_sizes(rows: int, fractions: Sequence[float]) -> np.ndarray:
    """Whole sizes of the parts, which sum to `rows`: ends at the nearest row."""
    ends = np.rint(np.cumsum(fractions) * rows).astype(int)
    ends[-1] = rows
    return np.diff(ends, prepend=0)


def memberships(classes: np.ndarray) -> tuple[np.ndarray, int]:
    """Classes of all columns in one numbering, -1 where missing; and their number."""
    numbered = np.full(classes.shape, -1, np.int64)
    total = 0
    for column in range(classes.shape[1]):
        here = classes[:, column]
        values = np.unique(here[here >= 0])
        known = here >= 0
        numbered[known, column] = total + np.searchsorted(values, here[known])
        total += len(values)
    return numbered, total


def wanted(counts: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    """Rows of each class `(classes,)` that each part should have: `(parts, classes)`.

    The fraction of a class, but at least one row, for as many parts as the class has
    rows, the largest part first: what is rare in the data is lacking nowhere.
    """
    shares = np.asarray(fractions, float)
    ideal = shares[:, None] * counts[None, :]
    largest_first = np.argsort(-shares, kind="stable")
    for number in np.flatnonzero(counts * shares.min() < 1):
        held = np.zeros(len(shares))
        held[largest_first[: counts[number]]] = 1
        lifted = np.maximum(ideal[:, number], held)
        lifted[held == 0] = 0
        spare = lifted - held  # what goes beyond the one row gives way
        excess = lifted.sum() - counts[number]
        if excess > 0 and spare.sum() > 0:
            lifted -= spare * min(1.0, excess / spare.sum())
        ideal[:, number] = lifted
    return ideal


def stratified(
    classes: np.ndarray, fractions: Sequence[float], order: np.ndarray
) -> np.ndarray:
    """The part of each row: iterative stratification, with exact sizes.

    The rarest class that still has rows is divided first, each of its rows going to the
    part that lacks most of that class; among such to the part that lacks most of the
    row's other classes, then to the one that lacks most rows. Pairs of rows are then
    exchanged as long as that brings the parts nearer to what is wanted.

    Args:
        classes: Classes `(rows, columns)`, -1 where missing.
        fractions: Sizes of the parts, which sum to 1.
        order: All row numbers, in the order in which rows of a class are taken.

    Returns:
        Part of each row `(rows,)`.

    Reference: Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label
    data", ECML PKDD 2011; Szymański and Kajdanowicz, "A network perspective on
    stratification of multi-label data", LIDTA 2017. Different from these: sizes are
    exact, a class of few rows is wanted at least once by every part, and the exchange.
    """
    rows = len(classes)
    numbered, total = memberships(classes)
    counts = np.bincount(numbered[numbered >= 0], minlength=total)
    lacking = wanted(counts, fractions)
    room = part_sizes(rows, fractions).tolist()
    parts = _bulk(numbered, fractions, order, room)
    done = parts >= 0
    for part in range(len(room)):
        held = numbered[parts == part]
        lacking[part] -= np.bincount(held[held >= 0], minlength=total)
    rank = np.empty(rows, np.int64)
    rank[order] = np.arange(rows)
    members = _members(numbered, total, rank)
    # Classes of as many rows are taken in the order of their first row: not of values.
    first = np.array([rank[rows_of[0]] for rows_of in members], np.int64)
    waiting = numbered[~done]
    left = np.bincount(waiting[waiting >= 0], minlength=total)
    while left.any():
        rarest = left == np.min(left[left > 0])
        number = np.flatnonzero(rarest)[np.argmin(first[rarest])]
        for row in members[number]:
            if parts[row] >= 0:
                continue
            own = numbered[row][numbered[row] >= 0]
            part = _neediest(lacking, number, own, counts, room)
            parts[row] = part
            room[part] -= 1
            lacking[part, own] -= 1
            left[own] -= 1
    bare = order[parts[order] < 0]  # rows without any label
    parts[bare] = np.repeat(np.arange(len(room)), room)
    return _exchanged(parts, numbered, counts, lacking, order)


def _bulk(
    numbered: np.ndarray, fractions: Sequence[float], order: np.ndarray, room: list[int]
) -> np.ndarray:
    """Shares of the rows that are alike in all columns; -1 for the last ones of each.

    The iteration over single rows, which is what takes time, is over these: enough to
    make room for what is rare. Lowers `room` by what it takes.
    """
    shares = np.asarray(fractions, float)
    parts = np.full(len(numbered), -1)
    if not numbered.shape[1]:
        return parts
    _, kinds, counts = np.unique(
        numbered, axis=0, return_inverse=True, return_counts=True
    )
    kinds = kinds.reshape(-1)[order]
    alike = np.split(order[np.argsort(kinds, kind="stable")], np.cumsum(counts)[:-1])
    for rows in alike:
        if len(rows) <= LEFT or (numbered[rows[0]] < 0).all():
            continue
        taken = np.minimum(np.floor(shares * (len(rows) - LEFT)).astype(int), room)
        parts[rows[: taken.sum()]] = np.repeat(np.arange(len(room)), taken)
        room[:] = (np.asarray(room) - taken).tolist()
    return parts


def _members(numbered: np.ndarray, total: int, rank: np.ndarray) -> list[np.ndarray]:
    """Rows of each class, in the order given by their rank."""
    rows, columns = np.nonzero(numbered >= 0)
    classes = numbered[rows, columns]
    by_class = np.lexsort((rank[rows], classes))
    ends = np.cumsum(np.bincount(classes, minlength=total))[:-1]
    return np.split(rows[by_class], ends) if total else []


def _neediest(
    lacking: np.ndarray,
    number: int,
    own: np.ndarray,
    counts: np.ndarray,
    room: Sequence[int],
) -> int:
    """The part, of those with room, to which a row of this class should go."""
    need = lacking[:, number].tolist()
    open_parts = [part for part, free in enumerate(room) if free > 0]
    most = max(need[part] for part in open_parts) - 1e-9
    best = [part for part in open_parts if need[part] >= most]
    if len(best) > 1:
        # As shares of the class: a common class would outweigh all others.
        others = (lacking[best][:, own] / counts[own]).sum(1).tolist()
        scored = zip(others, (room[part] for part in best), best, strict=True)
        best = [max(scored, key=lambda s: (round(s[0], 9), s[1], -s[2]))[2]]
    return best[0]


def _exchanged(
    parts: np.ndarray,
    numbered: np.ndarray,
    counts: np.ndarray,
    lacking: np.ndarray,
    order: np.ndarray,
) -> np.ndarray:
    """Parts after exchanges of two rows that lower the sum of squared errors.

    Errors of a class are divided by its rows. Each of the parts offers some of its
    rows, so that the cost of an exchange does not depend on the number of rows.
    """
    weight = np.append(1 / counts, 0.0)  # the last one stands for a missing label
    short = np.hstack([lacking, np.zeros((len(lacking), 1))])
    several = [(p, q) for p in range(len(short)) for q in range(p)]
    offered = [order[parts[order] == part][:OFFERED] for part in range(len(short))]
    for _ in range(EXCHANGES):
        best, change = None, -1e-9
        for one, other in several:
            gain = weight * (short[other] - short[one])
            given = _extreme(gain, numbered, offered[one])
            taken = _extreme(-gain, numbered, offered[other])
            if given is None or taken is None:
                continue
            a, b = numbered[offered[one][given]], numbered[offered[other][taken]]
            found = gain[b].sum() - gain[a].sum() + weight[np.setxor1d(a, b)].sum()
            if found < change:
                best, change = (one, given, other, taken), found
        if best is None:
            return parts
        one, given, other, taken = best
        rows = offered[one][given], offered[other][taken]
        for row, (source, goal) in zip(rows, ((one, other), (other, one)), strict=True):
            parts[row] = goal
            short[source, numbered[row]] += 1
            short[goal, numbered[row]] -= 1
            short[:, -1] = 0
        offered[one][given], offered[other][taken] = rows[1], rows[0]
    return parts


def _extreme(gain: np.ndarray, numbered: np.ndarray, rows: np.ndarray) -> int | None:
    """Place of the row whose move brings most."""
    return int(np.argmax(gain[numbered[rows]].sum(1))) if len(rows) else None


def grouped(
    classes: np.ndarray,
    groups: np.ndarray,
    fractions: Sequence[float],
    order: np.ndarray,
) -> np.ndarray:
    """The part of each row, rows of a group in one part.

    The largest groups come first, each going to the part that it brings nearest to its
    fractions of all rows and of every class (the sum of squared errors, each divided by
    what is wanted).

    Args:
        classes: Classes `(rows, columns)`, -1 where missing; no column divides by the
            number of rows alone.
        groups: Number of the group of each row, `(rows,)`: 0 to G-1, each present.
        fractions: Sizes of the parts, which sum to 1.
        order: All row numbers; groups of one size are taken in the order of their
            first row in it.

    Returns:
        Part of each row `(rows,)`. Parts are as near to their sizes as groups allow;
        each has a group as long as there are enough.
    """
    numbered, total = memberships(classes)
    count = int(groups.max()) + 1
    held = np.zeros((count, total + 1))
    held[:, total] = np.bincount(groups, minlength=count)
    rows, columns = np.nonzero(numbered >= 0)
    np.add.at(held, (groups[rows], numbered[rows, columns]), 1)
    first = np.empty(count, np.int64)
    first[groups[order][::-1]] = np.arange(len(order))[::-1]
    target = np.asarray(fractions, float)[:, None] * held.sum(0)
    lacking = target.copy()
    parts = np.full(count, -1)
    empty = set(range(len(target)))
    for place, group in enumerate(np.lexsort((first, -held[:, total]))):
        # (lacking - held)^2 - lacking^2, over what is wanted
        change = ((held[group] - 2 * lacking) * held[group] / target).sum(1)
        if empty and count - place <= len(empty):
            change[[part for part in range(len(target)) if part not in empty]] = np.inf
        part = int(np.argmin(change))
        parts[group] = part
        lacking[part] -= held[group]
        empty.discard(part)
    return parts[groups]
