"""The two problems: their data, nets, tasks, and what is searched on each side."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import scenes

import kmtl

MULTIMNIST = Path(__file__).resolve().parents[1] / "multimnist"
LEARNING_RATE = (5e-4, 1e-2, "log")


def borrowed(name: str) -> ModuleType:
    """A module of the MultiMNIST experiment, under a name of its own."""
    full = f"multimnist_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, MULTIMNIST / f"{name}.py")
        if spec is None or spec.loader is None:
            raise ImportError(f"No module at {MULTIMNIST / name}.py")
        sys.modules[full] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[full]


net = borrowed("net")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeNet(net.LeNet):
    """The LeNet of the MultiMNIST experiment, with dropout after every block."""

    def block(self, index: int, features: Any, make: Any) -> Any:
        return self.drop(index, net.LeNet().block(index, features, make), make)


LeNet.registered_name = "sharing_depth_search_lenet"


@dataclasses.dataclass(frozen=True)
class Side:
    """One way of training, tuned with the same budget as every other.

    Args:
        name: What it is called.
        tasks: Names of the tasks that its model has.
        weighting: Name of a balancing method; None is fixed weights.
        searched: Whether the task weights are searched.
        low: The smallest sharing depth.
    """

    name: str
    tasks: tuple[str, ...]
    weighting: str | None = None
    searched: bool = False
    low: int = 0


@dataclasses.dataclass(frozen=True)
class Problem:
    """Tasks, data and the builder's arguments that are not searched.

    Args:
        name: What it is called.
        tasks: By name.
        backbone: The trunk.
        input_shape: Of one input.
        parts: Train, validation and test part, each `(inputs, labels)`.
    """

    name: str
    tasks: dict[str, kmtl.Task]
    backbone: Any
    input_shape: tuple[int, ...]
    parts: tuple[Any, ...]

    def sides(self) -> list[Side]:
        """Single tasks first: all others are measured by them."""
        both = tuple(self.tasks)
        return [
            *(Side(f"single_{name}", (name,)) for name in both),
            Side("searched", both, searched=True),
            Side("equal", both),
            # The two best of the MultiMNIST experiment, and the one most used.
            Side("famo", both, "famo"),
            # Where nothing is shared there is no gradient to balance.
            Side("cagrad", both, "cagrad", low=1),
            Side("uncertainty", both, "uncertainty"),
        ]

    def part(self, place: int, side: Side) -> tuple[Any, dict[str, Any]]:
        """Train (0), validation (1) or test (2) part, with the side's labels."""
        x, y = self.parts[place]
        return x, {name: y[name] for name in side.tasks}

    def space(self, side: Side) -> dict[str, Any]:
        """What is searched, in `kmtl.HyperModel`'s words."""
        space: dict[str, Any] = {"dropout": "default", "learning_rate": LEARNING_RATE}
        if len(side.tasks) > 1:
            space["sharing_depth"] = (side.low, self.backbone.num_blocks)
        if side.searched:
            space["task_weights"] = kmtl.tuning.UniformWeights(total=1.0)
        return space

    def hypermodel(self, side: Side, seed: int) -> kmtl.HyperModel:
        fixed = {"backbone": self.backbone, "input_shape": self.input_shape}
        if len(side.tasks) > 1 and not side.searched:
            fixed["loss_weights"] = "uniform"  # they sum to 1, as searched ones do
        return kmtl.HyperModel(
            kmtl.build,
            tasks=[self.tasks[name] for name in side.tasks],
            space=self.space(side),
            compile_options={"weighting": side.weighting} if side.weighting else {},
            seed=seed,
            **fixed,
        )


def multimnist(sizes: tuple[int, int, int], data_dir: Path | None, small: bool) -> Any:
    """Two overlaid digits; the net of Sener & Koltun (NeurIPS 2018)."""
    data = borrowed("data")
    if small:
        parts = data.stand_in(sizes)
    else:
        parts = data.load(sizes, None if data_dir is None else data_dir / "mnist")
    return Problem(
        "multimnist",
        {
            name: kmtl.Classification(name, classes=net.CLASSES, hidden=(net.UNITS,))
            for name in net.TASKS
        },
        LeNet(),
        (28, 28, 1),
        tuple((part.x, part.y) for part in parts),
    )


def nyuv2(sizes: tuple[int, int, int], data_dir: Path | None, small: bool) -> Any:
    """Indoor scenes: 13 classes per pixel and the distance in metres."""
    if small:
        parts = scenes.stand_in(sizes)
    elif data_dir is None:
        raise ValueError("`--data` must be given (or $KMTL_DATA_DIR set) for scenes.")
    else:
        parts = scenes.load(sizes, data_dir)
    filters = (4, 4) if small else (16, 32, 64)
    return Problem(
        "scenes",
        {
            "kind": kmtl.Segmentation(
                "kind", classes=scenes.CLASSES, size=scenes.SIZE, hidden=(filters[0],)
            ),
            "depth": kmtl.DenseRegression(
                "depth", size=scenes.SIZE, hidden=(filters[0],)
            ),
        },
        kmtl.backbones.CNN(filters=filters, normalization="batch"),
        scenes.SHAPE,
        parts,
    )


PROBLEMS = {"multimnist": multimnist, "scenes": nyuv2}
