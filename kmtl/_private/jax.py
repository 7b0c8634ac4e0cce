"""What JAX keeps private. Checked on JAX 0.10 and 0.11."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

#: The latest version of StableHLO that TensorFlow 2.21 reads.
READ_BY_TENSORFLOW = "1.13.7"


@contextlib.contextmanager
def programs_for_tensorflow() -> Iterator[None]:
    """Within, JAX writes programs that TensorFlow 2.21 can read.

    JAX writes them in the StableHLO of four weeks before its own release, and no
    argument says otherwise; that of JAX 0.11 is newer than this TensorFlow.
    """
    from jax._src.export import _export

    dialect = _export.hlo
    chosen = dialect.get_version_from_compatibility_requirement

    def readable(requirement: object) -> str:
        return min(chosen(requirement), READ_BY_TENSORFLOW, key=_numbers)

    dialect.get_version_from_compatibility_requirement = readable
    try:
        yield
    finally:
        dialect.get_version_from_compatibility_requirement = chosen


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
