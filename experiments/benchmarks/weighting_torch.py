"""TorchJD and LibMTL on the nets of the weighting benchmark, in PyTorch on the CPU.

Started by weighting.py in an environment with torch, torchjd and LibMTL; prints one
line of JSON. Knows nothing of kmtl. TorchJD runs as its documentation says:
`mtl_backward` and `jac_to_grad`. LibMTL's trainer puts everything on a GPU, so its
weighting and architecture classes are used directly, combined as its trainer does.
"""

from __future__ import annotations

import importlib.metadata as metadata
import json
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

# The same numbers as weighting_nets.py, which needs Keras.
SIDE, CHANNELS, CLASSES, PIXEL_CLASSES = 64, 3, 10, 13
FEATURES, WIDTH, DEPTH, HEAD_UNITS = 128, 512, 4, 64
BATCH = {"mlp": 256, "conv": 16}


#: Other nets of programs that use this one: functions of `small` that make the trunk,
#: and the heads by task.
NETS: dict[str, tuple[Callable, Callable]] = {}


def trunk(net: str, small: bool) -> nn.Module:
    if net in NETS:
        return NETS[net][0](small)
    layers: list[nn.Module] = []
    if net == "mlp":
        width, inputs = 8 if small else WIDTH, FEATURES
        for _ in range(2 if small else DEPTH):
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        return nn.Sequential(*layers)
    inputs = CHANNELS
    for filters in (4, 4, 4) if small else (32, 64, 128):
        for stride in (1, 2):
            layers += [nn.Conv2d(inputs, filters, 3, stride, 1), nn.ReLU()]
            inputs = filters
    return nn.Sequential(*layers)


