"""Runs `kmtl.quickstart` in small, and kills itself where it is told to.

    python quickstart_job.py FOLDER EVENTS TRIALS [KIND STAGE NUMBER]

Every event is appended to the file EVENTS as a line of JSON before anything happens.
At the NUMBER-th event of KIND in STAGE the process is killed, as by `kill -9`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections import Counter

import keras

import kmtl
from kmtl import quickstart
from kmtl.quickstart import job


def main(folder: str, events: str, trials: str, *kill: str) -> None:
    """Run the job on two of the four tasks, with a smaller net."""
    whole = kmtl.data.digits
    kmtl.data.digits = lambda seed: whole(seed).select("ink", "digit")
    job.FILTERS = (4, 6)
    if keras.backend.backend() == "tensorflow":  # as in conftest.py
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    seen: Counter[tuple[str, str]] = Counter()

    def on_event(event: quickstart.Event) -> None:
        with open(events, "a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(event)) + "\n")
        seen[event.kind, event.stage] += 1
        if (
            kill
            and seen[kill[0], kill[1]] == int(kill[2])
            and kill[:2]
            == (
                event.kind,
                event.stage,
            )
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    settings = quickstart.Settings(trials=int(trials), epochs=2)
    quickstart.run(folder, settings, on_event=on_event)


if __name__ == "__main__":
    main(*sys.argv[1:])
