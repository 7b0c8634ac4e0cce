"""Names of columns as text, whether given so or as they are in the frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class ColumnNames:
    """The names of a frame's columns, and what a checked frame calls them.

    That is their text, `"3"` of a column 3, `"('t', 'y')"` of one of two levels; both
    ways are taken in arguments.

    Args:
        frame: The frame as given; anything without columns has no names.

    Example:

    >>> from kmtl.data.column_names import ColumnNames
    >>> ColumnNames({0: [1, 2], ("t", "y"): [3, 4]}).options(
    ...     targets=[("t", "y")], groups=0, split=(0.7, 0.15, 0.15))
    {'targets': ["('t', 'y')"], 'groups': '0', 'split': (0.7, 0.15, 0.15)}
    """

    def __init__(self, frame: Any) -> None:
        found = frame if isinstance(frame, Mapping) else getattr(frame, "columns", ())
        self._texts = {name: str(name) for name in found}

    def options(self, **given: Any) -> dict[str, Any]:
        """Arguments of `kmtl.data.from_dataframe`, with texts for columns."""
        return {name: self._option(name, value) for name, value in given.items()}

    def _option(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        if name == "tasks":
            if not isinstance(value, Mapping):
                return value
            return {task: self._of_task(columns) for task, columns in value.items()}
        if name == "inputs" and isinstance(value, Mapping):
            return {self._one(key): spec for key, spec in value.items()}
        if name in ("targets", "inputs"):
            return self._several(value)
        return self._one(value)

    def _of_task(self, given: Any) -> Any:
        """The column of a task, or its several ones."""
        own = self._one(given)
        return own if isinstance(own, str) else self._several(given)

    def _several(self, given: Any) -> Any:
        """Texts of columns, of which there may be one alone."""
        own = self._one(given)
        if isinstance(own, str):
            return [own]
        if isinstance(given, Iterable):
            return [self._one(name) for name in given]
        return [str(given)] if isinstance(given, (int, float)) else given

    def _one(self, given: Any) -> Any:
        """A column's text; what is no column as it is."""
        try:
            return self._texts.get(given, given)
        except TypeError:  # a list, or rows of parts
            return given
