"""What a model knows of a task stands in one place, and changes all at once."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(12, 6)).astype("float32")
Y = {"size": X[:, 0]}


def model(**options):
    tasks = [kmtl.Reconstruction("image"), kmtl.Regression("size", weight=0.3)]
    options = {"tasks": tasks, "units": (4,), "seed": 0} | options
    return kmtl.build_mlp(input_shape=(6,), **options)


@pytest.fixture(scope="module")
def replaced():
    made = model()
    made.compile(
        keras.optimizers.SGD(0.1),
        loss={"image": "binary_cross_entropy"},
        loss_weights={"size": 0.6},
        weighting="uncertainty",
        run_eagerly=True,
    )
    made.fit(X, Y, verbose=0)
    return made


def same(made) -> None:
    assert made.task("image").loss == "binary_cross_entropy"
    assert made.task("image").output_activation == "sigmoid"
    assert made.task("size").weight == made.task_weights["size"] == 0.6
    assert [task.weight for task in made.tasks] == [1.0, 0.6]


def test_everybody_reads_the_loss_that_compile_gave(replaced) -> None:
    same(replaced)
    logits = replaced.predict(X, verbose=0)["image"]
    values = 1 / (1 + np.exp(-logits.astype("float64")))
    logs = replaced.evaluate(X, Y, return_dict=True, verbose=0)
    entropy = -(X * np.log(values) + (1 - X) * np.log(1 - values))
    assert logs["image_loss"] == pytest.approx(entropy.mean(), rel=1e-4)
    assert logs["image_mse"] == pytest.approx(((values - X) ** 2).mean(), rel=1e-4)
    plain = replaced.to_keras(activated=True).predict(X, verbose=0)["image"]
    np.testing.assert_allclose(plain, values, rtol=1e-4)
    report = replaced.scale_report(X, Y)
    assert report.losses["image"] == pytest.approx(entropy.mean(), rel=1e-4)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        replaced.fit(4 * X, Y, verbose=0)
    same(replaced)


def test_files_and_copies_know_it(replaced, tmp_path) -> None:
    path = tmp_path / "model.keras"
    replaced.save(path)
    same(keras.models.load_model(path))
    bare = keras.models.load_model(path, compile=False)
    same(bare)
    kmtl.evaluate(bare, (X, Y))  # compiles, but not the user's model
    same(bare)
    same(keras.models.clone_model(replaced))
    bare.compile("sgd")
    assert bare.task("image").loss == "mse"  # as it was declared


def test_the_weight_is_never_stale() -> None:
    made = model()
    made.set_task_weights({"size": 0.7})
    assert made.task("size").weight == made.tasks[1].weight == 0.7
    other = model()
    other.set_weights(made.get_weights())
    assert other.task("size").weight == 0.7
    made.task_outputs["size"].task_weight.assign(0.9)
    assert made.task("size").weight == 0.9
    assert made.task_outputs["size"].get_config()["task"]["weight"] == 0.9
    made.compile("sgd", loss_weights="data", run_eagerly=True)
    made.fit(X, {"size": np.where(np.arange(12) < 4, np.nan, Y["size"])}, verbose=0)
    assert made.task("size").weight == pytest.approx(8 / 20)


REFUSED = {
    "optimizer": "nope",
    "loss": {"image": "binary"},
    "loss_weights": {"size": -1.0},
    "metrics": {"size": "nope"},
    "weighting": kmtl.weighting.Fixed({"sise": 1.0}),
    "relations": "frobenius",
    "steps_per_execution": 0,
    "jit_compile": "maybe",
}


@pytest.mark.parametrize("argument", REFUSED)
def test_a_refused_compile_changes_nothing(argument, tmp_path) -> None:
    made = model()
    given = {"loss": {"image": "mae"}, "loss_weights": {"size": 5.0}}
    given |= {"weighting": kmtl.weighting.Uncertainty(), argument: REFUSED[argument]}
    for compiled in (False, True):
        if compiled:
            made.compile(keras.optimizers.SGD(0.25), weighting="dwa")
        before = (made.optimizer, made.weighting) if compiled else None
        with pytest.raises((ValueError, TypeError)):
            made.compile(**given)
        assert made.compiled == compiled
        assert made.task("image").loss == "mse"
        assert made.task_weights == {"image": 1.0, "size": 0.3}
        if compiled:
            assert before == (made.optimizer, made.weighting)
    made.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert float(keras.ops.convert_to_numpy(again.optimizer.learning_rate)) == 0.25
    assert type(again.weighting) is kmtl.weighting.DWA


@pytest.mark.parametrize("argument", ["weighting", "relations"])
def test_an_object_of_another_model_is_refused(argument) -> None:
    tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    first, second = model(tasks=tasks), model(tasks=tasks)
    kinds = {"weighting": kmtl.weighting.DWA, "relations": kmtl.relations.MTRL}
    part = kinds[argument]()
    first.compile("sgd", **{argument: part})
    first.compile("adam", **{argument: part})  # its own
    with pytest.raises(ValueError, match=f"`{argument}` must be a new object"):
        second.compile("sgd", **{argument: part})
    assert not second.compiled
    second.compile("sgd", **{argument: type(part).from_config(part.get_config())})
    assert getattr(second, argument) is not part


HEADS = {
    "width": (lambda x: keras.layers.Dense(5)(x), r"\(N, 3\).*Dense\(3\)"),
    "layer": (lambda x: keras.layers.Dense(3, "softmax")(x), "must end in logits"),
    "operation": (
        lambda x: keras.ops.softmax(keras.layers.Dense(3)(x)),
        "must end in logits",
    ),
    "behind": (
        lambda x: keras.layers.Dropout(0.1)(keras.layers.Dense(3, "sigmoid")(x)),
        "activation='sigmoid'",
    ),
    "inside": (
        lambda x: keras.Sequential(
            [keras.layers.Dense(3), keras.layers.Activation("softmax")]
        )(x),
        "must end in logits",
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_does_not_fit_is_refused(name) -> None:
    head, message = HEADS[name]
    x = keras.Input((4,))
    kind = kmtl.TaskOutput(kmtl.Classification("kind", classes=3))
    with pytest.raises(ValueError, match=f"task 'kind' .*{message}"):
        kmtl.MultiTaskModel(x, {"kind": kind(head(x))})


def test_heads_of_columns_and_maps() -> None:
    x, image = keras.Input((4,)), keras.Input((8, 6, 3))
    pos = kmtl.TaskOutput(kmtl.Regression("pos", units=2))
    with pytest.raises(ValueError, match=r"'pos' .*\(N, 2\).*Received.*\(N, 1\)"):
        kmtl.MultiTaskModel(x, {"pos": pos(keras.layers.Dense(1)(x))})
    mask = kmtl.TaskOutput(kmtl.Segmentation("mask", classes=2))
    with pytest.raises(ValueError, match=r"\(N, 8, 6, 1\).*Conv2D\(1, 1\)"):
        kmtl.MultiTaskModel(image, {"mask": mask(keras.layers.Conv2D(2, 1)(image))})
    # A bounded value is no logit.
    share = kmtl.TaskOutput(kmtl.Regression("share"))
    bounded = kmtl.MultiTaskModel(
        x, {"share": share(keras.layers.Dense(1, "sigmoid")(x))}
    )
    assert bounded.task_names == ("share",)
    # With another loss it may become one.
    again = kmtl.TaskOutput(kmtl.Reconstruction("again"))
    values = kmtl.MultiTaskModel(
        x, {"again": again(keras.layers.Dense(4, "sigmoid")(x))}
    )
    with pytest.raises(ValueError, match="task 'again' must end in logits"):
        values.compile("sgd", loss={"again": "binary_cross_entropy"})
    assert not values.compiled


@pytest.mark.parametrize("form", [dict, list])
def test_which_of_several_inputs_is_the_target(form) -> None:
    a, z = keras.Input((2,), name="a"), keras.Input((3,), name="z")
    both = keras.layers.Concatenate()([z, a])

    def make(task):
        output = kmtl.TaskOutput(task)(keras.layers.Dense(3)(both))
        inputs = {"z": z, "a": a} if form is dict else [z, a]
        return kmtl.MultiTaskModel(inputs, {"copy": output})

    with pytest.raises(ValueError, match="say which with `input`, one of"):
        make(kmtl.Reconstruction("copy"))
    with pytest.raises(ValueError, match="Unknown `input` of task 'copy'"):
        make(kmtl.Reconstruction("copy", input="y"))
    made = make(kmtl.Reconstruction("copy", input="z"))
    made.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    x = {"z": X[:, :3], "a": X[:, 4:]}
    given = x if form is dict else list(x.values())
    wanted = ((made.predict(given, verbose=0)["copy"] - x["z"]) ** 2).mean()
    logs = made.fit(given, verbose=0).history
    assert logs["copy_loss"][0] == pytest.approx(wanted, rel=1e-5)
    logs = made.evaluate(given, return_dict=True, verbose=0)
    assert logs["copy_mse"] == pytest.approx(wanted, rel=1e-5)
