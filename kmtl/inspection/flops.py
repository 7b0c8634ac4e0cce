"""Floating-point operations of a forward pass, from rules per kind of layer.

The convention: for one example, at inference; a multiplication and an addition count
one each, so a product of matrices is two per multiply-add; padding counts as data; a
bias, an activation, a sum or a product of tensors counts one per element, softmax
five; batch normalisation two (scale and shift), layer and group normalisation seven;
pooling one per element of its windows. Moving, choosing and comparing numbers counts
nothing. These are the rules of TensorFlow's profiler where it has any.

What has no rule is told as such and never taken for free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras

from kmtl._private.keras import node_of
from kmtl.layers.head_group import HeadGroup, HeadOfGroup
from kmtl.layers.members import ToMembers
from kmtl.typing import Layer, Node, Operation

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

Shape = tuple[int, ...]
Rule = Callable[[Any, Sequence[Shape], Sequence[Shape]], int]

SOFTMAX, BATCH_NORMALIZATION, NORMALIZATION, BILINEAR = 5, 2, 7, 8

_rules: dict[type | str | None, Rule] = {}


def flops_rule(*kinds: type | str) -> Callable[[Rule], Rule]:
    """Decorator: the function counts the operations of these layers.

    Args:
        *kinds: Classes of layers (their subclasses are not meant), or names of classes
            of `keras.ops`.

    Returns:
        A decorator of a function `(layer, input shapes, output shapes) -> int`, where
        shapes have the batch axis, of size 1.

    Example:

    >>> class Double(keras.layers.Layer):
    ...     def call(self, inputs):
    ...         return 2 * inputs
    >>> @kmtl.inspection.flops_rule(Double)
    ... def double_flops(layer, inputs, outputs):
    ...     return int(np.prod(outputs[0]))
    """

    def decorate(rule: Rule) -> Rule:
        for kind in kinds:
            _rules[kind] = rule
        return rule

    return decorate


def node_flops(node: Node) -> tuple[int, list[str]]:
    """Operations of one call of a layer, and what could not be counted.

    Args:
        node: A call of a layer: one of `nodes_of(layer)`.

    Returns:
        `(operations for one example, texts such as "name (Kind)")`.
    """
    layer = node.operation
    rule = _rules.get(type(layer)) or _rules.get(_operation_name(layer))
    if rule is None:
        return _unfolded(node)
    tensors = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    inputs = [_of_one(t.shape) for t in tensors if hasattr(t, "shape")]
    outputs = [_of_one(t.shape) for t in node.outputs]
    if any(size is None for shape in inputs + outputs for size in shape):
        return 0, [f"{layer.name} (sizes that are not known)"]
    return int(rule(layer, inputs, outputs)), []


def members_at(model: MultiTaskModel) -> dict[Node, int]:
    """Rows that one example has in the calls of a model, where they are not one."""
    from kmtl.inspection.parts import in_order

    found: dict[Node, int] = {}
    for node in in_order(map(node_of, keras.tree.flatten(model.output))):
        layer = node.operation
        rows = max((found.get(parent, 1) for parent in node.parent_nodes), default=1)
        if isinstance(layer, ToMembers):
            rows = layer.members
        if rows > 1:
            found[node] = rows
    return found


def _unfolded(node: Node) -> tuple[int, list[str]]:
    """A layer without a rule: by what it is made of."""
    layer = node.operation
    if _is_graph(layer):
        return _graph_flops(layer)
    if hasattr(layer, "to_keras"):  # the same in plain layers
        plain = layer.to_keras()
        if _is_graph(plain):
            return _graph_flops(plain)
        if type(plain) in _rules and len(node.input_tensors) == 1:
            if not plain.built:
                plain.build(node.input_tensors[0].shape)
            return node_flops(_Call(plain, node))
    return 0, [f"{layer.name} ({type(layer).__name__})"]


def _is_graph(layer: Layer) -> bool:
    """Whether this is a functional model, or a sequential one with known shapes."""
    return isinstance(layer, keras.Model) and bool(getattr(layer, "outputs", None))


class _Call:
    """A call of another layer with the same tensors."""

    def __init__(self, operation: Operation, node: Node):
        self.operation = operation
        self.arguments, self.outputs = node.arguments, node.outputs


def _graph_flops(model: MultiTaskModel) -> tuple[int, list[str]]:
    from kmtl.inspection.parts import in_order

    ends = [node_of(tensor) for tensor in model.outputs]
    total, unknown = 0, []
    for node in in_order(ends):
        count, missing = node_flops(node)
        total += count
        unknown += missing
    return total, unknown


def _of_one(shape: Any) -> tuple:
    """Shape of one example's tensor; a batch axis is the first, of unknown size."""
    shape = tuple(shape)
    return (1, *shape[1:]) if shape and shape[0] is None else shape


