"""Operations of layers over sequences and of what makes sequences of sounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from kmtl.inputs.bag import BagOfTokens
from kmtl.inspection.flops import SOFTMAX, Shape, flops_rule
from kmtl.layers.attention import Attention
from kmtl.layers.recurrent import Recurrent
from kmtl.typing import Layer

#: Cell -> gates, and operations per unit and step besides the products: sums of the two
#: products, biases, activations, and what updates the state.
CELLS = {"gru": (3, 16), "lstm": (4, 17)}


@flops_rule(Recurrent)
def _recurrent(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    gates, others = CELLS[layer.cell]
    _, steps, channels = inputs[0]
    products = 2 * gates * (channels + layer.units)
    ways = 1 + layer.bidirectional
    return ways * steps * layer.units * (products + others)


@flops_rule(Attention)
def _attention(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    _, steps, channels = inputs[0]
    places = inputs[1][1]
    scores = steps * places * layer.heads
    # Two products, the scale and the softmax of the scores.
    return 4 * steps * places * channels + (1 + SOFTMAX) * scores


@flops_rule("DotProductAttention")
def _dot_product_attention(
    layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> int:
    _, steps, heads, size = inputs[0]
    places = inputs[1][1]
    return steps * places * heads * (4 * size + 1 + SOFTMAX)


@flops_rule(keras.layers.MelSpectrogram)
def _mel(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    bands, frames = outputs[0][-2:]
    size = layer.fft_length
    bins = size // 2 + 1
    transform = 5 * size * round(math.log2(size))  # of a fast Fourier transform
    power = 4 * bins
    return frames * (size + transform + power + 2 * bins * bands)


@flops_rule(BagOfTokens)
def _bag(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(inputs[0]) + 2 * math.prod(outputs[0])
