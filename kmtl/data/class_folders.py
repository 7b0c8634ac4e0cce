"""Folders of images whose names say the class, and the part, of each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kmtl.data import files
from kmtl.data.dividing import part_of

#: Column that says the part of each image.
SPLIT = "split"
_TABLE = (
    'Or give a table: labels={"image": names, "label": classes}, names relative to '
    "`folder`."
)


def read_folders(root: Path) -> tuple[dict[str, list[str]], list[str]]:
    """The table of the images in folders of a folder, and what is to be said of it.

    Args:
        root: Holds a folder per class; or folders called train, validation and test
            (`kmtl.data.dividing.SPELLINGS`) that hold one per class.

    Returns:
        Columns `image`, `label` and, of folders of parts, `split`; lines for the user.

    Raises:
        ValueError: where folders do not say which of them are the classes.
    """
    names = files.image_files(root)
    if not names:
        raise ValueError(
            "Without `labels` there must be folders of images, one for each class. "
            f"Received: none in {root}"
        )
    paths = [tuple(name.split("/")[:-1]) for name in names]
    table = {"image": names}
    if _are_parts(paths):
        _check_parts(root, names, paths)
        table[SPLIT] = [path[0] for path in paths]
        paths = [path[1:] for path in paths]
    _check_classes(None if SPLIT in table else root, paths)
    table["label"] = [path[0] for path in paths]
    deep = sum(len(path) > 1 for path in paths)
    said = f"label: the outermost folder of a class; {deep} images lie in folders in it"
    return table, [said] if deep else []


def _are_parts(paths: Sequence[tuple[str, ...]]) -> bool:
    """Whether the outermost folders are those of parts, and not of classes."""
    named = [path for path in paths if part_of(path[0]) is not None]
    return len(named) == len(paths) or any(len(path) > 1 for path in named)


def _check_parts(
    root: Path, names: Sequence[str], paths: Sequence[tuple[str, ...]]
) -> None:
    """Each image is in a part and in a class; training images are among them."""
    firsts = sorted({path[0] for path in paths})
    rule = (
        "In `folder` there must be a folder per class, or folders of parts alone "
        "(train, and validation or test), with a folder per class in each"
    )
    others = [first for first in firsts if part_of(first) is None]
    if others:
        raise ValueError(
            f"{rule}: move others away. {_TABLE} Received: {', '.join(others)} beside "
            f"{', '.join(first for first in firsts if first not in others)}"
        )
    parts = {part_of(first) for first in firsts}
    if "train" not in parts or len(parts) < 2:
        within = root / firsts[0]
        raise ValueError(
            f"{rule}: to divide one folder of classes, give it itself, "
            f"folder={str(within)!r}. Received: {', '.join(firsts)} alone in {root}"
        )
    bare = [name for name, path in zip(names, paths, strict=True) if len(path) < 2]
    if bare:
        train = next(first for first in firsts if part_of(first) == "train")
        raise ValueError(
            f"{rule}. Where those of test have no labels, give the folder of training "
            f"images, folder={str(root / train)!r}, and predict the others. {_TABLE} "
            f"Received: {len(bare)} images in no class, such as {bare[0]}"
        )


def _check_classes(root: Path | None, paths: Sequence[tuple[str, ...]]) -> None:
    """The outermost folders are the classes, as far as names tell.

    Args:
        root: What they are in, unless they are in folders of parts.
        paths: Folders of each image, below `root` or those of parts.
    """
    owners: dict[str, set[str]] = {}
    for path in paths:
        for inner in path[1:2]:
            owners.setdefault(inner, set()).add(path[0])
    firsts = sorted({path[0] for path in paths})
    if len(firsts) == 1 and len(owners) > 1:
        remedy = f"move them out of '{firsts[0]}'. {_TABLE}"
        if root is not None:
            remedy = f"give folder={str(root / firsts[0])!r}."
        raise ValueError(
            f"The folders of classes must be the outermost ones: {remedy} Received: "
            f"'{firsts[0]}' alone, with {', '.join(sorted(owners)[:4])} in it"
        )
    parts = sorted(inner for inner in owners if part_of(inner) is not None)
    if parts:
        raise ValueError(
            "Folders of parts must hold those of classes (train/cat, test/cat), not "
            f"the other way round. {_TABLE} Its column of parts is named by `split`. "
            f"Received: {', '.join(parts)} in '{min(owners[parts[0]])}'"
        )
    shared = sorted(inner for inner, first in owners.items() if len(first) > 1)
    if len(shared) > 1:  # one alone, such as `images`, is no class
        one, other = sorted(owners[shared[0]])[:2]
        raise ValueError(
            "It must be clear which folders are the classes: the outermost ones are, "
            "unless several names are in more than one of these. Give a table: "
            'labels={"image": names, "label": [name.split("/")[0] for name in names]}, '
            "names relative to `folder` (0: the outermost; 1: the next). Received: "
            f"{', '.join(shared[:4])} in '{one}' and in '{other}'"
        )
