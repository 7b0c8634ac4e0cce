"""Series of measurements, of one length or of many."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import keras
import numpy as np

from kmtl import _arrays, _checks
from kmtl._registry import register
from kmtl.inputs.base import Input
from kmtl.inputs.scaling import SCALES, ColumnScaling, as_state, check_scale
from kmtl.layers.maker import LayerMaker
from kmtl.typing import Config, Shape, Tensor

logger = logging.getLogger("kmtl")
#: Steps that are looked at for the scale: of more, evenly spaced ones.
MOST_STEPS = 2**22


@register("input", "series")
@dataclasses.dataclass(frozen=True)
class Series(Input):
    """Steps of time, each with the same channels; as many steps as there are.

    `fit` and `predict` take a sequence of arrays `(steps, channels)` of any lengths, or
    `(steps,)` where there is one channel; or an array `(N, steps, channels)`, in which
    steps of NaN alone at the end are padding. Must be fitted on the training rows.

    The prepared array `(N, length, channels + 1)` has the channels, zeros at padding,
    and last a 1 at each step that is there. Trunks over sequences pass padding by.

    Args:
        length: Steps of a series that are kept, the first ones. None: of the longest
            training series.
        scale: Of each channel: `"standardize"` (mean and standard deviation; the
            default), `"robust"`, `"quantile"` or None, as of `kmtl.inputs.Array`.
        channels: Number of channels; what `fit` has found.
        statistics: What `fit` has found.

    Example:

    >>> series = kmtl.inputs.Series().fit([[[1.0], [3.0]], [[2.0]]])
    >>> series.prepare([[[5.0]]], "`x`").tolist()
    [[[5.0, 1.0], [0.0, 0.0]]]
    """

    length: int | None = None
    _: dataclasses.KW_ONLY
    scale: str | None = "standardize"
    channels: int | None = None
    statistics: Mapping[str, tuple[float, ...]] | None = None
    _told: set[str] = dataclasses.field(
        default_factory=set, init=False, repr=False, compare=False
    )

    ends_in_mask: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("length", "channels"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _checks.check_int(name, value, 1))
        check_scale(self.scale)
        object.__setattr__(self, "statistics", as_state(self.statistics))

    @property
    def fitted(self) -> bool:
        known = self.length is not None and self.channels is not None
        return known and (self.scale is None or self.statistics is not None)

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (self.length, None if self.channels is None else self.channels + 1)

    @property
    def dtype(self) -> str:
        return "float32"

    def learn(self, data: Any, what: str) -> Self:
        """A copy that knows the channels' scales and the longest series."""
        rows = _series(data, what)
        steps = [row for row in rows if len(row)]
        if not steps:
            raise ValueError(
                f"{what} must hold steps. Received: {len(rows)} rows without any"
            )
        channels = steps[0].shape[1]
        _check_channels(rows, channels, what)
        values = np.concatenate(steps).astype("float64")
        values = values[:: -(-len(values) // MOST_STEPS)]
        return dataclasses.replace(
            self,
            length=self.length or max(map(len, steps)),
            channels=channels,
            statistics=None if self.scale is None else SCALES[self.scale].fit(values),
        )

    def prepare(self, data: Any, what: str) -> np.ndarray:
        assert self.length is not None
        assert self.channels is not None
        if isinstance(data, np.ndarray) and self._is_prepared(data):
            return data
        rows = _series(data, what)
        _check_channels(rows, self.channels, what)
        array = np.zeros((len(rows), self.length, self.channels + 1), "float32")
        cut = 0
        for place, row in zip(array, rows, strict=True):
            cut += len(row) > self.length
            kept = row[: self.length]
            place[: len(kept), :-1] = kept
            place[: len(kept), -1] = 1.0
        if cut and "cut" not in self._told:
            self._told.add("cut")
            logger.warning(
                "%s holds %d series of more than %d steps: what follows is left out, "
                "here and in all further series. Give `kmtl.inputs.Series(length=...)` "
                "for more.", what, cut, self.length,
            )  # fmt: skip
        return array

    def _is_prepared(self, data: np.ndarray) -> bool:
        return (
            data.dtype == "float32"
            and data.shape[1:] == self.shape
            and bool(np.isin(data[..., -1], (0.0, 1.0)).all())
        )

    def encode(self, x: Tensor, make: LayerMaker) -> Tensor:
        scaled = x
        if self.scale is not None:
            scaled = make.layer(
                ColumnScaling,
                "scaling",
                scale=self.scale,
                state=self.statistics,
                columns=self.channels,
            )(x)
        return make.layer(Steps, "steps")(scaled)

    def step_sizes(self) -> np.ndarray:
        """The last channel says which steps are there: it is not to be changed."""
        sizes = np.ones(int(self.shape[-1] or 0), "float32")
        sizes[-1] = 0
        return sizes

    def mask(self, x: Tensor, make: LayerMaker) -> Tensor:
        return make.layer(Steps, "mask", mask=True)(x)

    def serving_signature(self, name: str) -> dict[str, keras.InputSpec]:
        shape = (None, None, self.channels)
        return {name: keras.InputSpec(shape=shape, dtype="float32")}

    def serve(self, tensors: Mapping[str, Tensor]) -> Tensor:
        import tensorflow as tf

        (x,) = tensors.values()
        there = tf.reduce_any(~tf.math.is_nan(x), axis=-1, keepdims=True)
        # Gaps in the middle are steps: what follows the last one is padding.
        there = tf.cumsum(tf.cast(there, "int32"), axis=1, reverse=True) > 0
        fits = tf.reduce_all(tf.math.is_finite(x) | ~there)
        rule = "Series must hold finite numbers: fill the gaps (NaN pads ends alone)"
        with tf.control_dependencies([tf.debugging.Assert(fits, [rule, x])]):
            x = tf.where(there, x, tf.zeros_like(x))
        x = tf.concat([x, tf.cast(there, x.dtype)], axis=-1)[:, : self.length]
        x = tf.pad(x, [[0, 0], [0, self.length - tf.shape(x)[1]], [0, 0]])
        return tf.ensure_shape(x, (None, *self.shape))

    def serving_rows(self, name: str, data: Any, what: str) -> dict[str, np.ndarray]:
        rows = _series(data, what)
        longest = max(map(len, rows), default=0)
        array = np.full((len(rows), longest, self.channels or 1), np.nan, "float32")
        for place, row in zip(array, rows, strict=True):
            place[: len(row)] = row
        return {name: array}

    @property
    def served_prepared(self) -> bool:
        return False


@keras.saving.register_keras_serializable(package="kmtl")
class Steps(keras.layers.Layer):
    """The steps of a prepared series, zeros at padding; or the mask that says which.

    Args:
        mask: Whether to give the mask, `(N, L)`. Defaults to False.

    Call arguments:
        inputs: `(N, L, C + 1)`, with the mask last.

    Returns:
        `(N, L, C)`, float32.
    """

    def __init__(self, mask: bool = False, **options: Any):
        super().__init__(**{"dtype": "float32", **options})
        self.mask = bool(mask)

    def build(self, input_shape: Shape) -> None:
        self._shape = tuple(input_shape[1:])
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        if self.mask:
            return inputs[..., -1]
        return inputs[..., :-1] * inputs[..., -1:]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if self.mask:
            return tuple(input_shape[:-1])
        return (*input_shape[:-1], input_shape[-1] - 1)

    def to_keras(self) -> keras.Model:
        """Plain Keras operations that do the same."""
        inputs = keras.Input(self._shape, dtype="float32")
        return keras.Model(inputs, self.call(inputs), name=self.name)

    def get_config(self) -> Config:
        return {**super().get_config(), "mask": self.mask}


def _series(data: Any, what: str) -> list[np.ndarray]:
    """Each row's steps `(steps, channels)`, float32, without padding."""
    if not isinstance(data, (list, tuple)) and (
        getattr(getattr(data, "dtype", None), "kind", "f") != "O"
    ):
        data = _arrays.as_array(data, what)
        if data.ndim == 2:
            data = data[..., None]
        if data.ndim != 3:
            raise ValueError(
                f"{what} must be a sequence of arrays (steps, channels), or an array "
                f"(N, steps, channels). Received: shape={data.shape}"
            )
    return [_steps(row, i, what) for i, row in enumerate(data)]


def _steps(row: Any, i: int, what: str) -> np.ndarray:
    name = f"Row {i} of {what}"
    steps = _arrays.as_array(row, name)
    if steps.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} must hold numbers, (steps, channels). "
            f"Received: {steps.dtype}, {steps.ravel()[:1].tolist()}"
        )
    if steps.ndim == 1:
        steps = steps[:, None]
    if steps.ndim != 2:
        raise ValueError(
            f"{name} must have shape (steps, channels). Received: {steps.shape}"
        )
    if steps.dtype.kind == "f":
        there = np.flatnonzero(~np.isnan(steps).all(axis=1))
        steps = steps[: there[-1] + 1] if len(there) else steps[:0]
        _arrays.check_finite(steps, name, ": fill the gaps (NaN pads ends alone)")
    return steps.astype("float32")


def _check_channels(rows: list[np.ndarray], channels: int, what: str) -> None:
    for i, row in enumerate(rows):
        if len(row) and row.shape[1] != channels:
            raise ValueError(
                f"Row {i} of {what} must have {channels} channels, as the training "
                f"rows had. Received: shape={row.shape}"
            )
