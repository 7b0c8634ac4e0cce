"""Several inputs, each through a trunk of its own, and then together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from kmtl import _checks, _registry
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.inputs.base import Input
from kmtl.layers.attention import Attention
from kmtl.layers.maker import LayerMaker
from kmtl.layers.sequences import MaskedPooling, Places, mask_of, pooled
from kmtl.typing import Config, Inputs, Tensor

FUSIONS = ("concat", "gated", "cross_attention", "maps")


@register("backbone", "fusion")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Fusion(Backbone):
    """One trunk per input, which are then joined.

    Block 0 runs every encoder whole and fuses what they give; the other blocks are
    joint: dense, normalisation, activation, dropout. So a sharing depth of 1 shares the
    encoders and what fuses them, and 0 gives every task encoders of its own.

    With v_m the vector that encoder m gives (of a map or sequence the mean of its
    places, without padding), block 0 gives

    - `"concat"`: all v_m side by side;
    - `"gated"`: `Σ_m z_m ⊙ tanh(W_m v_m)` with `z_m = σ(U_m [v_1; ...; v_M])`, so that
      an example can turn away from an input;
    - `"cross_attention"`: `[h_1; ...; h_M]` with `h_m = q_m + attention(q_m, places of
      all other inputs)` and `q_m = Q_m v_m`, so that an input can look for what it
      needs in the places of a map, or the words of a text;
    - `"maps"`: the maps side by side, place by place, and the v_m of what is no map at
      every place; the joint blocks are 3 x 3 convolutions. For inputs that show the
      same places, such as a photo and its depth, and tasks that speak of places; images
      of any size must have one size in each row.

    Args:
        encoders: Dict input name -> backbone, or the name of one. A dict in place of a
            backbone, as in `build(backbone={"photo": "cnn", "text": "rnn"})`, is this
            with all other arguments' defaults.
        fuse: `"concat"`, `"gated"`, `"cross_attention"`, or `"maps"`, for which the
            encoders' maps must have one size. Defaults to `"concat"`.
        units: Width of each joint block. Defaults to (64,).
        width: Of each input's part of what `"gated"` and `"cross_attention"` give.
            Defaults to 64.
        heads: Heads of `"cross_attention"`, a divisor of `width`. Defaults to 4.
        dropout, activation, normalization: Of the joint blocks; see `Backbone`. The
            encoders have their own.
        kernel_regularizer: Of all kernels, but for encoders that have one.

    Example:

    >>> spec = {"photo": kmtl.inputs.Array((8, 8, 1), scale=None),
    ...         "facts": kmtl.inputs.Array((3,), scale=None)}
    >>> net = kmtl.backbones.Fusion(encoders={
    ...     "photo": kmtl.backbones.CNN(filters=(4, 8)),
    ...     "facts": kmtl.backbones.MLP(units=(8,))})
    >>> model = kmtl.build(inputs=spec, backbone=net, tasks=[kmtl.Regression("price")])
    >>> x = {"facts": np.ones((2, 3)), "photo": np.ones((2, 8, 8, 1))}
    >>> model.predict(x, verbose=0)["price"].shape
    (2, 1)

    Reference: gated: Arevalo et al., ICLR workshop 2017, arXiv:1702.01992, eq. 1.
        Cross-attention: Tsai et al., ACL 2019, arXiv:1906.00295, with one query per
        input.
    """

    encoders: Mapping[str, Backbone | str]
    fuse: str = "concat"
    units: tuple[int, ...] = (64,)
    width: int = 64
    heads: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.encoders, Mapping) or not self.encoders:
            raise TypeError(
                "`encoders` must be a dict input name -> backbone. "
                f"Received: encoders={self.encoders!r}"
            )
        encoders = {name: _encoder(name, e) for name, e in self.encoders.items()}
        object.__setattr__(self, "encoders", encoders)
        _checks.check_choice("fuse", self.fuse, FUSIONS)
        object.__setattr__(self, "units", _checks.check_ints("units", self.units))
        for name in ("width", "heads"):
            value = _checks.check_int(name, getattr(self, name), 1)
            object.__setattr__(self, name, value)
        if self.fuse == "cross_attention" and self.width % self.heads:
            raise ValueError(
                "`heads` must divide `width`. "
                f"Received: heads={self.heads}, width={self.width}"
            )
        super().__post_init__()

    @property
    def num_blocks(self) -> int:
        return 1 + len(self.units)

    # -- inputs ------------------------------------------------------------------------

    def for_inputs(self, inputs: Mapping[str, Input]) -> Backbone:
        if not inputs:
            raise ValueError(
                "Backbone 'fusion' needs inputs with names: "
                "build(inputs={name: kmtl.inputs object}). Received: one `input_shape`"
            )
        lacking = [name for name in inputs if name not in self.encoders]
        unknown = [name for name in self.encoders if name not in inputs]
        if lacking or unknown:
            raise ValueError(
                "`encoders` of backbone 'fusion' must name every input, and no other. "
                f"Received: inputs {', '.join(inputs)}, "
                f"encoders {', '.join(self.encoders)}"
            )
        encoders = {
            name: encoder.for_inputs({name: inputs[name]})
            for name, encoder in self._encoders.items()
        }
        return dataclasses.replace(self, encoders=encoders)

    @property
    def _encoders(self) -> dict[str, Backbone]:
        return dict(self.encoders)  # type: ignore[arg-type]  # see `__post_init__`

    def encodes(self, name: str, spec: Input) -> bool:
        return self._encoders[name].encodes(name, spec)

    def check_input_shapes(self, shapes: Mapping[str, tuple]) -> None:
        for name, shape in shapes.items():
            self._encoders[name].check_input_shapes({name: shape})

    def check_input_shape(self, input_shape: tuple) -> None:
        raise ValueError(
            "`input_shape` of backbone 'fusion' is that of each of its inputs: build "
            f"with `inputs`. Received: input_shape={tuple(input_shape)}"
        )

    def enter(self, inputs: Any, make: LayerMaker) -> Any:
        """The inputs by name, also where there is one: so gates can tell it from what
        the encoders give."""
        if inputs is None or isinstance(inputs, Mapping):
            return inputs
        return {next(iter(self.encoders)): inputs}

    def masks(self, inputs: Inputs, make: LayerMaker, given: Any = None) -> Any:
        told = given or {}
        return {
            name: self._encoders[name].masks(x, make.part(name), told.get(name))
            for name, x in self._named(inputs).items()
        }

    def _named(self, inputs: Any) -> dict[str, Tensor]:
        """The inputs in the encoders' order."""
        return {name: inputs[name] for name in self.encoders}

    # -- blocks ------------------------------------------------------------------------

    def block(self, index: int, features: Inputs, make: LayerMaker) -> Tensor:
        if index:
            width, bias = self.units[index - 1], self.normalization != "batch"
            if self.fuse == "maps":
                layer = make.conv(width, 3, "conv", use_bias=bias)
            else:
                layer = make.dense(width, "dense", use_bias=bias)
            return self.drop(index, self.finish(layer(features), make), make)
        encoded = {}
        for name, x in self._named(features).items():
            encoder = self._encoders[name]
            part = self._part(name, make)
            for i in range(encoder.num_blocks):
                x = encoder.block(i, x, part.part(f"block{i + 1}"))
            encoded[name] = x
        if self.fuse == "maps":
            return self.drop(0, self._mapped(encoded, make), make)
        vectors = {
            name: _vector(x, self._part(name, make)) for name, x in encoded.items()
        }
        if len(vectors) == 1:
            (fused,) = vectors.values()
        elif self.fuse == "gated":
            fused = self._gated(vectors, make)
        elif self.fuse == "cross_attention":
            fused = self._attended(vectors, encoded, make)
        else:
            fused = _joined(list(vectors.values()), make)
        return self.drop(0, fused, make)

    def _mapped(self, encoded: Mapping[str, Tensor], make: LayerMaker) -> Tensor:
        """All inputs place by place."""
        sizes = {name: tuple(x.shape[1:3]) for name, x in encoded.items() if _is_map(x)}
        if len(set(sizes.values())) != 1:
            shown = ", ".join(f"'{name}' {size}" for name, size in sizes.items())
            raise ValueError(
                '`fuse="maps"` needs `encoders` that give maps of one size: choose '
                "their pooling, strides and the inputs' sizes for that. "
                f"Received: {shown or 'no map'}"
            )
        [(height, width)] = set(sizes.values())
        parts = []
        for name, x in encoded.items():
            if not _is_map(x):
                if height is None or width is None:
                    raise ValueError(
                        '`fuse="maps"` needs images of one size beside an input that '
                        f"is no map. Received: '{name}' beside images of any size"
                    )
                own = self._part(name, make)
                x = _vector(x, own)
                x = own.layer(keras.layers.Reshape, "place", target_shape=(1, 1, -1))(x)
                x = own.layer(
                    keras.layers.UpSampling2D, "everywhere", size=(height, width)
                )(x)
            parts.append(x)
        return parts[0] if len(parts) == 1 else _joined(parts, make)

    def _part(self, name: str, make: LayerMaker) -> LayerMaker:
        """Maker of an encoder's layers."""
        changes = {}
        for what in ("kernel_regularizer", "kernel_initializer"):
            own = getattr(self._encoders[name], what)
            if own is not None:
                changes[what] = own
        masks = make.masks.get(name, ()) if isinstance(make.masks, Mapping) else ()
        return dataclasses.replace(make.part(name), masks=masks, **changes)

    def _gated(self, vectors: Mapping[str, Tensor], make: LayerMaker) -> Tensor:
        together = _joined(list(vectors.values()), make)
        parts = []
        for name, vector in vectors.items():
            part = make.part(name)
            value = part.dense(self.width, "value")(vector)
            value = part.activation("tanh", "value_activation")(value)
            gate = part.dense(self.width, "gate")(together)
            gate = part.activation("sigmoid", "gate_activation")(gate)
            parts.append(part.layer(keras.layers.Multiply, "gated")([value, gate]))
        return make.layer(keras.layers.Add, "sum")(parts)

    def _attended(
        self,
        vectors: Mapping[str, Tensor],
        encoded: Mapping[str, Tensor],
        make: LayerMaker,
    ) -> Tensor:
        parts = []
        for name, vector in vectors.items():
            part = make.part(name)
            query = part.dense(self.width, "query")(vector)
            heard = [query]
            for other, x in encoded.items():
                if other != name:
                    own = part.part(f"at_{other}")
                    heard.append(self._look(query, x, other, own, make))
            parts.append(part.layer(keras.layers.Add, "heard")(heard))
        return _joined(parts, make)

    def _look(
        self, query: Tensor, x: Tensor, other: str, own: LayerMaker, make: LayerMaker
    ) -> Tensor:
        """What a vector finds in the places of another input."""
        if len(x.shape) == 2:  # one place: nothing to choose among
            return own.dense(self.width, "value")(x)
        mask = mask_of(x, self._part(other, make))
        places = own.layer(Places, "places")(x)
        read = [
            own.layer(Places, "question")(query),
            own.dense(self.width, "key", use_bias=False)(places),
            own.dense(self.width, "value")(places),
        ]
        attention = own.layer(Attention, "attention", heads=self.heads)
        found = attention(read if mask is None else [*read, mask])
        return own.layer(MaskedPooling, "answer")(found)

    def gate_input(self, features: Any, make: LayerMaker) -> Tensor:
        if not isinstance(features, Mapping):
            return features
        vectors = []
        for name, x in self._named(features).items():
            part = self._part(name, make)
            read = self._encoders[name].gate_input(x, part)
            vectors.append(_vector(read, part))
        return _joined(vectors, make)

    # -- JSON --------------------------------------------------------------------------

    def to_config(self) -> Config:
        encoders = {name: e.to_config() for name, e in self._encoders.items()}
        return {**super().to_config(), "encoders": encoders}


