"""Image files and maps of labels, read in parallel; what cannot be read is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl.typing import PathLike

if TYPE_CHECKING:
    from kmtl.tasks.base import Task

#: Endings of names of image files.
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_COLOURED = ("RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One file that the table names.

    Args:
        row: Row of the table.
        column: Its column.
        path: The file; None where the cell is missing.
    """

    row: int
    column: str
    path: Path | None


def cells_of(frame: Any, column: str, folder: Path) -> list[Cell]:
    """The files that a column names, relative to a folder (or absolute).

    A `pathlib.Path` may also stand as it is, as `glob` gives it and `predict` takes it.
    """
    gone = frame[column].isna().tolist()
    return [
        Cell(row, column, None if gone[row] else _file_of(name, folder))
        for row, name in enumerate(frame[column].tolist())
    ]


def _file_of(name: Any, folder: Path) -> Path:
    inside = folder / str(name)
    if isinstance(name, Path) and not inside.is_file() and name.is_file():
        return name
    return inside


def read_all(
    cells: Sequence[Cell], read: Callable[[Path], np.ndarray]
) -> tuple[list[np.ndarray | None], list[str]]:
    """What is in the files, read in parallel; and what is wrong with the others.

    Args:
        cells: The files.
        read: Reads one; what it raises counts as unreadable.

    Returns:
        An array per cell, None where there is none; and a line for each wrong file.
    """
    from kmtl.inputs import reading  # loads Keras

    return reading.read_files(
        [cell.path for cell in cells],
        read,
        [f"row {cell.row}, column '{cell.column}'" for cell in cells],
    )


def refuse(wrong: Sequence[str]) -> None:
    """Raise for files that cannot be used, all of them at once."""
    from kmtl.inputs import reading

    reading.refuse(
        wrong,
        "Every file that the table names must be there and be readable: leave the rows "
        "of others out",
    )


def map_reader(
    task: Task, size: tuple[int, int] | None
) -> Callable[[Path], np.ndarray]:
    """Reads a map of labels: `.npy`, or an image file whose pixels are the labels.

    Args:
        task: Its task.
        size: `(height, width)`, to which maps are brought by their nearest pixels.
    """

    def read(path: Path) -> np.ndarray:
        if path.suffix.lower() == ".npy":
            found = np.load(path, allow_pickle=False)
        else:
            found = _pixels(path)
        if found.ndim == 3 and found.shape[-1] == 1:
            found = found[..., 0]
        if found.ndim not in (2, 3) or found.dtype.kind not in "biuf":
            raise ValueError(
                "a map of labels has shape (height, width) or (height, width, "
                f"channels) and holds numbers. Received: {found.dtype} {found.shape}"
            )
        if task.class_count is not None and found.dtype.kind == "f":
            odd = found[np.isfinite(found) & (found != np.round(found))]
            if odd.size:
                raise ValueError(
                    f"a map of task '{task.name}' holds numbers of classes, which are "
                    f"whole. Received: {odd[0]!r}"
                )
        return _nearest(found, size)

    return read


def _pixels(path: Path) -> np.ndarray:
    """Numbers of classes, also out of pictures with a palette; or depths."""
    from PIL import Image as Pillow

    from kmtl.inputs.photo_files import upright

    with Pillow.open(path) as picture:
        if picture.mode in _COLOURED:
            raise ValueError(
                "a map of labels has one number per pixel (grey, or a palette): make "
                f"numbers of its colours. Received: mode {picture.mode}"
            )
        return np.asarray(upright(picture))


def _nearest(found: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Resized to the nearest pixel's label, where the size differs."""
    if size is None or found.shape[:2] == tuple(size):
        return found
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(size, found.shape[:2], strict=True)
    )
    return found[rows][:, columns]


def stacked_maps(task: Task, maps: Sequence[np.ndarray | None]) -> np.ndarray:
    """Maps of all rows as labels; where there is none, all pixels are missing.

    Raises:
        ValueError: for maps of several sizes.
    """
    shapes = {found.shape for found in maps if found is not None}
    if len(shapes) != 1:
        raise ValueError(
            f"Maps of task '{task.name}' must be of one size: give `size`, to which "
            f"they are brought. Received: {sorted(shapes)[:4] or 'no map at all'}"
        )
    (shape,) = shapes
    classes = task.class_count is not None
    gone = np.nan if task.missing is None else task.missing
    lacking = any(found is None or np.isnan(found).any() for found in maps)
    dtype = "int32" if classes and not (lacking and np.isnan(gone)) else "float32"
    whole = np.empty((len(maps), *shape), dtype)
    for row, found in enumerate(maps):
        # Not `np.where(lacks, gone, found)`: bytes of no sign take no -1.
        lacks = np.True_ if found is None else np.isnan(found)
        whole[row] = 0 if found is None else np.where(lacks, 0, found)
        if lacks.any():
            whole[row][lacks] = gone
    return whole


