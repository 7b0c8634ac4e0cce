"""Data that come batch by batch: functions, PyDatasets, loaders of others."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl.data import fingerprint, from_generator

pytestmark = pytest.mark.backend

TASKS = [kmtl.Regression("size"), kmtl.Classification("kind", classes=3)]
ROWS, BATCH = 20, 8
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")
Y = {
    "size": np.where(np.arange(ROWS) % 7 == 0, np.nan, X[:, 0].astype("float64")),
    "kind": np.where(np.arange(ROWS) % 5 == 4, -1, np.arange(ROWS) % 3),
}


def rows() -> Iterator[tuple]:
    for start in range(0, ROWS, BATCH):
        part = slice(start, start + BATCH)
        yield X[part], {name: labels[part] for name, labels in Y.items()}


class Batches(keras.utils.PyDataset):
    """The same as a PyDataset."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple:
        return list(rows())[index]


class Loader:
    """Batches that can be read again and again, of no kind that Keras knows."""

    def __iter__(self) -> Iterator[tuple]:
        return rows()


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    model = kmtl.build_mlp(input_shape=(4,), tasks=TASKS, units=(4,), seed=0)
    model.compile(keras.optimizers.SGD(0.0))  # whatever is trained on: the same model
    return model


@pytest.fixture(scope="module")
def losses(model: Any) -> dict[str, float]:
    return model.evaluate(X, Y, batch_size=BATCH, return_dict=True, verbose=0)


def test_elements_are_clean_and_can_be_read_again() -> None:
    data = from_generator(rows, tasks=TASKS)
    for _ in range(2):
        found = [keras.tree.map_structure(np.asarray, batch) for batch in data]
        assert [len(x) for x, _, _ in found] == [8, 8, 4]
        np.testing.assert_array_equal(np.concatenate([x for x, _, _ in found]), X)
        masks = np.concatenate([m["size"] for _, _, m in found])
        np.testing.assert_array_equal(masks, np.isfinite(Y["size"]))
        kinds = np.concatenate([y["kind"] for _, y, _ in found])
        np.testing.assert_array_equal(kinds, np.maximum(Y["kind"], 0))
        assert kinds.dtype == np.int32
    assert fingerprint(data) == fingerprint(from_generator(rows, tasks=TASKS))


def test_single_examples_are_put_together_and_names_are_labels() -> None:
    kind = kmtl.Classification("kind", labels=("a", "b"))

    def examples() -> Iterator[tuple]:
        for n in range(5):
            weights = {"kind": 0.5}
            yield {"x": X[n]}, {"kind": ["a", "b", None][n % 3]}, weights

    data = from_generator(examples, tasks=[kind], batch_size=4, batches=2)
    assert len(data) == 2
    x, y, masks = keras.tree.map_structure(np.asarray, next(iter(data)))
    np.testing.assert_array_equal(x["x"], X[:4])
    assert y["kind"].tolist() == [0, 1, 0, 0]
    assert masks["kind"].tolist() == [0.5, 0.5, 0, 0.5]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1, 2], [0.5, 0.9], r"Element 2 must have inputs 'x' .*float64.*has int64"),
        (np.uint8([1, 2]), [3, 300], r"one dtype.*int64, where the first .* uint8"),
        ([1, 2], ["3", "4"], r"Element 2 must have inputs 'x' .*has int64"),
    ],
)
def test_a_later_dtype_does_not_change_values(
    first: Any, second: Any, message: str
) -> None:
    def examples(*values: Any) -> Iterator[tuple]:
        for x in values:
            yield {"x": np.asarray(x)}, {"size": 0.0}

    def read(*values: Any) -> list:
        data = from_generator(lambda: examples(*values), tasks=TASKS[:1], batch_size=1)
        return [np.asarray(x["x"])[0].tolist() for x, _, _ in data]

    with pytest.raises(Exception, match=message):  # TensorFlow's own, around it
        read(first, second)
    assert read(first, [3.0, 4.0]) == [[1, 2], [3, 4]]


# Of a pass whose length Keras did not know.
UNKNOWN = pytest.mark.filterwarnings("ignore:Your input ran out of data")


@UNKNOWN
@pytest.mark.parametrize(
    "make",
    [
        lambda: from_generator(rows, tasks=TASKS, batches=3),
        Batches,
        rows,
    ],
    ids=["from_generator", "PyDataset", "generator"],
)
def test_fit_and_evaluate_take_them(
    make: Callable[[], Any], model: Any, losses: dict
) -> None:
    logs = model.fit(make(), validation_data=make(), epochs=1, verbose=0).history
    found = model.evaluate(make(), return_dict=True, verbose=0)
    for name in ("size_loss", "kind_loss", "kind_accuracy", "size_mae"):
        assert found[name] == pytest.approx(losses[name], rel=1e-5)
        assert logs[f"val_{name}"][0] == pytest.approx(losses[name], rel=1e-5)


@UNKNOWN
def test_kmtl_evaluate_reads_them_twice(model: Any, losses: dict) -> None:
    for data in (from_generator(rows, tasks=TASKS), Batches()):
        result = kmtl.evaluate(model, data)
        assert result.examples == ROWS
        assert result["size"].labels == int(np.isfinite(Y["size"]).sum())
        assert result["size"].loss == pytest.approx(losses["size_loss"], rel=1e-5)


def test_a_loader_of_an_unknown_kind_is_refused_with_what_to_write(model: Any) -> None:
    with pytest.raises(
        TypeError, match=r"kmtl.data.from_generator\(.*Received: Loader"
    ):
        model.fit(Loader(), epochs=1, verbose=0)
    data = from_generator(Loader().__iter__, tasks=TASKS)
    assert len(list(data)) == 3


@UNKNOWN
@pytest.mark.skipif(
    importlib.util.find_spec("grain") is None, reason="Grain is not installed"
)
def test_grain(model: Any, losses: dict) -> None:
    import grain

    examples = [
        (X[n], {name: labels[n] for name, labels in Y.items()}) for n in range(ROWS)
    ]
    data = grain.MapDataset.source(examples).batch(BATCH)
    for loader in (data, data.to_iter_dataset()):
        logs = model.fit(loader, validation_data=loader, epochs=2, verbose=0).history
        for name in ("size_loss", "kind_loss", "kind_accuracy"):
            assert logs[f"val_{name}"][-1] == pytest.approx(losses[name], rel=1e-5)


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (rows(), {}, TypeError, "`make` must be a function.*Received: generator"),
        (lambda: iter([]), {}, ValueError, "at least one element"),
        (lambda: iter([X]), {}, ValueError, "must give .*Received: ndarray"),
        (
            lambda: iter([(X, {"size": Y["size"]})]),
            {},
            ValueError,
            "Labels lack task kind",
        ),
        (
            lambda: iter([(X, {"size": Y["size"], "kind": np.full(ROWS, 3)})]),
            {},
            ValueError,
            r"Labels of task 'kind' must be integers in \[0, 2\]",
        ),
        (rows, {"batch_size": 0}, ValueError, "`batch_size` must be an integer >= 1"),
    ],
)
def test_what_is_refused(
    make: Any, options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        from_generator(make, tasks=TASKS, **options)


def test_a_later_element_must_be_like_the_first() -> None:
    def changing() -> Iterator[tuple]:
        yield {"a": X[:4]}, {name: labels[:4] for name, labels in Y.items()}
        yield {"b": X[:4]}, {name: labels[:4] for name, labels in Y.items()}

    data = from_generator(changing, tasks=TASKS)
    with pytest.raises(Exception, match="Element 2 must have the inputs of the first"):
        list(data)
