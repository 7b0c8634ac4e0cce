"""SNIPS: what people say to an assistant, with what they mean.

13,084 training, 700 validation and 700 test sentences (Coucke et al. 2018, splits of
Goo et al. 2018), as files `snips/{train,valid,test}/{seq.in,seq.out,label}`: words, a
tag per word, the intent. Two tasks: the intent (7 classes), and which kinds of thing
the sentence names (39 tags without their B- and I-, whether or not each is there).
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

PARTS = {"train": "train", "validation": "valid", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Sentences:
    """Raw sentences, the intent of each, and the kinds of thing that each names."""

    texts: list[str]
    intents: list[str]
    slots: list[set[str]]

    def labels(self, tags: list[str]) -> dict[str, np.ndarray]:
        found = [[tag in slots for tag in tags] for slots in self.slots]
        return {"intent": np.array(self.intents), "slots": np.array(found, "int32")}


def load(folder: Path | None) -> dict[str, Sentences]:
    """Part -> sentences; `folder` holds `snips/` and defaults to `$KMTL_DATA_DIR`."""
    folder = folder or Path(os.environ.get("KMTL_DATA_DIR", "."))
    if not (folder / "snips" / "train" / "seq.in").exists():
        raise FileNotFoundError(
            f"`--data` must be a folder with snips/train/seq.in. Received: {folder}"
        )

    def lines(part: str, name: str) -> list[str]:
        text = (folder / "snips" / part / name).read_text("utf-8")
        return [line.strip() for line in text.strip("\n").split("\n")]

    found = {}
    for name, part in PARTS.items():
        slots = [
            {tag.split("-", 1)[1] for tag in line.split() if "-" in tag}
            for line in lines(part, "seq.out")
        ]
        found[name] = Sentences(lines(part, "seq.in"), lines(part, "label"), slots)
    return found


def stand_in() -> dict[str, Sentences]:
    """Sentences from patterns: to try out the program."""
    random = np.random.RandomState(0)
    patterns = {
        "PlayMusic": ("play {song} by {artist}", "i want to hear {artist}"),
        "GetWeather": ("will it rain in {city}", "forecast for {city} {time}"),
        "BookRestaurant": ("a table for two in {city}", "book a table {time}"),
    }
    words = {
        "song": ["blue moon", "yesterday"],
        "artist": ["nina simone", "the kinks"],
        "city": ["bonn", "new york", "oslo"],
        "time": ["tomorrow", "at noon"],
    }

    def part(rows: int) -> Sentences:
        texts, intents, slots = [], [], []
        for _ in range(rows):
            intent = list(patterns)[random.randint(len(patterns))]
            pattern = patterns[intent][random.randint(2)]
            given = {name: v[random.randint(len(v))] for name, v in words.items()}
            texts.append(pattern.format(**given))
            intents.append(intent)
            slots.append({name for name in words if f"{{{name}}}" in pattern})
        return Sentences(texts, intents, slots)

    return {"train": part(96), "validation": part(32), "test": part(32)}
