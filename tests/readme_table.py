"""The table of README.md that lists what is in the registries.

python tests/readme_table.py     # writes it anew
"""

from __future__ import annotations

from pathlib import Path

from kmtl import _registry

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN = "<!-- from the registries: python tests/readme_table.py -->\n"
END = "<!-- end -->\n"


def _weightings(kind: str) -> list[str]:
    return [
        name
        for name in _registry.names("weighting")
        if _registry.get("weighting", name).kind == kind
    ]


def table() -> str:
    """The registered names, by kind."""
    rows = {
        "Tasks": _registry.names("task"),
        "Inputs": _registry.names("input"),
        "Backbones": _registry.names("backbone"),
        "Sharing": _registry.names("sharing"),
        "Weightings on losses": _weightings("loss"),
        "Weightings on gradients": _weightings("gradient"),
        "Relations": _registry.names("relations"),
    }
    lines = ["| kind | names |", "|---|---|"]
    lines += [
        f"| {kind} ({len(names)}) | {', '.join(f'`{name}`' for name in names)} |"
        for kind, names in rows.items()
    ]
    return "\n".join(lines) + "\n"


def parts(text: str) -> tuple[str, str, str]:
    """README before the table, the table, and after it."""
    before, _, rest = text.partition(BEGIN)
    inside, _, after = rest.partition(END)
    return before + BEGIN, inside, END + after


if __name__ == "__main__":
    before, _, after = parts(README.read_text("utf-8"))
    README.write_text(before + table() + after, "utf-8")
