"""What a sentence asks for, and which words say what: one net or two?

    python experiments/snips/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds snips/{train,valid,test}/{seq.in,seq.out,label}. Each
finished net is a line or two of runs_default.jsonl; the same command goes on where it
stopped. README.md and results.json are written from the finished nets. Runs on JAX.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common

import numpy as np
from common import nets

import kmtl

ALONE, BOTH = "a net of its own", "one net for both"
DEFAULT = {
    "data": ("intent", "slots"),
    "sentences": "snips",
    "seeds": (0, 1, 2),
    "units": (128,),
    "dropout": 0.3,
    "rate": 0.003,
    "epochs": 10,
    "batch_size": 64,
}
FAST = {
    **DEFAULT,
    "sentences": "patterns",
    "seeds": (0,),
    "units": (4,),
    "epochs": 1,
    "batch_size": 16,
}
TEXT = """# What is asked, and which words say what

Written by `run.py`; do not edit.

SNIPS: 13,084 sentences to train on, 700 to test (splits of Goo et al. 2018). `intent`:
what a sentence asks for (7 classes). `slots`: what each word names (72 tags, BIO;
`kmtl.Tagging` with a conditional random field). Whoever builds an assistant uses it.
Trunk: word embeddings learned here and a bidirectional GRU of {units} units, shared in
the net for both; dropout {dropout}; words seen once count as unknown; Adam from {rate}
down a cosine, batches of {batch_size}, {epochs} epochs, the last one. Nothing is tuned,
and no run is chosen by its score.

`error` of `intent`: 100 - accuracy, of `slots`: 100 - F1 of whole spans (as seqeval
counts them), in %. `gain`: how much lower it is than in a net of the task's own, seed
by seed. Means ± half of the 95 % interval. `sentence`: share of the test sentences of
which intent and tags are all right, in %.

Published (as remembered): the slot-gated model of Goo et al. 2018 has errors of 3.0 and
11.2, sentences 75.5; joint BERT (Chen et al. 2019), pre-trained on far more text, 1.4
and 3.0, sentences 92.8."""

Rows = tuple[list[str], dict[str, list]]


def load(settings: dict[str, Any], folder: Path | None, seed: int) -> dict[str, Rows]:
    """Part -> sentences, and the intent of each and the tags of its words."""
    if settings["sentences"] == "patterns":
        return {"train": _patterns(64, 0), "test": _patterns(16, 1)}
    folder = (folder or Path(os.environ.get("KMTL_DATA_DIR", "."))) / "snips"

    def lines(part: str, name: str) -> list[str]:
        text = (folder / part / name).read_text("utf-8")
        return [line.strip() for line in text.strip("\n").split("\n")]

    return {
        part: (
            lines(part, "seq.in"),
            {
                "intent": lines(part, "label"),
                "slots": [line.split() for line in lines(part, "seq.out")],
            },
        )
        for part in ("train", "test")
    }


def _patterns(rows: int, seed: int) -> Rows:
    random = np.random.default_rng(seed)
    texts, intents, tags = [], [], []
    for _ in range(rows):
        city = ["bonn", "oslo", "lima"][random.integers(3)]
        rain = bool(random.integers(2))
        texts.append(f"will it rain in {city}" if rain else f"a table in {city}")
        intents.append("GetWeather" if rain else "BookRestaurant")
        tags.append(["O"] * (4 if rain else 3) + ["B-city"])
    return texts, {"intent": intents, "slots": tags}


def train(
    method: str, names: tuple[str, ...], parts: dict, seed: int, settings: dict
) -> kmtl.MultiTaskModel:
    texts, labels = parts["train"]
    words = kmtl.inputs.Text(standardize="lower", min_count=2).fit(texts)
    tags = sorted({tag for row in labels["slots"] for tag in row})
    every = {
        "intent": kmtl.Classification.from_labels("intent", labels["intent"]),
        "slots": kmtl.Tagging(
            "slots", labels=tags, length=words.length, crf=True, metrics="span_f1"
        ),
    }
    model = kmtl.build(
        inputs={"words": words},
        backbone=kmtl.backbones.RNN(
            units=settings["units"],
            cell="gru",
            bidirectional=True,
            dropout=settings["dropout"],
        ),
        tasks=[every[name] for name in names],
        seed=seed,
    )
    nets.fit(model, texts, {name: labels[name] for name in names}, settings, seed)
    return model


def measured(model: kmtl.MultiTaskModel, parts: dict) -> dict[str, dict[str, Any]]:
    """Task name -> error, and what is shown beside it."""
    texts, labels = parts["test"]
    rows = (texts, {name: labels[name] for name in model.task_names})
    scores = kmtl.evaluate(model, rows, batch_size=len(texts)).scores
    shown = {
        "weights": float(model.count_params()),
        "sentence": 100 * sentences_right(model, texts, labels),
    }
    return {
        name: {"error": 100 * (1 - float(score)), "columns": shown}
        for name, score in scores.items()
    }


def sentences_right(
    model: kmtl.MultiTaskModel, texts: list[str], labels: dict[str, list]
) -> float:
    """Share of the sentences of which all is right; NaN for a net of one task."""
    if len(model.tasks) < 2:
        return float("nan")
    found = model.predict(texts, batch_size=len(texts), verbose=0)
    intents = model.task("intent").labels
    tags = model.task("slots").labels
    right = 0
    for row, (intent, wanted) in enumerate(
        zip(labels["intent"], labels["slots"], strict=True)
    ):
        best = found["slots"][row].argmax(-1)
        said = [tags[n] for n in best[: len(wanted)]]
        asked = intents[int(found["intent"][row].argmax())]
        right += asked == intent and said == wanted
    return right / len(texts)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    experiment = nets.Experiment(
        file=__file__,
        text=__doc__,
        data="snips/",
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
