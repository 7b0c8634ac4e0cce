"""What an export says of itself: names, types and meaning of what goes in and out.

It is kept inside the export, where each format has a place for such things: an asset of
a SavedModel, a property of an ONNX file, runtime information in OpenVINO's, and a file
appended to a LiteRT model, as its metadata are.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from pathlib import Path
from xml.etree import ElementTree

from kmtl import _files
from kmtl.typing import Config

# `assets.extra` is where a SavedModel keeps what TensorFlow itself does not read.
DESCRIPTION = Path("assets.extra", "kmtl_signature.json")
KEY = "kmtl_signature"
#: Endings of the file formats.
ONNX, OPENVINO, LITERT = ".onnx", ".xml", ".tflite"


def write_description(path: Path, described: Config) -> None:
    """Put the description into a SavedModel or a LiteRT file.

    The others get it when they are converted.
    """
    text = json.dumps(described, indent=2) + "\n"
    if path.suffix == LITERT and path.is_file():
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(DESCRIPTION.name, text)
        return
    file = path / DESCRIPTION
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, "utf-8")


def is_export(path: Path) -> bool:
    """Whether kmtl has written this."""
    try:
        return _read(path) is not None
    except OSError:
        return False


def read_description(path: str | os.PathLike) -> Config:
    """The description inside an export made by `MultiTaskModel.export`.

    Raises:
        FileNotFoundError: if there is none.
        kmtl._files.DamagedFileError: if it cannot be read.
    """
    path = Path(path)
    text = _read(path) if path.exists() else None
    if text is None:
        raise FileNotFoundError(
            "`path` must be an export written by a kmtl model's `export`: a SavedModel "
            f"that holds {DESCRIPTION.as_posix()}, or an {ONNX}, {OPENVINO} or "
            f"{LITERT} file. Received: path='{os.fspath(path)}'"
        )
    try:
        found = json.loads(text)
        found["tasks"], found["inputs"]
    except (ValueError, KeyError, TypeError) as error:
        raise _files.DamagedFileError(
            path, "its description is not that of an export", "Export the model anew."
        ) from error
    return found


def _read(path: Path) -> str | None:
    if path.is_dir():
        file = path / DESCRIPTION
        return file.read_text("utf-8", errors="replace") if file.is_file() else None
    readers = {ONNX: _of_onnx, OPENVINO: _of_openvino, LITERT: _of_litert}
    if path.is_file() and path.suffix in readers:
        return readers[path.suffix](path)
    return None


def _of_onnx(path: Path) -> str | None:
    try:
        import onnx
    except ImportError:
        return None
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        return None
    return {item.key: item.value for item in model.metadata_props}.get(KEY)


def _of_openvino(path: Path) -> str | None:
    try:
        found = ElementTree.parse(path).find(f"./rt_info/{KEY}")
    except ElementTree.ParseError:
        return None
    return None if found is None else found.get("value")


def _of_litert(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(DESCRIPTION.name).decode("utf-8")
    except (zipfile.BadZipFile, KeyError, zlib.error, UnicodeDecodeError):
        return None
