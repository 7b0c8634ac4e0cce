"""What a search tells while it runs, and the table or the lines that show it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from keras_tuner.engine.trial import TrialStatus
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kmtl import _checks
from kmtl._devices import GIBIBYTE, devices, peak_memory
from kmtl.evaluation.balanced import BALANCED
from kmtl.evaluation.delta import LOG_NAME
from kmtl.tuning.objective import directions, score_log, trial_logs
from kmtl.tuning.points import parameters_of
from kmtl.tuning.study import ENDED, PRUNED
from kmtl.typing import Trial, Tuner, Verbose

#: Least seconds between two drawings: drawing takes time from training.
PAUSE = 0.25
#: Characters of a line; `results()` has all.
MOST_TEXT = 240
#: All kinds of events, in the order in which a search sends them.
KINDS = (
    "search_begin",
    "baselines_begin",
    "baseline_epoch_end",
    "baselines_end",
    "trial_begin",
    "epoch_end",
    "trial_end",
    "search_end",
)
_STYLES = {"COMPLETED": "green", "FAILED": "red", PRUNED: "dim", "RUNNING": "bold"}


@dataclasses.dataclass(frozen=True)
class SearchEvent:
    """One step of a search, as a tuner's `listener` receives it.

    Args:
        kind: One of `kmtl.tuning.display.KINDS`.
        tuner: The tuner.
        trial: The `keras_tuner` trial that begins, trains or has ended: `trial_id`,
            `hyperparameters.values`, `status`, `score`, `message`. None otherwise.
        number: Number of that trial, from 1.
        total: Number of trials of the whole search; None where it is not known.
        epoch: Epochs this training has finished, when an epoch ends.
        epochs: Epochs it will have at most.
        logs: Dict of the epoch's logs, with `"epoch_end"`.
        reason: Why the trial failed, in one line, with `"trial_end"`.
        task: Name of the task, with `"baseline_epoch_end"`.
    """

    kind: str
    tuner: Tuner
    trial: Any = None
    number: int | None = None
    total: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    logs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    reason: str | None = None
    task: str | None = None


def failure_reason(trial: Trial) -> str:
    """Why a trial failed, in one line."""
    lines = (trial.message or "").strip().splitlines()
    return lines[0] if lines else "no reason was recorded"


class SearchTable:
    """A tuner's `listener` that shows how the search gets on.

    On a terminal: trials done, running, stopped early and failed, the time that is
    left, the best value of every task so far, and the latest trials. Elsewhere one line
    for each trial that ends. Tuners use one by themselves unless they have another
    listener or `search(verbose=0)` is asked for.

    Args:
        console: `rich` console. None: one on the standard output.
        latest: Integer >= 0, number of trials in the table. Defaults to 6.

    Example:

    >>> from kmtl.tuning import SearchTable
    >>> table = SearchTable(latest=3)  # RandomSearch(..., listener=table)
    >>> table.close()
    """

    def __init__(self, console: Console | None = None, *, latest: int = 6):
        self.console = Console() if console is None else console
        self.latest = _checks.check_int("latest", latest, 0)
        self._live: Live | None = None
        self._began = self._drawn = 0.0
        self._known: set[str] = set()  # trials that had ended before, or were told of
        self._ended_before = 0
        self._epochs: dict[str, tuple[int, int | None]] = {}
        self._where = ""  # hardware, memory, precision
        self._said = ""  # whether the best trial is better than the first

    def __call__(self, event: SearchEvent) -> None:
        """Take in an event."""
        tuner = event.tuner
        if event.kind == "search_begin":
            self._begin(tuner)
        if event.kind == "epoch_end" and event.trial is not None:
            epochs = (event.epoch or 0, event.epochs)
            self._epochs[event.trial.trial_id] = epochs
        if event.kind == "search_end":
            found = tuner.conclusion()
            self._said = "" if found is None else found.text
        if self.console.is_terminal:
            self._draw(tuner, event.kind != "epoch_end")
        else:
            self._tell(event)
        if event.kind == "search_end":
            self.close()

    def close(self) -> None:
        """Leave the terminal as it was; the last table stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _begin(self, tuner: Tuner) -> None:
        self.close()
        self._began = time.monotonic()
        self._known = {t.trial_id for t in _trials(tuner) if t.status in ENDED}
        self._ended_before = len(self._known)
        self._epochs, self._said = {}, ""
        self._where = devices(memory_growth=False).line

    # -- a line per trial -------------------------------------------------------------

    def _tell(self, event: SearchEvent) -> None:
        tuner = event.tuner
        if event.kind == "baselines_begin":
            self._line("Training single-task models, to compare with")
        # Not only the event's own trial: other processes may have ended some.
        for trial in _trials(tuner):
            if trial.status in ENDED and trial.trial_id not in self._known:
                self._known.add(trial.trial_id)
                self._line(self._sentence(tuner, trial))
        if event.kind == "search_end":
            self._line(self._summary(tuner))
            if self._said:
                self._line(self._said)

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _sentence(self, tuner: Tuner, trial: Trial) -> str:
        number = list(tuner.oracle.trials).index(trial.trial_id) + 1
        total = tuner.oracle.expected_trials
        parts = [  # by its name, as in `results()`
            f"{number}{f'/{total}' if total else ''}",
            f"trial {trial.trial_id}",
            trial.status.lower(),
        ]
        if trial.status == TrialStatus.FAILED:
            parts.append(failure_reason(trial))
        else:
            parts += _scores(tuner, trial_logs(trial))
        best = tuner.oracle.objective.rank(_trials(tuner))
        if best and best[0] is trial:
            parts.append("the best so far")
        parts.append(_values(tuner, trial))
        text = "  ".join(part for part in parts if part)
        return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 2]} …"

    # -- a table ----------------------------------------------------------------------

    def _draw(self, tuner: Tuner, now: bool) -> None:
        moment = time.monotonic()
        if not now and moment - self._drawn < PAUSE:
            return
        self._drawn = moment
        if self._live is None:
            # No thread that refreshes: events are frequent enough.
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()
        self._live.update(self.table(tuner), refresh=True)

    def table(self, tuner: Tuner) -> Group:
        """What is shown on a terminal."""
        parts: list[Any] = [Text(self._summary(tuner), style="bold")]
        best = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("task", "metric", "best", "in trial", "in the best trial"):
            best.add_column(title)
        ways = directions(tuner.tasks)
        ranked = tuner.oracle.objective.rank(_trials(tuner))
        logs = {trial.trial_id: trial_logs(trial) for trial in ranked}
        for task in tuner.tasks:
            name = score_log(task)
            found = {
                key: row[name]
                for key, row in logs.items()
                if not math.isnan(row.get(name, math.nan))
            }
            if found:
                choose = max if ways[name] == "max" else min
                first = choose(found, key=found.__getitem__)
                own = found.get(ranked[0].trial_id, math.nan)
                row = [f"{found[first]:.4g}", first, f"{own:.4g}"]
                best.add_row(task.name, task.score.name, *row)
        if best.row_count:
            parts.append(best)
        latest = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("trial", "status", "epoch", "scores", "values"):
            latest.add_column(title, no_wrap=title != "values")
        trials = _trials(tuner)
        for trial in trials[len(trials) - min(self.latest, len(trials)) :]:
            epoch, epochs = self._epochs.get(trial.trial_id, (None, None))
            text = "" if epoch is None else f"{epoch}{f'/{epochs}' if epochs else ''}"
            failed = trial.status == TrialStatus.FAILED
            scores = _scores(tuner, trial_logs(trial))
            latest.add_row(
                trial.trial_id,
                Text(trial.status.lower(), style=_STYLES.get(trial.status, "")),
                text,
                Text(failure_reason(trial) if failed else ", ".join(scores)),
                Text(_values(tuner, trial), style="dim"),
            )
        if latest.row_count:
            parts.append(latest)
        if self._said:
            parts.append(Text(self._said))
        return Group(*parts)

    def _summary(self, tuner: Tuner) -> str:
        counts = Counter(trial.status for trial in _trials(tuner))
        total = tuner.oracle.expected_trials
        done = counts[TrialStatus.COMPLETED]
        parts = [f"{done}{f'/{total}' if total else ''} trials done"]
        for status, word in (
            (TrialStatus.RUNNING, "running"),
            (PRUNED, "stopped early"),
            (TrialStatus.FAILED, "failed"),
        ):
            if counts[status]:
                parts.append(f"{counts[status]} {word}")
        elapsed = time.monotonic() - self._began
        parts.append(f"{_clock(elapsed)} so far")
        left = self._seconds_left(tuner, counts, elapsed)
        if left is not None:
            parts.append(f"about {_clock(left)} left")
        peak = peak_memory()
        used = f", {peak / GIBIBYTE:.1f} GiB at most" if peak else ""
        return f"{', '.join(parts)} ({self._where}{used})"

    def _seconds_left(
        self, tuner: Tuner, counts: Mapping[str, int], elapsed: float
    ) -> float | None:
        """From the pace of this process's trials, and its deadline."""
        total = tuner.oracle.expected_trials
        ended = sum(counts[status] for status in ENDED)
        here = ended - self._ended_before
        left = math.inf
        if total is not None and here > 0:
            left = max(total - ended, 0) * elapsed / here
        deadline = getattr(tuner, "_deadline", math.inf)
        left = min(left, max(deadline - time.monotonic(), 0.0))
        return left if 0 < left < math.inf else None


