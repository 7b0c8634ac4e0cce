"""Scores of whole sequences of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.layers.beside import Beside
from kmtl.losses.chains import Chain, best_through, packed
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class ChainField(Beside):
    """A linear-chain conditional random field: which class follows which is learned.

    Its loss is `kmtl.losses.chains.chain_loss` of what it keeps beside its output.

    Args:
        task: Name of the task.
        classes: Number of classes, >= 2.

    Call arguments:
        inputs: Scores of each class at each step `(N, L, classes)`; or `[scores,
            mask]`, with the mask `(N, L)` above 0 at steps that are there.

    Returns:
        `(N, L, classes)`, float32: how far the best sequence with that class at that
        step is below the best of all, whose classes have 0 (Viterbi's path; of two that
        are equally good, both have). 0 everywhere at steps that are not there.

    Example:

    >>> layer = kmtl.layers.ChainField("tags", classes=2)
    >>> layer.build((None, 3, 2))
    >>> _ = layer.moves.assign([[0.0, -5.0], [0.0, 0.0]])  # 1 behind 0 is rare
    >>> scores = np.array([[[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]]])
    >>> np.array(layer(scores))[0].argmax(-1).tolist(), scores[0].argmax(-1).tolist()
    ([1, 1, 0], [0, 1, 0])

    Reference: Lafferty, McCallum, Pereira, "Conditional Random Fields", ICML 2001; as
    the last layer of a net: Huang, Xu, Yu 2015, arXiv:1508.01991.
    """

    def __init__(self, task: str, classes: int, **kwargs: Any):
        super().__init__(task, **kwargs)
        self.classes = _checks.check_int("classes", classes, 2)

    def build(self, input_shape: Shape) -> None:
        many = isinstance(input_shape[0], Sequence)
        steps = tuple(input_shape[0] if many else input_shape)[1]
        if steps is None:
            raise ValueError(
                f"Task '{self.task}' must have sequences of one length for `crf=True`: "
                "give the model an input of fixed length. Received: any length"
            )
        self.moves, self.first, self.last = (
            self.add_weight(name=name, shape=shape, initializer="zeros")
            for name, shape in (
                ("moves", (self.classes, self.classes)),
                ("first", (self.classes,)),
                ("last", (self.classes,)),
            )
        )
        self.built = True

    def call(self, inputs: Tensor | Sequence[Tensor]) -> Tensor:
        scores, mask = inputs if isinstance(inputs, (list, tuple)) else (inputs, None)
        scores = ops.cast(scores, "float32")
        there = (
            ops.ones_like(scores[..., 0]) if mask is None else ops.cast(mask, "float32")
        )
        weights = (
            ops.convert_to_tensor(w) for w in (self.moves, self.first, self.last)
        )
        chain = Chain(scores, there, *weights)
        self.keep(packed(chain))
        return best_through(chain)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        many = isinstance(input_shape[0], Sequence)
        return tuple(input_shape[0] if many else input_shape)

    def get_config(self) -> Config:
        return {**super().get_config(), "classes": self.classes}
