"""The tests marked `backend`, on JAX; those of weightings are in the file beside."""

from __future__ import annotations

import jax_pass
import pytest

pytestmark = jax_pass.skip_where_impossible


def test_backend_neutral_tests_pass_on_jax(request: pytest.FixtureRequest) -> None:
    others = [f"--ignore={path}" for path in jax_pass.FIRST]
    jax_pass.run_on_jax(["tests", *others], request)
