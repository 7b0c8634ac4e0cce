"""Recurrent nets."""

from __future__ import annotations

import dataclasses

import keras

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.sequence import SequenceBackbone
from kmtl.layers.maker import LayerMaker
from kmtl.layers.recurrent import CELLS, Recurrent
from kmtl.typing import Tensor


@register("backbone", "rnn")
@dataclasses.dataclass(frozen=True, kw_only=True)
class RNN(SequenceBackbone):
    """Recurrent net over sequences; a block is Keras' GRU or LSTM, normalisation,
    dropout.

    Inputs are token ids `(L,)` or features `(L, C)`; padded steps are passed by. See
    `SequenceBackbone` for the other arguments; `activation` is that of the cells'
    papers, whatever is given.

    Args:
        units: Width of each block, per direction. Defaults to (64,).
        cell: `"gru"` or `"lstm"`. Defaults to `"gru"`.
        bidirectional: Whether each block reads from both ends, and so is twice as wide.
            Defaults to True.

    Example:

    >>> net = kmtl.backbones.RNN(units=(8,), cell="lstm", vocabulary=100)
    >>> model = kmtl.build(backbone=net, input_shape=(30,),
    ...                    tasks=[kmtl.Regression("tone")])
    >>> model.get_layer("shared_block1_rnn").output.shape
    (None, 30, 16)

    Reference: Hochreiter & Schmidhuber, Neural Computation 9 (1997); Cho et al.,
        EMNLP 2014, arXiv:1406.1078.
    """

    units: tuple[int, ...] = (64,)
    cell: str = "gru"
    bidirectional: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", _checks.check_ints("units", self.units))
        _checks.check_choice("cell", self.cell, CELLS)
        _checks.check_choice("bidirectional", self.bidirectional, (True, False))
        super().__post_init__()

    @property
    def num_blocks(self) -> int:
        return len(self.units)

    def block(self, index: int, features: Tensor, make: LayerMaker) -> Tensor:
        features = self.start(features, make)
        features = make.layer(
            Recurrent,
            "rnn",
            cell=self.cell,
            units=self.units[index],
            bidirectional=self.bidirectional,
            recurrent_initializer=keras.initializers.Orthogonal(
                seed=make.layer_seed("rnn_recurrent")
            ),
            **make.kernel_options("rnn"),
        )(self.with_mask(features, index, make))
        features = self.normalize(index, features, make)
        return self.drop(index, features, make)
