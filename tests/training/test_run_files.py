"""The files of a run: killed, full, damaged, of something else, in use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from failure_tools import Failing

import kmtl
from kmtl._files import DamagedFileError
from kmtl.training import RunCheckpoint, checkpoint, fit_run, run_record

EPOCHS = 3


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Never trained: epochs are set by hand."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd")
    return model


def go_on(model: keras.Model, folder: Path, epochs: int = EPOCHS) -> RunCheckpoint:
    """What `fit` does with a run: epoch e sets all weights to e, logs 1 / (e + 1)."""
    run = RunCheckpoint(folder)
    run.set_model(model)
    model.stop_training = False
    run.on_train_begin()
    for epoch in range(run.epoch, epochs):
        run.on_epoch_begin(epoch)
        set_weights(model, epoch)
        run.on_epoch_end(epoch, {"loss": 1 / (epoch + 1)})
    run.on_train_end()
    return run


def set_weights(model: keras.Model, value: float) -> None:
    model.set_weights([np.full(w.shape, value, "float32") for w in model.weights])


def assert_whole(model: keras.Model, folder: Path) -> None:
    """A run that goes on from what there is ends like one that was never broken."""
    set_weights(model, -1)
    run = go_on(model, folder)
    assert run.history == {"loss": [1 / (epoch + 1) for epoch in range(EPOCHS)]}
    assert all((w == EPOCHS - 1).all() for w in model.get_weights())


@pytest.mark.parametrize("kill", [True, False])
def test_a_failure_at_any_step_loses_one_epoch_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: keras.Model, kill: bool
) -> None:
    failing = Failing(monkeypatch, kill)
    steps = 0
    for place in failing.every(lambda folder: go_on(model, folder), tmp_path):
        steps += 1
        assert_whole(model, place)
        left = {path.name for path in place.iterdir()}
        assert left == {
            *("checkpoints", "config.json", "run.lock"),
            *("history.csv", "history.jsonl"),
        }
        names = sorted(path.name for path in (place / "checkpoints").iterdir())
        assert names[-2:] == ["epoch-000002.npz", "epoch-000003.npz"]
    assert steps > 20


@pytest.fixture(scope="module")
def finished(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    go_on(model, folder)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def flipped(content: bytes, at: float) -> bytes:
    changed = bytearray(content)
    changed[int(at * (len(content) - 1))] ^= 1
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "garbage": lambda content: os.urandom(100),
    "cut": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "first": lambda content: flipped(content, 0.0),
    "middle": lambda content: flipped(content, 0.5),
    "last": lambda content: flipped(content, 1.0),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_left_out_and_kept_aside(
    copied: Path, model: keras.Model, damage: str
) -> None:
    newest = copied / "checkpoints" / "epoch-000003.npz"
    newest.write_bytes(content := DAMAGES[damage](newest.read_bytes()))
    assert RunCheckpoint(copied).epoch == 2
    assert newest.read_bytes() == content  # to look at a run changes nothing
    assert_whole(model, copied)
    aside = newest.with_name("epoch-000003.npz.damaged-1")
    assert aside.read_bytes() == content


def test_a_checkpoint_of_something_else_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, other=np.ones(3))
    with pytest.raises(DamagedFileError, match=r"a\.npz.*digest"):
        checkpoint.load(path, "")
    checkpoint.save(path, {"a": 1}, {"w": [np.ones((2, 0)), np.float64(3)]})
    with np.load(path) as content:  # NumPy's own reader takes the file
        assert content["w/1"] == 3
    with pytest.raises(DamagedFileError, match="it has no epoch"):
        checkpoint.load(path, "", keys=("a", "epoch"))


def test_a_checkpoint_that_cannot_be_read_now_is_left_alone(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted((copied / "checkpoints").iterdir())

    def fail(path: Path) -> bytes:
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", fail)
        with pytest.raises(OSError, match=r"Input/output error.*(epoch|config)"):
            RunCheckpoint(copied)
    assert sorted((copied / "checkpoints").iterdir()) == before
    assert RunCheckpoint(copied).epoch == 3


def test_what_is_no_checkpoint_of_ours_is_none(
    copied: Path, model: keras.Model
) -> None:
    places = copied / "checkpoints"
    (places / "epoch-backup").mkdir()
    shutil.copy(places / "epoch-000002.npz", places / "epoch-backup.npz")
    shutil.copy(places / "epoch-000002.npz", places / "epoch-000009.npz.bak")
    assert RunCheckpoint(copied).epoch == 3
    go_on(model, copied, epochs=5)
    assert {path.name for path in places.iterdir()} == {
        *("epoch-backup", "epoch-backup.npz", "epoch-000009.npz.bak"),
        *("epoch-000004.npz", "epoch-000005.npz"),
    }


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("config.json", b"", "it is empty"),
        ("config.json", b"[]", "no JSON object"),
        ("config.json", b"{}", "it has no format, config"),
        (
            "config.json",
            b'{"format": 2, "config": [], "keras": "", "backend": ""}',
            "its config or setting is no JSON object",
        ),
        ("config.json", None, "it is missing, though there is 'history.jsonl'"),
        ("history.jsonl", None, "0 of the run's 3 epochs"),
        ("history.jsonl", b'{"epoch": 0}\n', "1 of the run's 3 epochs"),
        ("history.jsonl", b'{"epoch": 0}\ngarbage\n', "in line 2, it is not JSON"),
    ],
)
def test_a_damaged_file_that_the_run_needs_is_named(
    copied: Path, name: str, content: bytes | None, what: str
) -> None:
    if content is None:
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(content)
    with pytest.raises(DamagedFileError, match=what) as info:
        RunCheckpoint(copied)
    assert f"'{copied / name}' is damaged" in str(info.value)
    assert "from a copy" in str(info.value)


def test_a_model_that_is_not_finite_is_never_the_newest(
    tmp_path: Path, model: keras.Model, caplog: pytest.LogCaptureFixture
) -> None:
    go_on(model, tmp_path, epochs=1)
    run = RunCheckpoint(tmp_path)
    run.set_model(model)
    run.on_train_begin()
    for epoch, value in ((1, np.nan), (2, np.inf)):
        set_weights(model, value)
        run.on_epoch_end(epoch, {"loss": np.nan})
    run.on_train_end()
    assert "are NaN or infinite, after epoch 2" in caplog.text
    assert_whole(model, tmp_path)


# -- in use ----------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from kmtl._locks import FileLock
lock = FileLock(Path(sys.argv[1]) / "run.lock")
lock.acquire()
print("ready", flush=True)
sys.stdin.read()
"""


