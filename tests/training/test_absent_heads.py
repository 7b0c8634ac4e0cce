"""A batch without labels of a task, or a weight of 0, leaves it out and alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl
from kmtl import _registry

pytestmark = pytest.mark.backend

TASKS = [
    kmtl.Regression("a"),
    kmtl.Classification("b", classes=3, hidden=(5,)),
]


def state(model):
    variables = [*model.trainable_variables, *model.optimizer.variables]
    return {v.path: keras.ops.convert_to_numpy(v).copy() for v in variables}


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(0.01),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    ],
    ids=["adam", "momentum", "adamw"],
)
def test_momentum_decay_and_regularisers_do_not_move_an_absent_head(optimizer):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 4)).astype("float32")
    labelled = {"a": rng.normal(size=16), "b": rng.integers(0, 3, 16)}
    unlabelled = {**labelled, "b": np.full(16, -1)}
    model = kmtl.build_mlp(
        input_shape=(4,),
        units=(6, 6),
        sharing_depth=1,
        tasks=TASKS,
        kernel_regularizer="l2",
        seed=0,
    )
    model.compile(optimizer())
    model.fit(x, labelled, epochs=2, batch_size=8, verbose=0)
    before = state(model)
    model.fit(x, unlabelled, batch_size=8, verbose=0)
    after = state(model)
    own = [path for path in before if "b_block2" in path or "b_head" in path]
    assert len(own) >= 6
    for path in own:
        np.testing.assert_array_equal(before[path], after[path], err_msg=path)
    others = [
        path
        for path in before
        if path not in own and "learning_rate" not in path and "iteration" not in path
    ]
    moved = [path for path in others if np.any(before[path] != after[path])]
    assert moved == others


def _optimizers() -> dict:
    """Every optimizer of Keras, and what goes around one."""
    kinds = {
        name: kind
        for name, kind in vars(keras.optimizers).items()
        if isinstance(kind, type) and issubclass(kind, keras.optimizers.Optimizer)
    }
    wrappers = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
    made = {name: kind for name, kind in kinds.items() if name not in wrappers}
    adam = keras.optimizers.Adam
    made["average"] = lambda: adam(0.01, use_ema=True, ema_overwrite_frequency=1)
    made["scaled"] = lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adafactor(0.01), initial_scale=8.0
    )
    if "MultiOptimizer" in kinds:
        made["several"] = lambda: keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(
                adam(0.01), {".*kernel": keras.optimizers.Lion(0.01)}
            )
        )
    return made


OPTIMIZERS = _optimizers()


@pytest.mark.parametrize(
    ("name", "built"),
    [*((name, False) for name in OPTIMIZERS), ("Adafactor", True), ("scaled", True)],
)
def test_no_optimizer_moves_an_absent_task_nor_its_slots(name, built):
    """Neither its head, nor its entry in what the weighting learns."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 4)).astype("float32")
    labelled = {"a": rng.normal(size=8), "b": rng.integers(0, 3, 8)}
    unlabelled = {**labelled, "b": np.full(8, -1)}
    model = kmtl.build_mlp(input_shape=(4,), units=(6,), tasks=TASKS, seed=0)
    optimizer = OPTIMIZERS[name]()
    model.compile(optimizer, weighting="uncertainty", run_eagerly=True)
    if built:
        model.optimizer.build(model.trainable_variables)
    for _ in range(2):
        model.train_on_batch(x, labelled)
    before = [
        (v.path, keras.ops.convert_to_numpy(v).copy())
        for v in (*model.trainable_variables, *model.optimizer.variables)
    ]
    model.train_on_batch(x, unlabelled)
    after = [
        keras.ops.convert_to_numpy(v)
        for v in (*model.trainable_variables, *model.optimizer.variables)
    ]
    shapes = {v.shape for v in model.trainable_variables if "b_head" in v.path}
    kept, moved = [], []
    for (path, old), new in zip(before, after, strict=True):
        if "log_variance" in path and old.shape == (2,):
            assert old[1] == new[1], path
            moved.append(bool(old[0] != new[0]))
        elif np.array_equal(old, new):
            kept.append(path)
        else:
            assert "b_head" not in path, path
            # Adafactor's factors are called after no layer.
            assert old.ndim == 0 or old.shape not in shapes or "a_" in path, path
    assert any(moved)
    own = [v.path for v in model.trainable_variables if "b_head" in v.path]
    assert len(own) == 4
    assert set(own) <= set(kept)
    if "Adafactor" in name:
        names = [path.split("/")[-1] for path in kept if path not in own]
        assert names.count("kernel") == 4  # rows and columns of two kernels


