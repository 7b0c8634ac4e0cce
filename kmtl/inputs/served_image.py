"""Image files as a served model reads them: what Pillow does, in TensorFlow."""

from __future__ import annotations

from kmtl.typing import Tensor

#: Of red, green and blue in grey, in 2 ** -16: those of Pillow, and of ITU-R 601-2.
GREY = (19595, 38470, 7471)
#: The EXIF tag of the orientation, and the types of its value, of 2 and 4 bytes.
ORIENTATION, SHORT, LONG = 0x0112, 3, 4


def pixels_of(file: Tensor, channels: int) -> Tensor:
    """The upright pixels of a file, `(height, width, channels)`, uint8.

    Args:
        file: A string tensor, the bytes of a JPEG, PNG, GIF or BMP file.
        channels: 1 or 3. Always read in colours first: TensorFlow has no grey of most
            kinds of files.
    """
    import tensorflow as tf

    def jpeg() -> Tensor:  # as Pillow does; by default it is a few levels off
        pixels = tf.io.decode_jpeg(file, 3, dct_method="INTEGER_ACCURATE")
        return _upright(pixels, _orientation(file))

    def bmp() -> Tensor:
        data = tf.io.decode_raw(file, "uint8")
        return tf.cond(tf.equal(data[28], 8), lambda: _of_palette(file), any_kind)

    def any_kind() -> Tensor:
        return tf.io.decode_image(file, 3, expand_animations=False)

    is_bmp = tf.equal(tf.strings.substr(file, 0, 2), "BM")
    is_bmp &= tf.strings.length(file) > 54
    pixels = tf.cond(tf.io.is_jpeg(file), jpeg, lambda: tf.cond(is_bmp, bmp, any_kind))
    pixels = tf.ensure_shape(pixels, (None, None, 3))
    if channels == 3:
        return pixels
    grey = tf.reduce_sum(tf.cast(pixels, "int32") * GREY, axis=-1, keepdims=True)
    return tf.cast(tf.bitwise.right_shift(grey + 2**15, 16), "uint8")


def _of_palette(file: Tensor) -> Tensor:
    """A BMP file of one byte per pixel, the number of a colour."""
    import tensorflow as tf

    header = tf.cast(tf.io.decode_raw(tf.strings.substr(file, 0, 54), "uint8"), "int32")
    begin = 14 + _whole(header[14:18])
    colours = _whole(header[46:50])
    colours = tf.where(colours > 0, colours, 256)
    palette = tf.io.decode_raw(tf.strings.substr(file, begin, 4 * colours), "uint8")
    palette = tf.reverse(tf.reshape(palette, (-1, 4))[:, :3], [1])
    numbers = tf.cast(tf.io.decode_bmp(file)[..., 0], "int32")
    rule = "A BMP file must have all the colours of its pixels in its palette"
    fits = tf.reduce_max(numbers) < tf.shape(palette)[0]
    with tf.control_dependencies([tf.debugging.Assert(fits, [rule, colours])]):
        return tf.gather(palette, tf.identity(numbers))


def _whole(data: Tensor) -> Tensor:
    """The number of four bytes, the last one the largest."""
    import tensorflow as tf

    return tf.reduce_sum(data * [1, 2**8, 2**16, 2**24])


def _orientation(file: Tensor) -> Tensor:
    """What the EXIF tag of a JPEG file says, 1 to 8; 0 where there is none."""
    import tensorflow as tf

    data = tf.cast(tf.io.decode_raw(file, "uint8"), "int32")
    size = tf.size(data)

    def at(place: Tensor) -> Tensor:
        """The byte of a place; 0 outside of the file."""
        inside = (place >= 0) & (place < size)
        return tf.where(inside, tf.gather(data, tf.where(inside, place, 0)), 0)

    def is_exif(place: Tensor) -> Tensor:
        name = tf.strings.substr(file, tf.minimum(place + 4, size), 6)
        marker = (at(place) == 0xFF) & (at(place + 1) == 0xE1)
        return marker & tf.equal(name, b"Exif\x00\x00")

    def goes_on(place: Tensor) -> Tensor:
        # Pixels begin behind the marker DA.
        marker = (at(place) == 0xFF) & (at(place + 1) != 0xDA)
        return marker & ~is_exif(place)

    def next_one(place: Tensor) -> Tensor:
        return (place + 2 + at(place + 2) * 256 + at(place + 3),)

    (place,) = tf.while_loop(goes_on, next_one, [tf.constant(2)])
    begin = place + 10
    little = at(begin) == ord("I")

    def short(place: Tensor) -> Tensor:
        low, high = at(place), at(place + 1)
        return tf.where(little, low + 256 * high, high + 256 * low)

    def long(place: Tensor) -> Tensor:
        first, second = short(place), short(place + 2)
        return tf.where(little, first + second * 2**16, second + first * 2**16)

    table = begin + long(begin + 4)
    entries = table + 2 + 12 * tf.range(short(table))
    kinds = short(entries + 2)
    values = tf.where(tf.equal(kinds, SHORT), short(entries + 8), long(entries + 8))
    there = tf.equal(short(entries), ORIENTATION)
    there &= tf.equal(kinds, SHORT) | tf.equal(kinds, LONG)
    found = tf.reduce_max(tf.concat([tf.where(there, values, 0), [0]], axis=0))
    return tf.where(is_exif(place), found, 0)


def _upright(pixels: Tensor, orientation: Tensor) -> Tensor:
    import tensorflow as tf

    def one_of(*these: int) -> Tensor:
        return tf.reduce_any(tf.equal(orientation, these))

    def turned(when: Tensor, how: Tensor, pixels: Tensor) -> Tensor:
        return tf.cond(when, lambda: how(pixels), lambda: pixels)

    pixels = turned(one_of(5, 6, 7, 8), lambda x: tf.transpose(x, (1, 0, 2)), pixels)
    pixels = turned(one_of(2, 3, 6, 7), lambda x: tf.reverse(x, [1]), pixels)
    return turned(one_of(3, 4, 7, 8), lambda x: tf.reverse(x, [0]), pixels)
