"""The time of a search."""

from __future__ import annotations

import time


class Clock:
    """Counts the seconds of a search, those of earlier calls among them.

    Args:
        minutes: How long it may last; None for no end.
        spent: Seconds of earlier calls.
    """

    def __init__(self, minutes: float | None, spent: float = 0.0):
        self.seconds = None if minutes is None else 60.0 * minutes
        self._start, self._before = time.monotonic() - spent, spent

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    @property
    def over(self) -> bool:
        return self.seconds is not None and self.spent >= self.seconds

    def share(self, part: float, of_this_call: bool = False) -> float | None:
        """Seconds of a share of the whole time, as far as there are; None: no end.

        Args:
            part: The share.
            of_this_call: As if there were no earlier calls: for what these have not
                kept.
        """
        if self.seconds is None:
            return None
        spent = self.spent - (self._before if of_this_call else 0.0)
        return max(0.0, min(part * self.seconds, self.seconds - spent))
