"""Starts and watches the processes that train a search's trials."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import cloudpickle
import keras
from keras_tuner.engine.trial import TrialStatus

from kmtl._devices import cpu_cores
from kmtl.tuning.display import failure_reason
from kmtl.tuning.liveness import FOLDER
from kmtl.tuning.search_data import SearchData
from kmtl.tuning.study import ENDED
from kmtl.tuning.worker import RECYCLED
from kmtl.typing import Tuner

logger = logging.getLogger("kmtl")

POLL_SECONDS = 0.2
#: Seconds that a worker has to end in order.
END_SECONDS = 10.0
#: Workers that may die one after another without an epoch that ends in between.
MOST_DEATHS = 6
LOG_LINES = 20
#: Where the package itself is found; the rest of the path is in a worker's job.
SOURCE = str(Path(__file__).resolve().parents[2])


class Workers:
    """The workers of one call of `search`: `count` processes that do `job`."""

    def __init__(self, tuner: Tuner, count: int, job: Mapping[str, Any]):
        self.tuner = tuner
        self.count = count
        self.folder = Path(tuner.project_dir).absolute() / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        #: `subprocess.Popen`, or what has its verbs.
        self._processes: dict[int, Any] = {}
        self._deaths = 0
        self._watch = Watch(tuner, job["data"].epochs)
        self._job = _pickled(job)

    def run(self) -> None:
        """Work until the search ends, or a worker says why not, or too many die."""
        try:
            for number in range(self.count):
                self._start(number)
            while self._goes_on():
                time.sleep(POLL_SECONDS)
                if self._watch.look():
                    self._deaths = 0
                for number, process in list(self._processes.items()):
                    if process.poll() is not None:
                        self._ended(number, process)
            self._watch.look()
        finally:
            self._stop()

    def _goes_on(self) -> bool:
        return bool(self._processes)

    def _start(self, number: int) -> None:
        with open(self._log(number), "ab") as file:
            process = subprocess.Popen(
                self._command(number),
                env=environment(number, self.count),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,  # Ctrl-C is for this process, which ends them
            )
        self._processes[number] = process
        # In the background: it reads only when it has imported its modules.
        feed = threading.Thread(target=_feed, args=(process.stdin, self._job))
        feed.daemon = True
        feed.start()

    def _command(self, number: int) -> list[str]:
        return [sys.executable, "-m", "kmtl.tuning.worker", str(number)]

    def _log(self, number: int) -> Path:
        return self.folder / f"worker-{number}.log"

    def _name(self, number: int) -> str:
        return f"Worker {number}"

    def _last_lines(self, number: int, process: Any) -> str:
        """What a worker that has died wrote last, and where all of it is."""
        text = self._log(number).read_text("utf-8", "replace")
        lines = "\n".join(text.splitlines()[-LOG_LINES:])
        return f"The last lines of {self._log(number)}:\n{lines}"

    def _ended(self, number: int, process: Any) -> None:
        del self._processes[number]
        status, answer = process.returncode, _last_words(process)
        name = self._name(number)
        if status == 1 and answer:
            reason, _, trace = answer.partition("\n\n")
            raise RuntimeError(f"{name} ended the search. {reason}\n\n{trace}")
        if status == 0:  # nothing is left to begin
            return
        if status != RECYCLED:
            self._deaths += 1
            logger.warning(
                "%s died (status %s); its trial goes on in another.", name, status
            )
        if self._deaths > MOST_DEATHS:
            raise RuntimeError(
                f"{self._deaths} workers died without an epoch that ended. "
                + self._last_lines(number, process)
            )
        self._start(number)

    def _stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _last_words(process)
        self._processes.clear()


def _pickled(job: Mapping[str, Any]) -> bytes:
    """What a worker's standard input is."""
    paths = [path or os.getcwd() for path in sys.path]
    try:
        return pickle.dumps({"path": paths}) + cloudpickle.dumps(dict(job))
    except (TypeError, pickle.PicklingError, AttributeError) as error:
        raise TypeError(
            "With `workers`, the hypermodel, the data and the callbacks go to other "
            "processes. Give arrays, or a function without arguments that makes the "
            "data set there. What cannot be sent: "
            f"{type(error).__name__}: {error}"
        ) from error


