"""The README: every number and every claim in it is computed from the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common import made_by

ABOUT = {
    "multimnist": (
        "MultiMNIST",
        "Two overlaid digits per image, left and right, ten classes each (images and "
        "the LeNet of three blocks as in `../multimnist`, dropout after every block).",
    ),
    "scenes": (
        "Indoor scenes",
        "NYU Depth V2: 13 classes per pixel and the distance of every pixel, from "
        "images of 64 × 48 to maps of 32 × 24 (`scenes.py`); a convolutional trunk of "
        "three blocks (16, 32, 64 filters, batch normalisation). Validation images are "
        "every fifth run of 20 neighbours of the official training list. Trained from "
        "nothing on images this small, the scores are far below published ones.",
    ),
}
UNITS = {"accuracy": ("%", 100), "mean_iou": ("%", 100), "mae": ("m", 1)}


def readme(result: Mapping[str, Any], stem: str = "") -> str:
    settings = result["settings"]
    cpu = sum(problem["cpu_seconds"] for problem in result["problems"].values())
    parts = [
        "# Sharing depth, dropout and task weights",
        "Written by `run.py`; do not edit.",
        "How many blocks should two tasks share, how much dropout do they want, and "
        "what should their losses weigh? A search over all of that (`searched`) "
        "against equal weights and against methods that balance the losses or the "
        "gradients themselves, which search the same but the weights. `famo` and "
        "`cagrad` did best in the first run of `../multimnist`, of 3 seeds; "
        "`uncertainty` is the one most used.",
        budget(settings),
        "Δm: mean improvement over the single-task models, in %, higher is better. "
        f"Scores of the test split: mean over {len(settings['seeds'])} seeds ± half of "
        "the 95 % interval (Student's t). Over equal: difference of Δm to equal "
        "weights, seed by seed; the verdict is by that interval alone. With so few "
        "seeds it is wide.",
    ]
    for name, problem in result["problems"].items():
        parts += section(name, problem, settings, stem)
    if result["problems"]:
        parts += ["## In short", "\n".join(short(result["problems"]))]
    parts.append(
        made_by(
            result,
            f"{result['command']} --data FOLDER",
            f"{cpu / 60:.0f} minutes of one core in all",
        )
        + " Seeds: 0 for the searches, fresh ones for the confirmations, "
        f"{', '.join(str(1000 + seed) for seed in settings['seeds'])} for the final "
        "runs."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def budget(settings: Mapping[str, Any]) -> str:
    trials = ", ".join(
        f"{ABOUT[name][0]} {settings[name]['trials']} trials of "
        f"{settings[name]['epochs']} epochs"
        for name in ABOUT
    )
    return (
        "Every side has the same budget, the single-task models as well: a random "
        f"search (`kmtl.RandomSearch`; {trials}) over dropout (0 to 0.5), learning "
        "rate (0.0005 to 0.01, log), sharing depth (0 to all blocks; from 1 for "
        "`cagrad`, which needs shared parameters), and for `searched` the weights, "
        "uniform on the simplex. Its objective is `val_delta_m`, or the score of the "
        f"single task. Then `tuner.confirm`: the {settings['confirmed']} best trials "
        f"on {settings['confirmations']} fresh seeds each; the best mean wins. The "
        f"winners are trained from {len(settings['seeds'])} seeds more, and only these "
        "models see the test split. Validation chooses the epoch everywhere."
    )


def section(
    name: str, problem: Mapping[str, Any], settings: Mapping[str, Any], stem: str
) -> list[str]:
    title, text = ABOUT[name]
    train, validation, test = settings[name]["sizes"]
    return [
        f"## {title}",
        f"{text} {train:,} training, {validation:,} validation and {test:,} test "
        f"images, batches of {settings[name]['batch_size']}.",
        "\n".join(sides_table(problem)),
        " ".join(verdicts(problem)),
        f"![{title}: depths and weights, importance, fronts, tests]({name}{stem}.png)",
        " ".join(depths(problem)),
        " ".join(importances(problem)),
        "\n".join(front_table(problem)),
        front_words(problem),
    ]


def unit(log: str) -> tuple[str, float]:
    return next(found for key, found in UNITS.items() if log.endswith(key))


def _pair(pair: Any, scale: float = 1.0, sign: str = "") -> str:
    if pair is None:
        return "–"
    mean, half = pair
    end = "" if half is None else f" ± {scale * half:.2f}"
    return f"{scale * mean:{sign}.2f}{end}"


def _weights(chosen: Mapping[str, Any]) -> str:
    found = [v for k, v in chosen.items() if k.startswith("task_weight_")]
    return " / ".join(f"{weight:.2f}" for weight in found) or "–"


def multi(problem: Mapping[str, Any]) -> dict[str, Any]:
    """The multi-task sides, the best on the test split first."""
    found = {k: v for k, v in problem["sides"].items() if "delta_m" in v}
    return dict(sorted(found.items(), key=lambda item: -item[1]["delta_m"][0]))


def sides_table(problem: Mapping[str, Any]) -> list[str]:
    tasks = problem["tasks"]
    heads = []
    for task, log in tasks.items():
        arrow = "↑" if problem["directions"][task] == "max" else "↓"
        metric = log.removeprefix(f"val_{task}_").replace("_", " ")
        heads.append(f"{task} {metric}, {unit(log)[0]} {arrow}")
    lines = [
        "| side | depth | dropout | learning rate | weights "
        f"({' / '.join(tasks)}) | Δm search | Δm confirmed | {' | '.join(heads)} "
        "| Δm test | over equal |",
        "|---" * (9 + len(tasks)) + "|",
    ]
    singles = [name for name in problem["sides"] if name.startswith("single_")]
    for name in [*singles, *multi(problem)]:
        entry = problem["sides"][name]
        chosen = entry["chosen"]
        single = name in singles
        depth = chosen.get("sharing_depth")
        cells = [
            f"`{name}`",
            "–" if depth is None else f"{depth:g}",
            f"{chosen['dropout']:.2f}",
            f"{chosen['learning_rate']:.2g}",
            "equal" if name == "equal" else _weights(chosen),
            "–" if single else f"{entry['searched']:+.2f}",
            "–" if single else f"{entry['confirmed']:+.2f}",
            *(
                _pair(entry["test"].get(task), unit(log)[1])
                for task, log in tasks.items()
            ),
            _pair(entry.get("delta_m"), sign="+"),
            "–" if single or name == "equal" else _pair(entry["over_equal"], sign="+"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def sign_of(pair: Any) -> int:
    """1 or -1 where the interval leaves out 0, else 0."""
    mean, half = pair
    if half is None or abs(mean) <= half:
        return 0
    return 1 if mean > 0 else -1


def verdicts(problem: Mapping[str, Any]) -> list[str]:
    sides = multi(problem)
    groups: dict[int, list[str]] = {1: [], 0: [], -1: []}
    for name, entry in sides.items():
        if name != "equal" and "over_equal" in entry:
            groups[sign_of(entry["over_equal"])].append(f"`{name}`")
    text = [
        f"{said}: {', '.join(groups[key]) or 'none'}."
        for key, said in (
            (1, "Better than equal weights"),
            (-1, "Worse than equal weights"),
            (0, "No difference to equal weights that these seeds could show"),
        )
    ]
    harmed = [f"`{k}`" for k, v in sides.items() if sign_of(v["delta_m"]) < 0]
    helped = [f"`{k}`" for k, v in sides.items() if sign_of(v["delta_m"]) > 0]
    text.append(
        "Against two single-task models of the same budget: better "
        f"{', '.join(helped) or 'none'}; worse {', '.join(harmed) or 'none'}."
    )
    gains = [v["searched"] - v["confirmed"] for v in sides.values()]
    text.append(
        "The winners' Δm was on average "
        f"{sum(gains) / len(gains):.2f} % higher in the search than on fresh seeds: "
        "that much of a search's best score was luck."
        if sum(gains) > 0
        else "The winners' Δm was on average not higher in the search than on fresh "
        f"seeds ({-sum(gains) / len(gains):.2f} % lower)."
    )
    return text


def depths(problem: Mapping[str, Any]) -> list[str]:
    found = problem["depths"]
    best = max(found, key=lambda depth: found[depth]["best"])
    middle = max(found, key=lambda depth: found[depth]["median"])
    each = "; ".join(
        f"{depth}: {row['median']:+.2f}, {row['best']:+.2f} ({row['trials']})"
        for depth, row in found.items()
    )
    return [
        "Median and best validation Δm by sharing depth, over the trials of all sides "
        f"(number): {each}. The best trial of all shares {best} blocks; the best "
        f"median has depth {middle}."
    ]


def importances(problem: Mapping[str, Any]) -> list[str]:
    text = []
    for key, said in (
        ("all", "Importance for Δm over the trials of all sides"),
        ("searched", "Over the trials of `searched` alone"),
    ):
        if problem["importance"].get(key):
            shares = ", ".join(
                f"{name.replace('_', ' ')} {100 * share:.0f} %"
                for name, share in problem["importance"][key].items()
            )
            text.append(f"{said}: {shares}.")
    return text


def front_table(problem: Mapping[str, Any]) -> list[str]:
    """The front of the searched weights, from one task's best to the other's."""
    tasks, entry = problem["tasks"], problem["sides"]["searched"]
    rows = [row for row in entry["trials"] if row["trial"] in entry["front"]]
    first = next(iter(tasks.values()))
    rows.sort(key=lambda row: row[first])
    lines = [
        "Front of `searched` on validation data (one seed):\n",
        f"| depth | dropout | weights ({' / '.join(tasks)}) | "
        + " | ".join(f"{task}, {unit(log)[0]}" for task, log in tasks.items())
        + " | Δm | preferred for |",
        "|---" * (5 + len(tasks)) + "|",
    ]
    for row in rows:
        wished = [k for k, v in entry["preferred"].items() if v == row["trial"]]
        cells = [
            f"{row['sharing_depth']:g}",
            f"{row['dropout']:.2f}",
            _weights(row),
            *(f"{unit(log)[1] * row[log]:.2f}" for log in tasks.values()),
            f"{row['val_delta_m']:+.2f}",
            ", ".join(wished),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def front_words(problem: Mapping[str, Any]) -> str:
    sides = multi(problem)
    order = sorted(sides, key=lambda name: -sides[name]["hypervolume"])
    volumes = ", ".join(f"`{name}` {sides[name]['hypervolume']:.3f}" for name in order)
    return (
        "Preferred: what `front.prefer` takes where all tasks (even) or only that one "
        "counts; nothing is trained again for it. Hypervolume of each side's trials in "
        "improvements over the single-task models, out to 25 % worse in each task, "
        f"where 1 is that of the single-task models: {volumes}."
    )


def short(problems: Mapping[str, Any]) -> list[str]:
    """One line per problem: who won, by how much, and whether that is sure."""
    lines = []
    for name, problem in problems.items():
        sides = multi(problem)
        winner, entry = next(iter(sides.items()))
        searched = sides["searched"]
        sure = {1: "better than", 0: "not told from", -1: "worse than"}
        place = list(sides).index("searched") + 1
        weights = _weights(searched["chosen"])
        says = sure[sign_of(searched["over_equal"])] if "equal" in sides else "beside"
        lines.append(
            f"- {ABOUT[name][0]}: highest Δm on the test split: `{winner}` "
            f"({_pair(entry['delta_m'], sign='+')} %). The searched weights "
            f"({weights}, depth {searched['chosen']['sharing_depth']:g}, dropout "
            f"{searched['chosen']['dropout']:.2f}) are number {place} of {len(sides)} "
            f"and {says} equal weights."
        )
    return lines
