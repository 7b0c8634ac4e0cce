"""A search on a real PostgreSQL server, where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from search_tools import Planted, make_tuner, outcome, run

pytestmark = pytest.mark.usefixtures("quick")


def as_server(command: list[Any], owner: str | None) -> None:
    """Run a program of the server: it refuses to be root."""
    subprocess.run(
        [str(part) for part in command],
        check=True,
        stdout=subprocess.DEVNULL,  # it would hold a pipe open
        stderr=subprocess.DEVNULL,
        user=owner,
        cwd="/",
    )


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a server of its own, which nobody else can reach."""
    found = shutil.which("postgres")
    if found is None:
        pytest.skip("PostgreSQL is not installed: no `postgres` on the path")
    pytest.importorskip("psycopg", reason="PostgreSQL's driver psycopg is missing")
    programs = Path(found).resolve().parent
    owner = None
    if os.geteuid() == 0:
        owner = "postgres"
        try:
            pwd.getpwnam(owner)
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and has no user of its own")
    folder = Path(tempfile.mkdtemp(prefix="kmtl-pg-"))  # a socket's path must be short
    try:
        if owner:
            shutil.chown(folder, owner)
        settings = f"-c listen_addresses='' -c unix_socket_directories={folder}"
        data = folder / "data"
        as_server([programs / "initdb", "-D", data, "-U", "kmtl", "-N"], owner)
        start = [programs / "pg_ctl", "-D", data, "-o", settings, "-w", "start"]
        as_server([*start, "-l", folder / "log"], owner)
        try:
            yield f"postgresql+psycopg://kmtl@/postgres?host={folder}"
        finally:
            as_server([programs / "pg_ctl", "-D", data, "-m", "fast", "stop"], owner)
    finally:
        shutil.rmtree(folder)


def test_machines_share_a_search(server: str, tmp_path: Path) -> None:
    """Folders of their own, as on two machines; one of them dies."""
    options = {"storage": server, "max_trials": 3}
    one = make_tuner(tmp_path / "one", **options)
    two = make_tuner(tmp_path / "two", **options)
    assert one.oracle.create_trial("tuner0").trial_id == "0"
    assert two.oracle.create_trial("tuner0").trial_id == "1"
    assert two.oracle.report("1", 0, {"val_kind_accuracy": 0.5, "val_size_mae": 0.5})
    one.oracle.owner.end(finished=False)
    two.oracle.give_back("1")
    # Found in its own folder; from the other one it would be missed after a while.
    run(make_tuner(tmp_path / "one", **options))
    whole = run(make_tuner(tmp_path / "whole", max_trials=3))
    for folder in ("one", "two"):
        assert outcome(make_tuner(tmp_path / folder, **options)) == outcome(whole)
    two.oracle.close()


def test_failures_and_pruned_trials_are_kept(server: str, tmp_path: Path) -> None:
    def score(a: float, b: float, epoch: int) -> float:
        if len(builder.fits) == 3:
            raise ValueError("too large")
        return 1 - 0.1 * len(builder.fits)  # each is worse than the one before

    builder = Planted(score)
    options = {"storage": server, "max_trials": 4, "project_name": "other"}
    tuner = make_tuner(tmp_path, builder, pruner="asha", **options)
    run(tuner, epochs=2)
    again = make_tuner(tmp_path, builder, **options)
    assert outcome(again) == outcome(tuner)
    trials = list(again.oracle.trials.values())
    statuses = [trial.status for trial in trials]
    assert statuses == ["COMPLETED", "PRUNED", "FAILED", "PRUNED"]
    assert trials[2].message.startswith("ValueError: too large")
