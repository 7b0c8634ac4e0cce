"""The two nets of the sharing benchmark, every scheme on them, and hard sharing of as
many parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import kmtl
from kmtl import _registry

FEATURES, UNITS = 64, (128, 128, 128, 128, 128)
SIDE, CHANNELS, FILTERS, CLASSES = 32, 3, (16, 32, 32, 64, 64), 10
#: Of the only net that LibMTL's MTAN takes: these widths, two convolutions per block.
WIDE_SIDE, WIDE_FILTERS = 16, (64, 128, 256, 512)
BATCH = {"mlp": 128, "cnn": 32, "wide": 16}
EXPERTS, SELECTED, SHARED_EXPERTS = 4, 2, 2
#: Schemes that LibMTL has too.
PEERS = ("hard", "cross_stitch", "mmoe", "cgc", "ple", "dselect_k", "mtan")
CLOSE = 0.01  # share by which "as many parameters" may be off


def tasks(net: str, count: int) -> list[kmtl.Task]:
    """Linear heads."""
    if net == "mlp":
        return [kmtl.Regression(f"task_{t}") for t in range(count)]
    return [kmtl.Classification(f"task_{t}", classes=CLASSES) for t in range(count)]


def backbone(net: str, small: bool, scale: float = 1.0, alike: bool = False) -> Any:
    """A net's blocks, with `scale` times the width; `alike`: all of one shape."""
    options: dict[str, Any] = {"dropout": None}

    def widths(full: tuple[int, ...]) -> tuple[int, ...]:
        sizes = [min(size, 8) for size in full] if small else list(full)
        if alike:
            sizes = [sizes[1]] * len(sizes)
        return tuple(max(round(size * scale), 1) for size in sizes)

    if net == "mlp":
        return kmtl.backbones.MLP(units=widths(UNITS), **options)
    if net == "wide":
        return kmtl.backbones.CNN(filters=widths(WIDE_FILTERS), convs=2, **options)
    pooling = None if alike else "max"
    return kmtl.backbones.CNN(filters=widths(FILTERS), pooling=pooling, **options)


def schemes(net: str, count: int) -> dict[str, Any]:
    """Name -> scheme, with the sizes that the PyTorch side has too."""
    names = [task.name for task in tasks(net, count)]
    blocks = 4 if net == "wide" else 5
    own: dict[str, Any] = {
        # LibMTL stitches after the second, third and fourth block, a number per task.
        "cross_stitch": {"after": (2, 3, 4), "per_channel": False},
        "mmoe": {"experts": EXPERTS},
        "cgc": {"shared_experts": SHARED_EXPERTS, "task_experts": 1},
        "ple": {"shared_experts": SHARED_EXPERTS, "task_experts": 1},
        "dselect_k": {"experts": EXPERTS, "selected": SELECTED},
        "sparse_moe": {"experts": EXPERTS, "selected": SELECTED},
        "hierarchical": {
            "levels": {n: blocks - (i % 2) for i, n in enumerate(names)}
        },
        "tree": {
            "groups": [[names]] * 2 + [[names[::2], names[1::2]]] * (blocks - 2)
        },
    }  # fmt: skip
    found = {}
    for name in _registry.names("sharing"):
        cls = _registry.get("sharing", name)
        options = own.get(name, {})
        required = [
            field.name
            for field in dataclasses.fields(cls)
            if field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
            and field.name not in options
        ]
        # Chains and dense distillation are for tasks of other kinds; what has no
        # defaults otherwise is what a search or training leaves behind.
        if not required and name not in DENSE:
            found[name] = cls(**options)
    return found


#: Schemes of tasks that predict maps; not measured here.
DENSE = ("pad_net", "mti_net")
#: Schemes that mix or skip blocks, which must then be alike.
ALIKE = ("adashare", "sluice")


def build(
    net: str, count: int, scheme: Any, small: bool = False, scale: float = 1.0
) -> kmtl.MultiTaskModel:
    """A fresh model; the same initial weights every time."""
    side = WIDE_SIDE if net == "wide" else SIDE
    alike = scheme.registered_name in ALIKE
    return kmtl.build(
        backbone=backbone(net, small, scale, alike),
        input_shape=(FEATURES,) if net == "mlp" else (side, side, CHANNELS),
        tasks=tasks(net, count),
        sharing=scheme,
        seed=0,
    )


def equal_hard(
    net: str, count: int, parameters: int, small: bool, alike: bool
) -> kmtl.MultiTaskModel:
    """Hard sharing with the same blocks made wider (or narrower), so that it has as
    many parameters."""
    low, high = 0.1, 16.0
    best = None
    for _ in range(24):
        scale = (low * high) ** 0.5
        number = _hard_parameters(net, count, backbone(net, small, scale, alike))
        if best is None or abs(number - parameters) < abs(best[0] - parameters):
            best = (number, scale)
        low, high = (scale, high) if number < parameters else (low, scale)
        if abs(number / parameters - 1) < CLOSE:
            break
    assert best is not None
    side = WIDE_SIDE if net == "wide" else SIDE
    return kmtl.build(
        backbone=backbone(net, small, best[1], alike),
        input_shape=(FEATURES,) if net == "mlp" else (side, side, CHANNELS),
        tasks=tasks(net, count),
        sharing="hard",
        seed=0,
    )


def _hard_parameters(net: str, count: int, trunk: Any) -> int:
    """Parameters of hard sharing on these blocks."""
    width, total = (FEATURES, 0) if net == "mlp" else (CHANNELS, 0)
    window = 1 if net == "mlp" else 9
    for size in trunk.units if net == "mlp" else trunk.filters:
        for _ in range(2 if net == "wide" else 1):
            total += window * width * size + size
            width = size
    return total + count * (width + 1) * (1 if net == "mlp" else CLASSES)


def data(net: str, count: int, rows: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Random inputs and labels."""
    random = np.random.default_rng(0)
    side = WIDE_SIDE if net == "wide" else SIDE
    shape = (rows, FEATURES) if net == "mlp" else (rows, side, side, CHANNELS)
    x = random.normal(size=shape).astype("float32")
    if net == "mlp":
        return x, {
            f"task_{t}": random.normal(size=(rows, 1)).astype("float32")
            for t in range(count)
        }
    return x, {
        f"task_{t}": random.integers(0, CLASSES, rows).astype("int32")
        for t in range(count)
    }
