"""One short line per epoch."""

from __future__ import annotations

import io

import keras
import numpy as np
import pytest

import kmtl
from kmtl.training import Progress
from kmtl.training.progress import _clock, shown

TASKS = [
    kmtl.Classification("digit", classes=3),
    kmtl.BinaryClassification("odd"),
    kmtl.Regression("ink"),
    kmtl.Regression("unlabelled", auxiliary=True),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def model():
    model = kmtl.build_mlp(input_shape=(2,), tasks=TASKS, units=(2,), seed=0)
    model.compile("sgd", run_eagerly=True)
    return model


def run(model, stream, epochs, **more):
    progress = Progress(stream)
    progress.set_model(model)
    progress.set_params({"epochs": epochs})
    model.stop_training = False
    progress.on_train_begin()
    logs = {"loss": 9.0, "val_loss": 0.123456, "val_digit_accuracy": 0.5}
    logs |= {"val_odd_auc": 0.75, "val_ink_mae": 2.0, "val_unlabelled_mae": np.nan}
    if "odd" in model.task_names:
        logs["val_odd_" + model.task("odd").score.name] = 0.75
    for epoch in range(epochs):
        progress.on_epoch_end(epoch, {**logs, **more})
    return stream.getvalue().splitlines()


def test_a_line_fits_into_the_terminal(model, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "61")
    lines = run(model, Terminal(), 2, val_delta_m=1.5)
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) == 61
    assert lines[0].split() == (
        ["epoch", "loss", "digit", "accuracy", "+3", "tasks", "delta", "m", "left"]
    )
    assert lines[-1].split() == ["2/2", "0.1235", "0.5", "1.5", "0:00"]
    assert len(run(model, io.StringIO(), 2)[0]) > 61  # files are not that narrow


def test_a_column_per_task(model, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = run(model, Terminal(), 3, val_delta_m=1.5)
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) < 110
    odd = model.task("odd").score.name
    names = ["epoch", "loss", "digit accuracy", f"odd {odd}", "ink mae"]
    at = 0
    for name in [*names, "unlabelled mae", "delta m", "left"]:
        at = lines[0].index(name, at) + len(name)
    cells = lines[-1].split()
    assert cells == ["3/3", "0.1235", "0.5", "0.75", "2", "-", "1.5", "0:00"]


def test_lines_of_files_are_short_too() -> None:
    names = [f"a_name_that_goes_on_and_on_and_on_{i}" for i in range(20)]
    tasks = [kmtl.Regression(name) for name in names]
    many = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(2,), seed=0)
    many.compile("sgd", run_eagerly=True)
    logs = {f"val_{name}_mae": 2.0 for name in names}
    header, *lines = run(many, io.StringIO(), 3, **logs)
    assert {len(line) for line in [header, *lines]} == {len(header)}
    assert len(header) <= 240
    shown = sum(header.count(f"a_name_that_..n_and_on_{i} mae") for i in range(10))
    assert shown >= 5
    assert f"+{20 - shown} tasks" in header
    assert lines[-1].split()[2 : 2 + shown] == ["2"] * shown
    assert "\n".join([header, *lines]).isascii()  # as some files and pipes must be


@pytest.mark.parametrize(("epochs", "lines"), [(5, 5), (100, 11)])
def test_few_lines_where_nobody_watches(model, epochs, lines) -> None:
    found = run(model, io.StringIO(), epochs)
    assert len(found) == 1 + lines
    assert found[1].split()[0] == f"1/{epochs}"
    assert found[-1].split()[0] == f"{epochs}/{epochs}"


def test_clock() -> None:
    assert [_clock(s) for s in (0, 59.4, 61, 3661)] == [
        "0:00",
        "0:59",
        "1:01",
        "1:01:01",
    ]


def test_what_fit_makes_of_verbose() -> None:
    assert shown(1, None) == (1, None)
    other = keras.callbacks.TerminateOnNaN()
    given = keras.callbacks.CallbackList()
    assert shown("auto", given) == ("auto", given)
    verbose, callbacks = shown("auto", other)
    assert verbose == 0
    assert callbacks[0] is other
    assert isinstance(callbacks[1], Progress)
    with pytest.raises(ValueError, match="CallbackList"):
        shown("tasks", keras.callbacks.CallbackList())


def test_a_line_per_epoch_is_what_fit_shows_by_default(model, capsys) -> None:
    x = np.zeros((4, 2), "float32")
    y = {"digit": [0, 1, 2, 0], "odd": [0, 1, 0, 1], "ink": [0.0] * 4}
    model.fit(x, {**y, "unlabelled": [0.0] * 4}, epochs=2, batch_size=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "1/2", "2/2"]
    assert max(map(len, lines)) < 100


def test_a_terminal_shows_the_step_until_the_epoch_ends(model, monkeypatch) -> None:
    stream, clock = Terminal(), iter(np.arange(20.0))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress(stream)
    progress.set_model(model)
    progress.set_params({"epochs": 2, "steps": 9})
    progress.on_train_begin()
    progress.on_epoch_begin(1)
    progress.on_train_batch_begin(3)
    assert stream.getvalue() == "\r\x1b[Kepoch 2/2, step 4/9"
    progress.on_epoch_end(1, {"loss": 1.0})
    assert "step 4/9\r\x1b[Kepoch " in stream.getvalue()
    progress.on_train_end()
    assert not stream.getvalue().endswith("\x1b[K")
    quiet = Progress(io.StringIO())
    quiet.set_params({"epochs": 2, "steps": 9})
    quiet.on_train_begin()
    quiet.on_train_batch_begin(3)
    assert quiet.stream.getvalue() == ""
