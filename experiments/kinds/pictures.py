"""Examples whose rows are pictures: keypoints, embedding, text generation."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from example import Errors, Example
from objects import data
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

import kmtl

#: Side of the canvas on which a digit lies anywhere.
SIDE = 40
#: What keypoints count as right: a share of the canvas, two pixels.
NEAR = 0.05
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digits(folder: Path, seed: int, fast: bool) -> tuple[tuple, tuple]:
    """Images and classes to train and to test with, other ones for each seed."""
    parts = data.load("small" if fast else "mnist", folder)
    chosen = []
    for (x, y), rows in zip(parts, (200, 60) if fast else (4_000, 2_000), strict=True):
        order = np.random.default_rng(seed).permutation(len(x))[:rows]
        chosen.append((x[order], y[order]))
    return chosen[0], chosen[1]


def fit(model: kmtl.MultiTaskModel, x: object, y: dict, seed: int, fast: bool) -> None:
    model.compile("adam")
    keras.utils.set_random_seed(seed)
    model.fit(x, y, epochs=1 if fast else 10, verbose=0)


def strokes(x: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits anywhere on a canvas, and the ends of a stroke (highest, lowest, furthest
    left and right), `(N, 4, 2)` in shares of the canvas."""
    rng = np.random.default_rng(seed)
    side = x.shape[1]
    pictures = np.zeros((len(x), SIDE, SIDE, 1), "float32")
    points = np.zeros((len(x), 4, 2))
    for picture, ends, digit in zip(pictures, points, x, strict=True):
        top, left = rng.integers(0, SIDE - side + 1, 2)
        picture[top : top + side, left : left + side, 0] = digit
        ink = picture[..., 0] > data.INK
        down, across = np.nonzero(ink)
        for end, place in zip(
            ends,
            (down.argmin(), down.argmax(), across.argmin(), across.argmax()),
            strict=True,
        ):
            end[:] = (across[place] + 0.5) / SIDE, (down[place] + 0.5) / SIDE
    return pictures, points


def ends(folder: Path, seed: int, fast: bool) -> dict[str, Errors]:
    parts = digits(folder, seed, fast)
    (x, y), (test, truth) = (
        strokes(part[0], 2 * seed + place) for place, part in enumerate(parts)
    )
    task = kmtl.Keypoints("ends", labels=("top", "bottom", "left", "right"))
    model = kmtl.build_cnn(input_shape=x.shape[1:], tasks=[task], seed=seed)
    fit(model, x, {"ends": y}, seed, fast)
    found = model.predict(test, verbose=0)["ends"]
    line = Ridge(10.0).fit(x.reshape(len(x), -1), y.reshape(len(y), -1))
    beside = line.predict(test.reshape(len(test), -1)).reshape(truth.shape)

    def wrong(places: np.ndarray) -> float:
        apart = np.linalg.norm(places - truth, axis=-1)
        return 100 * float((apart >= NEAR).mean())

    return {
        "keypoints": Errors(wrong(found), wrong(beside), wrong(y.mean(axis=0)[None]))
    }


def unseen(folder: Path, seed: int, fast: bool) -> dict[str, Errors]:
    """Seven of the digits train, the others are searched for among themselves."""
    later = np.random.default_rng(seed).permutation(10)[:3]
    parts = []
    for place, (x, y) in enumerate(digits(folder, seed, fast)):
        chosen = np.isin(y, later) == bool(place)
        parts.append((strokes(x[chosen], 2 * seed + place)[0], y[chosen]))
    (x, y), (test, truth) = parts
    task = kmtl.Embedding("digit")
    model = kmtl.build_cnn(input_shape=x.shape[1:], tasks=[task], seed=seed)
    fit(model, x, {"digit": y}, seed, fast)
    vectors = model.predict(test, verbose=0)["digit"]

    def wrong(vectors: np.ndarray) -> float:
        nearest = KNeighborsClassifier(1, metric="cosine").fit(vectors, truth)
        rows = nearest.kneighbors(return_distance=False)[:, 0]  # but for itself
        return 100 * float((truth[rows] != truth).mean())

    share = np.bincount(truth) / len(truth)
    return {
        "embedding": Errors(
            wrong(vectors),
            wrong(test.reshape(len(test), -1)),
            100 * (1 - float((share**2).sum())),
        )
    }


def pairs(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two digits side by side, and which they are."""
    order = np.random.default_rng(seed).permutation(len(x))
    both = np.concatenate([x, x[order]], axis=2)[..., None]
    return both, np.stack([y, y[order]], axis=1)


def text(pair: np.ndarray) -> str:
    left, right = map(int, pair)
    if left == right:
        return f"twice {WORDS[left]}"
    more = "more" if left > right else "less"
    return f"{WORDS[left]} is {more} than {WORDS[right]}"


def captions(folder: Path, seed: int, fast: bool) -> dict[str, Errors]:
    parts = digits(folder, seed, fast)
    (x, y), (test, truth) = (
        pairs(*part, 2 * seed + place) for place, part in enumerate(parts)
    )
    texts, wanted = [text(pair) for pair in y], [text(pair) for pair in truth]
    task = kmtl.TextGeneration.from_labels("caption", texts)
    model = kmtl.build_cnn(input_shape=x.shape[1:], tasks=[task], seed=seed)
    fit(model, x, {"caption": texts}, seed, fast)
    found = task.decode(model.predict(test, verbose=0)["caption"])
    halves = np.split(x, 2, axis=2), np.split(test, 2, axis=2)
    read = np.stack(
        [
            LogisticRegression(max_iter=100)
            .fit(half.reshape(len(half), -1), classes)
            .predict(other.reshape(len(other), -1))
            for half, classes, other in zip(halves[0], y.T, halves[1], strict=True)
        ],
        axis=1,
    )

    def wrong(said: list[str]) -> float:
        return 100 * float(np.mean([a != b for a, b in zip(said, wanted, strict=True)]))

    usual = max(set(texts), key=texts.count)
    return {
        "text_generation": Errors(
            wrong(found),
            wrong([text(pair) for pair in read]),
            wrong([usual] * len(test)),
        )
    }


EXAMPLES = (
    Example(
        ends,
        {
            "keypoints": "where a stroke is highest, lowest, furthest left and right; "
            "points more than 2 pixels of 40 off, in %"
        },
        "4,000 digits of MNIST anywhere on a canvas of 40 by 40",
        "scikit-learn's `Ridge` on the pixels",
    ),
    Example(
        unseen,
        {
            "embedding": "which picture shows the same, for three digits that no "
            "training row shows; 100 - recall@1 in %"
        },
        "2,800 digits of MNIST, of the seven other kinds, anywhere on such a canvas",
        "the nearest by the cosine of the pixels",
    ),
    Example(
        captions,
        {
            "text_generation": "'three is less than seven', word by word; texts with "
            "any mistake, in %"
        },
        "4,000 pictures of two digits of MNIST",
        "scikit-learn's `LogisticRegression` on each half, and a rule for the text",
    ),
)
