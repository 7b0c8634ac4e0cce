"""Students and what their teachers say."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy import special

import kmtl
from kmtl.tasks import Taught

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype("float32")
Y = {"kind": (X[:, 0] > 0).astype("int32"), "size": 50 + 10.0 * X[:, 1]}
Y["kind"][10:] = -1
Y["size"][8:12] = np.nan
TASKS = (
    kmtl.Classification("kind", classes=3, weight=0.5),
    kmtl.Regression("size", transform="standardize"),
)


def model_of(tasks, units=(5,)):
    model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=units, seed=1)
    if "size" in model.task_names:
        model.adapt_targets({"size": Y["size"] if len(tasks) > 1 else Y["size"] * 2})
    return model


@pytest.fixture(scope="module")
def taught():
    teachers = [model_of([task], units=(9,)) for task in TASKS]
    student = model_of(TASKS)
    return kmtl.distill(student, teachers, (X, Y), temperature=3.0, features=0.25)


def test_losses_by_hand() -> None:
    said, own = RNG.normal(size=(2, 6, 3)).astype("float32")
    task = Taught("t", shape=(3,), temperature=3.0)
    p, q = special.softmax(said / 3, -1), special.softmax(own / 3, -1)
    found = keras.ops.convert_to_numpy(task.loss_values(said, own))
    wanted = 9 * (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(found, np.repeat(wanted[:, None], 3, 1), rtol=1e-4)
    task = task.replace(space="sigmoid")
    p, q = special.expit(said / 3), special.expit(own / 3)
    wanted = 9 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    found = keras.ops.convert_to_numpy(task.loss_values(said, own))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)
    task = task.replace(space="direction")
    cosine = (said * own).sum(-1)
    cosine /= np.linalg.norm(said, axis=-1) * np.linalg.norm(own, axis=-1)
    found = keras.ops.convert_to_numpy(task.loss_values(said, own))
    np.testing.assert_allclose(found[:, 0], 2 - 2 * cosine, rtol=1e-4)


@pytest.mark.thorough(on="jax")
def test_teachers_speak_of_every_row_in_the_students_scale(taught) -> None:
    _, y, _ = taught.data
    kind, size = taught.teachers["kind"], taught.teachers["size"]
    said = kind.predict(X, verbose=0)["kind"]
    np.testing.assert_allclose(y["kind_taught"], said, rtol=1e-5)
    labels = Y["size"]
    scaled = size.predict(X, verbose=0)["size"] - np.nanmean(labels)
    np.testing.assert_allclose(
        y["size_taught"], scaled / np.nanstd(labels), rtol=1e-3, atol=1e-4
    )
    assert y["kind_features"].shape == (40, 9)
    np.testing.assert_array_equal(y["kind"], Y["kind"])


@pytest.mark.thorough(on="jax")
def test_the_student_follows_its_teachers(taught) -> None:
    assert taught.model.task("kind_taught").weight == 0.5
    assert taught.model.task("kind_features").weight == 0.125
    # What labels say is another thing than what these teachers do.
    taught.model.set_task_weights({"kind": 0.0, "size": 0.0})
    taught.model.compile(keras.optimizers.Adam(0.02), run_eagerly=True)
    before = taught.model.loss_report(*taught.data)
    held = X[:4], {name: labels[:4] for name, labels in Y.items()}
    logs = taught.fit(held, batch_size=40, epochs=15, verbose=0).history
    assert np.isfinite(logs["val_size_taught_loss"]).all()
    after = taught.model.loss_report(*taught.data)
    for name in ("kind_taught", "size_taught", "kind_features"):
        assert after[name]["loss"] < 0.8 * before[name]["loss"], name
    assert after["kind"]["labels"] == 10
    assert after["kind_taught"]["labels"] == 120  # every entry of every row
    # What it has learned is the student's.
    one, other = (m.predict(X, verbose=0) for m in (taught.model, taught.student))
    np.testing.assert_array_equal(one["size"], other["size"])
    assert taught.student.task_names == ("kind", "size")


@pytest.mark.thorough(on="jax")
def test_refused(taught) -> None:
    student = taught.student
    with pytest.raises(ValueError, match="two of task 'kind'"):
        kmtl.distill(student, [taught.teachers["kind"]] * 2, (X, Y))
    other = model_of([kmtl.Classification("kind", classes=4)])
    wide = kmtl.build_mlp(input_shape=(9,), tasks=student.tasks[:1], units=(4,))
    with pytest.raises(ValueError, match=r"student's inputs.*'kind'.*\(None, 9\)"):
        kmtl.distill(student, wide, (X, Y))
    with pytest.raises(ValueError, match="student's shape"):
        kmtl.distill(student, other, (X, Y))
    with pytest.raises(ValueError, match="tasks of the student"):
        kmtl.distill(student, model_of([kmtl.Regression("age")]), (X, Y))
    with pytest.raises(TypeError, match="logits"):
        kmtl.distill(student, [keras.Sequential()], (X, Y))


@pytest.mark.parametrize(
    ("own", "its", "said"),
    [
        (
            kmtl.Classification("t", labels=("red", "green")),
            kmtl.Classification("t", labels=("green", "red")),
            r"labels=\('red', 'green'\) and labels=\('green', 'red'\)",
        ),
        (
            kmtl.Regression("t"),
            kmtl.BinaryClassification("t"),
            "kind='regression' and kind='binary_classification'",
        ),
    ],
)
def test_a_teacher_that_means_something_else_is_refused(own, its, said) -> None:
    with pytest.raises(ValueError, match=f"'t'.*{said}"):
        kmtl.distill(model_of([own]), model_of([its]), (X, {"t": np.zeros(len(X))}))


def test_adapters_begin_alike_with_one_seed() -> None:
    teacher = model_of(TASKS, units=(3,))

    def kernels(seed: int) -> list:
        made = kmtl.distill(model_of(TASKS), teacher, (X, Y), features=1.0, seed=seed)
        names = [f"{task.name}_head_adapter" for task in TASKS]
        return [made.model.get_layer(name).get_weights()[0] for name in names]

    first, again, other = kernels(0), kernels(0), kernels(1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, other)


def test_an_old_model_teaches_what_has_no_labels() -> None:
    """Learning without forgetting: the model's own past is the teacher."""
    old = model_of([TASKS[1]])
    new = kmtl.add_task(old, kmtl.Classification("kind", classes=3), freeze=False)
    taught = kmtl.distill(new, old, (X, {"kind": Y["kind"]}))
    assert taught.model.task_names == ("kind", "size_taught")
    taught.model.compile(keras.optimizers.Adam(0.05), run_eagerly=True)
    logs = taught.fit((X, Y), batch_size=20, epochs=2, verbose=0).history
    assert np.isfinite(logs["val_size_taught_loss"]).all()
    # What is learned: the old answers in the scale of the task.
    _, y, _ = taught.data
    said = old.predict(X, verbose=0)["size"]
    scale = 2 * np.nanstd(Y["size"])
    wanted = (said - 2 * np.nanmean(Y["size"])) / scale
    # `add_task` took the scale along.
    np.testing.assert_allclose(y["size_taught"], wanted, rtol=1e-3, atol=1e-4)
    other = kmtl.build_mlp(input_shape=(4,), tasks=TASKS, units=(5,), seed=1)
    with pytest.raises(ValueError, match="learns from its teacher alone"):
        kmtl.distill(other, model_of([TASKS[1]]), (X, {"kind": Y["kind"]}))


