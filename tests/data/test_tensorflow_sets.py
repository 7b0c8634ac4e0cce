"""tensorflow-datasets: features to inputs, labels and masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import kmtl
from kmtl.data import from_tfds

pytestmark = pytest.mark.backend

DIGIT = kmtl.Classification("digit", classes=10)
MASK = kmtl.Segmentation("mask", classes=2)
ROWS = 12


class Houses(tfds.core.GeneratorBasedBuilder):
    """Small set with what real sets have: missing labels, nested features."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        features = {
            "image": tfds.features.Image(shape=(4, 4, 1)),
            "kind": tfds.features.Scalar(np.int64),
            "price": tfds.features.Scalar(np.float32),
            "where": {"zone": tfds.features.ClassLabel(num_classes=3)},
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(), "test": self._generate_examples(3)}

    def _generate_examples(self, rows: int = ROWS) -> Iterator[tuple[int, dict]]:
        for i in range(rows):
            yield (
                i,
                {
                    "image": np.full((4, 4, 1), 20 * i, "uint8"),
                    "kind": -1 if i == 3 else i % 2,
                    "price": np.nan if i == 5 else i,
                    "where": {"zone": i % 3},
                },
            )


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which `houses` is prepared."""
    folder = tmp_path_factory.mktemp("tfds")
    Houses(data_dir=folder).download_and_prepare()
    return folder


KIND = kmtl.BinaryClassification("kind")
PRICE = kmtl.Regression("price")
ZONE = kmtl.Classification("zone", classes=3)


def read(houses: Path, **options: Any) -> Any:
    arguments: dict[str, Any] = {
        "inputs": "image",
        "tasks": {KIND: "kind", PRICE: "price", ZONE: "where/zone"},
        "batch_size": 5,
        "data_dir": houses,
        "download": False,
    }
    return from_tfds("houses", **{**arguments, **options})


def batches(data: Any) -> list:
    return [keras.tree.map_structure(np.asarray, batch) for batch in data]


def images(data: Any) -> list[int]:
    """Which rows come, in order."""
    return [int(v) // 20 for x, *_ in batches(data) for v in x[:, 0, 0, 0]]


def test_elements_hold_clean_labels_and_masks(houses: Path) -> None:
    data = read(houses)
    assert len(data) == 3
    for x, y, masks in batches(data):
        row = x[:, 0, 0, 0] // 20
        assert x.dtype == np.uint8
        assert y["kind"].dtype == y["zone"].dtype == np.int32
        assert y["price"].dtype == masks["kind"].dtype == np.float32
        np.testing.assert_array_equal(y["zone"], row % 3)
        np.testing.assert_array_equal(masks["zone"], np.ones(len(row)))
        np.testing.assert_array_equal(masks["kind"], row != 3)
        np.testing.assert_array_equal(y["kind"], np.where(row == 3, 0, row % 2))
        np.testing.assert_array_equal(masks["price"], row != 5)
        np.testing.assert_array_equal(y["price"], np.where(row == 5, 0, row))


def test_functions_of_the_features(houses: Path) -> None:
    dark = kmtl.Segmentation("dark", classes=2)
    data = read(
        houses,
        inputs=lambda f: tf.cast(f["image"], tf.float32) / 10.0,
        tasks={dark: lambda f: f["image"] < 100},
    )
    for x, y, _ in batches(data):
        assert x.dtype == np.float32
        np.testing.assert_array_equal(y["dark"], x < 10)


def test_tasks_in_a_list_have_features_of_their_names(houses: Path) -> None:
    _, y, _ = batches(read(houses, tasks=[PRICE, KIND]))[0]
    assert sorted(y) == ["kind", "price"]


@pytest.mark.parametrize(
    "inputs",
    [["image", "price"], {"image": "image", "price": lambda f: f["price"]}],
)
def test_several_inputs(houses: Path, inputs: Any) -> None:
    x, _, _ = batches(read(houses, inputs=inputs, tasks=[KIND]))[0]
    assert sorted(x) == ["image", "price"]
    assert x["image"].shape == (5, 4, 4, 1)


def test_images_are_scaled_on_request(houses: Path) -> None:
    (x, *_), (kept, *_) = (
        batches(read(houses, scale_images=scale))[0] for scale in (True, False)
    )
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, kept / np.float32(255))


def test_orders(houses: Path) -> None:
    plain = images(read(houses))
    assert sorted(plain) == list(range(ROWS))
    data = read(houses, shuffle=True)
    epochs = [images(data), images(data)]
    again = read(houses, shuffle=True)
    assert [images(again), images(again)] == epochs
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(ROWS))
    assert images(read(houses, shuffle=True, seed=1)) != epochs[0]


def test_a_cache_is_full_before_anyone_reads_it(houses: Path, tmp_path: Path) -> None:
    """So iterators that are dropped half-read cannot cut what another one reads."""
    for cache, made in ((True, 0), (tmp_path / "cache", 0), (False, 2)):
        counter = tf.Variable(0)

        def count(features: Any, counter: Any = counter) -> Any:
            counter.assign_add(1)
            return features["image"]

        data = read(houses, inputs=count, cache=cache)
        before = int(counter)
        if cache:
            next(iter(data))
        for _ in range(2):
            assert sum(len(x) for x, _, _ in batches(data)) == ROWS
        assert int(counter) - before == made * ROWS


def test_fit_and_evaluate(houses: Path) -> None:
    model = kmtl.build_mlp(
        input_shape=(4, 4, 1), tasks=[KIND, PRICE], units=(2,), input_dtype="uint8"
    )
    # The mean of the prices that are there tells whether a row was lost.
    mean = keras.metrics.MeanMetricWrapper(lambda price, _: price, name="mean")
    model.compile("sgd", metrics={"price": [mean]})
    data = read(houses, tasks=[KIND, PRICE], shuffle=True)
    history = model.fit(data, validation_data=data, epochs=2, verbose=0).history
    results = model.evaluate(data, return_dict=True, verbose=0)
    prices = [row for row in range(ROWS) if row != 5]
    expected = pytest.approx(np.mean(prices), rel=1e-6)
    for means in (history["price_mean"], history["val_price_mean"]):
        assert means == [expected] * 2
    assert results["price_mean"] == expected
    for name, value in results.items():
        assert history[f"val_{name}"][-1] == pytest.approx(value, rel=1e-5)
        assert np.isfinite(value)


def test_wrong_class_later_in_the_stream_stops_it(houses: Path) -> None:
    """The first batch is fine, so that only the pipeline itself can see it."""
    few = kmtl.Classification("few", classes=2)
    data = read(
        houses,
        tasks={few: lambda f: tf.where(f["image"][0, 0, 0] == 220, 7, 0)},
        shuffle=False,
        batch_size=1,
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"task .*few.* \[0, 1\]"):
        batches(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"inputs": "imgae"},
            "'imgae' in `inputs`. Did you mean 'image'",
        ),
        ({"inputs": {"picture": "imge"}}, "in `inputs` for 'picture'. Did you mean"),
        ({"inputs": ["image", "prize"]}, "Did you mean 'price'"),
        ({"inputs": []}, "at least one feature"),
        (
            {"tasks": {ZONE: "where/zine"}},
            "for 'zone'. Did you mean 'where/zone'",
        ),
        ({"tasks": [ZONE]}, "'houses' has: image, kind, price, where, where/zone"),
        ({"tasks": {kmtl.Classification("k", classes=2): "where/zone"}}, "'k' .* 2"),
        ({"tasks": {MASK: "kind"}}, r"'mask' must have shape"),
        ({"split": "trian"}, "Unknown split 'trian'.*Did you mean 'train'"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_arguments_are_refused(houses: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(houses, **change)


def test_wrong_types_are_refused(houses: Path) -> None:
    for change in ({"inputs": 3}, {"tasks": {ZONE: 3}}, {"split": ["train"]}):
        with pytest.raises(TypeError, match="must be"):
            read(houses, **change)


def test_unknown_set_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="Did you mean 'mnist'"):
        from_tfds("mnits", inputs="image", tasks=[DIGIT])


def test_set_that_is_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'mnist' is not prepared in .*mnist"):
        from_tfds(
            "mnist",
            inputs="image",
            tasks={DIGIT: "label"},
            data_dir=tmp_path,
            download=False,
        )


def test_sets_of_tfds_itself_with_mock_data(tmp_path: Path) -> None:
    with tfds.testing.mock_data(num_examples=6):
        data = from_tfds(
            "mnist",
            inputs="image",
            tasks={DIGIT: "label", MASK: lambda f: f["image"] > 127},
            data_dir=tmp_path,
            batch_size=4,
        )
        (x, y, masks), *_ = batches(data)
    assert x.shape == y["mask"].shape == masks["mask"].shape == (4, 28, 28, 1)
    np.testing.assert_array_equal(y["mask"], x > 127)
    assert y["digit"].shape == (4,)


def test_the_real_set(tfds_data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (tfds_data_dir / "mnist").is_dir():
        pytest.skip("mnist is not among the prepared sets")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_data_dir))
    data = from_tfds(
        "mnist",
        split="test[:200]",
        inputs="image",
        tasks={DIGIT: "label"},
        data_dir=tfds_data_dir,
        batch_size=100,
        download=False,
    )
    (x, y, _), second = batches(data)
    assert x.dtype == np.uint8
    assert x.max() == 255
    assert len(second[0]) == 100
    assert set(y["digit"].tolist()) == set(range(10))
