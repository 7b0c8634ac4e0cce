"""One short line per epoch."""

from __future__ import annotations

import math
import shutil
import sys
import time
from typing import Any

import keras

from kmtl.typing import Callbacks, Logs, Verbose

#: Lines of a whole training where nobody watches: in a file, a pipe.
LINES = 10
_WIDTH = 8
#: Characters above a column, at most: of a long name of a task both ends.
_LONGEST = 28
#: Characters of a line in a file or a pipe, and of a terminal that does not say.
_IN_FILES, _UNKNOWN = 240, 100_000
#: Seconds between two signs of life within an epoch, on a terminal.
_APART = 0.5
#: Back to the beginning of a terminal's line, which becomes empty.
_CLEAR = "\r\x1b[K"


class Progress(keras.callbacks.Callback):
    """Prints one line per epoch: the loss, each task's first metric, the time left.

    The numbers are those of the validation data, where there are some. `model.fit` adds
    it by default; `verbose=1` is Keras' bar, and `verbose=2` a line of all logs. A
    terminal shows the step within an epoch as well. Into a file or a pipe it prints ten
    lines in all, of at most 240 characters. Where there is no room for all tasks these
    are the first ones, and how many there are besides; long names lose their middle.

    Args:
        stream: Where to, an open text file. Defaults to `sys.stdout`.

    Example:

    >>> model = kmtl.build_mlp(
    ...     input_shape=(2,), tasks=[kmtl.Regression("size")], units=(4,), seed=0
    ... )
    >>> model.compile("sgd")
    >>> x, y = np.zeros((8, 2)), {"size": np.ones(8)}
    >>> history = model.fit(x, y, epochs=2)  # doctest: +ELLIPSIS
    epoch      loss  size mae      left
      1/2...
      2/2...
    """

    def __init__(self, stream: Any = None):
        super().__init__()
        self.stream = stream

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._columns: list[tuple[str, str]] = []
        self._began = time.monotonic()
        self._done = 0
        self._logs: tuple[int, Logs] | None = None
        self._epoch, self._told, self._line = 0, self._began, False

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    # Of the begin: at the end of a batch Keras fetches its logs, for which it waits.
    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        now = time.monotonic()
        if now - self._told < _APART or not self._out().isatty():
            return
        self._told, self._line = now, True
        steps = self.params.get("steps")
        of = f"/{steps}" if steps else ""
        place = f"{self._epoch + 1}/{self.params['epochs']}"
        self._out().write(f"{_CLEAR}epoch {place}, step {batch + 1}{of}")
        self._out().flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._clear()

    def _clear(self) -> None:
        """Take away the line of the step."""
        if self._line:
            self._out().write(_CLEAR)
            self._line = False

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._done += 1
        self._clear()
        self._logs = (epoch, dict(logs or {}))
        epochs = self.params["epochs"]
        apart = 1 if self._out().isatty() else math.ceil(epochs / LINES)
        if epoch % apart == 0 or epoch + 1 == epochs or self.model.stop_training:
            self._write()

    def _out(self) -> Any:
        return sys.stdout if self.stream is None else self.stream

    def _write(self) -> None:
        if self._logs is None:
            return
        epoch, logs = self._logs
        epochs = self.params["epochs"]
        lines = []
        place = f"{epoch + 1}/{epochs}"
        width = max(len("epoch"), 2 * len(str(epochs)) + 1)
        if not self._columns:
            self._columns = self._fitting(self._found(logs), width)
            names = [f"{name:>{_width(name)}}" for _, name in self._columns]
            lines.append("  ".join([f"{'epoch':>{width}}", *names, f"{'left':>8}"]))
        cells = [
            f"{_number(logs.get(log)) if log else '':>{_width(name)}}"
            for log, name in self._columns
        ]
        each = (time.monotonic() - self._began) / self._done
        left = 0 if self.model.stop_training else epochs - epoch - 1
        lines.append(
            "  ".join([f"{place:>{width}}", *cells, f"{_clock(left * each):>8}"])
        )
        self._out().write("\n".join(lines) + "\n")
        self._out().flush()

    def _fitting(
        self, columns: list[tuple[str, str]], first: int
    ) -> list[tuple[str, str]]:
        """As many columns as there is room for, and how many tasks are left."""
        room = _IN_FILES
        if self._out().isatty():
            room = shutil.get_terminal_size((_UNKNOWN, 0)).columns
        room -= first + 2 + _WIDTH  # the time left, in the end
        ends = columns[:1] + columns[1 + len(self.model.task_names) :]
        tasks = columns[1 : 1 + len(self.model.task_names)]
        count = len(tasks)

        def fits(shown: list[tuple[str, str]]) -> bool:
            return sum(_width(name) + 2 for _, name in shown) <= room

        def shown() -> list[tuple[str, str]]:
            left = len(tasks) - count
            more = [("", f"+{left} tasks")] if left else []
            return [*ends[:1], *tasks[:count], *more, *ends[1:]]

        while count > 1 and not fits(shown()):
            count -= 1
        return shown()

    def _found(self, logs: Logs) -> list[tuple[str, str]]:
        """`(log, what stands above it)`."""
        seen = "val_" if any(name.startswith("val_") for name in logs) else ""
        columns = [(f"{seen}loss", "loss")]
        for task in self.model.tasks:
            log = f"{seen}{task.name}_{task.score.name}"
            columns.append((log, _title(task.name, task.score.name)))
        if "val_delta_m" in logs:
            columns.append(("val_delta_m", "delta m"))
        return columns


def shown(verbose: Verbose, callbacks: Callbacks) -> tuple[Verbose, Callbacks]:
    """`fit`'s `verbose` and `callbacks`, with a `Progress` behind the others."""
    if verbose not in ("auto", "tasks"):
        return verbose, callbacks
    if isinstance(callbacks, keras.callbacks.CallbackList):
        if verbose == "auto":  # Keras adds nothing to one, either
            return verbose, callbacks
        raise ValueError(
            '`verbose="tasks"` needs `callbacks` as a list; into a CallbackList put '
            "kmtl.training.Progress() yourself. Received: a CallbackList"
        )
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    return 0, [*(callbacks or ()), Progress()]


def _title(task: str, metric: str) -> str:
    room = max(_LONGEST - len(metric) - 1, _WIDTH)
    if len(task) > room:  # long names are often alike at one of their ends
        task = f"{task[: room // 2]}..{task[room // 2 + 2 - room :]}"
    return f"{task} {metric}"


def _width(name: str) -> int:
    return max(_WIDTH, len(name))


def _number(value: Any) -> str:
    return "-" if value is None or math.isnan(value) else f"{float(value):.4g}"


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
