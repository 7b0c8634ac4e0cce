"""One battery for everything in the registries, new entries included.

A new task kind needs arguments and labels of its own: add it to `EXAMPLES`. Backbones
and sharing schemes are made with their defaults, made small.
"""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest
from core_tools import gradient
from keras import ops

import kmtl
from kmtl import _registry
from kmtl.losses import masked_mean

pytestmark = pytest.mark.backend

ROWS = 6
# On TensorFlow the last batch is a part of one; JAX compiles each shape for seconds.
BATCH = 4 if keras.backend.backend() == "tensorflow" else 3
SIDE = 5
RNG = np.random.default_rng(0)
IMAGES = RNG.random((ROWS, SIDE, SIDE, 1)).astype("float32")

# kind -> (task, labels without a hole)
EXAMPLES = {
    "classification": (
        kmtl.Classification("t", classes=3),
        RNG.integers(0, 3, ROWS),
    ),
    "binary_classification": (
        kmtl.BinaryClassification("t"),
        RNG.integers(0, 2, ROWS),
    ),
    "multi_label": (kmtl.MultiLabel("t", classes=2), RNG.integers(0, 2, (ROWS, 2))),
    "regression": (kmtl.Regression("t", units=2), RNG.normal(size=(ROWS, 2))),
    "segmentation": (
        kmtl.Segmentation("t", classes=3),
        RNG.integers(0, 3, (ROWS, SIDE, SIDE)),
    ),
    "dense_regression": (
        kmtl.DenseRegression("t"),
        RNG.normal(size=(ROWS, SIDE, SIDE)),
    ),
    "reconstruction": (kmtl.Reconstruction("t"), IMAGES),
}
OTHER = kmtl.Regression("second")
TASKS = _registry.names("task")
BACKBONES = _registry.names("backbone")
SCHEMES = _registry.names("sharing")
# Schemes that need arguments or a trunk of their own:
# name -> (scheme of the task names, fields of the backbone that differ from `SMALL`).
SCHEME_EXAMPLES = {
    "adashare": (  # skips blocks
        lambda names: kmtl.sharing.AdaShare(),
        {"units": (4, 4), "filters": (4, 4), "pooling": None},
    ),
    "aitm": (lambda names: kmtl.sharing.AITM(after={"second": "t"}), {}),
    "esmm": (lambda names: kmtl.sharing.ESMM(after={"second": "t"}), {}),
    "mti_net": (lambda names: kmtl.sharing.MTINet(), {"pooling": None}),
    "pad_net": (lambda names: kmtl.sharing.PADNet(channels=8), {"pooling": None}),
    "hierarchical": (
        lambda names: kmtl.sharing.Hierarchical(
            levels={name: 1 if name == "t" else 2 for name in names},
            hand_over="predictions",
        ),
        {},
    ),
    "selected_blocks": (
        lambda names: kmtl.sharing.SelectedBlocks(
            blocks={name: [1, 2] if name == "t" else [1] for name in names}
        ),
        {},
    ),
    "sluice": (  # mixes the features of all blocks
        lambda names: kmtl.sharing.Sluice(),
        {"units": (4, 4), "filters": (4, 4), "pooling": None},
    ),
    "tree": (
        lambda names: kmtl.sharing.TreeSharing(groups=[[names], [[n] for n in names]]),
        {},
    ),
}
# The kind of the tasks of schemes that do not take any, and their trunk.
SCHEME_TASKS = {
    "aitm": "binary_classification",
    "esmm": "binary_classification",
    "mti_net": "segmentation",
    "pad_net": "segmentation",
}
SCHEME_TRUNKS = {"mti_net": "cnn", "pad_net": "cnn"}
SMALL = {"units": (4, 3), "filters": (3, 4), "kernel_size": 3}


def backbone(name: str, scheme: str = "hard"):
    """A small backbone of that kind, with everything that it can have."""
    cls = _registry.get("backbone", name)
    fields = {field.name for field in dataclasses.fields(cls)}
    _, changes = SCHEME_EXAMPLES.get(scheme, (None, {}))
    options = {k: v for k, v in (SMALL | changes).items() if k in fields}
    return cls(dropout=0.1, normalization="batch", kernel_regularizer="l2", **options)


