"""Arrays to batches: labels cleaned, masks exact, orders reproducible."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl.data import from_arrays

pytestmark = pytest.mark.backend

KIND = kmtl.Classification("kind", classes=3)
SIZE = kmtl.Regression("size")
X = np.arange(10.0, dtype="float32").reshape(5, 2)
Y = {
    "kind": np.array([0, 1, -1, 2, 1]),
    "size": np.array([1.0, np.nan, 2.0, 3.0, 4.0]),
}


def batches(data: Any) -> list:
    """Everything in a data set, as NumPy arrays."""
    return [keras.tree.map_structure(np.asarray, batch) for batch in data]


def test_elements_hold_clean_labels_and_masks() -> None:
    first, second = batches(from_arrays(X, Y, tasks=[KIND, SIZE], batch_size=3))
    inputs, labels, masks = first
    np.testing.assert_array_equal(inputs, X[:3])
    assert labels["kind"].dtype == np.int32
    assert labels["size"].dtype == masks["size"].dtype == np.float32
    assert labels["kind"].tolist() == [0, 1, 0]
    assert masks["kind"].tolist() == [1, 1, 0]
    assert labels["size"].tolist() == [1, 0, 2]
    assert masks["size"].tolist() == [1, 0, 1]
    assert second[1]["kind"].tolist() == [2, 1]


def test_length_is_known_and_the_last_batch_can_be_left_out() -> None:
    assert len(from_arrays(X, Y, tasks=[KIND, SIZE], batch_size=2)) == 3
    data = from_arrays(X, Y, tasks=[KIND, SIZE], batch_size=2, drop_remainder=True)
    assert [len(inputs) for inputs, _, _ in batches(data)] == [2, 2]


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (kmtl.Classification("t", classes=3), np.array([[2], [-1]])),
        (kmtl.Classification("t", classes=3), np.array([2.0, np.nan])),
        (kmtl.Classification("t", classes=300), np.array([255, 0], "uint8")),
        (kmtl.BinaryClassification("t"), np.array([True, False])),
        (kmtl.MultiLabel("t", classes=2), np.array([[1, -1], [np.nan, 0]])),
        (
            kmtl.Segmentation("t", classes=2, missing=255),
            np.array([[[0, 1], [255, 1]], [[1, 1], [0, 255]]], "uint8"),
        ),
        (kmtl.Regression("t", missing=-999), np.array([-999, 5])),
        (kmtl.Regression("t", missing=0.1), np.array([0.1, 0.2])),
        (kmtl.Regression("t", missing=None, units=2), np.array([[-1, np.nan]] * 2)),
    ],
)
def test_labels_and_masks_are_what_the_task_itself_makes_of_them(
    task: kmtl.Task, labels: np.ndarray
) -> None:
    """`Task.clean_labels` on raw labels, and on clean ones times the mask: the same."""
    x = np.zeros((2, 2, 2, 1), "float32")
    (_, clean, mask), *_ = batches(from_arrays(x, labels, tasks=[task], batch_size=2))
    assert mask["t"].shape == clean["t"].shape == labels.shape
    wanted, present = map(keras.ops.convert_to_numpy, task.clean_labels(labels, x))
    again, _ = map(keras.ops.convert_to_numpy, task.clean_labels(clean["t"], x))
    np.testing.assert_array_equal(again, wanted)
    np.testing.assert_array_equal(mask["t"].reshape(present.shape), present)
    assert np.isfinite(clean["t"]).all()


def test_masks_multiply() -> None:
    columns = kmtl.MultiLabel("columns", classes=2)
    y = {**Y, "columns": np.array([[1, -1]] * 5)}
    masks = {"kind": [1, 0, 1, 0.5, 1], "columns": np.array([0, 1, 1, 1, 1], bool)}
    data = from_arrays(X, y, masks, tasks=[KIND, SIZE, columns], batch_size=5)
    (_, labels, made), *_ = batches(data)
    assert made["kind"].tolist() == [1, 0, 0, 0.5, 1]
    assert made["columns"].tolist() == [[0, 0]] + [[1, 0]] * 4
    assert made["size"].tolist() == [1, 0, 1, 1, 1]
    assert np.isfinite(labels["size"]).all()


def test_fit_equals_fit_on_the_arrays() -> None:
    """The masks say what NaN and -1 say: same losses, same weights after training."""
    results = []
    for as_dataset in (True, False):
        model = kmtl.build_mlp(input_shape=(2,), tasks=[KIND, SIZE], units=(4,), seed=0)
        model.compile(keras.optimizers.SGD(0.1))
        if as_dataset:
            data = from_arrays(X, Y, tasks=[KIND, SIZE], batch_size=2)
            history = model.fit(data, epochs=2, verbose=0)
        else:
            history = model.fit(X, Y, batch_size=2, epochs=2, shuffle=False, verbose=0)
        results.append((history.history, model.get_weights()))
    (with_data, weights), (with_arrays, other_weights) = results
    assert with_data.keys() == with_arrays.keys()
    for name, values in with_data.items():
        np.testing.assert_allclose(values, with_arrays[name], rtol=1e-6, err_msg=name)
    for weight, other in zip(weights, other_weights, strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-6)


def test_uint8_images_are_kept_and_wide_floats_are_narrowed() -> None:
    y = {"kind": [0, 1]}
    image = np.array([[0, 255]] * 2, "uint8")
    inputs = batches(from_arrays(image, y, tasks=[KIND]))[0][0]
    assert inputs.dtype == np.uint8
    for wide in (image.astype("float64"), image.astype(bool)):
        assert batches(from_arrays(wide, y, tasks=[KIND]))[0][0].dtype == np.float32


def test_inputs_may_be_a_dict() -> None:
    x = {"image": X, "age": np.arange(5)}
    data = from_arrays(x, Y, tasks=[KIND, SIZE], batch_size=2, shuffle=True)
    for inputs, _, _ in batches(data):
        np.testing.assert_array_equal(inputs["image"][:, 0], 2 * inputs["age"])


def test_a_task_whose_target_is_the_input_needs_no_labels() -> None:
    tasks = [kmtl.Reconstruction("image"), KIND]
    _, labels, masks = batches(from_arrays(X, {"kind": Y["kind"]}, tasks=tasks))[0]
    assert labels.keys() == masks.keys() == {"kind"}


class TestShuffle:
    def orders(self, epochs: int = 2, **options: Any) -> list[list[float]]:
        x = np.arange(40.0)[:, None]
        data = from_arrays(x, x[:, 0], tasks=[SIZE], batch_size=7, **options)
        return [
            np.concatenate([inputs[:, 0] for inputs, _, _ in batches(data)]).tolist()
            for _ in range(epochs)
        ]

    def test_every_epoch_has_every_row_once_in_a_new_order(self) -> None:
        first, second = self.orders(shuffle=True)
        assert first != second
        assert sorted(first) == sorted(second) == list(range(40))

    def test_same_seed_same_orders(self) -> None:
        assert self.orders(shuffle=True, seed=3) == self.orders(shuffle=True, seed=3)
        assert self.orders(shuffle=True, seed=3) != self.orders(shuffle=True, seed=4)

    def test_without_shuffle_the_order_is_that_of_the_arrays(self) -> None:
        assert self.orders() == [list(range(40))] * 2

    def test_labels_stay_with_their_rows(self) -> None:
        x = np.arange(40.0)[:, None]
        data = from_arrays(x, x[:, 0], tasks=[SIZE], batch_size=7, shuffle=True)
        for inputs, labels, _ in batches(data):
            np.testing.assert_array_equal(inputs[:, 0], labels["size"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": {"kind": [0, 1, 2, 3, 0], "size": Y["size"]}}, r"'kind' .*\[0, 2\].* 3"),
        ({"y": {"kind": Y["kind"]}}, "lack task size"),
        ({"y": {**Y, "sise": Y["size"]}}, "Did you mean 'size'"),
        ({"y": {**Y, "size": np.ones(4)}}, r"'size' .*as many rows .*\(5\).* 4"),
        ({"y": {**Y, "size": np.ones((5, 2))}}, r"'size' .*shape=\(5, 2\)"),
        ({"y": {**Y, "size": [1, 2, 3, 4, np.inf]}}, "'size' must be finite"),
        ({"masks": {"sise": np.ones(5)}}, "Did you mean 'size'"),
        ({"masks": {"size": np.ones(4)}}, r"'size' .*shape \(5,\).*\(4,\)"),
        ({"masks": {"size": [1, 1, 1, 1, -1]}}, "'size' must be finite numbers >= 0"),
        ({"x": {"a": X, "b": X[:3]}}, "same number of rows.*'b': 3"),
        ({"x": X[:0], "y": {}}, "at least one row"),
        ({"x": np.array(1.0)}, "batch axis"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_arguments_are_refused(change: dict, message: str) -> None:
    arguments = {"x": X, "y": Y, "tasks": [KIND, SIZE], **change}
    with pytest.raises(ValueError, match=message):
        from_arrays(arguments.pop("x"), arguments.pop("y"), **arguments)


def test_masks_need_labels() -> None:
    tasks = [kmtl.Reconstruction("image"), KIND]
    with pytest.raises(ValueError, match="'image' needs labels"):
        from_arrays(X, {"kind": Y["kind"]}, {"image": np.ones(5)}, tasks=tasks)


def test_text_goes_to_models_that_take_it() -> None:
    words = np.array(["a", "bc", "d"], dtype=object)
    data = from_arrays(words, {"kind": [0, 1, -1]}, tasks=[KIND], batch_size=3)
    x, _, masks = next(iter(data))
    assert [word.decode() for word in x.numpy()] == ["a", "bc", "d"]
    assert masks["kind"].numpy().tolist() == [1, 1, 0]
    with pytest.raises(TypeError, match="`x` must hold numbers"):
        from_arrays(np.array([None, object()]), {"kind": [0, 1]}, tasks=[KIND])
