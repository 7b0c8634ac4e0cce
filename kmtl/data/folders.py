"""Where data sets lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from kmtl.typing import PathLike

DATA_DIR = "KMTL_DATA_DIR"  # a folder with one folder per data set


def candidates(name: str, data_dir: PathLike | None = None) -> list[Path]:
    """Folders in which the data set `name` may lie, in the order of looking."""
    if data_dir is not None:
        folder = Path(data_dir).expanduser()
        return [folder, folder / name]
    given = os.environ.get(DATA_DIR)
    return [Path(given).expanduser() / name] if given else []


def prepared_folder(name: str, data_dir: PathLike | None = None) -> str | None:
    """tfds' `data_dir`: as given, or `$KMTL_DATA_DIR/tfds` where it has the set.

    None leaves it to tfds: `$TFDS_DATA_DIR`, or `~/tensorflow_datasets`.
    """
    if data_dir is not None:
        return os.fspath(Path(data_dir).expanduser())
    given = os.environ.get(DATA_DIR)
    if given and not os.environ.get("TFDS_DATA_DIR"):
        folder = Path(given).expanduser() / "tfds"
        if (folder / name.split("/")[0].split(":")[0]).is_dir():
            return str(folder)
    return None
