from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from search_tools import Planted, make_tuner, outcome, run, valley

import kmtl
from kmtl.tuning import SearchEvent, worker, workers
from kmtl.tuning.search_data import SearchData

TESTS = Path(__file__).resolve().parents[1]


def deadly(folder: Path) -> Callable[[float, float, int], float]:
    """Kills the process in the second epoch of its first trial, once."""

    def score(a: float, b: float, epoch: int) -> float:
        if epoch == 1:
            try:
                (folder / "killed").touch(exist_ok=False)
            except FileExistsError:
                return valley(a, b)
            os.kill(os.getpid(), signal.SIGKILL)
        return valley(a, b)

    return score


@pytest.mark.slow
def test_workers_share_a_search_and_may_die(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[SearchEvent] = []
    tuner = make_tuner(
        tmp_path,
        deadly(tmp_path),
        max_trials=4,
        workers=2,
        recycle_after=2,
        listener=seen.append,
    )
    run(tuner, epochs=2)
    assert "died (status -9)" in caplog.text
    trials = tuner.oracle.trials
    assert [trial.status for trial in trials.values()] == ["COMPLETED"] * 4
    for trial_id, trial in trials.items():
        values = trial.hyperparameters.values
        assert trial.score == pytest.approx(valley(values["a"], values["b"]))
        assert [row["epoch"] for row in tuner.curves(trial_id)] == [1, 2]
    kinds = [event.kind for event in seen]
    assert kinds[0] == "search_begin"
    assert kinds[-1] == "search_end"
    for kind in ("trial_begin", "trial_end"):
        numbers = [event.number for event in seen if event.kind == kind]
        assert sorted(numbers) == [1, 2, 3, 4]
    assert kinds.count("epoch_end") == 8
    assert tuner.get_best_models()
    logs = sorted(path.name for path in (tmp_path / "search/workers").glob("*"))
    assert logs == ["propose.lock", "worker-0.log", "worker-1.log"]
    # It goes on in this process.
    more = run(make_tuner(tmp_path, max_trials=5), epochs=2)
    assert outcome(more)[:4] == outcome(tuner)


def stand_ins(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Processes that run this code instead of a worker's."""

    def command(self: workers.Workers, number: int) -> list[str]:
        return [sys.executable, "-S", "-c", code, str(number)]

    monkeypatch.setattr(workers.Workers, "_command", command)


def test_an_error_in_a_worker_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """if True:
        import sys, time
        if sys.argv[1] == "0":
            time.sleep(600)  # is ended by the search
        read = len(sys.stdin.buffer.read())
        sys.stdout.write(f"KeyError: column\\n\\nTrace after {read} bytes")
        sys.exit(1)
    """
    stand_ins(monkeypatch, code)
    tuner = make_tuner(tmp_path, max_trials=9, workers=2)
    with pytest.raises(RuntimeError, match=r"Worker 1 ended.*KeyError: column") as info:
        run(tuner)
    assert int(str(info.value).split()[-2]) > 1000
    # Nothing of the job is on the disk.
    names = sorted(path.name for path in (tmp_path / "search/workers").iterdir())
    assert names == ["worker-0.log", "worker-1.log"]


def test_a_job_that_no_pipe_holds_arrives(tmp_path: Path) -> None:
    job = workers._pickled({"data": np.zeros(10**6, "float32")})
    code = "import sys; sys.exit(len(sys.stdin.buffer.read()) != int(sys.argv[1]))"
    command = [sys.executable, "-S", "-c", code, str(len(job))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    workers._feed(process.stdin, job)
    assert process.wait() == 0


def test_workers_that_die_again_and_again_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os, sys; print('no memory', file=sys.stderr); os._exit(9)"
    stand_ins(monkeypatch, code)
    tuner = make_tuner(tmp_path, max_trials=9, workers=2)
    with pytest.raises(RuntimeError, match=r"(?s)7 workers died.*no memory"):
        run(tuner)


def test_what_cannot_be_sent_is_said(tmp_path: Path) -> None:
    tuner = make_tuner(tmp_path, workers=2)

    class Holding(keras.callbacks.Callback):
        def __deepcopy__(self, memo: Any) -> Any:
            return self

        def __reduce__(self) -> Any:
            raise TypeError("an open file")

    with pytest.raises(TypeError, match=r"With `workers`.*sent: TypeError: an open"):
        run(tuner, callbacks=[Holding()])
    with pytest.raises(ValueError, match=">= 1"):
        make_tuner(tmp_path, workers=0)


class Parent:
    """Stands for the process that leads a search, in this one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.number = 17
        monkeypatch.setattr(os, "getppid", lambda: self.number)


@pytest.mark.usefixtures("quick")
def test_an_orphan_stops_after_its_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = Parent(monkeypatch)

    def score(a: float, b: float, epoch: int) -> float:
        parent.number = 1  # the parent dies, and another process takes its children
        return valley(a, b)

    builder = Planted(score)
    tuner = make_tuner(tmp_path, builder, max_trials=3)
    search = SearchData(None, None, None, [], {}, epochs=4)
    job = workers.job_of(tuner, search)
    assert tuner.work(job, parent=17)
    assert [fit[2:] for fit in builder.fits] == [(0, 1)]
    assert [trial.status for trial in tuner.oracle.trials.values()] == ["RUNNING"]


@pytest.mark.usefixtures("quick")
def test_a_worker_trains_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Parent(monkeypatch)
    builder = Planted(valley)
    job = {}
    for left in (False, True):
        tuner = make_tuner(tmp_path, builder, max_trials=3, recycle_after=2)
        search = SearchData(None, None, None, [], {}, epochs=1)
        job = workers.job_of(tuner, search)
        assert tuner.work(job, parent=17) is left
    assert len(builder.fits) == 3
    assert job["arguments"]["project_name"] == "search"
    assert "listener" not in job["arguments"]


def test_a_worker_says_what_went_wrong() -> None:
    answer = io.BytesIO()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert worker.work(io.BytesIO(b"no pickle"), answer) == 1
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert answer.getvalue().startswith(b"UnpicklingError: ")
    assert len(answer.getvalue()) <= worker.MOST_BYTES + 2


def test_the_environment_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = [workers.environment(number, 3) for number in range(3)]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in found] == ["2", "5", "2"]
    assert found[0]["KERAS_BACKEND"] == keras.backend.backend()
    assert int(found[0]["OMP_NUM_THREADS"]) >= 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert workers.visible_gpus() == []


# -- KerasTuner's own chief and workers ------------------------------------------------

CHIEF = """
import json, sys
import keras_tuner, kmtl
from search_tools import TASKS, data
hypermodel = kmtl.HyperModel(
    kmtl.build_mlp, tasks=TASKS, input_shape=(2,), units=(3,), seed=0, optimizer="sgd"
)
tuner = keras_tuner.RandomSearch(
    hypermodel,
    keras_tuner.Objective("val_kind_accuracy", "max"),
    max_trials=2,
    directory=sys.argv[1],
)
x, y = data()
tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
"""


@pytest.mark.slow
def test_kerastuners_own_chief_and_worker_take_our_hypermodel(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(kmtl.__file__).resolve().parents[1]
    paths = [str(TESTS), str(root), os.environ.get("PYTHONPATH", "")]
    shared = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(port),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHIEF, str(tmp_path)],
            env={**shared, "KERASTUNER_TUNER_ID": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("chief", "tuner0")
    ]
    try:
        texts = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], texts
    files = sorted(tmp_path.glob("untitled_project/trial_*/trial.json"))
    assert [json.loads(file.read_text())["status"] for file in files] == [
        "COMPLETED",
        "COMPLETED",
    ]


def test_our_tuners_need_no_chief(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(RuntimeError, match=r"need no chief.*127\.0\.0\.1"):
        make_tuner(tmp_path)
    assert not list(tmp_path.iterdir())


def test_workers_know_the_baselines_that_auto_stands_for(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(16, 2)).astype("float32")
    y = {"kind": (x[:, 0] > 0).astype("int32"), "size": x[:, 1]}
    tasks = (kmtl.Classification("kind", classes=2), kmtl.Regression("size"))
    tuner = kmtl.RandomSearch(
        kmtl.HyperModel(
            kmtl.build_mlp, tasks=tasks, input_shape=(2,), units=(2,), seed=0
        ),
        "val_delta_m",
        1,
        baselines="auto",
        workers=2,
        seed=0,
        directory=tmp_path,
    )
    tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    (trial,) = tuner.oracle.trials.values()
    assert trial.status == "COMPLETED"
    (row,) = tuner.curves("0")
    scores = {"kind": row["val_kind_accuracy"], "size": row["val_size_mae"]}
    expected, _ = kmtl.evaluation.delta_m(scores, tuner.baselines, tasks)
    assert trial.score == pytest.approx(expected)