def sharing(name: str, tasks):
    """The scheme of that name, with its defaults where it has them."""
    if name not in SCHEME_EXAMPLES:
        return _registry.get("sharing", name)()
    return SCHEME_EXAMPLES[name][0]([task.name for task in tasks])


def build(tasks, trunk: str = "cnn", scheme="hard"):
    named = isinstance(scheme, str)
    return kmtl.build(
        backbone=backbone(trunk, scheme if named else "hard"),
        input_shape=(SIDE, SIDE, 1),
        tasks=tasks,
        sharing=sharing(scheme, tasks) if named else scheme,
        seed=0,
    )


def absent(labels: np.ndarray) -> np.ndarray:
    return np.full(labels.shape, np.nan)


def test_every_task_kind_has_an_example() -> None:
    assert set(TASKS) == set(EXAMPLES), "add the new kind to EXAMPLES"


def finite(outputs) -> None:
    for output in outputs.values():
        assert np.isfinite(ops.convert_to_numpy(output)).all()
        assert keras.backend.standardize_dtype(output.dtype) == "float32"


@pytest.mark.parametrize("kind", TASKS)
def test_task(kind: str) -> None:
    task, labels = EXAMPLES[kind]
    assert kmtl.Task.from_config(json.loads(json.dumps(task.to_config()))) == task
    assert task.score.direction in ("max", "min")
    task.check_labels(labels, (SIDE, SIDE, 1))
    outputs = build([task])(IMAGES)["t"]
    clean, mask = task.clean_labels(labels, IMAGES)
    assert mask.shape == clean.shape
    values = task.loss_values(clean, outputs)
    assert values.shape == mask.shape
    assert np.isfinite(ops.convert_to_numpy(values)).all()
    assert (ops.convert_to_numpy(mask) == 1).all()
    activated = ops.convert_to_numpy(task.activate(outputs))
    assert activated.shape == outputs.shape
    if task.output_activation in ("softmax", "sigmoid"):
        assert ((activated >= 0) & (activated <= 1)).all()

    # Labels in float64 with holes: the gradient where they are is exactly zero.
    holes = labels.astype("float64")
    holes[::2] = np.nan
    clean, mask = task.clean_labels(holes, IMAGES)
    _, slope = gradient(
        lambda out: masked_mean(task.loss_values(clean, out), mask)[0],
        ops.convert_to_numpy(outputs),
    )
    assert (slope[::2] == 0).all()
    assert np.isfinite(slope).all()
    assert all((row != 0).any() for row in slope[1::2])


@pytest.mark.parametrize("kind", TASKS)
def test_every_loss_and_metric_of_a_kind(kind: str) -> None:
    task, labels = EXAMPLES[kind]
    if kind == "segmentation":  # `mse` is for two classes
        task, labels = task.replace(classes=2), np.minimum(labels, 1)
    outputs = build([task])(IMAGES)["t"]
    for loss in task.LOSSES:
        changed = task.replace(loss=loss)
        clean, mask = changed.clean_labels(labels, IMAGES)
        values = ops.convert_to_numpy(changed.loss_values(clean, outputs))
        assert values.shape == tuple(mask.shape)
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        changed.label_weights(clean, mask)
        for name in task.METRICS:
            metric = task.replace(loss=loss, metrics=(name,)).metrics[0].make(changed)
            assert np.isnan(metric.result())
            metric.update_state(clean, outputs, 0.0 * mask)
            assert np.isnan(metric.result())
            metric.update_state(clean, outputs, mask)
            once = float(metric.result())
            metric.update_state(clean, outputs, mask)
            assert float(metric.result()) == pytest.approx(once, rel=1e-4, abs=1e-6)
            assert np.isfinite(once)


def exercise(model, labels: dict, path) -> None:
    """Train a step, with and without labels, save, and load."""
    model.compile(keras.optimizers.SGD(0.1))
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    history = model.fit(IMAGES, labels, batch_size=BATCH, verbose=0).history
    assert all(np.isfinite(value[0]) for value in history.values())
    # The gradient reaches every parameter.
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (ops.convert_to_numpy(variable) != old).any(), variable.path
    empty = {name: absent(values) for name, values in labels.items()}
    logs = model.evaluate(IMAGES, empty, return_dict=True, verbose=0)
    assert logs["loss"] == pytest.approx(logs["regularization_loss"])
    assert all(
        np.isnan(value)
        for name, value in logs.items()
        if name not in ("loss", "regularization_loss")
    )
    outputs = model.predict(IMAGES, verbose=0)
    finite(outputs)
    model.save(path / "model.keras")
    loaded = keras.models.load_model(path / "model.keras")
    assert loaded.tasks == model.tasks
    for name, output in loaded.predict(IMAGES, verbose=0).items():
        np.testing.assert_array_equal(output, outputs[name])