def test_one_process_trains_in_a_folder(copied: Path, model: keras.Model) -> None:
    command = [sys.executable, "-c", HOLDER, str(copied)]
    other = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    )
    try:
        assert other.stdout is not None
        other.stdout.readline()
        assert RunCheckpoint(copied).epoch == 3  # others may look
        with pytest.raises(RuntimeError, match=r"Another process .* trains in"):
            go_on(model, copied, epochs=4)
    finally:
        other.kill()
        other.communicate()
    go_on(model, copied, epochs=4)  # the lock of a dead process is none


def test_an_interrupted_training_of_this_thread_holds_nothing(
    copied: Path, model: keras.Model
) -> None:
    interrupted = RunCheckpoint(copied)
    interrupted.set_model(model)
    interrupted.on_train_begin()
    refused = []

    def elsewhere() -> None:
        try:
            go_on(model, copied, epochs=4)
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(refused) == 1
    go_on(model, copied, epochs=4)


def test_a_run_that_has_gone_on_elsewhere_is_not_overwritten(
    copied: Path, model: keras.Model
) -> None:
    old = RunCheckpoint(copied)
    go_on(model, copied, epochs=4)
    old.set_model(model)
    with pytest.raises(RuntimeError, match="since this `RunCheckpoint` was made"):
        old.on_train_begin()


# -- other settings --------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
Y = {"a": X[:, 0], "b": X[:, 1]}
TASKS = [kmtl.Regression("a"), kmtl.Regression("b")]


