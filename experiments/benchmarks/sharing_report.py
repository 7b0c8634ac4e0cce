"""Table of the sharing benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import weighting_report

NETS = {
    "mlp": "MLP 64 → 5×128 ReLU, a linear head per task, batch 128",
    "cnn": (
        "five convolutions (16, 32, 32, 64, 64; pooling after each) on 32×32×3, a head "
        "of 10 classes per task, batch 32"
    ),
    "wide": (
        "eight convolutions (2×64, 2×128, 2×256, 2×512) on 16×16×3, a head of 10 "
        "classes per task, batch 16: the only kind of net that LibMTL's MTAN takes"
    ),
}
#: Largest ratio of our step to LibMTL's that the project accepts.
BARS = {"tensorflow": 1.0, "jax": 0.5}
SIDES = {"tensorflow": "TensorFlow", "jax": "JAX"}
CLOCKS = {
    "wall": "Times are those of the clock on the wall.",
    "cpu": (
        "Times are CPU times of a process held to one core, because other work ran on "
        "the machine; without it they are those of the clock on the wall."
    ),
}


def command(arguments: list[str]) -> str:
    text = weighting_report.command(arguments)
    return text.replace("weighting.py", "sharing.py")


def write(record: dict[str, Any], out: Path) -> None:
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (out / "sharing.json").write_text(text + "\n", "utf-8")
    (out / "SHARING.md").write_text(markdown(record), "utf-8")


def markdown(record: dict[str, Any]) -> str:
    machine = record["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    parts = [
        "# Step time of the sharing schemes",
        "Written by `sharing.py`; do not edit.",
        f"`{record['command']}`, {record['date']}; {machine['processor']}, "
        f"{machine['cores']} cores, {machine['system']}; {versions}.",
        "ms: median over epochs of one training step (forward, losses, backward, Adam; "
        "on our side with metrics and exact loss logs, on LibMTL's without). "
        f"{CLOCKS[record['clock']]} Over hard: median ratio to hard sharing whose "
        "blocks are widened to the same number of parameters, "
        f"{record['pairs_of_epochs']} pairs of neighbouring epochs, quartiles in "
        "brackets. Over LibMTL: ratio to LibMTL's version of the scheme; together: "
        "with all steps of an epoch in one execution "
        "(`compile(steps_per_execution=...)`), as one trains small nets with Keras on "
        "TensorFlow; bars: "
        f"{BARS['tensorflow']:g} on TensorFlow, {BARS['jax']:g} on JAX. Float32.",
    ]
    places = dict.fromkeys((part["net"], part["tasks"]) for part in record["time"])
    for net, tasks in places:
        here = [
            part
            for part in record["time"]
            if (part["net"], part["tasks"]) == (net, tasks)
        ]
        sides = {
            part["side"]: {entry["scheme"]: entry for entry in part["entries"]}
            for part in here
        }
        notes = [
            f"- {SIDES.get(part['side'], 'LibMTL')}: {note}"
            for part in here
            for note in part["notes"]
        ]
        loads = [
            f"{SIDES.get(part['side'], 'LibMTL')} {part['load'][0]:.1f}"
            for part in here
        ]
        text = (
            f"{NETS[net]}. Epochs of {here[0]['steps']} steps. "
            f"Load average of the machine: {', '.join(loads)}."
        )
        parts += [f"## {net}, T = {tasks}", text, _table(sides)]
        if notes:
            parts.append("\n".join(dict.fromkeys(notes)))
    return "\n\n".join(parts) + "\n"


def _table(sides: dict[str, dict[str, Any]]) -> str:
    own = [side for side in SIDES if side in sides]
    theirs = sides.get("libmtl", {})
    head = ["scheme", "parameters", "MFLOPs"]
    for side in own:
        head += [f"{SIDES[side]} ms", "over hard"]
    head.append("LibMTL ms")
    for side in own:
        head.append(f"{SIDES[side]} over LibMTL")
        if side == "tensorflow":
            head.append("together")
    names = list(dict.fromkeys(name for side in own for name in sides[side]))
    lines = [_line(head), _line(["---"] * len(head))]
    for name in names:
        known = next(sides[side][name] for side in own if name in sides[side])
        row = [f"`{name}`", f"{known['parameters']:,}", f"{known['megaflops']:.2f}"]
        for side in own:
            row += _timed(sides[side].get(name))
        peer = theirs.get(name)
        row.append(f"{peer['milliseconds']:.2f}" if peer else "–")
        for side in own:
            entry = sides[side].get(name)
            row.append(_against(side, entry, peer))
            if side == "tensorflow":
                row.append(_against(side, entry, peer, "together_milliseconds"))
        lines.append(_line(row))
    return "\n".join(lines)


def _timed(entry: dict[str, Any] | None) -> list[str]:
    if entry is None:
        return ["–", "–"]
    low, high = entry["ratio_quartiles"]
    ratio = f"{entry['ratio']:.2f} ({low:.2f} to {high:.2f})"
    return [f"{entry['milliseconds']:.2f}", ratio]


def _against(side: str, own: Any, peer: Any, key: str = "milliseconds") -> str:
    """Ratio to LibMTL's step and whether it is within the bar."""
    if own is None or peer is None or key not in own:
        return "–"
    ratio = own[key] / peer["milliseconds"]
    return f"{ratio:.2f}{'' if ratio <= BARS[side] else ' **miss**'}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
