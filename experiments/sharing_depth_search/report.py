"""What the finished lines of `run.py` say: results.json, README.md and the figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import figures
import numpy as np
import words
from common.table import interval as of_seeds
from tables import DELTA, POOLED, front_of, pooled, table_of

from kmtl.evaluation import relative_improvement
from kmtl.tuning import importance

#: Corner of the hypervolumes: so many % worse than the single-task model, per task.
CORNER = -25.0


def interval(values: Iterable[float]) -> list[float | None]:
    """Mean and half width of the 95 % interval over seeds; None for one seed."""
    mean, half = of_seeds(list(values))
    return [mean, half if math.isfinite(half) else None]


def collect(lines: Iterable[dict[str, Any]], settings: Mapping[str, Any]) -> dict:
    """Results per problem, of the sides that are finished."""
    searches: dict[str, dict[str, Any]] = {}
    finals: dict[tuple[str, str], dict[int, Any]] = {}
    seconds: dict[str, float] = {}
    for part in lines:
        name, side = part["problem"], part["side"]
        seconds[name] = seconds.get(name, 0.0) + part["cpu_seconds"]
        if part["seed"] is None:
            searches.setdefault(name, {})[side] = part
        else:
            finals.setdefault((name, side), {})[part["seed"]] = part
    found = {}
    for name, sides in searches.items():
        done = {
            side: [finals[name, side][seed] for seed in settings["seeds"]]
            for side in sides
            if set(settings["seeds"]) <= set(finals.get((name, side), {}))
        }
        tasks = sides["searched"]["scores"] if "searched" in sides else {}
        if tasks and all(f"single_{task}" in done for task in tasks):
            found[name] = _problem(name, sides, done, settings)
            found[name]["cpu_seconds"] = round(seconds[name])
    return found


def _problem(
    name: str,
    searches: Mapping[str, Any],
    finals: Mapping[str, list],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    tasks = searches["searched"]["scores"]
    ways = searches["searched"]["directions"]
    tested = {
        task: float(np.mean([run["test"][task] for run in finals[f"single_{task}"]]))
        for task in tasks
    }
    validated = {
        task: searches[f"single_{task}"]["confirmed"][0][log]
        for task, log in tasks.items()
    }
    result: dict[str, Any] = {
        "tasks": tasks,
        "directions": {task: ways[log] for task, log in tasks.items()},
        "baselines": {"validation": validated, "test": tested},
        "sides": {},
    }
    for side, runs in finals.items():
        search = searches[side]
        entry: dict[str, Any] = {
            "chosen": _chosen(search),
            "hyperparameters": search["hyperparameters"],
            "directions": search["directions"],
            "objective": search["objective"],
            "trials": [_short(row) for row in search["trials"]],
            "searched": _best(search),
            "confirmed": search["confirmed"][0][search["objective"]],
            "test": {
                task: interval(run["test"][task] for run in runs)
                for task in runs[0]["test"]
            },
        }
        if len(entry["test"]) == len(tasks):
            deltas = [
                float(
                    np.mean(
                        [
                            relative_improvement(
                                ways[log], run["test"][task], tested[task]
                            )
                            for task, log in tasks.items()
                        ]
                    )
                )
                for run in runs
            ]
            front = front_of(entry["trials"], tasks, ways, validated)
            entry |= {
                "delta_m_by_seed": deltas,
                "delta_m": interval(deltas),
                "front": list(front.members),
                "hypervolume": front.hypervolume([CORNER] * len(tasks))
                / abs(CORNER) ** len(tasks),
            }
            entry["preferred"] = {
                "even": front.prefer()[0],
                **{task: front.prefer({task: 1.0})[0] for task in tasks},
            }
        result["sides"][side] = entry
    multi = {k: v for k, v in result["sides"].items() if "delta_m" in v}
    equal = multi.get("equal")
    for entry in multi.values():
        if equal is not None:
            pairs = zip(entry["delta_m_by_seed"], equal["delta_m_by_seed"], strict=True)
            entry["over_equal"] = interval(a - b for a, b in pairs)
    result["importance"] = _importance(multi)
    result["depths"] = _depths(multi)
    return result


def _chosen(search: Mapping[str, Any]) -> dict[str, Any]:
    """The winner's hyperparameters, as the tables name them."""
    row = next(row for row in search["trials"] if row["trial"] == search["winner"])
    return {name: row[name] for name in search["hyperparameters"]}


def _best(search: Mapping[str, Any]) -> float:
    """The score of the winner in the search."""
    row = next(row for row in search["trials"] if row["trial"] == search["winner"])
    return row[search["objective"]]


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    """A trial without its training logs."""
    kept = {}
    for name, value in row.items():
        if name.endswith("_loss") or name == "loss" or name == "feasible":
            continue
        if (
            name.startswith(("val_", "task_weight_"))
            or name in ("trial", "status", "rank", "score", "on_front", "epochs")
            or name in POOLED
        ):
            kept[name] = float(f"{value:.6g}") if isinstance(value, float) else value
    return kept


def _importance(sides: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    found = {}
    for name, table in (
        ("searched", table_of(sides["searched"]) if "searched" in sides else None),
        ("all", pooled(sides) if sides else None),
    ):
        if table is not None and (table["status"] == "COMPLETED").sum() >= 8:
            shares = importance(table, DELTA)
            found[name] = {key: round(float(v), 4) for key, v in shares.items()}
    return found


def _depths(sides: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Per sharing depth, over all sides: number of trials, median and best Δm."""
    if not sides:
        return {}
    table = pooled(sides)
    table = table[table["status"] == "COMPLETED"]
    return {
        str(int(depth)): {
            "trials": len(rows),
            "median": round(float(rows[DELTA].median()), 4),
            "best": round(float(rows[DELTA].max()), 4),
        }
        for depth, rows in table.groupby("sharing_depth")
    }


def write(
    record: dict[str, Any], lines: Iterable[dict[str, Any]], out: Path
) -> dict[str, Any]:
    result = {**record, "problems": collect(lines, record["settings"])}
    stem = "" if record["kind"] == "default" else f"_{record['kind']}"
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (out / f"results{stem}.json").write_text(text + "\n", "utf-8")
    # As a reader of the file has it: what is drawn and said is in there.
    result = json.loads(text)
    for name, problem in result["problems"].items():
        figures.draw(problem, out / f"{name}{stem}.png")
    (out / f"README{stem}.md").write_text(words.readme(result, stem), "utf-8")
    return result
