"""What all regularisers of task relations have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks, _registry
from kmtl._one_model import OneModel
from kmtl._private.keras import node_of
from kmtl.typing import Config, Layer, Model, TaskName, Tensor, Variable

if TYPE_CHECKING:
    import pandas as pd

#: Singular values of W below its square root count as zero.
EPSILON = 1e-6


class Relations(OneModel, _registry.Registrable, keras.layers.Layer):
    """Base class of the regularisers of task relations. Use a subclass, or its name.

    For K tasks whose last head kernels have one shape, W is the matrix `(D, K)` with a
    task's kernel, flattened, in each column (without the biases). A penalty on W comes
    to the total loss, as part of `regularization_loss`, in training and validation.

    The columns can be compared because the heads read the same features: with
    `sharing_depth` below the number of blocks, or hidden layers in the heads, every
    head reads its own, and equal weights mean less.

    A layer without a call: a place for hyperparameters and state, saved with the model.

    Args:
        alpha: Factor of the penalty, >= 0. With 0 training is exactly as without it.
        tasks: Names of the tasks that take part, at least two. Defaults to all.
    """

    built: bool

    def __init__(
        self,
        alpha: float = 0.01,
        tasks: Sequence[str] | None = None,
        *,
        name: str | None = None,
        **kwargs: Any,
    ):
        kwargs.setdefault("dtype", "float32")  # whatever the global policy
        super().__init__(name=name or f"{self.registered_name}_relations", **kwargs)
        self.alpha = _checks.check_range("alpha", alpha, 0, high_open=True)
        if isinstance(tasks, str):
            raise TypeError(
                f"`tasks` must be a sequence of task names. Received: tasks={tasks!r}"
            )
        self.tasks = None if tasks is None else tuple(map(str, tasks))
        self.task_names: tuple[str, ...] = ()
        self._kernels: Callable[[], list] | None = None

    def check(self, model: Model) -> dict[TaskName, Layer]:
        """The last layer with a kernel of every head, by task; changes nothing.

        Raises:
            ValueError: for unknown tasks, fewer than two, or kernels unlike in shape.
        """
        names = model.task_names if self.tasks is None else self.tasks
        chosen = dict.fromkeys(names)
        _checks.check_task_keys(
            "relations.tasks", chosen, model.task_names, partial=True
        )
        if len(chosen) < 2:
            raise ValueError(
                "`relations` relates at least two tasks. "
                f"Received: {', '.join(names) or 'none'}"
            )
        layers = {name: head_layer(model, name) for name in chosen}
        shapes = {name: tuple(layer.kernel.shape) for name, layer in layers.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                "`relations` compares last head kernels of one shape: name the tasks "
                f"that have it with `tasks=[...]`. Received: shapes {shapes}"
            )
        if self.built and self.task_names != tuple(chosen):
            raise ValueError(
                f"This {type(self).__name__} already relates tasks "
                f"{', '.join(self.task_names)}; use a new object per model. "
                f"Received: tasks {', '.join(chosen)}"
            )
        return layers

    def setup(self, model: Model) -> None:
        """Find the kernels of a model's heads and make the state. `compile` calls it.

        Raises:
            ValueError: as `check` does.
        """
        layers = self.check(model)
        # In a function, since Keras would take layers and variables for its own.
        self._kernels = lambda: [layer.kernel for layer in layers.values()]
        if not self.built:
            self.task_names = tuple(layers)
            self.setup_state()
            self.built = True

    def setup_state(self) -> None:
        """Make the variables. Default: none."""

    @property
    def num_tasks(self) -> int:
        return len(self.task_names)

    def weights_matrix(self) -> Tensor:
        """W, a float32 tensor `(D, K)`."""
        if self._kernels is None:
            raise ValueError(
                "Compile a model with `relations=...` first. "
                f"Received: a {type(self).__name__} without a model"
            )
        kernels = [
            ops.cast(ops.convert_to_tensor(k), "float32") for k in self._kernels()
        ]
        return ops.stack([ops.reshape(kernel, (-1,)) for kernel in kernels], axis=1)

    def penalty(self, training: bool) -> Tensor:
        """`alpha` times the penalty on W, or None where there is none to add.

        Args:
            training: Whether the state moves on.
        """
        if not self.alpha:
            return None
        weights = self.weights_matrix()
        if training:
            self.update(ops.stop_gradient(weights))
        return self.alpha * self.penalty_of(weights)

    def update(self, weights: Tensor) -> None:
        """Move the state on, given W. Default: there is none."""

    def penalty_of(self, weights: Tensor) -> Tensor:
        """Penalty on W, a scalar, without `alpha`."""
        raise NotImplementedError

    def covariance(self) -> np.ndarray:
        """The relation matrix now, `(K, K)`, symmetric, with trace 1."""
        raise NotImplementedError

    def matrix(self, kind: str = "correlation") -> pd.DataFrame:
        """The relation matrix by task name.

        Args:
            kind: `"correlation"`: 1 on the diagonal, Ω_ij / sqrt(Ω_ii Ω_jj) elsewhere;
                `"covariance"`: Ω itself.

        Returns:
            DataFrame with the tasks as index and columns.
        """
        import pandas as pd

        _checks.check_choice("kind", kind, ("correlation", "covariance"))
        matrix = np.asarray(self.covariance(), "float64")
        if kind == "correlation":
            scale = np.sqrt(np.maximum(np.diag(matrix), np.finfo("float32").tiny))
            matrix = matrix / np.outer(scale, scale)
        names = list(self.task_names)
        return pd.DataFrame(matrix, index=names, columns=names)

    def add_weight(self, *args: Any, **kwargs: Any) -> Variable:
        # Every replica computes the same state from the same kernels.
        kwargs.setdefault("aggregation", "only_first_replica")
        return super().add_weight(*args, **kwargs)

    def get_config(self) -> Config:
        config = super().get_config()
        config.pop("trainable", None)
        tasks = None if self.tasks is None else list(self.tasks)
        return {**config, "alpha": self.alpha, "tasks": tasks}


def head_layer(model: Model, name: str) -> Layer:
    """The last layer with a kernel in a task's head.

    Where heads read each other the one that is called after the task is its own.

    Raises:
        ValueError: if the head has none.
    """
    own = f"{name}_head_logits"
    for layer in model.layers:
        if layer.name == own:
            return layer
    pending, seen = [model.task_outputs[name].output], set()
    while pending:
        tensor = pending.pop(0)
        node = node_of(tensor)
        if getattr(node.operation, "kernel", None) is not None:
            return node.operation
        if id(node) not in seen:
            seen.add(id(node))
            pending += node.input_tensors
    raise ValueError(
        f"`relations` needs a layer with a kernel in the head of task '{name}', which "
        "has none: leave the task out with `tasks=[...]`."
    )


def square_root(matrix: Tensor, power: float = 0.5) -> Tensor:
    """`matrix ** power` of a symmetric positive semi-definite matrix plus `EPSILON` I.

    Not to be differentiated: where eigenvalues coincide, the gradient of an
    eigendecomposition is not finite.
    """
    values, vectors = ops.linalg.eigh(ops.stop_gradient(matrix))
    values = (ops.maximum(values, 0.0) + EPSILON) ** power
    return ops.stop_gradient(ops.matmul(vectors * values, ops.transpose(vectors)))


def closed_form(weights: Tensor) -> Tensor:
    """Ω = (WᵀW)^(1/2) / tr((WᵀW)^(1/2)), which is the best one for W."""
    root = square_root(ops.matmul(ops.transpose(weights), weights))
    return root / ops.trace(root)


def get(relations: str | Relations | None) -> Relations | None:
    """A `Relations` from an object, a registered name, or None.

    Raises:
        ValueError, TypeError: for anything else.
    """
    if relations is None:
        return None
    made: Relations = _registry.made("relations", relations)
    return made
