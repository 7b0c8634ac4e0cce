"""Stage 4, published: MultiMNIST by the protocol of Sener and Koltun (2018).

Per side (a single-task net per digit, or a way to balance the two) and learning rate
the seeds train as one population: 100 epochs of gradient descent with momentum on the
LeNet of `experiments/multimnist`, the rate chosen on 10,000 images held out of the
60,000, test accuracy of its seeds on 10,000 others. Where the time ends in the middle
of a population, its state is kept, and the next run goes on there. "fixed" stands for
searched task weights: as many trials as a side has, at the best rate of equal weights.

Then NYUv2, by `experiments/nyuv2_scenes`, as far as the time goes.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import stage

import kmtl
from kmtl.training import checkpoint
from kmtl.tuning.population import Member, Snapshot, Trained

SIDES = (
    "equal", "single_left", "single_right", "mgda", "uncertainty", "pcgrad", "upgrad",
    "cagrad", "famo", "fixed",
)  # fmt: skip
RATIOS = (0.1, 0.18, 0.32, 0.56, 0.75, 1.33, 1.8, 3.2, 5.6, 10.0)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Sizes of a run."""

    sizes: tuple[int, int, int] = (50_000, 10_000, 10_000)
    epochs: int = 100
    batch: int = 256
    rates: tuple[float, ...] = (1e-3, 1e-2, 5e-2)
    seeds: int = 5
    dropout: float = 0.5
    sides: tuple[str, ...] = SIDES
    ratios: tuple[float, ...] = RATIOS


FAST = Protocol(
    sizes=(128, 64, 64), epochs=2, batch=32, rates=(1e-2,), seeds=2, sides=("equal",)
)


def hypermodel(side: str, protocol: Protocol, net: Any) -> kmtl.HyperModel:
    single = side.startswith("single_")
    tasks = (side.removeprefix("single_"),) if single else net.TASKS
    weighting = None if single or side in ("equal", "fixed") else side
    space: dict[str, Any] = {
        "learning_rate": (1e-5, 1.0, "log"),
        "learning_rate_schedule": ["step"],
    }
    if side == "fixed":
        space["task_weights"] = kmtl.tuning.TaskWeights(0.25, 4.0, total=1.0)
    return kmtl.HyperModel(
        kmtl.build,
        backbone=net.LeNet(dropout=protocol.dropout),
        tasks=[
            kmtl.Classification(
                name, classes=10, hidden=(50,), dropout=protocol.dropout
            )
            for name in tasks
        ],
        input_shape=(28, 28, 1),
        space=space,
        optimizer=keras.optimizers.SGD(1e-3, momentum=0.9),
        compile_options={"weighting": weighting},
        seed=0,
    )


