"""What holds for every registered gradient-based method, whatever its formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from gradient_weighting_tools import HAS_FLOAT64, METHODS, RANDOM, make

from kmtl import _registry
from kmtl.testing import gradient_weighting as battery

pytestmark = pytest.mark.backend

CHECKS = [check for check in battery.CHECKS if check is not battery.check_finite]
#: Options with which a random method draws nothing that the comparison sees, and a
#: step with which twenty of them do not make a rounding a hundred times larger.
FIXED = {
    "sdmgrad": {"learning_rate": 0.5},
    "pcgrad": {"shuffle": False},
    "gradvac": {"shuffle": False},
    "graddrop": {"leak": 1.0},
}


def maker(name: str, **options: Any) -> battery.Make:
    if name in RANDOM:
        options.setdefault("seed", 1)
    return lambda names: _registry.get("weighting", name)(**options)


@pytest.mark.parametrize("tasks", [1, 2, 5, 64] if HAS_FLOAT64 else [4, 64])
@pytest.mark.parametrize("name", METHODS)
def test_defined_for_all_gradients_and_losses(name: str, tasks: int) -> None:
    battery.check_finite(maker(name), tasks)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", METHODS)
def test_contract(name: str, check: Callable[..., None]) -> None:
    check(maker(name, **FIXED.get(name, {}) if check in battery.WITHOUT_DRAWS else {}))


@pytest.mark.parametrize("name", METHODS)
def test_eager_and_compiled_agree_without_xla(name: str) -> None:
    if HAS_FLOAT64:  # JAX compiles with XLA alone
        battery.check_compiled(maker(name), xla=False)


def test_state_of_parameters_needs_their_number() -> None:
    with pytest.raises(ValueError, match="number `setup` needs"):
        make("moco", 2, None)
