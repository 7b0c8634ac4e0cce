"""Several copies of a backbone's blocks, run side by side as one."""

from __future__ import annotations

import dataclasses
import inspect
import math
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from kmtl._private.keras import node_of
from kmtl.layers.attention import Attention
from kmtl.layers.columns import Columns
from kmtl.layers.dropout import Dropout
from kmtl.layers.grouped import (
    GroupedConcatenate,
    GroupedDense,
    GroupedFlatten,
    GroupedLayerNormalization,
    PerCopy,
)
from kmtl.layers.grouped_convolution import GROUPED
from kmtl.layers.maker import SOURCE, LayerMaker, _join
from kmtl.layers.members import MemberScale, ToMembers
from kmtl.layers.one_hot_columns import OneHotColumns
from kmtl.layers.periodic_embedding import PeriodicEmbedding
from kmtl.layers.piecewise_linear import PiecewiseLinear
from kmtl.layers.recurrent import Recurrent
from kmtl.layers.sequences import (
    Masked,
    MaskedBatchNormalization,
    MaskedPooling,
    Places,
    Positions,
    WithMask,
)
from kmtl.layers.side_by_side import SideBySide
from kmtl.typing import Config, Layer, Operation, Tensor

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
#: Treat every channel alike and have neither parameters nor randomness.
CHANNELWISE = (
    keras.layers.Activation,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    keras.layers.UpSampling2D,
    ToMembers,
    keras.layers.ZeroPadding2D,
)
#: Treat every channel by itself, with parameters or randomness of its own.
PER_CHANNEL = (
    Dropout,
    keras.layers.BatchNormalization,
    keras.layers.DepthwiseConv2D,
    keras.layers.Dropout,
    keras.layers.GroupNormalization,
    keras.layers.SpatialDropout2D,
    MemberScale,
)
#: Encode the common input, the same for all copies: they have no parameters.
ENCODINGS = (Columns, OneHotColumns, PiecewiseLinear)
MERGES = (keras.layers.Add, keras.layers.Multiply, keras.layers.Maximum)
#: Treat every channel alike; the mask beside the features is common to all copies.
MASKED = (Masked, MaskedPooling, Places, WithMask)
#: Cannot run as one: a layer for each copy.
SEPARATE = (Recurrent,)
#: Look at all channels together, and so must come before what has copies.
COMMON = (
    keras.layers.CenterCrop,
    keras.layers.Normalization,
    keras.layers.Resizing,
)
#: The `EinsumDense` that makes a vector of every entry of a common input.
TOKENS = "nc,cw->ncw"
#: Operations of `keras.ops` that treat every entry by itself.
ENTRYWISE = (
    "Abs", "Add", "Cast", "Copy", "Divide", "Elu", "Exp", "Gelu", "HardSigmoid",
    "HardSilu",
    "LeakyRelu", "Maximum", "Minimum", "Multiply", "Negative", "Relu", "Relu6", "Selu",
    "Sigmoid", "Silu", "Softplus", "Sqrt", "Square", "Subtract", "Tanh", "TrueDivide",
)  # fmt: skip
#: Activations that look across channels, and so would mix the copies.
ACROSS_CHANNELS = ("softmax", "log_softmax", "sparsemax", "glu")
#: Regularisers of a folded kernel that are the sum of those of its copies.
ADDITIVE = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


