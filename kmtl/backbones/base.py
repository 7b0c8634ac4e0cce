"""A backbone is a list of blocks, so that depth has one meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from kmtl import _checks, _registry
from kmtl.inputs.base import Input
from kmtl.layers.maker import NORMALIZATIONS, LayerMaker
from kmtl.typing import (
    Activation,
    Config,
    Initializer,
    Inputs,
    Options,
    Regularizer,
    Shape,
    Tensor,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone(_registry.Registrable):
    """Base class of all trunks: `num_blocks` blocks, applied one after another.

    Args:
        dropout: Rate in [0, 1) after every block, or one rate per block; variables, so
            they can change later. None leaves the dropout layers out. Defaults to 0.
        activation: Any Keras activation. Defaults to `"relu"`.
        normalization: `"batch"`, `"layer"` or None. Defaults to None.
        kernel_regularizer: Keras regulariser of all kernels, or None.
        kernel_initializer: Keras initializer of the blocks' kernels. Defaults to
            Glorot's, uniform.
    """

    dropout: float | Sequence[float] | None = 0.0
    activation: Activation = "relu"
    normalization: str | None = None
    kernel_regularizer: Regularizer = None
    kernel_initializer: Initializer | None = None

    #: What `normalization` may be.
    NORMALIZATIONS: ClassVar[tuple[str, ...]] = NORMALIZATIONS
    #: Ranks of one input that the blocks accept.
    INPUT_RANKS: ClassVar[tuple[int, ...]] = ()
    #: Kinds of inputs (`"table"`) that block 0 encodes itself: it gets their prepared
    #: rows, scaled (`Input.scaled`), instead of what `Input.encode` makes of them.
    ENCODES: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.dropout is not None:
            object.__setattr__(self, "dropout", self._check_dropout())
        if self.normalization is not None:
            _checks.check_choice(
                "normalization", self.normalization, self.NORMALIZATIONS
            )
        activation = _checks.check_activation(self.activation)
        object.__setattr__(self, "activation", activation)
        initializer = _checks.check_initializer(self.kernel_initializer)
        object.__setattr__(self, "kernel_initializer", initializer)
        if self.kernel_regularizer is not None:
            regularizer = _checks.check_regularizer(self.kernel_regularizer)
            object.__setattr__(self, "kernel_regularizer", regularizer)

    @property
    def num_blocks(self) -> int:
        raise NotImplementedError

    def for_inputs(self, inputs: Mapping[str, Input]) -> Backbone:
        """The backbone for these inputs, before its blocks are made.

        For what a block must know of them besides the shape, such as the number of
        categories of each column. The same backbone by default.

        Args:
            inputs: Input name -> its kind, fitted; empty for a model that was built
                with `input_shape`.
        """
        return self

    def encodes(self, name: str, spec: Input) -> bool:
        """Whether block 0 encodes this input itself; by `ENCODES`, by default."""
        return spec.registered_name in self.ENCODES

    def check_input_shapes(self, shapes: Mapping[str, tuple]) -> None:
        """Refuse inputs that block 0 cannot take.

        Args:
            shapes: Input name -> shape as block 0 gets it, without the batch axis. It
                gets a dict where there are several inputs, and one tensor else.
        """
        if len(shapes) > 1:
            raise ValueError(
                "Several inputs need a backbone that joins them: a dict input name -> "
                "backbone, or kmtl.backbones.Fusion(encoders={...}). Received: "
                f"backbone '{self.registered_name}' for {', '.join(shapes)}"
            )
        for shape in shapes.values():
            self.check_input_shape(shape)

    def check_input_shape(self, input_shape: tuple) -> None:
        """Refuse input shapes that the blocks cannot take."""
        if len(input_shape) not in self.INPUT_RANKS:
            raise ValueError(
                f"`input_shape` of backbone '{self.registered_name}' must have "
                f"{' or '.join(map(str, self.INPUT_RANKS))} axes (without batch). "
                f"Received: input_shape={tuple(input_shape)}"
            )

    def for_shape(self, input_shape: Shape) -> Backbone:
        """The backbone for inputs of a shape (without batch), which have been checked.

        For one that takes facts from them; by default itself.
        """
        return self

    def check_channels(self, input_shape: tuple) -> None:
        """Refuse an open number of channels, on which the weights depend."""
        if input_shape[-1] is None:
            raise ValueError(
                f"`input_shape` of backbone '{self.registered_name}' must end in a "
                "known number of channels. "
                f"Received: input_shape={tuple(input_shape)}"
            )

    def block(self, index: int, features: Tensor, make: LayerMaker) -> Tensor:
        """Apply block `index` (0-based), with layers from `make`."""
        raise NotImplementedError

    @property
    def members(self) -> int:
        """Members of an ensemble that every row of the batch has inside the model."""
        return 1

    def enter(self, inputs: Any, make: LayerMaker) -> Any:
        """What goes into the trunk, or tells of it, as block 0 reads it.

        Args:
            inputs: A tensor, or a dict or tuple of tensors.
            make: Maker of layers without trainable weights.
        """
        return inputs

    def head_maker(self, make: LayerMaker) -> LayerMaker:
        """The maker of a task's head, for a trunk whose features need a special one."""
        return make

    def masks(self, inputs: Inputs, make: LayerMaker, given: Any = None) -> Any:
        """Where the sequences that the trunk reads are padded.

        Args:
            inputs: What block 0 reads.
            make: Maker of the layers that find it out.
            given: `(N, L)`, 1 at steps and 0 at padding, where the input says it
                itself; of several inputs a dict input name -> `(N, L)`.

        Returns:
            What the blocks find as `make.masks`: of a trunk over sequences, a tuple of
            the masks of what each block reads and of what the last one gives. Empty
            where nothing is padded.
        """
        return ()

    def gate_input(self, features: Tensor, make: LayerMaker) -> Tensor:
        """What a gate reads, where experts read `features`."""
        return features

    def finish(self, features: Tensor, make: LayerMaker) -> Tensor:
        """Normalisation, activation and dropout, which end every kind of block."""
        if self.normalization is not None:
            features = make.normalization(self.normalization, "norm")(features)
        return make.activation(self.activation, "activation")(features)

    def drop(self, index: int, features: Tensor, make: LayerMaker) -> Tensor:
        """The dropout of block `index`, if it has one."""
        if self.dropout is None:
            return features
        rates = self.dropout
        rate = rates[index] if isinstance(rates, Sequence) else rates
        return make.dropout(rate, "dropout")(features)

    def _check_dropout(self) -> float | tuple[float, ...]:
        rates: Any = self.dropout
        if isinstance(rates, str) or not isinstance(rates, Sequence):
            return _checks.check_range("dropout", rates, 0, 1, high_open=True)
        if len(rates) != self.num_blocks:
            raise ValueError(
                "`dropout` must be one rate, or one per block: "
                f"{self.num_blocks} of them. Received: dropout={rates!r}"
            )
        return tuple(
            _checks.check_range(f"dropout[{i}]", rate, 0, 1, high_open=True)
            for i, rate in enumerate(rates)
        )

    def to_config(self) -> Config:
        """JSON-ready description; `Backbone.from_config` gives an equal backbone."""
        kind = _registry.saved_name("backbone", type(self))
        config: Config = {"kind": kind}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            config[field.name] = list(value) if isinstance(value, tuple) else value
        return config

    @staticmethod
    def from_config(config: Options) -> Backbone:
        config = dict(config)
        return _registry.get("backbone", config.pop("kind"))(**config)
