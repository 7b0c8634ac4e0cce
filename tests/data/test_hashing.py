"""Fingerprints: the same for the same rows, however they come."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import kmtl
from kmtl.data import digits, fingerprint, from_arrays

pytestmark = pytest.mark.backend

X = np.arange(24.0, dtype="float32").reshape(8, 3)
Y = {"a": np.arange(8), "b": np.arange(8) / 4}
ORDER = np.array([3, 1, 0, 2, 7, 6, 4, 5])


class Batches(keras.utils.PyDataset):
    """Rows of X and Y in batches of `size`."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def __len__(self) -> int:
        return math.ceil(len(X) / self.size)

    def __getitem__(self, i: int) -> tuple:
        rows = slice(i * self.size, (i + 1) * self.size)
        return X[rows], {name: labels[rows] for name, labels in Y.items()}


def test_value_is_the_same_on_every_machine() -> None:
    assert fingerprint((X, Y)) == "9ed27245357cb91b1ef512a6655275c0"
    big_endian = X.astype(">f4")
    assert fingerprint(big_endian) == fingerprint(X)


def test_same_in_another_process() -> None:
    code = (
        "import kmtl, numpy as np\n"
        "x = np.arange(24.0, dtype='float32').reshape(8, 3)\n"
        "print(kmtl.data.fingerprint({'x': x, 'text': np.array(['a', 'b'] * 4)}))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    text = np.array(["a", "b"] * 4)
    assert printed.strip() == fingerprint({"text": text, "x": X})


def test_order_and_batches_do_not_count() -> None:
    whole = fingerprint((X, Y))
    assert fingerprint((X[ORDER], {k: v[ORDER] for k, v in Y.items()})) == whole
    assert fingerprint(Batches(3)) == fingerprint(Batches(8)) == whole


def test_rows_and_labels_belong_together() -> None:
    assert fingerprint((X[ORDER], Y)) != fingerprint((X, Y))


@pytest.mark.parametrize(
    "other",
    [
        (X + 1, Y),
        (X[:7], {name: labels[:7] for name, labels in Y.items()}),
        (X.astype("float64"), Y),
        (X, {"a": Y["a"]}),
        (X, {"a": Y["a"], "c": Y["b"]}),
        (X, {"a": Y["b"], "b": Y["a"]}),
        (np.concatenate([X, X]), {k: np.concatenate([v, v]) for k, v in Y.items()}),
    ],
)
def test_any_change_counts(other: Any) -> None:
    assert fingerprint(other) != fingerprint((X, Y))


def test_every_single_value_counts() -> None:
    seen = {fingerprint(X)}
    for index in np.ndindex(X.shape):
        changed = X.copy()
        changed[index] += 1e-3
        seen.add(fingerprint(changed))
    assert len(seen) == X.size + 1


def test_repeated_rows_count_as_often_as_they_are_there() -> None:
    assert fingerprint(X[[0, 0, 1]]) != fingerprint(X[[0, 1, 1]])
    assert fingerprint(X[[0, 0]]) != fingerprint(X[[1, 1]])


def test_text_counts_with_its_ends() -> None:
    assert fingerprint([["ab", "c"]]) != fingerprint([["a", "bc"]])
    wide = np.array(["a", "b"], "U9")
    assert fingerprint(wide) == fingerprint(np.array(["a", "b"], object))
    assert fingerprint(np.array([b"a", b"b"])) == fingerprint(wide)


class TestDatasets:
    tasks = (kmtl.Classification("a", classes=8), kmtl.Regression("b"))

    def make(self, **options: Any) -> Any:
        return from_arrays(X, Y, tasks=self.tasks, **options)

    def test_batches_and_shuffling_do_not_count(self) -> None:
        whole = fingerprint(self.make(batch_size=8))
        assert fingerprint(self.make(batch_size=3)) == whole
        shuffled = self.make(batch_size=3, shuffle=True)
        assert fingerprint(shuffled) == fingerprint(shuffled) == whole
        assert fingerprint(self.make(batch_size=2, drop_remainder=True)) == whole
        assert fingerprint(self.make(batch_size=3, drop_remainder=True)) != whole

    def test_unbatched_is_the_same_as_batched(self) -> None:
        batched = self.make(batch_size=3)
        assert fingerprint(batched.unbatch()) == fingerprint(batched)

    def test_without_end_is_refused(self) -> None:
        with pytest.raises(ValueError, match="give a fingerprint by hand"):
            fingerprint(self.make().repeat())


def test_frames_are_their_columns() -> None:
    days = np.arange(4).astype("datetime64[D]")
    columns = {"size": np.arange(4.0), "town": ["a", "b", None, "d"], "day": days}
    frame = pd.DataFrame(columns)
    name = fingerprint((frame, {"y": np.arange(4)}))
    assert fingerprint((frame[["day", "town", "size"]], {"y": np.arange(4)})) == name
    turned = (frame.iloc[::-1], {"y": np.arange(4)[::-1]})
    assert fingerprint(turned) == name
    for other in (
        frame.rename(columns={"size": "width"}),
        frame.assign(day=days + np.timedelta64(1, "s")),
        frame.assign(town=["a", "b", "c", "d"]),
    ):
        assert fingerprint((other, {"y": np.arange(4)})) != name


def test_generators_are_refused_and_not_used_up() -> None:
    def rows() -> Iterator[np.ndarray]:
        yield X

    generator = rows()
    with pytest.raises(ValueError, match="read only once"):
        fingerprint(generator)
    assert next(generator) is X


def test_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="numbers and text"):
        fingerprint({"raw": np.zeros(2, "V4")})


def test_task_data_and_splits() -> None:
    data = digits()
    assert fingerprint(data.train) == fingerprint(data.train.arrays())
    assert fingerprint(data) == fingerprint(digits())
    assert fingerprint(data) != fingerprint(digits(seed=1))
    assert fingerprint(data.train) != fingerprint(data.select("digit").train)
