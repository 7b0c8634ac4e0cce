"""The input itself as a target (autoencoding), or another image of its shape."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.gaussian_latent import GaussianLatent
from kmtl.tasks.base import Task, takes_logits
from kmtl.tasks.decoders import DECODERS
from kmtl.tasks.heads import HeadContext, map_head, map_size, to_vector, vector_head
from kmtl.tasks.terms import MOST_WEIGHT, Term, terms_of
from kmtl.typing import Inputs, Shape, Tensor


@register("task", "reconstruction")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Reconstruction(Task):
    """Reproduce the input, of any fixed shape, such as `(N, H, W, C)` or `(N, F)`.

    Needs no labels: without an entry of its own in the label dict the model's input is
    the target (uint8 inputs are scaled to [0, 1] as the trunk sees them). Of a
    `kmtl.inputs.Series` the steps that are there are the target; its values, and those
    of an `Array`, in the unit in which they are given: standardize columns that differ
    much. A `Table`, `Audio`, `Text` or `Tokens` is no target, and refused: for a table,
    train a task of its kind for each column, with the column as its label. Outputs
    values for `mse`, logits for `binary_cross_entropy` (exports probabilities).
    Losses: `mse` (default), `mae`, `binary_cross_entropy` (targets in [0, 1]).
    Metrics: `mse` (default), `mae`, `psnr` (dB, peak 1). Missing: NaN entries. See
    `kmtl.Task` for the other arguments; `hidden` are filters per stage.

    To reconstruct from less than all of the input, change what the net sees while it
    trains, `model.compile(adversary=kmtl.training.InputNoise(0.1))` (denoising), or
    `kmtl.training.HideInputs(0.5, patch=4)` (masked: the loss is then that of what is
    hidden); the target is the clean input. All tasks of the model see the changed one.

    With `variational` all that the outputs know of the input goes through a vector
    drawn from a normal distribution (Kingma and Welling 2014, arXiv:1312.6114), its
    mean at inference and in exports. The loss is then that of the values plus
    `kl_weight` times the divergence of that distribution from the standard normal one,
    in nats per value, logged as `<task>_kl_loss` beside `<task>_<loss>_loss`.

    Args:
        decoder: `"conv"`, `"unet"`, `"fpn"`, `"aspp"` or `"dense"`, as for
            `kmtl.Segmentation`.
        scale: Factor on the input where it is the target. Set by the builders.
        ends_in_mask: Whether the last channel of the input is no target, but says which
            steps are there. Set by the builders.
        input: Name of the input that is the target, for models with several. Defaults
            to the only one.
        variational: Numbers of the latent vector, >= 1. None (default): a plain
            autoencoder. Needs `decoder` `"conv"`, `"aspp"` or `"dense"`: others look
            past the vector.
        kl_weight: Factor of the divergence, >= 0 (the beta of a beta-VAE). Defaults
            to 1, which is the bound on the likelihood for `binary_cross_entropy`.

    Example:

    >>> kmtl.Reconstruction("image", loss="binary_cross_entropy", auxiliary=True).loss
    'binary_cross_entropy'
    >>> task = kmtl.Reconstruction("row", variational=2)
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=[task], units=(8,), seed=0)
    >>> model.compile("adam")
    >>> logs = model.fit(np.ones((6, 4)), verbose=0).history
    >>> sorted(logs)
    ['loss', 'row_kl_loss', 'row_loss', 'row_mse', 'row_mse_loss']
    """

    missing: float | None = math.nan
    size: tuple[int, int] | None = None
    decoder: str = "conv"
    scale: float = 1.0
    ends_in_mask: bool = False
    input: str | None = None
    variational: int | None = None
    kl_weight: float = 1.0

    #: This is the divergence of a task, one of its losses.
    _is_divergence: ClassVar[bool] = False
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
    needs_labels = False
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
        if self.variational is not None:
            self._check_variational()

    def _check_variational(self) -> None:
        size = _checks.check_int("variational", self.variational, 1)
        object.__setattr__(self, "variational", size)
        weight = _checks.check_range("kl_weight", self.kl_weight, 0, MOST_WEIGHT)
        object.__setattr__(self, "kl_weight", weight)
        if self.decoder in ("unet", "fpn"):
            raise ValueError(
                f"`decoder` of task '{self.name}' must be 'conv', 'aspp' or 'dense' "
                "with `variational`: others look past the latent vector. "
                f"Received: decoder='{self.decoder}'"
            )
        divergence = copy.copy(self)
        object.__setattr__(divergence, "_is_divergence", True)
        # The one loss gets a name, as there are two parts now.
        name = self.loss if isinstance(self.loss, str) else "values"
        own = [
            Term(
                term.name or name,
                term.weight,
                dataclasses.replace(term.task, variational=None, metrics=()),
            )
            for term in terms_of(self)
        ]
        terms = (*own, Term("kl", self.kl_weight, divergence))
        object.__setattr__(self, "_terms", terms)

    @property
    def has_mean(self) -> bool:  # type: ignore[override]
        return self.variational is None

    @property
    def keeps_beside(self) -> bool:  # type: ignore[override]
        return self.variational is not None

    def loss_values_beside(
        self, labels: Tensor, outputs: Tensor, mask: Tensor, beside: Tensor
    ) -> Tensor:
        if not self._is_divergence:
            return super().loss_values_beside(labels, outputs, mask, beside)
        # Of a row, in equal parts on its values: their sum is the row's.
        rows = ops.reshape(beside, (-1, *[1] * (len(mask.shape) - 1)))
        count = ops.sum(mask, axis=tuple(range(1, len(mask.shape))), keepdims=True)
        return ops.where(mask > 0, rows / ops.maximum(count, 1.0), 0.0)

    def masked_loss_values(
        self, labels: Tensor, outputs: Tensor, mask: Tensor
    ) -> Tensor:
        if self._is_divergence:  # of outputs without a latent vector, inside the model
            return ops.zeros_like(mask)
        return super().masked_loss_values(labels, outputs, mask)

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
            return self._there(inputs[self.input])
        found = keras.tree.flatten(inputs)
        if len(found) != 1:
            raise ValueError(
                f"Task '{self.name}' takes its target from the inputs: give them as a "
                f"dict with {repr(self.input) if self.input else 'one entry'}. "
                f"Received: {type(inputs).__name__} of {len(found)}"
            )
        return self._there(found[0])

    def _there(self, x: Tensor) -> Tensor:
        """The target in an input: its channels, NaN where a step is not there."""
        if not self.ends_in_mask:
            return x
        return ops.where(x[..., -1:] > 0, x[..., :-1], math.nan)

    def output_shape(self, input_shape: Shape) -> tuple | None:
        if input_shape is None:
            return None
        shape = tuple(input_shape)
        if self.ends_in_mask:
            shape = (*shape[:-1], shape[-1] - 1)
        if self.size is not None and len(shape) == 3:
            shape = (*self.size, shape[-1])
        return shape

    def _through_latent(self, features: Tensor, head: HeadContext) -> Tensor:
        """Features of the same shape that know the latent vector alone."""
        shape = tuple(features.shape[1:])
        if None in shape:
            raise ValueError(
                f"Task '{self.name}' with `variational` needs a static input shape. "
                f"Received: features of shape {shape}"
            )
        make = head.make
        vector = to_vector(features, head, "flatten")
        vector = make.dense(2 * int(self.variational or 0), "distribution")(vector)
        seed = make.layer_seed("latent")
        vector = make.layer(GaussianLatent, "latent", task=self.name, seed=seed)(vector)
        x = make.dense(math.prod(shape), "unfold")(vector)
        x = make.activation(self.activation, "unfolded")(x)
        if len(shape) == 1:
            return x
        return make.layer(keras.layers.Reshape, "folded", target_shape=shape)(x)

    def build_head(self, features: Tensor, head: Any) -> Tensor:
        if self.variational is not None:
            features = self._through_latent(features, head)
        shape = head.input_shape
        if self.ends_in_mask:
            shape = self.output_shape(shape) or shape
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
