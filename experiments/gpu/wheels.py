"""Which wheels the GPU run carries, whether they are all, and how they are installed.

    python experiments/gpu/wheels.py    # in an environment that has the packages

checks by the packages' own metadata that everything that the stages import is either
in wheels.txt or on the machine (`THERE`).
"""

from __future__ import annotations

import importlib.metadata as metadata
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
#: What the stages import, besides kmtl, and what kmtl imports for them.
NEEDED = (
    "click", "cloudpickle", "jax", "keras", "keras-tuner", "matplotlib", "numpy",
    "optuna", "pandas", "pillow", "psutil", "rich", "scikit-learn", "scipy", "six",
    "threadpoolctl", "wrapt", "hypothesis", "pytest", "pytest-xdist",
)  # fmt: skip
#: What a machine with JAX, CUDA and PyTorch for Python 3.12 has already.
THERE = (
    "absl-py", "certifi", "charset-normalizer", "click", "cloudpickle", "contourpy",
    "cycler", "execnet", "fonttools", "grpcio", "h5py", "hypothesis", "idna",
    "iniconfig", "jax", "jaxlib", "joblib", "kiwisolver", "markdown-it-py",
    "markupsafe", "matplotlib", "mdurl", "ml-dtypes", "narwhals", "numpy",
    "opt-einsum", "packaging", "pandas", "pillow", "pluggy", "protobuf", "psutil",
    "pygments", "pyparsing", "pytest", "pytest-xdist", "python-dateutil", "pyyaml",
    "requests", "rich", "scikit-learn", "scipy", "six", "sortedcontainers",
    "threadpoolctl", "torch", "tqdm", "typing-extensions", "urllib3", "wrapt",
)  # fmt: skip


def plain(name: str) -> str:
    """A package's name as package tools compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def listed() -> dict[str, str]:
    """Name -> version of the wheels to carry."""
    lines = (HERE / "wheels.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {plain(name): version for name, version in pairs}


def required(names: Iterable[str]) -> dict[str, bool]:
    """Everything that these packages need, transitively -> whether it is installed."""
    found: dict[str, bool] = {}
    pending = list(map(plain, names))
    while pending:
        name = pending.pop()
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            found[name] = False
            continue
        found[name] = True
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                pending.append(plain(need.name))
    return found


def uncovered() -> list[str]:
    """What is neither carried nor on the machine."""
    known = {*listed(), *map(plain, THERE)}
    return sorted(name for name in required(NEEDED) if name not in known)


def missing() -> list[str]:
    """What this environment lacks."""
    return sorted(name for name, here in required(NEEDED).items() if not here)


def install(wheels: Path, target: Path) -> None:
    """Unpack the wheels of a folder into another, beside what is installed.

    Raises:
        FileNotFoundError: if the folder has no wheels.
    """
    files = sorted(wheels.glob("*.whl"))
    if not files:
        raise FileNotFoundError(
            f"`--wheels` must be a folder with the wheels of wheels.txt. "
            f"Received: {wheels}"
        )
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    command += ["--no-compile", "--no-cache-dir", "--upgrade", "--target", str(target)]
    subprocess.run([*command, *map(str, files)], check=True)


if __name__ == "__main__":
    for problem in (
        *(f"{name}: neither in wheels.txt nor on the machine" for name in uncovered()),
        *(f"{name}: not installed here" for name in missing()),
    ):
        print(problem)
    print(f"{len(listed())} wheels; {len(uncovered())} are lacking in the list")
    sys.exit(bool(uncovered() or missing()))
