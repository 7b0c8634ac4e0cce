"""Kinds of task on real data: better than an answer that does not look."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import kmtl

pytestmark = pytest.mark.thorough


def folder(data_dir: Path, name: str) -> Path:
    """A data set's folder; the test is skipped where it is not there."""
    path = data_dir / name
    if not path.is_dir():
        pytest.skip(f"no data set '{name}' here")
    return path


def test_days_that_pupils_missed(data_dir: Path) -> None:
    """Zero-inflated counts: a third of the pupils missed no day, some many."""
    path = folder(data_dir, "multitask_classic") / "student-mat.csv"
    with path.open(encoding="utf-8") as file:
        start = file.read(200).splitlines()[0]
        file.seek(0)
        split = ";" if ";" in start else ","
        rows = list(csv.DictReader(file, delimiter=split))
    absences = np.array([float(row["absences"]) for row in rows])
    names = ("age", "traveltime", "studytime", "failures", "goout", "Dalc", "health")
    x = np.array([[float(row[name]) for name in names] for row in rows], "float32")
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    task = kmtl.ZeroInflated("absences", family="poisson", metrics=("nll", "mae"))
    model = kmtl.build_mlp(input_shape=x.shape[1:], tasks=[task], units=(16,), seed=0)
    model.compile("adam")
    model.optimizer.learning_rate = 0.01
    model.fit(x[::2], {"absences": absences[::2]}, epochs=30, verbose=0)
    y = {"absences": absences[1::2]}
    found = model.evaluate(x[1::2], y, return_dict=True, verbose=0)
    # The Poisson distribution of all pupils' mean, which knows no zeros.
    mean = absences[::2].mean()
    count = kmtl.losses.zero_inflated_poisson
    outputs = np.tile([mean, 1.0 - 1e-7], (len(y["absences"]), 1))
    plain = np.mean(count(y["absences"][:, None], outputs.astype("float32")))
    assert found["absences_nll"] < 0.95 * plain


def test_depth_and_edges_of_rooms(data_dir: Path) -> None:
    import tensorflow as tf

    path = folder(data_dir, "nyuv2") / "nyuv2_192x144.zip"
    photos, depths, edges = [], [], []
    with zipfile.ZipFile(path) as file:
        numbers = json.loads(file.read("meta.json"))["train"][:240]
        for number in numbers:
            photo = tf.io.decode_jpeg(file.read(f"rgb/{number:04d}.jpg"))
            depth = tf.io.decode_png(file.read(f"depth/{number:04d}.png"))
            classes = tf.io.decode_png(file.read(f"seg40/{number:04d}.png"))
            photos.append(tf.image.resize(photo, (36, 48), "area") / 255)
            depths.append(depth.numpy()[2::4, 2::4, 0] * (10 / 255))
            small = classes.numpy()[2::4, 2::4, 0]
            edge = np.zeros(small.shape, "int32")
            edge[:, 1:] |= small[:, 1:] != small[:, :-1]
            edges.append(np.where(small == 0, -1, edge))
    x = np.stack(photos).astype("float32")
    y = {"depth": np.stack(depths), "edges": np.stack(edges)}
    tasks = [
        kmtl.Depth("depth", unit="m", decoder="unet"),
        kmtl.Edges("edges", decoder="unet"),
    ]
    model = kmtl.build_cnn(
        input_shape=(36, 48, 3), tasks=tasks, filters=(16, 32), seed=0
    )
    model.compile("adam")
    model.optimizer.learning_rate = 0.003
    train = {name: values[:200] for name, values in y.items()}
    model.fit(x[:200], train, epochs=12, batch_size=20, verbose=0)
    rest = {name: values[200:] for name, values in y.items()}
    found = model.evaluate(x[200:], rest, return_dict=True, verbose=0)
    measured = rest["depth"][rest["depth"] > 0]
    constant = np.median(train["depth"][train["depth"] > 0])
    assert found["depth_abs_rel"] < np.mean(np.abs(constant - measured) / measured)
    share = (rest["edges"] == 1).sum() / (rest["edges"] >= 0).sum()
    assert found["edges_best_f1"] > 1.2 * 2 * share / (1 + share)  # all are edges
