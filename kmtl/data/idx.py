"""MNIST and sets in its file format, as NumPy arrays."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path

import numpy as np

from kmtl.data import folders
from kmtl.typing import PathLike

GZIP_MAGIC = b"\x1f\x8b"
DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
FILES = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)

Arrays = tuple[np.ndarray, np.ndarray]


def load_idx(path: str | os.PathLike) -> np.ndarray:
    """The array in an IDX file, plain or gzipped.

    Args:
        path: The file.

    Returns:
        An array of the shape and dtype that the file says, in native byte order.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an IDX file, or not a whole one.

    Reference: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", file format.
    """
    content = Path(path).read_bytes()
    if content.startswith(GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError) as error:
            raise ValueError(
                f"The file must be a whole gzip file. Received: path={str(path)!r}, "
                f"which ends early or is damaged ({error})"
            ) from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES:
        raise ValueError(
            "An IDX file must start with 0, 0, a type code and the number of axes. "
            f"Received: path={str(path)!r}, which starts with {content[:4]!r}"
        )
    axes, dtype = content[3], np.dtype(DTYPES[content[2]])
    start = 4 + 4 * axes
    sizes = np.frombuffer(content[4 : min(start, len(content) // 4 * 4)], ">u4")
    shape = tuple(int(size) for size in sizes)
    expected = start + math.prod(shape) * dtype.itemsize
    if len(shape) != axes or len(content) != expected:
        raise ValueError(
            f"An IDX file with {axes} axes, of shape {shape}, must hold {expected} "
            f"bytes. Received: path={str(path)!r}, which holds {len(content)}"
        )
    array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def mnist(
    data_dir: PathLike | None = None, *, download: bool = True
) -> tuple[Arrays, Arrays]:
    """MNIST: 60,000 + 10,000 handwritten digits.

    Read from the four official files (`train-images-idx3-ubyte.gz` and so on) where
    they are, else through tensorflow-datasets.

    Args:
        data_dir: Folder with the four files, or one with a folder `mnist` that has
            them. Defaults to `$KMTL_DATA_DIR/mnist`.
        download: Whether tensorflow-datasets may download the set if it has not
            prepared it before. Defaults to True.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: images uint8 `(N, 28, 28)`, labels
        uint8 `(N,)`.

    Raises:
        FileNotFoundError: with all places that were looked at.
    """
    return _images("mnist", data_dir, download)


def fashion_mnist(
    data_dir: PathLike | None = None, *, download: bool = True
) -> tuple[Arrays, Arrays]:
    """Fashion-MNIST: 60,000 + 10,000 pieces of clothing in ten classes.

    As `kmtl.data.mnist`, from a folder `fashion_mnist`.

    Args:
        data_dir: Folder with the four files, or one with a folder `fashion_mnist`.
        download: Whether tensorflow-datasets may download the set.

    Returns:
        `((x_train, y_train), (x_test, y_test))`, uint8, shapes as of MNIST.

    Raises:
        FileNotFoundError: with all places that were looked at.
    """
    return _images("fashion_mnist", data_dir, download)


def _images(
    name: str, data_dir: PathLike | None, download: bool
) -> tuple[Arrays, Arrays]:
    looked = []
    for folder in folders.candidates(name, data_dir):
        files = [[_find(folder, file) for file in pair] for pair in FILES]
        if all(path for pair in files for path in pair):
            train, test = (
                (load_idx(images), load_idx(labels))  # type: ignore[arg-type]
                for images, labels in files
            )
            return train, test
        lacking = [
            name
            for pair, names in zip(files, FILES, strict=True)
            for path, name in zip(pair, names, strict=True)
            if path is None
        ]
        looked.append(f"{folder} (lacks {', '.join(lacking)}, plain or .gz)")
    return _from_tfds(name, data_dir, download, looked)


def _find(folder: Path, file: str) -> Path | None:
    for path in (folder / f"{file}.gz", folder / file):
        if path.is_file():
            return path
    return None


def _from_tfds(
    name: str, data_dir: PathLike | None, download: bool, looked: list[str]
) -> tuple[Arrays, Arrays]:
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=folders.prepared_folder(name, data_dir))
    looked.append(f"tensorflow-datasets in {builder.data_dir}")
    try:
        if download:
            builder.download_and_prepare()
        sets = builder.as_dataset(split=["train", "test"], batch_size=-1)
    except Exception as error:
        raise FileNotFoundError(
            f"{name} was not found. Looked at: {'; '.join(looked)}. Put the four "
            f"files in a folder and pass it as `data_dir`, or set {folders.DATA_DIR} "
            f"to the folder that holds `{name}`."
            + ("" if download else " (download=False)")
        ) from error
    train, test = (
        (part["image"].numpy()[..., 0], part["label"].numpy().astype("uint8"))
        for part in sets
    )
    return train, test
