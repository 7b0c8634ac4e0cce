"""One small training of every regime, made anew in the same way each time."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kmtl
from kmtl.training import PGD, Curriculum, WeightAverage, fit_run

EPOCHS = 4
KIND = kmtl.Classification("kind", classes=3)
SIZE = kmtl.Regression("size", transform="standardize")
REGIMES: dict[str, Callable[[], tuple]] = {}


def arrays() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(20, 4)).astype("float32")
    labels = {"kind": rng.integers(-1, 3, 20), "size": 50 + 10 * x[:, 0]}
    return x, labels


def built(*tasks: Any, **options: Any) -> kmtl.MultiTaskModel:
    options = {"units": (6, 6), "dropout": 0.3, "normalization": "batch"} | options
    return kmtl.build_mlp(
        input_shape=(4,), tasks=list(tasks or (KIND, SIZE)), seed=0, **options
    )


def compiled(model: kmtl.MultiTaskModel, **options: Any) -> kmtl.MultiTaskModel:
    model.compile(keras.optimizers.Adam(0.02), **options)
    return model


def regime(function: Callable[[], tuple]) -> Callable[[], tuple]:
    """A function that gives a compiled model, its data and its callbacks."""
    REGIMES[function.__name__] = function
    return function


@regime
def joint() -> tuple:
    return compiled(built(), weighting="uncertainty"), arrays(), []


@regime
def alternating() -> tuple:
    x, y = arrays()
    parts = {KIND: (x, y["kind"]), SIZE: (x[:12] + 1, y["size"][:12])}
    data = kmtl.data.mixture(parts, "equal", alternate=True, batch_size=8)
    return compiled(built(), weighting=kmtl.weighting.PCGrad(seed=0)), data, []


@regime
def curriculum() -> tuple:
    plan = Curriculum(
        start={"block_1": 2, "size": 1},
        stop={"kind": 3},
        weights={"size": {1: 0.1, 3: 1.0}},
    )
    return compiled(built()), arrays(), [plan]


@regime
def averaged() -> tuple:
    callbacks = [WeightAverage(start=1, data=arrays())]
    return compiled(built()), arrays(), callbacks


@regime
def attacked() -> tuple:
    adversary = PGD(0.1, steps=2, seed=3, share=0.5)
    return compiled(built(), adversary=adversary), arrays(), []


@regime
def distilled() -> tuple:
    teacher = built(KIND, units=(9,), dropout=None)
    taught = kmtl.distill(built(), teacher, arrays(), features=0.5)
    return compiled(taught.model), taught.data, []


@regime
def without_forgetting() -> tuple:
    x, y = arrays()
    old = built(KIND, dropout=None)
    new = kmtl.add_task(old, SIZE, freeze=False, seed=3)
    taught = kmtl.distill(new, old, (x, {"size": y["size"]}))
    return compiled(taught.model), taught.data, []


@regime
def by_epochs() -> tuple:
    x, y = arrays()
    parts = {KIND: (x, y["kind"]), SIZE: (x[:12] + 1, y["size"][:12])}
    return compiled(built()), kmtl.data.mixture(parts, alternate="epoch"), []


@regime
def mixed_rows() -> tuple:
    x, y = arrays()
    plain = kmtl.data.from_arrays(
        x, y, tasks=[KIND, SIZE], batch_size=8, shuffle=True, seed=5
    )
    return compiled(built()), kmtl.data.mixup(plain, tasks=[KIND, SIZE], seed=2), []


@regime
def domains() -> tuple:
    x, y = arrays()
    domain = kmtl.BinaryClassification("domain", adversarial=0.3)
    labels = {**y, "domain": np.arange(20) % 2}
    return compiled(built(KIND, SIZE, domain)), (x, labels), []


@regime
def hidden_inputs() -> tuple:
    image = kmtl.Reconstruction("image")
    model = built(KIND, image)
    adversary = kmtl.training.HideInputs(0.5, seed=3)
    x, y = arrays()
    return compiled(model, adversary=adversary), (x, {"kind": y["kind"]}), []


class Kill(keras.callbacks.Callback):
    """Ends the process at once, in the second batch of an epoch."""

    def __init__(self, epoch: int, how: Callable[[], None]):
        super().__init__()
        self.epoch, self.how, self.now = epoch, how, -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.now, batch) == (self.epoch, 1):
            self.how()


def run(name: str, folder: Path, *more: Any) -> tuple:
    """The model after the regime's run in a folder, and its history."""
    model, data, callbacks = REGIMES[name]()
    history = fit_run(
        model,
        data,
        folder=folder / name,
        epochs=EPOCHS,
        batch_size=8,
        callbacks=[*callbacks, *more],
        verbose=0,
    )
    return model, history


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # A process for each, forked before the backend starts its threads.
    for name in REGIMES:
        child = os.fork()
        if not child:
            # As in the tests: orders of tf.data come from TensorFlow's seed, too.
            keras.utils.set_random_seed(0)
            run(name, Path(sys.argv[1]), Kill(2, _die))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        print(name, os.WTERMSIG(status) if os.WIFSIGNALED(status) else "ended")
