"""Recipes for clusters: they parse, and what they start is what the script takes."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.engine import make_url

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "cluster"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("search", FOLDER / "search.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_array_job() -> None:
    text = (FOLDER / "slurm.sh").read_text("utf-8")
    done = subprocess.run(["bash", "-n", FOLDER / "slurm.sh"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.MULTILINE))
    assert options["array"] == "0-7"
    hours, minutes, _ = map(int, options["time"].split(":"))
    [line] = [line for line in text.splitlines() if line.startswith("srun ")]
    _, program, name, *arguments = shlex.split(line)
    assert (program, name) == ("python", "search.py")
    found = script().parser().parse_args(arguments)
    assert (found.storage, found.trials) == ("$KMTL_STORAGE", 200)
    assert 0 < found.minutes < 60 * hours + minutes  # it ends in order


def test_the_manifest() -> None:
    job = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text("utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 8
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["command"] == ["python", "search.py"]
    found = script().parser().parse_args(container["args"])
    names = {variable["name"] for variable in container["env"]}
    assert found.storage == f"$({names.pop()})"
    [mount] = container["volumeMounts"]
    assert str(found.directory) == mount["mountPath"]
    assert [volume["name"] for volume in pod["volumes"]] == [mount["name"]]


@pytest.mark.parametrize("name", ["slurm.sh", "kubernetes.yaml", "search.py"])
def test_addresses_name_the_driver_that_is_installed(name: str) -> None:
    pattern = r"postgresql[^\s)]*"
    for address in re.findall(pattern, (FOLDER / name).read_text("utf-8")):
        assert make_url(address).drivername == "postgresql+psycopg"


@pytest.mark.thorough
def test_two_of_them_work_on_one_search(tmp_path: Path) -> None:
    arguments = [
        f"--storage=sqlite:///{tmp_path}/search.db",
        f"--directory={tmp_path}",
        "--epochs=1",
    ]
    first = script().main([*arguments, "--trials=1"])
    second = script().main([*arguments, "--trials=2"])
    assert list(first.oracle.trials) == ["0"]
    assert [trial.status for trial in second.oracle.trials.values()] == [
        "COMPLETED",
        "COMPLETED",
    ]
