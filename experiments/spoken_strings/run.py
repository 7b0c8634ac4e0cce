"""Which digits were said one after another, and by whom: one net or two?

    python experiments/spoken_strings/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds fsdd/recordings.tar.gz. Each finished net is a line or
two of runs_default.jsonl; the same command goes on where it stopped. README.md and
results.json are written from the finished nets. Runs on JAX.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common, spoken_digits

import numpy as np
from common import nets
from spoken_digits import data

import kmtl

ALONE, BOTH = "a net of its own", "one net for both"
SECONDS = 3.0
DEFAULT = {
    "data": ("digits", "speaker"),
    "clips": "fsdd",
    "rows": (3_000, 600),
    "said": (2, 5),
    "seeds": (0, 1, 2),
    "filters": (32, 64, 64),
    "rate": 0.003,
    "epochs": 20,
    "batch_size": 32,
}
FAST = {
    **DEFAULT,
    "clips": "tones",
    "rows": (24, 8),
    "seeds": (0,),
    "filters": (4, 4),
    "epochs": 1,
    "batch_size": 8,
}
TEXT = """# Several digits in one recording

Written by `run.py`; do not edit.

Strings of {said} digits (the least and the most) from the clips of one speaker of the
Free Spoken Digit Dataset, one after another, in waveforms of up to 3 seconds at 8 kHz
({rows} to train on and to test, made of the clips of those parts: none is in both).
`digits`: which were said, in their order; nobody says when each begins (`kmtl.CTC`,
decoded greedily). `speaker`: who of six. Who takes down numbers that are dictated would
use it. `kmtl.inputs.Audio` and a `ConvNet1D` of {filters} filters, which leaves 38 of
300 steps, all shared in the net for both; the tasks' defaults; Adam from {rate} down a
cosine, batches of {batch_size}, {epochs} epochs, the last one. (Tries whose trunks kept
all 300 steps had not learned to read in 12 epochs; the number of epochs was chosen by
the training loss.) No run is chosen by its score. These nets were trained before
`kmtl.CTC` left out the steps that pad shorter recordings.

`error` of `digits`: edits per digit (the error rate of symbols), of `speaker`: 100 -
accuracy, both in %. `gain`: how much lower it is than in a net of the task's own, seed
by seed (other strings for each). Means ± half of the 95 % interval."""


def strings(
    clips: data.Clips, rows: int, said: tuple[int, int], seed: int
) -> tuple[list[np.ndarray], dict[str, list]]:
    """Waveforms of so many strings, and which digits of whom they are."""
    random = np.random.default_rng(seed)
    own = {name: np.flatnonzero(clips.speakers == name) for name in set(clips.speakers)}
    names = sorted(own)
    waves: list[np.ndarray] = []
    digits: list[list[int]] = []
    speakers: list[str] = []
    while len(waves) < rows:
        speaker = names[random.integers(len(names))]
        count = int(random.integers(said[0], said[1] + 1))
        chosen = random.choice(own[speaker], count)
        wave = np.concatenate([clips.waves[i] for i in chosen])
        if len(wave) <= SECONDS * data.RATE:  # 4 in 5 are no longer
            waves.append(wave)
            digits.append([int(clips.digits[i]) for i in chosen])
            speakers.append(speaker)
    return waves, {"digits": digits, "speaker": speakers}


def load(settings: dict[str, Any], folder: Path | None, seed: int) -> dict[str, Any]:
    tones = settings["clips"] == "tones"
    clips = data.stand_in() if tones else data.load(folder)
    return {
        name: strings(clips[name], rows, settings["said"], 2 * seed + place)
        for place, (name, rows) in enumerate(
            zip(("train", "test"), settings["rows"], strict=True)
        )
    }


def train(
    method: str, names: tuple[str, ...], parts: dict, seed: int, settings: dict
) -> kmtl.MultiTaskModel:
    waves, labels = parts["train"]
    every = {
        "digits": kmtl.CTC("digits", labels=tuple("0123456789"), length=5),
        "speaker": kmtl.Classification.from_labels("speaker", labels["speaker"]),
    }
    model = kmtl.build(
        inputs={"sound": kmtl.inputs.Audio(data.RATE, seconds=SECONDS).fit(waves)},
        backbone=kmtl.backbones.ConvNet1D(
            filters=settings["filters"], normalization="batch", dropout=0.1
        ),
        tasks=[every[name] for name in names],
        seed=seed,
    )
    nets.fit(model, waves, {name: labels[name] for name in names}, settings, seed)
    return model


def measured(model: kmtl.MultiTaskModel, parts: dict) -> dict[str, dict[str, Any]]:
    """Task name -> error, and what is shown beside it."""
    waves, labels = parts["test"]
    rows = (waves, {name: labels[name] for name in model.task_names})
    scores = kmtl.evaluate(model, rows, batch_size=100).scores
    found = {"digits": lambda rate: 100 * rate, "speaker": lambda s: 100 * (1 - s)}
    shown = {"weights": float(model.count_params())}
    return {
        name: {"error": float(found[name](score)), "columns": shown}
        for name, score in scores.items()
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    experiment = nets.Experiment(
        file=__file__,
        text=__doc__,
        data="fsdd/",
        words=TEXT,
        settings={"default": DEFAULT, "fast": FAST},
        nets=[*((ALONE, (name,)) for name in DEFAULT["data"]), (BOTH, DEFAULT["data"])],
        load=load,
        train=train,
        measure=measured,
    )
    return nets.run(experiment, arguments)


if __name__ == "__main__":
    main()
