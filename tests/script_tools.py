"""Scripts of experiments, each in a process of its own: it chooses its backend."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
EXPERIMENTS = REPOSITORY / "experiments"


def run_script(script: str, *options: object) -> str:
    """What a script of `experiments` prints; an error if it ends with one."""
    done = subprocess.run(
        [sys.executable, str(EXPERIMENTS / script), *map(str, options)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
