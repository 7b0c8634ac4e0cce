from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import pytest
from search_tools import TASKS, Planted, data, make_tuner, outcome, run, valley

import kmtl
from kmtl.training.raw_sets import prepared_data
from kmtl.tuning import TaskWeights
from kmtl.tuning.storage import DurableJournal

pytestmark = pytest.mark.usefixtures("quick")

SEARCH = """
import json, os, signal, sys
from pathlib import Path
import kmtl
from search_tools import make_tuner, outcome, run

def listener(event):
    if event.kind == sys.argv[2] and event.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)

tuner = run(make_tuner(Path(sys.argv[1]), listener=listener))
print(json.dumps([row[:3] for row in outcome(tuner)]))
"""


def program(folder: Path, dies_on: str) -> subprocess.CompletedProcess[str]:
    here = Path(__file__).resolve().parents[1]
    root = Path(kmtl.__file__).resolve().parents[1]
    paths = [str(here), str(root), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-c", SEARCH, str(folder), dies_on],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_same_program_goes_on_after_kill_9(tmp_path: Path) -> None:
    killed = program(tmp_path, "epoch_end")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    first = make_tuner(tmp_path).oracle.trials
    assert [trial.status for trial in first.values()] == ["COMPLETED", "RUNNING"]
    finished = program(tmp_path, "never")
    assert finished.returncode == 0, finished.stderr
    whole = run(make_tuner(tmp_path / "whole"))
    rows = json.loads(finished.stdout.splitlines()[-1])
    assert rows == [list(row[:3]) for row in outcome(whole)]


class Killed(BaseException):
    """Passes every `except Exception`, as a kill does."""


class KilledJournal:
    """Kills the process at the n-th entry of the journal: before it, or half written.

    What is dead writes no more. Signs of life are no entries: how many there are is a
    matter of time, and they come from a thread of their own, which nothing would catch.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.append = DurableJournal.append_logs
        self.count = 0
        self.stop_at: int | None = None
        self.torn = False
        journal = self

        def append_logs(storage: DurableJournal, logs: list) -> None:
            if threading.current_thread() is not threading.main_thread():
                if journal.stop_at is None or journal.count < journal.stop_at:
                    journal.append(storage, logs)
                return
            journal.count += 1
            if journal.stop_at is None or journal.count < journal.stop_at:
                journal.append(storage, logs)
                return
            if journal.torn and journal.count == journal.stop_at:
                with open(storage._path, "ab") as file:
                    file.write(json.dumps(logs[0]).encode()[:30])
            raise Killed

        monkeypatch.setattr(DurableJournal, "append_logs", append_logs)


def check_kills(folder: Path, journal: KilledJournal, **options: Any) -> int:
    """Kill a search of 2 trials at every entry; it must end as if nothing had been."""
    options["max_trials"] = 2
    whole = outcome(run(make_tuner(folder / "whole", **options)))
    entries = journal.count
    for number in range(1, entries + 1):
        at = folder / f"{number}{'torn' if journal.torn else ''}"
        builder = Planted(valley)
        journal.count, journal.stop_at = 0, number
        with pytest.raises(Killed):
            run(make_tuner(at, builder, **options))
        journal.stop_at = None
        trained = len(builder.fits)
        tuner = make_tuner(at, builder, **options)
        finished = [t for t in tuner.oracle.trials.values() if t.status == "COMPLETED"]
        assert outcome(run(tuner)) == whole, number
        # Nothing that had finished is trained again.
        assert len(builder.fits) - trained <= 2 - len(finished), number
    return entries


@pytest.mark.parametrize("torn", [False, True])
def test_killed_at_any_entry_a_search_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    journal = KilledJournal(monkeypatch)
    journal.torn = torn
    assert check_kills(tmp_path, journal) > 12


def test_bayesian_search_killed_at_any_entry_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = KilledJournal(monkeypatch)
    options = {"kind": kmtl.BayesianOptimization, "num_initial_points": 1}
    check_kills(tmp_path, journal, **options)


def test_hyperband_goes_on(tmp_path: Path) -> None:
    options = {"kind": kmtl.Hyperband, "max_epochs": 3}
    whole = outcome(run(make_tuner(tmp_path / "whole", **options), epochs=3))
    assert len(whole) == 5
    for number in (2, 3, 5):

        def listener(event: Any, number: int = number) -> None:
            if event.kind == "epoch_end" and event.number == number:
                raise Killed

        folder = tmp_path / str(number)
        with pytest.raises(Killed):
            run(make_tuner(folder, listener=listener, **options), epochs=3)
        assert outcome(run(make_tuner(folder, **options), epochs=3)) == whole


def test_more_trials_continue_a_search_that_ended(tmp_path: Path) -> None:
    builder = Planted(valley)
    run(make_tuner(tmp_path, builder, max_trials=2))
    tuner = run(make_tuner(tmp_path, builder, max_trials=4))
    assert len(tuner.oracle.trials) == len(builder.fits) == 4
    whole = run(make_tuner(tmp_path / "whole", max_trials=4))
    assert outcome(tuner) == outcome(whole)


def test_lists_are_data_as_arrays_are(tmp_path: Path) -> None:
    x, y = data()
    lists = x.tolist(), {name: values.tolist() for name, values in y.items()}
    scores = []
    for folder, given in (("lists", lists), ("arrays", (x, y))):
        for trials in (1, 2):  # the second search goes on
            tuner = kmtl.Search(
                kmtl.HyperModel(
                    kmtl.build_mlp,
                    tasks=TASKS,
                    space=["learning_rate"],
                    input_shape=(2,),
                    units=(2,),
                    seed=0,
                ),
                max_trials=trials,
                seed=0,
                directory=tmp_path / folder,
            )
            tuner.search(*given, validation_data=given, epochs=1, verbose=0)
        scores.append(tuner.results()["score"].tolist())
    assert scores[0] == pytest.approx(scores[1])


@pytest.mark.parametrize("y", [{"out": [1, 2, 3]}, [1, 2, 3]], ids=("dict", "list"))
def test_lists_of_rows_and_of_inputs(y: Any) -> None:
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    x, labels = prepared_data({}, (rows, y))
    assert x.shape == (3, 2)
    assert labels is y
    x, *_ = prepared_data({}, ([rows, rows], y))
    assert [part.shape for part in x] == [(3, 2)] * 2
    x, *_ = prepared_data({}, ({"in": rows}, y, None))
    assert x["in"].shape == (3, 2)
    arrays = [np.ones((3, 2)), np.ones((3, 2))]
    assert prepared_data({}, (arrays, y))[0] == arrays


def test_overwrite_begins_again(tmp_path: Path) -> None:
    run(make_tuner(tmp_path, max_trials=2))
    tuner = make_tuner(tmp_path, max_trials=2, objective="val_size_mae", overwrite=True)
    assert not tuner.oracle.trials


# -- damaged files ---------------------------------------------------------------------


def test_a_torn_line_of_the_journal_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = run(make_tuner(tmp_path, max_trials=2))
    path = tmp_path / "search" / "study.journal"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":9,"trial_id":' + b"9" * 9000)
    tuner = make_tuner(tmp_path, max_trials=3)
    assert outcome(tuner) == outcome(before)
    run(tuner)
    assert "unfinished line" in caplog.text
    assert path.read_bytes().startswith(whole + b"{")
    expected = outcome(run(make_tuner(tmp_path / "whole", max_trials=3)))
    assert outcome(tuner) == outcome(make_tuner(tmp_path, max_trials=3)) == expected


def test_a_damaged_checkpoint_begins_the_trial_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(make_tuner(tmp_path, max_trials=1))
    path = tmp_path / "search" / "trial_1" / "resume.npz"
    path.parent.mkdir()
    path.write_bytes(b"PK not a zip file")
    tuner = run(make_tuner(tmp_path, max_trials=2))
    assert "Trial 1 begins again" in caplog.text
    assert len(tuner.oracle.get_best_trials(3)) == 2


# -- another search's folder -----------------------------------------------------------


def other(folder: Path, **changes: Any) -> Any:
    """A tuner that differs in one thing from `make_tuner(folder)`."""
    settings = {
        "builder": Planted(valley), "tasks": TASKS, "space": {"a": (0.0, 1.0)},
        "optimizer": "adam", **changes,
    }  # fmt: skip
    objective = settings.pop("objective", "val_kind_accuracy")
    kind = settings.pop("kind", kmtl.RandomSearch)
    seed = settings.pop("search_seed", 0)
    hypermodel = kmtl.HyperModel(settings.pop("builder"), **settings)
    return kind(
        hypermodel, objective, seed=seed, directory=folder, project_name="search"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"a": (0.0, 2.0)}}, "space was"),
        ({"space": {"b": (0.0, 1.0)}}, "space was"),
        ({"b": 0.5}, "model was"),
        ({"seed": 3}, "model was"),
        ({"optimizer": "sgd"}, "model was"),
        ({"objective": "val_size_mae"}, "objective was.*val_size_mae"),
        ({"tasks": (TASKS[0].replace(weight=2.0), TASKS[1])}, "tasks was"),
        ({"search_seed": 1}, "seed was 0 and is now 1"),
        ({"kind": kmtl.BayesianOptimization}, "tuner was"),
        ({"builder": kmtl.build_mlp, "input_shape": (2,), "space": ["dropout"]}, "mod"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(
    tmp_path: Path, changes: dict, message: str
) -> None:
    run(other(tmp_path))
    other(tmp_path)  # the same is welcome
    with pytest.raises(ValueError, match=f"(?s)other settings.*{message}"):
        other(tmp_path, **changes)


def test_other_data_and_epochs_are_refused(tmp_path: Path) -> None:
    run(make_tuner(tmp_path, max_trials=1))
    tuner = make_tuner(tmp_path, max_trials=2)
    x, y = data()
    with pytest.raises(ValueError, match="validation data was"):
        run(tuner, validation_data=(x + 1, y))
    with pytest.raises(ValueError, match="epochs was 1 and is now 2"):
        run(tuner, epochs=2)
    run(tuner)


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ({}, {"batch_size": 4}, "batch_size was null and is now 4"),
        ({"batch_size": 4}, {}, "batch_size was 4 and is now null"),
        ({}, {"steps_per_epoch": 1}, "steps_per_epoch was null"),
        ({}, {"validation_steps": 1}, "validation_steps was null"),
        ({}, {"shuffle": False}, "shuffle was null and is now false"),
    ],
)
def test_other_batches_are_refused(
    tmp_path: Path, first: dict, then: dict, message: str
) -> None:
    """Also where the first call, or the second, left them to the defaults."""
    run(make_tuner(tmp_path, max_trials=1), **first)
    with pytest.raises(ValueError, match=f"other settings.*{message}"):
        run(make_tuner(tmp_path, max_trials=2), **then)
    assert len(run(make_tuner(tmp_path, max_trials=2), **first).oracle.trials) == 2


def test_another_number_of_executions_is_refused(tmp_path: Path) -> None:
    run(make_tuner(tmp_path, max_trials=1))
    with pytest.raises(ValueError, match="executions_per_trial was 1 and is now 3"):
        make_tuner(tmp_path, max_trials=2, executions_per_trial=3)


def test_another_sum_of_task_weights_is_refused(tmp_path: Path) -> None:
    """Their hyperparameters are ratios of it."""

    def tuner(weights: Any) -> Any:
        hypermodel = kmtl.HyperModel(
            kmtl.build_mlp,
            tasks=TASKS,
            input_shape=(2,),
            units=(2,),
            space={"task_weights": weights},
        )
        return kmtl.RandomSearch(
            hypermodel, "val_size_mae", 1, seed=0, directory=tmp_path
        )

    tuner(TaskWeights(total=1.0))
    with pytest.raises(ValueError, match=r"`total` of.*was 1.0 and is now null"):
        tuner(TaskWeights())
    tuner(TaskWeights(total=1.0))


def test_a_folder_of_kerastuner_itself_is_refused(tmp_path: Path) -> None:
    def build(hp: Any) -> kmtl.MultiTaskModel:
        model = Planted(valley)(tasks=TASKS, a=hp.Float("a", 0, 1))
        model.compile()
        return model

    objective = keras_tuner.Objective("val_kind_accuracy", "max")
    stock = keras_tuner.RandomSearch(
        build, objective, max_trials=1, directory=tmp_path, project_name="search"
    )
    x, y = data()
    stock.search(x, y, validation_data=(x, y), verbose=0)
    with pytest.raises(ValueError, match="of another tuner"):
        make_tuner(tmp_path)
