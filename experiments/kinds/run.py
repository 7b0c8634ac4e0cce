"""Each kind of task on real data, with its defaults, beside what else one would take.

    pip install statsmodels lifelines
    python experiments/kinds/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `mnist` and `multitask_classic`. Finished examples are
lines of runs_default.jsonl, and the same command goes on where it stopped. Runs on JAX.
With `--fast` rows are drawn by chance, and neither data nor these packages are needed.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common, objects

import pictures
import rows
import series
from common import kind_of, made_by, minutes, parser, record_of, table

from kmtl._files import write_json, write_text

EXAMPLES = (*rows.EXAMPLES, *series.EXAMPLES, *pictures.EXAMPLES)
SIDES = ("kmtl", "beside", "constant")
SEEDS = {"default": (0, 1, 2), "fast": (0,)}
TEXT = """# Kinds of task on real data

Written by `run.py`; do not edit.

One example for each kind of task that no other experiment is about. kmtl: the defaults
that a user meets first, no option set (tables: `kmtl.data.from_dataframe`, the tabular
backbone, `kmtl.Recipe`; pictures: `build_cnn`, Adam, ten epochs; lists: Adam, until the
validation part gets no better). Beside it what else one would take, and an answer that
is the same for all rows. Other rows test, or (weather) the same ones with other rows
held out to validate; no run is chosen by its score. (The weather's inputs are forecasts
of another model, which a straight line corrects: little is left for a net.) Errors,
lower is better: means over {seeds} seeds ± half of the 95 % interval.
"""


class Runs(table.Runs):
    """The sides of some kinds are of scikit-learn."""

    PACKAGES = ("scikit-learn",)


def report(runs: Runs, kind: str, out: Path) -> dict[str, Any]:
    """README.md and results.json of the finished runs."""
    found: dict[str, dict[str, list[float]]] = {}
    for (name, side, _), run in sorted(runs.found.items()):
        found.setdefault(name, {}).setdefault(side, []).append(run["error"])
    lines = [TEXT.format(seeds=len(SEEDS[kind]))]
    lines.append("| kind | what, and the error | kmtl | beside | constant | verdict |")
    lines.append("|---|---|---|---|---|---|")
    notes = []
    for example in EXAMPLES:
        own = {name: what for name, what in example.kinds.items() if name in found}
        for name, what in own.items():
            errors = found[name]
            cells = [
                "{:.3g} ± {:.2g}".format(*table.interval(errors[side]))
                for side in SIDES
            ]
            pairs = zip(errors["beside"], errors["kmtl"], strict=True)
            gain = table.interval([there - here for there, here in pairs])
            verdict = table.verdict(gain)
            lines.append(f"| `{name}` | {what} | {' | '.join(cells)} | {verdict} |")
        if own:
            kinds = ", ".join(f"`{name}`" for name in own)
            notes.append(f"- {kinds}: {example.rows}. Beside: {example.beside}.")
    seconds = sum(run["seconds"] for run in runs.found.values())
    record = record_of(kind, {"seeds": SEEDS[kind]}, runs.found.values())
    if kind == "fast":
        lines[0] += "\nA run with `--fast`, which means nothing.\n"
    lines += ["", *notes, ""]
    command = "python experiments/kinds/run.py --data FOLDER"
    lines.append(made_by(record, command, minutes(seconds)))
    write_text(out / "README.md", "\n".join(lines) + "\n")
    record["errors"] = found
    write_json(out / "results.json", record)
    return record


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    here = Path(__file__).resolve().parent
    given = parser(__doc__, here, "mnist/ and multitask_classic/")
    options = given.parse_args(arguments)
    kind = kind_of(options)
    folder = options.data or Path(os.environ.get("KMTL_DATA_DIR", "."))
    runs = Runs(options.out / f"runs_{kind}.jsonl")
    for seed in () if options.report else SEEDS[kind]:
        for example in EXAMPLES:
            if all((name, "kmtl", seed) in runs.found for name in example.kinds):
                continue
            began = time.perf_counter()
            found = example.run(folder, seed, options.fast)
            seconds = (time.perf_counter() - began) / len(found) / len(SIDES)
            for name, errors in found.items():
                for side in reversed(SIDES):  # kmtl's last: it says that all are there
                    key = {"data": name, "method": side, "seed": seed}
                    error = float(getattr(errors, side))
                    runs.add({**key, "error": error, "seconds": round(seconds, 1)})
                print(name, seed, errors, flush=True)
    return report(runs, kind, options.out)


if __name__ == "__main__":
    main()