@contextlib.contextmanager
def shown(tuner: Tuner, verbose: Verbose) -> Iterator[Any]:
    """Show a search while the block runs, if nobody else does.

    Gives the `verbose` that is left for `fit`.
    """
    own = verbose != 0 and tuner.listener is None
    bars = own and verbose != "auto"  # of `fit`, between which a trial is a line
    if own:
        tuner.listener = SearchTable(Console(force_terminal=False) if bars else None)
    table = tuner.listener if isinstance(tuner.listener, SearchTable) else None
    try:
        yield verbose if table is None or bars else 0
    finally:
        if table is not None:
            table.close()
        if own:
            tuner.listener = None


def _trials(tuner: Tuner) -> list[Any]:
    return list(tuner.oracle.trials.values())


def _scores(tuner: Tuner, logs: Mapping[str, float]) -> list[str]:
    """Every task's score in words, the objective's where they are others."""
    found = []
    names = {score_log(t): f"{t.name} {t.score.name}" for t in tuner.tasks}
    wanted = list(tuner.oracle.objective.names)
    if BALANCED in wanted:
        wanted.append(LOG_NAME)
    for name in wanted:
        names.setdefault(name, name.removeprefix("val_"))
    for name, words in names.items():
        if name in logs:
            value = logs[name]
            text = "no number" if math.isnan(value) else f"{value:.4g}"
            found.append(f"{words} {text}")
    return found


def _values(tuner: Tuner, trial: Trial) -> str:
    """The hyperparameters that count, short."""
    values = parameters_of(tuner.hypermodel, trial.hyperparameters)
    return " ".join(
        f"{name}={f'{value:.3g}' if isinstance(value, float) else value}"
        for name, value in values.items()
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
