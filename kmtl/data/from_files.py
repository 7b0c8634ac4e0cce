"""A folder of images and a table of labels to inputs, tasks and splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmtl import _checks
from kmtl.data import files
from kmtl.data.assembling import assemble, checked_frame
from kmtl.data.class_folders import SPLIT, read_folders
from kmtl.data.column_names import ColumnNames
from kmtl.data.containers import TaskData
from kmtl.data.csv_files import read_csv
from kmtl.typing import Options, PathLike

if TYPE_CHECKING:
    from kmtl.tasks.base import Task

FRACTIONS = (0.7, 0.15, 0.15)


def from_folder(
    folder: PathLike,
    labels: Any = None,
    tasks: Sequence[Task] | Mapping[Task, Any] | None = None,
    *,
    targets: Sequence[str] | None = None,
    inputs: Any = None,
    size: tuple[int, int] | None = None,
    split: Any = None,
    groups: str | None = None,
    time: str | None = None,
    seed: int = 0,
    read_options: Options | None = None,
    verbose: bool = True,
) -> TaskData:
    """Images, their table of labels and maps of labels, as `from_dataframe` of a table.

    All files are read at once, in parallel, resized and kept in memory (a uint8 image
    of 128 × 128 × 3 takes 48 KB). What is missing or cannot be read is named, all of
    it together, before anything else happens.

    The model takes files as well, by their paths, decoded and resized as in training:
    `model.predict(sorted(pathlib.Path("new").glob("*.jpg")))`, or with several inputs
    `model.predict({"photo": paths, "facts": frame})`.

    Args:
        folder: Folder to which the names of files are relative.
        labels: A CSV file (in the folder, or any) or a `pandas.DataFrame` with a row
            per example: names of files (or `pathlib.Path`, which may also be relative
            to where Python runs), labels, and whatever else. None for folders of
            images, one per class: the table then has the columns `image` and `label`.
            Or folders of parts, `train`, and `validation` (`val`, `valid`, `dev`) or
            `test`, with one per class in each: then also the column `split`. Images in
            folders deeper down are of the class that these are in; where that is not
            clear, it is refused.
        tasks: As for `from_dataframe`. The column of a task of maps (`Segmentation`,
            `DenseRegression`) names files: `.npy`, or images with one number per pixel
            (grey, 16 bits, or a palette); where a cell is missing, the map is. Maps
            of another size are brought to `size` by their nearest pixels, if they have
            the proportions of their photo. Photos and maps are turned upright, as
            their EXIF orientation says.
        targets: As for `from_dataframe`. Defaults to `label` without a table.
        inputs: None for an image from each column that names image files and is no
            target, and for no other column, which is written; or a dict of inputs, such
            as `{"photo": kmtl.inputs.Image((64, 64, 3)), "facts":
            kmtl.inputs.Table()}`, images by the name of their column.
        size: `(height, width)` of images where `inputs` is None, and of maps. Defaults
            to the images' own size, if they have one, and to that of the first image.
        split: As for `from_dataframe`. Defaults to the folders of parts, else to (0.7,
            0.15, 0.15). A part without a folder is 15 % of the training images.
        groups, time, seed, verbose: As for `from_dataframe`.
        read_options: Further arguments of `pandas.read_csv`.

    Returns:
        A `kmtl.data.TaskData`, as of `from_dataframe`.

    Raises:
        ValueError: for files that are not there or cannot be read, images of several
            sizes without `size`, maps of other proportions than their photo, folders
            that do not say which of them are the classes, and as `from_dataframe`.

    Example:

    >>> import os
    >>> from PIL import Image
    >>> for kind in ("cat", "dog"):
    ...     os.makedirs(f"pets/{kind}")
    ...     for number in range(10):
    ...         Image.new("RGB", (8, 8)).save(f"pets/{kind}/{number}.png")
    >>> data = kmtl.data.from_folder("pets")
    20 rows: train 14, validation 3, test 3
    column  role    taken for                                   missing
    image   image   image, 8 × 8 × 3
    label   target  binary_classification 'label': cat, dog
    >>> model = kmtl.build(
    ...     inputs=data.inputs, tasks=data.tasks,
    ...     backbone=kmtl.backbones.CNN(filters=(4,)),
    ... )
    >>> from pathlib import Path
    >>> model.predict(sorted(Path("pets/cat").glob("*.png")), verbose=0)["label"].shape
    (10, 1)
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"`folder` must be a folder. Received: folder={str(folder)!r}"
        )
    if size is not None:
        size = _checks.check_size(size)  # type: ignore[assignment]
    frame, said = _table(root, labels, read_options)
    if split is None:
        split = SPLIT if labels is None and SPLIT in frame else FRACTIONS
    if labels is None and not tasks and not targets:
        targets = ["label"]
    named = ColumnNames(labels).options(
        tasks=tasks,
        targets=targets,
        inputs=inputs,
        split=split,
        groups=groups,
        time=time,
    )
    tasks, targets, inputs = named["tasks"], named["targets"], named["inputs"]
    maps = _map_columns(tasks)
    for column in maps:
        if column not in frame.columns:
            raise ValueError(
                f"`tasks` must be columns of the table. There is no column '{column}'."
                f"{_checks.did_you_mean(column, frame.columns)} "
                f"Received: columns {', '.join(frame.columns)}"
            )
    used = {*maps, *(targets or ())}
    specs = _inputs(frame, root, inputs, used, size)
    loaded = _load(frame, root, specs, maps, size)
    return assemble(
        frame,
        **{**named, "inputs": specs},
        seed=seed,
        verbose=verbose,
        files=loaded,
        said=said,
        said_of_left="" if labels is None or inputs else _how_to_use_all(specs),
    )