def _encoder(name: str, given: Any) -> Backbone:
    """A backbone of what stands for one."""
    made = given
    if isinstance(given, str):
        made = _registry.get("backbone", given)()
    elif isinstance(given, Mapping):
        made = Backbone.from_config(given)
    if not isinstance(made, Backbone):
        raise TypeError(
            f"`encoders['{name}']` must be a kmtl.backbones object or the name of one. "
            f"Received: {given!r}"
        )
    if made.members > 1:
        raise ValueError(
            f"`encoders['{name}']` may not be an ensemble: its members would meet rows "
            "of other encoders. Make one of the whole, kmtl.backbones.Ensemble("
            f"backbone=kmtl.backbones.Fusion(encoders=...)). Received: {given!r}"
        )
    return made


def _is_map(x: Tensor) -> bool:
    return len(x.shape) == 4


def _vector(x: Tensor, make: LayerMaker) -> Tensor:
    """`(N, C)` of a vector, sequence or map."""
    rank = len(x.shape)
    if rank == 2:
        return x
    if rank == 3:
        return pooled(x, make)
    return make.layer(keras.layers.GlobalAveragePooling2D, "pool")(x)


def _joined(parts: list[Tensor], make: LayerMaker) -> Tensor:
    return make.layer(keras.layers.Concatenate, "join")(parts)
