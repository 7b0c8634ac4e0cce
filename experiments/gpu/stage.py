"""What every stage has: its job, its records on the disk, and the time it may take."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from kmtl._files import Records

HERE = Path(__file__).resolve().parent
#: Compiles in half the time what runs for an instant.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def load(path: str) -> ModuleType:
    """A module of another experiment, under a name of its own."""
    name = path.replace("/", "_").removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, HERE.parent / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Stage:
    """A stage, in a process of its own.

    Each thing measured is one record, a line of `NAME.jsonl`; what is there of the same
    card is not measured again, so that a second run goes on where the first stopped.

    Args:
        name: Of the file.
        key: Names of the values that tell a record from the others of a card.
        job: What `run.py` wrote: `out`, `seconds`, `fast`, `data`. None: the program's
            only argument.
    """

    def __init__(self, name: str, key: tuple[str, ...], job: dict | None = None):
        import jax

        job = json.loads(sys.argv[1]) if job is None else job
        self.job = job
        self.fast: bool = job["fast"]
        self.out = Path(job["out"])
        self.data = Path(job["data"]) if job["data"] else None
        self.ends = time.monotonic() + job["seconds"]
        self.card = jax.devices()[0].device_kind
        self.on_gpu = jax.default_backend() == "gpu"
        kind = type("StageRecords", (Records,), {"KEY": ("card", *key)})
        self.records: Records = kind(self.out / f"{name}.jsonl")
        self.key = key

    @property
    def left(self) -> float:
        """Seconds until the stage has to end."""
        return self.ends - time.monotonic()

    def has(self, **key: Any) -> bool:
        return (self.card, *(key[name] for name in self.key)) in self.records.found

    def add(self, **record: Any) -> None:
        """Write a record, and say so."""
        self.records.add({"card": self.card, **record})
        print(json.dumps(record), flush=True)


def environment(fast: bool) -> dict[str, str]:
    """Variables for a stage's process: JAX, memory as it is needed, where things are.

    The nets are those of the benchmarks.
    """
    own = [str(HERE.parents[1]), str(HERE.parent / "benchmarks")]
    return {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": os.pathsep.join([*own, os.environ.get("PYTHONPATH", "")]),
        # PyTorch takes its turns on the same card.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **({"JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK} if fast else {}),
    }
