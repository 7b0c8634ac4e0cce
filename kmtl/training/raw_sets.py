"""Data sets whose inputs are what users have: prepared batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized

import keras
import numpy as np

from kmtl._arrays import as_array
from kmtl.inputs.base import Input
from kmtl.inputs.matching import prepare_inputs
from kmtl.training.passed_on import PassedOn
from kmtl.training.sources import is_split, is_tf_dataset
from kmtl.typing import Batch, Data, Inputs, Options, Tensor

#: Input name -> what is known of it, as `MultiTaskModel.input_specs`.
Specs = Mapping[str, Input]


def specs_in(arguments: Options) -> dict[str, Input]:
    """What a builder's argument `inputs` says of the inputs; nothing without it."""
    inputs = arguments.get("inputs")
    if isinstance(inputs, Input):
        return {"inputs": inputs}
    fitted = isinstance(inputs, Mapping) and all(
        isinstance(spec, Input) and spec.fitted for spec in inputs.values()
    )
    return dict(inputs) if inputs and fitted else {}


def prepared_batch(specs: Specs, batch: Batch) -> Batch:
    """The batch with its inputs as the model takes them."""
    if not specs:
        return batch
    if isinstance(batch, (tuple, list)) and len(batch) in (1, 2, 3):
        return (prepare_inputs(specs, _arrays(batch[0])), *batch[1:])
    return prepare_inputs(specs, _arrays(batch))


def prepared_data(specs: Specs, data: Data) -> Data:
    """Training or test data with their inputs as the model takes them.

    Args:
        specs: Of the model; with none, inputs that are lists of numbers become arrays,
            and all else is returned as it is.
        data: `(x, y)` or `(x, y, sample_weight)`, a `kmtl.data.Split`, or a data set.
    """
    if not specs:
        return _without_lists(data)
    if is_split(data):
        data = tuple(data.arrays())
    if isinstance(data, (tuple, list)):
        return prepared_batch(specs, tuple(data))
    return prepared(specs, data)


def _without_lists(data: Data) -> Data:
    """`(x, y)` with arrays in the place of lists, which may be of rows or of inputs."""
    if not (isinstance(data, (tuple, list)) and len(data) in (2, 3)):
        return data
    x, y, *weight = data
    labels = next(iter(y.values()), None) if isinstance(y, Mapping) else y
    if isinstance(x, Mapping):
        x = {name: _as_array(part) for name, part in x.items()}
    elif isinstance(x, (list, tuple)):
        rows = len(labels) if isinstance(labels, Sized) else len(x)
        x = _as_array(x) if len(x) == rows else type(x)(map(_as_array, x))
    return x, y, *weight


def _as_array(part: Inputs) -> Inputs:
    """Lists of numbers as an array; anything else as it is."""
    first = part
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    listed = isinstance(part, (list, tuple)) and isinstance(first, (int, float))
    return as_array(part, "`x`") if listed else part


def prepared(specs: Specs, data: Data) -> Data:
    """The data set with its inputs as the model takes them; itself if they are."""
    if not specs:
        return data
    if is_tf_dataset(data):
        return _mapped(specs, data)
    if isinstance(data, keras.utils.PyDataset):
        return (
            data if isinstance(data, PreparedBatches) else PreparedBatches(specs, data)
        )
    if isinstance(data, Iterator):
        return (prepared_batch(specs, batch) for batch in data)
    return data


class PreparedBatches(PassedOn):
    """With its inputs as the model takes them."""

    def __init__(self, specs: Specs, source: keras.utils.PyDataset):
        super().__init__(source)
        self.specs = specs

    def __getitem__(self, index: int) -> Batch:
        return prepared_batch(self.specs, self.source[index])


def _arrays(x: Inputs) -> Inputs:
    """Tensors as NumPy arrays; frames stay what they are."""
    return keras.tree.map_structure(
        lambda leaf: np.asarray(leaf) if keras.ops.is_tensor(leaf) else leaf, x
    )


def _mapped(specs: Specs, data: Data) -> Data:
    """A `tf.data.Dataset` whose elements have prepared inputs."""
    element = data.element_spec
    several = isinstance(element, tuple)
    if _is_prepared(specs, element[0] if several else element):
        return data
    if not hasattr(data, "map"):
        raise TypeError(
            "A data set that is distributed must hold prepared inputs: distribute "
            "`model.prepare_inputs(data)`. Received: one with raw inputs"
        )
    change = _in_graph(specs, element[0] if several else element)
    if several:
        return data.map(lambda x, *rest: (change(x), *rest))
    return data.map(lambda *parts, **named: change(named or parts[0]))


def _is_prepared(specs: Specs, element: Inputs) -> bool:
    """Whether the inputs of a data set are the model's arrays, by shape and dtype.

    A size that the data set does not know may be any: such inputs are prepared.
    """
    if len(specs) == 1:
        leaves = {next(iter(specs)): element}
    elif isinstance(element, dict) and set(element) == set(specs):
        leaves = element
    else:
        return False
    return all(
        getattr(leaf, "shape", None) is not None
        and leaf.shape.rank == len(specs[name].shape) + 1
        and all(
            wanted in (None, size)
            for size, wanted in zip(leaf.shape[1:], specs[name].shape, strict=True)
        )
        and leaf.dtype.name == specs[name].dtype
        for name, leaf in leaves.items()
    )


def _in_graph(specs: Specs, element: Inputs) -> Callable[[Inputs], Inputs]:
    """What prepares the inputs of a data set, called by TensorFlow for each batch."""
    import tensorflow as tf

    def on_host(*leaves: Tensor) -> list[np.ndarray]:
        x = tf.nest.pack_sequence_as(element, [np.asarray(leaf) for leaf in leaves])
        arrays = prepare_inputs(specs, x)
        arrays = arrays if isinstance(arrays, dict) else {next(iter(specs)): arrays}
        return [arrays[name].astype(spec.dtype) for name, spec in specs.items()]

    def change(x: Inputs) -> Inputs:
        made = tf.numpy_function(
            on_host, tf.nest.flatten(x), [tf.as_dtype(s.dtype) for s in specs.values()]
        )
        found = {}
        for (name, spec), tensor in zip(specs.items(), made, strict=True):
            found[name] = tf.ensure_shape(tensor, (None, *spec.shape))
        return found if len(specs) > 1 else next(iter(found.values()))

    return change
