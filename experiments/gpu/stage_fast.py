"""Stage 2, fast: milliseconds per step, memory, and the share of the card's peak.

Plain Keras, equal weights, and what balances losses or gradients, on the MLP and the
conv net of the weighting benchmark (float32 with TF32) and on a ResNet-18 with three
dense heads at 288 x 384 (mixed bfloat16); beside them PyTorch, in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

import keras
import nets
import stage
import steps

import kmtl

NETS = ("conv", "resnet", "mlp")  # in order of worth
STEPS, WARM = 100, 10
SHARE_OF_TORCH = 0.45  # of a net's time
CHUNK = 3  # programs that are compiled side by side
TRAINING = 3  # forward and backward pass, in forward passes


def policy(net: str) -> str:
    return "mixed_bfloat16" if net == "resnet" else "float32"


def measure_peaks(run: stage.Stage) -> None:
    """Operations per second of matrix products alone, as the roof of a step."""
    size = 256 if run.fast else 8192
    for dtype in ("bfloat16", "float32"):
        key = {"net": "", "library": "matrix product", "method": dtype, "level": ""}
        if not run.has(**key):
            run.add(**key, per_second=steps.matrix_peak(dtype, size), size=size)


def measure_keras(run: stage.Stage, net: str, seconds: float) -> None:
    """Every entry that is not there yet, as far as the time goes."""
    ends = run.left - seconds
    entries = nets.ENTRIES[: 2 if net == "mlp" else 1] if run.fast else nets.ENTRIES
    todo = []
    for method, level in entries:
        key = {"net": net, "library": "Keras", "method": method, "level": level}
        if not run.has(**key):
            todo.append(((method, level), key))
    keras.config.set_dtype_policy(policy(net))
    x, y = nets.data(net, run.fast)
    forward = kmtl.summary(nets.build(net, run.fast)).total.flops
    for start in range(0, len(todo), CHUNK):
        if run.left < ends:
            break
        part = todo[start : start + CHUNK]
        made = [steps.Step(nets.compiled(net, e, run.fast), x, y) for e, _ in part]
        programs = steps.compile_all([step.lower() for step in made])
        for (_, key), step, program in zip(part, made, programs, strict=True):
            count, warm = (2, 1) if run.fast else (STEPS, WARM)
            try:
                program = steps.usable(program)
                found = steps.timed(program, *step.on(), steps=count, warm=warm)
            except Exception as error:  # memory, above all; the others go on
                print(f"{key}: {steps.words(error)}", flush=True)
                continue
            run.add(
                **key,
                **found,
                peak_bytes=steps.peak_bytes(program),
                operations=TRAINING * forward * len(x),
                batch=len(x),
                policy=policy(net),
            )
    keras.config.set_dtype_policy("float32")


def measure_torch(run: stage.Stage, net: str, seconds: float) -> None:
    """What `torch_side.py` prints, line by line, until its time is over."""
    done = [[key[2], key[3], key[4]] for key in run.records.found if key[1:2] == (net,)]
    job = {
        "net": net,
        "tasks": nets.TASKS[net],
        "small": run.fast,
        "steps": 2 if run.fast else STEPS,
        "warm": 1 if run.fast else WARM,
        "batch": nets.batch(net, run.fast),
        "size": nets.size(run.fast),
        "done": done,
    }
    side = subprocess.Popen(
        [sys.executable, str(stage.HERE / "torch_side.py"), json.dumps(job)],
        stdout=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(max(1.0, seconds), side.kill)
    timer.start()
    assert side.stdout is not None
    for line in side.stdout:
        record: dict[str, Any] = json.loads(line)
        if "note" in record:
            print(record["note"], flush=True)
        else:
            run.add(net=net, batch=job["batch"], **record)
    side.wait()
    timer.cancel()


def main() -> None:
    run = stage.Stage("fast", ("net", "library", "method", "level"))
    measure_peaks(run)
    chosen = ("mlp", "resnet") if run.fast else NETS
    for i, net in enumerate(chosen):
        share = run.left / (len(chosen) - i)
        measure_keras(run, net, (1 - SHARE_OF_TORCH) * share)
        measure_torch(run, net, min(SHARE_OF_TORCH * share, run.left - 2))


if __name__ == "__main__":
    main()
