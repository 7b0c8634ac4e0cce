"""Does a small student learn more from teachers than from labels alone?

    python experiments/teacher_student/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `mtr/enb.arff.gz`. Each finished run is a line of
runs_default.jsonl; the same command goes on where it stopped. README.md and
results.json are written from the finished runs. Runs on JAX.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

sys.path.append(str(Path(__file__).resolve().parents[1]))  # common
sys.path.append(str(Path(__file__).resolve().parents[1] / "ensembles"))  # its data

import common
import data
import keras
import numpy as np
from common import table

import kmtl
from kmtl.training.batches import ShuffledBatches

HERE = Path(__file__).resolve().parent
REFERENCE = "student, labels alone"
METHODS = (
    REFERENCE,
    "student, labels and teachers",
    "student, labels, teachers and features",
    "teachers, one per task",
    "merged students of one task",
)
DEFAULT = {
    "data": ("digits", "enb"),
    "seeds": (0, 1, 2, 3, 4),
    "labels": 0.2,
    "teacher": 128,
    "student": 16,
    "epochs": 60,
    "rate": 0.003,
    "batch_size": 32,
    "temperature": 2.0,
}
FAST = {
    **DEFAULT,
    "data": ("digits",),
    "seeds": (0,),
    "teacher": 6,
    "student": 4,
    "epochs": 1,
    "batch_size": 512,
}
TEXT = """# Teachers and a student

Written by `run.py`; do not edit.

Teachers are nets of one task each, two layers of {teacher} units, trained on all
labels. The student is one net of all tasks, two layers of {student} units, that is
given a share of {labels} of the labels of each task, and, with teachers, what these
say of every row (`kmtl.distill`, temperature {temperature}), with features 0.5 of the
weight besides. `merged`: students of one task each, on the labels that the student
has, averaged by `kmtl.merge`. Adam({rate}), batches of {batch_size}, {epochs} epochs.

`error`: mean over tasks, in %, on the test part: of classes those not recognised, of
values the share of the variance not explained. `gain`: how much lower it is than that
of the student with labels alone, division by division of the data. Means ± half of
the 95 % interval. Above 100: a value is told worse than by the mean of its labels. That
teachers know more labels is the point: a student may learn from a model whose labels
are not to be had. Nothing is tuned. `merged` is what a merge is not made for: nets
that trained long from one beginning, and not a little from one trained model."""


def thinned(part: data.Part, share: float, seed: int) -> data.Part:
    """Labels of a share of the rows, other rows for each task."""
    rng = np.random.default_rng(seed)
    y = {}
    for name, labels in part.y.items():
        labels = labels.astype("float64").copy()
        labels[rng.permutation(len(labels))[round(share * len(labels)) :]] = np.nan
        y[name] = labels
    return data.Part(part.x, y)


class Lessons:
    """The nets of one division of the data."""

    def __init__(self, found: data.Set, seed: int, settings: dict[str, Any]):
        self.found, self.seed, self.settings = found, seed, settings
        self.few = thinned(found.parts["train"], settings["labels"], seed)
        self._teachers: list | None = None

    def net(self, tasks: Any, units: int) -> Any:
        return kmtl.build_mlp(
            tasks=tasks, units=(units, units), input_shape=self.few.x.shape[1:],
            dropout=None, seed=self.seed,
        )  # fmt: skip

    def trained(self, model: Any, x: Any, y: Any) -> Any:
        model.compile(keras.optimizers.Adam(self.settings["rate"]))
        size = self.settings["batch_size"]
        batches = ShuffledBatches(x, y, batch_size=size, seed=self.seed)
        epochs = self.settings["epochs"]
        model.fit(batches, epochs=epochs, shuffle=False, verbose=0)
        return model

    def singles(self, part: data.Part, units: int) -> list:
        return [
            self.trained(
                self.net([task], units), part.x, {task.name: part.y[task.name]}
            )
            for task in self.found.tasks
        ]

    @property
    def teachers(self) -> list:
        if self._teachers is None:
            whole = self.found.parts["train"]
            self._teachers = self.singles(whole, self.settings["teacher"])
        return self._teachers

    def run(self, method: str) -> tuple[float, int]:
        """Error in the test part, and the number of parameters."""
        test, small = self.found.parts["test"], self.settings["student"]
        if method == "teachers, one per task":
            errors = [
                data.error(model, data.Part(test.x, {name: test.y[name]}))
                for model in self.teachers
                for name in model.task_names
            ]
            return float(np.mean(errors)), sum(m.count_params() for m in self.teachers)
        if method == "merged students of one task":
            model = kmtl.merge(self.singles(self.few, small))
            return data.error(model, test), model.count_params()
        student = self.net(self.found.tasks, small)
        if method == REFERENCE:
            self.trained(student, self.few.x, self.few.y)
        else:
            taught = kmtl.distill(
                student,
                self.teachers,
                (self.few.x, self.few.y),
                temperature=self.settings["temperature"],
                features=0.5 if "features" in method else 0.0,
            )
            self.trained(taught.model, *taught.data[:2])
        return data.error(student, test), student.count_params()


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(__doc__, HERE, "mtr/enb.arff.gz")
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    settings = FAST if options.fast else DEFAULT
    runs = table.Runs(options.out / f"runs_{kind}.jsonl")
    for name in () if options.report else settings["data"]:
        for seed in settings["seeds"]:
            lessons = None
            for method in METHODS:
                if (name, method, seed) in runs.found:
                    continue
                began = time.perf_counter()
                if lessons is None:
                    found = data.load(name, seed, options.data)
                    lessons = Lessons(found, seed, settings)
                error, parameters = lessons.run(method)
                seconds = round(time.perf_counter() - began, 1)
                key = {"data": name, "method": method, "seed": seed}
                columns = {"parameters": parameters}
                runs.add(
                    {**key, "error": error, "seconds": seconds, "columns": columns}
                )
                print(name, method, seed, round(error, 3), seconds, flush=True)
    return table.write(
        runs, kind, settings, METHODS, REFERENCE, TEXT, HERE.name, options.out
    )


if __name__ == "__main__":
    main()
