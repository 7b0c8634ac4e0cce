"""The two problems, and the ways in which each is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import kmtl
from kmtl.data.overlaying import overlay

#: Part ("train", "validation", "test") -> task -> images in [0, 1] and labels.
Parts = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class Way:
    """How rows and tasks meet.

    Args:
        sets: Of each data set, the tasks that its rows are labelled for.
        sampling, alternate: As for `kmtl.data.mixture`.
        normalization: Of the trunk.
        batch: Part of the full batch.
    """

    sets: tuple[tuple[str, ...], ...]
    sampling: str = "equal"
    alternate: bool | str = False
    normalization: str | None = None
    batch: float = 1.0

    @property
    def tasks(self) -> list[str]:
        return [task for tasks in self.sets for task in tasks]


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem with two tasks.

    Args:
        about: What the data are and what the ways mean, with settings in braces.
        pairs: What is compared with what, seed by seed.
        load: Folder, settings and whether in fast mode -> parts.
    """

    name: str
    tasks: tuple[str, str]
    about: str
    ways: dict[str, Way]
    pairs: tuple[tuple[str, str], ...]
    load: Callable[[Path | None, dict, bool], Parts]


def separate(tasks: tuple[str, str]) -> dict[str, Way]:
    """A net per task, which sees what a joint net sees of its task."""
    return {f"separate, {task}": Way(((task,),), batch=0.5) for task in tasks}


def two_sets(folder: Path | None, settings: dict, fast: bool) -> Parts:
    """MNIST and Fashion-MNIST; fast, small digits and their negatives."""
    if fast:
        data = kmtl.data.digits()
        digits = [(p.x[..., 0], p.y["digit"]) for p in (data.train, data.test)]
        found = {"digit": digits, "garment": [(1 - x, y) for x, y in digits]}
    else:
        loaders = {"digit": kmtl.data.mnist, "garment": kmtl.data.fashion_mnist}
        found = {
            task: [
                (x / np.float32(255), y.astype("int32"))
                for x, y in load(None if folder is None else folder / load.__name__)
            ]
            for task, load in loaders.items()
        }
    parts: Parts = {"train": {}, "validation": {}, "test": {}}
    for name, ((x, y), test) in found.items():
        rows, held = settings["rows"][name], settings["validation"]
        order = np.random.default_rng(0).permutation(len(x))[: rows + held]
        parts["train"][name] = x[order[:rows]], y[order[:rows]]
        parts["validation"][name] = x[order[rows:]], y[order[rows:]]
        parts["test"][name] = test
    return parts


def overlaid(folder: Path | None, settings: dict, fast: bool) -> Parts:
    """MultiMNIST, every part made of digits of its own; fast, of small digits."""
    rows, held = settings["rows"]["left"], settings["validation"]
    if fast:
        bunch = load_digits()
        large = np.kron(bunch.images, np.ones((3, 3))) * 15  # 24 x 24
        x = np.pad(large, ((0, 0), (2, 2), (2, 2))).astype("uint8")
        y = bunch.target
        (x, y), test = (x[:-300], y[:-300]), (x[-300:], y[-300:])
    else:
        (x, y), test = kmtl.data.mnist(None if folder is None else folder / "mnist")
    singles = {
        "train": (x[:rows], y[:rows], 0),
        "validation": (x[len(x) - held :], y[len(x) - held :], 1),
        "test": (*test, 1),
    }
    parts: Parts = {}
    for part, single in singles.items():
        images, labels = overlay(*single)
        parts[part] = {task: (images, labels[task]) for task in ("left", "right")}
    return parts


APART = ("digit",), ("garment",)
TURNS = ("left",), ("right",)
CASES = (
    Case(
        name="MNIST and Fashion-MNIST",
        tasks=("digit", "garment"),
        about="""\
Two sets: MNIST ({rows[digit]:,} training images) and Fashion-MNIST ({rows[garment]:,}),
each labelled for its own task alone. *Joint*: every batch of {batch} has rows of both
sets. *Alternating*: every batch has rows of one, in turns. Shares of the sets are
proportional to their rows, to the square roots of these (temperature 2), or equal.""",
        ways={
            **separate(("digit", "garment")),
            "joint, proportional": Way(APART, "proportional"),
            "joint, temperature": Way(APART, "temperature"),
            "joint, equal": Way(APART),
            "alternating, proportional": Way(APART, "proportional", True),
            "alternating, equal": Way(APART, alternate=True),
            "joint, equal, layer norm": Way(APART, normalization="layer"),
            "alternating, equal, layer norm": Way(APART, "equal", True, "layer"),
            "joint, equal, batch norm": Way(APART, normalization="batch"),
            "alternating, equal, batch norm": Way(APART, "equal", True, "batch"),
        },
        pairs=(
            ("joint, equal", "alternating, equal"),
            ("joint, proportional", "alternating, proportional"),
            ("joint, equal", "joint, proportional"),
            ("joint, equal, layer norm", "alternating, equal, layer norm"),
            ("joint, equal, batch norm", "alternating, equal, batch norm"),
        ),
        load=two_sets,
    ),
    Case(
        name="MultiMNIST",
        tasks=("left", "right"),
        about="""\
One set: {rows[left]:,} training images of two overlaid digits (the recipe of Sener &
Koltun, 2018), each labelled for both tasks. *Joint*: every batch has half as many
images, with both labels. *Joint, one label a row*: every image comes with one of its
labels, and both kinds of rows are in every batch of {batch}. *Alternating*: a batch, or
an epoch, trains one task, in turns. So every step has {batch} labels, whatever the
way.""",
        ways={
            **separate(("left", "right")),
            "joint": Way((("left", "right"),), batch=0.5),
            "joint, one label a row": Way(TURNS),
            "alternating by batch": Way(TURNS, alternate=True),
            "alternating by epoch": Way(TURNS, alternate="epoch"),
            "joint, batch norm": Way(
                (("left", "right"),), "equal", False, "batch", 0.5
            ),
            "alternating by batch, batch norm": Way(TURNS, "equal", True, "batch"),
        },
        pairs=(
            ("joint", "alternating by batch"),
            ("joint", "joint, one label a row"),
            ("joint, one label a row", "alternating by batch"),
            ("alternating by batch", "alternating by epoch"),
            ("joint, batch norm", "alternating by batch, batch norm"),
        ),
        load=overlaid,
    ),
)
