"""What users bring as arrays: served as meant, or refused with what to write."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import kmtl
from kmtl._arrays import as_array, lost_digits
from kmtl.training.batches import ShuffledBatches
from kmtl.training.user_data import prepare

pytestmark = pytest.mark.backend

ROWS = 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 3)).astype("float32")
Y = {"kind": np.array([0, 1, 2, 0, 1, 2]), "size": RNG.normal(size=ROWS)}


@pytest.fixture(scope="module")
def model():
    tasks = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
    model = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(2,), seed=0)
    model.compile(keras.optimizers.SGD(0.0))
    return model


def test_labels_in_every_form_mean_the_same(model) -> None:
    holes = np.array([0, 1, -1, 0, 1, 2])
    sizes = np.where(np.arange(ROWS) == 1, np.nan, Y["size"])
    expected = model.evaluate(
        X, {"kind": holes, "size": sizes}, return_dict=True, verbose=0
    )
    absent = [0, 1, None, 0, 1, 2]
    kinds = {
        "list": absent,
        "masked": np.ma.masked_array(Y["kind"], holes == -1),
        "Int64": pd.Series(absent, dtype="Int64"),
        "objects": np.array(absent, dtype=object),
        "categories": pd.Series(pd.array(absent, "Int64"), dtype="category"),
        "big": holes.astype(">i8"),
    }
    columns = {
        "masked": np.ma.masked_array(Y["size"], np.isnan(sizes)),
        "Float64": pd.Series(Y["size"]).astype("Float64").mask(np.isnan(sizes)),
        "big": sizes.astype(">f8"),
    }
    pairs = [(kind, sizes) for kind in kinds.values()]
    pairs += [(holes, size) for size in columns.values()]
    given = [{"kind": kind, "size": size} for kind, size in pairs]
    given.append(pd.DataFrame({"kind": holes, "size": sizes}))
    for y in given:
        x, clean, _ = prepare(model, X, y, None)
        found = model.evaluate(x, clean, return_dict=True, verbose=0)
        assert found == pytest.approx(expected, rel=1e-6)
    big = model.evaluate(X.astype(">f4"), given[0], return_dict=True, verbose=0)
    assert big == pytest.approx(expected, rel=1e-6)
    frame = kmtl.evaluate(model, (pd.DataFrame(X), given[-1]), verbose=0)
    assert [frame[name].labels for name in ("kind", "size")] == [5, 5]


def wrong(value: float, dtype: str = "float64") -> np.ndarray:
    x = X.astype(dtype)
    x[3, 1] = value
    return x


REFUSED = {
    "nan": (wrong(np.nan), Y, "`x` must be finite .* nan in row 3, column 1"),
    "infinite": (wrong(np.inf), Y, "inf in row 3, column 1"),
    "overflow": (wrong(1e300), Y, r"1e\+300 in row 3, column 1"),
    "masked": (np.ma.masked_array(X, X > 9e9), Y, None),
    "hole": (np.ma.masked_array(X, np.arange(18).reshape(6, 3) == 4), Y, "row 1, col"),
    "none": (None, Y, "`x` must be given"),
    "number": (3.0, Y, "`x` must have shape"),
    "ragged": ([[1.0, 2.0], [3.0]], Y, "pad them to one length"),
    "width": (X[:, :2], Y, r"shape \(N, 3\).* 'inputs' .*shape=\(6, 2\)"),
    "words": (["a b", "c"], Y, "encode strings first"),
    "columns": (pd.DataFrame({"a": [1], "b": ["x"], "c": [2]}), Y, "column b"),
    "frame": (X, pd.DataFrame({"k": [1] * 6}), "Received: DataFrame of k"),
    "classes": (X, Y | {"kind": ["a"] * 6}, "map class names"),
    "category": (
        X,
        Y | {"kind": pd.Series(list("aab"), dtype="category")},
        "cat.codes",
    ),
    "category_y": (
        X,
        Y | {"size": pd.Series(list("aabbab"), dtype="category")},
        r"'size' must be numbers.*\['a', 'b'\]; make numbers.* kmtl.Classification",
    ),
    "words_y": (X, Y | {"size": ["1", "x"] * 3}, "such as '1', 'x'; make numbers of"),
    "overflow_y": (X, Y | {"size": np.full(6, 1e300)}, r"within float32.*1e\+300"),
    "digits": (X, Y | {"size": 1e9 + Y["size"]}, "subtract their mean first"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_what_to_write(model, case: str) -> None:
    x, y, message = REFUSED[case]
    if message is None:  # a mask that hides nothing
        assert np.isfinite(model.evaluate(x, y, verbose=0)[0])
        return
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(x, y, verbose=0)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"epochs": 0},
        {"epochs": -1},
        {"steps_per_epoch": 0},
        {"validation_batch_size": 0},
    ],
    ids=str,
)
def test_counts_are_at_least_one(model, options: dict) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be an integer"):
        model.fit(X, Y, verbose=0, **options)


class Endless(keras.utils.PyDataset):
    def __getitem__(self, index):
        return X, Y

    @property
    def num_batches(self):
        return None


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[:, :2], r"must have shape \(N, 3\)"),
        (X[:0], "at least one row"),
        (None, "must be given"),
        (3.0, "must have shape"),
        (X + 1j, "must hold numbers"),
        (np.where(np.eye(ROWS, 3) > 0, np.nan, X), "nan in row 0, column 0"),
    ],
)
def test_predict_looks_at_its_rows_and_the_model_lives_on(model, x, message) -> None:
    logs = model.evaluate(X, Y, return_dict=True, verbose=0)
    checked = [model.predict, model.predict_on_batch]
    if message == "at least one row":
        assert model.predict_on_batch(x)["size"].shape == (0, 1)
        checked.pop()
    for predict in checked:
        with pytest.raises((ValueError, TypeError), match=message):
            predict(x)
    assert model.evaluate(X, Y, return_dict=True, verbose=0) == logs


def test_predict_takes_rows_in_every_form(model) -> None:
    expected = model.predict(X, verbose=0)["size"]
    tensor = keras.ops.convert_to_tensor(X)
    given = [X.tolist(), X.astype(">f4"), np.ma.masked_array(X), pd.DataFrame(X)]
    for rows in [*given, tensor, keras.Variable(X)]:
        np.testing.assert_allclose(model.predict(rows, verbose=0)["size"], expected)


class Fails(keras.callbacks.Callback):
    def on_predict_batch_end(self, batch, logs=None) -> None:
        raise RuntimeError("no")

    on_test_batch_end = on_train_batch_begin = on_predict_batch_end


def test_a_model_lives_on_after_any_failure(model) -> None:
    """On JAX Keras takes the values out of the variables for its steps."""
    logs = model.evaluate(X, Y, return_dict=True, verbose=0)
    for failing in (
        lambda: model.predict(X, callbacks=[Fails()], verbose=0),
        lambda: model.evaluate(X, Y, callbacks=[Fails()], verbose=0),
        lambda: model.fit(X, Y, callbacks=[Fails()], verbose=0),
    ):
        with pytest.raises(RuntimeError, match="no"):
            failing()
        assert model.evaluate(X, Y, return_dict=True, verbose=0) == logs


@pytest.mark.parametrize("split", [2.0, -0.5, float("nan")])
def test_a_share_for_validation_leaves_rows_to_train_on(model, split) -> None:
    with pytest.raises(ValueError, match=r"`validation_split` must be .* \[0, 1\)"):
        model.fit(X, Y, validation_split=split, verbose=0)


def test_data_without_end_or_beginning(model) -> None:
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
    for endless in (data.repeat(), Endless()):
        with pytest.raises(ValueError, match="`steps_per_epoch` must be given"):
            model.fit(endless, verbose=0)
        with pytest.raises(ValueError, match="`steps` must be given"):
            model.evaluate(endless, verbose=0)
        with pytest.raises(ValueError, match="`validation_steps` must be given"):
            model.fit(X, Y, validation_data=endless, verbose=0)
        with pytest.raises(ValueError, match="needs a finite data set"):
            kmtl.evaluate(model, endless)
    for empty in (data.take(0), iter([])):
        with pytest.raises(ValueError, match="must have at least one batch"):
            model.fit(empty, verbose=0)


def batches(count: int, later: dict | list | None = None):
    for number in range(count):
        yield X, Y if number < 2 or later is None else later


def test_a_generator_is_looked_at_and_loses_nothing(model) -> None:
    seen = []

    class Steps(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    model.fit(batches(4), steps_per_epoch=4, callbacks=[Steps()], verbose=0)
    assert seen == [0, 1, 2, 3]
    model.fit(iter(list(batches(2))), steps_per_epoch=2, verbose=0)
    lists = iter([(X, list(Y.values()))])
    with pytest.raises(TypeError, match=r"keyed by task name \(kind, size\)"):
        model.fit(lists, steps_per_epoch=1, verbose=0)
    with pytest.raises(ValueError, match="Batch 3 must have the labels of the first"):
        model.fit(batches(4, {"kind": Y["kind"]}), steps_per_epoch=4, verbose=0)


class Later(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X, Y if index < 2 else {**Y, "sise": Y["size"]}


def test_batches_alike(model) -> None:
    with pytest.raises(ValueError, match=r"Batch 3 .* Received: kind, sise, size"):
        model.fit(Later(), shuffle=False, verbose=0)


def test_shuffled_batches_are_checked_whole(model) -> None:
    data = ShuffledBatches(wrong(np.nan), Y, batch_size=1)
    with pytest.raises(ValueError, match="nan in row 3, column 1"):
        model.fit(data, verbose=0)


def test_images_for_the_input_that_takes_them() -> None:
    tasks = [kmtl.Regression("size")]
    options = {"input_shape": (4, 4, 1), "tasks": tasks, "units": (2,)}
    images = RNG.random((ROWS, 4, 4, 1))
    y = {"size": Y["size"]}
    raw = kmtl.build_mlp(**options, input_dtype="uint8")
    raw.compile()
    for x in (images, images * 1000 // 1, -np.ones((ROWS, 4, 4, 1), "int64")):
        with pytest.raises(ValueError, match=r"whole numbers in \[0, 255\]"):
            raw.fit(x, y, verbose=0)
        with pytest.raises(ValueError, match=r"whole numbers in \[0, 255\]"):
            raw.predict(x, verbose=0)
    raw.evaluate(np.round(images * 255), y, verbose=0)
    plain = kmtl.build_mlp(**options)
    plain.compile()
    with pytest.warns(UserWarning, match='input_dtype="uint8"'):
        plain.evaluate((images * 255).astype("uint8"), y, verbose=0)


def test_channels_first_is_refused() -> None:
    task = kmtl.Segmentation("mask", classes=2)
    keras.config.set_image_data_format("channels_first")
    try:
        for build in (kmtl.build_cnn, kmtl.build_mlp):
            with pytest.raises(ValueError, match="channels last"):
                build(input_shape=(1, 8, 8), tasks=[task])
    finally:
        keras.config.set_image_data_format("channels_last")


def test_names_of_numpy_become_strings(tmp_path) -> None:
    task = kmtl.Regression(
        np.str_("size"), loss=np.str_("mae"), metrics=(np.str_("rmse"),)
    )
    assert {type(v) for v in (task.name, task.loss, task.metrics[0].name)} == {str}
    model = kmtl.build_mlp(input_shape=(2,), tasks=[task], units=(2,))
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").tasks == (task,)


def test_integers_beyond_32_bits_keep_their_size() -> None:
    array = kmtl.Regression("people").label_array(np.array([8_000_000_000, 5]))
    assert array.tolist() == pytest.approx([8e9, 5], rel=1e-7)
    assert array.dtype == "float32"


def test_digits_that_float32_loses() -> None:
    spread = RNG.normal(size=1000)
    assert lost_digits(1e9 + spread) is not None
    assert lost_digits(np.stack([spread, 1e9 + spread], 1))[0] == 1
    for kept in (
        spread,
        100 + spread,
        np.exp(5 * spread),
        np.full(9, 0.1),
        1e5 + spread,
    ):
        assert lost_digits(kept) is None
    assert as_array(spread.astype("float32"), "x").dtype == "float32"
