"""The tests of weightings, tasks and sharing marked `backend`, on JAX."""

from __future__ import annotations

import jax_pass
import pytest

pytestmark = jax_pass.skip_where_impossible


def test_weightings_pass_on_jax(request: pytest.FixtureRequest) -> None:
    jax_pass.run_on_jax(jax_pass.FIRST, request)