@pytest.mark.parametrize(
    ("weighting", "accumulate"), [(None, 2), ("pcgrad", None)], ids=str
)
def test_moving_statistics_of_an_absent_task_stay(weighting, accumulate):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(16, 4)).astype("float32")
    y = {name: rng.normal(size=16).astype("float32") for name in "ab"}
    model = kmtl.build_mlp(
        input_shape=(4,),
        units=(6, 5),
        sharing_depth=1,
        normalization="batch",
        tasks=[kmtl.Regression(name) for name in y],
        seed=0,
    )
    optimizer = keras.optimizers.SGD(0.01, gradient_accumulation_steps=accumulate)
    model.compile(optimizer, weighting=weighting)
    absent = y | {"b": np.full(16, np.nan, "float32")}

    def moved(labels):
        names = [v for v in model.non_trainable_variables if "moving_" in v.path]
        before = [keras.ops.convert_to_numpy(v).copy() for v in names]
        model.fit(x, labels, batch_size=8, verbose=0)
        after = [keras.ops.convert_to_numpy(v) for v in names]
        return {
            v.path.split("/")[0]: bool((old != new).any())
            for v, old, new in zip(names, before, after, strict=True)
        }

    parts = ["shared_block1_norm", "a_block2_norm", "b_block2_norm"]
    assert moved(absent) == dict(zip(parts, [True, True, False], strict=True))
    # One row is enough: the statistics are those of the whole batch.
    absent["b"][[0, 8]] = 1.0
    assert moved(absent) == dict.fromkeys(parts, True)


