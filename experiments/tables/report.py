"""README.md and results.json of the tables, from the finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import data
import numpy as np
from dated import versions_of

HERE = Path(__file__).resolve().parent
#: Figures of the sides, measured before: side -> set -> [mean, spread or None].
REFERENCE = json.loads((HERE / "reference.json").read_text("utf-8"))
SEARCHED = "kmtl_fit_table"
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
    "kmtl_members": "kmtl, eight members",
    SEARCHED: "kmtl.fit_table",
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
            cost = [np.mean(r["cpu_seconds"]) for r in group]
            if side in own and not whole:
                # What was measured on all divisions says more, but for the time.
                own[side]["cpu_seconds"] = round(float(np.mean(cost)), 1)
                continue
            one = [np.mean([m["test"] for m in r["members"]]) for r in group]
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


def first_division(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Set -> side -> score on the test rows of the first division, where `fit_table`
    was run on it: all of these have seen the same rows."""
    found: dict[str, dict[str, float]] = {}
    for run in runs:
        if run["split"] == 0:
            own = found.setdefault(run["set"], {})
            own[run["side"]] = float(np.mean([m["test"] for m in run["members"]]))
            if run["side"] == "kmtl" and "mean" in run and run["seeds"] > 1:
                own["kmtl_mean"] = run["mean"]["test"]
    return {name: found[name] for name in data.SETS if SEARCHED in found.get(name, {})}


def _first_page(found: dict[str, dict[str, float]], results: dict[str, Any]) -> str:
    """A table of one division: who was best on it, and where `fit_table` stands."""
    if not found:
        return "Not run yet."
    used = [s for s in TITLES if any(s in own for own in found.values())]
    lines = [
        "| set | " + " | ".join(TITLES[s] for s in used) + " | place | of the best |",
        "|---" * (len(used) + 3) + "|",
    ]
    first = near = 0
    for name, own in found.items():
        place, gap, spread = standing(name, own, results["sets"][name]["sides"])
        first, near = first + (place == 1), near + (gap <= spread)
        cells = [f"{own[s]:.3f}".lstrip("0") if s in own else "–" for s in used]
        others = sum(not side.startswith("kmtl") for side in own)
        line = [name, *cells, f"{place} of {others + 1}", _gap(gap, spread)]
        lines.append("| " + " | ".join(line) + " |")
    words = (
        f"First on {first} of {len(found)}; first, or behind by less than the spread"
    )
    return "\n".join([*lines, "", f"{words} of the best side's score, on {near}."])


def standing(
    name: str, own: dict[str, float], sides: dict[str, dict[str, Any]]
) -> tuple[int, float, float]:
    """Place of `fit_table` among the other sides, by how much it is behind the best of
    them (<= 0: ahead), and the spread of that side over the divisions."""
    sign = -1 if name in BINARY else 1
    others = {side: score for side, score in own.items() if not side.startswith("kmtl")}
    best = min(others, key=lambda side: sign * others[side])
    place = 1 + sum(sign * s < sign * own[SEARCHED] for s in others.values())
    spread = sides.get(best, {}).get("spread") or 0.0
    return place, sign * (own[SEARCHED] - others[best]), spread


def _gap(gap: float, spread: float) -> str:
    if gap <= 0:
        return f"{-gap:.3f} ahead"
    return f"{gap:.3f} behind (spread {spread:.3f})"


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
    """Place of a side among the others (kmtl's other forms left out), and their number
    with it; of sides that have been run on all divisions."""
    whole = {s: own[s]["mean"] for s in own if own[s].get("whole", True)}
    if side not in whole:
        return None
    sign = -1 if name in BINARY else 1
    others = [mean for s, mean in whole.items() if not s.startswith("kmtl")]
    better = sum(sign * mean < sign * own[side]["mean"] for mean in others)
    return better + 1, len(others) + 1


def behind_forest(
    name: str, own: dict[str, dict[str, Any]], side: str = "kmtl"
) -> bool | None:
    """Whether a side is worse than the forest by more than the larger spread."""
    if "forest" not in own or rank(name, own, side) is None:
        return None
    sign = -1 if name in BINARY else 1
    gap = sign * (own[side]["mean"] - own["forest"]["mean"])
    spreads = [own[s]["spread"] or 0.0 for s in (side, "forest")]
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
            "rank_of_members": rank(name, own, "kmtl_members"),
            "behind_forest": behind_forest(name, own),
            "members_behind_forest": behind_forest(name, own, "kmtl_members"),
        }
    fast = "_fast" if record["kind"] == "fast" else ""
    text = json.dumps(results, indent=1, sort_keys=True) + "\n"
    (out / f"results{fast}.json").write_text(text, "utf-8")
    if not fast:
        page = _page(results, _first_page(first_division(runs), results))
        (out / "README.md").write_text(page, "utf-8")
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


def _page(results: dict[str, Any], first: str) -> str:
    sets = results["sets"]
    used = [s for s in TITLES if any(s in one["sides"] for one in sets.values())]
    lines = [
        "| set | " + " | ".join(TITLES[s] for s in used) + " | rank | rank of mean "
        "| rank of members |",
        "|---" * (len(used) + 4) + "|",
    ]
    for name, one in sets.items():
        cells = [_cell(one["sides"].get(side)) for side in used]
        ranks = [
            "–" if one[key] is None else f"{one[key][0]} of {one[key][1]}"
            for key in ("rank", "rank_of_mean", "rank_of_members")
        ]
        mark = "" if name in TUNED_ON else " *"
        lines.append(f"| {name}{mark} | " + " | ".join([*cells, *ranks]) + " |")

    timed = [
        side
        for side in used
        if any("cpu_seconds" in one["sides"].get(side, {}) for one in sets.values())
    ]
    costs = [
        "| set | " + " | ".join(TITLES[side] for side in timed) + " |",
        "|---" * (len(timed) + 1) + "|",
    ]
    for name, one in sets.items():
        spent = [one["sides"].get(side, {}).get("cpu_seconds") for side in timed]
        cells = ["–" if seconds is None else f"{seconds:.0f}" for seconds in spent]
        costs.append(f"| {name} | " + " | ".join(cells) + " |")

    def lost(key: str) -> str:
        found = [name for name, one in sets.items() if one[key]]
        return ", ".join(found) or "none of those measured"

    notes = (HERE / "notes.md").read_text("utf-8")
    return notes.format(
        table="\n".join(lines),
        first=first,
        costs="\n".join(costs),
        lost=lost("behind_forest"),
        lost_by_members=lost("members_behind_forest"),
        reference=results["reference"],
        date=results["date"] or "date not recorded",
        machine=results["machine"] or "machine not recorded",
        versions=versions_of(results),
        backend=results["backend"],
        tuned=", ".join(TUNED_ON),
    )