def _how_to_use_all(specs: Mapping[str, Any]) -> str:
    """What to write for columns that are in no image."""
    images = [
        f'"{name}": kmtl.inputs.Image({spec.shape})' for name, spec in specs.items()
    ]
    given = ", ".join([*images, '"facts": kmtl.inputs.Table()'])
    return f"To predict from the columns that are left out as well: inputs={{{given}}}"


def _table(
    root: Path, labels: Any, read_options: Options | None
) -> tuple[Any, list[str]]:
    """The table of labels, and what is to be said of it."""
    if labels is None:
        table, said = read_folders(root)
        return checked_frame(table), said
    if hasattr(labels, "columns") or isinstance(labels, Mapping):
        return checked_frame(labels), []
    path = Path(labels).expanduser()
    inside = root / path
    read = read_csv(inside if inside.is_file() else path, read_options)
    return checked_frame(read), []


def _map_columns(tasks: Any) -> dict[str, Task]:
    """Column -> task, of tasks whose labels are maps."""
    named = isinstance(tasks, Mapping)
    found: dict[str, Task] = {}
    for task in tasks or ():
        if task.dense_prediction and not task.target_is_input:
            column = tasks[task] if named else task.name
            if not isinstance(column, str):
                raise ValueError(
                    f"The maps of task '{task.name}' must be named in one column. "
                    f"Received: {column!r}"
                )
            found[column] = task
    return found


def _inputs(
    frame: Any,
    root: Path,
    inputs: Any,
    used: set[str],
    size: tuple[int, int] | None,
) -> dict[str, Any]:
    """Name -> input; images out of all columns that name them, if none are given."""
    from kmtl.inputs import Image

    if isinstance(inputs, Mapping):
        return dict(inputs)
    if inputs is not None:
        raise TypeError(
            "`inputs` must be a dict of kmtl.inputs objects, images by the name of "
            f"their column. Received: {type(inputs).__name__}"
        )
    columns = [
        column
        for column in frame.columns
        if column not in used and files.names_images(frame[column])
    ]
    if not columns:
        raise ValueError(
            "A column must name image files (.png, .jpg, ...). "
            f"Received: columns {', '.join(frame.columns)}"
        )
    found = {}
    for column in columns:
        cells = files.cells_of(frame, column, root)
        own, channels, wrong = files.common_image(cells)
        if size is None and own is None:
            files.refuse(wrong)
            raise ValueError(
                f"The images of column '{column}' must have one size: give `size`, to "
                "which they are resized. Received: images of several sizes"
            )
        found[column] = Image((*(size or own), channels))  # type: ignore[misc]
    return found


def _load(
    frame: Any,
    root: Path,
    specs: Mapping[str, Any],
    maps: Mapping[str, Task],
    size: tuple[int, int] | None,
) -> dict[str, Any]:
    """Column -> what is in its files, of images and of maps."""
    import numpy as np

    from kmtl.inputs import Image

    wrong: list[str] = []
    photos: dict[str, list] = {}
    named: list[list[files.Cell]] = []
    first: tuple[int, int] | None = None
    for column, spec in specs.items():
        if not isinstance(spec, Image) or column not in frame.columns:
            continue
        first = first or (spec.shape[:2] if spec.shape[0] else None)  # type: ignore
        cells = files.cells_of(frame, column, root)
        wrong += [
            f"row {cell.row}, column '{column}': no name of a file"
            for cell in cells
            if cell.path is None
        ]
        photos[column], bad = files.read_all(cells, spec.read_photo)
        wrong += bad
        named.append(cells)
    found: dict[str, list] = {}
    for column, task in maps.items():
        wanted = getattr(task, "size", None) or size or first
        cells = files.cells_of(frame, column, root)
        found[column], bad = files.read_all(cells, files.map_reader(task, wanted))
        wrong += bad
        if wanted is not None:
            wrong += files.squashed(cells, named, wanted)
    files.refuse(wrong)
    loaded = {column: _stacked(column, arrays) for column, arrays in photos.items()}
    for column, task in maps.items():
        loaded[column] = files.stacked_maps(task, found[column])
    return {column: np.asarray(array) for column, array in loaded.items()}


def _stacked(column: str, photos: Sequence[Any]) -> Any:
    import numpy as np

    shapes = {photo.shape for photo in photos}
    if len(shapes) > 1:
        raise ValueError(
            f"The images of column '{column}' must have one size: give their Image a "
            f"height and a width. Received: {sorted(shapes)[:4]}"
        )
    return np.stack(photos)
