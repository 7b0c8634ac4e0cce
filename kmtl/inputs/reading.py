"""Many files, read in parallel; what cannot be read is named, all of it together."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

#: So many of the files that cannot be used are named.
MOST_NAMES = 20


def read_files(
    paths: Sequence[Path | None],
    read: Callable[[Path], np.ndarray],
    places: Sequence[str],
) -> tuple[list[np.ndarray | None], list[str]]:
    """What is in the files, and what is wrong with the others.

    Args:
        paths: The files; None where there is none to read.
        read: Reads one; what it raises counts as unreadable.
        places: Where each is named, such as "row 3".

    Returns:
        An array per file, None where there is none; and a line for each wrong file.
    """

    def one(path: Path, place: str) -> tuple[np.ndarray | None, str]:
        if not path.is_file():
            return None, f"{path} ({place}): there is no such file"
        try:
            return read(path), ""
        except Exception as error:  # Pillow's are of many kinds: a bomb, a bad header
            return None, f"{path} ({place}): {error}"

    given = [(i, path) for i, path in enumerate(paths) if path is not None]
    arrays: list[np.ndarray | None] = [None] * len(paths)
    wrong = []
    # Decoding releases Python's lock.
    with ThreadPoolExecutor(max_workers=min(32, 2 * (os.cpu_count() or 1))) as pool:
        found = pool.map(lambda each: one(each[1], places[each[0]]), given)
        for (i, _), (array, line) in zip(given, found, strict=True):
            arrays[i] = array
            wrong += [line] if line else []
    return arrays, wrong


def refuse(wrong: Sequence[str], rule: str) -> None:
    """Raise for files that cannot be used, all of them at once.

    Args:
        wrong: A line for each.
        rule: What must hold, and what to do.

    Raises:
        ValueError: if there is one.
    """
    if not wrong:
        return
    more = len(wrong) - MOST_NAMES
    lines = [*wrong[:MOST_NAMES], *([f"and {more} more"] if more > 0 else [])]
    raise ValueError(
        f"{rule}. Received: {len(wrong)} file{'s' * (len(wrong) > 1)} that cannot be "
        "used\n  " + "\n  ".join(lines)
    )