def _feed(stream: BinaryIO, job: bytes) -> None:
    with contextlib.suppress(OSError), stream:  # of a worker that has died
        stream.write(job)


def _last_words(process: Any) -> str:
    """What a process that has ended wrote to its standard output."""
    with process.stdout as stream:
        return stream.read().decode("utf-8", "replace")


class Watch:
    """Tells a tuner's listener and display what the study says of its workers."""

    def __init__(self, tuner: Tuner, epochs: int | None):
        self.tuner = tuner
        self.epochs = epochs
        self._told: dict[str, int] = {}
        self._over = {
            trial_id
            for trial_id, trial in tuner.oracle.trials.items()
            if trial.status in ENDED
        }

    def look(self) -> bool:
        """Tell what is new: whether a trial has ended or gone on."""
        tuner, news = self.tuner, False
        tuner.oracle.refresh()
        for trial_id, trial in list(tuner.oracle.trials.items()):
            if trial_id in self._over:
                continue
            if trial_id not in self._told:
                self._told[trial_id] = 0
                tuner._emit("trial_begin", trial)
            for epoch, logs in self._news(trial_id):
                news = True
                tuner.emit_epoch(trial, epoch, logs, self.epochs)
            if trial.status in ENDED:
                news = True
                self._over.add(trial_id)
                failed = trial.status == TrialStatus.FAILED
                reason = failure_reason(trial) if failed else None
                if reason:
                    logger.warning("Trial %s failed: %s", trial_id, reason)
                tuner._emit("trial_end", trial, reason=reason)
        return news

    def _news(self, trial_id: str) -> Iterator[tuple[int, dict[str, float]]]:
        rows = [
            (epoch, logs)
            for curve in self.tuner.oracle.curves(trial_id).values()
            for epoch, logs in enumerate(curve)
        ]
        told = self._told[trial_id]
        self._told[trial_id] = max(told, len(rows))
        yield from rows[told:]


def job_of(tuner: Tuner, data: SearchData) -> dict[str, Any]:
    """What workers need to know to train trials on these data."""
    given = dict(tuner._made_with)
    given.pop("overwrite", None)  # the search's, not a worker's
    if given["population"] == "auto":
        given["population"] = 1  # they are side by side already
    given["directory"] = str(Path(tuner.directory).absolute())
    given["project_name"] = tuner.project_name
    minutes = math.inf if tuner.max_minutes is None else tuner.max_minutes
    return {
        "kind": type(tuner),
        "baselines": tuner.baselines,
        "common_scale": tuner.common_scale,
        "arguments": given,
        "data": data,
        "folds": tuner._folds,
        "executions_per_trial": tuner.executions_per_trial,
        "recycle_after": tuner.recycle_after,
        "until": time.time() + 60 * minutes,
        "dtype_policy": keras.config.dtype_policy().name,
    }


def visible_gpus() -> list[str]:
    """The GPUs that workers may have, as `CUDA_VISIBLE_DEVICES` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=uuid", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    if answer.returncode:
        logger.warning("nvidia-smi failed: %s", answer.stderr.strip() or "no reason")
        return []
    return answer.stdout.split()


def environment(number: int, count: int) -> dict[str, str]:
    """Environment of a worker: its GPU, its share of the cores."""
    gpus = visible_gpus()
    env = {**shares(cpu_cores() // count, count > max(1, len(gpus))), **os.environ}
    env["KERAS_BACKEND"] = keras.backend.backend()
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [SOURCE, env.get("PYTHONPATH")]))
    if gpus:
        env["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return env


def shares(cores: float, one_of_several: bool) -> dict[str, str]:
    """What a machine's own environment may say otherwise, for so many cores.

    `one_of_several` processes on one device.
    """
    threads = str(max(1, int(cores)))
    found = {
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "TF_NUM_INTRAOP_THREADS": threads,
        "OMP_NUM_THREADS": threads,
    }
    if one_of_several:
        found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    return found