@pytest.mark.parametrize("kind", TASKS)
def test_training_a_task(kind: str, tmp_path) -> None:
    task, labels = EXAMPLES[kind]
    task = task.replace(hidden=(4,), activation="tanh")
    exercise(
        build([task, OTHER]), {"t": labels, "second": IMAGES[:, 0, 0, 0]}, tmp_path
    )


# On JAX some schemes stand for all, for time: no state, stitches, gates, draws.
ON_JAX = ("hard", "cross_stitch", "mmoe", "learning_to_branch")
not_on_jax = pytest.mark.thorough(on="jax")
TRUNKS_AND_SCHEMES = [
    pytest.param(
        trunk,
        scheme,
        marks=[] if scheme in ON_JAX else [not_on_jax],
    )
    for scheme in SCHEMES
    for trunk in BACKBONES
    if SCHEME_TRUNKS.get(scheme, trunk) == trunk
]


@pytest.mark.parametrize(("trunk", "scheme"), TRUNKS_AND_SCHEMES)
def test_training_a_trunk(trunk: str, scheme: str, tmp_path) -> None:
    tasks, labels = scheme_tasks(scheme)
    exercise(build(tasks, trunk, scheme), labels, tmp_path)


def scheme_tasks(scheme: str):
    """Two tasks for a scheme, and labels."""
    if scheme in SCHEME_TASKS:
        task, labels = EXAMPLES[SCHEME_TASKS[scheme]]
        return [task, task.replace(name="second")], {"t": labels, "second": labels}
    task, labels = EXAMPLES["classification"]
    return [task, OTHER], {"t": labels, "second": IMAGES[:, 0, 0, 0]}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone(name: str) -> None:
    trunk = backbone(name)
    again = kmtl.backbones.Backbone.from_config(
        json.loads(json.dumps(trunk.to_config()))
    )
    assert again == trunk
    assert trunk.num_blocks >= 1
    with pytest.raises(ValueError, match="`input_shape` of backbone"):
        trunk.check_input_shape((2,) * 9)
    shapes = [
        build([OTHER], name, kmtl.sharing.HardSharing(depth=depth))(IMAGES)[
            "second"
        ].shape
        for depth in range(trunk.num_blocks + 1)
    ]
    assert set(map(tuple, shapes)) == {(ROWS, 1)}


@not_on_jax
@pytest.mark.parametrize("name", SCHEMES)
def test_sharing_scheme(name: str) -> None:
    # The order of the tasks does not matter to their outputs.
    first, second = scheme_tasks(name)[0]
    tasks = [second, second.replace(name="more"), first]
    scheme = sharing(name, tasks)
    config = json.loads(json.dumps(scheme.to_config()))
    assert kmtl.sharing.Sharing.from_config(config) == scheme
    trunk = SCHEME_TRUNKS.get(name, "mlp")
    one, two = build(tasks, trunk, name), build(tasks[::-1], trunk, name)
    for task, output in one(IMAGES).items():
        np.testing.assert_allclose(output, two(IMAGES)[task], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("trunk", BACKBONES)
def test_mixed_precision_forward(trunk: str, policy: str) -> None:
    tasks = [
        dataclasses.replace(task, name=f"t_{kind}")
        for kind, (task, _) in EXAMPLES.items()
    ]
    full = build(tasks, trunk)
    keras.config.set_dtype_policy(policy)  # undone by the `seeded` fixture
    half = build(tasks, trunk)
    outputs = half(IMAGES)
    finite(outputs)
    for name, output in full(IMAGES).items():
        np.testing.assert_allclose(outputs[name], output, atol=0.1)


def test_registering_a_name_twice() -> None:
    with pytest.raises(ValueError, match=r"The task name `regression` is taken by"):
        _registry.register("task", "regression")(type("Other", (), {}))
    with pytest.raises(ValueError, match=r"Unknown sharing 'soft'\. .*hard"):
        _registry.get("sharing", "soft")