def test_teachers_are_asked_about_each_batch_of_a_data_set(taught) -> None:
    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple:
            part = slice(20 * index, 20 * index + 20)
            labels = {name: array[part] for name, array in Y.items()}
            return X[part], labels, {name: np.ones(20) for name in Y}

    made = taught.prepare(Batches())
    x, y, weight = made[1]
    np.testing.assert_array_equal(x, X[20:])
    wanted = taught.data[1]
    assert set(y) == set(wanted) == set(weight)
    for name in wanted:
        np.testing.assert_allclose(y[name], wanted[name][20:], rtol=1e-4, atol=1e-5)
    logs = taught.model
    logs.compile("sgd", run_eagerly=True)
    assert np.isfinite(logs.evaluate(made, verbose=0)[0])


@pytest.mark.thorough(on="jax")
def test_a_pipeline_of_tensorflow_with_teachers_in_it(taught) -> None:
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    student = model_of(TASKS)
    made = kmtl.distill(student, taught.teachers.values(), data, temperature=3.0)
    wanted = taught.data[1]
    rows = [y for _, y in made.data]
    assert made.data.cardinality() == 3
    for name in ("kind_taught", "size_taught", "size"):
        found = np.concatenate([np.asarray(y[name]) for y in rows])
        np.testing.assert_allclose(
            found.reshape(-1), wanted[name].reshape(-1), rtol=1e-4, atol=1e-4
        )
    made.model.compile("adam")
    logs = made.fit(data, epochs=2, verbose=0).history
    assert np.isfinite(logs["val_kind_taught_loss"]).all()
    # The labels are not asked for where there are none.
    alone = kmtl.distill(model_of(TASKS), taught.teachers.values(), data.map(_only_x))
    assert alone.model.task_names == ("kind_taught", "size_taught")


def _only_x(x, y):
    return x
