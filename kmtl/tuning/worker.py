"""A process that trains trials for a search: `python -m kmtl.tuning.worker JOB N`.

`search` of a tuner with `workers` starts them, and others after those that end.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

#: Exit status of a worker that has trained its share, to be followed by a fresh one.
RECYCLED = 75


def main(arguments: list[str] | None = None) -> int:
    """Work on a job until the search ends.

    Args:
        arguments: Path of the job file, and the worker's number.

    Returns:
        Exit status: 0 where nothing is left to do, `RECYCLED`, or 1 for an error that
        ends the search; its text is beside the job then.
    """
    path, number = (sys.argv[1:] if arguments is None else arguments)[:2]
    signal.signal(signal.SIGTERM, _leave)
    try:
        with open(path, "rb") as file:
            header = pickle.load(file)
            sys.path[:] = header["path"]
            # Only now: the backend is chosen by the environment, modules by the path.
            job = pickle.load(file)
        import keras

        keras.config.set_dtype_policy(job["dtype_policy"])
        tuner = job["kind"](**job["arguments"])
        finished = tuner.work(job, parent=os.getppid())
    except Exception as error:
        text = f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}"
        Path(f"{path}.error-{number}").write_text(text, encoding="utf-8")
        return 1
    return 0 if finished else RECYCLED


def _leave(number: int, frame: FrameType | None) -> None:
    """End in order: the trial is given back, to go on from its last checkpoint."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
