"""A step of `fit` with a gradient-based weighting is the paper's update."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl
from kmtl import _registry

pytestmark = pytest.mark.backend

METHODS = [
    name
    for name in _registry.names("weighting")
    if _registry.get("weighting", name).kind == "gradient"
]
TASKS = [
    kmtl.Regression("a"),
    kmtl.Classification("b", classes=3, hidden=(5,)),
    kmtl.BinaryClassification("c", weight=0.5),
]
ROWS = 24
rng = np.random.default_rng(0)
X = rng.normal(size=(ROWS, 4)).astype("float32")
Y = {
    "a": rng.random(ROWS),
    "b": rng.integers(0, 3, ROWS),
    "c": rng.integers(0, 2, ROWS),
}


def build(tasks=TASKS, **options):
    arguments = {
        "input_shape": (4,),
        "units": (6, 6),
        "sharing_depth": 1,
        "seed": 0,
        "activation": "tanh",
    }
    return kmtl.build_mlp(tasks=tasks, **{**arguments, **options})


def values(model):
    return {
        v.path: keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables
    }


def step(model, weighting=None, y=Y, x=X, **options):
    """Initial weights minus the weights after one step of size 1: the update."""
    before = values(model)
    options = {"run_eagerly": True, **options}
    model.compile(keras.optimizers.SGD(1.0), weighting=weighting, **options)
    model.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0)
    after = values(model)
    return {path: before[path] - after[path] for path in before}


def is_shared(path):
    return path.startswith("shared")


def flat(update):
    return np.concatenate([v.ravel() for path, v in update.items() if is_shared(path)])


@pytest.fixture(scope="module")
def single():
    """Each task's own gradients, from plain steps on one task at a time."""
    updates = {}
    for task in TASKS:
        model = build()
        model.set_task_weights({t.name: t.weight if t is task else 0.0 for t in TASKS})
        updates[task.name] = step(model)
    model = build()
    model.compile("sgd")
    report = model.loss_report(X, Y)
    losses = np.array([report[t.name]["weighted"] for t in TASKS], "float32")
    jacobian = np.stack([flat(update) for update in updates.values()])
    return jacobian, losses, updates


def options_of(name):
    """Hyperparameters that make methods repeatable functions of one Jacobian."""
    config = _registry.get("weighting", name)().get_config()
    options = {"seed": 3, "double_sampling": False}
    return {key: value for key, value in options.items() if key in config}


@pytest.mark.parametrize("name", METHODS)
def test_parameters_level_subtracts_the_aggregate_of_the_jacobian(name, single):
    jacobian, losses, updates = single
    expected = np.asarray(
        kmtl.weighting.aggregate(name, jacobian, losses=losses, **options_of(name))
    )
    rule = _registry.get("weighting", name)(level="parameters", **options_of(name))
    update = step(build(), rule)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(flat(update) / scale, expected / scale, atol=2e-4)
    # Heads get their own task's gradient, up to a factor that is the method's.
    for task in TASKS:
        own = [p for p in update if p.startswith(f"{task.name}_") and "logits" in p]
        for path in own:
            alone, got = updates[task.name][path], update[path]
            cosine = (alone * got).sum() / np.linalg.norm(alone) / np.linalg.norm(got)
            assert cosine == pytest.approx(1.0, abs=1e-4), path
            if rule.head_weights(None, keras.ops.ones(3)) is None:
                np.testing.assert_allclose(got, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [name for name in METHODS if _registry.get("weighting", name).uses_gramian],
)
def test_low_memory_gives_the_same_update(name, single):
    full = _registry.get("weighting", name)(level="parameters", **options_of(name))
    lean = _registry.get("weighting", name)(low_memory=True, **options_of(name))
    expected, got = flat(step(build(), full)), flat(step(build(), lean))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got / scale, expected / scale, atol=1e-4)


