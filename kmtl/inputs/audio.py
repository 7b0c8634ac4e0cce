"""Sounds, as spectrograms that are made inside the model."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops

from kmtl import _arrays, _checks
from kmtl._registry import register
from kmtl.inputs.base import Input
from kmtl.inputs.scaling import Standardize, as_state
from kmtl.layers.maker import LayerMaker
from kmtl.typing import Config, Shape, Tensor

logger = logging.getLogger("kmtl")
#: Added to a power before its logarithm: silence, in waves within -1 and 1.
FLOOR = 1e-6
#: Clips that are looked at for the mean: of more, evenly spaced ones.
MOST_CLIPS = 256
#: Samples up to here are of a clip a little too loud.
LOUDEST = 2
AS = ("sequence", "map")


@register("input", "audio")
@dataclasses.dataclass(frozen=True)
class Audio(Input):
    """Waveforms of one sampling rate and any lengths, as log-mel spectrograms.

    `fit` and `predict` take a sequence of arrays `(samples,)` or `(samples, 1)`, or an
    array `(N, samples)`: floats within -1 and 1, or 16-bit integers, which are divided
    by 32768. Zeros at the end are padding. Must be fitted on the training clips. The
    spectrogram (`keras.layers.MelSpectrogram`, its power, `log(x + 1e-6)`, standardized
    per band) is a part of the model and of every export, which take waves.

    Args:
        rate: Samples per second.
        seconds: Length that is kept, from the start. None: of the longest training
            clip.
        bands: Mel bands. Defaults to 40.
        window, stride: Seconds of a frame, and from frame to frame. Default to 0.025
            and 0.010.
        lowest, highest: Frequencies in Hertz between which the bands lie. None as the
            highest is half the rate. The lowest defaults to 20.
        give: `"sequence"`, `(N, frames, bands)`, for trunks over sequences, which pass
            padding by, or `"map"`, `(N, frames, bands, 1)`, for those over images.
        samples: Samples that are kept; what `fit` has found, or what `seconds` says.
        statistics: What `fit` has found.

    Example:

    >>> clips = [np.sin(np.arange(n) * 0.3) for n in (900, 1600)]
    >>> sound = kmtl.inputs.Audio(8000, bands=10).fit(clips)
    >>> sound.prepare(clips, "`x`").shape, sound.frames
    ((2, 1600), 20)
    """

    rate: int
    _: dataclasses.KW_ONLY
    seconds: float | None = None
    bands: int = 40
    window: float = 0.025
    stride: float = 0.010
    lowest: float = 20.0
    highest: float | None = None
    give: str = "sequence"
    samples: int | None = None
    statistics: Mapping[str, tuple[float, ...]] | None = None
    _told: set[str] = dataclasses.field(
        default_factory=set, init=False, repr=False, compare=False
    )

    training_rows: ClassVar[str] = "The training clips"
    no_target: ClassVar[str | None] = (
        "The net sees spectrograms, and rows are waves that end in padding: give it "
        "the spectrograms as a kmtl.inputs.Series, and reconstruct that"
    )

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("rate", _checks.check_int("rate", self.rate, 1))
        put("bands", _checks.check_int("bands", self.bands, 1))
        for name in ("window", "stride"):
            least = 2.0 / self.rate
            put(name, _checks.check_range(name, getattr(self, name), least, 60))
        if self.seconds is not None:
            seconds = _checks.check_range("seconds", self.seconds, self.window, 86400)
            put("seconds", seconds)
            # Of a fitted copy, `replace(seconds=...)` changes the samples too.
            put("samples", round(seconds * self.rate))
        if self.samples is not None:
            put("samples", _checks.check_int("samples", self.samples, 1))
        half = self.rate / 2
        highest = half if self.highest is None else self.highest
        _checks.check_range("highest", highest, 0, half, low_open=True)
        _checks.check_range("lowest", self.lowest, 0, highest, high_open=True)
        _checks.check_choice("give", self.give, AS)
        put("statistics", as_state(self.statistics))

    @property
    def fitted(self) -> bool:
        return self.samples is not None and self.statistics is not None

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (self.samples,)

    @property
    def dtype(self) -> str:
        return "float32"

    @property
    def step(self) -> int:
        """Samples from frame to frame."""
        return max(1, round(self.stride * self.rate))

    @property
    def frames(self) -> int:
        """Frames of a clip of the length that is kept."""
        assert self.samples is not None
        return -(-self.samples // self.step)

    def learn(self, data: Any, what: str) -> Self:
        """A copy that knows the length and each band's mean of the training clips."""
        clips = _clips(data, what)
        longest = max((len(clip) for clip in clips), default=0)
        if not longest:
            raise ValueError(
                f"{what} must hold sound. Received: {len(clips)} clips of zeros alone"
            )
        least = round(self.window * self.rate)
        spec = dataclasses.replace(
            self, samples=self.samples or max(longest, least), statistics=None
        )
        waves = spec._padded(clips[:: -(-len(clips) // MOST_CLIPS)], what, {what})
        layer, frames = spec._layer("fit"), WaveFrames(spec.step)
        power = ops.convert_to_numpy(layer(waves)).astype("float64")
        there = ops.convert_to_numpy(frames(waves)) > 0
        return dataclasses.replace(spec, statistics=Standardize().fit(power[there]))

    def prepare(self, data: Any, what: str) -> np.ndarray:
        if (
            isinstance(data, np.ndarray)
            and data.dtype == "float32"
            and data.shape[1:] == self.shape
        ):
            _arrays.check_finite(data, what)
            _check_loudness(data, what)
            return data
        return self._padded(_clips(data, what), what, self._told)

    def is_row(self, thing: Any) -> bool:
        # One channel may have its axis: what decoders of files give.
        channel = getattr(thing, "shape", ())[1:] == (1,)
        return channel or super().is_row(thing)

    def _padded(self, clips: list[np.ndarray], what: str, told: set[str]) -> np.ndarray:
        assert self.samples is not None
        waves = np.zeros((len(clips), self.samples), "float32")
        cut = 0
        for wave, clip in zip(waves, clips, strict=True):
            cut += len(clip) > self.samples
            kept = clip[: self.samples]
            wave[: len(kept)] = kept
        if cut and not told:
            told.add("cut")
            logger.warning(
                "%s holds %d clips of more than %.3g seconds: what follows is left "
                "out, here and in all further clips. Give `kmtl.inputs.Audio(rate, "
                "seconds=...)` for more.", what, cut, self.samples / self.rate,
            )  # fmt: skip
        return waves

    def _layer(self, name: str) -> keras.layers.Layer:
        return LogMel(**self._options(), name=name)

    def _options(self) -> Config:
        return {
            "rate": self.rate,
            "bands": self.bands,
            "window": max(2, round(self.window * self.rate)),
            "step": self.step,
            "lowest": self.lowest,
            "highest": self.rate / 2 if self.highest is None else self.highest,
            "state": self.statistics,
        }

    def encode(self, x: Tensor, make: LayerMaker) -> Tensor:
        x = make.layer(LogMel, "log_mel", **self._options())(x)
        if self.give == "map":
            shape = (self.frames, self.bands, 1)
            x = make.layer(keras.layers.Reshape, "map", target_shape=shape)(x)
        return x

    def mask(self, x: Tensor, make: LayerMaker) -> Tensor | None:
        if self.give == "map":
            return None
        return make.layer(WaveFrames, "mask", step=self.step)(x)

    def serving_signature(self, name: str) -> dict[str, keras.InputSpec]:
        return {name: keras.InputSpec(shape=(None, None), dtype="float32")}

    def serve(self, tensors: Mapping[str, Tensor]) -> Tensor:
        import tensorflow as tf

        ((name, waves),) = tensors.items()
        fits = tf.reduce_all(tf.abs(waves) <= LOUDEST)  # false for NaN
        rule = (
            f"'{name}' must hold finite floats within -1 and 1: divide 16-bit samples "
            "by 32768"
        )
        with tf.control_dependencies([tf.debugging.Assert(fits, [rule, waves])]):
            waves = tf.identity(waves)
        waves = waves[:, : self.samples]
        waves = tf.pad(waves, [[0, 0], [0, self.samples - tf.shape(waves)[1]]])
        return tf.ensure_shape(waves, (None, self.samples))

    def serving_rows(self, name: str, data: Any, what: str) -> dict[str, np.ndarray]:
        clips = _clips(data, what)
        array = np.zeros((len(clips), max(map(len, clips), default=0)), "float32")
        for place, clip in zip(array, clips, strict=True):
            place[: len(clip)] = clip
        return {name: array}

    @property
    def served_prepared(self) -> bool:
        return False


@keras.saving.register_keras_serializable(package="kmtl")
class LogMel(keras.layers.Layer):
    """Log-mel spectrogram of waves, standardized per band; zeros at padding.

    The decibels of `keras.layers.MelSpectrogram` are relative to the loudest clip of a
    batch, so that a clip's would depend on its neighbours: only its power is used.

    Args:
        rate: Samples per second.
        bands: Mel bands.
        window, step: Samples of a frame, and from frame to frame.
        lowest, highest: Hertz.
        state: `center` and `factor` of each band, or None.

    Call arguments:
        inputs: `(N, samples)`.

    Returns:
        `(N, ⌈samples / step⌉, bands)`, float32.
    """

    def __init__(
        self,
        rate: int,
        bands: int,
        window: int,
        step: int,
        lowest: float,
        highest: float,
        state: Mapping[str, tuple[float, ...]] | None = None,
        **options: Any,
    ):
        super().__init__(**{"dtype": "float32", **options})
        self.rate, self.bands, self.window, self.step = rate, bands, window, step
        self.lowest, self.highest = lowest, highest
        self.state = as_state(state)
        self.mel = self._mel()

    def _mel(self) -> keras.layers.Layer:
        return keras.layers.MelSpectrogram(
            fft_length=max(256, 1 << (self.window - 1).bit_length()),
            sequence_length=self.window,
            sequence_stride=self.step,
            sampling_rate=self.rate,
            num_mel_bins=self.bands,
            min_freq=self.lowest,
            max_freq=self.highest,
            power_to_db=False,
            dtype="float32",
            name="mel",
        )

    def build(self, input_shape: Shape) -> None:
        self._shape = tuple(input_shape[1:])
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return self._apply(self.mel, inputs)

    def _apply(self, mel: keras.layers.Layer, waves: Tensor) -> Tensor:
        # Zeros at the end, or the last frames would see the end reflected, which
        # would make them depend on where the padding ends.
        longer = ops.pad(waves, [[0, 0], [0, mel.fft_length]])
        power = ops.swapaxes(mel(longer), -1, -2)[:, : self._frames()]
        x = ops.log(power + FLOOR)
        if self.state is not None:
            x = Standardize().apply(x, self.state)
            there = ops.expand_dims(frames_there(waves, self.step), -1)
            x = x * there
        return x

    def _frames(self) -> int:
        return -(-int(self._shape[0]) // self.step)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], -(-input_shape[1] // self.step), self.bands)

    def to_keras(self) -> keras.Model:
        """Plain Keras layers and operations that do the same."""
        inputs = keras.Input(self._shape, dtype="float32")
        return keras.Model(inputs, self._apply(self._mel(), inputs), name=self.name)

    def get_config(self) -> Config:
        names = ("rate", "bands", "window", "step", "lowest", "highest", "state")
        return {**super().get_config(), **{n: getattr(self, n) for n in names}}


@keras.saving.register_keras_serializable(package="kmtl")
class WaveFrames(keras.layers.Layer):
    """1 at frames before the end of a clip, 0 at those that begin after it.

    Args:
        step: Samples from frame to frame.

    Call arguments:
        inputs: `(N, samples)`, zeros at the end of clips.

    Returns:
        `(N, ⌈samples / step⌉)`, float32.
    """

    def __init__(self, step: int, **options: Any):
        super().__init__(**{"dtype": "float32", **options})
        self.step = step

    def build(self, input_shape: Shape) -> None:
        self._shape = tuple(input_shape[1:])
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return frames_there(inputs, self.step)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], -(-input_shape[1] // self.step))

    def to_keras(self) -> keras.Model:
        """Plain Keras operations that do the same."""
        inputs = keras.Input(self._shape, dtype="float32")
        return keras.Model(inputs, self.call(inputs), name=self.name)

    def get_config(self) -> Config:
        return {**super().get_config(), "step": self.step}


def frames_there(waves: Tensor, step: int) -> Tensor:
    """`(N, frames)`: 1 where a frame begins before the last sample that is not 0."""
    samples = int(waves.shape[1])
    starts = np.arange(0, samples, step)
    numbers = np.arange(1, samples + 1, dtype="float32")
    ends = ops.max(ops.cast(ops.not_equal(waves, 0), "float32") * numbers, axis=1)
    ends = ops.expand_dims(ends, 1)
    return ops.cast(ops.less(starts[None].astype("float32"), ends), "float32")


def _clips(data: Any, what: str) -> list[np.ndarray]:
    """Each clip's samples, float32, without zeros at the end."""
    if not isinstance(data, (list, tuple)) and (
        getattr(getattr(data, "dtype", None), "kind", "f") != "O"
    ):
        data = _arrays.as_array(data, what)
    return [_clip(row, i, what) for i, row in enumerate(data)]


def _clip(row: Any, i: int, what: str) -> np.ndarray:
    name = f"Row {i} of {what}"
    if isinstance(row, (str, bytes)):
        raise TypeError(
            f"{name} must be a waveform, an array of samples: read the file first "
            f"(module `wave`, or tf.audio.decode_wav). Received: {row[:40]!r}"
        )
    wave = _arrays.as_array(row, name)
    if wave.ndim == 2 and 1 in wave.shape:
        wave = wave.reshape(-1)
    if wave.ndim != 1 or wave.dtype.kind not in "iuf":
        raise ValueError(
            f"{name} must be one channel of sound, an array (samples,) of numbers: "
            "average or pick the channels first. "
            f"Received: {wave.dtype} {wave.shape}"
        )
    _arrays.check_finite(wave, name)
    if wave.dtype.kind in "iu":
        if wave.dtype != "int16":
            raise TypeError(
                f"{name} must hold floats within -1 and 1, or 16-bit integers. "
                f"Received: {wave.dtype}"
            )
        wave = wave / np.float32(32768)
    else:
        _check_loudness(wave, name)
    there = np.flatnonzero(wave)
    return wave[: there[-1] + 1 if len(there) else 0].astype("float32")


def _check_loudness(waves: np.ndarray, what: str) -> None:
    """Refuse what is not within -1 and 1, but for clips a little too loud."""
    loudest = max(waves.max(), -waves.min()) if waves.size else 0.0
    if loudest > LOUDEST:
        raise ValueError(
            f"{what} must hold floats within -1 and 1: divide 16-bit samples by 32768. "
            f"Received: up to {loudest:.4g}"
        )
