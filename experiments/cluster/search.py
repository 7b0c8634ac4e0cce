"""One of many processes that work on one search, on any machine of a cluster.

    python search.py --storage URL --directory FOLDER

URL is that of a database, `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`. All
processes are started with the same command, in any order; each trains one trial at a
time until the search is complete. One that is killed is replaced by starting the
command again: its trial goes on from its checkpoint, here or elsewhere.

With `--ray` it is started once, on any node of a Ray cluster: a worker on every GPU (or
CPU, without GPUs) trains trials, and those that are lost are replaced.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import kmtl


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--storage", required=True, help="URL of a database")
    found.add_argument(
        "--directory", type=Path, required=True, help="folder that all machines see"
    )
    found.add_argument("--name", default="digits", help="name of the search")
    found.add_argument("--trials", type=int, default=200, help="of all processes")
    found.add_argument("--epochs", type=int, default=15)
    found.add_argument("--ray", action="store_true", help="workers on a Ray cluster")
    found.add_argument(
        "--minutes", type=float, help="end before the scheduler does it; go on later"
    )
    return found


def main(arguments: list[str] | None = None) -> Any:
    """Replace data, model and space by yours."""
    options = parser().parse_args(arguments)
    data = kmtl.data.digits()
    hypermodel = kmtl.HyperModel(
        kmtl.build_cnn,
        tasks=data.tasks,
        input_shape=data.input_shape,
        filters=(16, 32, 32),
        seed=0,  # the same in all processes: they work on one search
    )
    tuner = kmtl.Search(
        hypermodel,
        max_trials=options.trials,
        baselines=None,  # every process would train them; `val_mean_score` needs none
        seed=0,
        storage=options.storage,
        directory=options.directory,
        project_name=options.name,
        max_minutes=options.minutes,
        workers="ray" if options.ray else 1,
    )
    tuner.search(data.train, validation_data=data.validation, epochs=options.epochs)
    return tuner


if __name__ == "__main__":
    main().results_summary(3)
