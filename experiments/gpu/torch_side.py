"""PyTorch on one net of the stage "fast": eager, compiled, TorchJD and LibMTL.

Started by stage_fast.py; prints a line of JSON per entry. Knows nothing of kmtl. Fused
Adam, TF32 for float32, autocast to bfloat16 and channels last for the ResNet: what
PyTorch's own guides advise.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

PARTS, OBJECTS = 13, 40  # of nets.py, which needs Keras
METHODS = ("pcgrad", "upgrad")
FILTERS, DECODER = (64, 128, 256, 512), 16


def say(**record: Any) -> None:
    print(json.dumps(record), flush=True)


def resnet_trunk(small: bool) -> Any:
    """ResNet-18 without its classifier, as `nets.ResNet`."""
    from torch import nn

    def conv(inputs: int, filters: int, kernel: int, stride: int) -> list:
        return [
            nn.Conv2d(inputs, filters, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(filters),
        ]

    class Unit(nn.Module):
        def __init__(self, inputs: int, filters: int, stride: int):
            super().__init__()
            first, second = (
                conv(inputs, filters, 3, stride),
                conv(filters, filters, 3, 1),
            )
            self.main = nn.Sequential(*first, nn.ReLU(), *second)
            same = stride == 1 and inputs == filters
            short = [] if same else conv(inputs, filters, 1, stride)
            self.short = nn.Sequential(*short)
            self.relu = nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.relu(self.main(x) + self.short(x))

    filters = (4, 8) if small else FILTERS
    layers = [*conv(3, filters[0], 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = filters[0]
    for index, width in enumerate(filters):
        layers += [Unit(inputs, width, 2 if index else 1), Unit(width, width, 1)]
        inputs = width
    return nn.Sequential(*layers)


def resnet_heads(small: bool) -> dict[str, Any]:
    """Decoders that double the map until it is the image's, as kmtl's dense heads."""
    from torch import nn

    depth = (4, 8) if small else FILTERS
    doublings = len(depth) + 1

    def decoder(channels: int) -> Any:
        layers: list = []
        inputs = depth[-1]
        for i in range(doublings + 1):
            width = max(DECODER, depth[-1] // 2 ** (i + 1))
            layers += [nn.Conv2d(inputs, width, 3, 1, 1), nn.ReLU()]
            layers += [nn.Upsample(None, 2)] if i < doublings else []
            inputs = width
        return nn.Sequential(*layers, nn.Conv2d(inputs, channels, 1))

    return {"parts": decoder(PARTS), "objects": decoder(OBJECTS), "depth": decoder(1)}


def in_bfloat16(module: Any, kind: str, end: bool) -> Any:
    """The module under autocast; the last one gives float32, for the losses.

    Only the forward pass, as PyTorch's guide says.
    """
    import torch

    forward = module.forward

    def call(x: Any) -> Any:
        with torch.autocast(kind, torch.bfloat16):
            y = forward(x)
        return y.float() if end else y

    module.forward = call
    return module


def resnet_data(rows: int, size: tuple[int, int]) -> tuple[Any, dict]:
    import torch

    torch.manual_seed(0)
    pixels = (rows, *size)
    return torch.randn(rows, 3, *size), {
        "parts": torch.randint(PARTS, pixels),
        "objects": torch.randint(OBJECTS, pixels),
        "depth": torch.randn(rows, 1, *size),
    }


def entries(job: dict[str, Any], wt: Any) -> list[tuple[str, str, str, Callable]]:
    """`(library, method, level, function that makes it)`, in order of worth."""
    import torch

    class Compiled(wt.Plain):
        """The whole loss compiled by `torch.compile`."""

        def __init__(self, job: dict[str, Any]):
            super().__init__(job)
            self.total = torch.compile(
                lambda x, y: sum(self.each_loss(self.trunk(x), y))
            )

        def backward(self, x: Any, y: dict) -> None:
            self.total(x, y).backward()

    found = [
        ("PyTorch eager", "plain", "", lambda: wt.Plain(job)),
        ("PyTorch compiled", "plain", "", lambda: Compiled(job)),
    ]
    if importlib.util.find_spec("torchjd"):
        if not importlib.util.find_spec("LibMTL"):
            say(note="LibMTL is not installed here: its rows are left out.")
        found += wt.candidates({**job, "methods": METHODS})
    else:
        say(note="TorchJD is not installed here: its rows are left out.")
    return found


def measure(job: dict[str, Any]) -> None:
    import torch
    import weighting_torch as wt

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    job["device"] = str(device)
    resnet = job["net"] == "resnet"
    # Batch normalisation of bfloat16 with weights in float32 cannot be mapped.
    job["gradients_at_once"] = 1 if resnet else None
    wt.NETS["resnet"] = (
        lambda small: in_bfloat16(resnet_trunk(small), device.type, False),
        lambda small: {
            name: in_bfloat16(head, device.type, True)
            for name, head in resnet_heads(small).items()
        },
    )
    if resnet:
        x, y = resnet_data(job["batch"], tuple(job["size"]))
    else:
        x, y = wt.data(job["net"], job["tasks"], job["batch"])
    x, y = x.to(device), {name: labels.to(device) for name, labels in y.items()}
    if x.ndim == 4 and cuda:
        x = x.to(memory_format=torch.channels_last)

    def wait() -> None:
        if cuda:
            torch.cuda.synchronize()

    wt.stand_in_for_torchvision()
    for library, method, level, make in entries(job, wt):
        if [library, method, level] in job["done"]:
            continue
        try:
            entry = make()
            if x.ndim == 4 and cuda:
                for module in entry.modules():
                    module.to(memory_format=torch.channels_last)
            for _ in range(job["warm"]):
                entry.step(x, y)
            wait()
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            seconds = []
            for _ in range(job["steps"]):
                began = time.perf_counter()
                entry.step(x, y)
                wait()
                seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
            for _ in range(job["steps"]):
                entry.step(x, y)
            wait()
        except Exception as error:  # another library's: reported, not hidden
            text = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            say(note=f"{library} {method} {level}: {text}")
            continue
        say(
            library=library,
            method=method,
            level=level,
            milliseconds=1e3 * statistics.median(seconds),
            in_a_row=1e3 * (time.perf_counter() - began) / job["steps"],
            peak_bytes=torch.cuda.max_memory_allocated() if cuda else None,
            versions={"torch": torch.__version__},
        )


if __name__ == "__main__":
    if importlib.util.find_spec("torch") is None:
        say(note="PyTorch is not installed here: its side is left out.")
    else:
        measure(json.loads(sys.argv[1]))
