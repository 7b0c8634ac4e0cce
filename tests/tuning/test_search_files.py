"""What a search does to its folder, and what happens to it there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import optuna
import pytest
from failure_tools import Failing, Killed, tree
from optuna.exceptions import StorageInternalError
from search_tools import Planted, make_tuner, outcome, run, valley

from kmtl import _files
from kmtl._files import DamagedFileError
from kmtl.training import checkpoint
from kmtl.tuning import liveness, running
from kmtl.tuning.oracle import MOST_KILLS
from kmtl.tuning.storage import DurableJournal, StorageError, open_storage

pytestmark = pytest.mark.usefixtures("quick")


def kill(tuner: Any) -> None:
    """As `kill -9` of the process: nothing is given back, the lock's file stays."""
    tuner.oracle.owner.end(finished=False)
    raise Killed


class Deadly:
    """A score that kills the process when `when(epochs finished in it, epoch)`."""

    def __init__(self, when: Callable[[int, int], bool]):
        self.when = when
        self.tuner: Any = None
        self.finished = self.kills = 0
        self.score = lambda a, b, epoch: valley(a, b) + 0.01 * epoch

    def __call__(self, a: float, b: float, epoch: int) -> float:
        if self.when(self.finished, epoch):
            kill(self.tuner)
        self.finished += 1
        return self.score(a, b, epoch)

    def processes(self, folder: Path, most: int, **options: Any) -> tuple[Any, int]:
        """Run the same program until it ends: its tuner, and the number of kills."""
        for self.kills in range(most):
            self.finished = 0
            self.tuner = make_tuner(folder, Planted(self), **options)
            with contextlib.suppress(Killed):
                return run(self.tuner, epochs=4), self.kills
        raise AssertionError(f"killed {most} times")


def never(finished: int, epoch: int) -> bool:
    return False


# -- kills -----------------------------------------------------------------------------


def test_a_healthy_trial_survives_any_number_of_kills(tmp_path: Path) -> None:
    """Of processes that live for one epoch each."""
    whole, _ = Deadly(never).processes(tmp_path / "whole", 1, max_trials=2)
    often, kills = Deadly(lambda finished, epoch: finished == 1).processes(
        tmp_path / "often", 30, max_trials=2
    )
    assert kills > 2 * MOST_KILLS
    assert outcome(often) == outcome(whole)
    assert often.curve_table().equals(whole.curve_table())


def test_what_kills_its_process_is_given_up(tmp_path: Path) -> None:
    deadly = Deadly(lambda finished, epoch: epoch == 2)
    with pytest.raises(RuntimeError, match="1 x Its process was killed 3 times"):
        deadly.processes(tmp_path, 12, max_trials=1)
    (trial,) = deadly.tuner.oracle.trials.values()
    assert trial.status == "FAILED"
    # Twice it made progress: before it left a checkpoint, and before that was used.
    assert deadly.kills == 2 + MOST_KILLS


def test_kills_count_that_follow_one_another(tmp_path: Path) -> None:
    """Two before the first epoch, then one with progress, and again."""
    ends = iter([0, 0, 1, 0, 0, 1, 0, 0])
    end = [next(ends)]

    def when(finished: int, epoch: int) -> bool:
        if finished != end[0]:
            return False
        end[0] = next(ends, -1)
        return True

    tuner, kills = Deadly(when).processes(tmp_path, 12, max_trials=1)
    assert kills == 8
    whole, _ = Deadly(never).processes(tmp_path / "whole", 1, max_trials=1)
    assert outcome(tuner) == outcome(whole)


def test_trials_of_a_killed_population_are_not_blamed(tmp_path: Path) -> None:
    for _ in range(2 * MOST_KILLS):
        tuner = make_tuner(tmp_path, max_trials=3, population=3)
        for place in range(3):
            tuner.oracle.create_trial(f"tuner-{place}")
        tuner.oracle.owner.end(finished=False)
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    assert statuses == ["RUNNING"] * 3
    for _ in range(MOST_KILLS):  # but one that trains alone may be
        tuner = make_tuner(tmp_path, max_trials=3, population=3)
        trial = tuner.oracle.create_trial("tuner")
        tuner.oracle.trains_alone(trial.trial_id)
        tuner.oracle.owner.end(finished=False)
    tuner = make_tuner(tmp_path, max_trials=3, population=3)
    assert tuner.oracle.create_trial("tuner").trial_id == "1"
    assert tuner.oracle.trials["0"].status == "FAILED"
    tuner.oracle.close()


