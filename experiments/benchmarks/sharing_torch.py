"""LibMTL's architectures on the nets of the sharing benchmark, in PyTorch on the CPU.

Started by sharing.py in an environment with torch and LibMTL; prints one line of JSON.
Knows nothing of kmtl. LibMTL's trainer puts everything on a GPU, so its architecture
classes are used directly: forward, sum of the losses, backward, one Adam step. Three of
them (cross-stitch, MTAN, PLE) take only encoders with the attributes of a ResNet; the
encoders here have those, with the layers of the benchmark's nets.
"""

from __future__ import annotations

import importlib.metadata as metadata
import json
import os
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from weighting_torch import stand_in_for_torchvision

# The same numbers as sharing_nets.py, which needs Keras.
FEATURES, UNITS = 64, (128, 128, 128, 128, 128)
SIDE, CHANNELS, FILTERS, CLASSES = 32, 3, (16, 32, 32, 64, 64), 10
WIDE_SIDE, WIDE_FILTERS = 16, (64, 128, 256, 512)
BATCH = {"mlp": 128, "cnn": 32, "wide": 16}
EXPERTS, SELECTED, SHARED_EXPERTS = 4, 2, 2

#: Name in kmtl -> LibMTL's class and the nets it is run on.
SCHEMES = {
    "hard": ("HPS", ("mlp", "cnn", "wide")),
    "cross_stitch": ("Cross_stitch", ("mlp", "cnn")),
    "mmoe": ("MMoE", ("mlp", "cnn")),
    "cgc": ("CGC", ("mlp", "cnn")),
    "ple": ("PLE", ("mlp", "cnn")),
    "dselect_k": ("DSelect_k", ("mlp", "cnn")),
    "mtan": ("MTAN", ("wide",)),
}


def convolution(inputs: int, filters: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, filters, 3, 1, 1), nn.ReLU())


class Encoder(nn.Module):
    """A net's blocks under the names of a ResNet's."""

    feature_dim = 512

    def __init__(self, net: str, small: bool):
        super().__init__()
        self.bn1, self.relu, self.maxpool = nn.Identity(), nn.Identity(), nn.Identity()
        self.conv1: nn.Module = nn.Identity()
        sizes = {"mlp": UNITS, "cnn": FILTERS, "wide": WIDE_FILTERS}[net]
        sizes = [min(size, 8) if small and net != "wide" else size for size in sizes]
        width = FEATURES if net == "mlp" else CHANNELS
        blocks: list[nn.Module] = []
        for i, size in enumerate(sizes):
            if net == "mlp":
                blocks.append(nn.Sequential(nn.Linear(width, size), nn.ReLU()))
            elif net == "cnn":
                blocks.append(nn.Sequential(*convolution(width, size), nn.MaxPool2d(2)))
            else:
                # The mask and what it is laid over must have one size: LibMTL's MTAN
                # wants a block to begin, not to end, with the pooling.
                before = [nn.MaxPool2d(2)] if i else []
                first = nn.Sequential(*before, *convolution(width, size))
                blocks.append(nn.Sequential(first, convolution(size, size)))
            width = size
        if net != "wide":
            self.conv1 = blocks.pop(0)
        self.layer1, self.layer2, self.layer3, self.layer4 = blocks
        self.width = width

    def forward(self, x: Any) -> Any:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def head(net: str, width: int) -> nn.Module:
    if net == "mlp":
        return nn.Linear(width, 1)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)
    )


class Entry:
    """An architecture with its optimizer."""

    def __init__(self, job: dict[str, Any], name: str):
        import LibMTL.architecture as architectures

        net, count, small = job["net"], job["tasks"], job["small"]
        names = [f"task_{t}" for t in range(count)]
        width = Encoder(net, small).width
        side = WIDE_SIDE if net == "wide" else SIDE
        experts = [EXPERTS]
        if name in ("cgc", "ple"):
            experts = [SHARED_EXPERTS, *[1] * count]
        self.model = getattr(architectures, SCHEMES[name][0])(
            task_name=names,
            encoder_class=lambda: Encoder(net, small),
            decoders=nn.ModuleDict({task: head(net, width) for task in names}),
            rep_grad=False,
            multi_input=False,
            device=torch.device("cpu"),
            img_size=[FEATURES] if net == "mlp" else [CHANNELS, side, side],
            num_experts=experts,
            num_nonzeros=SELECTED,
            kgamma=1.0,
        )
        losses = {"mlp": nn.functional.mse_loss}
        self.loss = losses.get(net, nn.functional.cross_entropy)
        # Keras' epsilon; PyTorch's default, several tensors at a time.
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, eps=1e-7)

    def step(self, x: Any, y: dict[str, Any]) -> None:
        self.optimizer.zero_grad()
        outputs = self.model(x)
        sum(self.loss(outputs[task], labels) for task, labels in y.items()).backward()
        self.optimizer.step()


def data(net: str, count: int, rows: int) -> tuple[torch.Tensor, dict]:
    torch.manual_seed(0)
    side = WIDE_SIDE if net == "wide" else SIDE
    if net == "mlp":
        labels = {f"task_{t}": torch.randn(rows, 1) for t in range(count)}
        return torch.randn(rows, FEATURES), labels
    return torch.randn(rows, CHANNELS, side, side), {
        f"task_{t}": torch.randint(CLASSES, (rows,)) for t in range(count)
    }


def measure(job: dict[str, Any]) -> dict[str, Any]:
    batch = job["batch"] or BATCH[job["net"]]
    x, y = data(job["net"], job["tasks"], batch * job["steps"])
    batches = [
        (x[i : i + batch], {name: v[i : i + batch] for name, v in y.items()})
        for i in range(0, len(x), batch)
    ]

    now = {"wall": time.perf_counter, "cpu": time.process_time}[job["clock"]]

    def epoch(entry: Entry) -> float:
        began = now()
        for part in batches:
            entry.step(*part)
        return (now() - began) / len(batches)

    stand_in_for_torchvision()
    found, notes = [], []
    for name, (kind, nets) in SCHEMES.items():
        if job["net"] not in nets or name in job["done"]:
            continue
        if job["schemes"] and name not in job["schemes"]:
            continue
        try:
            entry = Entry(job, name)
            epoch(entry)
        except Exception as error:  # another library's: reported, not hidden
            notes.append(f"LibMTL {kind}: {type(error).__name__}: {error}")
            continue
        seconds = [epoch(entry) for _ in range(job["rounds"])]
        found.append(
            {
                "scheme": name,
                "class": kind,
                "milliseconds": float(np.median(seconds) * 1e3),
                "fastest_milliseconds": float(min(seconds) * 1e3),
                "parameters": sum(p.numel() for p in entry.model.parameters()),
            }
        )
        print(
            f"LibMTL {job['net']} T={job['tasks']} {name}: {min(seconds) * 1e3:.2f} ms",
            file=sys.stderr,
            flush=True,
        )
    return {"entries": found, "notes": notes, "load": list(os.getloadavg())}


def main() -> None:
    job = json.loads(sys.argv[1])
    versions = {name: metadata.version(name) for name in ("torch", "LibMTL")}
    print(json.dumps({"result": measure(job), "versions": versions}))


if __name__ == "__main__":
    main()
