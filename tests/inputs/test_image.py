"""Photos: sizes, dtypes, channels, and what is no photo."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from keras import ops
from PIL import Image as Pillow

import kmtl
from kmtl.inputs import Image
from kmtl.layers import LayerMaker

pytestmark = pytest.mark.backend
RNG = np.random.default_rng(0)
PHOTOS = RNG.integers(0, 256, (3, 8, 6, 3), dtype="uint8")


def file_of(pixels: np.ndarray, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, kind)
    return file.getvalue()


def test_pixels_stay_what_they_are() -> None:
    spec = Image((8, 6, 3))
    assert spec.prepare(PHOTOS, "`x`") is PHOTOS
    for given in (list(PHOTOS), PHOTOS.astype("float64"), PHOTOS.astype("int64")):
        found = spec.prepare(given, "`x`")
        assert found.dtype == "uint8"
        np.testing.assert_array_equal(found, PHOTOS)
    files = [file_of(photo) for photo in PHOTOS]
    np.testing.assert_array_equal(spec.prepare(files, "`x`"), PHOTOS)
    grey = Image((8, 6, 1)).prepare(PHOTOS[..., 0], "`x`")
    np.testing.assert_array_equal(grey, PHOTOS[..., :1])
    numbers = Image((8, 6, 3), "float32").prepare(PHOTOS, "`x`")
    np.testing.assert_allclose(numbers, PHOTOS / 255, rtol=1e-6)


def test_other_sizes_are_resized() -> None:
    spec = Image((4, 3, 3))
    halved = spec.prepare(PHOTOS, "`x`")
    expected = ops.image.resize(
        PHOTOS.astype("float32"), (4, 3), "bilinear", antialias=True
    )
    assert np.abs(halved - ops.convert_to_numpy(expected)).max() <= 0.51
    mixed = spec.prepare([PHOTOS[0], PHOTOS[1, :5, :5], file_of(PHOTOS[2])], "`x`")
    assert mixed.shape == (3, 4, 3, 3)
    np.testing.assert_array_equal(mixed[0], halved[0])
    np.testing.assert_array_equal(mixed[2], halved[2])
    whole = Image((None, None, 3))
    assert whole.prepare(list(PHOTOS), "`x`").shape == PHOTOS.shape
    with pytest.raises(ValueError, match=r"photos of one size.*\(5, 5\) and \(8, 6\)"):
        whole.prepare([PHOTOS[0], PHOTOS[1, :5, :5]], "`x`")


def test_scales() -> None:
    def encoded(spec: Image) -> np.ndarray:
        import keras

        inputs = keras.Input(spec.shape, dtype=spec.dtype)
        model = keras.Model(inputs, spec.encode(inputs, LayerMaker("x")))
        return ops.convert_to_numpy(model(spec.prepare(PHOTOS, "`x`")))

    unit = encoded(Image((8, 6, 3)))
    np.testing.assert_allclose(unit, PHOTOS / 255, rtol=1e-5)
    np.testing.assert_allclose(encoded(Image((8, 6, 3), scale=None)), PHOTOS)
    standard = Image((8, 6, 3), scale="standardize")
    assert not standard.fitted
    found = encoded(standard.fit(PHOTOS))
    np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std((0, 1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_are_turned_upright(orientation: int, kind: str) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Pillow.fromarray(PHOTOS[0]).save(file, kind, exif=exif)
    expected = {
        1: PHOTOS[0],
        2: PHOTOS[0, :, ::-1],
        3: PHOTOS[0, ::-1, ::-1],
        4: PHOTOS[0, ::-1],
        5: PHOTOS[0].swapaxes(0, 1),
        6: np.rot90(PHOTOS[0], -1),
        7: PHOTOS[0, ::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(PHOTOS[0]),
    }[orientation]
    spec = Image((None, None, 3))
    for given in (file.getvalue(), Pillow.open(file)):
        np.testing.assert_array_equal(spec.prepare([given], "`x`")[0], expected)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_dtypes_of_the_same_pixels(one_by_one: bool) -> None:
    bytes_, numbers = Image((8, 6, 3)), Image((8, 6, 3), "float32")

    def prepared(spec: Image, pixels: np.ndarray) -> np.ndarray:
        return spec.prepare(list(pixels) if one_by_one else pixels, "`x`")

    for dtype in ("uint8", "int16", "uint16", "int64"):
        found = prepared(numbers, PHOTOS.astype(dtype))
        np.testing.assert_allclose(found, PHOTOS / 255, rtol=1e-6)
    unscaled = prepared(Image((8, 6, 3), "float32", scale=None), PHOTOS.astype(int))
    np.testing.assert_array_equal(unscaled, PHOTOS)
    floats = prepared(numbers, PHOTOS / 7)  # numbers, as they are
    np.testing.assert_allclose(floats, PHOTOS / 7, rtol=1e-6)
    black = PHOTOS > 127
    np.testing.assert_array_equal(prepared(bytes_, black), black * 255)
    np.testing.assert_array_equal(prepared(numbers, black), black)
    assert not prepared(bytes_, PHOTOS * 0.0).any()
    with pytest.raises(ValueError, match=r"black and white.*x \* 255.*of 0 and 1"):
        prepared(bytes_, black.astype("float32"))
    with pytest.raises(ValueError, match=r"whole numbers of 0 to 255.*from 0 to 4080"):
        prepared(numbers, np.where(black, 4080, 0))


def test_images_of_pillow_are_as_their_files() -> None:
    colours = Pillow.fromarray(np.full((8, 6, 3), 200, "uint8"))
    photos = [colours, colours.quantize(4), colours.convert("RGBA")]
    for channels in (1, 3):
        assert (Image((8, 6, channels)).prepare(photos, "`x`") == 200).all()
    white = Pillow.new("1", (6, 8), 1)
    assert (Image((8, 6, 3)).prepare([white], "`x`") == 255).all()
    assert Image((8, 6, 4)).prepare(photos[2:], "`x`").shape == (1, 8, 6, 4)
    depth = Pillow.fromarray(np.full((8, 6), 3.5, "float32"))
    assert (Image((8, 6, 1), "float32").prepare([depth], "`x`") == 3.5).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["photo.jpg"], r"must hold photos.*text, 'photo\.jpg', in row 0"),
        (np.array(["a"]), r"must hold photos.*text, .*'a'"),
        (
            [file_of(PHOTOS[0]), b"no photo"],
            r"Row 1 of `x` must be an image file.* beginning with b'no photo'$",
        ),
        (
            [io.BytesIO(file_of(PHOTOS[0]))],
            r"Row 0 of `x` must be .* `\.read\(\)`.* a file that is open, BytesIO",
        ),
        (PHOTOS[..., :1], r"must have 3 channels.*repeat the channel.*1 channels"),
        (np.zeros((2, 8, 6, 4)), r"leave out the last channel"),
        (PHOTOS[0], r"must have shape \(N, height, width, 3\)"),
        ([PHOTOS[0], PHOTOS[0, 0]], r"Row 1 of `x` must have shape \(height"),
        (PHOTOS / 255, r"of 0 to 255.*Image\(\(8, 6, 3\), dtype='float32'\)"),
        (PHOTOS + np.nan, r"must be finite"),
    ],
)
def test_no_photos(given, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Image((8, 6, 3)).prepare(given, "`x`")


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_of_16_bits_is_what_serving_makes_of_it(channels: int) -> None:
    grey = np.arange(48, dtype="uint16").reshape(8, 6) * 1365
    file = io.BytesIO()
    Pillow.fromarray(grey).save(file, "png")
    (found,) = Image((8, 6, channels)).prepare([file.getvalue()], "`x`")
    np.testing.assert_array_equal(found, np.repeat(grey[..., None] >> 8, channels, -1))
    tf = pytest.importorskip("tensorflow")
    served = tf.io.decode_image(file.getvalue(), channels)
    np.testing.assert_array_equal(found, served)


def test_files_of_floats_are_refused() -> None:
    for pixels in (np.ones((8, 6), "float32"), np.full((8, 6), 70000, "int32")):
        file = io.BytesIO()
        Pillow.fromarray(pixels).save(file, "tiff")
        with pytest.raises(
            ValueError, match=r"Row 0 of `x` must have pixels of 8 or 16"
        ):
            Image((8, 6, 1)).prepare([file.getvalue()], "`x`")


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"must have 1 channel,.*average the channels"):
        Image((8, 6, 1)).prepare(PHOTOS, "`x`")
    for arguments, message in (
        ({"shape": (8, 6)}, r"must be \(height, width, channels\)"),
        ({"shape": (None, 6, 3)}, r"may both be None"),
        ({"shape": (8, 6, 2), "served": "bytes"}, r"needs 1 or 3 channels"),
        ({"shape": (8, 6, 3), "scale": "robust"}, r"`scale` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            Image(**arguments)
    with pytest.raises(ValueError, match=r"must be fitted on the training rows"):
        kmtl.build(
            inputs={"photo": Image((8, 6, 3), scale="standardize")},
            backbone="cnn",
            tasks=[kmtl.Regression("y")],
        )


@pytest.mark.parametrize("served", ["pixels", "bytes"])
def test_served_photos_of_another_size(served: str) -> None:
    tf = pytest.importorskip("tensorflow")
    spec = Image((4, 3, 3), served=served)
    given = (
        tf.constant(PHOTOS)
        if served == "pixels"
        else tf.constant([file_of(photo) for photo in PHOTOS])
    )
    found = tf.function(spec.serve)({"x": given}).numpy()
    assert found.dtype == "uint8"
    # One level: where a mean of pixels is a half, rounding may go either way.
    difference = found.astype(int) - spec.prepare(PHOTOS, "`x`")
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.1


def served_files() -> dict[str, bytes]:
    """Square photos in many kinds of files."""
    colours = Pillow.fromarray(RNG.integers(0, 256, (16, 16, 3), dtype="uint8"))
    smooth = Pillow.fromarray(PHOTOS[0]).resize((16, 16), Pillow.Resampling.BICUBIC)
    grey = smooth.convert("L")
    deep = Pillow.fromarray((np.asarray(grey).astype("uint16") << 8) | 200)
    clear = Pillow.merge("RGBA", [*colours.split(), grey])
    photos = {
        "bmp": [colours, grey, colours.convert("P"), clear],
        "gif": [grey, colours.convert("P")],
        "jpeg": [smooth, grey, smooth.convert("CMYK")],
        "png": [colours, grey, deep, clear, grey.convert("LA"), grey.convert("1")],
    }
    files = {}
    for kind, given in photos.items():
        for photo in given:
            file = io.BytesIO()
            photo.save(file, kind)
            files[f"{kind} {photo.mode}"] = file.getvalue()
    for orientation in range(1, 9):
        exif = Pillow.Exif()
        exif[0x010F], exif[0x0112] = "maker", orientation
        file = io.BytesIO()
        smooth.save(file, "jpeg", exif=exif)
        files[f"turned {orientation}"] = file.getvalue()
    # A part before the EXIF, the EXIF of the other order of bytes, and a broken one.
    turned = files["turned 6"]
    files["second part"] = turned[:2] + b"\xff\xe0\x00\x06abcd" + turned[2:]
    entry = struct.pack("<HHHIHH", 1, 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + entry + b"\0\0\0\0"
    part = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    plain = files["jpeg RGB"]
    files["little"] = plain[:2] + part + plain[2:]
    files["broken"] = turned.replace(b"MM\0*\0\0\0\x08", b"MM\0*\x7f\xff\0\x08")
    return files


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("channels", [1, 3])
def test_served_files_have_the_pixels_of_prediction(channels: int) -> None:
    tf = pytest.importorskip("tensorflow")
    spec = Image((16, 16, channels), served="bytes")
    files = served_files()
    found = tf.function(spec.serve)({"x": tf.constant([*files.values()])}).numpy()
    expected = spec.prepare([*files.values()], "`x`")
    wrong = [
        name
        for name, one, other in zip(files, found, expected, strict=True)
        if not np.array_equal(one, other)
    ]
    assert not wrong
    assert not np.array_equal(expected[[*files].index("turned 6")], expected[0])


def test_served_files_of_other_kinds_are_refused() -> None:
    tf = pytest.importorskip("tensorflow")
    spec = Image((16, 16, 1), served="bytes")
    for photo, kind in ((PHOTOS[0], "tiff"), (PHOTOS[0, ..., 0] > 99, "bmp")):
        with pytest.raises(tf.errors.InvalidArgumentError):
            tf.function(spec.serve)({"x": tf.constant([file_of(photo, kind)])})