class Published:
    """The populations of MultiMNIST, one after another.

    Args:
        run: The stage.
        protocol: Sizes.
        net, parts: LeNet's module, and training, validation and test images.
    """

    def __init__(self, run: stage.Stage, protocol: Protocol, net: Any, parts: tuple):
        self.run, self.protocol, self.net, self.parts = run, protocol, net, parts
        self.kept = run.out / "published_part.npz"
        self.last = 0.0

    def record(self, side: str, phase: str, rate: float) -> dict[str, Any] | None:
        return self.run.records.found.get((self.run.card, side, phase, rate))

    def jobs(self) -> Iterator[tuple[str, str, float]]:
        """`(side, phase, rate)` of the populations that are lacking."""
        for side in self.protocol.sides:
            rates: tuple[float, ...] = self.protocol.rates
            if side == "fixed":
                rates = (self.best_rate("equal"),)
                if not self.record(side, "search", rates[0]):
                    yield side, "search", rates[0]
            for rate in rates:
                if not self.record(side, "seeds", rate):
                    yield side, "seeds", rate

    def best_rate(self, side: str) -> float:
        """The rate with the best mean validation accuracy over seeds and tasks."""
        found = {
            rate: np.mean([list(v.values()) for v in record["validation"]])
            for rate in self.protocol.rates
            if (record := self.record(side, "seeds", rate))
        }
        return max(found, key=found.__getitem__)

    def best_ratio(self, rate: float) -> float:
        record = self.record("fixed", "search", rate)
        assert record is not None
        means = [np.mean(list(v.values())) for v in record["validation"]]
        return self.protocol.ratios[int(np.argmax(means))]

    def members(self, side: str, phase: str, rate: float, values: dict) -> list[Member]:
        values = {**values, "learning_rate": rate, "learning_rate_schedule": "step"}
        ratio = next((n for n in values if n.startswith("weight_ratio_")), None)
        if phase == "search":
            return [Member({**values, ratio: own}) for own in self.protocol.ratios]
        if side == "fixed":
            values[ratio] = self.best_ratio(rate)
        return [Member(values, seed) for seed in range(self.protocol.seeds)]

    def train_all(self) -> bool:
        """Whether all is trained now."""
        for job in self.jobs():
            if self.run.left < 5 or not self.train(*job):
                return False
        return True

    def train(self, side: str, phase: str, rate: float) -> bool:
        """Train a population; False where the time has ended before it."""
        from kmtl.tuning.population import Population

        began = time.perf_counter()
        model = hypermodel(side, self.protocol, self.net)
        train, validation, test = self.parts
        tasks = [task.name for task in model.tasks]
        members = self.members(side, phase, rate, model.default_values())
        key = {"side": side, "phase": phase, "rate": rate}
        earlier = self.take_up(key, members)
        population = Population(
            model,
            *train.select(tasks),
            batch_size=self.protocol.batch,
            population=len(members),
        )
        marks = [time.monotonic()]

        paused = False

        def pause(ended: list) -> set[int]:
            nonlocal paused
            marks.append(time.monotonic())
            pace = marks[-1] - marks[-2]  # of one epoch
            stop = self.run.left < 2 * pace + 5
            paused = stop and ended[-1].epoch < self.protocol.epochs
            return set(range(len(members))) if paused else set()

        trained = population.train(
            members,
            epochs=self.protocol.epochs,
            on_epoch_end=pause,
            keep_last=True,
        )
        seconds = earlier + time.perf_counter() - began
        if paused:
            self.keep(key, trained, seconds)
            return False
        found: dict[str, list] = {"validation": [], "test": []}
        for member, one in zip(members, trained, strict=True):
            keras_model = population.model(member)
            if one.last is not None:
                one.last.restore(keras_model)
            for name, part in (("validation", validation), ("test", test)):
                broken = one.failure or one.last is None
                accuracy = {} if broken else measure(keras_model, part, tasks)
                found[name].append(accuracy or dict.fromkeys(tasks, 0.0))
        if phase == "search":  # its test images are nobody's to see
            del found["test"]
        self.run.add(
            **key,
            **found,
            failures=[one.failure for one in trained if one.failure],
            level=level_of(keras_model),
            epochs=self.protocol.epochs,
            seconds=round(seconds, 1),
        )
        self.kept.unlink(missing_ok=True)
        return True

    # -- a population that is not done ------------------------------------------------

    def keep(self, key: dict, trained: list[Trained], seconds: float) -> None:
        arrays, epochs = {}, []
        for at, one in enumerate(trained):
            epochs.append(one.last.epoch if one.last else 0)
            for part in ("trainable", "non_trainable", "optimizer"):
                arrays[f"{at}.{part}"] = list(getattr(one.last, part, ()))
        meta = {"key": key, "card": self.run.card, "epochs": epochs}
        checkpoint.save(self.kept, {**meta, "seconds": seconds}, arrays)
        print(f"{key} waits after epoch {max(epochs)}.", flush=True)

    def take_up(self, key: dict, members: list[Member]) -> float:
        """Let the members go on where they were; seconds that they had trained."""
        if not self.kept.exists():
            return 0.0
        found = checkpoint.load(
            self.kept, "Delete it: its population then begins anew.", keys=("key",)
        )
        if (found.meta["key"], found.meta["card"]) != (key, self.run.card):
            return 0.0
        for at, (member, epoch) in enumerate(
            zip(members, found.meta["epochs"], strict=True)
        ):
            parts = (
                tuple(found.arrays.get(f"{at}.{part}", ()))
                for part in ("trainable", "non_trainable", "optimizer")
            )
            if epoch:
                member.start = Snapshot(epoch, *parts)
        return float(found.meta["seconds"])


def measure(model: keras.Model, part: Any, tasks: list[str]) -> dict[str, float]:
    """Accuracy per task."""
    x, y = part.select(tasks)
    logits = model.predict(x, batch_size=1000, verbose=0)
    return {name: float((logits[name].argmax(-1) == y[name]).mean()) for name in tasks}


def level_of(model: kmtl.MultiTaskModel) -> str:
    plan = model._state.plan
    return "loss" if plan is None else plan.level


def scenes(run: stage.Stage) -> None:
    """NYUv2 in a process that is stopped when the time is over; what ended stays."""
    file = run.out / "nyuv2.jsonl"
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs_full.jsonl"
        if file.exists():
            shutil.copy(file, runs)
        script = stage.HERE.parent / "nyuv2_scenes" / "run.py"
        command = [sys.executable, str(script), "--size", "full", "--out", folder]
        done = subprocess.Popen(
            [*command, "--data", str(run.data)], start_new_session=True
        )
        try:
            done.wait(max(1.0, run.left - 2))
        except subprocess.TimeoutExpired:
            os.killpg(done.pid, signal.SIGKILL)
            done.wait()
        if runs.exists():
            shutil.copy(runs, file)


def main() -> None:
    run = stage.Stage("published", ("side", "phase", "rate"))
    net, data = stage.load("multimnist/net.py"), stage.load("multimnist/data.py")
    protocol = FAST if run.fast else Protocol()
    try:
        sizes = protocol.sizes
        parts = data.stand_in(sizes) if run.fast else data.load(sizes, run.data)
    except FileNotFoundError as error:
        print(f"MultiMNIST is left out: {error}", flush=True)
        return
    if Published(run, protocol, net, parts).train_all() and not run.fast:
        scenes(run)


if __name__ == "__main__":
    main()
