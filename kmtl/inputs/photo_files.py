"""Photos out of files, and images of Pillow: upright, as arrays of pixels."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

#: The largest number of a pixel in bytes.
BYTES = 255.0
#: The EXIF tag of it.
ORIENTATION = 0x0112


def upright(photo: Any) -> Any:
    """An image of Pillow, turned as its EXIF orientation says."""
    photo.load()  # TIFF files are turned in it
    way = _turn(photo.getexif)
    return photo if way is None else photo.transpose(way)


def upright_size(photo: Any) -> tuple[int, int]:
    """`(height, width)` of a file that Pillow has opened, once it is upright."""
    from PIL import Image as Pillow

    if photo.format == "TIFF":  # some versions of Pillow have turned its size
        height, width = upright(photo).size[::-1]
        return height, width
    # Not the method of PNG files, which decodes them.
    way = _turn(lambda: Pillow.Image.getexif(photo))
    kept = ("ROTATE_180", "FLIP_LEFT_RIGHT", "FLIP_TOP_BOTTOM")
    width, height = photo.size
    return (height, width) if way is None or way.name in kept else (width, height)


def _turn(exif: Callable[[], Any]) -> Any:
    """What makes a photo of this EXIF upright, in Pillow's terms; None: nothing."""
    from PIL import Image as Pillow

    try:
        orientation = exif().get(ORIENTATION)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return None  # the pixels may well be right
    ways = Pillow.Transpose
    return {
        2: ways.FLIP_LEFT_RIGHT,
        3: ways.ROTATE_180,
        4: ways.FLIP_TOP_BOTTOM,
        5: ways.TRANSPOSE,
        6: ways.ROTATE_270,
        7: ways.TRANSVERSE,
        8: ways.ROTATE_90,
    }.get(orientation)


def is_pillow(row: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(row, pillow.Image)


def of_pillow(photo: Any, channels: int, what: str) -> np.ndarray:
    """Pixels of an image of Pillow: as of its file, but numbers stay numbers."""
    turned = upright(photo)
    if turned.mode.startswith("I;"):
        return _high_bytes(np.asarray(turned), channels, what)
    if turned.mode not in ("I", "F") and channels in (1, 3):
        turned = turned.convert("L" if channels == 1 else "RGB")
    return np.asarray(turned)


def decoded(file: bytes, channels: int, what: str) -> np.ndarray:
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        with Pillow.open(io.BytesIO(file)) as photo:
            turned = upright(photo)
            deep = turned.mode in ("I", "F") or turned.mode.startswith("I;")
            pixels = np.asarray(
                turned if deep else turned.convert("L" if channels == 1 else "RGB")
            )
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        # Pillow says of unknown ones where they lie in memory.
        why = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise ValueError(
            f"{what} must be an image file (JPEG, PNG, ...). Received: {len(file)} "
            f"bytes that are none, beginning with {file[:12]!r}{why}"
        ) from error
    return _high_bytes(pixels, channels, what) if deep else pixels


def _high_bytes(grey: np.ndarray, channels: int, what: str) -> np.ndarray:
    """Grey of 16 bits in bytes, as TensorFlow decodes it: Pillow makes it white."""
    low, high = grey.min(), grey.max()
    if grey.dtype.kind == "f" or low < 0 or high >= 2**16:
        raise ValueError(
            f"{what} must have pixels of 8 or 16 bits: read the file yourself, and "
            "give its array to kmtl.inputs.Image(shape, dtype='float32'). "
            f"Received: a file of {grey.dtype} from {low:.4g} to {high:.4g}"
        )
    return np.repeat((grey >> 8).astype("uint8")[..., None], channels, axis=-1)


def encoded(pixels: np.ndarray) -> bytes:
    """A photo as the bytes of a PNG file."""
    from PIL import Image as Pillow

    if pixels.dtype != np.uint8:
        pixels = np.clip(np.rint(pixels * BYTES), 0, BYTES).astype("uint8")
    file = io.BytesIO()
    Pillow.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
        file, "png"
    )
    return file.getvalue()
