"""Data sets in TFRecord files: what goes in comes out, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import kmtl
from kmtl._files import DamagedFileError

KIND = kmtl.Classification("kind", classes=3)
MAP = kmtl.DenseRegression("map")


def rows(count: int = 7):
    rng = np.random.default_rng(0)
    x = {
        "photo": rng.integers(0, 255, (count, 2, 3, 1), dtype="uint8"),
        "words": np.array([f"ä{n}" for n in range(count)], object),
    }
    maps = rng.normal(size=(count, 2, 3))
    maps[1, 0] = np.nan
    kind = np.arange(count) % 3
    kind[2] = -1
    return x, {"kind": kind, "map": maps}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("records") / "train"
    return kmtl.data.write_records(rows(), place, tasks=[KIND, MAP], rows_per_shard=3)


def whole(data):
    """All batches joined."""
    batches = [tf.nest.map_structure(lambda part: part.numpy(), b) for b in data]
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *batches)


def test_what_was_written_is_read(folder):
    names = sorted(path.name for path in folder.iterdir())
    assert names == [*(f"part-0000{n}.tfrecord" for n in range(3)), "records.json"]
    data = kmtl.data.from_records(folder, batch_size=2)
    assert len(data) == 4
    x, y, masks = whole(data)
    given_x, given_y = rows()
    np.testing.assert_array_equal(x["photo"], given_x["photo"])
    assert x["photo"].dtype == "uint8"
    assert [word.decode() for word in x["words"]] == given_x["words"].tolist()
    assert y["kind"].tolist() == [0, 1, 0, 0, 1, 2, 0]
    assert masks["kind"].tolist() == [1, 1, 0, 1, 1, 1, 1]
    there = ~np.isnan(given_y["map"])
    np.testing.assert_array_equal(masks["map"] > 0, there)
    np.testing.assert_allclose(y["map"][there], given_y["map"][there], rtol=1e-6)
    assert not y["map"][~there].any()


def test_shuffling_is_of_all_rows_and_comes_from_the_seed(folder):
    def orders(seed):
        data = kmtl.data.from_records(folder, tasks=[KIND], shuffle=True, seed=seed)
        return [whole(data)[0]["words"].tolist() for _ in range(2)]

    first = orders(0)
    assert sorted(first[0]) == sorted(f"ä{n}".encode() for n in range(7))
    assert first[0] != first[1]
    assert orders(0) == first


def test_batches_with_masks_are_written_as_they_are(tmp_path):
    size = kmtl.Regression("size")
    data = kmtl.data.from_arrays(
        np.zeros((5, 2)),
        {"size": np.array([1, np.nan, 3, 4, 5])},
        tasks=[size],
        batch_size=2,
    )
    kmtl.data.write_records(data, tmp_path / "set", tasks=[size])
    read = kmtl.data.from_records(tmp_path / "set", batch_size=5, drop_remainder=True)
    x, y, masks = next(iter(read))
    assert x.shape == (5, 2)
    assert y["size"].numpy().tolist() == [1, 0, 3, 4, 5]
    assert masks["size"].numpy().tolist() == [1, 0, 1, 1, 1]


def test_other_objects_of_the_tasks_and_unknown_ones(folder):
    wide = KIND.replace(missing=0)
    _, _, masks = whole(kmtl.data.from_records(folder, tasks=[wide]))
    assert list(masks) == ["kind"]
    assert masks["kind"].tolist() == [0, 1, 1, 0, 1, 1, 0]
    with pytest.raises(ValueError, match="Unknown task 'sort'"):
        kmtl.data.from_records(folder, tasks=[kmtl.Regression("sort")])


def test_what_does_not_fit_leaves_nothing(tmp_path):
    x, y = rows()
    y["kind"][-1] = 9
    with pytest.raises(ValueError, match=r"integers in \[0, 2\]"):
        kmtl.data.write_records((x, y), tmp_path / "set", tasks=[KIND, MAP])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").touch()
    with pytest.raises(FileExistsError):
        kmtl.data.write_records(rows(), tmp_path / "set", tasks=[KIND, MAP])
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine"]
    with pytest.raises(FileNotFoundError, match="write_records makes such"):
        kmtl.data.from_records(tmp_path / "set")


def test_damaged_shards_are_named_before_training(tmp_path):
    folder = kmtl.data.write_records(
        rows(), tmp_path / "set", tasks=[KIND, MAP], rows_per_shard=3
    )
    shard = folder / "part-00001.tfrecord"
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    with pytest.raises(DamagedFileError, match=r"part-00001.*it has \d+ bytes"):
        kmtl.data.from_records(folder)
    shard.unlink()
    with pytest.raises(DamagedFileError, match=r"part-00001.*it is missing"):
        kmtl.data.from_records(folder)


@pytest.mark.parametrize("shard", [0, 2])
def test_a_shard_whose_content_has_changed_is_named_by_fit(tmp_path, shard):
    tasks = [kmtl.Regression("size")]
    x, y = np.ones((6, 2), "float32"), {"size": np.ones(6)}
    folder = kmtl.data.write_records(
        (x, y), tmp_path / "set", tasks=tasks, rows_per_shard=2
    )
    whole = kmtl.data.write_records((x, y), tmp_path / "whole", tasks=tasks)
    file = folder / f"part-0000{shard}.tfrecord"
    content = bytearray(file.read_bytes())
    content[-8] ^= 1  # in the second row
    file.write_bytes(bytes(content))
    model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(2,), seed=0)
    model.compile("sgd", run_eagerly=True)
    data = kmtl.data.from_records(folder, batch_size=2)
    model.evaluate(kmtl.data.from_records(whole), verbose=0)
    message = rf"set/part-0000{shard}.tfrecord' is damaged: its row 1 of 2 is not"
    with pytest.raises(DamagedFileError, match=message):
        model.fit(data, epochs=1, verbose=0)


TRAIN = """
import resource, sys
import numpy as np
import tensorflow as tf
import kmtl

def rows():
    rng = np.random.default_rng(0)
    for _ in range(60):
        x = rng.normal(size=(64, 16384)).astype("float32")  # 4 MB
        yield x, {"size": x[:, 0]}

tasks = [kmtl.Regression("size")]
model = kmtl.build_mlp(input_shape=(16384,), tasks=tasks, units=(2,), seed=0)
model.compile("sgd")
small = np.zeros((64, 16384), "float32")
model.fit(small, {"size": small[:, 0]}, verbose=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = kmtl.data.from_generator(rows, tasks=tasks, batches=60)
kmtl.data.write_records(data, sys.argv[1], tasks=tasks, rows_per_shard=256)
written = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
train = kmtl.data.from_records(sys.argv[1], batch_size=64, shuffle=True,
                               shuffle_buffer=256)
model.fit(train, epochs=2, verbose=0)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((written - before) // 1024, (after - before) // 1024)
"""


@pytest.mark.thorough
@pytest.mark.slow
def test_memory_does_not_grow_with_the_set(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path / "set")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    size = sum(path.stat().st_size for path in (tmp_path / "set").iterdir()) >> 20
    assert size >= 240
    written, trained = map(int, done.stdout.split())
    # The buffer, shards that are read, batches under way; never half of the set.
    assert written < size / 2
    assert trained < size / 2
