"""Boxes of objects as people have them, as labels of `kmtl.Detection`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kmtl import _checks

#: x_min, y_min, x_max, y_max, class.
COLUMNS = 5
_EDGES = ("xmin", "ymin", "xmax", "ymax")
RULE = (
    "`annotations` must have for each photo a list of objects, [] where there is none, "
    "and None where that is not known. An object is (x_min, y_min, x_max, y_max, "
    "class) in pixels, COCO's {'bbox': [x, y, width, height], 'category_id': ...}, or "
    "Pascal VOC's {'bndbox': {'xmin': ..., 'ymin': ..., 'xmax': ..., 'ymax': ...}, "
    "'name': ...}; or all of a photo are {'boxes': (n, 4), 'labels': (n,)}"
)


def boxes(
    annotations: Any,
    size: Any = None,
    *,
    labels: Sequence[Any] | None = None,
    max_boxes: int | None = None,
) -> np.ndarray:
    """Labels of `kmtl.Detection` from boxes in pixels, of COCO or of Pascal VOC.

    What is cut off by the photo's edge is left out, and so are objects without an area
    inside of it, crowds (COCO's `iscrowd`) and what Pascal VOC calls difficult: nothing
    is learned of them, and to find one is counted as an error.

    Args:
        annotations: For each photo a list of its objects, `[]` without any, None where
            the photo is not annotated. An object is one of

            - `(x_min, y_min, x_max, y_max, class)`, in pixels from the left and from
              the top: a photo of width 10 reaches from 0 to 10;
            - a dict of COCO, with `"bbox"` (x, y, width, height) and `"category_id"`;
            - a dict of Pascal VOC, with `"xmin"`, `"ymin"`, `"xmax"`, `"ymax"` (in
              `"bndbox"` or not; pixels counted from 1, the last one inside) and
              `"name"`.

            Or of a photo `{"boxes": (n, 4), "labels": (n,)}`, edges in pixels. Or all
            of a COCO file as a dict, with `"images"` (in whose order the labels are),
            `"annotations"` and `"categories"`: classes are these in their order.
        size: `(height, width)` of all photos, or one for each photo; of those whose
            pixels the boxes count, whatever size they have afterwards. A COCO file
            knows it.
        labels: The classes, as names or numbers in `annotations`, in the order of the
            task's: class numbers are places in it. Defaults to numbers from 0 on.
        max_boxes: Objects to which photos are padded. Defaults to the largest number.

    Returns:
        `(N, max_boxes, 5)`, float32: see `kmtl.Detection`.

    Raises:
        ValueError, TypeError: naming the photo.

    Example:

    >>> coco = [[{"bbox": [50, 25, 50, 50], "category_id": 7}], [], None]
    >>> kmtl.data.boxes(coco, size=(100, 200), labels=[3, 7]).tolist()
    [[[0.25, 0.25, 0.5, 0.75, 1.0]], [[0.0, 0.0, 0.0, 0.0, -1.0]], \
[[nan, nan, nan, nan, nan]]]
    >>> voc = [[{"xmin": 1, "ymin": 1, "xmax": 10, "ymax": 5, "name": "dog"}]]
    >>> kmtl.data.boxes(voc, size=(10, 10), labels=["cat", "dog"]).tolist()
    [[[0.0, 0.0, 1.0, 0.5, 1.0]]]
    """
    if isinstance(annotations, Mapping):
        annotations, size, labels = _of_file(annotations, size, labels)
    if isinstance(annotations, str) or not isinstance(annotations, Iterable):
        raise TypeError(f"{RULE}. Received: {annotations!r}")
    photos = list(annotations)
    sizes = _sizes(size, len(photos))
    places = None if labels is None else {label: n for n, label in enumerate(labels)}
    rows = [
        None if photo is None else _photo(photo, sizes[number], places, number)
        for number, photo in enumerate(photos)
    ]
    longest = max((len(row) for row in rows if row is not None), default=0)
    most = max(1, longest)
    if max_boxes is not None:
        most = _checks.check_int("max_boxes", max_boxes, 1)
    if longest > most:
        raise ValueError(
            "`max_boxes` must be at least the number of objects in every photo. "
            f"Received: max_boxes={most}, and {longest} objects in a photo"
        )
    array = np.full((len(rows), most, COLUMNS), np.nan, "float32")
    for place, row in zip(array, rows, strict=True):
        if row is not None:
            place[:] = (0, 0, 0, 0, -1)
            place[: len(row)] = row
    return array


def _sizes(size: Any, photos: int) -> np.ndarray:
    """`(photos, 2)`, heights and widths."""
    array = np.asarray(-1 if size is None else size)
    if array.dtype.kind not in "iuf" or array.shape not in ((2,), (photos, 2)):
        raise ValueError(
            "`size` must be (height, width) of the photos in pixels, or one for each "
            f"of the {photos} photos. Received: {size!r}"
        )
    if not (array > 0).all():
        raise ValueError(f"`size` must be above 0. Received: {size!r}")
    return np.broadcast_to(array, (photos, 2)).astype("float64")


def _of_file(file: Mapping, size: Any, labels: Any) -> tuple[list, Any, Any]:
    """Annotations, sizes and classes of a COCO file."""
    lacking = [
        key for key in ("images", "annotations", "categories") if key not in file
    ]
    if lacking:
        raise ValueError(
            f"{RULE}. Received: a dict without {', '.join(lacking)}, as a COCO file has"
        )
    photos: dict[Any, list] = {image["id"]: [] for image in file["images"]}
    for one in file["annotations"]:
        if one["image_id"] not in photos:
            raise ValueError(
                "`annotations` must be of the photos in `images`. Received: image_id="
                f"{one['image_id']!r}"
            )
        photos[one["image_id"]].append(one)
    if size is None:
        size = [(image["height"], image["width"]) for image in file["images"]]
        size = size or (1, 1)
    if labels is None:
        labels = [category["id"] for category in file["categories"]]
    return list(photos.values()), size, labels


def _photo(
    photo: Any, size: np.ndarray, places: Mapping[Any, int] | None, number: int
) -> np.ndarray:
    """Labels `(n, 5)` of one photo."""
    try:
        objects = _objects(photo)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{RULE}. Received: {photo!r} for photo {number}") from error
    numbers = []
    for *edges, kind in objects:
        if places is not None:
            if kind not in places:
                raise ValueError(
                    f"Classes in `annotations` must be among `labels`, {list(places)}. "
                    f"Received: {kind!r} in photo {number}"
                )
            kind = places[kind]
        if isinstance(kind, str):
            raise ValueError(
                "Give the classes that have names, as labels=['cat', 'dog']. "
                f"Received: class {kind!r} in photo {number}, and labels=None"
            )
        if kind < 0 or kind != int(kind):
            raise ValueError(
                "Classes in `annotations` must be whole numbers from 0 on, or among "
                f"`labels`. Received: {kind!r} in photo {number}"
            )
        numbers.append((*edges, kind))
    array = np.asarray(numbers, "float64").reshape(-1, COLUMNS)
    if not np.isfinite(array).all():
        raise ValueError(
            f"Boxes must be finite numbers. Received: NaN or infinity in photo {number}"
        )
    turned = (array[:, 2:4] < array[:, :2]).any(axis=1)
    if turned.any():
        raise ValueError(
            "Boxes must end to the right of where they begin, and below: COCO's bbox "
            "is [x, y, width, height], Pascal VOC's xmin, ymin, xmax, ymax. Received: "
            f"edges {array[turned][0, :4].tolist()} in photo {number}"
        )
    height, width = size
    array[:, :4] = np.clip(array[:, :4] / (width, height, width, height), 0, 1)
    array = array.astype("float32")
    return array[(array[:, 2] > array[:, 0]) & (array[:, 3] > array[:, 1])]


def _objects(photo: Any) -> list[tuple]:
    """Edges in pixels, and class, of each object of one photo."""
    if isinstance(photo, Mapping):
        edges = np.asarray(photo["boxes"], "float64").reshape(-1, 4).tolist()
        kinds = np.asarray(photo["labels"]).ravel().tolist()
        return [(*four, kind) for four, kind in zip(edges, kinds, strict=True)]
    found = []
    for one in photo:
        if not isinstance(one, Mapping):
            x_min, y_min, x_max, y_max, kind = one
            found.append((x_min, y_min, x_max, y_max, kind))
        elif one.get("iscrowd") or int(one.get("difficult", 0)):
            continue
        elif "bbox" in one:
            x, y, width, height = one["bbox"]
            found.append((x, y, x + width, y + height, one["category_id"]))
        else:
            inner = one.get("bndbox", one)
            x_min, y_min, x_max, y_max = (float(inner[edge]) for edge in _EDGES)
            found.append((x_min - 1, y_min - 1, x_max, y_max, one["name"]))
    return found
