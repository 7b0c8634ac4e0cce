"""Attacks and noise on the inputs of a step, and a model under attack."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from core_tools import table, table_model

import kmtl
from kmtl.training import FGSM, PGD, InputNoise
from kmtl.training.attacking import changed

pytestmark = pytest.mark.backend

X, Y = table(8)


def linear(bias: float = 0.0):
    """y = x w + b, of which all is known."""
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=[kmtl.Regression("size")], units=(), seed=0
    )
    w = np.array([[1.0], [-2.0], [0.0]], "float32")
    model.set_weights([w, np.full(1, bias, "float32"), *model.get_weights()[2:]])
    return model, w


def two_linear():
    """Two tasks on one linear trunk."""
    tasks = [kmtl.Regression("far", weight=0.5), kmtl.Regression("near")]
    return kmtl.build_mlp(
        input_shape=(6,), tasks=tasks, units=(4,), activation="linear", seed=0
    )


def attacked_by_hand(model, x, y, epsilon: float) -> np.ndarray:
    """FGSM on `two_linear`, from its weights."""
    trunk, gradient = model.get_layer("shared_block1_dense").get_weights(), 0.0
    for name, weight in (("far", 0.5), ("near", 1.0)):
        head = model.get_layer(f"{name}_head_logits").get_weights()
        answers = (x @ trunk[0] + trunk[1]) @ head[0] + head[1]
        error = np.nan_to_num(answers[:, 0] - y[name]) / (~np.isnan(y[name])).sum()
        gradient = gradient + weight * 2 * error[:, None] * (trunk[0] @ head[0])[:, 0]
    return x + epsilon * np.sign(gradient)


def test_fgsm_follows_the_sign_of_the_gradient() -> None:
    model, w = linear(0.5)
    x = np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 5.0]], "float32")
    y = {"size": np.array([0.0, 9.0])}  # outputs -0.5 and 2.5: residuals below 0
    (found, _, *_) = kmtl.evaluation.attack(model, (x, y), FGSM(0.25))
    np.testing.assert_allclose(found, x - 0.25 * np.sign(w[:, 0]), rtol=1e-6)
    half = kmtl.evaluation.attack(model, (x, y), FGSM(0.25, share=0.5))[0]
    np.testing.assert_allclose(half, np.stack([x[0], found[1]]), rtol=1e-6)


def test_the_loss_of_an_adversarial_task_is_raised() -> None:
    tasks = [kmtl.Regression("far"), kmtl.Regression("near", adversarial=1.0)]
    model = kmtl.build_mlp(
        input_shape=(6,), tasks=tasks, units=(4,), activation="linear", seed=0
    )
    y = {"far": np.zeros(8), "near": X[:, 0] * 3.0}

    def loss(x) -> float:
        answers = keras.ops.convert_to_numpy(model(x)["near"])[:, 0]
        return float(np.square(answers - y["near"]).mean())

    found = kmtl.evaluation.attack(model, (X, y), FGSM(0.01, tasks=["near"]))
    assert loss(found[0]) > loss(X) + 1e-3


class Followed(kmtl.training.Adversary):
    """Adds the gradient itself."""

    def change(self, inputs, gradient):
        found = gradient(inputs)
        return [x + g for x, g in zip(inputs, found, strict=True)]


def test_every_row_moves_in_half_precision() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = kmtl.build_mlp(
            input_shape=(3,),
            tasks=[kmtl.Regression("size")],
            units=(1,),
            activation=None,
            seed=0,
        )
    finally:
        keras.config.set_dtype_policy("float32")
    layer, head = (layer for layer in model.layers if hasattr(layer, "kernel"))
    w = np.array([[0.5], [-0.25], [0.125]], "float32")
    layer.set_weights([w, np.zeros(1, "float32")])
    head.set_weights([np.ones((1, 1), "float32"), np.zeros(1, "float32")])
    x = np.ones((8192, 3), "float32")
    y = {"size": np.full((8192, 1), 0.375 - 2**-13, "float32")}  # residuals of 2^-13
    given = (keras.ops.convert_to_tensor(x), y, None)
    assert "float16" in str(layer.compute_dtype)
    found, _ = changed(model, FGSM(0.25), given)
    wanted = x + 0.25 * np.sign(w[:, 0])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), wanted)
    moved, _ = changed(model, Followed(), given)
    # Who looks at its size sees the gradient of the mean.
    wanted = x + 2 * 2**-13 / 8192 * w[:, 0]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(moved), wanted, atol=1e-6)


@pytest.mark.thorough(on="jax")
def test_missing_labels_and_chosen_tasks_only() -> None:
    model = table_model()
    y = {**Y, "kind": np.full(8, -1, "int32")}
    given = [keras.ops.convert_to_tensor(X), y, None]
    only, _ = changed(model, FGSM(0.1, tasks=["kind"]), tuple(given))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(only), X)
    every, _ = changed(model, FGSM(0.1), tuple(given))
    here = ~np.isnan(Y["size"]).all(1) | (Y["flag"] != -1)
    moved = np.abs(keras.ops.convert_to_numpy(every) - X).max(1) > 0.05
    np.testing.assert_array_equal(moved, here)


@pytest.mark.parametrize("weighting", [None, "pcgrad"])
def test_a_step_on_attacked_inputs(weighting) -> None:
    y = {"far": Y["size"][:, 0], "near": X[:, 0] * 3.0}
    trained = []
    for adversary in (FGSM(0.3), None):
        model = two_linear()
        x = X if adversary else attacked_by_hand(model, X, y, 0.3)
        rule = keras.optimizers.SGD(0.1)
        model.compile(
            rule, weighting=weighting, adversary=adversary, run_eagerly=bool(weighting)
        )
        model.fit(x, y, shuffle=False, verbose=0)
        trained.append([v for layer in model.layers for v in layer.get_weights()])
    for one, other in zip(*trained, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.thorough(on="jax")
def test_pgd_stays_near_and_raises_the_loss_most() -> None:
    model = table_model()
    model.compile("sgd")
    fgsm = kmtl.evaluation.attack(model, (X, Y), FGSM(0.2))
    pgd = kmtl.evaluation.attack(model, (X, Y), PGD(0.2, steps=10, seed=0))
    assert np.abs(pgd[0] - X).max() <= 0.2 + 1e-6
    losses = [model.loss_report(*d)["total"] for d in ((X, Y), fgsm, pgd)]
    assert losses[0] < losses[1] <= losses[2] + 1e-3
    inside = kmtl.evaluation.attack(
        model, (X, Y), PGD(9.0, steps=1, bounds=(-1, 1), seed=0)
    )
    assert np.abs(inside[0]).max() == 1


@pytest.mark.thorough(on="jax")
def test_noise_is_drawn_anew_and_the_target_stays_clean() -> None:
    tasks = [kmtl.Reconstruction("again")]
    model = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(), seed=0)
    weights = [np.eye(3, dtype="float32"), *model.get_weights()[1:]]
    model.set_weights(weights)
    noise = InputNoise(0.5, seed=1)
    model.compile(keras.optimizers.SGD(0.0), adversary=noise, run_eagerly=True)
    x = np.zeros((4000, 3), "float32")
    logs = model.fit(x, batch_size=4000, epochs=2, verbose=0).history["loss"]
    np.testing.assert_allclose(logs, 0.25, rtol=0.05)  # the variance of the noise
    assert logs[0] != logs[1]


@pytest.mark.thorough(on="jax")
def test_a_saved_model_goes_on_with_its_adversary(tmp_path) -> None:
    model = table_model()
    model.compile("adam", adversary=PGD(0.1, steps=2, bounds=(-9, 9), seed=3))
    model.save(tmp_path / "model.keras")
    loaded = kmtl.load_model(tmp_path / "model.keras")
    assert loaded.adversary.get_config() == model.adversary.get_config()
    model.compile("adam")
    assert model.adversary is None
    names = [variable.path for variable in model.variables]
    assert not any("pgd" in name for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["kinds"]}, "kind"),
        ({"inputs": ["x"]}, "inputs"),
        ({"epsilon": 0}, "epsilon"),
        ({"bounds": (1, 0)}, "smaller one first"),
    ],
)
def test_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        table_model().compile("adam", adversary=FGSM(**{"epsilon": 1, **options}))


def test_inputs_that_the_model_scales_itself() -> None:
    """The step is in the input's unit; in a table, in the spread of each column."""
    rows = {
        "income": [0.0, 1000.0, 2000.0, 3000.0, 4000.0, None],
        "town": ["Ulm", "Bonn", "Ulm", "Bonn", "Ulm", "Ulm"],
        "age": [10.0, 20.0, 30.0, 40.0, 50.0, 30.0],
        "owns": [True, False, True, False, True, False],
    }
    table = kmtl.inputs.Table().fit(rows)
    middle = [
        np.subtract(*np.quantile(v, [0.75, 0.25]))
        for v in (rows["income"][:5], rows["age"])
    ]
    photo = kmtl.inputs.Array((6,), scale="standardize").fit(X * 100)
    model = kmtl.build(
        inputs={"facts": table, "photo": photo},
        backbone={"facts": "mlp", "photo": "mlp"},
        tasks=[kmtl.Regression("size")],
        seed=0,
    )
    x = {"facts": table.prepare(rows, "`x`"), "photo": X[:6] * 100}
    np.testing.assert_allclose(table.step_sizes()[:3], [*middle, 0], rtol=1e-3)
    y = {"size": np.linspace(-1, 1, 6).astype("float32")}
    model.compile("sgd", adversary=FGSM(0.1))
    found = kmtl.evaluation.attack(model, (x, y), FGSM(0.1))[0]
    moved = np.abs(found["facts"] - x["facts"])
    np.testing.assert_array_equal(moved[:, 2:], 0)
    steps = 0.1 * table.step_sizes()[:2]
    near = np.isclose(moved[:, :2], steps, rtol=1e-3) | (moved[:, :2] == 0)
    assert near.all()
    assert (moved[:, :2] > 0).any(axis=0).all()
    np.testing.assert_allclose(np.abs(found["photo"] - x["photo"]).max(), 0.1, 1e-3)
    losses = [model.loss_report(part, y)["total"] for part in (x, found)]
    assert losses[1] > losses[0]
    with pytest.raises(ValueError, match=r"`bounds` are for inputs of one unit"):
        model.compile("sgd", adversary=PGD(0.1, bounds=(0, 1)))
    names = kmtl.inputs.Table().fit({"town": rows["town"]})
    words = kmtl.build(
        inputs=names, backbone="mlp", tasks=[kmtl.Regression("size")], seed=0
    )
    with pytest.raises(ValueError, match=r"a Table without numbers: town"):
        words.compile("sgd", adversary=FGSM(0.1))


