"""The battery for weightings of both kinds."""

from __future__ import annotations

import functools
from typing import Any

from kmtl.testing import gradient_weighting, loss_weighting
from kmtl.testing._running import run
from kmtl.weighting.base import GradientWeighting, Weighting


def check_weighting(make: Any, *, random: bool = False) -> None:
    """Run kmtl's own contract tests on a weighting.

    They hold whatever the formula: finite for any losses or gradients, absent tasks
    left out, state that is saved, reset and not moved by validation or an overflow,
    eager and compiled steps alike, float32 inside. None looks at the values of the
    method itself: test these against its paper.

    Args:
        make: The class; or a function from a list of task names to an object of it.
        random: The rule draws random numbers in training (it must take them from a
            seed of its own); what draws change is then not compared.

    Raises:
        AssertionError: from the first check that fails; its notes say what it checks.
        TypeError: if what is made is no weighting of kmtl.

    Example:

    >>> kmtl.testing.check_weighting(kmtl.weighting.LogLoss)
    """
    factory = (lambda names: make()) if isinstance(make, type) else make
    made = factory(["t0", "t1"])
    if not isinstance(made, Weighting):
        raise TypeError(
            "`make` must give a kmtl.weighting.LossWeighting or GradientWeighting. "
            f"Received: {type(made).__name__}"
        )
    gradient = isinstance(made, GradientWeighting)
    battery: Any = gradient_weighting if gradient else loss_weighting
    checks = []
    for check in battery.CHECKS:
        options = battery.WITHOUT_DRAWS.get(check, {}) if random else {}
        if options is not None:
            bound = functools.partial(check, **options)
            checks.append(functools.update_wrapper(bound, check))
    run(checks, factory)
