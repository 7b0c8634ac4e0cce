"""The GPU run: its parts, and all of it in small on a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[2]
EXPERIMENT = REPOSITORY / "experiments" / "gpu"


def load(name: str) -> ModuleType:
    """A module of the experiment, under a name of its own."""
    spec = importlib.util.spec_from_file_location(
        f"gpu_{name}", EXPERIMENT / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"gpu_{name}"] = module
    spec.loader.exec_module(module)
    return module


def test_every_wheel_that_is_needed_is_listed() -> None:
    wheels = load("wheels")
    assert wheels.uncovered() == []
    assert wheels.missing() == []
    # They are the versions that kmtl is made for.
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    bounds = {
        wheels.plain(one.name): one.specifier
        for one in map(Requirement, project["project"]["dependencies"])
    }
    listed = wheels.listed()
    for name in ("keras", "keras-tuner", "optuna"):
        assert listed[name] in bounds[name]
    unlisted = set(bounds) - set(wheels.NEEDED) - {"importlib-resources"}
    assert unlisted == {"tensorflow", "tensorflow-datasets", "tensorboard"}


def test_tables() -> None:
    report = load("report")
    step = {"card": "c", "net": "conv", "library": "Keras", "in_a_row": 1.0}
    result: dict[str, Any] = {
        "date": "2026-01-01",
        "machine": {"cards": ["Card, 80 GiB, 1.2"], "versions": {"jax": "0.11"}},
        "outcomes": {"correct": "ended after 3 s"},
        "correct": [
            {
                "card": "c", "kind": "weighting", "name": "pcgrad", "level": "features",
                "way": "float32", "losses": 1e-6, "change": 2e-3, "passed": False,
            },
        ],
        "fast": [
            {"card": "c", "net": "", "library": "", "method": "float32",
             "per_second": 1e12},
            {**step, "method": "plain", "level": "", "milliseconds": 2.0,
             "operations": 1e9, "policy": "float32"},
            {**step, "method": "pcgrad", "level": "features", "milliseconds": 3.0},
        ],
        "search": [
            {"card": "c", "problem": "digits", "size": 4, "trials_per_minute": 100.0},
            {"card": "c", "problem": "digits", "size": 0, "trials_per_call": 8,
             "trials_in_memory": 9, "enough": 4, "largest": 4},
        ],
        "published": [
            {
                "card": "c", "side": "mgda", "phase": "seeds", "rate": rate,
                "level": "features", "epochs": 100,
                "validation": [{"left": score, "right": score}],
                "test": [{"left": score, "right": score}] * 2,
            }
            for rate, score in ((0.1, 0.5), (0.01, 0.9))
        ],
    }  # fmt: skip
    text = report.markdown(result)
    assert "| weighting | float32 | 0 of 1 | 1.0e-06 | 2.0e-03 (pcgrad" in text
    # 1e9 operations in 2 ms are half of 1e12 per second; 3 ms are 1.5 times 2.
    assert "| conv | Keras | plain | 2.000 | 1.000 | 1.00 |  | 50.0% |" in text
    assert "| conv | Keras | pcgrad features | 3.000 | 1.000 | 1.50 |" in text
    assert "kmtl would choose 8 per call" in text
    # The rate that is best on validation images, beside the printed numbers.
    assert "| mgda | features | 0.01 | 100 | 90.00 ± 0.00 | 97.26 |" in text


def in_small(out: Path, *stages: str) -> dict[str, Any]:
    """What a run of these stages leaves behind."""
    pytest.importorskip("jax")
    command = [sys.executable, str(EXPERIMENT / "run.py"), "--fast", "--out", str(out)]
    done = subprocess.run(
        [*command, "--stages", *stages],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    found = json.loads((out / "results.json").read_text("utf-8"))
    assert list(found["outcomes"]) == list(stages)
    assert all(words.startswith("ended") for words in found["outcomes"].values())
    assert "# GPU run" in (out / "RESULTS.md").read_text("utf-8")
    return found


def test_a_stage_in_small(tmp_path: Path) -> None:
    (record,) = in_small(tmp_path, "published")["published"]
    assert len(record["test"]) == 2
    assert set(record["test"][0]) == {"left", "right"}


@pytest.mark.thorough
def test_all_stages_in_small(tmp_path: Path) -> None:
    found = in_small(tmp_path, "correct", "fast", "search", "published")
    assert all(record["passed"] for record in found["correct"])
    kinds = {(record["kind"], record["way"]) for record in found["correct"]}
    assert {("weighting", "float32"), ("sharing", "bfloat16"), ("tests", "")} <= kinds
    steps = {
        (r["net"], r["method"]): r for r in found["fast"] if r["library"] == "Keras"
    }
    assert {("mlp", "plain"), ("mlp", "equal"), ("resnet", "plain")} == set(steps)
    assert all(r["milliseconds"] > 0 and r["peak_bytes"] > 0 for r in steps.values())
    assert [r["size"] for r in found["search"]] == [2, 0]
    assert len(found["published"]) == 1


@pytest.mark.backend
@pytest.mark.thorough
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="populations are JAX's")
def test_a_population_goes_on_after_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENT))
    module = load("stage_published")
    stage = sys.modules["stage"]
    net, data = stage.load("multimnist/net.py"), stage.load("multimnist/data.py")
    parts = data.stand_in(module.FAST.sizes)

    def train(out: Path, seconds: float) -> Any:
        out.mkdir(exist_ok=True)
        job = {"out": str(out), "seconds": seconds, "fast": True, "data": None}
        run = stage.Stage("published", ("side", "phase", "rate"), job)
        made = module.Published(run, module.FAST, net, parts)
        made.run.ends = 1e12 if seconds else 0.0
        if not seconds:  # over, but only after an epoch
            assert not made.train("equal", "seeds", 1e-2)
            assert made.kept.exists()
            return None
        assert made.train_all()
        assert not made.kept.exists()
        return made.record("equal", "seeds", 1e-2)

    whole = train(tmp_path / "whole", 1000)
    train(tmp_path / "parts", 0)
    again = train(tmp_path / "parts", 1000)
    for name in ("validation", "test"):
        for one, two in zip(whole[name], again[name], strict=True):
            np.testing.assert_allclose(list(two.values()), list(one.values()))
