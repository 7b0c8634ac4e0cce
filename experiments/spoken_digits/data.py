"""Free Spoken Digit Dataset: ten digits, said fifty times each by six speakers.

3,000 clips of 0.14 to 2.28 s at 8 kHz (v1.0.10), as `fsdd/recordings.tar.gz` of files
`DIGIT_SPEAKER_TAKE.wav`. Official split: takes 0 to 4 are for testing (300 clips); here
takes 5 to 9 are for validation.
"""

from __future__ import annotations

import dataclasses
import io
import os
import tarfile
import wave
from pathlib import Path

import numpy as np

RATE = 8000
TEST_TAKES, VALIDATION_TAKES = range(5), range(5, 10)


@dataclasses.dataclass(frozen=True)
class Clips:
    """Waveforms `(samples,)`, int16, of different lengths, and labels."""

    waves: list[np.ndarray]
    digits: np.ndarray
    speakers: np.ndarray

    def labels(self) -> dict[str, np.ndarray]:
        return {"digit": self.digits, "speaker": self.speakers}


def load(folder: Path | None) -> dict[str, Clips]:
    """Part -> clips; `folder` holds `fsdd/` and defaults to `$KMTL_DATA_DIR`."""
    folder = folder or Path(os.environ.get("KMTL_DATA_DIR", "."))
    file = folder / "fsdd" / "recordings.tar.gz"
    if not file.exists():
        raise FileNotFoundError(
            f"`--data` must be a folder with fsdd/recordings.tar.gz. Received: {folder}"
        )
    found: dict[str, list] = {"train": [], "validation": [], "test": []}
    with tarfile.open(file) as archive:
        for member in archive:
            if not member.name.endswith(".wav"):
                continue
            digit, speaker, take = Path(member.name).stem.split("_")
            content = archive.extractfile(member)
            if content is None:
                raise ValueError(f"{member.name} in {file} is no file")
            with wave.open(io.BytesIO(content.read())) as sound:
                samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
            part = (
                "test"
                if int(take) in TEST_TAKES
                else "validation"
                if int(take) in VALIDATION_TAKES
                else "train"
            )
            found[part].append((samples, int(digit), speaker))
    return {name: _clips(rows) for name, rows in found.items()}


def stand_in() -> dict[str, Clips]:
    """Tones: the digit is the pitch, the speaker the overtones."""
    random = np.random.RandomState(0)

    def part(rows: int) -> Clips:
        made = []
        for _ in range(rows):
            digit, speaker = random.randint(3), random.randint(2)
            t = np.arange(random.randint(1200, 2400)) / RATE
            pitch = 2 * np.pi * 300 * (digit + 1) * t
            sound = np.sin(pitch) + speaker * np.sin(2 * pitch)
            sound = 6000 * sound + random.normal(size=t.shape) * 300
            made.append((sound.astype("int16"), digit, f"voice {speaker}"))
        return _clips(made)

    return {"train": part(64), "validation": part(16), "test": part(16)}


def _clips(rows: list) -> Clips:
    waves, digits, speakers = zip(*rows, strict=True)
    return Clips(list(waves), np.array(digits), np.array(speakers))
