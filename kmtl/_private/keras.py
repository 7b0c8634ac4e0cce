"""What Keras keeps private. Checked on Keras 3.15."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras

from kmtl.typing import (
    Layer,
    Model,
    Node,
    Operation,
    Optimizer,
    Tensor,
    Variable,
)

#: Methods of Keras' classes that ours override.
OVERRIDDEN = (
    # At an epoch's end Keras computes every metric once more, operation by operation.
    "_get_metrics_result_or_logs",
    # What a functional model calls at a node: what is frozen there draws nothing.
    "_get_operation_for_node",
)

# -- the graph of a functional model ---------------------------------------------------
# `layer.input` and `layer.output` are public, and know the first call of a layer only.


def node_of(tensor: Tensor) -> Node:
    """The call that made a KerasTensor.

    Returns:
        A node, with `operation` (the layer), `arguments`, `input_tensors`, `outputs`
        and `parent_nodes`.
    """
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def producer(tensor: Tensor) -> Operation:
    """The layer or operation that made a KerasTensor."""
    return tensor._keras_history.operation


def mask_on(tensor: Tensor) -> Tensor | None:
    """The mask of padding that Keras takes along on a KerasTensor, if it has one."""
    return getattr(tensor, "_keras_mask", None)


def nodes_of(layer: Layer) -> list[Node]:
    """The calls of a layer, in the order in which they were made."""
    return list(getattr(layer, "_inbound_nodes", ()))


def sublayers(layer: Layer) -> list[Layer]:
    """All layers inside a layer or model, at any depth, without itself.

    `model.layers` lists those at the top only, and layers have no such list.
    """
    return layer._flatten_layers(include_self=False)


# -- variables -------------------------------------------------------------------------


def value_of(variable: Variable) -> Tensor:
    """The backend's own variable or array; None where `fit` has taken it away.

    On JAX `fit` hands the arrays to its steps and leaves nothing in the variables, and
    `variable.value` then fails.
    """
    return variable._value


def forget_variable(layer: Layer, variable: Variable) -> None:
    """Make a variable no longer one of the layer's. Layers can only add them."""
    layer._untrack_variable(variable)


def forget_layer(owner: Layer, part: Any) -> None:
    """Make a layer that was an attribute no longer a part of its owner.

    Assigning another value to the attribute leaves the old one tracked and saved.
    """
    owner._tracker.untrack(part)


#: Argument with which `fit` calls `evaluate` on validation data that it has prepared.
CACHED_EVALUATION = "_use_cached_eval_dataset"

#: Where weights files of older versions of Keras have their layers.
OLD_LAYERS = "_layer_checkpoint_dependencies"


def variable_index(optimizer: Optimizer, variable: Variable) -> int:
    """Place of a variable, or of the backend's variable in it, in a built optimizer.

    What Keras' guide for optimizers of one's own calls in `update_step`.
    """
    return optimizer._get_variable_index(variable)


#: What `fit` on JAX keeps of a step's state in the model, anew with every step.
JAX_STATE = "_jax_state"


@contextlib.contextmanager
def keeping_values(model: Model) -> Iterator[None]:
    """Within it a failure leaves the model with its variables' values.

    On JAX Keras takes them out of the variables for its steps, and where one fails
    before its end does not put them back, but in `fit` those of the step before.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    optimizer = getattr(model, "optimizer", None)
    own = [] if optimizer is None else optimizer.variables
    variables = [*model.variables, *model.metrics_variables, *own]
    values = [variable._value for variable in variables]
    try:
        yield
    except BaseException:
        model.jax_state_sync()
        for variable, value in zip(variables, values, strict=True):
            lost = variable._value is None or _is_gone(variable._value)
            if lost and value is not None and not _is_gone(value):
                variable._value = value
        raise


def _is_gone(value: Tensor) -> bool:
    """Whether a step was given the memory of an array."""
    import jax

    return isinstance(value, jax.Array) and value.is_deleted()


# -- steps ----------------------------------------------------------------------------


def update_metrics(model: Model, *arguments: Any) -> tuple[Any, Any]:
    """On JAX: logs and new metric variables, from the old ones and a batch.

    `compute_metrics` is public, and has the variables' scope to be put around it.
    """
    return model._update_metrics_variables(*arguments)


class LossesOfThreads:
    """Mixin of layers: what `add_loss` adds is kept per thread.

    Keras keeps it in one list per layer. Under `tf.distribute` the replicas run through
    one layer object, each in a thread of its own, and change places wherever one of
    them waits for the others.
    """

    _losses_of_threads: dict[int, list]

    @property
    def _losses(self) -> list:
        return self._losses_of_threads.setdefault(threading.get_ident(), [])

    @_losses.setter
    def _losses(self, value: Any) -> None:
        object.__setattr__(self, "_losses_of_threads", {})
