"""IDX files, by hand and the real ones; where MNIST is looked for."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from kmtl.data import fashion_mnist, load_idx, mnist, multi_mnist

SMALL = b"\0\0\x08\x02" + (2).to_bytes(4, "big") + (3).to_bytes(4, "big")
FILES = (
    "train-images-idx3",
    "train-labels-idx1",
    "t10k-images-idx3",
    "t10k-labels-idx1",
)


def idx(array: np.ndarray) -> bytes:
    """A uint8 array as an IDX file."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with four small files in MNIST's names; two of them not compressed."""
    for seed, name in enumerate(FILES):
        shape = (3 + seed // 2,) + ((28, 28) if "images" in name else ())
        values = np.random.default_rng(seed).integers(0, 10, shape).astype("uint8")
        if seed % 2:
            (tmp_path / f"{name}-ubyte").write_bytes(idx(values))
        else:
            (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(idx(values)))
    return tmp_path


@pytest.mark.parametrize("compress", [False, True])
def test_bytes_by_hand(tmp_path: Path, compress: bool) -> None:
    content = SMALL + bytes([1, 2, 3, 4, 5, 255])
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if compress else content)
    array = load_idx(path)
    assert array.dtype == np.uint8
    assert array.tolist() == [[1, 2, 3], [4, 5, 255]]
    array[0, 0] = 7  # it is the caller's own


def test_wide_types_are_big_endian_in_the_file_and_native_here(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(
        b"\0\0\x0c\x01" + (2).to_bytes(4, "big") + b"\0\0\1\0\xff\xff\xff\xff"
    )
    array = load_idx(path)
    assert array.dtype == np.dtype("int32")
    assert array.tolist() == [256, -1]
    path.write_bytes(b"\0\0\x0d\x01" + (1).to_bytes(4, "big") + b"\x3f\x80\0\0")
    assert load_idx(path).tolist() == [1.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must start with"),
        (b"PK\3\4", "must start with"),
        (b"\0\0\7\1\0\0\0\0", "must start with"),
        (SMALL + b"\1\2\3", r"\(2, 3\), must hold 18 bytes.*which holds 15"),
        (SMALL + b"\1" * 7, "which holds 19"),
        (SMALL[:9], "holds 9"),
        # Without the time of day: it would be a part of the test's name.
        (gzip.compress(SMALL + b"\1" * 6, mtime=0)[:-9], "ends early or is damaged"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_idx(path)


def test_files_in_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (x_train, y_train), (x_test, y_test) = mnist(folder)
    assert (x_train.shape, y_train.shape) == ((3, 28, 28), (3,))
    assert (x_test.shape, y_test.shape) == ((4, 28, 28), (4,))
    monkeypatch.setenv("KMTL_DATA_DIR", str(folder.parent))
    folder.rename(folder.parent / "fashion_mnist")
    np.testing.assert_array_equal(fashion_mnist()[0][0], x_train)
    np.testing.assert_array_equal(fashion_mnist(folder.parent)[1][1], y_test)


def test_two_digits_in_one_image(folder: Path) -> None:
    (x, y), (x_test, y_test) = mnist(folder)
    data = multi_mnist(folder, validation=1)
    assert [task.name for task in data.tasks] == ["left", "right"]
    for part, images, labels, seed in (
        (data.train, x[:2], y[:2], 0),
        (data.validation, x[2:], y[2:], 1),
        (data.test, x_test, y_test, 1),
    ):
        right = np.random.RandomState(seed).randint(0, len(images), len(images))
        assert part.y["left"].tolist() == labels.tolist()
        assert part.y["right"].tolist() == labels[right].tolist()
        for image, left, other in zip(part.x, images, images[right], strict=True):
            canvas = np.zeros((36, 36))
            canvas[:28, :28] = left
            canvas[6:34, 6:34] = np.maximum(canvas[6:34, 6:34], other)
            # The middle of pixel i of 28 is in pixel floor((i + .5) 36 / 28) of 36.
            at = [int((i + 0.5) * 36 / 28) for i in range(28)]
            np.testing.assert_allclose(image[..., 0], canvas[np.ix_(at, at)] / 255)
    with pytest.raises(ValueError, match="validation"):
        multi_mnist(folder, validation=3)


def test_error_names_all_places_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        mnist(folder, download=False)
    message = str(caught.value)
    assert f"{folder} (lacks t10k-labels-idx1-ubyte, plain or .gz)" in message
    assert str(folder / "mnist") in message
    assert f"tensorflow-datasets in {folder / 'mnist'}" in message
    monkeypatch.setenv("KMTL_DATA_DIR", str(folder))
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "prepared"))
    with pytest.raises(FileNotFoundError, match="KMTL_DATA_DIR") as caught:
        mnist(download=False)
    assert str(folder / "mnist") in str(caught.value)


@pytest.mark.parametrize("load", [mnist, fashion_mnist])
def test_the_real_files(load: type, data_dir: Path) -> None:
    if not (data_dir / load.__name__).is_dir():
        pytest.skip(f"no {load.__name__} in the folder of data sets")
    (x_train, y_train), (x_test, y_test) = load(data_dir)
    assert x_train.shape == (60_000, 28, 28)
    assert x_test.shape == (10_000, 28, 28)
    assert x_train.dtype == y_train.dtype == np.uint8
    assert set(y_train.tolist()) == set(y_test.tolist()) == set(range(10))


@pytest.mark.slow
def test_through_tfds(tfds_data_dir: Path, data_dir: Path) -> None:
    """The prepared set holds the images of the official files, in another order."""

    def multiset(x: np.ndarray, y: np.ndarray) -> list[str]:
        return sorted(
            hashlib.md5(row.tobytes() + bytes([label])).hexdigest()
            for row, label in zip(x, y, strict=True)
        )

    if not (tfds_data_dir / "mnist").is_dir() or not (data_dir / "mnist").is_dir():
        pytest.skip("MNIST is not there both as files and prepared by tfds")
    prepared, files = mnist(tfds_data_dir, download=False)[1], mnist(data_dir)[1]
    assert multiset(*prepared) == multiset(*files)
