"""The heads of many tasks alike, as one layer, and the head of each of them in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._private.keras import nodes_of, producer
from kmtl.typing import Config, Initializer, Layer, Regularizer, Shape, Store, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class HeadGroup(keras.layers.Layer):
    """A dense layer for each of several tasks on the same features, as one product.

    Its kernel is drawn as those of single layers `(inputs, units)` are, each with its
    own seed. What belongs to one task is read and written by its `HeadOfGroup`, which
    also has it in files: they are those of single heads.

    Args:
        tasks: Names of the G tasks.
        units: Outputs of each, >= 1.
        kernel_initializer: Keras initializer of one task's kernel.
        seeds: Seeds of the tasks' kernels, for an initializer that draws; None is
            different every time.
        kernel_regularizer: Keras regulariser, L1 or L2, of the kernels; or None.

    Call arguments:
        inputs: `(N, inputs)`.

    Returns:
        `(N, G, units)`.

    Example:

    >>> layer = kmtl.layers.HeadGroup(tasks=["a", "b", "c"], units=2)
    >>> tuple(layer(np.ones((5, 4), "float32")).shape[1:])
    (3, 2)
    """

    def __init__(
        self,
        tasks: Sequence[str],
        units: int,
        kernel_initializer: Initializer = "glorot_uniform",
        seeds: Sequence[int | None] | None = None,
        kernel_regularizer: Regularizer = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.tasks = [str(task) for task in tasks]
        self.units = _checks.check_int("units", units, 1)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seeds = None if seeds is None else list(seeds)

    def build(self, input_shape: Shape) -> None:
        tasks = len(self.tasks)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(tasks, int(input_shape[-1]), self.units),
            initializer=self._drawn,
            regularizer=self.kernel_regularizer,
        )
        self.bias = self.add_weight(
            name="bias", shape=(tasks, self.units), initializer="zeros"
        )
        self.built = True

    def _drawn(self, shape: Shape, dtype: Any = None) -> Tensor:
        """Kernels of single layers, whose fans are not those of a `shape` with G."""
        kernels = [
            self.kernel_initializer_of(place)(tuple(shape[1:]), dtype=dtype)
            for place in range(shape[0])
        ]
        return ops.stack(kernels)

    def kernel_initializer_of(self, place: int) -> keras.initializers.Initializer:
        """The initializer of one task's kernel, with its seed."""
        config = self.kernel_initializer.get_config()
        if "seed" in config:
            config["seed"] = None if self.seeds is None else self.seeds[place]
        return type(self.kernel_initializer).from_config(config)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.einsum("nf,gfu->ngu", inputs, self.kernel) + self.bias

    def of_copies(self, inputs: Tensor) -> Tensor:
        """What `call` gives, from features of each task's own.

        Args:
            inputs: `(G, N, inputs)`.
        """
        outputs = ops.matmul(ops.cast(inputs, self.compute_dtype), self.kernel)
        return ops.transpose(outputs, (1, 0, 2)) + self.bias

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        shape = self.compute_output_shape(inputs.shape)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], len(self.tasks), self.units)

    def save_own_variables(self, store: Store) -> None:
        """Nothing: each head has its own."""

    def load_own_variables(self, store: Store) -> None:
        """Nothing: each head has its own."""

    def to_keras(self) -> keras.layers.Layer:
        """What hands the features on, to single heads."""
        return keras.layers.Identity(name=self.name)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "tasks": self.tasks,
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seeds": self.seeds,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


@keras.saving.register_keras_serializable(package="kmtl")
class HeadOfGroup(keras.layers.Layer):
    """The head of one task of a `HeadGroup`, with the name that it would have alone.

    It has no variables, and yet weights: its rows of those of the group, as
    `get_weights`, `set_weights` and files know them.

    Args:
        place: Place of the task in the group.

    Call arguments:
        inputs: What the group gave.

    Returns:
        `(N, units)`.
    """

    def __init__(self, place: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.place = _checks.check_int("place", place, 0)

    def call(self, inputs: Tensor) -> Tensor:
        return inputs[:, self.place]

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(
            self.compute_output_shape(inputs.shape), dtype=self.compute_dtype
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *input_shape[2:])

    @property
    def group(self) -> HeadGroup:
        """The layer that it is a head of."""
        # Kept as an attribute it would be saved with every head.
        found = producer(nodes_of(self)[0].input_tensors[0])
        if not isinstance(found, HeadGroup):
            raise TypeError(
                f"Layer '{self.name}' must read a HeadGroup. Received: {found}"
            )
        return found

    @property
    def kernel(self) -> Tensor:
        """The task's kernel, `(inputs, units)`, as a tensor."""
        return ops.convert_to_tensor(self.group.kernel)[self.place]

    @property
    def bias(self) -> Tensor:
        """The task's bias, `(units,)`, as a tensor."""
        return ops.convert_to_tensor(self.group.bias)[self.place]

    def get_weights(self) -> list[np.ndarray]:
        return [np.array(ops.convert_to_numpy(v)) for v in (self.kernel, self.bias)]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        group = self.group
        for variable, value in zip((group.kernel, group.bias), weights, strict=True):
            whole = np.array(ops.convert_to_numpy(variable))
            if whole[self.place].shape != np.shape(value):
                raise ValueError(
                    f"Weights of layer '{self.name}' must have shape "
                    f"{whole[self.place].shape}. Received: {np.shape(value)}"
                )
            whole[self.place] = value
            variable.assign(whole)

    def count_params(self) -> int:
        return sum(math.prod(v.shape[1:]) for v in (self.group.kernel, self.group.bias))

    def save_own_variables(self, store: Store) -> None:
        for number, value in enumerate(self.get_weights()):
            store[str(number)] = value

    def load_own_variables(self, store: Store) -> None:
        self.set_weights([np.array(store[str(number)]) for number in range(2)])

    def to_keras(self) -> keras.layers.Layer:
        """The single head, which reads the features."""
        group = self.group
        return keras.layers.Dense(
            group.units,
            name=self.name,
            dtype=group.dtype_policy,
            kernel_initializer=group.kernel_initializer_of(self.place),
            kernel_regularizer=keras.regularizers.get(
                keras.regularizers.serialize(group.kernel_regularizer)
            ),
        )

    def get_config(self) -> Config:
        return {**super().get_config(), "place": self.place}


def are_heads(one: Layer, other: Layer) -> bool:
    """Whether one is a single head and the other one of several that are one layer."""
    return {type(one), type(other)} == {keras.layers.Dense, HeadOfGroup}


def trained_by(layer: Layer) -> list:
    """The trainable variables that a layer's own weights are in."""
    if isinstance(layer, HeadGroup):
        return []
    owner = layer.group if isinstance(layer, HeadOfGroup) else layer
    return list(owner.trainable_variables)


def own_weights(layer: Layer) -> list[tuple[int, ...]]:
    """Shapes of the weights that a layer has for itself, as files have them."""
    if isinstance(layer, HeadGroup):
        return []
    if isinstance(layer, HeadOfGroup):
        group = layer.group
        return [tuple(v.shape[1:]) for v in (group.kernel, group.bias)]
    return [tuple(variable.shape) for variable in layer.weights]
