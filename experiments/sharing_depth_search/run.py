"""Sharing depth, dropout and task weights: what a search finds, and what it is worth.

    python experiments/sharing_depth_search/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `mnist` with MNIST's four files and `nyuv2` (see
scenes.py). Each side, from single-task models to balancing methods, has the same
budget: a random search of the same number of trials and epochs, then its best trials
once more on fresh seeds to find its winner. Only when all winners are known they are
trained on the final seeds and tested. A finished search or final run is a line of
runs_default.jsonl; the same command goes on where it stopped, also within a search.
README.md, results.json and the figures are written from these lines.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common

import common
import keras
import keras_tuner
import problems
import report

import kmtl
from kmtl.evaluation import DeltaM

HERE = Path(__file__).resolve().parent
SEARCH_SEED = 0
FIRST_FINAL_SEED = 1_000  # not one of a search or of a confirmation
DEFAULT = {
    "multimnist": {
        "sizes": (8_000, 2_000, 10_000),
        "epochs": 5,
        "trials": 16,
        "batch_size": 256,
    },
    "scenes": {"sizes": (640, 155, 654), "epochs": 10, "trials": 12, "batch_size": 16},
    "sides": None,  # all
    "confirmed": 2,  # best trials of a search that are trained again,
    "confirmations": 2,  # on so many fresh seeds each
    "seeds": (0, 1, 2),
}
FULL = {
    **DEFAULT,
    "multimnist": {
        "sizes": (50_000, 10_000, 10_000),
        "epochs": 20,
        "trials": 40,
        "batch_size": 256,
    },
    "scenes": {"sizes": (640, 155, 654), "epochs": 60, "trials": 40, "batch_size": 16},
    "confirmed": 4,
    "confirmations": 3,
    "seeds": (0, 1, 2, 3, 4),
}
FAST = {
    "sides": ("single_left", "single_right", "single_kind", "single_depth")
    + ("searched", "equal"),
    "multimnist": {"sizes": (64, 32, 32), "epochs": 1, "trials": 2, "batch_size": 32},
    "scenes": {"sizes": (16, 8, 8), "epochs": 1, "trials": 2, "batch_size": 8},
    "confirmed": 1,
    "confirmations": 1,
    "seeds": (0, 1),
}


class Lines(common.Runs):
    """Finished parts, in a file with one line of JSON each."""

    KEY = ("problem", "side", "seed")
    PACKAGES = ("keras-tuner",)

    def search(self, problem: str, side: str) -> dict[str, Any] | None:
        return self.found.get((problem, side, None))

    def final(self, problem: str, side: str, seed: int) -> dict[str, Any] | None:
        return self.found.get((problem, side, seed))

    def baselines(self, problem: str, tasks: Any) -> dict[str, float]:
        """Validation scores of the single-task winners, means over fresh seeds."""
        found = {}
        for name in tasks:
            search = self.search(problem, f"single_{name}")
            if search is None:
                raise ValueError(f"The single-task model of '{name}' comes first.")
            found[name] = search["confirmed"][0][search["scores"][name]]
        return found


def plain(rows: Any) -> list[dict[str, Any]]:
    """Rows of a table as JSON takes them."""
    kept = []
    for row in json.loads(rows.reset_index().to_json(orient="records")):
        kept.append({k: v for k, v in row.items() if k != "reason"})
    return kept


def search(
    problem: problems.Problem,
    side: problems.Side,
    lines: Lines,
    settings: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Search, confirm, and say what won."""
    began, used = time.perf_counter(), time.process_time()
    own = settings[problem.name]
    single = len(side.tasks) == 1
    task = problem.tasks[side.tasks[0]]
    tuner = kmtl.RandomSearch(
        problem.hypermodel(side, SEARCH_SEED),
        f"val_{task.name}_{task.score.name}" if single else "val_delta_m",
        max_trials=own["trials"],
        baselines=None if single else lines.baselines(problem.name, side.tasks),
        seed=SEARCH_SEED,
        directory=str(folder / problem.name),
        project_name=side.name,
    )
    x, y = problem.part(0, side)
    fit = {
        "validation_data": problem.part(1, side),
        "epochs": own["epochs"],
        "batch_size": own["batch_size"],
    }
    tuner.search(x, y, verbose=0, **fit)
    confirmed = tuner.confirm(
        x,
        y,
        num_trials=settings["confirmed"],
        seeds=settings["confirmations"],
        **fit,
    )
    table = tuner.results(all_columns=True)
    return {
        "problem": problem.name,
        "side": side.name,
        "seed": None,
        "trials": plain(table),
        "hyperparameters": table.attrs["hyperparameters"],
        "objective": table.attrs["objectives"][0],
        "directions": table.attrs["directions"],
        "scores": table.attrs["scores"],
        "front": list(tuner.pareto_front().members),
        "confirmed": plain(confirmed.summary),
        "winner": confirmed.winner,
        "values": dict(confirmed.hyperparameters.values),
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
    }