def test_a_search_restored_without_its_locks_goes_on_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = Deadly(lambda finished, epoch: finished == 2)
    deadly.tuner = make_tuner(tmp_path / "a", Planted(deadly), max_trials=1)
    with pytest.raises(Killed):
        run(deadly.tuner, epochs=4)
    shutil.rmtree(tmp_path / "a" / "search" / "workers")
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # the same machine, another place

    def sleep(seconds: float) -> None:
        raise AssertionError("it waits")

    monkeypatch.setattr(time, "sleep", sleep)
    for folder in ("b", "a"):
        tuner = make_tuner(tmp_path / folder, max_trials=1)
        assert run(tuner, epochs=4).oracle.trials["0"].status == "COMPLETED"
        assert tuner.oracle.kills("0") == 0


# -- hostile studies -------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        {"id": "../../victim"},
        {"id": "/../../victim"},
        {"id": "0123456789ab/../../victim"},
        {"id": 7},
        {"id": None},
        {},
        "text",
        ["list"],
    ],
)
def test_a_study_cannot_name_files_to_delete(tmp_path: Path, record: Any) -> None:
    folder = tmp_path / "project"
    owner = liveness.Owner(folder)
    owner.folder.mkdir(parents=True)
    victims = [tmp_path / "victim.lock", folder / "victim.lock"]
    for victim in victims:
        victim.write_text("mine")
    if isinstance(record, dict):
        record = {"host": socket.gethostname(), "folder": str(tmp_path), **record}
    assert owner.seen(record) is None
    assert owner.lives(0, record, None)  # until it has been silent for long
    owner.forget(record)
    assert [victim.read_text() for victim in victims] == ["mine", "mine"]


# -- full disks ------------------------------------------------------------------------


def disk_error(number: int = errno.ENOSPC) -> OSError:
    return OSError(number, os.strerror(number))


def locked() -> Exception:
    return optuna.exceptions.StorageInternalError("database is locked")


@pytest.mark.parametrize(
    "error", [disk_error(), disk_error(errno.EIO), disk_error(errno.ESTALE), locked()]
)
def test_a_disk_that_fails_for_a_moment_fails_no_trial(
    tmp_path: Path, error: Exception
) -> None:
    calls = []

    def score(a: float, b: float, epoch: int) -> float:
        calls.append(epoch)
        if len(calls) == 4:
            raise error
        return valley(a, b) + 0.01 * epoch

    with pytest.raises(StorageError, match="No trial is lost"):
        run(make_tuner(tmp_path, score, max_trials=3), epochs=2)
    trials = make_tuner(tmp_path, max_trials=3).oracle.trials.values()
    statuses = [trial.status for trial in trials]
    assert statuses == ["COMPLETED", "RUNNING"]
    tuner = run(make_tuner(tmp_path, score, max_trials=3), epochs=2)
    whole = run(make_tuner(tmp_path / "whole", score, max_trials=3), epochs=2)
    assert outcome(tuner) == outcome(whole)


@pytest.mark.parametrize(
    "lasting", [True, pytest.param(False, marks=pytest.mark.thorough)]
)
def test_a_disk_that_is_full_at_any_entry_fails_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    append = _files.append_lines
    count, full_from = 0, None

    def append_lines(path: Path, lines: list[str], **options: Any) -> None:
        nonlocal count
        count += 1
        if full_from is not None and (
            count >= full_from if lasting else count == full_from
        ):
            with open(path, "ab") as file:
                file.write(lines[0].encode()[:20])  # what there was room for
            raise disk_error()
        append(path, lines, **options)

    monkeypatch.setattr(_files, "append_lines", append_lines)
    whole = outcome(run(make_tuner(tmp_path / "whole", max_trials=2)))
    entries = count
    for number in range(1, entries + 1):
        count, full_from = 0, number
        folder = tmp_path / str(number)
        with pytest.raises(StorageError, match=r"study\.journal"):
            run(make_tuner(folder, max_trials=2))
        full_from = None
        assert outcome(run(make_tuner(folder, max_trials=2))) == whole, number
    assert entries > 12


@pytest.mark.parametrize("where", ["save", "save_training", "load"])
def test_a_checkpoint_that_cannot_be_kept_or_read_fails_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(running, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(running, "CHECKPOINT_SHARE", 1e9)
    whole = outcome(run(make_tuner(tmp_path / "whole", max_trials=2), epochs=2))
    folder = tmp_path / "failing"
    if where == "load":  # of a trial that was interrupted after its first epoch
        deadly = Deadly(lambda finished, epoch: finished == 3)
        deadly.score = lambda a, b, epoch: valley(a, b)
        deadly.tuner = make_tuner(folder, Planted(deadly), max_trials=2)
        with pytest.raises(Killed):
            run(deadly.tuner, epochs=2)
    before = tree(folder) if folder.exists() else {}
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, where, failing := Refusing())
        message = r"^The search stopped, as '\S*trial_\d.*\.npz'.*Permission denied"
        with pytest.raises(StorageError, match=message):
            run(make_tuner(folder, max_trials=2), epochs=2)
    assert failing.calls == 1
    after = tree(folder)
    assert [n for n in before if n.endswith("npz") and after.get(n) != before[n]] == []
    assert outcome(run(make_tuner(folder, max_trials=2), epochs=2)) == whole