def common_image(
    cells: Sequence[Cell],
) -> tuple[tuple[int, int] | None, int, list[str]]:
    """`(height, width)` that all images have, else None; channels; and what is wrong.

    Only the files' headers are read. Channels are 1 (all are grey) or 3.
    """
    from PIL import Image as Pillow

    from kmtl.inputs.photo_files import upright_size

    def header(path: Path) -> np.ndarray:
        with Pillow.open(path) as picture:
            grey = picture.mode in ("1", "L", "I", "F") or picture.mode.startswith("I;")
            return np.array([*upright_size(picture), 1 if grey else 3])

    found, wrong = read_all(cells, header)
    known = {tuple(h.tolist()) for h in found if h is not None}
    sizes = {shape[:2] for shape in known}
    channels = max((shape[2] for shape in known), default=3)
    return (next(iter(sizes)) if len(sizes) == 1 else None), channels, wrong


def own_sizes(cells: Sequence[Cell]) -> list[tuple[int, int] | None]:
    """`(height, width)` of the upright images or maps; None where there is none."""
    from PIL import Image as Pillow

    from kmtl.inputs.photo_files import upright_size

    def header(path: Path) -> np.ndarray:
        if path.suffix.lower() == ".npy":
            return np.array(np.load(path, mmap_mode="r", allow_pickle=False).shape[:2])
        with Pillow.open(path) as picture:
            return np.array(upright_size(picture))

    found, _ = read_all(cells, header)
    return [
        None if size is None or len(size) != 2 else (int(size[0]), int(size[1]))
        for size in found
    ]


def squashed(
    maps: Sequence[Cell], photos: Sequence[Sequence[Cell]], size: tuple[int, int]
) -> list[str]:
    """A line for each map that does not lie on any photo of its row.

    Args:
        maps: The maps.
        photos: The photos, column by column.
        size: `(height, width)`, to which maps are brought; those that have it are
            taken as they are.
    """
    sizes = [own_sizes(cells) for cells in photos]
    wrong = []
    for row, (cell, own) in enumerate(zip(maps, own_sizes(maps), strict=True)):
        beside = [
            (column[row].path, found[row])
            for column, found in zip(photos, sizes, strict=True)
        ]
        known = [(path, found) for path, found in beside if found is not None]
        if own is None or own == tuple(size) or len(known) < max(1, len(beside)):
            continue
        if not any(_proportional(own, found) for _, found in known):
            path, found = known[0]
            wrong.append(
                f"{cell.path} (row {cell.row}, column '{cell.column}'): has other "
                f"proportions than its photo, {own[0]} × {own[1]} pixels, and {path} "
                f"{found[0]} × {found[1]}; bring it to the photo's size, or to "
                f"{size[0]} × {size[1]} yourself"
            )
    return wrong


def _proportional(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one is the other, larger or smaller, but for a pixel of rounding."""
    large, small = sorted((one, other), reverse=True)
    low = max((part - 1) / whole for part, whole in zip(small, large, strict=True))
    high = min((part + 1) / whole for part, whole in zip(small, large, strict=True))
    return low <= high


def names_images(values: Any) -> bool:
    """Whether a column names image files, as text or paths, in all cells there are."""
    present = values.dropna()
    return bool(len(present)) and all(
        isinstance(name, (str, PurePath)) and str(name).lower().endswith(IMAGES)
        for name in present
    )


def image_files(folder: PathLike) -> list[str]:
    """Names of the image files in the folders of a folder, relative to it, sorted.

    Hidden files and folders, whose names begin with a dot, are no data.
    """
    root = Path(folder)
    found = [
        path.relative_to(root)
        for path in root.glob("*/**/*")
        if path.suffix.lower() in IMAGES and path.is_file()
    ]
    return sorted(
        path.as_posix()
        for path in found
        if not any(part.startswith(".") for part in path.parts)
    )
