"""Gradients of tasks, shortened to a length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from kmtl._checks import check_range
from kmtl.typing import TaskName, Tensor

#: A length for all tasks, or by task; None where gradients stay as they are.
Norms = float | Mapping[TaskName, float | None] | None

# Squares below this are those of no gradient.
_FLOOR = 1e-30


def check_norms(norms: Any) -> Norms:
    """`clip_norm` as Python floats > 0."""

    def checked(argument: str, norm: Any) -> float | None:
        if norm is None:
            return None
        return check_range(argument, norm, 0, low_open=True)

    if isinstance(norms, Mapping):
        return {t: checked(f"clip_norm['{t}']", norm) for t, norm in norms.items()}
    return checked("clip_norm", norms)


def factors_of(
    norms: Norms, names: Sequence[TaskName], squares: Tensor
) -> Tensor | None:
    """(T,) factors <= 1 for gradients of these squared lengths; None without norms."""
    if norms is None:
        return None
    if not isinstance(norms, Mapping):
        norms = dict.fromkeys(names, norms)
    most = [norms.get(name) or float("inf") for name in names]
    lengths = ops.sqrt(ops.maximum(squares, _FLOOR))
    return ops.minimum(ops.convert_to_tensor(most, squares.dtype) / lengths, 1.0)
