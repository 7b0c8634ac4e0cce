"""What the stages have written, as one JSON file and one page of tables."""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kmtl import _files

STAGES = ("correct", "fast", "search", "published")
#: Accuracies that Sener and Koltun (2018) print: left, right.
PRINTED = {
    "single": (97.23, 95.90),
    "equal": (96.46, 94.99),
    "mgda": (97.26, 95.90),
}
MEBIBYTE = 2**20


def records(out: Path, stage: str) -> list[dict[str, Any]]:
    """A stage's records, the latest of each key last."""
    file = out / f"{stage}.jsonl"
    remedy = "Delete that line: its part is then done again."
    return [r for r, _ in _files.read_lines(file, remedy)] if file.exists() else []


def read(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text("utf-8"))


def write(out: Path, machine: dict[str, Any], outcomes: dict[str, str]) -> None:
    """Both files, each whole or not at all."""
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine,
        "outcomes": outcomes,
        **{stage: records(out, stage) for stage in STAGES},
    }
    _files.write_json(out / "results.json", result)
    _files.write_text(out / "RESULTS.md", markdown(result))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a table; nothing for no rows."""
    rows = list(rows)
    if not rows:
        return ["Nothing was measured.", ""]
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
        "",
    ]


def markdown(result: dict[str, Any]) -> str:
    machine = result["machine"]
    used = sorted({r["card"] for stage in STAGES for r in result[stage]})
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    cards = "; ".join(machine["cards"]) or "no NVIDIA card"
    lines = [
        "# GPU run",
        "",
        "Written by `run.py`; do not edit.",
        "",
        f"{result['date']}; {cards}; JAX on {', '.join(used) or 'nothing'}; "
        f"{versions}.",
        "",
        *(f"- {stage}: {words}" for stage, words in result["outcomes"].items()),
        "",
    ]
    for stage, part in (
        ("correct", correct),
        ("fast", fast),
        ("search", search),
        ("published", published),
    ):
        lines += [f"## {stage.capitalize()}", "", *part(result[stage])]
    return "\n".join(lines)


def correct(found: list[dict[str, Any]]) -> list[str]:
    """How many agree with the CPU, the worst of each kind, and the tests."""
    groups: dict[tuple, list] = {}
    for record in found:
        if record["kind"] != "tests":
            groups.setdefault((record["kind"], record["way"]), []).append(record)
    rows = []
    for (kind, way), group in groups.items():
        worst = max(group, key=lambda record: record["change"])
        out = [f"{r['name']} {r['level']}".strip() for r in group if not r["passed"]]
        rows.append(
            (
                kind,
                way,
                f"{len(group) - len(out)} of {len(group)}",
                f"{max(r['losses'] for r in group):.1e}",
                f"{worst['change']:.1e} ({worst['name']} {worst['level']})",
                ", ".join(out) or "none",
            )
        )
    head = ("what", "way", "within bounds", "losses, worst", "change", "out of bounds")
    lines = table(head, rows)
    for record in found:
        if record["kind"] == "tests":
            counts = ", ".join(f"{n} {word}" for word, n in record["counts"].items())
            failed = "; ".join(record["failed"]) or "none failed"
            end = "" if record["finished"] else " (the time ended before them)"
            lines += [f"Tests: {counts}{end}; {failed}.", ""]
    return lines


def fast(found: list[dict[str, Any]]) -> list[str]:
    """Milliseconds beside those of plain Keras, and the share of the measured peak."""
    peaks = {r["method"]: r["per_second"] for r in found if not r["net"]}
    lines = [
        f"Matrix products alone, {kind}: {value / 1e12:.3g} TFLOP/s. "
        for kind, value in peaks.items()
    ]
    rows = []
    for record in (r for r in found if r["net"]):
        base = [
            r["milliseconds"]
            for r in found
            if (r["net"], r["library"], r["method"])
            == (record["net"], "Keras", "plain")
        ]
        own = record["milliseconds"]
        peak = peaks.get(
            "bfloat16" if record.get("policy") == "mixed_bfloat16" else "float32"
        )
        share = ""
        if peak and "operations" in record and record["method"] in ("plain", "equal"):
            share = f"{record['operations'] / (own / 1e3) / peak:.1%}"
        memory = record.get("peak_bytes")
        rows.append(
            (
                record["net"],
                record["library"],
                f"{record['method']} {record['level']}".strip(),
                f"{own:.3f}",
                f"{record['in_a_row']:.3f}",
                f"{own / base[0]:.2f}" if base else "",
                f"{memory / MEBIBYTE:.0f}" if memory else "",
                share,
            )
        )
    rows.sort(key=lambda row: row[:2])
    head = (
        "net", "library", "method", "ms per step", "in a row", "/ plain Keras",
        "MiB at most", "of the peak",
    )  # fmt: skip
    return [*lines, "", *table(head, rows)]


def search(found: list[dict[str, Any]]) -> list[str]:
    latest = {(r["problem"], r["size"]): r for r in found}
    rows = [
        (
            r["problem"],
            r["size"],
            f"{r['trials_per_minute']:.0f}" if "trials_per_minute" in r else "",
            f"{r['with_compiling']:.0f}" if "with_compiling" in r else "",
            f"{r['peak_bytes'] / MEBIBYTE:.0f}" if r.get("peak_bytes") else "",
            r.get("failure", ""),
        )
        for r in latest.values()
        if r["size"]
    ]
    head = (
        "problem", "trials at once", "trials/min", "with compiling", "MiB at most", "",
    )  # fmt: skip
    lines = table(head, rows)
    for record in latest.values():
        if not record["size"]:
            lines += [
                f"{record['problem']}: kmtl would choose {record['trials_per_call']} "
                f"per call ({record['trials_in_memory']} in memory); measured, "
                f"{record.get('enough', '?')} are enough and "
                f"{record.get('largest', '?')} ran.",
                "",
            ]
    return lines


def published(found: list[dict[str, Any]]) -> list[str]:
    """Test accuracies of each side at its best rate, over seeds."""
    sides: dict[str, dict] = {}
    for record in found:
        if record["phase"] != "seeds":
            continue
        score = statistics.fmean(
            value for part in record["validation"] for value in part.values()
        )
        known = sides.get(record["side"])
        if known is None or score > known["score"]:
            sides[record["side"]] = {**record, "score": score}
    rows = []
    for side, record in sides.items():
        cells = []
        for place, task in enumerate(("left", "right")):
            values = [100 * part[task] for part in record["test"] if task in part]
            name = "single" if side.startswith("single") else side
            printed = PRINTED.get(name)
            cells += [spread(values), printed[place] if printed and values else ""]
        rate = f"{record['rate']:g}"
        rows.append((side, record["level"], rate, record["epochs"], *cells))
    head = ("side", "level", "rate", "epochs", "left, %", "printed", "right, %",
            "printed")  # fmt: skip
    return table(head, rows)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values)
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"