def test_features_level_equals_parameters_level_for_one_row():
    # One example, one linear layer: J_t = c_t (x, 1)^T, so the Gramians of features and
    # parameters are alike up to a factor.
    x, y = X[:1], {name: labels[:1] for name, labels in Y.items()}
    for name in ("mgda", "upgrad", "cagrad", "imtl_g"):
        updates = [
            step(
                build(units=(6,), activation="linear"),
                _registry.get("weighting", name)(level=level),
                y,
                x,
            )
            for level in ("features", "parameters")
        ]
        for path, value in updates[0].items():
            np.testing.assert_allclose(
                value, updates[1][path], rtol=2e-3, atol=1e-5, err_msg=f"{name} {path}"
            )


def test_features_level_is_the_default_and_aggregates_the_cotangents():
    # Two tasks that pull the features in opposite directions: MGDA stops the trunk.
    tasks = [kmtl.Regression("up"), kmtl.Regression("down")]
    model = build(tasks, units=(3,), activation="linear")
    for name in ("up", "down"):
        model.get_layer(f"{name}_head_logits").set_weights(
            [np.ones((3, 1), "float32"), np.zeros(1, "float32")]
        )
    outputs = model.predict(X, verbose=0)["up"]
    update = step(model, "mgda", {"up": outputs + 1.0, "down": outputs - 1.0})
    assert model._state.plan.level == "features"
    assert np.abs(flat(update)).max() < 1e-5
    assert np.abs(update["up_head_logits/bias"]).max() > 0.5


def test_features_level_clips_the_gradients_of_the_features_of_the_batch():
    tasks = [kmtl.Regression("up"), kmtl.Regression("down")]
    model = build(tasks, units=(3,), activation="linear")
    y = {"up": 30 * Y["a"], "down": Y["b"].astype(float)}
    y["down"][:4] = np.nan
    outputs = model.predict(X, verbose=0)
    rows = {}
    for name in y:
        kernel = model.get_layer(f"{name}_head_logits").get_weights()[0]
        errors = np.nan_to_num(outputs[name] - y[name][:, None])
        rows[name] = 2 * errors / np.isfinite(y[name]).sum() @ kernel.T
    length = np.linalg.norm(rows["up"])
    rule = kmtl.weighting.GradientSum(level="features", clip_norm={"up": length / 5})
    update = step(model, rule, y)
    wanted = X.T @ (rows["up"] / 5 + rows["down"])
    (kernel,) = (v for p, v in update.items() if is_shared(p) and v.ndim == 2)
    np.testing.assert_allclose(kernel, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["pcgrad", "mgda", "nash_mtl", "graddrop", "moco"])
def test_an_absent_task_is_left_out_of_the_balance(name):
    y = {**Y, "b": np.full(ROWS, -1)}
    options = options_of(name)
    without = [task for task in TASKS if task.name != "b"]
    rule = _registry.get("weighting", name)(level="parameters", **options)
    update = step(build(), rule, y)
    for path, value in update.items():
        assert np.isfinite(value).all()
        if path.startswith("b_"):
            assert not value.any()
    if options:  # another draw of random numbers for another number of tasks
        return
    rule = _registry.get("weighting", name)(level="parameters")
    y.pop("b")
    expected = step(build(without), rule, y)
    scale = max(np.abs(flat(expected)).max(), 1e-6)
    np.testing.assert_allclose(flat(update) / scale, flat(expected) / scale, atol=2e-3)


def test_compiled_training_logs_weights_conflict_and_learns():
    model = build()
    rule = kmtl.weighting.PCGrad(monitor=True, seed=0)
    model.compile(keras.optimizers.Adam(0.02), weighting=rule)
    history = model.fit(
        X, Y, batch_size=8, epochs=8, validation_data=(X, Y), verbose=0
    ).history
    assert history["loss"][-1] < history["loss"][0]
    assert len(history["weight_a"]) == 8
    assert all(0 <= rate <= 1 for rate in history["conflict_rate"])
    assert all(-1 <= c <= 1 for c in history["grad_cosine_a_b"])
    assert min(history["grad_norm_a"]) > 0
    assert not [key for key in history if key.startswith("val_weight")]


