"""One battery for everything in the registries, new entries included.

A new task kind needs arguments and labels of its own: add it to `EXAMPLES`. Backbones
and sharing schemes are made with their defaults, made small.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl import _registry
from kmtl.testing import inputs, relations, tasks, trunks
from kmtl.testing._models import check_outputs, model_of

pytestmark = pytest.mark.backend

ROWS = 6
SIDE = 5
RNG = np.random.default_rng(0)
IMAGES = RNG.random((ROWS, SIDE, SIDE, 1)).astype("float32")
ANGLES = RNG.uniform(0, 6, (ROWS, SIDE, SIDE))

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
    "ordinal": (kmtl.Ordinal("t", classes=4), RNG.permutation(np.arange(ROWS) % 4)),
    "count": (
        kmtl.Count("t", units=2, transform=None),
        RNG.poisson(3, (ROWS, 2)),
    ),
    "distribution": (kmtl.Distribution("t"), RNG.normal(size=ROWS)),
    "taught": (kmtl.tasks.Taught("t", shape=(3,)), RNG.normal(size=(ROWS, 3))),
    "custom": (kmtl.CustomTask("t", shape=(2,)), RNG.normal(size=(ROWS, 2))),
    "tagging": (
        kmtl.Tagging("t", labels=("O", "B-a", "I-a")),
        RNG.integers(0, 3, (ROWS, SIDE)),
    ),
    "quantile": (kmtl.Quantile("t"), RNG.normal(size=ROWS)),
    "survival": (
        kmtl.Survival("t", edges=(1.0, 2.0, 4.0)),
        np.array([[0.5, 1], [1.5, 1], [1.0, 0], [3.0, 1], [5.0, 0], [2.0, 1]]),
    ),
    "zero_inflated": (
        kmtl.ZeroInflated("t", transform=None),
        np.array([0.0, 1.5, 0.0, 3.0, 2.0, 0.5]),
    ),
    "sequence_regression": (
        kmtl.SequenceRegression("t"),
        RNG.normal(size=(ROWS, SIDE)),
    ),
    "forecast": (
        kmtl.Forecast("t", horizon=2, channels=2, scale=1.5),
        RNG.normal(size=(ROWS, 2, 2)),
    ),
    "depth": (kmtl.Depth("t"), 0.5 + RNG.random((ROWS, SIDE, SIDE))),
    "normals": (
        kmtl.Normals("t", channels=2),
        np.stack([np.sin(ANGLES), np.cos(ANGLES)], axis=-1),
    ),
    "edges": (kmtl.Edges("t"), RNG.integers(0, 2, (ROWS, SIDE, SIDE))),
    "ranking": (
        kmtl.Ranking("t"),
        RNG.permuted(np.tile(np.arange(SIDE), (ROWS, 1)), axis=1),
    ),
    "ctc": (kmtl.CTC("t", labels=("a", " ", "b")), RNG.integers(0, 3, (ROWS, 2))),
    "clustering": (kmtl.Clustering("t", clusters=3), RNG.integers(0, 3, ROWS)),
    "keypoints": (kmtl.Keypoints("t", points=3), RNG.random((ROWS, 3, 2))),
    "detection": (
        kmtl.Detection("t", classes=2),
        np.array([[[0.1, 0.2, 0.6, 0.9, 1], [0.3, 0.0, 0.5, 0.4, -1]]] * ROWS),
    ),
    "embedding": (
        kmtl.Embedding("t", dimensions=4, loss="contrastive", classes=2),
        np.array([0, 1, 0, 1, 1, 0]),
    ),
    "text_generation": (
        kmtl.TextGeneration("t", tokens=3, length=2, units=8, blocks=1, heads=2),
        np.array([[0, 1], [2, 2], [1, 0], [0, 2], [2, 1], [1, 1]]),
    ),
}
# Kinds of sequences, and of maps and places in them.
OF_STEPS = ("tagging", "sequence_regression", "ranking", "ctc")
OF_MAPS = (
    *("segmentation", "dense_regression", "reconstruction", "depth", "normals"),
    *("edges", "keypoints", "detection"),
)
# tests/tasks/test_kinds_*.py train these side by side, and load what was saved.
TRAINED_TOGETHER = (
    *("survival", "zero_inflated", "forecast", "sequence_regression"),
    *(
        "depth",
        "normals",
        "edges",
        "ranking",
        "ctc",
        "keypoints",
        "embedding",
        "clustering",
    ),
    "detection",
)
# kind -> (input, training rows)
INPUTS = {
    "array": (kmtl.inputs.Array((2,)), RNG.normal(size=(ROWS, 2)).astype("float32")),
    "audio": (
        kmtl.inputs.Audio(1000, bands=3),
        [RNG.uniform(-0.5, 0.5, 90 + 10 * row) for row in range(ROWS)],
    ),
    "image": (
        kmtl.inputs.Image((4, 3, 1), scale="standardize"),
        [RNG.integers(0, 256, (4 + row, 5)).astype("uint8") for row in range(ROWS)],
    ),
    "series": (
        kmtl.inputs.Series(),
        [RNG.normal(size=(1 + row, 2)) for row in range(ROWS)],
    ),
    "text": (
        kmtl.inputs.Text(4),
        ["Play jazz", None, "a b, a b a", "", "jazz", "b"],
    ),
    "tokens": (kmtl.inputs.Tokens(), [[3, 1, 2], [], [4], [1, 1], [2], [3]]),
    "table": (
        kmtl.inputs.Table(),
        {
            "size": np.array([1.5, np.nan, 7.0, 0.0, 3.0, 2.0]),
            "colour of hair": ["red", "blond", None, "red", "grey", "blond"],
            "member": np.array([True, False, True, True, False, True]),
            "seen": np.array("2024-02-28T11:30", "M8[s]") + 86399 * np.arange(ROWS),
        },
    ),
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
        {"units": (4, 4), "filters": (4, 4), "pooling": None, "output_stride": 1},
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
        {"units": (4, 4), "filters": (4, 4), "pooling": None, "output_stride": 1},
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
SMALL = {"units": (4, 3), "filters": (3, 4), "kernel_size": 3, "width": 4, "heads": 2}
SMALL |= {"patch": 1, "repeats": 1, "blocks": 2}
# Trunks that read no images: name -> what they read instead.
SERIES = IMAGES[..., 0]
DATA = dict.fromkeys(["conv1d", "rnn", "tcn", "transformer"], SERIES)
DATA["fusion"] = {"photo": IMAGES, "row": IMAGES[:, 0, :, 0]}
DATA["ft_transformer"] = IMAGES[:, 0, :, 0]


@functools.cache
def brought() -> keras.Model:
    """A small model of somebody's own, whose second block keeps the shape."""
    inputs = x = keras.Input((SIDE, SIDE, 1))
    for name in ("first", "second"):
        x = keras.layers.Conv2D(4, 3, padding="same", name=f"{name}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_norm")(x)
        x = keras.layers.ReLU(name=name)(x)
    return keras.Model(inputs, x)


