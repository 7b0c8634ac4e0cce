"""Stage 1, correct: the same step on the card and on the CPU, then the tests.

Every weighting at each of its levels and every way to share make one step of plain
gradient descent from the same weights on the same batch, on both devices. Compared are
the losses and the change of all weights, by the norm of the difference over the norm of
the CPU's. The CPU computes in float32; the card in float32 with TF32 off, for a few
with TF32 and in mixed bfloat16.
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import keras
import nets
import numpy as np
import sharing_nets
import stage
import steps
import weighting_nets

from kmtl import _registry

#: Way of computing -> (precision of products, dtype policy, largest difference of the
#: losses, of the weights' change).
WAYS = {
    "float32": ("highest", "float32", 1e-4, 1e-4),
    "tf32": ("tensorfloat32", "float32", 1e-2, 5e-2),
    "bfloat16": ("default", "mixed_bfloat16", 5e-2, 0.3),
}
#: What is computed in the other two ways, too.
FEW = {"equal", "uncertainty", "pcgrad", "upgrad", "mmoe", "cross_stitch"}
#: Tests that need a backend and nothing else, the contract tests and golden values.
TESTS = (
    "tests/weighting/test_gradient_golden.py",
    "tests/weighting/test_loss_based.py",
    "tests/layers",
    "tests/weighting/test_gradient_contract.py",
    "tests/contract",
)
SHARE_OF_TESTS = 0.5  # of the stage's time
CHUNK = 12  # models that are traced before any is compiled


def entries(fast: bool) -> Iterator[tuple[str, str, str]]:
    """`(kind, name, level)` of all that is compared."""
    schemes = sharing_nets.schemes("mlp", 3)
    names = _registry.names("weighting")
    if fast:
        schemes, names = {"mmoe": schemes["mmoe"]}, ["pcgrad"]
    for name in names:
        if name not in ("schedule", "fixed"):  # numbers that users give
            for level in nets.levels(name)[-1 if fast else 0 :]:
                yield "weighting", name, level
    for name in schemes:
        yield "sharing", name, ""
    for net in ("conv",) if not fast else ():
        yield "net", net, ""


def model_and_data(kind: str, name: str, level: str) -> tuple[keras.Model, Any]:
    """A small model, compiled with gradient descent, and a batch."""
    weighting = None
    if kind == "sharing":
        scheme = sharing_nets.schemes("mlp", 3)[name]
        model = sharing_nets.build("mlp", 3, scheme, small=True)
        batch = sharing_nets.data("mlp", 3, 16)
    else:
        net = name if kind == "net" else "mlp"
        model = weighting_nets.build(net, 3, small=True)
        batch = weighting_nets.data(net, 3, 16)
        if kind == "weighting":
            weighting = nets.rule(name, level, own=batch)
    model.compile(keras.optimizers.SGD(0.1), weighting=weighting)
    return model, batch


def difference(found: Sequence, expected: Sequence) -> float:
    """Norm of the difference of two lists of arrays over the norm of the second."""
    one, two = (
        np.concatenate([np.asarray(part, "float64").ravel() for part in parts])
        for parts in (found, expected)
    )
    return float(np.linalg.norm(one - two) / max(np.linalg.norm(two), 1e-30))


class Pair:
    """One entry, traced for the card in one way and for the CPU."""

    def __init__(self, entry: tuple[str, str, str], way: str):
        self.entry, self.way = entry, way
        precision, policy, *_ = WAYS[way]
        self.places = (jax.devices()[0], jax.devices("cpu")[0])
        self.steps, self.lowered = [], []
        for device, p, kind in zip(
            self.places, (precision, "highest"), (policy, "float32"), strict=True
        ):
            keras.config.set_dtype_policy(kind)
            model, batch = model_and_data(*entry)
            with jax.default_matmul_precision(p):
                self.steps.append(steps.Step(model, *batch))
                self.lowered.append(self.steps[-1].lower(device))
        keras.config.set_dtype_policy("float32")

    def compare(self, programs: list) -> dict[str, Any]:
        """The record: differences of losses and of the weights' change, and whether
        both are within their bounds."""
        losses, changes = [], []
        for step, device, program in zip(
            self.steps, self.places, programs, strict=True
        ):
            program = steps.usable(program)
            state, data = step.on(device)
            before = [np.array(value) for value in state[0]]
            logs, after = program(state, data)
            losses.append([v for n, v in sorted(logs.items()) if n.endswith("loss")])
            changes.append(
                [
                    np.asarray(new) - old
                    for new, old in zip(after[0], before, strict=True)
                ]
            )
        kind, name, level = self.entry
        *_, loss_bound, change_bound = WAYS[self.way]
        found = {"losses": difference(*losses), "change": difference(*changes)}
        sound = found["losses"] <= loss_bound and found["change"] <= change_bound
        key = {"kind": kind, "name": name, "level": level, "way": self.way}
        return {**key, **found, "passed": sound}


def broken(entry: tuple[str, str, str], way: str, error: Exception) -> dict[str, Any]:
    """The record of an entry that could not be compared."""
    keras.config.set_dtype_policy("float32")
    key = dict(zip(("kind", "name", "level"), entry, strict=True))
    found = {"losses": math.inf, "change": math.inf, "passed": False}
    return {**key, "way": way, **found, "error": steps.words(error)}


def compare_all(run: stage.Stage) -> None:
    jobs = [(entry, "float32") for entry in entries(run.fast)]
    jobs += [
        (entry, way)
        for way in ("tf32", "bfloat16")
        for entry, _ in list(jobs)
        if (entry[1] in FEW or entry[0] == "net")
        and not (run.fast and entry[0] == "weighting")
    ]
    jobs = [
        (entry, way)
        for entry, way in dict.fromkeys(jobs)
        if not run.has(kind=entry[0], name=entry[1], level=entry[2], way=way)
    ]
    ends = run.left * SHARE_OF_TESTS
    for start in range(0, len(jobs), CHUNK):
        if run.left < ends:
            return
        pairs = []
        for entry, way in jobs[start : start + CHUNK]:
            try:
                pairs.append(Pair(entry, way))
            except Exception as error:  # is a result; the other entries go on
                run.add(**broken(entry, way, error))
        lowered = [one for pair in pairs for one in pair.lowered]
        programs = iter(steps.compile_all(lowered))
        for pair in pairs:
            own = [next(programs), next(programs)]
            try:
                run.add(**pair.compare(own))
            except Exception as error:
                run.add(**broken(pair.entry, pair.way, error))


def run_tests(run: stage.Stage) -> None:
    """The tests, as far as the time goes; one record, of what has ended."""
    key = {"kind": "tests", "name": "backend", "level": "", "way": ""}
    if run.has(**key):
        return
    workers = min(8, os.cpu_count() or 1) if not run.fast else 0
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-v",
        "--color=no",
        "-m",
        "backend",
    ]
    command += ["-n", str(workers), "-p", "no:cacheprovider", "-p", "no:randomly"]
    chosen = [TESTS[0], "-k", "pcgrad"] if run.fast else [*TESTS]
    done = subprocess.Popen(
        [*command, *chosen],
        cwd=stage.HERE.parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        text, _ = done.communicate(timeout=max(1.0, run.left - 3))
        finished = True
    except subprocess.TimeoutExpired:
        os.killpg(done.pid, signal.SIGKILL)  # its workers, too
        text, _ = done.communicate()
        finished = False
    Path(run.out / "tests.txt").write_text(text, "utf-8")
    results = re.findall(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b", text.partition("= F")[0])
    counts = {word.lower(): results.count(word) for word in set(results)}
    failed = sorted(set(re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.M)))
    sound = not failed and done.returncode in (0, -signal.SIGKILL)
    run.add(
        **key, counts=counts, failed=failed[:40], finished=finished,
        passed=bool(sound and counts.get("passed")),
    )  # fmt: skip


def main() -> None:
    run = stage.Stage("correct", ("kind", "name", "level", "way"))
    compare_all(run)
    run_tests(run)


if __name__ == "__main__":
    main()
