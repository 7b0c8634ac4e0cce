"""On JAX nothing needs TensorFlow: building, training, balancing, searching."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("jax")
REPOSITORY = Path(__file__).resolve().parents[1]
#: Refuses what an environment made for JAX alone does not have.
BLOCKER = textwrap.dedent(
    """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            absent = ("tensorflow", "tensorflow_datasets", "tensorboard")
            if name.partition(".")[0] in absent:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Blocker())
    """
)
SCRIPT = BLOCKER + textwrap.dedent(
    """
    import importlib, pkgutil
    import numpy as np
    import kmtl

    # Modules for TensorFlow say so by their names.
    for module in pkgutil.walk_packages(kmtl.__path__, "kmtl."):
        if not module.name.endswith("_tensorflow"):
            importlib.import_module(module.name)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 4)).astype("float32")
    y = {"size": x[:, 0], "kind": (x[:, 1] > 0).astype("int32")}
    tasks = [kmtl.Regression("size"), kmtl.Classification("kind", classes=2)]
    shape = dict(input_shape=(4,), units=(4,), tasks=tasks)
    model = kmtl.build_mlp(**shape, sharing="mmoe")
    model.compile("adam", weighting="pcgrad")
    model.fit(x, y, batch_size=16, verbose=0, validation_data=(x, y))
    kmtl.evaluate(model, (x, y))

    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp, **shape, space=["learning_rate"], seed=0
    )
    tuner = kmtl.RandomSearch(
        hypermodel, objective="val_loss", max_trials=2, seed=0, population=2,
        directory=sys.argv[1],
    )
    tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    assert [t.status for t in tuner.oracle.trials.values()] == ["COMPLETED"] * 2
    print("ok")
    """
)


def test_trains_and_searches_without_tensorflow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "PYTHONPATH": os.pathsep.join(
                [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
            ),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "ok\n"
