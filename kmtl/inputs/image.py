"""Photos and other maps of pixels."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import keras
import numpy as np

from kmtl import _arrays, _checks
from kmtl._registry import register
from kmtl.inputs import photo_files, reading
from kmtl.inputs.array import check_shape
from kmtl.inputs.base import Input
from kmtl.inputs.photo_files import BYTES
from kmtl.inputs.scaling import ColumnScaling, Standardize, as_state
from kmtl.layers.maker import LayerMaker
from kmtl.typing import Tensor

SCALES = ("unit", "standardize", None)
SERVED = ("pixels", "bytes")
#: Photos whose pixels are looked at for the mean: of more, evenly spaced ones.
MOST_PHOTOS = 2048


@register("input", "image")
@dataclasses.dataclass(frozen=True)
class Image(Input):
    """Photos of any size, brought to one.

    `fit` and `predict` take an array `(N, h, w, channels)` (or `(N, h, w)` where there
    is one channel), or a sequence of photos of any sizes: arrays `(h, w, channels)`,
    image files by their paths (`pathlib.Path`; all that cannot be read are named
    together) or as bytes, or images of Pillow. Photos of another size than `shape` are
    resized, bilinear and smoothed where they shrink; their proportions change with
    it. Files and images of Pillow are turned upright, as their EXIF orientation says.

    Whole numbers of any dtype are bytes, 0 to 255; booleans are black and white.

    Args:
        shape: `(height, width, channels)` that the model reads; 1 or 3 channels, or
            others for arrays. Height and width None: all photos stay as large as they
            are.
        dtype: `"uint8"`, for bytes of 0 to 255 (the default), or `"float32"`, for
            numbers (0 to 1; photos in bytes are divided by 255).
        scale: `"unit"` (0 to 1; the default), `"standardize"` (per channel, by the
            training photos' mean and standard deviation: must be fitted), or None
            (as they are).
        served: What a SavedModel takes: `"pixels"`, an array of photos of any one size,
            or `"bytes"`, image files as strings (JPEG, PNG, GIF, BMP of 8 bits and
            more). A SavedModel knows of the EXIF orientation of JPEG files alone:
            other kinds must be upright.
        statistics: What `fit` has found.

    Example:

    >>> photo = kmtl.inputs.Image((8, 8, 3))
    >>> small, large = np.zeros((5, 9, 3), "uint8"), np.full((20, 30, 3), 255, "uint8")
    >>> photo.prepare([small, large], "`x`").mean(axis=(1, 2, 3)).tolist()
    [0.0, 255.0]

    The files of a folder, as for `model.predict`:

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> Image.new("RGB", (10, 20), "white").save("holiday.png")
    >>> photo.prepare(sorted(Path(".").glob("*.png")), "`x`").shape
    (1, 8, 8, 3)
    """

    shape: tuple[int | None, ...]
    dtype: str = "uint8"
    _: dataclasses.KW_ONLY
    scale: str | None = "unit"
    served: str = "pixels"
    statistics: Mapping[str, tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        shape = check_shape(self.shape)
        if (
            len(shape) != 3
            or shape[2] is None
            or (shape[0] is None) != (shape[1] is None)
        ):
            raise ValueError(
                "`shape` of an Image must be (height, width, channels); height and "
                f"width may both be None. Received: shape={self.shape}"
            )
        object.__setattr__(self, "shape", shape)
        _checks.check_choice("dtype", self.dtype, ("uint8", "float32"))
        _checks.check_choice("scale", self.scale, SCALES)
        _checks.check_choice("served", self.served, SERVED)
        object.__setattr__(self, "statistics", as_state(self.statistics))
        if self.served == "bytes" and shape[2] not in (1, 3):
            raise ValueError(
                "`served='bytes'` needs 1 or 3 channels, as image files have. "
                f"Received: shape={shape}"
            )

    @property
    def channels(self) -> int:
        assert self.shape[2] is not None
        return self.shape[2]

    @property
    def target_scale(self) -> float:
        return 1.0 / BYTES if self.dtype == "uint8" else 1.0

    @property
    def fitted(self) -> bool:
        return self.scale != "standardize" or self.statistics is not None

    training_rows: ClassVar[str] = "The training photos"

    def learn(self, data: Any, what: str) -> Self:
        """A copy that knows the mean and spread of the training photos' channels."""
        if self.scale != "standardize":
            return self
        if len(data) > MOST_PHOTOS:
            data = data[:: -(-len(data) // MOST_PHOTOS)]
        pixels = self.prepare(data, what)
        if not pixels.size:
            raise ValueError(f"{what} must be at least one. Received: none")
        values = pixels.reshape(-1, self.channels).astype("float64")
        return dataclasses.replace(self, statistics=Standardize().fit(values))

    # -- on the host ------------------------------------------------------------------

    def prepare(self, data: Any, what: str) -> np.ndarray:
        rows = _rows(data)
        if rows is not None:
            if not rows:
                return np.zeros((0, *(s or 0 for s in self.shape)), self.dtype)
            photos = self._photos(rows, what)
            sizes = {photo.shape for photo in photos}
            if len(sizes) > 1:
                raise ValueError(
                    f"{what} must hold photos of one size, or give the Image a height "
                    "and a width, to which they are resized. Received: sizes "
                    f"{sorted(sizes)[0][:2]} and {sorted(sizes)[-1][:2]}"
                )
            return np.stack(photos)
        if isinstance(data, (str, os.PathLike)):
            raise TypeError(
                f"{what} must be several photos: a list of paths, such as [path] for "
                "one, or sorted(pathlib.Path(folder).glob('*.jpg')) for those of a "
                f"folder. Received: {str(data)!r}"
            )
        array = _arrays.as_array(data, what)
        if _arrays.is_text(array):
            raise TypeError(
                f"{what} must hold photos: arrays of pixels, paths of image files "
                "(pathlib.Path(name)), or their bytes. "
                f"Received: text, {array.ravel()[0]!r}"
            )
        if array.ndim == 3 and self.channels == 1:
            array = array[..., None]
        if array.ndim != 4:
            raise ValueError(
                f"{what} must have shape (N, height, width, {self.channels}). "
                f"Received: shape={array.shape}"
            )
        self._check_channels(array.shape, what)
        array = self._values(array, what)
        if array.shape[1:3] == self.shape[:2] or self.shape[0] is None:
            return array
        return np.stack([self._resized(photo) for photo in array])

    def _photos(self, rows: Sequence[Any], what: str) -> list[np.ndarray]:
        """Photos in the shape and dtype that the model takes; files in parallel."""
        for i, row in enumerate(rows):
            if isinstance(row, str):
                raise TypeError(
                    f"{what} must hold photos: arrays of pixels, paths of image files "
                    "(pathlib.Path(name)), or their bytes. "
                    f"Received: text, {row!r}, in row {i}"
                )
        photos, wrong = reading.read_files(
            [Path(row) if isinstance(row, os.PathLike) else None for row in rows],
            self.read_photo,
            [f"row {i} of {what}" for i in range(len(rows))],
        )
        rule = f"Every file that {what} names must be there and be a photo"
        reading.refuse(wrong, rule)
        return [
            self._photo(rows[i], f"Row {i} of {what}") if photo is None else photo
            for i, photo in enumerate(photos)
        ]

    def read_photo(self, path: Path) -> np.ndarray:
        """The photo in a file in the shape and dtype that the model takes."""
        return self._photo(path.read_bytes(), "the file")

    def _photo(self, row: Any, name: str) -> np.ndarray:
        """One photo in the shape and dtype that the model takes."""
        if isinstance(row, bytes):
            pixels = photo_files.decoded(row, self.channels, name)
        elif photo_files.is_pillow(row):
            pixels = photo_files.of_pillow(row, self.channels, name)
        elif hasattr(row, "read"):
            raise TypeError(
                f"{name} must be an array of pixels, a path (pathlib.Path), or the "
                "bytes of an image file: give what `.read()` or `.getvalue()` returns. "
                f"Received: a file that is open, {type(row).__name__}"
            )
        else:
            pixels = _arrays.as_array(row, name)
        if pixels.ndim == 2 and self.channels == 1:
            pixels = pixels[..., None]
        if pixels.ndim != 3:
            raise ValueError(
                f"{name} must have shape (height, width, {self.channels}). "
                f"Received: shape={pixels.shape}"
            )
        self._check_channels(pixels.shape, name)
        pixels = self._values(pixels, name)
        if pixels.shape[:2] == self.shape[:2] or self.shape[0] is None:
            return pixels
        return self._resized(pixels)

    def _check_channels(self, shape: tuple, what: str) -> None:
        if shape[-1] == self.channels:
            return
        hint = {
            (1, 3): "repeat the channel, or build the model with Image((h, w, 1))",
            (3, 1): "average the channels, or build the model with Image((h, w, 3))",
            (4, 3): "leave out the last channel, that of transparency: x[..., :3]",
        }.get((shape[-1], self.channels), "photos as (height, width, channels)")
        raise ValueError(
            f"{what} must have {self.channels} channel"
            f"{'s' if self.channels > 1 else ''}, which come last; {hint}. "
            f"Received: {shape[-1]} channels, shape={tuple(shape)}"
        )

    def _values(self, pixels: np.ndarray, what: str) -> np.ndarray:
        """Pixels in the dtype."""
        if pixels.dtype.kind not in "biuf":
            raise TypeError(f"{what} must hold numbers. Received: {pixels.dtype}")
        if pixels.dtype.kind == "b":
            pixels = pixels * np.uint8(BYTES)
        if pixels.dtype == self.dtype == "uint8":
            return pixels
        _arrays.check_finite(pixels, what)
        if self.dtype == "float32":
            if pixels.dtype.kind == "f" or self.scale is None:
                return pixels.astype("float32")
            if pixels.size and (pixels.min() < 0 or pixels.max() > BYTES):
                raise ValueError(
                    f"{what} must hold whole numbers of 0 to 255, as photos in bytes "
                    "do, which become 0 to 1; other numbers go in as they are if they "
                    "are floats: x.astype('float32'). Received: "
                    f"{pixels.dtype} from {pixels.min()} to {pixels.max()}"
                )
            return pixels.astype("float32") / np.float32(BYTES)
        if pixels.size:
            low, high = pixels.min(), pixels.max()
            whole = pixels.dtype.kind != "f" or bool((pixels == np.floor(pixels)).all())
            if not whole or low < 0 or high > BYTES:
                raise ValueError(
                    f"{what} must hold whole numbers of 0 to 255, as photos in bytes "
                    "do; for photos in other numbers say "
                    f"kmtl.inputs.Image({self.shape}, dtype='float32'). "
                    f"Received: {pixels.dtype} from {low:.4g} to {high:.4g}"
                )
            if pixels.dtype.kind == "f" and high == 1:
                raise ValueError(
                    f"{what} must hold numbers of 0 to 255, and may be black and white "
                    "of 0 and 1: give x * 255 or x.astype(bool) then, and "
                    "x.astype('uint8') if 1 is nearly black. "
                    f"Received: {pixels.dtype} of 0 and 1"
                )
        return pixels.astype("uint8")

    def _resized(self, pixels: np.ndarray) -> np.ndarray:
        from PIL import Image as Pillow

        height, width = self.shape[:2]
        assert height is not None
        assert width is not None
        channels = [
            Pillow.fromarray(np.ascontiguousarray(pixels[..., i], "float32")).resize(
                (width, height), Pillow.Resampling.BILINEAR
            )
            for i in range(self.channels)
        ]
        resized = np.stack([np.asarray(channel) for channel in channels], axis=-1)
        if self.dtype == "uint8":
            return np.clip(np.rint(resized), 0, BYTES).astype("uint8")
        return resized

    # -- in the model -----------------------------------------------------------------

    def encode(self, x: Tensor, make: LayerMaker) -> Tensor:
        if self.scale == "standardize":
            return make.layer(
                ColumnScaling, "scaling", scale="standardize", state=self.statistics
            )(x)
        factor = self.target_scale if self.scale == "unit" else 1.0
        return make.layer(keras.layers.Rescaling, "rescale", scale=factor)(x)

    # -- in a SavedModel --------------------------------------------------------------

    def serving_signature(self, name: str) -> dict[str, keras.InputSpec]:
        if self.served == "bytes":
            return {name: keras.InputSpec(shape=(None,), dtype="string")}
        shape = (None, None, None, self.channels)
        return {name: keras.InputSpec(shape=shape, dtype=self.dtype)}

    def serve(self, tensors: Mapping[str, Tensor]) -> Tensor:
        import tensorflow as tf

        from kmtl.inputs.served_image import pixels_of

        (tensor,) = tensors.values()
        if self.served == "pixels":
            return self._served(tensor)
        return tf.map_fn(
            lambda file: self._served(pixels_of(file, self.channels)[None])[0],
            tensor,
            fn_output_signature=tf.TensorSpec(self.shape, self.dtype),
        )

    def _served(self, pixels: Tensor) -> Tensor:
        """Pixels of any size as the model takes them, in TensorFlow's operations."""
        import tensorflow as tf

        if self.dtype == "float32" and pixels.dtype == tf.uint8:
            pixels = tf.cast(pixels, "float32")
            if self.scale is not None:
                pixels = pixels / np.float32(BYTES)
        if self.shape[0] is None:
            return pixels
        resized = tf.image.resize(pixels, self.shape[:2], antialias=True)
        if self.dtype == "uint8":
            resized = tf.clip_by_value(tf.round(resized), 0.0, BYTES)
        return tf.ensure_shape(tf.cast(resized, self.dtype), (None, *self.shape))

    def serving_rows(self, name: str, data: Any, what: str) -> dict[str, np.ndarray]:
        if self.served == "pixels":
            one_size = isinstance(data, np.ndarray) and data.dtype == self.dtype
            if one_size and data.ndim == 4:
                return {name: data}
            return {name: self.prepare(data, what)}
        rows = _rows(data)
        if rows is not None and all(isinstance(row, os.PathLike) for row in rows):
            rows = [Path(row).read_bytes() for row in rows]
        if rows is None or not all(isinstance(row, bytes) for row in rows):
            rows = [photo_files.encoded(photo) for photo in self.prepare(data, what)]
        array = np.empty(len(rows), dtype=object)
        array[:] = rows
        return {name: array}

    @property
    def served_prepared(self) -> bool:
        return False


def _rows(data: Any) -> list | None:
    """Photos one by one, where they are not one array."""
    if isinstance(data, np.ndarray) and data.dtype.kind in "OS":
        return list(data)
    if type(data).__module__.split(".")[0] in ("pandas", "polars"):
        return list(data)
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return list(data)
    return None
