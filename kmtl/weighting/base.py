"""What every rule that balances tasks has in common.

A weighting is a Keras layer without a call: a place for hyperparameters (config) and
state (Keras variables), so that checkpoints, `.keras` files and distribution treat it
like any other part of the model. Its arithmetic is `keras.ops` on small arrays, in
float32 or better, and has no Python-side state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
from keras import ops

from kmtl import _checks, _registry
from kmtl._dimensions import Dimension
from kmtl._one_model import OneModel
from kmtl.tasks.terms import may_be_negative
from kmtl.typing import (
    Config,
    Data,
    Initializer,
    Losses,
    Model,
    Store,
    Tensor,
    Variable,
)
from kmtl.weighting import _clipping, _solvers
from kmtl.weighting._clipping import Norms

if TYPE_CHECKING:
    from kmtl.tasks.base import Task

# Below this a loss counts as zero: its logarithm and inverse stay finite in float32,
# also after a product with the largest losses (1e12) and weights.
LOSS_FLOOR = 1e-20


class Weighting(OneModel, _registry.Registrable, keras.layers.Layer):
    """Base class of all balancing rules. Use a subclass, or a name such as `"dwa"`.

    Subclasses check and store their hyperparameters in `__init__`, return them from
    `get_config`, and create state in `setup_state`.
    """

    kind: ClassVar[str]  # "loss" or "gradient"
    #: What `"default"` means in a search space for an argument: name -> range.
    ranges: ClassVar[Mapping[str, Dimension]] = {}
    #: The rule says something sensible for losses above 0 only: it takes logarithms,
    #: inverses, ratios or proportions of them.
    positive_losses: ClassVar[bool] = False
    built: bool

    def __init__(self, *, name: str | None = None, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")  # whatever the global policy
        super().__init__(name=name or f"{self.registered_name}_weighting", **kwargs)
        self.task_names: tuple[str, ...] = ()
        self.num_parameters: int | None = None
        self._initial_values: tuple[np.ndarray, ...] = ()

    @property
    def num_tasks(self) -> int:
        return len(self.task_names)

    @property
    def state(self) -> list:
        """Variables that are saved with the model and put back by `reset`."""
        return self.variables

    def add_weight(self, *args: Any, **kwargs: Any) -> Variable:
        # Every replica computes the same state from all-reduced losses.
        kwargs.setdefault("aggregation", "only_first_replica")
        return super().add_weight(*args, **kwargs)

    def setup(
        self, task_names: Sequence[str], num_parameters: int | None = None
    ) -> None:
        """Create the state for these tasks. Called by `compile`; later calls check.

        Args:
            task_names: The tasks, in the model's order.
            num_parameters: Number of shared parameters P, for methods that keep a
                (T, P) state; `None` for loss-based methods and at features level.
        """
        if self.built:
            if self.task_names != tuple(task_names):
                raise ValueError(
                    f"This {type(self).__name__} already balances tasks "
                    f"{', '.join(self.task_names)}; use a new object per model. "
                    f"Received: task_names={tuple(task_names)}"
                )
            known = self.num_parameters
            if None not in (known, num_parameters) and known != num_parameters:
                raise ValueError(
                    f"This {type(self).__name__} keeps state for {known} shared "
                    "parameters; where other layers are frozen it takes a new object. "
                    f"Received: num_parameters={num_parameters}"
                )
            return
        self.task_names = tuple(task_names)
        self.num_parameters = num_parameters
        try:
            self.setup_state()
        except BaseException:
            self.task_names, self.num_parameters = (), None
            raise
        self._initial_values = tuple(_snapshot(v) for v in self.state)
        self.built = True

    def needs_positive_loss(self, task_name: str) -> bool:
        """Whether this task's loss must be above 0, with the arguments given."""
        return self.positive_losses

    def check_losses(self, tasks: Iterable[Task]) -> None:
        """Refuse a loss that may be negative where the rule needs positive ones.

        Raises:
            ValueError: naming the task and what to use instead.
        """
        for task in tasks:
            if may_be_negative(task) and self.needs_positive_loss(task.name):
                raise ValueError(
                    f"`weighting='{self.registered_name}'` needs losses above 0, and "
                    f"that of task '{task.name}' may be negative. Use a weighting that "
                    "takes any loss, such as 'equal', 'fixed' or 'pcgrad', or a loss "
                    "with a lower bound of 0 (for a cosine: 1 + it). "
                    "Received: loss="
                    + repr(
                        task.loss
                        if isinstance(task.loss, str)
                        else type(task.loss).__name__
                    )
                )

    def setup_state(self) -> None:
        """Create variables with `self.add_state(...)`. Default: no state.

        What can be refused comes first: a refused object is then as good as new.
        """

    def add_state(
        self,
        name: str,
        shape: tuple[int, ...] = (),
        initializer: Initializer = "zeros",
        trainable: bool = False,
        **kwargs: Any,
    ) -> Variable:
        """A float32 variable, averaged over replicas when it is assigned in a step."""
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            dtype="float32",
            trainable=trainable,
            autocast=False,
            # The optimizer updates trainable variables outside the replicas.
            aggregation="none" if trainable else "mean",
            **kwargs,
        )

    @property
    def unseeded(self) -> list[keras.random.SeedGenerator]:
        """What draws random numbers without a seed that was given."""
        if getattr(self, "seed", None) is not None:
            return []
        kind = keras.random.SeedGenerator
        return [value for value in vars(self).values() if isinstance(value, kind)]

    def begin_with(self, seed: int) -> None:
        """Begin random numbers at a seed, where none has been given."""
        for generator in self.unseeded:
            generator.state.assign([seed, 0])

    def reset(self) -> None:
        """Put all state back to the value that it had after `setup`."""
        for variable, value in zip(self.state, self._initial_values, strict=True):
            variable.assign(ops.convert_to_tensor(value, dtype=variable.dtype))

    def on_fit_begin(self, model: Model, validation_data: Data) -> None:
        """Host-side hook, before `fit` trains; the data as given to it, or None."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Host-side hook, before the first batch of an epoch (0-based)."""

    def on_epoch_end(self, epoch: int, losses: Losses) -> None:
        """Host-side hook with the epoch's mean raw training loss of each task."""

    def get_config(self) -> Config:
        config = super().get_config()
        config.pop("trainable", None)
        return config

    # Keras leaves the state of seed generators out of a layer's saved variables.
    def save_own_variables(self, store: Store) -> None:
        for index, variable in enumerate(self.state):
            store[str(index)] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store: Store) -> None:
        if len(store.keys()) != len(self.state):
            raise ValueError(
                f"The saved {self.name} must have as many variables as this one, "
                f"{len(self.state)} for tasks {', '.join(self.task_names)}; were "
                "the tasks and the weighting the same, and was it set up (compiled)? "
                f"Received: {len(store.keys())} variables"
            )
        for index, variable in enumerate(self.state):
            variable.assign(store[str(index)])

    # With the task names, a reloaded weighting has its variables before the weights of
    # a checkpoint are read.
    def get_build_config(self) -> Config | None:
        if not self.built:
            return None
        return {
            "task_names": list(self.task_names),
            "num_parameters": self.num_parameters,
        }

    def build_from_config(self, config: Config) -> None:
        if config:
            self.setup(config["task_names"], config.get("num_parameters"))