@pytest.mark.parametrize("rule", [None, "uncertainty", "gradient_sum"])
def test_a_step_of_two_batches(rule):
    """It is that of all their rows, and leaves alone what has labels in neither."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(8, 4)).astype("float32")
    y = {"a": rng.normal(size=8).astype("float32"), "b": rng.integers(0, 3, 8)}
    none = {**y, "b": np.full(8, -1)}

    def trained(steps, size):
        model = kmtl.build_mlp(input_shape=(4,), units=(6,), tasks=TASKS, seed=0)
        optimizer = keras.optimizers.Adam(
            0.01, weight_decay=0.1, clipnorm=0.5, gradient_accumulation_steps=steps
        )
        model.compile(optimizer, weighting=rule, run_eagerly=True)

        def learn(labels, *batches):
            for rows in batches:
                part = {name: values[rows] for name, values in labels.items()}
                model.train_on_batch(x[rows], part)

        for labels in (y, y, none):
            before = state(model)
            learn(labels, *[slice(i, i + size) for i in range(0, 8, size)])
        return model, learn, before

    apart, learn, before = trained(2, 4)
    union, *_ = trained(None, 8)
    weights = [
        [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
        for model in (apart, union)
    ]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)
    # The third step was without labels of `b`: decay and momentum left it alone.
    after = state(apart)
    own = [path for path in before if "b_head" in path]
    assert len(own) == 16  # weights, two moments and a sum of gradients of four
    for path in own:
        np.testing.assert_array_equal(before[path], after[path], err_msg=path)
    assert not any(after[path].any() for path in own if "accumulator" in path)
    # Labels in the first of two batches: the step is at the second.
    half = {**y, "b": np.where(np.arange(8) < 4, y["b"], -1)}
    learn(half, slice(0, 4), slice(4, 8))
    moved = state(apart)
    for path in own:
        changed = bool((moved[path] != after[path]).any())
        assert changed is ("accumulator" not in path), path


def test_what_a_group_shares_stays_where_all_of_the_group_are_absent():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(16, 4)).astype("float32")
    labels = {name: rng.normal(size=16).astype("float32") for name in "abc"}
    tasks = [kmtl.Regression(name) for name in "abc"]
    groups = [[["a", "b", "c"]], [["a", "b"], ["c"]]]
    model = kmtl.build_mlp(
        input_shape=(4,),
        units=(6, 6),
        sharing=kmtl.sharing.TreeSharing(groups=groups),
        tasks=tasks,
        seed=0,
    )
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1))
    model.fit(x, labels, epochs=2, batch_size=8, verbose=0)
    group = [v.path for v in model.trainable_variables if "shared_block2" in v.path]
    assert len(group) == 2

    def moved_without(*names: str) -> set[bool]:
        before = state(model)
        absent = {name: np.full(16, np.nan, "float32") for name in names}
        model.fit(x, labels | absent, batch_size=8, verbose=0)
        after = state(model)
        name = group[0].replace("/", "_")
        slots = [path for path in before if name in path]
        assert len(slots) == 2
        return {bool(np.any(before[p] != after[p])) for p in [*group, *slots]}

    assert moved_without("a", "b") == {False}
    assert moved_without("a") == {True}


@pytest.mark.parametrize("hand_over", ["features", "predictions"])
def test_beyond_a_stopped_gradient_a_part_is_the_one_task_s_that_trains_it(hand_over):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(16, 4)).astype("float32")
    labels = {name: rng.normal(size=16).astype("float32") for name in ("low", "high")}
    model = kmtl.build_mlp(
        input_shape=(4,),
        units=(6, 6),
        sharing=kmtl.sharing.Hierarchical(
            levels={"low": 1, "high": 2}, hand_over=hand_over, stop_gradient=True
        ),
        tasks=[kmtl.Regression(name) for name in labels],
        seed=0,
    )
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(x, labels, epochs=2, batch_size=8, verbose=0)
    before = state(model)
    absent = {"low": np.full(16, np.nan, "float32")}
    model.fit(x, labels | absent, batch_size=8, verbose=0)
    after = state(model)
    own = [v.path for v in model.trainable_variables if v.path.startswith("low_")]
    own = [path for path in own if "embedding" not in path]  # what reads it learns
    assert len(own) == (4 if hand_over == "features" else 2)
    for path in own:
        np.testing.assert_array_equal(before[path], after[path], err_msg=path)


def test_a_step_with_all_labels_is_the_plain_keras_step():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(32, 4)).astype("float32")
    y = {"a": rng.normal(size=(32, 1)), "b": rng.integers(0, 3, 32)}
    build = {"input_shape": (4,), "units": (6,), "tasks": TASKS, "seed": 3}
    ours = kmtl.build_mlp(**build)
    plain = kmtl.build_mlp(**build).to_keras()
    ours.compile(keras.optimizers.Adam(0.01))
    plain.compile(
        keras.optimizers.Adam(0.01),
        loss={
            "a": "mse",
            "b": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        },
    )
    for model in (ours, plain):
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for layer in plain.layers:
        for expected, variable in zip(
            layer.get_weights(), ours.get_layer(layer.name).get_weights(), strict=False
        ):
            np.testing.assert_allclose(variable, expected, rtol=2e-5, atol=2e-6)


def _weightings() -> list:
    """Every weighting, those of gradients at each of their levels."""
    found = []
    for name in _registry.names("weighting"):
        rule = _registry.get("weighting", name)
        gradients = rule.kind == "gradient"
        if not getattr(rule, "parameter_state", False):
            mark = pytest.mark.thorough(on="jax")  # where each is compiled
            marks = () if name in ("gls", "mgda") else mark
            level = "features" if gradients else None
            found.append(pytest.param(name, level, marks=marks))
        if gradients:
            found.append(pytest.param(name, "parameters", marks=pytest.mark.thorough))
    return found


@pytest.mark.parametrize(("name", "level"), _weightings())
def test_a_task_of_weight_0_is_left_out_of_every_balance(name, level):
    """The others learn from a batch exactly as where it has no labels of that task."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 4)).astype("float32")
    labels = {"a": x.sum(1), "b": rng.normal(size=16), "c": x[:, 0]}
    model = kmtl.build_mlp(
        input_shape=(4,), units=(6,), tasks=[*map(kmtl.Regression, labels)], seed=0
    )
    kind = _registry.get("weighting", name)
    options = {"seed": 1} if "seed" in kind().get_config() else {}
    rule = kind(**options, **({} if level is None else {"level": level}))
    on_tensorflow = keras.backend.backend() == "tensorflow"
    model.compile("sgd", weighting=rule, run_eagerly=on_tensorflow)
    rule.on_fit_begin(model, (x, labels))
    begin = model.get_weights()

    def train(y, weight):
        model.set_weights(begin)
        rule.reset()
        model.set_task_weights({"b": weight})
        losses = []
        for epoch in range(4):
            rule.on_epoch_begin(epoch)
            logs = model.train_on_batch(x, y, return_dict=True)
            rule.on_epoch_end(epoch, logs)
            losses.append([logs["a_loss"], logs["c_loss"]])
            model.reset_metrics()
        return np.array(losses), model.balance_log.logs().get("weight_b", 0.0)

    unlabelled, _ = train(labels | {"b": np.full(16, np.nan)}, 1.0)
    losses, weight = train(labels, 0.0)
    np.testing.assert_allclose(losses, unlabelled, rtol=1e-5)
    assert losses[-1].sum() < losses[0].sum()
    assert weight == 0.0