class Refusing:
    """A call that the system refuses."""

    calls = 0

    def __call__(self, *arguments: Any, **options: Any) -> None:
        self.calls += 1
        raise disk_error(errno.EACCES)


def test_a_journal_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    def score(a: float, b: float, epoch: int) -> float:
        (tmp_path / "search" / "study.journal").unlink(missing_ok=True)
        return 0.5

    with pytest.raises(StorageError, match=r"study\.journal"):
        run(make_tuner(tmp_path, score))
    assert not (tmp_path / "search" / "study.journal").exists()


# -- overwriting -----------------------------------------------------------------------


def thesis(folder: Path) -> dict[str, bytes]:
    (folder / "thesis" / "trial_1").mkdir(parents=True)
    (folder / "thesis" / "chapter").write_text("years of work")
    (folder / "thesis" / "trial_1" / "checkpoint.npz").write_text("mine")
    return tree(folder)


def test_overwrite_deletes_no_other_folder(tmp_path: Path) -> None:
    before = thesis(tmp_path)
    with pytest.raises(ValueError, match="deletes searches of kmtl alone"):
        make_tuner(tmp_path, project_name="thesis", overwrite=True)
    for name in ("..", "a/../..", "/", str(tmp_path), "."):
        with pytest.raises(ValueError, match="`project_name` must be the name"):
            make_tuner(tmp_path / "thesis", project_name=name, overwrite=True)
    assert tree(tmp_path) == before


def test_a_search_does_not_begin_among_trials_of_others(tmp_path: Path) -> None:
    before = thesis(tmp_path)
    for storage in (None, f"sqlite:///{tmp_path.parent / 'a.db'}"):
        with pytest.raises(ValueError, match="folders that are not of a search"):
            make_tuner(tmp_path, project_name="thesis", storage=storage)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kill", [True, False])
def test_a_failure_at_any_step_of_overwriting_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Path, kill: bool
) -> None:
    def overwrite(folder: Path) -> Any:
        return make_tuner(folder, max_trials=2, overwrite=True)

    with monkeypatch.context() as patched:
        for place in Failing(patched, kill).every(overwrite, tmp_path / "new"):
            assert not overwrite(place).oracle.trials

    def again(folder: Path) -> None:
        if not folder.exists():
            shutil.copytree(ended, folder)
        overwrite(folder)

    failing, steps = Failing(monkeypatch, kill), 0
    for place in failing.every(again, tmp_path / "old"):
        steps += 1
        if place.exists():  # copied whole
            assert not overwrite(place).oracle.trials
            assert not list(place.glob("search/trial_*"))
    assert steps > 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"storage": 3},
        {"storage": "sqlite:////nowhere/at/all.db"},
        {"objective": "val_nothing"},
        {"warm_start": "nowhere"},
        {"max_minutes": -1},
        {"population": 0},
        {"keep_checkpoints": 0},
        {"recycle_after": 0},
        {"seed": -1},
        {"pruner": "none such"},
        {"max_trials": 0},
    ],
)
def test_overwrite_checks_everything_first(ended: Path, wrong: dict) -> None:
    before = tree(ended)
    with pytest.raises((ValueError, TypeError, OSError, StorageInternalError)):
        make_tuner(ended, overwrite=True, **wrong)
    after = tree(ended)
    assert {name: after.get(name) for name in before} == before


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ended")
    run(make_tuner(folder, max_trials=2))
    return folder


def test_overwrite_deletes_what_the_search_made_and_nothing_else(
    tmp_path: Path, ended: Path
) -> None:
    shutil.copytree(ended, tmp_path, dirs_exist_ok=True)
    project = tmp_path / "search"
    mine = [project / "notes", project / "trial_0" / "notes", project / "trial_x"]
    for path in mine:
        path.write_text("mine")
    kept = project / "baselines" / "digit-0"
    kept.mkdir(parents=True)
    tuner = make_tuner(tmp_path, max_trials=2, overwrite=True)
    assert not tuner.oracle.trials
    assert [path.read_text() for path in mine] == ["mine"] * 3
    assert kept.exists()
    assert not list(project.glob("trial_*/checkpoint.npz"))
    assert len(run(tuner).oracle.trials) == 2