@dataclasses.dataclass(frozen=True)
class BankMaker(LayerMaker):
    """Makes layers that hold `copies` copies of what was asked for.

    The copies lie side by side in the channels ("folded"): a convolution becomes one
    with `groups=copies` (see `GroupedConv2D` for what a CPU runs), a dense layer one
    batched product, layer normalisation acts per copy, and what acts on every channel
    by itself stays what it is. The first
    layer with parameters reads the common input of all copies. Copy number 1 begins
    with the weights that the plain block has for the same seed, the others with weights
    of their own.

    A block of one's own that combines tensors by operators (`x + y`) must have all of
    them folded; `keras.layers.Add` from the maker folds by itself, and so do the
    operations of a functional model.

    Args:
        copies: Number of copies, >= 1.
        first: Number of the first copy, which decides the seeds. Defaults to 1.

    Example:

    >>> make = kmtl.layers.BankMaker(seed=0, copies=3)
    >>> inputs = keras.Input((4,))
    >>> outputs = kmtl.backbones.MLP(units=(5,)).block(0, inputs, make.part("block1"))
    >>> outputs.shape
    (None, 15)
    """

    copies: int = 1
    first: int = 1
    # Whether a tensor is folded, by its id; the tensors are kept so that ids stay.
    _known: dict[int, tuple[Tensor, bool]] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )

    def layer(self, kind: type, name: str, **arguments: Any) -> Callable[..., Tensor]:
        """What applies copies of a layer; called like the layer."""
        self._check(kind, name, arguments)
        if self.copies == 1:
            arguments = self._with_seeds(name, arguments, axis=-1)
            return super().layer(kind, name, **arguments)
        for kinds, apply in (
            (keras.layers.Dense, self._dense),
            (CONVOLUTIONS, self._convolution),
            (keras.layers.LayerNormalization, self._layer_normalization),
            (keras.layers.Flatten, self._flatten),
            (CHANNELWISE, self._channelwise),
            (MaskedBatchNormalization, self._masked_per_channel),
            (PER_CHANNEL, self._per_channel),
            (ENCODINGS, self._encoding),
            (keras.layers.Embedding, self._embedding),
            (PeriodicEmbedding, self._periodic),
            (keras.layers.EinsumDense, self._tokens),
            (MERGES, self._merge),
            (MASKED, self._masked),
            (keras.layers.Concatenate, self._concatenate),
            (Positions, self._positions),
            (Attention, self._attention),
            (SEPARATE, self._separate),
            (COMMON, self._encoding),
            (keras.layers.Reshape, self._reshape),
        ):
            if issubclass(kind, kinds):
                return _Call(self, apply, kind, name, arguments)
        raise ValueError(_refusal(self.name(name), kind))

    def operation(self, source: Operation, name: str) -> Callable[..., Tensor]:
        if self.copies == 1:
            return super().operation(source, name)
        if type(source).__name__ not in ENTRYWISE:
            raise ValueError(_refusal(self.name(name), type(source)))
        apply = super().operation(source, name)

        def applied(*args: Any, **kwargs: Any) -> Tensor:
            read = keras.tree.flatten((args, kwargs))
            tensors = [x for x in read if isinstance(x, keras.KerasTensor)]
            if not any(map(self.is_folded, tensors)):
                return self.note(apply(*args, **kwargs), False)
            if any(np.ndim(x) for x in read if not isinstance(x, keras.KerasTensor)):
                raise ValueError(
                    "Experts take single numbers beside their features, no arrays; "
                    "take another sharing scheme. Received: operation "
                    f"'{self.name(name)}' of type {type(source).__name__} with an array"
                )
            args, kwargs = keras.tree.map_structure(
                lambda x: self.fold(x) if isinstance(x, keras.KerasTensor) else x,
                (args, kwargs),
            )
            return self.note(apply(*args, **kwargs), True)

        return applied

    def fold(self, tensor: Tensor) -> Tensor:
        """The tensor, repeated for every copy if it is common to all."""
        if self.copies == 1 or self.is_folded(tensor):
            return tensor
        repeated = keras.layers.Concatenate()([tensor] * self.copies)
        return self.note(repeated, True)

    def is_folded(self, tensor: Tensor) -> bool:
        """Whether the copies' channels lie side by side in it."""
        if id(tensor) in self._known:
            return self._known[id(tensor)][1]
        # Not made by this maker: an operation on something folded, or the input.
        parents = node_of(tensor).input_tensors
        folded = any(self.is_folded(parent) for parent in parents)
        self.note(tensor, folded)
        return folded

    def note(self, tensor: Tensor, folded: bool) -> Tensor:
        """Take a tensor for folded or not, whatever it was made from; returns it."""
        self._known[id(tensor)] = (tensor, folded)
        return tensor

    def _plain(self, kind: type, name: str, arguments: dict, axis: int = -1) -> Layer:
        arguments = self._with_seeds(name, arguments, axis)
        return super().layer(kind, name, **arguments)

    def _dense(self, kind: type, name: str, arguments: dict, inputs: Tensor) -> Tensor:
        if self.is_folded(inputs):
            activation = arguments.pop("activation", None)
            arguments = _taken(GroupedDense, arguments)
            arguments |= {"copies": self.copies}
            outputs = self._plain(GroupedDense, name, arguments, axis=0)(inputs)
            if activation is not None:
                outputs = self.activation(activation, f"{name}_activation")(outputs)
        else:
            arguments["units"] *= self.copies
            outputs = self._plain(kind, name, arguments)(inputs)
        return self.note(outputs, True)

    def _convolution(
        self, kind: type, name: str, arguments: dict, inputs: Tensor
    ) -> Tensor:
        groups = arguments.get("groups", 1)
        if groups > 1:
            inputs = self.fold(inputs)
        if self.is_folded(inputs):
            arguments["groups"] = groups * self.copies
            kind = GROUPED.get(kind, kind)
        arguments["filters"] *= self.copies
        return self.note(self._plain(kind, name, arguments)(inputs), True)

    def _layer_normalization(
        self, kind: type, name: str, arguments: dict, inputs: Tensor
    ) -> Tensor:
        arguments = _taken(GroupedLayerNormalization, arguments)
        arguments |= {"copies": self.copies}
        layer = self._plain(GroupedLayerNormalization, name, arguments)
        return self.note(layer(self.fold(inputs)), True)

    def _flatten(
        self, kind: type, name: str, arguments: dict, inputs: Tensor
    ) -> Tensor:
        folded = self.is_folded(inputs)
        if folded and len(inputs.shape) > 2:
            kind, arguments = GroupedFlatten, {"copies": self.copies}
        return self.note(self._plain(kind, name, arguments)(inputs), folded)

    def _channelwise(
        self, kind: type, name: str, arguments: dict, inputs: Tensor
    ) -> Tensor:
        folded = self.is_folded(inputs)
        return self.note(self._plain(kind, name, arguments)(inputs), folded)

    def _per_channel(
        self, kind: type, name: str, arguments: dict, inputs: Tensor
    ) -> Tensor:
        axis = -2 if kind is keras.layers.DepthwiseConv2D else -1
        if kind is keras.layers.GroupNormalization:
            arguments["groups"] *= self.copies
        layer = self._plain(kind, name, arguments, axis)
        return self.note(layer(self.fold(inputs)), True)

    def _encoding(
        self, kind: type, name: str, arguments: dict, inputs: Tensor
    ) -> Tensor:
        self._check_common(kind, name, inputs)
        return self.note(self._plain(kind, name, arguments)(inputs), False)

    def _embedding(
        self, kind: type, name: str, arguments: dict, inputs: Tensor
    ) -> Tensor:
        self._check_common(kind, name, inputs)
        arguments["output_dim"] *= self.copies
        return self.note(self._plain(kind, name, arguments)(inputs), True)

    def _tokens(self, kind: type, name: str, arguments: dict, inputs: Tensor) -> Tensor:
        if arguments["equation"] != TOKENS:
            raise ValueError(_refusal(self.name(name), kind))
        self._check_common(kind, name, inputs)
        columns, width = arguments["output_shape"]
        arguments["output_shape"] = (columns, width * self.copies)
        return self.note(self._plain(kind, name, arguments)(inputs), True)

    def _periodic(
        self, kind: type, name: str, arguments: dict, inputs: Tensor
    ) -> Tensor:
        self._check_common(kind, name, inputs)
        arguments |= {"copies": self.copies}
        return self.note(self._plain(kind, name, arguments, axis=0)(inputs), True)

    def _reshape(
        self, kind: type, name: str, arguments: dict, inputs: Tensor
    ) -> Tensor:
        folded = self.is_folded(inputs)
        if folded:
            *places, channels = arguments["target_shape"]
            old, together = inputs.shape[1:-1], inputs.shape[-1]
            open_ = channels == -1 and None not in old
            if open_ and math.prod(places) != math.prod(old):
                raise ValueError(_refusal(self.name(name), kind))  # it moves channels
            if not open_ and channels * self.copies != together:
                raise ValueError(_refusal(self.name(name), kind))
            arguments["target_shape"] = (*places, together)
        return self.note(self._plain(kind, name, arguments)(inputs), folded)

    def _check_common(self, kind: type, name: str, inputs: Tensor) -> None:
        """Encodings and embeddings read what is common to all copies."""
        if self.is_folded(inputs):
            raise ValueError(
                "An encoding or embedding inside experts must read their common "
                f"input: make it the first layer of its block. Received: layer "
                f"'{self.name(name)}' of type {kind.__name__} on features of experts"
            )

    def _merge(self, kind: type, name: str, arguments: dict, inputs: Tensor) -> Tensor:
        folded = any(self.is_folded(tensor) for tensor in inputs)
        if folded:
            inputs = [self.fold(tensor) for tensor in inputs]
        return self.note(self._plain(kind, name, arguments)(inputs), folded)

    def _concatenate(
        self, kind: type, name: str, arguments: dict, inputs: list
    ) -> Tensor:
        folded = any(self.is_folded(tensor) for tensor in inputs)
        if folded:
            if arguments.get("axis", -1) != -1:  # not along the channels
                return self._merge(kind, name, arguments, inputs)
            inputs = [self.fold(tensor) for tensor in inputs]
            kind, arguments = GroupedConcatenate, {"copies": self.copies}
        return self.note(self._plain(kind, name, arguments)(inputs), folded)

    def _masked(self, kind: type, name: str, arguments: dict, inputs: Any) -> Tensor:
        features = inputs[0] if isinstance(inputs, list) else inputs
        folded = self.is_folded(features)
        return self.note(self._plain(kind, name, arguments)(inputs), folded)

    def _masked_per_channel(
        self, kind: type, name: str, arguments: dict, inputs: Any
    ) -> Tensor:
        features, mask = inputs
        layer = self._plain(kind, name, arguments)
        return self.note(layer([self.fold(features), mask]), True)

    def _positions(
        self, kind: type, name: str, arguments: dict, inputs: Tensor
    ) -> Tensor:
        folded = self.is_folded(inputs)
        if folded:
            arguments["copies"] = self.copies
        return self.note(self._plain(kind, name, arguments)(inputs), folded)

    def _attention(
        self, kind: type, name: str, arguments: dict, inputs: list
    ) -> Tensor:
        arguments["heads"] = arguments.get("heads", 1) * self.copies
        read = [*map(self.fold, inputs[:3]), *inputs[3:]]
        return self.note(self._plain(kind, name, arguments)(read), True)

    def _separate(self, kind: type, name: str, arguments: dict, inputs: Any) -> Tensor:
        first = inputs[0] if isinstance(inputs, list) else inputs
        layers = []
        for copy in range(self.copies):
            own = {
                key: self._seeded(
                    keras.initializers.get(value), name, self.first + copy
                )
                if key.endswith("_initializer")
                else value
                for key, value in arguments.items()
            }
            layers.append(kind(name=f"copy{copy + 1}", **own))
        split = self.is_folded(first)
        together = super().layer(SideBySide, name, layers=layers, split=split)
        return self.note(together(inputs), True)

    def _check(self, kind: type, name: str, arguments: dict) -> None:
        activation = arguments.get("activation")
        called = getattr(keras.activations.get(activation), "__name__", "")
        if self.copies > 1 and called in ACROSS_CHANNELS:
            raise ValueError(
                f"The `activation` of experts must act on every channel by itself. "
                f"Received: layer '{self.name(name)}' with activation '{called}'"
            )
        regularizer = arguments.get("kernel_regularizer")
        if self.copies > 1 and not isinstance(regularizer, (type(None), *ADDITIVE)):
            raise ValueError(
                "The `kernel_regularizer` of experts must be L1, L2 or L1L2, because "
                "all experts share one kernel. Received: layer "
                f"'{self.name(name)}' with {type(regularizer).__name__}"
            )

    def _with_seeds(self, name: str, arguments: dict, axis: int) -> Config:
        """The arguments, with initializers that draw for every copy by itself."""
        changed = dict(arguments)
        for key, value in arguments.items():
            if not key.endswith("_initializer"):
                continue
            initializer = keras.initializers.get(value)
            if initializer is None or "seed" not in initializer.get_config():
                continue
            own = [
                self._seeded(initializer, name, self.first + copy)
                for copy in range(self.copies)
            ]
            changed[key] = PerCopy(own, axis=axis) if self.copies > 1 else own[0]
        return changed

    def _seeded(
        self, initializer: keras.initializers.Initializer, name: str, number: int
    ) -> keras.initializers.Initializer:
        if number == 1:
            return initializer
        seed = None
        if self.seed is not None:
            scoped = f"{self.seed}/{_join(self.seed_scope, name)}/expert{number}"
            seed = zlib.crc32(scoped.encode()) & 0x7FFFFFFF
        config = {**initializer.get_config(), "seed": seed}
        return type(initializer).from_config(config)


