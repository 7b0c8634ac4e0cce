"""In which part of a range are the trials that come near to the best one?

    python experiments/search_spaces/run.py

Trains nothing: it reads the finished searches of ../sharing_depth_search, which
learning rates validation chose in other experiments, and the random.json that
random_trials.py has written, and writes README.md. The default ranges of
`kmtl.tuning.Space`, and where they begin, are chosen by its tables.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "sharing_depth_search" / "runs_default.jsonl"
#: Edges of the parts, within what was searched.
PARTS = {
    "learning_rate": (5e-4, 1e-3, 2e-3, 4e-3, 7e-3, 1e-2),
    "dropout": (0.0, 0.05, 0.1, 0.2, 0.3, 0.5),
    "ratio of task weights": (1.0, 2.0, 4.0, 10.0, 1000.0),
}
TEXT = """# Where good trials are

Written by `run.py` from the finished searches of
[sharing_depth_search](../sharing_depth_search): {searches} random searches, over two
problems and seven sides each (single-task nets, equal, searched and balanced weights),
{trials} trials in all. How far each trial is behind the best of its own search: in
points of Δm, or in % of the score of a single task. The sides of a problem tried the
same {points} points but for the weights, so the rows are fewer independent trials than
they count. Learning rates were searched from 5e-4 to 1e-2, dropout to 0.5.
"""
#: Trials of a search in random.json, at the last look.
SEARCH = 20
#: Experiments whose runs have the rate of Adam that validation chose, of those tried.
CHOSEN_IN = {
    "census_income": (0.001, 0.003),
    "joint_vs_alternating": (0.00025, 0.001, 0.004, 0.016),
    "multimnist": (0.0005, 0.001, 0.002, 0.004, 0.008),
    "partial_labels": (0.0003, 0.001, 0.003),
    "regularisation_and_optimisers": (0.0003, 0.001, 0.003, 0.01),
    "relu_vs_others": (0.0005, 0.002, 0.008),
}
RUNS, RUNS_OF = "runs_default.jsonl", {"multimnist": "runs_ten_seeds.jsonl"}
CHOSEN = """## Where to begin

Learning rates of Adam that validation chose in other experiments: one choice for each
side, or of `partial_labels` for each seed.

| experiment | tried | choices | geometric mean | most often |
|---|---|---|---|---|
"""
END = """
[RANDOM.md](RANDOM.md) has trials over tables and the bundled digits, in wider ranges.

Hence the default ranges of `kmtl.tuning.Space`: learning rates from 5e-4 to 5e-2 (here
the best are near the upper end of what was tried; for those above it, see the first
table there), dropout to 0.3, and task weights within 1/4 and 4 times the first one's. A
search begins at a learning rate of 0.003: between what was best in trainings as short
as a search's trials and in longer ones (the last table). The 0.001 of the optimizers is
behind in short ones; at 0.005 single-task models of the bundled digits, which baselines
train at it, too, are better and their scores depend more on the seed.

Width, number of blocks and weight decay are searched on request only. With all three
the best of {trials} trials is nearer to the best known on validation rows ({sizes:.3f}
behind, {plain:.3f} without them), but not on test rows, from other seeds: there no
space differs from another by more than the problems do (the last table there). Each
width is compiled anew, too. The widths 16 and 32 came near the best in hardly any
trial, so that the range begins at 64; of weight decay no part of the range is better.
"""


def end() -> str:
    """What follows, with what searches over sizes reach in RANDOM.md."""
    found = json.loads((HERE / "random.json").read_text("utf-8"))
    behind = {row["space"]: row["behind"][-1] for row in found["searches"]}
    return END.format(
        trials=SEARCH,
        sizes=behind["with all three"],
        plain=behind["learning rate and dropout"],
    )


def chosen() -> Iterator[dict[str, Any]]:
    """One row for each experiment in which validation chose the learning rate."""
    for name, tried in CHOSEN_IN.items():
        text = (HERE.parent / name / RUNS_OF.get(name, RUNS)).read_text("utf-8")
        choices = set()
        for run in map(json.loads, text.splitlines()):
            tuned = run.get("phase", "final") == "final"
            side = run.get("side") or run.get("way") or run["method"]
            others = side in ("SGD", "momentum", "AdaGrad", "RMSProp")
            if tuned and not others:
                seed = run["seed"] if name == "partial_labels" else None
                data = run.get("data", run.get("case"))
                choices.add((side, data, seed, run["rate"]))
        rates = [choice[-1] for choice in choices]
        yield {
            "experiment": name,
            "tried": ", ".join(map(str, tried)),
            "choices": len(rates),
            "geometric mean": f"{statistics.geometric_mean(rates):.4f}",
            "most often": max(sorted(set(rates)), key=rates.count),
        }


def searches() -> Iterator[list[dict[str, float]]]:
    """Per search its completed trials: values, and how far they are behind."""
    for line in SOURCE.read_text("utf-8").splitlines():
        record = json.loads(line)
        trials = [t for t in record.get("trials") or () if t["status"] == "COMPLETED"]
        if not trials:
            continue
        best = min(trials, key=lambda trial: trial["rank"])["score"]
        scale = 100 / abs(best) if record["side"].startswith("single") else 1.0
        yield [
            {**_values(trial), "behind": scale * abs(trial["score"] - best)}
            for trial in trials
        ]


def _values(trial: dict[str, Any]) -> dict[str, float]:
    found = {name: trial[name] for name in ("learning_rate", "dropout")}
    weights = [value for name, value in trial.items() if "task_weight_" in name]
    if weights:
        found["ratio of task weights"] = max(weights) / min(weights)
    return found


def part_of(value: float, edges: Sequence[float]) -> int:
    """Number of the part in which a value is; the last one has both its ends."""
    inside = sum(value >= edge for edge in edges[1:-1])
    if not edges[0] * 0.999 <= value <= edges[-1] * 1.001:
        raise ValueError(f"`{value}` is not in what was searched: {edges}")
    return inside


def rows(name: str, trials: Sequence[dict[str, float]]) -> Iterator[dict[str, Any]]:
    """One row for each part of a range in which there is a trial."""
    edges = PARTS[name]
    for number in range(len(edges) - 1):
        behind = [
            trial["behind"]
            for trial in trials
            if name in trial and part_of(trial[name], edges) == number
        ]
        if behind:
            yield {
                name: f"{edges[number]:g} to {edges[number + 1]:g}",
                "trials": len(behind),
                "median behind": f"{statistics.median(behind):.1f}",
                "within 1": f"{sum(b <= 1 for b in behind) / len(behind):.0%}",
                "within 3": f"{sum(b <= 3 for b in behind) / len(behind):.0%}",
            }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    found = list(searches())
    trials = [trial for search in found for trial in search]
    points = {(trial["learning_rate"], trial["dropout"]) for trial in trials}
    counts = {"searches": len(found), "trials": len(trials), "points": len(points)}
    lines = [TEXT.format(**counts)]
    for name in PARTS:
        table = list(rows(name, trials))
        lines += [
            f"| {' | '.join(table[0])} |",
            "|---" * len(table[0]) + "|",
            *(f"| {' | '.join(map(str, row.values()))} |" for row in table),
            "",
        ]
    lines += [CHOSEN.rstrip("\n")]
    lines += [f"| {' | '.join(map(str, row.values()))} |" for row in chosen()]
    options.out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines).rstrip() + "\n" + end()
    (options.out / "README.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
