from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from search_tools import make_tuner, run, valley

from kmtl.tuning import Ray, ray_workers, workers


def test_without_ray_the_tuner_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "kmtl\[ray\]"'):
        make_tuner(tmp_path, workers="ray")
    with pytest.raises(ValueError, match=r"'ray' or .*Received: workers='slurm'"):
        make_tuner(tmp_path, workers="slurm")


@pytest.mark.parametrize(
    "options", [{"num_workers": 0}, {"num_cpus": 0}, {"num_gpus": -1}], ids=str
)
def test_a_worker_takes_something(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Ray(**options)


SERVER = "postgresql+psycopg://me:secret@{}/kmtl"


@pytest.mark.parametrize(
    "storage",
    [None, "/shared/study.journal", "sqlite:///a.db", SERVER.format("localhost")],
)
def test_several_machines_need_a_storage_of_all(storage: str | None) -> None:
    ray_workers.check_storage_reach(storage, ["one"])
    with pytest.raises(ValueError, match="on 2 machines needs a `storage`") as info:
        ray_workers.check_storage_reach(storage, ["two", "one"])
    assert "machines: one, two" in str(info.value)
    assert "secret" not in str(info.value)


@pytest.mark.parametrize(
    "url", [SERVER.format("10.0.0.7"), SERVER.format("") + "?host=10.0.0.7"]
)
def test_a_server_does_for_several_machines(url: str) -> None:
    ray_workers.check_storage_reach(url, ["one", "two"])


def test_places_are_counted_by_node() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    assert ray_workers.count_places(nodes, 1, 0) == 11
    assert ray_workers.count_places(nodes, 2, 0) == 5
    assert ray_workers.count_places(nodes, 1, 1) == 2
    assert ray_workers.count_places(nodes, 4, 0.5) == 2


# -- a cluster -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with one CPU each."""
    pytest.importorskip("ray", reason="the package ray is not installed")
    import ray
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    found = Cluster()
    try:
        begun(lambda: found.add_node(include_dashboard=False, **options))
        ray.init(address=found.address, log_to_driver=False)
        found.second = begun(lambda: found.add_node(**options))
        found.wait_for_nodes()
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def begun(start: Callable[[], Any], times: int = 4) -> Any:
    """A node of Ray, which gives up after 30 seconds on a busy machine."""
    for _ in range(times - 1):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return start()


def waiting(folder: Path) -> Callable[[float, float, int], float]:
    """Every trial's second epoch waits for a file; `begun-PID` says who waits."""

    def score(a: float, b: float, epoch: int) -> float:
        if epoch == 1:
            (folder / f"begun-{os.getpid()}").touch()
            parent = os.getppid()
            while not (folder / "go").exists() and os.getppid() == parent:
                time.sleep(0.05)
        return valley(a, b)

    return score


def until(found: Callable[[], Any], seconds: float = 300.0) -> Any:
    """What it finds, once that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def lose(cluster: Any) -> None:
    """Kill all processes of the second node, as when a machine loses its power."""
    (raylet,) = (info.process.pid for info in cluster.second.all_processes["raylet"])
    family = psutil.Process(raylet).children(recursive=True)
    cluster.remove_node(cluster.second, allow_graceful=False)
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


@pytest.mark.thorough
@pytest.mark.slow
def test_an_error_names_its_node(cluster: Any, tmp_path: Path) -> None:
    class Broken:
        def __call__(self, a: float, b: float, epoch: int) -> float:
            raise KeyboardInterrupt if epoch else OSError(28, "No space left")

    tuner = make_tuner(tmp_path, Broken(), workers="ray", max_trials=4)
    with pytest.raises(RuntimeError, match=r"Worker \d \(node \w{8} on .*No space"):
        run(tuner, epochs=2)


@pytest.mark.thorough
@pytest.mark.slow
def test_ctrl_c_ends_the_workers_in_order(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        until(lambda: len(list(tmp_path.glob("begun-*"))) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    tuner = make_tuner(tmp_path, waiting(tmp_path), workers="ray", max_trials=4)
    thread.start()
    monkeypatch.setattr(workers, "END_SECONDS", 60)  # however busy the machine is
    with pytest.raises(KeyboardInterrupt):
        run(tuner, epochs=2)
    thread.join()
    pids = [int(path.name.split("-")[1]) for path in tmp_path.glob("begun-*")]
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)
    # Given back, not killed.
    tuner = make_tuner(tmp_path, waiting(tmp_path), max_trials=4)
    assert [tuner.oracle.kills(trial_id) for trial_id in tuner.oracle.trials] == [0, 0]
    (tmp_path / "go").touch()
    run(tuner, epochs=2)
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    assert statuses == ["COMPLETED"] * 4


@pytest.mark.thorough
@pytest.mark.slow
def test_a_lost_node_costs_no_trial(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def lose_it() -> None:
        until(lambda: len(list(tmp_path.glob("begun-*"))) == 2)
        lose(cluster)
        (tmp_path / "go").touch()

    thread = threading.Thread(target=lose_it)
    tuner = make_tuner(
        tmp_path,
        waiting(tmp_path),
        workers="ray",
        max_trials=5,
        recycle_after=3,
        storage=f"sqlite:///{tmp_path}/search.db",
    )
    thread.start()
    run(tuner, epochs=2)
    thread.join()
    assert "died (status lost); its trial goes on" in caplog.text
    trials = tuner.oracle.trials
    assert [trial.status for trial in trials.values()] == ["COMPLETED"] * 5
    for trial_id, trial in trials.items():
        values = trial.hyperparameters.values
        assert trial.score == pytest.approx(valley(values["a"], values["b"]))
        assert [row["epoch"] for row in tuner.curves(trial_id)] == [1, 2]
    assert sum(tuner.oracle.kills(trial_id) for trial_id in trials) == 1
    assert tuner.get_best_models()