@pytest.mark.parametrize("storage", [None, "sqlite"])
def test_overwrite_refuses_a_search_that_runs(
    tmp_path: Path, storage: str | None
) -> None:
    options: dict[str, Any] = {"max_trials": 1}
    if storage:
        options["storage"] = f"sqlite:///{tmp_path / 'a {b}.db'}"
    refused = []

    def score(a: float, b: float, epoch: int) -> float:
        # With a database another folder may be another program's.
        folder = tmp_path / "other" if storage else tmp_path
        try:
            make_tuner(folder, overwrite=True, **options)
        except RuntimeError as error:
            refused.append(str(error))
        return 0.5

    tuner = run(make_tuner(tmp_path, score, **options))
    assert "another process works on it" in refused[0]
    assert tuner.oracle.trials["0"].status == "COMPLETED"
    assert not make_tuner(tmp_path, overwrite=True, **options).oracle.trials


# -- damage ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"garbage", "it is not JSON"),
        (b"[1, 2]", "it holds no JSON object but a list"),
        (b"{}", "it has no op_code"),
        (b"\xff\x00", "it is not JSON"),
        (b"", "it is empty"),
    ],
)
def test_a_damaged_line_of_the_journal_is_named(
    tmp_path: Path, ended: Path, line: bytes, what: str
) -> None:
    shutil.copytree(ended, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "search" / "study.journal"
    lines = path.read_bytes().splitlines()
    for place in (3, len(lines)):
        path.write_bytes(b"\n".join([*lines[:place], line, *lines[place:], b""]))
        with pytest.raises(DamagedFileError, match=f"in line {place + 1}, {what}"):
            make_tuner(tmp_path, max_trials=2)
    path.write_bytes(b"\n".join([*lines, b'{"op_code": 4}', b""]))
    with pytest.raises(DamagedFileError, match=r"study\.journal.*do not fit together"):
        make_tuner(tmp_path, max_trials=2)
    assert not make_tuner(tmp_path, max_trials=2, overwrite=True).oracle.trials


def test_an_emptied_journal_beside_trials_is_named(tmp_path: Path, ended: Path) -> None:
    shutil.copytree(ended, tmp_path, dirs_exist_ok=True)
    (tmp_path / "search" / "study.journal").write_bytes(b"")
    with pytest.raises(DamagedFileError, match=r"study\.journal.*empty.*holds trials"):
        make_tuner(tmp_path, max_trials=2)
    assert list((tmp_path / "search").glob("trial_*"))


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"PK"])
def test_damaged_weights_are_named(
    tmp_path: Path, ended: Path, content: bytes | None
) -> None:
    shutil.copytree(ended, tmp_path, dirs_exist_ok=True)
    tuner = make_tuner(tmp_path, max_trials=2)
    best = tuner.oracle.get_best_trials()[0]
    path = tmp_path / "search" / f"trial_{best.trial_id}" / "checkpoint.npz"
    if content is None:
        path.unlink()
        with pytest.raises(FileNotFoundError, match="are not in"):
            tuner.get_best_models()
        return
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"checkpoint\.npz.*hypermodel\.build"):
        tuner.get_best_models()
    assert path.read_bytes() == content


def test_the_journal_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    journal, other = DurableJournal(path), DurableJournal(path)
    entries = [{"op_code": n} for n in range(5)]
    for number, entry in enumerate(entries):
        journal.append_logs([entry])
        assert list(other.read_logs(number)) == [entry]
    assert list(DurableJournal(path).read_logs(3)) == entries[3:]
    assert [json.loads(line) for line in path.read_text().splitlines()] == entries


def test_braces_in_the_path_of_a_database(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / '{x}.db'}", tmp_path)
    optuna.create_study(storage=storage)
    assert (tmp_path / "{x}.db").exists()


def test_a_trial_is_never_kept_with_weights_that_are_not_finite(tmp_path: Path) -> None:
    class Poison(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            value = np.nan if epoch == 1 else float(epoch)
            for variable in self.model.trainable_variables:
                variable.assign(np.full(variable.shape, value))

    builder = Planted(lambda a, b, epoch: 0.5 + epoch / 10)
    tuner = make_tuner(tmp_path, builder, max_trials=1)
    run(tuner, epochs=2, callbacks=[Poison()])
    model = tuner.get_best_models()[0]
    for variable in model.trainable_variables:
        assert (np.asarray(variable) == 0.0).all()  # of the epoch before
