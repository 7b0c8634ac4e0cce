"""Which rows of several data sets make up the batches of an epoch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from kmtl import _checks
from kmtl.typing import Config

ENDS = ("longest", "shortest")
BY_LOSS = "loss"
#: What `alternate` may be: sets take turns by batches (True), or by epochs.
TURNS = (False, True, "epoch")


@dataclasses.dataclass(frozen=True)
class RowPlan:
    """The order in which rows of several sets, one after another, are trained on.

    Every set is read in passes: an order of all its rows, then another one. Epoch e
    goes on where epoch e - 1 ended, so that rows of a set are seen equally often, also
    where an epoch holds a part of them or some of them twice. All of it comes from the
    seeds and the epoch's number: nothing is remembered.

    Args:
        names: Of the sets.
        rows: Number of rows of each.
        shares: Share of each set in an epoch, > 0; they sum to 1.
        steps: End of an epoch: `"longest"`, `"shortest"`, or a number of batches.
        alternate: Batches hold rows of one set, and are shared out; `"epoch"`: epochs
            do, and are; False: rows are.
        seed: Integer >= 0.

    Example:

    >>> from kmtl.data.plans import RowPlan
    >>> plan = RowPlan(("a", "b"), (4, 2), (0.5, 0.5))
    >>> plan.counts(32), len(plan.order(0, 0, 32))
    ((4, 4), 8)
    """

    names: tuple[str, ...]
    rows: tuple[int, ...]
    shares: tuple[float, ...]
    steps: str | int = "longest"
    alternate: bool | str = False
    seed: int = 0

    #: Epochs depend on the losses of those before.
    by_loss: ClassVar[bool] = False

    def counts(self, batch_size: int) -> tuple[int, ...]:
        """Rows of each set in an epoch; where epochs are shared out, in one of its own.

        Raises:
            ValueError: for so few steps that a set has none of them.
        """
        unit = batch_size if self.alternate else 1
        given = [math.ceil(rows / unit) for rows in self.rows]
        if isinstance(self.steps, str):
            choose = max if self.steps == "longest" else min
            if self.alternate == "epoch":
                return (choose(given) * unit,) * len(given)
            # By rows: few of them are much less than a batch. Of sets that last equally
            # long, as "proportional" ones do, the largest is rounded least.
            lasts = np.round(np.divide(self.rows, self.shares), 6)
            ends = np.flatnonzero(lasts == choose(lasts))
            end = max(ends, key=self.rows.__getitem__)
            total = given[end] / self.shares[end]
            found = [max(1, round(share * total)) for share in self.shares]
        elif self.alternate == "epoch":
            return (self.steps * unit,) * len(given)
        else:
            units = self.steps * (1 if self.alternate else batch_size)
            found = _apportioned(units, self.shares)
        if not all(found):
            name = self.names[found.index(0)]
            raise ValueError(
                "`steps` must be so many that every set has a part in them: take more, "
                f"or give '{name}' a larger share. Received: steps={self.steps} with "
                f"batch_size={batch_size}"
            )
        return tuple(count * unit for count in found)

    def length(self, batch_size: int) -> int:
        """Rows of an epoch, of all sets."""
        counts = self.counts(batch_size)
        return counts[0] if self.alternate == "epoch" else sum(counts)

    def counts_in(self, epoch: int, batch_size: int) -> np.ndarray:
        """Rows of each set in an epoch, where all sets have a part in it."""
        return np.asarray(self.counts(batch_size))

    def shares_in(self, epoch: int) -> np.ndarray:
        """Share of each set in an epoch."""
        return np.asarray(self.shares)

    def seen(self, epochs: int, batch_size: int) -> np.ndarray:
        """Rows of each set in the first so many epochs."""
        counts = np.asarray(self.counts(batch_size))
        if self.alternate != "epoch":
            return epochs * counts
        return counts * np.bincount(self.turns(epochs), minlength=len(counts))

    def after(self, logs: Mapping[str, Any]) -> RowPlan:
        """The plan when one more epoch has ended, with these logs."""
        return self

    def turns(self, epochs: int) -> np.ndarray:
        """The set of each epoch, where epochs are shared out: evenly, by the shares."""
        due = np.zeros(len(self.shares))
        found = np.empty(epochs, np.int64)
        for epoch in range(epochs):
            due += self.shares_in(epoch)
            found[epoch] = np.argmax(due)
            due[found[epoch]] -= 1
        return found

    def sets(self, batch_size: int, epoch: int = 0) -> np.ndarray:
        """The set of each row of an epoch, `(length,)`: spread as evenly as can be."""
        unit = batch_size if self.alternate else 1
        counts = [count // unit for count in self.counts_in(epoch, batch_size)]
        # The k-th of n is at (k + 1/2) / n of the epoch; equals in the sets' order.
        places = np.concatenate([(np.arange(n) + 0.5) / n for n in counts])
        owners = np.repeat(np.arange(len(counts)), counts)
        return np.repeat(owners[np.argsort(places, kind="stable")], unit)

    def order(self, seed: int, epoch: int, batch_size: int) -> np.ndarray:
        """Row numbers of an epoch, in its order; of all sets one after another.

        Args:
            seed: Integer >= 0, of this training.
            epoch: Number of the epoch, from 0.
            batch_size: Rows per batch; of these, every `batch_size` are one.
        """
        if self.alternate == "epoch":
            return self._turn(seed, epoch, self.length(batch_size))
        owners = self.sets(batch_size, epoch)
        order = np.empty(len(owners), np.int64)
        first = np.cumsum([0, *self.rows])
        counts, before = self.counts_in(epoch, batch_size), self.seen(epoch, batch_size)
        for place, (count, start) in enumerate(zip(counts, before, strict=True)):
            rows = self._passes(place, seed, int(start), int(count))
            order[owners == place] = first[place] + rows
        return order

    def _turn(self, seed: int, epoch: int, count: int) -> np.ndarray:
        """Row numbers of an epoch that is one set's alone."""
        *before, place = self.turns(epoch + 1)
        start = count * before.count(place)
        first = sum(self.rows[:place])
        return first + self._passes(place, seed, start, count)

    def _passes(self, place: int, seed: int, start: int, count: int) -> np.ndarray:
        """Rows of a set, from the `start`-th that is drawn of it on."""
        rows = self.rows[place]
        parts = []
        for number in range(start // rows, (start + count - 1) // rows + 1):
            entropy = (self.seed, seed, place, number)
            whole = np.random.default_rng(entropy).permutation(rows)
            begin = max(0, start - number * rows)
            parts.append(whole[begin : start + count - number * rows])
        return np.concatenate(parts)

    def describe(self) -> Config:
        """JSON-ready, for records of runs and searches."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.compare
        }


@dataclasses.dataclass(frozen=True)
class LossPlan(RowPlan):
    """More of the sets whose losses have fallen least.

    The share of a set in an epoch is in proportion to the loss of its tasks in the last
    epoch over that in the first (their mean, where it has several). In the first two
    epochs, and as long as a set has no loss yet, shares are equal. After Jean et al.
    2019, arXiv:1909.06434, with losses in the place of scores.

    Args:
        losses: Of each epoch that has ended, the mean loss of each set; NaN where none
            of its rows was drawn.
    """

    losses: tuple[tuple[float, ...], ...] = dataclasses.field(default=(), compare=False)

    by_loss: ClassVar[bool] = True

    def describe(self) -> Config:
        return {**super().describe(), "sampling": BY_LOSS}

    def shares_in(self, epoch: int) -> np.ndarray:
        if epoch > len(self.losses):
            raise ValueError(
                f"sampling='loss' needs the losses of the epochs before epoch {epoch}: "
                "begin at epoch 0, or take kmtl.training.fit_run, which keeps them. "
                f"Received: those of {len(self.losses)} epochs"
            )
        ratios = []
        for own in np.reshape(self.losses[:epoch], (epoch, len(self.names))).T:
            known = own[np.isfinite(own)]
            ratios.append(
                known[-1] / known[0] if len(known) and known[0] > 0 else np.nan
            )
        found = np.asarray(ratios)
        if np.isnan(found).any() or not found.sum():
            return np.asarray(self.shares)
        return found / found.sum()

    def counts_in(self, epoch: int, batch_size: int) -> np.ndarray:
        if self.alternate == "epoch":
            return np.asarray(self.counts(batch_size))
        unit = batch_size if self.alternate else 1
        total = sum(self.counts(batch_size)) // unit
        # One unit at least: of a set that is not seen nothing more would be known.
        rest = _apportioned(total - len(self.names), self.shares_in(epoch).tolist())
        return unit * (1 + np.asarray(rest))

    def seen(self, epochs: int, batch_size: int) -> np.ndarray:
        if self.alternate == "epoch":
            return super().seen(epochs, batch_size)
        counts = [self.counts_in(epoch, batch_size) for epoch in range(epochs)]
        return np.sum([np.zeros(len(self.names), np.int64), *counts], axis=0)

    def after(self, logs: Mapping[str, Any]) -> LossPlan:
        found = []
        for name in self.names:
            own = [float(logs.get(f"{task}_loss", np.nan)) for task in name.split("+")]
            found.append(float(np.mean(own)))
        return dataclasses.replace(self, losses=(*self.losses, tuple(found)))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _apportioned(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to shares, summing to `total`: largest remainders."""
    exact = np.asarray(shares) * total
    # A share of 1/3 of 6 may come out below 2.
    found = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(-(exact - found), kind="stable")
    found[order[: total - found.sum()]] += 1
    return [int(count) for count in found]


def check_steps(steps: Any) -> str | int:
    """`"longest"`, `"shortest"`, or a number of batches."""
    if isinstance(steps, str):
        return _checks.check_choice("steps", steps, ENDS)
    return _checks.check_int("steps", steps, 1)


def shares_of(
    sampling: Any, names: Sequence[str], rows: Sequence[int], temperature: float
) -> tuple[float, ...]:
    """The share of each set, in their order.

    Args:
        sampling: `"proportional"`, `"temperature"`, `"equal"`, `"loss"` (equal at
            first), or a dict name of a set -> number > 0.
        names: Of the sets.
        rows: Rows of each.
        temperature: >= 1; shares are in proportion to rows ** (1 / temperature).
    """
    if isinstance(sampling, str):
        rule = _checks.check_choice(
            "sampling", sampling, ("proportional", "temperature", "equal", BY_LOSS)
        )
        power = {"proportional": 1.0, "equal": 0.0, BY_LOSS: 0.0}.get(rule)
        if power is None:
            power = 1 / _checks.check_range("temperature", temperature, 1, math.inf)
        given = [float(count) ** power for count in rows]
    else:
        found = _checks.check_task_keys("sampling", sampling, names)
        given = [
            _checks.check_range(
                f"sampling['{name}']", found[name], 0, 1e30, low_open=True
            )
            for name in names
        ]
    return tuple(share / sum(given) for share in given)


def with_steps(plan: RowPlan | None, rows: int, steps: int) -> RowPlan:
    """A plan, or that of one set of so many rows, with epochs of so many batches."""
    plan = plan or RowPlan(("data",), (rows,), (1.0,))
    return dataclasses.replace(plan, steps=steps)