def backbone(name: str, scheme: str = "hard"):
    """A small backbone of that kind, with everything that it can have."""
    cls = _registry.get("backbone", name)
    if name == "from_keras":
        return cls(brought(), cuts=["first"], dropout=0.1, kernel_regularizer="l2")
    if name == "ensemble":
        return cls(backbone=backbone("cnn", scheme), members=2)
    fields = {field.name for field in dataclasses.fields(cls)}
    _, changes = SCHEME_EXAMPLES.get(scheme, (None, {}))
    options = {k: v for k, v in (SMALL | changes).items() if k in fields}
    if name == "fusion":
        # (Attention chooses among places, of which pooling would leave one.)
        photo = dataclasses.replace(backbone("cnn"), pooling=None)
        encoders = {"photo": photo, "row": backbone("mlp")}
        units = (8,) if "units" in changes else (4,)  # as wide as what is fused
        options |= {"encoders": encoders, "units": units, "fuse": "cross_attention"}
    return cls(dropout=0.1, normalization="batch", kernel_regularizer="l2", **options)


def sharing(name: str, given):
    """The scheme of that name, with its defaults where it has them."""
    if name not in SCHEME_EXAMPLES:
        return _registry.get("sharing", name)()
    return SCHEME_EXAMPLES[name][0]([task.name for task in given])


def test_every_task_kind_has_an_example() -> None:
    assert set(TASKS) == set(EXAMPLES), "add the new kind to EXAMPLES"


def _marks(kind: str, check: Callable[..., None]) -> list:
    """On JAX, where every operation is compiled, a few kinds stand for the others."""
    if kind == "text_generation" and check is not tasks.check_values:
        return [pytest.mark.thorough(on="jax")]
    if check is tasks.check_dead_features:
        return [pytest.mark.thorough]
    if kind not in TRAINED_TOGETHER:
        return []
    if check is tasks.check_training:
        return [pytest.mark.thorough]
    kept = check is tasks.check_values and kind in ("survival", "ranking", "ctc")
    return [] if kept else [pytest.mark.thorough(on="jax")]


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        pytest.param(kind, check, marks=_marks(kind, check), id=f"{kind}-{name}")
        for kind in TASKS
        for check in tasks.CHECKS
        for name in [check.__name__]
    ],
)
def test_task(kind: str, check: Callable[..., None]) -> None:
    task, labels = EXAMPLES[kind]
    if kind == "segmentation" and check is tasks.check_losses_and_metrics:
        task, labels = task.replace(classes=2), np.minimum(labels, 1)  # for `mse`
    check(task, labels, IMAGES[..., 0] if kind in OF_STEPS else IMAGES)