class LossWeighting(Weighting):
    """A rule that needs only the tasks' losses; runs in Keras' own train step."""

    kind = "loss"
    #: `learn` is called in every step before it, with what a look-ahead step tells.
    looks_ahead: ClassVar[bool] = False

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Total loss and the weight each task had in it.

        Args:
            losses: Tensor of shape `(T,)`, float32: each task's mean loss over its
                labels in the batch, times the task's own weight; 0 where absent.
            present: Tensor of shape `(T,)`: the number of labels of the task in the
                batch, or just 1 where it has one; 0 where it has none, or where the
                task's own weight is 0. Absent tasks are left out of the balance. Only
                `ByLabels` looks at the numbers.
            training: Python bool; False in validation, where state must not change.

        Returns:
            `(total, weights)`: a scalar to minimise, and a `(T,)` tensor, without
            gradient, of the factors d total / d loss; 0 where absent.
        """
        raise NotImplementedError

    def prepare(self, losses: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Losses in float32 or better with 0 for absent tasks, and the 0/1 mask."""
        if not self.built:
            raise ValueError(
                f"Call `setup(task_names)` before `combine`. Received: a "
                f"{type(self).__name__} without tasks"
            )
        losses = ops.convert_to_tensor(losses)
        if tuple(losses.shape) != (self.num_tasks,):
            raise ValueError(
                f"`losses` must have one entry per task ({', '.join(self.task_names)})."
                f" Received: losses of shape {tuple(losses.shape)}"
            )
        dtype = keras.backend.standardize_dtype(losses.dtype)
        dtype = "float64" if dtype == "float64" else "float32"
        here = ops.convert_to_tensor(present) > 0
        losses = ops.where(here, ops.cast(losses, dtype), ops.zeros((), dtype))
        return losses, ops.cast(here, dtype)


