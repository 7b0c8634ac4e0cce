"""What to do about a column, in Python or in the words of whoever shows it."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator


@dataclasses.dataclass(frozen=True)
class Spelling:
    """What a column of text stands for.

    Args:
        what: `"dates"`, `"times of day"` or `"numbers"`.
        example: A text of it.
        remedy: Python that makes `wanted` of `{column}`.
        thousands, decimal: The marks in numbers; `thousands` is None where there are
            several or none, or a sign or unit beside the number.
    """

    what: str
    example: str
    remedy: str
    thousands: str | None = None
    decimal: str = "."

    @property
    def wanted(self) -> str:
        """What is to be made of the text."""
        return "minutes" if self.what == "times of day" else self.what

    def parsed(self, name: str) -> str:
        """The remedy for a column of a frame."""
        return self.remedy.format(column=f"frame[{name!r}]")


@dataclasses.dataclass(frozen=True)
class Remedy:
    """What to do about a column: a clause of a message.

    As text it is what to write in Python, unless `told_by` says otherwise: a command,
    whose users have a file and options and no frame, says what to do with these.

    Args:
        kind: What is wrong: `"spelling"` (text that stands for something), `"numbers"`
            (numbers but for some texts), `"own texts"` (another one in most rows),
            `"dates"` (in several formats), `"mixed"` (text and numbers), `"time"` (no
            ISO dates), `"days"` (dates to be predicted), `"name"` (that of another),
            `"categories"` (too many), `"header"` (a first line of numbers).
        column: The column; `""` of a file's header.
        python: What to do in Python.
        target: Whether it is to be predicted.
        spelling: What its text stands for.
    """

    kind: str
    column: str
    python: str
    target: bool = False
    spelling: Spelling | None = None

    def __str__(self) -> str:
        tell = _TELL.get()
        return self.python if tell is None else tell(self)

    @property
    def sentence(self) -> str:
        """The clause as the beginning of a sentence."""
        text = str(self)
        return text[:1].upper() + text[1:]


_TELL: contextvars.ContextVar[Callable[[Remedy], str] | None] = contextvars.ContextVar(
    "kmtl_remedies", default=None
)


@contextlib.contextmanager
def told_by(tell: Callable[[Remedy], str]) -> Iterator[None]:
    """Within it remedies are what `tell` makes of them."""
    token = _TELL.set(tell)
    try:
        yield
    finally:
        _TELL.reset(token)
