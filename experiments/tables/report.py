"""README.md and results.json of the tables, from the finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import data
import numpy as np

HERE = Path(__file__).resolve().parent
#: Figures of the sides, measured before: side -> set -> [mean, spread or None].
REFERENCE = json.loads((HERE / "reference.json").read_text("utf-8"))
TITLES = {
    "linear": "linear, tuned",
    "forest": "forest, tuned",
    "hist_gradient_boosting": "HistGB, tuned",
    "lightgbm": "LightGBM",
    "xgboost": "XGBoost",
    "realmlp": "RealMLP",
    "tabm": "TabM",
    "kmtl": "kmtl",
    "kmtl_mean": "kmtl, mean of 4",
    "kmtl_fit_table": "kmtl.fit_table",
}
#: Sets on whose validation rows the defaults were chosen.
TUNED_ON = ("enb", "oes97", "osales", "parkinsons")
#: Sets of less than 1,500 rows have three divisions, the others two.
SMALL = ("enb", "jura", "student", "oes97", "osales", "wq", "sider")
BINARY = ("sider", "tox21", "census")


def figures(runs: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Set -> side -> mean over splits, spread over splits, number of them and cost."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in data.SETS:
        own: dict[str, dict[str, Any]] = {}
        for side, figure in REFERENCE["sides"].items():
            if name in figure:
                mean, spread = figure[name]
                own[side] = {"mean": mean, "spread": spread, "measured": "before"}
        for side in TITLES:
            group = [r for r in runs if r["set"] == name and r["side"] == side]
            if not group:
                continue
            seeds = max(r["seeds"] for r in group)
            group = [r for r in group if r["seeds"] == seeds]
            whole = len(group) == (3 if name in SMALL else 2)
            if side in own and not whole:
                continue  # what was measured on all divisions says more
            one = [np.mean([m["test"] for m in r["members"]]) for r in group]
            cost = [np.mean(r["cpu_seconds"]) for r in group]
            own[side] = {**_figure(one, cost), "whole": whole}
            if side == "kmtl" and seeds > 1:
                mean = [r["mean"]["test"] for r in group]
                total = [np.sum(r["cpu_seconds"]) for r in group]
                own["kmtl_mean"] = {
                    **_figure(mean, total),
                    "seeds": seeds,
                    "whole": whole,
                }
        if own:
            found[name] = own
    return found


def _figure(scores: list[Any], cost: list[Any]) -> dict[str, Any]:
    return {
        "mean": round(float(np.mean(scores)), 4),
        "spread": round(float(np.std(scores)), 4) if len(scores) > 1 else None,
        "splits": len(scores),
        "cpu_seconds": round(float(np.mean(cost)), 1),
        "measured": "here",
    }


def rank(
    name: str, own: dict[str, dict[str, Any]], side: str
) -> tuple[int, int] | None:
    """Place of a side among the others (kmtl's other form left out), and their number
    with it."""
    if side not in own or not own[side].get("whole", True):
        return None
    sign = -1 if name in BINARY else 1
    others = [own[s]["mean"] for s in own if not s.startswith("kmtl")]
    better = sum(sign * mean < sign * own[side]["mean"] for mean in others)
    return better + 1, len(others) + 1


def behind_forest(name: str, own: dict[str, dict[str, Any]]) -> bool | None:
    """Whether kmtl is worse than the forest by more than the larger spread."""
    if "forest" not in own or rank(name, own, "kmtl") is None:
        return None
    sign = -1 if name in BINARY else 1
    gap = sign * (own["kmtl"]["mean"] - own["forest"]["mean"])
    spreads = [own[side]["spread"] or 0.0 for side in ("kmtl", "forest")]
    return bool(gap > max(spreads))


def write(
    record: dict[str, Any], runs: list[dict[str, Any]], out: Path
) -> dict[str, Any]:
    """Write both files and return what results.json holds."""
    found = figures(runs)
    results = {**record, "reference": REFERENCE["date"], "sets": {}}
    for name, own in found.items():
        results["sets"][name] = {
            "sides": own,
            "rank": rank(name, own, "kmtl"),
            "rank_of_mean": rank(name, own, "kmtl_mean"),
            "behind_forest": behind_forest(name, own),
        }
    fast = "_fast" if record["kind"] == "fast" else ""
    text = json.dumps(results, indent=1, sort_keys=True) + "\n"
    (out / f"results{fast}.json").write_text(text, "utf-8")
    if not fast:
        (out / "README.md").write_text(_page(results), "utf-8")
    return results


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "–"
    text = f"{figure['mean']:.3f}".lstrip("0")
    if figure["spread"] is not None:
        text += " ± " + f"{figure['spread']:.3f}".lstrip("0")
    if not figure.get("whole", True):
        text += f" ({figure['splits']} division{'s' * (figure['splits'] > 1)})"
    return text


def _page(results: dict[str, Any]) -> str:
    sets = results["sets"]
    used = [s for s in TITLES if any(s in one["sides"] for one in sets.values())]
    lines = [
        "| set | " + " | ".join(TITLES[s] for s in used) + " | rank | rank of mean |",
        "|---" * (len(used) + 3) + "|",
    ]
    for name, one in sets.items():
        cells = [_cell(one["sides"].get(side)) for side in used]
        ranks = [
            "–" if one[key] is None else f"{one[key][0]} of {one[key][1]}"
            for key in ("rank", "rank_of_mean")
        ]
        mark = "" if name in TUNED_ON else " *"
        lines.append(f"| {name}{mark} | " + " | ".join([*cells, *ranks]) + " |")
    costs = [
        f"{name} {one['sides']['kmtl']['cpu_seconds']:.0f}"
        for name, one in sets.items()
        if "cpu_seconds" in one["sides"].get("kmtl", {})
    ]
    lost = [name for name, one in sets.items() if one["behind_forest"]]
    notes = (HERE / "notes.md").read_text("utf-8")
    versions = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    return notes.format(
        table="\n".join(lines),
        costs=", ".join(costs) or "none yet",
        lost=", ".join(lost) or "none of those measured",
        reference=results["reference"],
        date=results["date"],
        machine=results["machine"],
        versions=versions,
        backend=results["backend"],
        tuned=", ".join(TUNED_ON),
    )
