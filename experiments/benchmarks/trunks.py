"""Step time and peak memory of each trunk over plain Keras with the same layers.

    taskset -c 0 python experiments/benchmarks/trunks.py

Two heads, a class and a number, on every trunk; on a ResNet with a decoder ("unet",
"fpn", "aspp") a map of classes and a number. The other side is `to_keras()` of the same
model with losses and metrics of Keras; for `FromKeras`, MobileNetV2 of
`keras.applications` with two dense layers, made without kmtl. Both sides train in turn
in one process, an epoch of some steps each, and CPU time of that epoch is compared pair
by pair: the ratio is the median over the pairs. What `fit` does before its first epoch
(reading and checking data) is a time of its own. Peak memory is that of a process per
side. Writes trunks.json and TRUNKS.md to `--out`; trunks that are there are kept, so
that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BAR = 1.03
IMAGE, SERIES, TABLE = (32, 32, 3), (32, 8), (16,)
#: Heads on maps, of a ResNet.
DECODERS = ("unet", "fpn", "aspp")
TRUNKS = {
    "mlp": (64,),
    "tabular": TABLE,
    "ft_transformer": TABLE,
    "cnn": IMAGE,
    "resnet": IMAGE,
    "vit": IMAGE,
    "conv1d": SERIES,
    "tcn": SERIES,
    "rnn": SERIES,
    "transformer": SERIES,
    "from_keras": IMAGE,
    **dict.fromkeys(DECODERS, IMAGE),
}
BATCH, CLASSES = 32, 5
#: Steps of small nets per step of the others: an epoch has costs of its own.
MORE = {"mlp": 20, "tabular": 10, "conv1d": 4, "tcn": 4, "transformer": 2, "cnn": 2}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trunks", nargs="*", default=list(TRUNKS))
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--pairs", type=int, default=15, help="pairs of both sides")
    parser.add_argument("--steps", type=int, default=30, help="of large nets in a pair")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--fast", action="store_true", help="seconds; means nothing")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.fast:
        options.trunks, options.pairs, options.steps = options.trunks[:1], 1, 1
        options.no_memory = True
        if options.out == HERE:
            options.out = Path(tempfile.mkdtemp())
    return options


# -- in a process of its own -----------------------------------------------------------


def tasks(name: str) -> list[Any]:
    import kmtl

    if name in DECODERS:
        kind: Any = kmtl.Segmentation("kind", classes=CLASSES, decoder=name)
    else:
        kind = kmtl.Classification("kind", classes=CLASSES)
    return [kind, kmtl.Regression("size")]


def ours(name: str) -> Any:
    """The trunk as a user builds it, at its defaults."""
    import kmtl

    shape: Any = TRUNKS[name]
    backbone: Any = name
    if name == "resnet" or name in DECODERS:
        backbone = kmtl.backbones.ResNet(filters=(16, 32, 64))
    elif name == "from_keras":
        backbone = kmtl.backbones.FromKeras(
            mobile_net(), preprocessing=None, cuts="auto"
        )
    model = kmtl.build(backbone=backbone, input_shape=shape, tasks=tasks(name), seed=0)
    model.compile("adam")
    return model


def mobile_net() -> Any:
    import keras

    return keras.applications.MobileNetV2(
        alpha=0.35, weights=None, include_top=False, input_shape=IMAGE
    )


def plain(name: str) -> Any:
    """The same layers in plain Keras."""
    import keras

    if name == "from_keras":
        net = mobile_net()
        pooled = keras.layers.GlobalAveragePooling2D()(net.output)
        outputs = {
            "kind": keras.layers.Dense(CLASSES, name="kind")(pooled),
            "size": keras.layers.Dense(1, name="size")(pooled),
        }
        model = keras.Model(net.input, outputs)
    else:
        model = ours(name).to_keras()
    model.compile(
        "adam",
        loss={
            "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "size": "mse",
        },
        metrics={"kind": ["sparse_categorical_accuracy"], "size": ["mae"]},
    )
    return model


def data(name: str, rows: int) -> tuple[Any, dict[str, Any]]:
    import numpy as np

    random = np.random.default_rng(0)
    x = random.normal(size=(rows, *TRUNKS[name])).astype("float32")
    labels = {
        "kind": random.integers(
            0, CLASSES, (rows, *IMAGE[:2]) if name in DECODERS else rows
        ).astype("float32"),
        "size": random.normal(size=rows).astype("float32"),
    }
    return x, labels


def steps(model: Any, x: Any, y: Any) -> tuple[float, float]:
    """CPU seconds of an epoch, and of what `fit` does before it."""
    import keras

    marks = [time.process_time()]

    def mark(*_: Any) -> None:
        marks.append(time.process_time())

    clock = keras.callbacks.LambdaCallback(on_epoch_begin=mark, on_epoch_end=mark)
    model.fit(x, y, batch_size=BATCH, callbacks=[clock], verbose=0, shuffle=False)
    start, begin, end = marks
    return end - begin, begin - start


def times(name: str, pairs: int, count: int) -> dict[str, Any]:
    """Seconds per step of both sides, in turn, and their ratio."""
    x, y = data(name, count * BATCH)
    sides = {"kmtl": ours(name), "keras": plain(name)}
    parameters = {key: model.count_params() for key, model in sides.items()}
    for model in sides.values():
        for _ in range(2):
            steps(model, x, y)  # traced, and warm
    found: dict[str, list[float]] = {"kmtl": [], "keras": []}
    before: dict[str, list[float]] = {"kmtl": [], "keras": []}
    for pair in range(pairs):
        for key in sorted(sides, reverse=bool(pair % 2)):
            epoch, first = steps(sides[key], x, y)
            found[key].append(epoch / count)
            before[key].append(first)
    ratios = [a / b for a, b in zip(found["kmtl"], found["keras"], strict=True)]
    return {
        **{key: statistics.median(values) for key, values in found.items()},
        "ratio": statistics.median(ratios),
        "before": {key: statistics.median(values) for key, values in before.items()},
        "parameters": parameters,
    }


def peak(name: str, side: str) -> float:
    """Peak resident memory of the process after two epochs, in MB."""
    x, y = data(name, 4 * BATCH)
    model = {"kmtl": ours, "keras": plain}[side](name)
    for _ in range(2):
        steps(model, x, y)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# -- all of them -----------------------------------------------------------------------


def child(options: argparse.Namespace, job: dict[str, Any]) -> Any:
    """Result of a process of its own, on one core."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(job)],
        env={
            **os.environ,
            "KERAS_BACKEND": options.backend,
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "TF_NUM_INTRAOP_THREADS": "1",
            "TF_NUM_INTEROP_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(found: dict[str, Any]) -> str:
    lines = [
        "# Trunks over plain Keras",
        "",
        *(f"- {key}: {value}" for key, value in found["conditions"].items()),
        f"- Bar: {BAR} for both ratios.",
        "",
        "| trunk | parameters | ms per step (kmtl) | (Keras) | ratio "
        "| ms before (kmtl) | (Keras) | peak MB (kmtl) | (Keras) | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found["trunks"].items():
        memory = row.get("memory", {})
        cells = ["", "", ""]
        if memory:
            part = memory["kmtl"] / memory["keras"]
            cells = [f"{memory['kmtl']:.0f}", f"{memory['keras']:.0f}", f"{part:.2f}"]
        lines.append(
            f"| {name} | {row['parameters']['kmtl']:,} | {1e3 * row['kmtl']:.1f} "
            f"| {1e3 * row['keras']:.1f} | {row['ratio']:.3f} "
            f"| {1e3 * row['before']['kmtl']:.0f} | {1e3 * row['before']['keras']:.0f} "
            f"| {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def conditions(options: argparse.Namespace) -> dict[str, str]:
    import importlib.metadata as metadata

    packages = ("keras", "tensorflow" if options.backend == "tensorflow" else "jax")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "Command": "`python experiments/benchmarks/trunks.py"
        f" --pairs {options.pairs} --steps {options.steps}`",
        "Date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "Versions": f"Python {platform.python_version()}, {versions}",
        "Machine": f"{platform.machine()}, {os.cpu_count()} cores, one used; "
        f"load average {load:.1f} at the end",
    }


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.child:
        job = json.loads(options.child)
        result: Any
        if "side" in job:
            result = peak(job["trunk"], job["side"])
        else:
            result = times(job["trunk"], job["pairs"], job["steps"])
        print(json.dumps(result))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "trunks.json"
    found: dict[str, Any] = {"conditions": {}, "trunks": {}}
    if path.exists():
        found = json.loads(path.read_text("utf-8"))
    for name in options.trunks:
        if name in found["trunks"]:
            continue
        steps_each = options.steps * MORE.get(name, 1)
        job = {"trunk": name, "pairs": options.pairs, "steps": steps_each}
        row = child(options, job)
        if not options.no_memory:
            row["memory"] = {
                side: child(options, {"trunk": name, "side": side})
                for side in ("kmtl", "keras")
            }
        found["trunks"][name] = row
        found["conditions"] = conditions(options)
        path.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
        (options.out / "TRUNKS.md").write_text(report(found), "utf-8")
    print(report(found))


if __name__ == "__main__":
    main()
