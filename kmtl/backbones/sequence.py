"""What the trunks over sequences have in common."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import keras

from kmtl import _checks
from kmtl.backbones.base import Backbone
from kmtl.inputs.base import Input
from kmtl.layers.maker import LayerMaker
from kmtl.layers.sequences import (
    Masked,
    MaskedBatchNormalization,
    MaskedPooling,
    MaskWindows,
    PaddingMask,
    Positions,
)
from kmtl.typing import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceBackbone(Backbone):
    """Base class of trunks over the steps of sequences.

    Inputs are token ids `(L,)`, which block 0 embeds, or features `(L, C)` of steps.
    Padded steps count for nothing: whatever padding follows a sequence, the outputs are
    the same. All blocks give a sequence `(N, L, C)`; heads read the mean (or maximum:
    the task's `pooling`) of its steps.

    Args:
        vocabulary: Number of token ids, where inputs are ids; None for features.
        embedding: Width of a token's embedding. Defaults to 64.
        mask_zero: Whether token 0, or a step of zeros alone, is padding. None: for
            tokens it is, for features it is not. An input that says itself where it is
            padded (`kmtl.inputs`) needs no such rule.
        dropout, activation, normalization, kernel_regularizer: See `Backbone`.
    """

    vocabulary: int | None = None
    embedding: int = 64
    mask_zero: bool | None = None

    INPUT_RANKS: ClassVar[tuple[int, ...]] = (1, 2)
    ENCODES: ClassVar[tuple[str, ...]] = ("text", "tokens")

    def __post_init__(self) -> None:
        if self.vocabulary is not None:
            vocabulary = _checks.check_int("vocabulary", self.vocabulary, 2)
            object.__setattr__(self, "vocabulary", vocabulary)
        width = _checks.check_int("embedding", self.embedding, 1)
        object.__setattr__(self, "embedding", width)
        if self.mask_zero is not None:
            _checks.check_choice("mask_zero", self.mask_zero, (True, False))
        super().__post_init__()

    def for_inputs(self, inputs: Mapping[str, Input]) -> Backbone:
        tokens = [getattr(spec, "tokens", None) for spec in inputs.values()]
        if len(tokens) != 1 or tokens[0] is None:
            return self
        if self.vocabulary is not None and self.vocabulary < tokens[0]:
            raise ValueError(
                f"`vocabulary` of backbone '{self.registered_name}' must count all "
                f"tokens of the input, which are {tokens[0]}: leave it out. "
                f"Received: vocabulary={self.vocabulary}"
            )
        return dataclasses.replace(self, vocabulary=tokens[0])

    def check_input_shape(self, input_shape: tuple) -> None:
        super().check_input_shape(input_shape)
        kind = self.registered_name
        if len(input_shape) == 1 and self.vocabulary is None:
            raise ValueError(
                f"`input_shape` of backbone '{kind}' must be (steps, features); for "
                "token ids (steps,) give the backbone their number, `vocabulary=`, and "
                "for a series of single numbers use (steps, 1). "
                f"Received: input_shape={tuple(input_shape)}"
            )
        if len(input_shape) == 2 and input_shape[-1] is None:
            raise ValueError(
                f"`input_shape` of backbone '{kind}' must end in a known number of "
                f"features. Received: input_shape={tuple(input_shape)}"
            )

    # -- padding -----------------------------------------------------------------------

    def window(self, index: int) -> int:
        """Steps that block `index` (0-based) makes one of."""
        return 1

    def masks(
        self, inputs: Tensor, make: LayerMaker, given: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        mask = given
        tokens = len(inputs.shape) == 2
        if mask is None:
            if not (tokens if self.mask_zero is None else self.mask_zero):
                return ()
            mask = make.layer(PaddingMask, "padding_mask")(inputs)
        masks = [mask]
        for index in range(self.num_blocks):
            size = self.window(index)
            if size > 1:
                name = f"padding_mask_block{index + 1}"
                mask = make.layer(MaskWindows, name, size=size)(mask)
            masks.append(mask)
        return tuple(masks)

    def mask(self, index: int, make: LayerMaker) -> Tensor | None:
        """The mask of what block `index` reads, `(N, L)`; None without padding."""
        return make.masks[index] if make.masks else None

    def with_mask(
        self, features: Tensor, index: int, make: LayerMaker
    ) -> Tensor | list[Tensor]:
        """What a layer on sequences takes: features, and their mask if there is one."""
        mask = self.mask(index, make)
        return features if mask is None else [features, mask]

    def cleared(self, index: int, features: Tensor, make: LayerMaker) -> Tensor:
        """Features with zeros at the padding, for what looks across steps."""
        mask = self.mask(index, make)
        if mask is None:
            return features
        return make.layer(Masked, "masked")([features, mask])

    # -- parts of blocks ---------------------------------------------------------------

    def start(
        self, features: Tensor, make: LayerMaker, width: int | None = None
    ) -> Tensor:
        """Token ids become embeddings; features stay what they are.

        Args:
            width: Width of the embeddings instead of `embedding`.
        """
        if len(features.shape) > 2:
            return features
        width = self.embedding if width is None else width
        return make.layer(
            keras.layers.Embedding,
            "embedding",
            input_dim=self.vocabulary,
            output_dim=width,
            embeddings_initializer=keras.initializers.RandomNormal(
                stddev=1.0 / math.sqrt(width), seed=make.layer_seed("embedding")
            ),
        )(features)

    def normalize(
        self, index: int, features: Tensor, make: LayerMaker, name: str = "norm"
    ) -> Tensor:
        """The trunk's normalisation, if it has one."""
        if self.normalization is None:
            return features
        if self.normalization != "batch" or self.mask(index, make) is None:
            return make.normalization(self.normalization, name)(features)
        norm = make.normalization("batch", name, MaskedBatchNormalization)
        return norm(self.with_mask(features, index, make))

    def positions(self, features: Tensor, make: LayerMaker) -> Tensor:
        """Features that tell one step from another."""
        return make.layer(Positions, "positions")(features)

    def gate_input(self, features: Tensor, make: LayerMaker) -> Tensor:
        features = self.start(features, make)
        if not make.masks:
            return features
        mask = next(m for m in make.masks if m.shape[1] == features.shape[1])
        return make.layer(MaskedPooling, "pool", pooling="avg")([features, mask])
