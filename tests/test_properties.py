"""Any list of tasks: build, train a step, save, load, export: the same outputs."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import keras
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import kmtl

SIDE = 4
ROWS = 5
IMAGES = np.random.default_rng(0).random((ROWS, SIDE, SIDE, 1)).astype("float32")

options = st.fixed_dictionaries(
    {},
    optional={
        "hidden": st.lists(st.integers(1, 4), max_size=2),
        "dropout": st.sampled_from([0.0, 0.5]),
        "weight": st.sampled_from([0.0, 0.1, 3.0]),
        "activation": st.sampled_from(["tanh", "gelu"]),
        "pooling": st.sampled_from(["avg", "max", "flatten"]),
        "auxiliary": st.booleans(),
    },
)


def kind(cls, **more):
    """Makers `name -> task` of one kind, with some options."""
    return st.builds(
        lambda given, extra: lambda name: cls(name, **given, **extra),
        options,
        st.fixed_dictionaries(more),
    )


makers = st.one_of(
    kind(
        kmtl.Classification,
        classes=st.integers(2, 4),
        loss=st.sampled_from(["cross_entropy", "focal"]),
        class_weight=st.sampled_from([None, {1: 2.0}]),
    ),
    kind(kmtl.BinaryClassification, missing=st.sampled_from([-1, None, math.nan])),
    kind(kmtl.MultiLabel, classes=st.integers(1, 3)),
    kind(
        kmtl.Regression,
        units=st.integers(1, 3),
        loss=st.sampled_from(["mse", "mae", "huber"]),
        metrics=st.sampled_from([("mae",), ("r2", "rmse")]),
    ),
    kind(
        kmtl.Segmentation,
        classes=st.integers(2, 3),
        size=st.sampled_from([None, (6, 3)]),
        decoder=st.sampled_from(["conv", "dense"]),
    ),
    kind(kmtl.Reconstruction, loss=st.sampled_from(["mse", "binary_cross_entropy"])),
)
names = st.permutations(["zed", "a", "a_head", "Mask", "inputs_", "x1", "block1"])


def labels_for(task, rng: np.random.Generator):
    """Random labels of a task, some of them missing; None to take the input."""
    if task.target_is_input:
        return None
    shape = task.expected_shapes((SIDE, SIDE, 1))[0]
    if task.class_count is None:
        labels = rng.normal(size=(ROWS, *shape))
    else:
        labels = rng.integers(0, task.class_count, (ROWS, *shape)).astype("float64")
    labels[rng.random(labels.shape) < 0.3] = math.nan
    return labels


@settings(
    max_examples=12 if os.environ.get("KMTL_THOROUGH") else 2,
    phases=[Phase.generate],  # making a failing case smaller would take minutes
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    makers=st.lists(makers, min_size=1, max_size=3),
    names=names,
    trunk=st.sampled_from(["mlp", "cnn"]),
    depth=st.integers(0, 2),
    seed=st.integers(0, 9),
)
def test_any_list_of_tasks(makers, names, trunk, depth, seed) -> None:
    tasks = [make(name) for make, name in zip(makers, names, strict=False)]
    build = {"mlp": kmtl.build_mlp, "cnn": kmtl.build_cnn}[trunk]
    blocks = {"mlp": {"units": (3, 4)}, "cnn": {"filters": (2, 3)}}[trunk]
    model = build(
        input_shape=(SIDE, SIDE, 1),
        tasks=tasks,
        sharing_depth=depth,
        dropout=0.2,
        seed=seed,
        **blocks,
    )
    rng = np.random.default_rng(seed)
    y = {task.name: labels_for(task, rng) for task in tasks}
    y = {name: labels for name, labels in y.items() if labels is not None}
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(IMAGES, y, batch_size=3, verbose=0).history
    # (An AUC of labels of one class is NaN, rightly.)
    for name in ("loss", *(f"{task.name}_loss" for task in tasks)):
        assert np.isfinite(history[name][0]), name
    report = model.loss_report(IMAGES, y)
    assert math.isclose(
        report["total"],
        sum(report[task.name]["weighted"] for task in tasks),
        rel_tol=1e-5,
        abs_tol=1e-6,
    )

    outputs = model.predict(IMAGES, verbose=0)
    assert list(outputs) == [task.name for task in tasks]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded = kmtl.load_model(path)
        served = Path(folder) / "served"
        model.export(served)
        import tensorflow as tf

        signature = tf.saved_model.load(str(served)).signatures["serving_default"]
        exported = signature(tf.constant(IMAGES))
    assert loaded.tasks == tuple(tasks)
    logs = model.evaluate(IMAGES, y, return_dict=True, verbose=0)
    assert loaded.evaluate(IMAGES, y, return_dict=True, verbose=0) == logs
    assert set(exported) == set(outputs)
    for task in tasks:
        output = outputs[task.name]
        np.testing.assert_array_equal(
            loaded.predict(IMAGES, verbose=0)[task.name], output
        )
        np.testing.assert_allclose(
            exported[task.name], task.activate(output), atol=1e-5
        )
