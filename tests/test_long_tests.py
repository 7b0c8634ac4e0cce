"""The list of what the default run leaves out fits the tests that there are."""

from __future__ import annotations

from pathlib import Path

import long_tests
import pytest

FILES = {path.resolve() for path in Path(__file__).parent.rglob("test_*.py")}


def test_every_pattern_fits_a_test(request: pytest.FixtureRequest) -> None:
    items = request.session.items
    # (A file without tests for this backend or installation has no items.)
    if len({item.path for item in items}) < 0.9 * len(FILES):
        pytest.skip("this run has a part of the tests only")
    tests = [item.nodeid.removeprefix("tests/") for item in items]
    assert long_tests.without_a_test(tests) == []


def test_what_is_left_out() -> None:
    name = "contract/test_contract.py::test_training_a_trunk"
    assert not long_tests.left_out(f"{name}[mlp-hard]", "tensorflow")
    assert long_tests.left_out(f"{name}[cnn-hard]", "tensorflow")
    assert not long_tests.left_out(f"{name}[cnn-mmoe]", "tensorflow")
    assert long_tests.left_out(f"{name}[cnn-mmoe]", "jax")
    name = "test_docstrings.py::test_examples"
    assert long_tests.left_out(f"{name}[kmtl.testing.trunks]", "tensorflow")
    assert not long_tests.left_out(f"{name}[kmtl.tasks.base]", "tensorflow")
    assert long_tests.left_out("training/test_frozen.py::test_any", "jax")
    assert not long_tests.left_out("training/test_frozen.py::test_any", "tensorflow")