def test_pairs_never_seen_together_have_no_cosine():
    model = build()
    model.compile("sgd", weighting=kmtl.weighting.PCGrad(monitor=True))
    y = {name: np.array(part, "float32") for name, part in Y.items()}
    y["a"][:8], y["b"][8:] = np.nan, np.nan  # batches of one task or the other
    logs = model.fit(
        X[:16],
        {name: part[:16] for name, part in y.items()},
        batch_size=8,
        shuffle=False,
        verbose=0,
    ).history
    assert np.isnan(logs["grad_cosine_a_b"][0])
    assert logs["grad_norm_a"][0] > 0


def test_mixed_float16_and_regularisers(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build(kernel_regularizer="l2")
        model.compile(keras.optimizers.Adam(0.02), weighting="mgda")
        history = model.fit(X, Y, batch_size=8, epochs=6, verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert history["loss"][-1] < history["loss"][0]
    assert history["regularization_loss"][-1] < history["regularization_loss"][0]


def test_state_is_saved_and_training_goes_on_alike(tmp_path):
    model = build()
    model.compile(keras.optimizers.Adam(0.01), weighting="gradnorm")
    model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again.weighting, kmtl.weighting.GradNorm)
    for m in (model, again):
        m.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    for path, value in values(model).items():
        np.testing.assert_allclose(values(again)[path], value, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        np.asarray(model.weighting.loss_weights),
        np.asarray(again.weighting.loss_weights),
        rtol=1e-6,
    )


def test_refusals():
    with pytest.raises(ValueError, match="shares none"):
        build(sharing_depth=0).compile("sgd", weighting="pcgrad")
    with pytest.raises(ValueError, match=r"no features level|level='parameters'"):
        build().compile("sgd", weighting=kmtl.weighting.MoCo(level="features"))
    with pytest.raises(ValueError, match="Did you mean 'pcgrad'"):
        build().compile("sgd", weighting="pcgard")
    with pytest.raises(ValueError, match="`level` must be one of"):
        kmtl.weighting.PCGrad(level="feature")
    with pytest.raises(ValueError, match="low_memory"):
        kmtl.weighting.GradDrop(low_memory=True)


def test_another_weighting_can_follow():
    model = build()
    model.compile("sgd", weighting="gradnorm")
    count = len(model.non_trainable_variables)
    model.compile("sgd", weighting="uncertainty")
    assert len(model.trainable_variables) == len(build().trainable_variables) + 1
    model.compile("sgd", weighting="gradnorm")
    assert len(model.non_trainable_variables) == count
    assert len(model.trainable_variables) == len(build().trainable_variables)


@pytest.mark.parametrize("name", ["modo", "sdmgrad"])
def test_double_sampling_takes_weights_from_the_two_halves_of_a_batch(name):
    labels = {key: np.array(value, "float64") for key, value in Y.items()}
    labels["a"][: ROWS // 2 : 2] = np.nan  # the halves have uneven numbers of labels

    def jacobian(rows):
        part = {key: value[rows] for key, value in labels.items()}
        part = {"a": part["a"], **{k: part[k].astype("int32") for k in "bc"}}
        found = []
        for task in TASKS:
            model = build()
            weights = {t.name: t.weight if t is task else 0.0 for t in TASKS}
            model.set_task_weights(weights)
            found.append(flat(step(model, None, part, X[rows])))
        return np.stack(found), part

    first, _ = jacobian(slice(0, None, 2))
    second, _ = jacobian(slice(1, None, 2))
    whole, part = jacobian(slice(None))
    rule = _registry.get("weighting", name)()
    rule.setup([task.name for task in TASKS])
    weights = rule.row_weights(
        (first @ second.T).astype("float32"),
        np.ones(3, "float32"),
        np.ones(3, "float32"),
    )
    expected = np.asarray(weights) @ whole
    biased = _registry.get("weighting", name)(level="parameters", double_sampling=False)
    rule = _registry.get("weighting", name)(level="parameters")
    found = flat(step(build(), rule, part))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-4)
    other = flat(step(build(), biased, part))
    assert np.abs(other - expected).max() / scale > 1e-3


@pytest.mark.thorough(on="jax")
@pytest.mark.parametrize(
    "name",
    [name for name in METHODS if not _registry.get("weighting", name).uses_gramian],
)
def test_compiled_with_a_partial_batch(name):
    model = build()
    rule = _registry.get("weighting", name)(**options_of(name))
    model.compile(keras.optimizers.SGD(0.01), weighting=rule)
    before = values(model)
    history = model.fit(X, Y, batch_size=ROWS - 5, verbose=0).history
    assert np.isfinite(history["loss"][0])
    after = values(model)
    assert all(np.isfinite(value).all() for value in after.values())
    moved = [path for path in before if np.any(before[path] != after[path])]
    assert {path.split("_")[0] for path in moved} == {"shared", "a", "b", "c"}


@pytest.mark.thorough(on="jax")
@pytest.mark.parametrize("level", ["features", "parameters"])
def test_accumulated_steps_apply_the_mean_of_their_updates(level):
    halves = [slice(None, ROWS // 2), slice(ROWS // 2, None)]
    alone = []
    for rows in halves:
        part = {name: labels[rows] for name, labels in Y.items()}
        rule = _registry.get("weighting", "mgda")(level=level)
        alone.append(step(build(), rule, part, X[rows]))
    model = build()
    before = values(model)
    rule = _registry.get("weighting", "mgda")(level=level)
    optimizer = keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)
    model.compile(optimizer, weighting=rule)
    model.fit(X, Y, batch_size=ROWS // 2, shuffle=False, verbose=0)
    for path, value in values(model).items():
        expected = (alone[0][path] + alone[1][path]) / 2
        np.testing.assert_allclose(
            before[path] - value, expected, rtol=1e-3, atol=1e-5, err_msg=path
        )


@keras.saving.register_keras_serializable(package="test")
class Adds(keras.layers.Dense):
    """A dense layer that adds what it gives to the loss."""

    def call(self, inputs, training=False):
        outputs = super().call(inputs)
        if training:
            self.add_loss(0.1 * keras.ops.mean(outputs**2))
        return outputs


@pytest.mark.parametrize(
    ("name", "level"),
    [("pcgrad", "parameters"), ("pcgrad", "features"), ("db_mtl", "parameters")],
)
def test_what_layers_add_to_the_loss_is_minimised_beside_the_balance(name, level):
    """Two tasks that their labels leave at rest: the update is the added loss's."""

    def made():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4,))
        l2 = keras.regularizers.L2(0.05)
        trunk = Adds(5, kernel_regularizer=l2, name="trunk")(inputs)
        features = kmtl.layers.Seam(name="seam")(trunk)
        outputs = {}
        for name in ("a", "b"):
            own = Adds(1, name=f"{name}_own")(features)
            task = kmtl.Regression(name, metrics=[])
            outputs[name] = kmtl.TaskOutput(task)(own)
        return kmtl.MultiTaskModel(inputs, outputs)

    y = {k: keras.ops.convert_to_numpy(v) for k, v in made()(X).items()}
    expected = step(made(), y=y)
    weighting = _registry.get("weighting", name)
    options = {"level": level} if name == "pcgrad" else {}
    changed = step(made(), weighting(**options), y=y)
    assert max(np.abs(value).max() for value in expected.values()) > 0.01
    for path, value in expected.items():
        np.testing.assert_allclose(changed[path], value, atol=1e-6, err_msg=path)