def made(compile_options: dict[str, Any] | None = None, **options: Any) -> Any:
    given = {"input_shape": (2,), "tasks": TASKS, "units": (2,), **options}
    built = kmtl.build_mlp(**given)
    built.compile(**{"optimizer": "adam", **(compile_options or {})})
    return built


def settings(folder: Path, built: Any = None, **changes: Any) -> dict[str, Any]:
    given = {"data": (X, Y), "validation": None, "batch_size": 4, "seed": 0, **changes}
    return run_record.setting_of(built or made(), folder=folder, **given)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    run_record.check(folder, {}, settings(folder))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": (X + 1, Y)}, "training data"),
        ({"data": (X, {**Y, "a": Y["b"]})}, "training data"),
        ({"data": (X, Y, np.ones(8))}, "training data"),
        ({"validation": (X, Y)}, "validation data"),
        ({"batch_size": 8}, r"batch_size \(was 4, is 8\)"),
        ({"seed": 1}, "seed"),
    ],
)
def test_other_data_are_refused(begun: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"Different: {message}"):
        run_record.check(begun, {}, settings(begun, **changes))


@pytest.mark.parametrize(
    ("compile_options", "options", "message"),
    [
        ({"optimizer": keras.optimizers.Adam(0.5)}, {}, "learning_rate .*is 0.5"),
        ({"optimizer": keras.optimizers.Adam(beta_1=0.5)}, {}, "optimizer.beta_1"),
        ({"optimizer": "sgd"}, {}, "optimizer.class"),
        ({"weighting": "uncertainty"}, {}, "weighting"),
        ({"loss": {"a": "mae"}}, {}, "loss"),
        ({}, {"tasks": [TASKS[0], kmtl.Regression("b", weight=2.0)]}, "tasks"),
        ({}, {"activation": "tanh"}, "layers"),
        ({}, {"dropout": 0.5}, "layers"),
    ],
)
def test_another_model_is_refused(
    begun: Path, compile_options: dict, options: dict, message: str
) -> None:
    changed = made(compile_options, **options)
    with pytest.raises(ValueError, match=f"Different: .*{message}"):
        run_record.check(begun, {}, settings(begun, changed))
    # Not even at the second attempt.
    with pytest.raises(ValueError, match=f"Different: .*{message}"):
        run_record.check(begun, {}, settings(begun, changed))


def test_the_same_in_other_words_is_welcome(begun: Path) -> None:
    order = np.arange(8)[::-1]
    same = made({"optimizer": keras.optimizers.Adam(0.001, name="mine")})
    shuffled = (X[order], {name: labels[order] for name, labels in Y.items()})
    run_record.check(begun, {}, settings(begun, same, data=shuffled))


def test_what_callbacks_change_does_not_count(tmp_path: Path) -> None:
    """A rate that was reduced, and a schedule over more epochs."""

    class Halve(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.optimizer.learning_rate = 0.25

    def fit(built: Any, epochs: int, *callbacks: Any, name: str = "a") -> None:
        fit_run(
            built, (X, Y), folder=tmp_path / name, epochs=epochs,
            callbacks=list(callbacks), verbose=0,
        )  # fmt: skip

    live = made({"optimizer": keras.optimizers.Adam(0.5), "run_eagerly": True})
    fit(live, 1, Halve())
    fit(live, 2)  # the same model goes on with what it has become
    new = made({"optimizer": keras.optimizers.Adam(0.5), "run_eagerly": True})
    fit(new, 3)  # and so does a new one, from the checkpoint
    assert float(new.optimizer.learning_rate) == 0.25
    for steps in (10, 20):
        rate = keras.optimizers.schedules.CosineDecay(0.1, steps)
        adam = keras.optimizers.Adam(rate)
        fit(
            made({"optimizer": adam, "run_eagerly": True}),
            steps // 10,
            name="schedule",
        )
    with pytest.raises(ValueError, match=r"Different: learning_rate"):
        fit(made({"optimizer": keras.optimizers.Adam(0.25)}), 4)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["setting"]["learning_rate"] == 0.5
