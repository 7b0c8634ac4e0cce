"""What a part of a model is: from the types of its layers and the builders' names.

The builders name every layer `<part>_<layer>`, so a part is what shares a prefix, and
its last word says what it is. A layer that somebody made and named is not judged by
its name: it weighs features if its type does (`kmtl.layers.Recorded`, `Mixture`), and
is a plain layer otherwise, whatever digits its name has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kmtl import layers as own_layers
from kmtl.layers.gates import Gate
from kmtl.layers.recorded import Recorded
from kmtl.tasks.output import TaskOutput
from kmtl.typing import Layer, Operation

#: Kinds of part that hold the weights of a backbone or a head; all others decide who
#: gets what.
PLAIN = ("input", "block", "bank", "head", "layer")
#: Kinds of part that decide who gets what, by the words of the schemes.
WEIGHING = ("gate", "mixture", "stitch", "attention", "nddr", "branch", "select")
#: Kinds that have no number where there is one per task.
STAGES = ("initial", "distillation", "scales", "transfer", "handover", "features")
#: Kinds of part that connect tasks and yet compute with features, instead of weighing
#: them: counted for the tasks that use them.
WORKING = ("film", "adapter", "lora", "scale", *STAGES)
#: What layers that weigh are called where no scheme has named them.
TYPES = (
    (Gate, "gate"),
    (own_layers.Mixture, "mixture"),
    (own_layers.Stitch, "stitch"),
    (own_layers.SoftMask, "attention"),
    (own_layers.Fusion, "nddr"),
    (own_layers.Branch, "branch"),
    (own_layers.Selection, "select"),
    (own_layers.FiLM, "film"),
    (own_layers.InformationTransfer, "transfer"),
)

# The words up to the first number: `experts_block2` of `experts_block2_conv1_conv`.
_NUMBERED = re.compile(r"^(?:[A-Za-z]+_)*?[A-Za-z]+\d+(?=_|$)")
_HEAD = re.compile(r"head(_|$)")
# The head of a first prediction, which later layers read, is part of what makes it.
_INITIAL = re.compile(r"^head_(initial\d*)(_|$)")
_TRAILING_NUMBER = re.compile(r"\d+$")
# The names of blocks: `shared_block1`, `experts_block1`, `<task>_experts_block1`.
_BLOCK = re.compile(r"^(?:shared_|and_.*_)?(?:experts_|nodes_)?block\d+$")
_CONNECTING = re.compile(rf"^(shared_)?({'|'.join((*WEIGHING, *WORKING))})\d*$")
# Connecting parts of no task that are made of plain layers.
_COMMON = re.compile(r"^(shared_attention|nddr|handover)\d+$")


def part_name(operation: Operation, tasks: Sequence[str]) -> str:
    """Name of the part to which a layer belongs, from the layer's name."""
    name = operation.name
    if isinstance(operation, TaskOutput):
        return f"{name}_head"
    owner, rest = split(name, tasks)
    prefix = f"{owner}_" if owner else ""
    initial = _INITIAL.match(rest)
    if owner and initial:
        return prefix + initial.group(1)
    if owner and _HEAD.match(rest):
        return f"{owner}_head"
    numbered = _NUMBERED.match(rest)
    if numbered:
        return prefix + numbered.group()
    first = rest.partition("_")[0]
    return prefix + (first if first in STAGES else rest)


def split(name: str, tasks: Sequence[str]) -> tuple[str | None, str]:
    """Task whose name a layer's name begins with, and the rest."""
    fitting = [task for task in tasks if name.startswith(f"{task}_")]
    splits = [(t, name[len(t) + 1 :]) for t in sorted(fitting, key=len, reverse=True)]
    for owner, rest in splits:
        if _HEAD.match(rest) or _NUMBERED.match(rest):  # else a longer task's name
            return owner, rest
    return splits[0] if splits else (None, name)


def number(rest: str) -> int | None:
    """The number at the end of a name."""
    found = _TRAILING_NUMBER.search(rest)
    return int(found.group()) if found else None


def is_laid_out(name: str, tasks: Sequence[str]) -> bool:
    """Whether a part has a name as the builders give them."""
    owner, rest = split(name, tasks)
    if owner is None:
        return bool(_BLOCK.match(rest) or _CONNECTING.match(rest))
    return bool(rest == "head" or _BLOCK.match(rest) or _CONNECTING.match(rest))


def kind(name: str, layers: Sequence[Layer], copies: int, tasks: Sequence[str]) -> str:
    """What a part is; see `kmtl.inspection.Part`.

    Args:
        name: Of the part.
        layers: Its layers.
        copies: How many copies of a block it holds.
        tasks: Names of the model's tasks.
    """
    owner, rest = split(name, tasks)
    if owner and rest == "head":
        return "head"
    weighs = [x for x in layers if isinstance(x, (Recorded, own_layers.Mixture))]
    connecting = _CONNECTING.match(rest)
    if connecting and (weighs or owner or _COMMON.match(rest)):
        return connecting.group(2)
    if weighs:
        return next((word for cls, word in TYPES if isinstance(weighs[0], cls)), "gate")
    if _BLOCK.match(rest):
        return "bank" if copies > 1 or "experts_" in rest else "block"
    return "layer"