def all_kinds(group: str) -> tuple[list, np.ndarray, dict]:
    """Tasks of all kinds for one trunk, its inputs, and labels with one row missing."""
    rest = [kind for kind in TASKS if kind not in (*OF_STEPS, *OF_MAPS)]
    kinds = {"steps": OF_STEPS, "maps": OF_MAPS}.get(group, rest)
    given = [EXAMPLES[kind][0].replace(name=f"t_{kind}") for kind in kinds]
    labels = {}
    for kind, task in zip(kinds, given, strict=True):
        if not task.target_is_input:
            labels[task.name] = np.array(EXAMPLES[kind][1], "float32")
            labels[task.name][1] = np.nan
    return given, SERIES if group == "steps" else IMAGES, labels


@pytest.mark.thorough
@pytest.mark.parametrize("group", ["steps", "maps", "rows"])
def test_everybody_tells_the_same(group: str, tmp_path) -> None:
    """`fit`, `evaluate`, `test_on_batch`, `kmtl.evaluate`, files, and exports.

    Against scikit-learn: tests/test_agreement.py and the tests of each kind.
    """
    given, x, labels = all_kinds(group)
    weights = {name: np.linspace(0.5, 2.0, ROWS, dtype="float32") for name in labels}
    model = model_of(given, x)
    model.compile(keras.optimizers.SGD(0.0))
    options = {"batch_size": 3, "verbose": 0}
    fitted = model.fit(
        x, labels, sample_weight=weights, shuffle=False, **options
    ).history

    def evaluated(net):
        return net.evaluate(
            x, labels, sample_weight=weights, return_dict=True, **options
        )

    logs = evaluated(model)
    assert set(fitted) == set(logs)
    # Those of all rows are not means over batches.
    entries = model._state.metrics.entries
    whole = {log for log in logs if hasattr(entries.get(log, [0, 0])[1], "gathered")}
    for log in set(logs) - whole:
        np.testing.assert_allclose(fitted[log], [logs[log]], rtol=1e-4, err_msg=log)
    table = kmtl.evaluate(model, (x, labels, weights), batch_size=3)
    np.testing.assert_allclose(table.loss, logs["loss"], rtol=1e-4)
    for task in given:
        row = table[task.name]
        np.testing.assert_allclose(row.loss, logs[f"{task.name}_loss"], rtol=1e-4)
        for name, value in row.metrics.items():
            log = f"{task.name}_{name}"
            np.testing.assert_allclose(value, logs[log], rtol=1e-4, err_msg=log)
    model.save(tmp_path / "model.keras")
    assert evaluated(keras.models.load_model(tmp_path / "model.keras")) == logs
    first = [
        keras.tree.map_structure(lambda a: a[:3], part) for part in (x, labels, weights)
    ]
    of_first = model.evaluate(*first[:2], sample_weight=first[2], return_dict=True)
    model.reset_metrics()
    once = model.test_on_batch(*first, return_dict=True)
    for log in set(logs) - whole:
        np.testing.assert_allclose(once[log], of_first[log], rtol=1e-4, err_msg=log)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        model.export(tmp_path / "served")
        found = tf.saved_model.load(str(tmp_path / "served")).signatures[
            "serving_default"
        ](tf.constant(x))
        outputs = model.predict(x, verbose=0)
        for task in given:
            wanted = ops.convert_to_numpy(task.activate(outputs[task.name]))
            np.testing.assert_allclose(found[task.name], wanted, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("group", ["steps", "maps", "rows"])
def test_a_kind_without_labels_stays_as_it_is(group: str) -> None:
    """Heads, what they keep, and the optimizer's slots, beside a task that trains."""
    given, x, labels = all_kinds(group)
    model = model_of([*given, OTHER], x)
    model.compile(keras.optimizers.Adam(0.01))
    labels[OTHER.name] = np.arange(ROWS, dtype="float32")
    options = {"batch_size": ROWS, "verbose": 0}
    model.fit(x, labels, **options)

    def values() -> dict[str, np.ndarray]:
        variables = [*model.variables, *model.optimizer.variables]
        return {v.path: np.copy(ops.convert_to_numpy(v)) for v in variables}

    before = values()
    only = {
        name: part if name == OTHER.name else np.full_like(part, np.nan)
        for name, part in labels.items()
    }
    model.fit(x, only, **options)
    moved = {path for path, value in values().items() if (value != before[path]).any()}
    assert any(OTHER.name in path for path in moved)
    absent = [task.name for task in given if not task.target_is_input]
    assert not [path for path in moved if any(name in path for name in absent)]


def test_every_input_kind_has_an_example() -> None:
    assert set(_registry.names("input")) == set(INPUTS), "add the new kind to INPUTS"


@pytest.mark.parametrize("check", inputs.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", INPUTS)
def test_input(kind: str, check: Callable[..., None]) -> None:
    check(*INPUTS[kind])


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
def test_training_a_trunk(trunk: str, scheme: str) -> None:
    given, labels = scheme_tasks(scheme)
    chosen, net = sharing(scheme, given), backbone(trunk, scheme)
    x = DATA.get(trunk, IMAGES)
    trunks.check_sharing_training(chosen, net, given, labels, x)


def scheme_tasks(scheme: str):
    """Two tasks for a scheme, and labels."""
    if scheme in SCHEME_TASKS:
        task, labels = EXAMPLES[SCHEME_TASKS[scheme]]
        return [task, task.replace(name="second")], {"t": labels, "second": labels}
    task, labels = EXAMPLES["classification"]
    return [task, OTHER], {"t": labels, "second": IMAGES[:, 0, 0, 0]}


@pytest.mark.parametrize(
    "check",
    [trunks.check_backbone_config, trunks.check_every_depth],
    ids=lambda check: check.__name__,
)
@pytest.mark.parametrize("name", BACKBONES)
def test_backbone(name: str, check: Callable[..., None]) -> None:
    check(backbone(name), DATA.get(name, IMAGES))


@not_on_jax
@pytest.mark.parametrize("name", SCHEMES)
def test_sharing_scheme(name: str) -> None:
    first, second = scheme_tasks(name)[0]
    given = [second, second.replace(name="more"), first]
    scheme = sharing(name, given)
    net = backbone(SCHEME_TRUNKS.get(name, "mlp"), name)
    trunks.check_sharing_config(scheme, net, given, {}, IMAGES)
    trunks.check_order_of_tasks(scheme, net, given, {}, IMAGES)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("trunk", BACKBONES)
def test_mixed_precision_forward(trunk: str, policy: str) -> None:
    x = DATA.get(trunk, IMAGES)
    given = [
        dataclasses.replace(task, name=f"t_{kind}")
        for kind, (task, _) in EXAMPLES.items()
        # (A vector near 0 may be turned any way, and so its direction.)
        if kind not in (*OF_STEPS, "normals")
        and (x is IMAGES or not (task.dense_prediction or task.places_in_image))
        and (trunk != "ensemble" or task.has_mean)
    ]
    full = model_of(given, x, backbone(trunk))
    keras.config.set_dtype_policy(policy)  # undone by the `seeded` fixture
    outputs = model_of(given, x, backbone(trunk))(x)
    check_outputs(outputs)
    atol = 0.1 if policy == "mixed_float16" else 0.25  # three bits fewer
    for name, output in full(x).items():
        # (Some outputs are the exponential of what half precision gives.)
        np.testing.assert_allclose(outputs[name], output, rtol=0.05, atol=atol)


@pytest.mark.parametrize("check", relations.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", _registry.names("relations"))
def test_relations(name: str, check: Callable[..., None]) -> None:
    check(lambda alpha: _registry.get("relations", name)(alpha=alpha))


def test_the_first_check_that_fails_is_named() -> None:
    class Rule(kmtl.weighting.LossWeighting):
        def combine(self, losses, present, training=True):
            return ops.sum(losses), ops.ones_like(losses)  # absent tasks, too

    with pytest.raises(AssertionError) as caught:
        kmtl.testing.check_weighting(Rule)
    assert "check_finite: Total, weights" in caught.value.__notes__[0]
    kmtl.testing.check_weighting(kmtl.weighting.LogLoss)
    kmtl.testing.check_weighting(lambda names: kmtl.weighting.RLW(seed=1), random=True)
    for call in (
        kmtl.testing.check_weighting,
        kmtl.testing.check_sharing,
        kmtl.testing.check_backbone,
        lambda make: kmtl.testing.check_relations(lambda alpha: make()),
        lambda make: kmtl.testing.check_task(make(), [1.0]),
    ):
        with pytest.raises(TypeError, match=r"kmtl.*Received: .*(dict|{})"):
            call(dict)


def test_registering_a_name_twice() -> None:
    with pytest.raises(ValueError, match=r"The task name `regression` is taken by"):
        _registry.register("task", "regression")(type("Other", (), {}))
    with pytest.raises(ValueError, match=r"Unknown sharing 'soft'\. .*hard"):
        _registry.get("sharing", "soft")