@dataclasses.dataclass(frozen=True)
class _Call:
    """A layer to be, made when it is known whether its input is folded."""

    make: BankMaker
    apply: Callable[..., Tensor]
    kind: type
    name: str
    arguments: Config

    def __call__(self, inputs: Tensor) -> Tensor:
        return self.apply(self.kind, self.name, dict(self.arguments), inputs)


def _refusal(name: str, kind: type) -> str:
    return (
        "Experts are made of dense layers, convolutions, embeddings, "
        "normalisations, activations, dropout, pooling, flattening, sums and "
        "concatenations, so that all of them "
        "run as one; take another backbone or another sharing scheme. Received: "
        f"layer '{name}' of type {kind.__name__}"
    )


def _taken(kind: type, arguments: Config) -> Config:
    """The arguments that a layer of several copies takes, of a plain one's config.

    Raises:
        ValueError: for one that it would have to obey and cannot.
    """
    if SOURCE not in arguments:
        return arguments
    known = {*inspect.signature(kind).parameters, "trainable", "dtype", SOURCE}
    taken = {key: value for key, value in arguments.items() if key in known}
    for key, value in arguments.items():
        obeyed = key in taken or key.endswith("_initializer") or value is None
        obeyed |= key in ("center", "scale") and value is True
        if key == "axis":
            axes = [value] if isinstance(value, int) else list(value)
            obeyed = len(axes) == 1
        if not obeyed and value is not False:
            raise ValueError(
                f"Experts have no layers with {key}={value!r}: take another sharing "
                f"scheme. Received: layer of type {kind.__name__}"
            )
    return taken


def run_bank(
    backbone: Any,
    blocks: Iterable[int],
    inputs: Tensor,
    make: LayerMaker,
    prefix: str,
    copies: int,
    first: int = 1,
) -> Tensor:
    """Apply blocks of a backbone in several copies to a common input.

    Args:
        backbone: The `kmtl.backbones` object.
        blocks: 0-based numbers of the blocks, applied one after another.
        inputs: KerasTensor.
        make: Maker of the model's layers.
        prefix: Layers are called `<prefix>_block<i>_<layer>`.
        copies: Number of copies.
        first: Number of the first copy, which decides the seeds.

    Returns:
        KerasTensor with the copies' channels side by side.
    """
    bank = BankMaker.like(make, copies=copies, first=first)
    bank.note(inputs, False)
    features = inputs
    for i in blocks:
        part = bank.part(f"{prefix}_block{i + 1}", f"block{i + 1}")
        features = backbone.block(i, features, part)
    return bank.fold(features)
