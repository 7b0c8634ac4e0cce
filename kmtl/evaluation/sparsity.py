"""How many activations are zero, block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from kmtl.inspection.parts import structure
from kmtl.tasks.output import TaskOutput
from kmtl.training import sources
from kmtl.training.model import MultiTaskModel
from kmtl.training.raw_sets import prepared_data
from kmtl.typing import Data, Operation, Tensor

if TYPE_CHECKING:
    import pandas

#: Layers, and operations of functional models, that are an activation themselves.
ACTIVATIONS = (
    "Activation", "ELU", "Elu", "Gelu", "HardSigmoid", "HardSilu", "HardTanh",
    "LeakyReLU", "LeakyRelu", "PReLU", "ReLU", "Relu", "Relu6", "Selu", "Sigmoid",
    "Silu", "Softplus", "Tanh",
)  # fmt: skip


def activation_sparsity(model: MultiTaskModel, data: Data) -> pandas.DataFrame:
    """Share of activations that are zero, in every block and head of a model.

    An activation is what a non-linear activation function gives, ahead of dropout; the
    outputs of tasks are none. A unit (a channel, of maps and sequences) that is zero in
    every row is dead: it says nothing of these data, and no gradient reaches it.

    Args:
        model: The model, which stays as it is; it runs as in prediction.
        data: `(x, y)`, a `kmtl.data.Split`, or a finite data set; labels are not read.

    Returns:
        A DataFrame with one row per part that has activations, from the inputs on, by
        the part's name: `tasks` (which depend on it), `activations` (of one row of
        data), `zeros` (share of all activations that are exactly 0, in [0, 1]) and
        `dead` (share of the units).

    Raises:
        ValueError: for a model without activations.

    Reference: X. Glorot, A. Bordes, Y. Bengio, "Deep Sparse Rectifier Neural Networks",
    AISTATS 2011.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8, 8), sharing_depth=1
    ... )
    >>> data = np.zeros((3, 4)), {"a": np.zeros(3), "b": np.zeros(3)}
    >>> kmtl.evaluation.activation_sparsity(model, data).zeros.to_dict()
    {'shared_block1': 1.0, 'a_block2': 1.0, 'b_block2': 1.0}
    """
    import pandas

    found = structure(model)
    parts = {
        part.name: [node for node in part.nodes if _is_activation(node.operation)]
        for part in found.parts
    }
    parts = {name: nodes for name, nodes in parts.items() if nodes}
    if not parts:
        raise ValueError(
            "The model must have activations: layers with `activation=`, or activation "
            f"layers, ahead of its outputs. Received: parts "
            f"{[part.name for part in found.parts]}"
        )
    tensors = [t for nodes in parts.values() for n in nodes for t in n.output_tensors]
    probe = keras.Model(model.input, tensors)
    rows, zeros = 0, [0] * len(tensors)
    alive = [np.zeros(tensor.shape[-1], bool) for tensor in tensors]
    sizes = [0] * len(tensors)
    data = prepared_data(model.input_specs, data)
    for x, _, _ in sources.batches_of(model.checked_arrays(data) or data):
        given = keras.tree.map_structure(ops.convert_to_tensor, x)
        outputs: list[Tensor] = keras.tree.flatten(probe(given, training=False))
        rows += len(outputs[0])
        for place, output in enumerate(outputs):
            values = ops.convert_to_numpy(output)
            zeros[place] += int((values == 0).sum())
            sizes[place] += values.size
            alive[place] |= (values != 0).reshape(-1, values.shape[-1]).any(0)
    lines = {}
    start = 0
    for name, nodes in parts.items():
        own = slice(start, start + sum(len(node.output_tensors) for node in nodes))
        start = own.stop
        lines[name] = {
            "tasks": ", ".join(found[name].tasks),
            "activations": sum(sizes[own]) // rows,
            "zeros": sum(zeros[own]) / sum(sizes[own]),
            "dead": float(1 - np.concatenate(alive[own]).mean()),
        }
    table = pandas.DataFrame.from_dict(lines, orient="index")
    table.index.name = "part"
    return table


def _is_activation(operation: Operation) -> bool:
    if isinstance(operation, TaskOutput):
        return False
    if type(operation).__name__ in ACTIVATIONS:
        given = getattr(operation, "activation", None)
        return given is not keras.activations.linear
    given = getattr(operation, "activation", keras.activations.linear)
    return given not in (None, keras.activations.linear)