class GradientWeighting(Weighting):
    """A rule on the Jacobian of the tasks' losses (rows: tasks, T x P).

    Methods whose update is a weighted sum of rows implement `_row_weights` from the
    Gramian J J^T (T x T), which never needs J as one matrix; the others set
    `uses_gramian = False` and implement `_direction`, which must act on columns
    independently (`columnwise = True`) or keep a (T, P) state
    (`parameter_state = True`).

    Args:
        level: Which gradients are balanced. `"features"`: those of the features at the
            seam, the end of the shared trunk; one backward pass through the trunk
            whatever the number of tasks, at the price of balancing what a parameter's
            gradient is made from and not that gradient itself. `"parameters"`: those
            of the shared parameters, as in the papers. Defaults to features where the
            model has one seam and the method allows it, else parameters.
        monitor: Also log gradient norms, cosines and the share of conflicting pairs,
            from the same gradients. Defaults to False.
        low_memory: At parameters level, keep two of the tasks' gradients at a time
            instead of all T, for (T + 1) T / 2 more backward passes. For methods on
            the Gramian. Defaults to False.
        clip_norm: Float > 0, or a dict of them by task (None, or no entry: not
            clipped): a task's gradient that is longer is shortened to this length
            before the method sees it, so that one task's spike is not a step of all. It
            is the gradient of the shared parameters, unless level="features" is given:
            then that of the features of all rows of the batch, for methods on the
            Gramian. Heads' own gradients are not clipped, nor is that of an only task:
            the optimizer's `clipnorm` does that. Defaults to none.
    """

    kind = "gradient"
    uses_gramian: ClassVar[bool] = True
    #: `direction` may be applied to slices of J's columns one after another.
    columnwise: ClassVar[bool] = False
    #: The method has (T, P) state and therefore only parameter level.
    parameter_state: ClassVar[bool] = False
    #: `gramian` may be J1 J2^T from two independent halves of the batch (then not
    #: symmetric), which makes the weights' gradient unbiased.
    double_sampling: bool = False

    def __init__(
        self,
        *,
        level: str | None = None,
        monitor: bool = False,
        low_memory: bool = False,
        clip_norm: Norms = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        clip_norm = _clipping.check_norms(clip_norm)
        if clip_norm is not None:
            # Of the features' gradients a replica has its own rows alone; their
            # products with each other, the Gramian, are summed over all.
            if level == "features" and not self.uses_gramian:
                raise ValueError(
                    "`clip_norm` at level='features' needs a method on the Gramian: "
                    "use level='parameters'. Received: level='features', "
                    f"clip_norm={clip_norm} of '{self.registered_name}'"
                )
            level = level or "parameters"
        self.clip_norm = clip_norm
        if low_memory and (not self.uses_gramian or level == "features"):
            raise ValueError(
                "`low_memory=True` needs a method on the Gramian at "
                f"level='parameters'. Received: {self.registered_name}, level={level}"
            )
        self.low_memory = bool(low_memory)
        if level is not None:
            _checks.check_choice("level", level, ("features", "parameters"))
        self.level = level
        self.monitor = bool(monitor)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "level": self.level,
            "monitor": self.monitor,
            "low_memory": self.low_memory,
            "clip_norm": dict(self.clip_norm)
            if isinstance(self.clip_norm, Mapping)
            else self.clip_norm,
        }

    def setup(
        self, task_names: Sequence[str], num_parameters: int | None = None
    ) -> None:
        if self.clip_norm is not None and self.double_sampling:
            raise ValueError(
                "`clip_norm` needs the lengths of gradients, and "
                f"'{self.registered_name}' has products of two halves of a batch: use "
                "double_sampling=False, or no `clip_norm`. Received: "
                f"clip_norm={self.clip_norm}, double_sampling=True"
            )
        if isinstance(self.clip_norm, Mapping):
            _checks.check_task_keys(
                "clip_norm", self.clip_norm, task_names, partial=True
            )
        super().setup(task_names, num_parameters)

    def add_weight(self, *args: Any, **kwargs: Any) -> Variable:
        # State is never cast down inside a layer that computes in half precision.
        defaults = {"initializer": "zeros", "trainable": False, "autocast": False}
        return super().add_weight(*args, **{**defaults, **kwargs})

    def row_weights(self, gramian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        """(T,) weights w; the update is w @ J. Advances the method's state.

        Args:
            gramian: `(T, T)` float tensor J J^T; zero rows and columns where absent.
            losses: `(T,)` float tensor, the tasks' losses.
            present: `(T,)` float tensor, 1 where the batch has labels of the task and
                its own weight is above 0.

        Returns:
            `(T,)` tensor of the Gramian's dtype (float32 at least), 0 where absent.
        """
        gramian = _solvers.at_least_float32(gramian)
        dtype = gramian.dtype
        resolution = _solvers.resolution(gramian)
        gramian, losses, present = map(_solvers.widen, (gramian, losses, present))
        finite = ops.all(ops.isfinite(gramian)) & ops.all(ops.isfinite(losses))
        # Solvers of TensorFlow raise on what is not finite; the state stays as it is.
        gramian = ops.where(finite, gramian, _solvers.identity(gramian))
        losses = ops.where(finite, losses, ops.ones_like(losses))
        squares = ops.diagonal(gramian)
        factors = _clipping.factors_of(self.clip_norm, self.task_names, squares)
        if factors is not None:
            gramian = factors[:, None] * gramian * factors[None, :]
        with self._guard(finite):
            weights = self._row_weights(gramian, losses, present, resolution)
        if factors is not None:
            weights = weights * factors
        return ops.cast(ops.where(finite, weights * present, float("nan")), dtype)

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        """What a Gramian method implements, in the widest float the backend has.

        `resolution` is the relative rounding error of the Gramian's entries, which
        is coarser than the working precision where the gradients were float32.
        """
        raise NotImplementedError

    def direction(self, jacobian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        """(P,) update, to be subtracted like a gradient. Advances the state.

        A gradient that is not finite gives an update that is not finite, as loss
        scaling expects, and leaves the state as it was.
        """
        jacobian = _solvers.at_least_float32(jacobian)
        if not self.uses_gramian:
            losses, present = (ops.cast(x, jacobian.dtype) for x in (losses, present))
            finite = ops.all(ops.isfinite(jacobian))
            squares = ops.sum(jacobian * jacobian, axis=-1)
            factors = _clipping.factors_of(self.clip_norm, self.task_names, squares)
            if factors is not None:
                jacobian = factors[:, None] * jacobian
            with self._guard(finite):
                update = self._direction(jacobian, losses, present)
            return ops.where(finite, update, float("nan"))
        gramian = ops.matmul(jacobian, ops.transpose(jacobian))
        weights = self.row_weights(gramian, losses, present)
        return ops.matmul(weights, jacobian)

    def _direction(self, jacobian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        """What a method on the Jacobian implements, in one float dtype."""
        raise NotImplementedError

    def head_weights(self, weights: Tensor, losses: Tensor) -> Tensor | None:
        """(T,) factors on the gradients of the heads' own parameters, or None for 1.

        Only methods that put a factor on the whole loss override it. Called after
        `row_weights` or `direction` of the same step, with that step's weights.
        """
        return None

    def task_weights(self) -> Tensor | None:
        """(T,) weights for the logs where `direction` has no row weights, or None."""
        return None

    def _num_parameters(self) -> int:
        """P, for the methods with a (T, P) state."""
        if self.num_parameters is None:
            raise ValueError(
                f"`{self.registered_name}` keeps a gradient per task and works only on "
                "the shared parameters (`level='parameters'`), whose number `setup` "
                "needs. Received: num_parameters=None"
            )
        return self.num_parameters

    #: While a step runs: whether its gradients are finite (a scalar tensor).
    _finite: Tensor | None = None

    @contextlib.contextmanager
    def _guard(self, finite: Tensor) -> Iterator[None]:
        """State assigned by `_keep` within keeps its value where `finite` is false."""
        self._finite = finite
        try:
            yield
        finally:
            self._finite = None

    def _keep(self, variable: Variable, value: Tensor) -> None:
        """Assign state, unless a gradient of this step overflowed."""
        value = ops.cast(value, variable.dtype)
        old = ops.convert_to_tensor(variable)
        variable.assign(ops.where(self._finite, value, old))


def _snapshot(variable: Variable) -> np.ndarray:
    """The value; a constant of any size, such as MoCo's (T, P) zeros, as one number."""
    value = np.asarray(ops.convert_to_numpy(variable))
    if value.size and (value == value.flat[0]).all():
        return np.broadcast_to(value.flat[0], value.shape)
    return value.copy()


def get(identifier: str | dict | Weighting | None) -> Weighting | None:
    """A weighting from its name, config or itself (`None` stays `None`)."""
    if identifier is None:
        return None
    if isinstance(identifier, dict):
        return keras.saving.deserialize_keras_object(identifier)
    made: Weighting = _registry.made("weighting", identifier)
    return made