def final(
    problem: problems.Problem,
    side: problems.Side,
    seed: int,
    lines: Lines,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Train a side's winner from a new seed; validation chooses the epoch, as ever."""
    began, used = time.perf_counter(), time.process_time()
    found = lines.search(problem.name, side.name)
    if found is None:
        raise ValueError(f"The search of '{side.name}' comes first.")
    hypermodel = problem.hypermodel(side, FIRST_FINAL_SEED + seed)
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    hp.values.update(found["values"])
    callbacks: list[Any] = []
    if len(side.tasks) > 1:
        baselines = lines.baselines(problem.name, side.tasks)
        callbacks.append(DeltaM(baselines, hypermodel.tasks))
    own = settings[problem.name]
    objective = found["objective"]
    callbacks.append(
        keras.callbacks.EarlyStopping(
            objective,
            patience=own["epochs"],  # stops nothing, keeps the best weights
            mode=found["directions"][objective],
            restore_best_weights=True,
        )
    )
    model = hypermodel.build(hp)
    x, y = problem.part(0, side)
    hypermodel.fit(
        hp,
        model,
        x,
        y,
        validation_data=problem.part(1, side),
        epochs=own["epochs"],
        batch_size=own["batch_size"],
        callbacks=callbacks,
        verbose=0,
    )
    scores = [
        kmtl.evaluate(model, problem.part(place, side)).scores for place in (1, 2)
    ]
    return {
        "problem": problem.name,
        "side": side.name,
        "seed": seed,
        "validation": scores[0],
        "test": scores[1],
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
    }


def train(
    made: list[problems.Problem], lines: Lines, settings: dict[str, Any], folder: Path
) -> None:
    """What is not done yet. A test part is read when all choices are made."""
    for problem in made:
        sides = [
            side
            for side in problem.sides()
            if settings["sides"] is None or side.name in settings["sides"]
        ]
        for side in sides:
            if lines.search(problem.name, side.name) is None:
                part = search(problem, side, lines, settings, folder)
                lines.add(part)
                show(part)
        for side in sides:
            for seed in settings["seeds"]:
                if lines.final(problem.name, side.name, seed) is None:
                    part = final(problem, side, seed, lines, settings)
                    lines.add(part)
                    show(part)


def show(part: dict[str, Any]) -> None:
    names = ("problem", "side", "seed", "values", "test", "seconds")
    text = {name: part[name] for name in names if part.get(name) is not None}
    print(json.dumps(text), flush=True)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(
        __doc__, HERE, "mnist and nyuv2", full="about 18 hours of a core"
    )
    parser.add_argument("--problems", nargs="*", choices=list(problems.PROBLEMS))
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    settings = {"full": FULL, "fast": FAST, "default": DEFAULT}[kind]
    lines = Lines(options.out / f"runs_{kind}.jsonl")
    if not options.report:
        data_dir = options.data
        if data_dir is None and os.environ.get("KMTL_DATA_DIR"):
            data_dir = Path(os.environ["KMTL_DATA_DIR"])
        made = [
            problems.PROBLEMS[name](settings[name]["sizes"], data_dir, options.fast)
            for name in options.problems or problems.PROBLEMS
        ]
        train(made, lines, settings, options.out / f"searches_{kind}")
    record = common.record_of(kind, settings, lines.found.values())
    record |= {
        "command": "python experiments/sharing_depth_search/run.py"
        + (f" --{kind}" if kind != "default" else ""),
    }
    return report.write(record, lines.found.values(), options.out)


if __name__ == "__main__":
    main()
