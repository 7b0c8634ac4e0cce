"""What `kmtl.Recipe`'s learning rate was chosen by.

    python experiments/tables/recipe.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `mtr`, `chem` and `multitask_classic`; other tables
come with scikit-learn, and with statsmodels (`pip install statsmodels`). Finished nets
are lines of runs_recipe.jsonl, and the same command goes on where it stopped. RECIPE.md
and recipe.json are written from them. `--fast` takes one table of scikit-learn's.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common

import data
import kmtl_side
import numpy as np
import pandas as pd
from common import kind_of, made_by, parser, record_of, table
from sides import SIDES, Problem

import kmtl
from kmtl._files import write_json, write_text

Rows = tuple[pd.DataFrame, np.ndarray, str]

#: Column of the table -> trunk and arguments of the recipe. The first is the reference.
NETS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rate .01": ("tabular", {"learning_rate": 0.01}),
    "rate .007": ("tabular", {"learning_rate": 0.007}),
    "rate .005": ("tabular", {"learning_rate": 0.005}),
    "rate .003": ("tabular", {"learning_rate": 0.003}),
    "eight members, .005": ("ensemble", {"learning_rate": 0.005}),
    "eight members, .01": ("ensemble", {"learning_rate": 0.01}),
}
OTHERS = ("linear", "forest")
SETTINGS = {
    "default": {"divisions": (50, 51), "epochs": kmtl.Recipe().epochs},
    "fast": {"divisions": (50,), "epochs": 2},
}
WORDS = """# What the learning rate of `kmtl.Recipe` was chosen by

Written by `recipe.py`; do not edit.