def _operation_name(layer: Layer) -> str | None:
    """Name of an operation of `keras.ops`; None for layers."""
    known = type(layer).__module__.startswith("keras.src.ops")
    return type(layer).__name__ if known else None


def _elements(shapes: Sequence[Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes)


# -- layers ----------------------------------------------------------------------------

_L = keras.layers


@flops_rule(
    _L.InputLayer, _L.Flatten, _L.Reshape, _L.Permute, _L.RepeatVector, _L.Concatenate,
    _L.Identity, _L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D,
    _L.GaussianDropout, _L.GaussianNoise, _L.AlphaDropout, _L.Embedding, _L.Cropping2D,
    _L.ZeroPadding1D, _L.ZeroPadding2D, _L.Masking,
    "Reshape", "Transpose", "Swapaxes", "Moveaxis", "ExpandDims", "Squeeze", "Stack",
    "Concatenate", "Split", "Unstack", "GetItem", "Cast", "BroadcastTo", "Repeat",
    "Tile", "Take", "TakeAlongAxis", "Pad", "Where", "Copy", "StopGradient", "Flip",
    "OneHot", "TopK", "Sort", "Argsort", "Argmax", "Argmin", "Greater", "GreaterEqual",
    "Less", "LessEqual", "Equal", "NotEqual", "LogicalAnd", "LogicalOr", "LogicalNot",
    "ZerosLike", "OnesLike", "Full", "Identity", "Ravel", HeadOfGroup,
)  # fmt: skip
def _nothing(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return 0


@flops_rule(
    "Exp", "Expm1", "Log", "Log1p", "Sqrt", "Rsqrt", "Square", "Power", "Negative",
    "Absolute", "Sign", "Reciprocal", "Clip", "Round", "Floor", "Ceil", "Sin", "Cos",
    "Tanh", "Add", "Subtract", "Multiply", "Divide", "TrueDivide", "DivideNoNan",
    "Maximum", "Minimum", "Mod", "Relu", "Relu6", "Sigmoid", "Softplus", "Silu", "Elu",
    "Selu", "Gelu", "LeakyRelu", "HardSigmoid", "HardSilu", "LogSigmoid", "Erf",
    _L.Rescaling, _L.ReLU, _L.LeakyReLU, _L.PReLU, _L.ELU,
)  # fmt: skip
def _each_output(
    layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> int:
    return _elements(outputs)


@flops_rule(
    "Sum", "Mean", "Max", "Min", "Prod", "Logsumexp", "Any", "All", "CountNonzero",
    "Cumsum", _L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D,
    _L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D,
)  # fmt: skip
def _each_input(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return _elements(inputs)


@flops_rule(_L.Add, _L.Subtract, _L.Multiply, _L.Maximum, _L.Minimum)
def _merge(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return (len(inputs) - 1) * _elements(outputs)


@flops_rule(_L.Average)
def _average(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return len(inputs) * _elements(outputs)  # and one division


@flops_rule("Softmax", "LogSoftmax", _L.Softmax)
def _softmax(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return SOFTMAX * _elements(outputs)


def _activated(activation: Any, outputs: Sequence[Shape]) -> int:
    name = getattr(activation, "__name__", "")
    if activation is None or name == "linear":
        return 0
    return (SOFTMAX if "softmax" in name else 1) * _elements(outputs)


@flops_rule(_L.Activation)
def _activation(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return _activated(layer.activation, outputs)


@flops_rule(_L.BatchNormalization, _L.Normalization)
def _batch_norm(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return BATCH_NORMALIZATION * _elements(outputs)


@flops_rule(_L.LayerNormalization, _L.GroupNormalization, "LayerNorm")
def _norm(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return NORMALIZATION * _elements(outputs[:1])


@flops_rule(_L.Dense)
def _dense(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    products = 2 * inputs[0][-1] * _elements(outputs)
    return products + _after(layer, outputs)


@flops_rule(HeadGroup)
def _head_group(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return (2 * inputs[0][-1] + 1) * _elements(outputs)


@flops_rule(_L.EinsumDense)
def _einsum_dense(
    layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> int:
    shapes = (inputs[0], tuple(layer.kernel.shape))
    return _einsum_flops(layer.equation, shapes, outputs) + _after(layer, outputs)


def _after(layer: Layer, outputs: Sequence[Shape]) -> int:
    """Bias and activation."""
    used = layer.bias_axes if hasattr(layer, "bias_axes") else layer.use_bias
    return bool(used) * _elements(outputs) + _activated(layer.activation, outputs)


@flops_rule(_L.Conv1D, _L.Conv2D, _L.Conv3D)
def _conv(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    axis = 1 if layer.data_format == "channels_first" else -1
    window = math.prod(layer.kernel_size) * inputs[0][axis] // layer.groups
    return 2 * window * _elements(outputs) + _after(layer, outputs)


@flops_rule(_L.Conv1DTranspose, _L.Conv2DTranspose)
def _transposed(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    # Every input number is spread over the window of every filter.
    spread = math.prod(layer.kernel_size) * layer.filters
    return 2 * spread * _elements(inputs) + _after(layer, outputs)


@flops_rule(_L.DepthwiseConv1D, _L.DepthwiseConv2D)
def _depthwise(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    window = math.prod(layer.kernel_size)
    return 2 * window * _elements(outputs) + _after(layer, outputs)


@flops_rule(_L.SeparableConv1D, _L.SeparableConv2D)
def _separable(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    axis = 1 if layer.data_format == "channels_first" else -1
    positions = _elements(outputs) // layer.filters
    channels = inputs[0][axis] * layer.depth_multiplier
    depthwise = 2 * math.prod(layer.kernel_size) * channels * positions
    return depthwise + 2 * channels * _elements(outputs) + _after(layer, outputs)


@flops_rule("Conv")
def _conv_operation(
    layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> int:
    return 2 * math.prod(inputs[1][:-1]) * _elements(outputs)


@flops_rule("DepthwiseConv")
def _depthwise_operation(
    layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> int:
    return 2 * math.prod(inputs[1][:-2]) * _elements(outputs)


@flops_rule(
    _L.MaxPooling1D, _L.MaxPooling2D, _L.AveragePooling1D, _L.AveragePooling2D,
    "MaxPool", "AveragePool",
)  # fmt: skip
def _pool(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    size = layer.pool_size
    rank = len(outputs[0]) - 2
    window = size**rank if isinstance(size, int) else math.prod(size)
    return window * _elements(outputs)


@flops_rule(_L.UpSampling1D, _L.UpSampling2D, _L.Resizing, "Resize")
def _resize(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    method = getattr(layer, "interpolation", "nearest")
    return 0 if method == "nearest" else BILINEAR * _elements(outputs)


# -- products of keras.ops -------------------------------------------------------------


@flops_rule("Matmul", "Dot")
def _matmul(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return 2 * inputs[0][-1] * _elements(outputs)


@flops_rule("Tensordot")
def _tensordot(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    summed = math.isqrt(
        math.prod(inputs[0]) * math.prod(inputs[1]) // _elements(outputs)
    )
    return 2 * summed * _elements(outputs)


@flops_rule("Einsum")
def _einsum(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return _einsum_flops(layer.subscripts, inputs, outputs)


def _einsum_flops(
    equation: str, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> int:
    """Products over all indices, and as many sums where an index is summed over."""
    left, _, right = equation.replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    rest = 1
    for text, shape in zip(left.split(","), inputs, strict=True):
        before, dots, after = text.partition("...")
        for letter, size in zip(before, shape, strict=False):
            sizes[letter] = max(size, sizes.get(letter, 1))
        for letter, size in zip(after[::-1], shape[::-1], strict=False):
            sizes[letter] = max(size, sizes.get(letter, 1))
        if dots:
            rest = max(rest, math.prod(shape[len(before) : len(shape) - len(after)]))
    everything = math.prod(sizes.values()) * rest
    summed = any(letter not in right for letter in sizes)
    return everything * (len(inputs) - 1 + summed)
