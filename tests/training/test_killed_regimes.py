"""Every regime, killed in the middle of an epoch, ends as if nothing had happened.

Which needs the same numbers from the same seeds: of ensembles, which are no runs of one
model, that alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import regime_tools as regimes

import kmtl

pytestmark = pytest.mark.backend


def assert_same(one: tuple, other: tuple) -> None:
    assert one[1].epoch == other[1].epoch == list(range(regimes.EPOCHS))
    for name, values in one[1].history.items():
        np.testing.assert_array_equal(other[1].history[name], values, err_msg=name)
    for a, b in zip(one[0].variables, other[0].variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of every regime whose process got SIGKILL."""
    folder = tmp_path_factory.mktemp("killed")
    paths = [str(Path(kmtl.__file__).parents[1]), str(Path(regimes.__file__).parent)]
    done = subprocess.run(
        [sys.executable, regimes.__file__, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    ends = [line.split() for line in done.stdout.splitlines() if line.strip()]
    wanted = [[name, str(int(signal.SIGKILL))] for name in regimes.REGIMES]
    assert ends == wanted, done.stderr
    return folder


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")
@pytest.mark.parametrize("name", regimes.REGIMES)
def test_killed_and_called_again(name: str, killed: Path, tmp_path: Path) -> None:
    kept = sorted(p.name for p in (killed / name / "checkpoints").glob("epoch-*"))
    assert kept == ["epoch-000001.npz", "epoch-000002.npz"]
    assert_same(regimes.run(name, tmp_path), regimes.run(name, killed))


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("method", kmtl.combining.METHODS)
def test_an_ensemble_has_the_same_numbers_twice(method: str) -> None:
    x, y = regimes.arrays()
    weights = []
    for _ in range(2):
        found = kmtl.ensemble(
            kmtl.build_mlp,
            (x, y),
            tasks=[regimes.KIND, regimes.SIZE],
            members=2,
            method=method,
            epochs=4,
            batch_size=8,
            seed=3,
            input_shape=(4,),
            units=(6,),
            dropout=0.3,
        )
        weights.append([v.numpy() for v in found.model.variables])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
