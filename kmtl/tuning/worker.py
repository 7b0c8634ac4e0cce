"""A process that trains trials for a search: `python -m kmtl.tuning.worker N`.

`search` of a tuner with `workers` starts them, and others after those that end. The job
comes through standard input, and why a worker ends the search goes back through
standard output: nothing of the job is on the disk, where others might read it, or
write what is unpickled here.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from types import FrameType
from typing import BinaryIO

#: Exit status of a worker that has trained its share, to be followed by a fresh one.
RECYCLED = 75
#: Bytes of an error's text, less than any system's pipe holds: nobody reads it before
#: the process has ended.
MOST_BYTES = 8000


def main() -> int:
    """Work on a job until the search ends.

    Returns an exit status: 0 where nothing is left to do, `RECYCLED`, or 1 for an error
    that ends the search; its text goes to the standard output then.
    """
    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)  # what is printed goes to the log
        return work(sys.stdin.buffer, answer)


def work(stream: BinaryIO, answer: BinaryIO) -> int:
    """Do the job that comes from a stream; see `main`."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        leader = pickle.load(stream)["path"]  # on another machine, ours counts too
        sys.path[:] = [*leader, *(path for path in sys.path if path not in leader)]
        # Only now: the backend is chosen by the environment, modules by the path.
        job = pickle.load(stream)
        import keras

        keras.config.set_dtype_policy(job["dtype_policy"])
        tuner = job["kind"](**job["arguments"])
        finished = tuner.work(job, parent=os.getppid())
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".encode()[: MOST_BYTES // 2]
        trace = traceback.format_exc().encode()[-MOST_BYTES // 2 :]
        answer.write(reason + b"\n\n" + trace)
        return 1
    return 0 if finished else RECYCLED


def _leave(number: int, frame: FrameType | None) -> None:
    """End in order: the trial is given back, to go on from its last checkpoint."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
