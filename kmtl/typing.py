"""Names for what kmtl's functions take and return.

Keras' tensors and data have no common class: where a name stands for `Any`, it is the
comment beside it that says what is meant. Importing this module loads nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import keras
    import keras_tuner

# -- values ----------------------------------------------------------------------------

#: A tensor of the backend, a KerasTensor, a variable or a NumPy array.
Tensor: TypeAlias = Any
#: A tensor's axes, batch first and None where open; a structure of them for several.
Shape: TypeAlias = Any
#: Name of a dtype, or a `keras.DTypePolicy`.
DType: TypeAlias = Any
#: Number, or a `keras.random.SeedGenerator`; None for another one every time.
Seed: TypeAlias = Any

# -- by task ---------------------------------------------------------------------------

TaskName: TypeAlias = str
#: A number per task: by name, or in the tasks' order.
PerTask: TypeAlias = Mapping[TaskName, float] | Sequence[float]
#: The loss of each task, a number or a scalar tensor.
Losses: TypeAlias = Mapping[TaskName, Tensor]
#: What each head reads: a vector or a map per row.
Features: TypeAlias = dict[TaskName, Tensor]
#: What each task's head gives: `(N, ...)` logits or values.
Outputs: TypeAlias = dict[TaskName, Tensor]

# -- data ------------------------------------------------------------------------------

#: One array or tensor `(N, ...)`, or a list or dict of them, one per input.
Inputs: TypeAlias = Any
#: Dict task name -> `(N, ...)` labels; one array where a model has a single task.
Labels: TypeAlias = Any
#: Weights `(N, ...)` of the rows, or a dict of them per task; None weighs all alike.
SampleWeight: TypeAlias = Any
#: What `fit` takes: a tuple `(x, y[, sample_weight])`, a `tf.data.Dataset`, a
#: `keras.utils.PyDataset`, a kmtl data set or a generator.
Data: TypeAlias = Any
#: One batch: `(x, y[, sample_weight])`.
Batch: TypeAlias = Any

# -- of Keras --------------------------------------------------------------------------

#: A MultiTaskModel, for the rooms below the one that makes it.
Model: TypeAlias = "keras.Model"
Layer: TypeAlias = "keras.layers.Layer"
#: A layer or another operation of a graph.
Operation: TypeAlias = "keras.Operation"
#: One call of an operation in a graph; Keras keeps the class to itself.
Node: TypeAlias = Any
Variable: TypeAlias = "keras.Variable"
Optimizer: TypeAlias = "keras.optimizers.Optimizer"
Callback: TypeAlias = "keras.callbacks.Callback"
#: What `fit` takes as callbacks.
Callbacks: TypeAlias = (
    "keras.callbacks.CallbackList | Sequence[Callback] | Callback | None"
)
#: The name, config or object of an initializer.
Initializer: TypeAlias = "str | dict | keras.initializers.Initializer"
#: The name, config or object of a regularizer, or None.
Regularizer: TypeAlias = "str | dict | keras.regularizers.Regularizer | None"
#: A name that `keras.activations.get` knows, or a function.
Activation: TypeAlias = str | Callable[[Tensor], Tensor] | None
#: An open group of a weights file: name -> array.
Store: TypeAlias = MutableMapping[str, Any]
#: 0 silent, 1 a bar, 2 a line per epoch; "auto" picks 1.
Verbose: TypeAlias = int | str

# -- of a search -----------------------------------------------------------------------

Tuner: TypeAlias = "keras_tuner.Tuner"
Oracle: TypeAlias = "keras_tuner.Oracle"
Trial: TypeAlias = "keras_tuner.engine.trial.Trial"
#: A `kmtl.HyperModel`, or any other of KerasTuner with a `build`.
AnyHyperModel: TypeAlias = "keras_tuner.HyperModel"
HyperParameters: TypeAlias = "keras_tuner.HyperParameters"
#: Value of each hyperparameter by name.
Values: TypeAlias = Mapping[str, Any]

# -- records ---------------------------------------------------------------------------

#: What describes an object; JSON-ready.
Config: TypeAlias = dict[str, Any]
#: Keyword arguments for another call.
Options: TypeAlias = Mapping[str, Any]
#: What Keras logs for a batch or an epoch: name -> number.
Logs: TypeAlias = Mapping[str, Any]
#: A file or folder.
PathLike: TypeAlias = str | os.PathLike[str]