def test_refused_inputs() -> None:
    bytes_in = kmtl.build_cnn(
        input_shape=(4, 4, 1),
        tasks=[kmtl.Regression("size")],
        filters=(2,),
        input_dtype="uint8",
    )
    with pytest.raises(ValueError, match=r"array of floats.*uint8"):
        bytes_in.compile("adam", adversary=FGSM(1))
    with pytest.raises(TypeError, match="FGSM"):
        bytes_in.compile("adam", adversary="fgsm")


def test_a_model_that_is_used_again_begins_anew() -> None:
    from kmtl.tuning.reuse import ModelPool

    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=[kmtl.Regression("size")],
        input_shape=(3,),
        units=(2,),
        seed=0,
        space=(),
        compile_options={"adversary": InputNoise(0.1, seed=3)},
    )
    pool = ModelPool()
    model = pool.model(hypermodel, {})
    state = model.adversary.seed_generator.state
    start = np.array(keras.ops.convert_to_numpy(state))
    model.adversary.seed_generator.next()
    assert not np.array_equal(keras.ops.convert_to_numpy(state), start)
    assert pool.model(hypermodel, {}) is model
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(state), start)


@pytest.mark.thorough
def test_a_run_that_goes_on_draws_what_an_unbroken_one_does(tmp_path) -> None:
    def run(folder: str, epochs: int):
        model = table_model()
        model.compile("adam", adversary=PGD(0.2, steps=2, seed=4))
        kmtl.training.fit_run(
            model, (X, Y), epochs=epochs, folder=tmp_path / folder, batch_size=4,
            verbose=0,
        )  # fmt: skip
        return model.get_weights()

    whole = run("whole", 2)
    run("broken", 1)
    for one, other in zip(whole, run("broken", 2), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
