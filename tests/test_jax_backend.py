"""The tests marked `backend`, on JAX; those of weightings are in the file beside."""

from __future__ import annotations

import jax_pass
import pytest

pytestmark = jax_pass.skip_where_impossible


def test_backend_neutral_tests_pass_on_jax(request: pytest.FixtureRequest) -> None:
    jax_pass.run_on_jax(jax_pass.files_with_the_mark(but=jax_pass.FIRST), request)
