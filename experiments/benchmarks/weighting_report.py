"""Table of the weighting benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NETS = {
    "mlp": "MLP 128 → 4×512 ReLU, heads 64 ReLU → 1, batch 256",
    "conv": (
        "six convolutions (32, 32, 64, 64, 128, 128; every second stride 2) on "
        "64×64×3, heads: 10 classes, 13 classes per pixel, depth per pixel, batch 16"
    ),
}
LOSS_BAR, FEATURES_BAR = 1.03, 1.15


def bar(level: str, tasks: int) -> float:
    """The largest ratio to plain Keras that the project accepts."""
    if level == "parameters":
        return (1 + 2 * tasks) / 3
    return LOSS_BAR if level == "loss" else FEATURES_BAR


def command(arguments: list[str]) -> str:
    kept, skip = [], False
    for argument in arguments:  # paths of the machine are nobody's business
        if skip or argument.startswith(("--out=", "--torch-python=")):
            skip = False
        elif argument in ("--out", "--torch-python"):
            skip = True
            kept += [argument, "PATH"]
        else:
            kept.append(argument)
    return " ".join(["python experiments/benchmarks/weighting.py", *kept])


def write(record: dict[str, Any], out: Path) -> None:
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (out / "weighting.json").write_text(text + "\n", "utf-8")
    (out / "WEIGHTING.md").write_text(markdown(record), "utf-8")


def markdown(record: dict[str, Any]) -> str:
    machine = record["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    parts = [
        "# Step time of the weightings over plain Keras",
        "Written by `weighting.py`; do not edit.",
        f"`{record['command']}`, {record['date']}; {machine['processor']}, "
        f"{machine['cores']} cores, {machine['system']}; {versions}.",
        "A ratio is the median over "
        f"{record['pairs_of_epochs']} pairs of neighbouring epochs "
        f"({record['steps_per_epoch']} steps each, five times as many for loss-based "
        "methods) of the same process on one core, in CPU time: one of plain Keras "
        "(`to_keras()`, its own losses and metrics, equal weights, `compile` at its "
        "defaults) and one of the model as the builders make it by default, with the "
        "method; the quartiles are in brackets. Float32. Bars: loss-based "
        f"{LOSS_BAR}, features {FEATURES_BAR}, parameters (1 + 2T)/3.",
    ]
    for found in record["time"]:
        title = f"## {found['backend']}, {found['net']}, T = {found['tasks']}"
        missed = [e for e in found["entries"] if _verdict(e, found["tasks"]) != "pass"]
        load = found["load"][0]
        parts += [
            title,
            f"{NETS[found['net']]}. Load average at the end: {load:.1f} (1 to 2 is "
            f"this process alone). {len(found['entries']) - len(missed)} of "
            f"{len(found['entries'])} within the bar.",
            "\n".join(
                [
                    "| method | level | ratio | ms per step | plain | bar | |",
                    "|---|---|---|---|---|---|---|",
                    *(_row(entry, found["tasks"]) for entry in found["entries"]),
                ]
            ),
        ]
    if record["memory"]:
        parts += ["## Peak resident memory", _memory(record["memory"])]
    if record["torch"]:
        parts += _torch(record)
    return "\n\n".join(parts) + "\n"


def _verdict(entry: dict[str, Any], tasks: int) -> str:
    limit = bar(entry["level"], tasks)
    if entry["ratio"] <= limit:
        return "pass"
    # Not told apart from the bar by this run.
    return "miss" if entry["ratio_quartiles"][0] > limit else "miss, within noise"


def _row(entry: dict[str, Any], tasks: int) -> str:
    low, high = entry["ratio_quartiles"]
    return (
        f"| `{entry['method']}` | {entry['level']} | {entry['ratio']:.3f} "
        f"({low:.3f} to {high:.3f}) | {entry['milliseconds']:.2f} | "
        f"{entry['plain_milliseconds']:.2f} | {bar(entry['level'], tasks):.2f} | "
        f"{_verdict(entry, tasks)} |"
    )


def _memory(rows: list[dict[str, Any]]) -> str:
    base = {
        (row["backend"], row["net"], row["tasks"]): row["peak_mebibytes"]
        for row in rows
        if row["method"] == "plain"
    }
    lines = [
        "One process per entry, MiB, with the interpreter and the backend.",
        "",
        "| backend | net | T | method | level | peak | over plain |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        plain = base[row["backend"], row["net"], row["tasks"]]
        lines.append(
            f"| {row['backend']} | {row['net']} | {row['tasks']} | `{row['method']}` | "
            f"{row['level']} | {row['peak_mebibytes']:.0f} | "
            f"{row['peak_mebibytes'] - plain:+.0f} |"
        )
    return "\n".join(lines)


def _torch(record: dict[str, Any]) -> list[str]:
    """TorchJD and LibMTL on the same nets, and what follows for the bars."""
    ours = {
        (f["backend"], f["net"], f["tasks"], e["method"], e["level"]): e
        for f in record["time"]
        for e in f["entries"]
    }
    lines = [
        "| net | T | library | method | level | ratio to its plain step | ms per step |"
        " ours, TensorFlow | ours, JAX | JAX ms over theirs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for found in record["torch"]:
        net, tasks = found["net"], found["tasks"]
        for e in found["entries"]:
            cells = []
            for backend in ("tensorflow", "jax"):
                own = ours.get((backend, net, tasks, e["method"], e["level"]))
                cells.append(f"{own['ratio']:.2f}" if own else "–")
            own = ours.get(("jax", net, tasks, e["method"], e["level"]))
            share = f"{own['milliseconds'] / e['milliseconds']:.2f}" if own else "–"
            low, high = e["ratio_quartiles"]
            lines.append(
                f"| {net} | {tasks} | {e['library']} | `{e['method']}` | {e['level']} "
                f"| {e['ratio']:.2f} ({low:.2f} to {high:.2f}) "
                f"| {e['milliseconds']:.1f} | {cells[0]} | {cells[1]} | {share} |"
            )
        notes += [f"- {net}, T = {tasks}: {note}" for note in found["notes"]]
    text = (
        "Same nets, batch, optimiser and labels in PyTorch on the CPU, without "
        "metrics; ratios are to PyTorch's own step on the sum of the losses. Bars at "
        "parameters level: our ratio at most TorchJD's; at most 0.7 times LibMTL's; on "
        "JAX at most 0.7 times TorchJD's milliseconds."
    )
    parts = ["## TorchJD and LibMTL", text, "\n".join(lines)]
    return [*parts, "\n".join(notes)] if notes else parts