Tables that `run.py` has not, and some that defaults were tuned on before ({tuned}),
divided at random as there, {divisions} divisions of their own. Errors on the test rows:
mean over the tasks of the root mean squared error over that of predicting the training
mean, or of classes 1 - the area under the ROC curve; mean over the divisions. The nets
are `kmtl.build(backbone=..., ...)` and `kmtl.Recipe(learning_rate=...)`, nothing else
set; "eight members" is `backbone="ensemble"`. "Over .01": logarithm of the ratio of
errors, division by division, in %: median and mean (below 0 is better; the few errors
of `breast_cancer` make large ratios). `kmtl.Recipe` takes .005 for fewer than 2,000
training rows and .01 for more (here `fair`, `randhie` and `parkinsons`). So it does for
members: .01 is better for them on `enb`, whose targets have little noise, and worse on
the two tables of classes.
"""


# -- tables ----------------------------------------------------------------------------


def mulan(name: str, targets: int) -> Callable[[Path], Rows]:
    def load(folder: Path) -> Rows:
        x, y = data._mulan(folder / "mtr" / f"{name}.arff.gz", targets)
        return x, y, "regression"

    return load


def molecules(name: str, kind: str, rows: int) -> Callable[[Path], Rows]:
    """Fingerprints of molecules drawn at random."""

    def load(folder: Path) -> Rows:
        x, y = data._molecules(folder / "chem" / f"{name}_ecfp1024.npz")
        drawn = np.random.default_rng(0).permutation(len(x))[:rows]
        return x.iloc[drawn], np.asarray(y, float)[drawn], kind

    return load


def bundled(name: str, kind: str) -> Callable[[Path], Rows]:
    def load(folder: Path) -> Rows:
        from sklearn import datasets

        found = getattr(datasets, f"load_{name}")(as_frame=True)
        return found.data, found.target.to_numpy(float)[:, None], kind

    return load


def studies(name: str, kind: str, *targets: str) -> Callable[[Path], Rows]:
    """Of statsmodels; counts as their logarithms."""

    def load(folder: Path) -> Rows:
        from statsmodels import datasets

        frame = getattr(datasets, name).load_pandas().data.astype(float)
        y = frame[list(targets)].to_numpy()
        return frame.drop(columns=list(targets)), np.log1p(y), kind

    return load


def schools(folder: Path) -> Rows:
    """Shares of pupils above the median, in Californian districts."""
    from statsmodels.datasets import star98

    frame = star98.load_pandas().data.astype(float)
    above, below = frame.pop("NABOVE"), frame.pop("NBELOW")
    return frame, (above / (above + below)).to_numpy()[:, None], "regression"


def solubility(folder: Path) -> Rows:
    frame = pd.read_csv(folder / "chem" / "delaney-processed.csv")
    numbers = frame.select_dtypes("number").astype(float)
    target = next(name for name in numbers if "measured" in name)
    return numbers.drop(columns=target), numbers[[target]].to_numpy(), "regression"


def pupils(folder: Path) -> Rows:
    path = folder / "multitask_classic" / "student-mat.csv"
    frame = pd.read_csv(path, sep=None, engine="python")
    grades = ["G1", "G2", "G3"]
    x = frame.drop(columns=grades)
    kinds = {c: float if x[c].dtype.kind in "if" else "category" for c in x}
    return x.astype(kinds), frame[grades].to_numpy(float), "regression"


SETS: dict[str, Callable[[Path], Rows]] = {
    "diabetes": bundled("diabetes", "regression"),
    "breast_cancer": bundled("breast_cancer", "binary"),
    "atp1d": mulan("atp1d", 6),
    "oes10": mulan("oes10", 16),
    "edm": mulan("edm", 2),
    "slump": mulan("slump", 3),
    "student_mat": pupils,
    "esol": solubility,
    "clintox": molecules("clintox", "binary", 1480),
    "qm8": molecules("qm8", "regression", 3000),
    "star98": schools,
    "fair": studies("fair", "regression", "affairs", "rate_marriage"),
    "randhie": studies("randhie", "regression", "mdvis"),
}
#: Of `run.py`'s.
TUNED = ("enb", "osales", "parkinsons")
SETS |= {name: lambda folder, name=name: data.load(name, folder) for name in TUNED}
#: Rows of a table, drawn at random.
MOST = 4000


# -- nets ------------------------------------------------------------------------------


def problem(name: str, folder: Path, number: int) -> tuple[Problem, np.ndarray]:
    x, y, kind = SETS[name](folder)
    drawn = np.random.default_rng(0).permutation(len(x))[:MOST]
    x, y = x.iloc[drawn].reset_index(drop=True), y[drawn]
    x.columns = [f"x{i}" for i in range(x.shape[1])]
    train, validation, test = data.split(len(x), number)
    return Problem(x, y, kind, train, validation), test


def error(given: Problem, test: np.ndarray, found: np.ndarray) -> float:
    scores = data.score(given.kind, given.y[given.train], given.y[test], found[test])
    mean = float(np.nanmean(scores))
    return 1 - mean if given.kind == "binary" else mean


def answers(given: Problem, method: str, seed: int, epochs: int) -> np.ndarray:
    """Predictions for all rows."""
    if method in OTHERS:
        return SIDES[method](given, seed)
    backbone, options = NETS[method]
    frame, made = kmtl_side.dataset(given)
    model = kmtl.build(
        backbone=backbone, inputs=made.inputs, tasks=made.tasks, seed=seed
    )
    recipe = kmtl.Recipe(epochs=epochs, **options)
    recipe.fit(model, made.train, validation_data=made.validation, verbose=0)
    outputs = model.predict(frame, batch_size=1024, verbose=0)
    return np.concatenate([outputs[task.name] for task in model.tasks], axis=1)


# -- what is written -------------------------------------------------------------------


class Runs(table.Runs):
    """The methods beside nets are of scikit-learn."""

    PACKAGES = ("scikit-learn",)


def report(runs: Runs, kind: str, out: Path) -> dict[str, Any]:
    errors = {key: run["error"] for key, run in runs.found.items()}
    methods = [*NETS, *OTHERS]
    sets = [name for name in SETS if any(key[0] == name for key in errors)]
    lines = ["| | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    ratios: dict[str, list[float]] = {method: [] for method in methods}
    for name in sets:
        cells = []
        for method in methods:
            own = {k[2]: e for k, e in errors.items() if k[:2] == (name, method)}
            cells.append(f"{statistics.mean(own.values()):.3f}" if own else "–")
            for number, value in own.items():
                first = errors.get((name, methods[0], number))
                if first:  # an error of 0 has no logarithm
                    ratios[method].append(math.log(max(value, 1e-3) / max(first, 1e-3)))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for word, middle in (("median", statistics.median), ("mean", statistics.mean)):
        cells = [f"{100 * middle(r):+.1f}" if r else "–" for r in ratios.values()]
        lines.append(f"| over .01, {word} | {' | '.join(cells)} |")
    better = [f"{sum(x < 0 for x in r)} of {len(r)}" for r in ratios.values()]
    lines.append(f"| better than .01 | {' | '.join(better)} |")
    costs = {
        method: [run["seconds"] for key, run in runs.found.items() if key[1] == method]
        for method in NETS
    }
    seconds = [f"{statistics.mean(own):.0f}" if own else "–" for own in costs.values()]
    lines.append(f"| seconds of CPU | {' | '.join(seconds)} |" + " – |" * len(OTHERS))
    record = record_of(kind, SETTINGS[kind], runs.found.values())
    text = WORDS.format(
        tuned=", ".join(TUNED), divisions=len(SETTINGS[kind]["divisions"])
    )
    if kind == "fast":
        text += "\nA run with `--fast`, which means nothing.\n"
    command = "KERAS_BACKEND=jax python experiments/tables/recipe.py --data FOLDER"
    lines += ["", made_by(record, command)]
    write_text(out / "RECIPE.md", "\n".join([text, *lines]) + "\n")
    record["runs"] = list(runs.found.values())
    write_json(out / "recipe.json", record)
    return record


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    here = Path(__file__).resolve().parent
    options = parser(__doc__, here, "mtr/, chem/ and multitask_classic/").parse_args(
        arguments
    )
    kind = kind_of(options)
    settings = SETTINGS[kind]
    folder = options.data or Path(os.environ.get("KMTL_DATA_DIR", "."))
    stem = "runs_recipe_fast" if kind == "fast" else "runs_recipe"
    runs = Runs(options.out / f"{stem}.jsonl")
    names = () if options.report else ["diabetes"] if options.fast else SETS
    for number in settings["divisions"]:
        for name in names:
            for method in (*NETS, *OTHERS):
                if (name, method, number) in runs.found:
                    continue
                given, test = problem(name, folder, number)
                began = time.process_time()
                found = answers(given, method, number - 50, settings["epochs"])
                seconds = round(time.process_time() - began, 1)
                key = {"data": name, "method": method, "seed": number}
                own = {"error": error(given, test, found), "seconds": seconds}
                runs.add({**key, **own})
                print(name, method, number, own, flush=True)
    return report(runs, kind, options.out)


if __name__ == "__main__":
    main()
