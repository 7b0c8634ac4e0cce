"""What Optuna keeps private. Checked on Optuna 5.0.

Its storages take ids, and the public objects know numbers and names alone.
"""

from __future__ import annotations

from typing import Any


def study_id(frozen: Any) -> int:
    """Id of a study, of one of `storage.get_all_studies()`."""
    return frozen._study_id


def trial_id(frozen: Any) -> int:
    """Id of a trial in its storage, which `trial.number` is not."""
    return frozen._trial_id
