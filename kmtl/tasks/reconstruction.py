"""The input itself as a target (autoencoding), or another image of its shape."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.tasks.base import Task, takes_logits
from kmtl.tasks.decoders import DECODERS
from kmtl.tasks.heads import map_head, map_size, vector_head
from kmtl.typing import Inputs, Shape, Tensor


@register("task", "reconstruction")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Reconstruction(Task):
    """Reproduce the input, of any fixed shape, such as `(N, H, W, C)` or `(N, F)`.

    Needs no labels: without an entry of its own in the label dict the model's input is
    the target (uint8 inputs are scaled to [0, 1] as the trunk sees them). Outputs
    values for `mse`, logits for `binary_cross_entropy` (exports probabilities).
    Losses: `mse` (default), `mae`, `binary_cross_entropy` (targets in [0, 1]).
    Metrics: `mse` (default), `mae`, `psnr` (dB, peak 1). Missing: NaN entries. See
    `kmtl.Task` for the other arguments; `hidden` are filters per stage.

    Args:
        decoder: `"conv"`, `"unet"`, `"fpn"`, `"aspp"` or `"dense"`, as for
            `kmtl.Segmentation`.
        scale: Factor on the input where it is the target. Set by the builders.
        input: Name of the input that is the target, for models with several. Defaults
            to the only one.

    Example:

    >>> kmtl.Reconstruction("image", loss="binary_cross_entropy", auxiliary=True).loss
    'binary_cross_entropy'
    """

    missing: float | None = math.nan
    size: tuple[int, int] | None = None
    decoder: str = "conv"
    scale: float = 1.0
    input: str | None = None

    LOSSES: ClassVar = {
        "mse": losses.mse,
        "mae": losses.mae,
        "binary_cross_entropy": losses.binary_cross_entropy,
    }
    METRICS: ClassVar = {
        "mse": (lambda task, name: task._on_values(metrics.SquaredError, name), False),
        "mae": (lambda task, name: task._on_values(metrics.AbsoluteError, name), False),
        "psnr": (lambda task, name: task._on_values(metrics.PSNR, name), True),
    }
    DEFAULT_METRICS = ("mse",)
    dense_prediction = True
    target_is_input = True
    values_from_logits = True

    def __post_init__(self) -> None:
        _checks.check_choice("decoder", self.decoder, DECODERS)
        if self.size is not None:
            object.__setattr__(self, "size", _checks.check_size(self.size))
        if self.input is not None and not isinstance(self.input, str):
            raise TypeError(
                f"`input` of task '{self.name}' must be the name of one of the model's "
                f"inputs. Received: input={self.input!r}"
            )
        super().__post_init__()
        if self.labels is not None:
            raise ValueError(f"Reconstruction task '{self.name}' has no `labels`.")

    @property
    def label_count(self) -> int:
        return 1

    @property
    def logits(self) -> bool:
        """Whether the outputs go through a sigmoid to become values."""
        if self._terms:
            return any(term.task.logits for term in self._terms)
        return self.loss == "binary_cross_entropy" or bool(takes_logits(self.loss))

    def _on_values(self, metric: type, name: str) -> keras.metrics.Metric:
        made = metric(name=name)
        if self.logits:
            values = made.values
            made.values = lambda labels, outputs: values(labels, ops.sigmoid(outputs))
        return made

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return tuple(labels.shape[1:])

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        if labels is None:
            labels = ops.cast(self.target_in(inputs), "float32") * self.scale
        labels, mask = super().clean_labels(labels)
        return ops.cast(labels, "float32"), mask

    def target_in(self, inputs: Inputs) -> Tensor:
        """The one of a model's inputs that is the target.

        Raises:
            ValueError: if that cannot be told.
        """
        if isinstance(inputs, Mapping) and self.input in inputs:
            return inputs[self.input]
        found = keras.tree.flatten(inputs)
        if len(found) != 1:
            raise ValueError(
                f"Task '{self.name}' takes its target from the inputs: give them as a "
                f"dict with {repr(self.input) if self.input else 'one entry'}. "
                f"Received: {type(inputs).__name__} of {len(found)}"
            )
        return found[0]

    def output_shape(self, input_shape: Shape) -> tuple | None:
        if input_shape is None:
            return None
        shape = tuple(input_shape)
        if self.size is not None and len(shape) == 3:
            shape = (*self.size, shape[-1])
        return shape

    def build_head(self, features: Tensor, head: Any) -> Tensor:
        shape = head.input_shape
        if len(shape) != 3:
            if self.size is not None or None in shape:
                raise ValueError(
                    f"Task '{self.name}' needs a static input shape, and takes `size` "
                    f"for inputs (height, width, channels) only. "
                    f"Received: input_shape={shape}, size={self.size}"
                )
            flat = dataclasses.replace(self, pooling="flatten")
            x = vector_head(features, head, flat, math.prod(shape))
            if len(shape) == 1:
                return x
            return keras.layers.Reshape(shape, name=head.make.name("map"))(x)
        return map_head(features, head, self, int(shape[-1] or 0), map_size(self, head))

    @property
    def output_activation(self) -> str:
        return "sigmoid" if self.logits else "linear"

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        shape = self.output_shape(input_shape) or ()
        # Keras takes inputs of one channel without the axis too.
        return [shape, shape[:-1]] if shape[-1:] == (1,) else [shape]

    @property
    def label_range(self) -> tuple[float, float]:
        return (0.0, 1.0) if self.logits else super().label_range

    @property
    def label_rule(self) -> str:
        if not self.logits:
            return super().label_rule
        return (
            f"Targets of task '{self.name}' must be in [0, 1] for "
            "loss='binary_cross_entropy'"
        )