def heads(net: str, tasks: int, small: bool) -> dict[str, nn.Module]:
    if net in NETS:
        return NETS[net][1](small)
    if net == "mlp":
        width, units = (8, 4) if small else (WIDTH, HEAD_UNITS)
        return {
            f"task_{t}": nn.Sequential(
                nn.Linear(width, units), nn.ReLU(), nn.Linear(units, 1)
            )
            for t in range(tasks)
        }
    depth = 4 if small else 128

    def decoder(channels: int) -> nn.Module:
        layers: list[nn.Module] = []
        inputs = depth
        for i in range(3):
            filters = max(16, depth // 2 ** (i + 1))
            layers += [
                nn.Conv2d(inputs, filters, 3, 1, 1),
                nn.ReLU(),
                nn.Upsample(None, 2),
            ]
            inputs = filters
        return nn.Sequential(
            *layers,
            nn.Conv2d(inputs, 16, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(16, channels, 1),
        )

    pooled = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(depth, CLASSES)
    )
    return {"kind": pooled, "parts": decoder(PIXEL_CLASSES), "depth": decoder(1)}


def data(net: str, tasks: int, rows: int) -> tuple[torch.Tensor, dict]:
    torch.manual_seed(0)
    if net == "mlp":
        labels = {f"task_{t}": torch.randn(rows, 1) for t in range(tasks)}
        return torch.randn(rows, FEATURES), labels
    return torch.randn(rows, CHANNELS, SIDE, SIDE), {
        "kind": torch.randint(CLASSES, (rows,)),
        "parts": torch.randint(PIXEL_CLASSES, (rows, SIDE, SIDE)),
        "depth": torch.randn(rows, 1, SIDE, SIDE),
    }


def stand_in_for_torchvision() -> None:
    """Let LibMTL be imported.

    It imports a function from `torchvision.models.utils`, which torchvision no longer
    has, for weights that nothing here loads.
    """
    for name in ("torchvision", "torchvision.models", "torchvision.models.utils"):
        sys.modules[name] = types.ModuleType(name)
    utils: Any = sys.modules["torchvision.models.utils"]
    utils.load_state_dict_from_url = torch.hub.load_state_dict_from_url


def loss_of(name: str) -> Callable:
    kinds = ("kind", "parts", "objects")
    return nn.functional.cross_entropy if name in kinds else nn.functional.mse_loss


class Plain:
    """Sum of the losses; also what the others inherit.

    On `job["device"]`, the CPU by default.
    """

    def __init__(self, job: dict[str, Any]):
        device = job.get("device", "cpu")
        self.trunk = trunk(job["net"], job["small"]).to(device)
        made = heads(job["net"], job["tasks"], job["small"])
        self.heads = nn.ModuleDict(made).to(device)
        self.losses = {name: loss_of(name) for name in self.heads}
        self.make_optimizer([*self.trunk.parameters(), *self.heads.parameters()])

    def modules(self) -> list[nn.Module]:
        return [self.trunk, self.heads]

    def make_optimizer(self, parameters: list) -> None:
        # Keras' epsilon; PyTorch's default, several tensors at a time, on a CPU.
        fused = parameters[0].is_cuda or None
        self.optimizer = torch.optim.Adam(parameters, lr=1e-3, eps=1e-7, fused=fused)

    def each_loss(self, features: Any, y: dict) -> list:
        return [
            self.losses[name](head(features), y[name])
            for name, head in self.heads.items()
        ]

    def backward(self, x: Any, y: dict) -> None:
        sum(self.each_loss(self.trunk(x), y)).backward()

    def step(self, x: Any, y: dict) -> None:
        self.optimizer.zero_grad()
        self.backward(x, y)
        self.optimizer.step()


class TorchJD(Plain):
    """Parameter level: `mtl_backward`, then `jac_to_grad` with an aggregator."""

    def __init__(self, job: dict[str, Any], aggregator: Any):
        super().__init__(job)
        self.aggregator = aggregator
        #: Gradients at a time; all, unless something in the net cannot be mapped.
        self.at_once = job.get("gradients_at_once")

    def backward(self, x: Any, y: dict) -> None:
        from torchjd.autojac import jac_to_grad, mtl_backward

        features = self.trunk(x)
        losses = self.each_loss(features, y)
        mtl_backward(losses, features=features, parallel_chunk_size=self.at_once)
        jac_to_grad(self.trunk.parameters(), self.aggregator)


class TorchJDGramian(Plain):
    """Parameter level by the Gramian engine: no Jacobian is kept."""

    def __init__(self, job: dict[str, Any], weighting: Any):
        from torchjd.autogram import Engine

        super().__init__(job)
        self.weighting = weighting
        self.engine = Engine(self.trunk, batch_dim=None)

    def backward(self, x: Any, y: dict) -> None:
        losses = torch.stack(self.each_loss(self.trunk(x), y))
        weights = self.weighting(self.engine.compute_gramian(losses))
        losses.backward(weights)


class LibMTL(Plain):
    """LibMTL's hard sharing architecture and one of its weightings, on the CPU."""

    def __init__(self, job: dict[str, Any], name: str, features: bool):
        import LibMTL.weighting as weightings
        from LibMTL.architecture import HPS

        model = type(
            "Model",
            (HPS, getattr(weightings, name)),
            # PyTorch 2 would make them None, on which LibMTL fails.
            {"zero_grad_share_params": lambda m: m.encoder.zero_grad(False)},
        )
        made = heads(job["net"], job["tasks"], job["small"])
        device = torch.device(job.get("device", "cpu"))
        self.model = model(
            task_name=list(made),
            encoder_class=lambda: trunk(job["net"], job["small"]),
            decoders=nn.ModuleDict(made),
            rep_grad=features,
            multi_input=False,
            device=device,
        ).to(device)
        self.model.task_num = len(made)
        self.model.init_param()
        self.device = device
        self.losses = {task: loss_of(task) for task in made}
        self.options = {"MGDA": {"mgda_gn": "none"}}.get(
            name, {"calpha": 0.5, "rescale": 1} if name == "CAGrad" else {}
        )
        self.make_optimizer(list(self.model.parameters()))

    def modules(self) -> list[nn.Module]:
        return [self.model]

    def backward(self, x: Any, y: dict) -> None:
        outputs = self.model(x)
        losses = torch.zeros(len(self.losses), device=self.device)
        for t, (task, loss) in enumerate(self.losses.items()):
            losses[t] = loss(outputs[task], y[task])
        self.model.backward(losses, **self.options)


def candidates(job: dict[str, Any]) -> list[tuple[str, str, str, Callable]]:
    """`(library, method, level, function that makes it)`."""
    import torchjd.aggregation as agg

    names = {"pcgrad": "PCGrad", "mgda": "MGDA", "upgrad": "UPGrad", "cagrad": "CAGrad"}
    options = {"cagrad": {"c": 0.5}}
    found: list[tuple[str, str, str, Callable]] = []
    for method in job["methods"]:
        given = options.get(method, {})
        cls = getattr(agg, names[method])
        weighting = getattr(agg, f"{names[method]}Weighting")
        found += [
            (
                "TorchJD, autojac",
                method,
                "parameters",
                lambda cls=cls, given=given: TorchJD(job, cls(**given)),
            ),
            (
                "TorchJD, autogram",
                method,
                "parameters",
                lambda w=weighting, given=given: TorchJDGramian(job, w(**given)),
            ),
        ]
        if method != "upgrad":  # LibMTL has no UPGrad
            for features in (False, True):
                if features and method == "pcgrad":  # refused by LibMTL
                    continue
                found.append(
                    (
                        "LibMTL",
                        method,
                        "features" if features else "parameters",
                        lambda n=names[method], f=features: LibMTL(job, n, f),
                    )
                )
    return found


def measure(job: dict[str, Any]) -> dict[str, Any]:
    batch = job["batch"] or BATCH[job["net"]]
    x, y = data(job["net"], job["tasks"], batch * job["steps"])
    batches = [
        (x[i : i + batch], {name: v[i : i + batch] for name, v in y.items()})
        for i in range(0, len(x), batch)
    ]

    def epoch(entry: Any) -> float:
        began = time.perf_counter()
        for part in batches:
            entry.step(*part)
        return time.perf_counter() - began

    stand_in_for_torchvision()
    base = Plain(job)
    epoch(base)
    found, notes = [], []
    for library, method, level, make in candidates(job):
        try:
            entry = make()
            epoch(entry)
        except Exception as error:  # another library's: reported, not hidden
            notes.append(f"{library} {method} {level}: {type(error).__name__}: {error}")
            continue
        pairs = [(epoch(base), epoch(entry)) for _ in range(job["rounds"])]
        plain, own = np.array(pairs).T
        low, middle, high = np.percentile(own / plain, [25, 50, 75])
        found.append(
            {
                "library": library,
                "method": method,
                "level": level,
                "ratio": float(middle),
                "ratio_quartiles": [float(low), float(high)],
                "milliseconds": float(np.median(own) / job["steps"] * 1e3),
                "plain_milliseconds": float(np.median(plain) / job["steps"] * 1e3),
            }
        )
    return {"entries": found, "notes": notes}


def main() -> None:
    job = json.loads(sys.argv[1])
    names = ("torch", "torchjd", "LibMTL")
    versions = {name: metadata.version(name) for name in names}
    print(json.dumps({"result": measure(job), "versions": versions}))


if __name__ == "__main__":
    main()
