"""Weights learned on validation data by looking one step ahead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._private.keras import forget_variable
from kmtl._registry import register
from kmtl.typing import Config, Data, Model, Tensor, Variable
from kmtl.weighting import _masking as masking
from kmtl.weighting.base import LossWeighting

DATA = "validation_part"  # name of the variables that hold data


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "auto_lambda")
class AutoLambda(LossWeighting):
    """Learns the weights that lower the primary tasks' validation loss one step ahead.

    Choose it when some tasks are there only to help others, and validation data can be
    spared: the weights of tasks that do not help the primary ones fall.

    Formula: with the trainable weights theta, the rate a of the model's optimizer and
    `theta' = theta - a grad sum_t w_t L_t(theta)` on the training batch, a step of Adam
    on w along the gradient of the primary tasks' validation loss at theta', which is
    `-a <h, grad L_t(theta)>` with `h = grad L_validation(theta')`; then an ordinary
    training step with the new w.

    Args:
        data: Where the validation batches come from: `(x, y)`, `(x, y, sample_weight)`
            or a `kmtl.data.Split`, held on the device. None takes the arrays given to
            `fit` as `validation_data`. The weights are fitted to them: choose epochs
            and hyperparameters by other data.
        primary: Names of the tasks whose validation loss counts. Defaults to all.
        batch_size: Int >= 1, rows drawn (with replacement) per step. Defaults to 32.
        learning_rate: Float > 0, of w. Defaults to 1e-4.
        initial: Float > 0, the first w. Defaults to 0.1.
        seed: Integer that decides the rows drawn. None is different every time.

    Differences from the official code: `<h, grad L_t>` is one exact forward-mode
    derivative for all tasks instead of a finite difference with two more passes; the
    look-ahead is plain gradient descent also where the optimizer has momentum or weight
    decay; the validation rows are held out, where the official training script draws
    them from the training set. As there, w is not confined: it may become negative.

    Cost: about three more passes per step, 3T floats of state and the validation data.

    Example:

    >>> from kmtl.weighting import AutoLambda
    >>> x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    >>> y = {"wanted": x[:, 0], "helper": x[:, 0] + x[:, 1]}
    >>> tasks = [kmtl.Regression("wanted"), kmtl.Regression("helper")]
    >>> model = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(8,), seed=0)
    >>> model.compile("adam", weighting=AutoLambda(primary=["wanted"], seed=0))
    >>> history = model.fit(x, y, validation_data=(x, y), epochs=2, verbose=0)
    >>> [name for name in history.history if name.startswith("weight_")]
    ['weight_wanted', 'weight_helper']

    Reference: Liu, James, Davison, Johns, "Auto-Lambda: Disentangling Dynamic Task
    Relationships", TMLR 2022, arXiv:2202.03091, eq. 5 to 8.
    """

    looks_ahead = True

    def __init__(
        self,
        data: Data | None = None,
        primary: Sequence[str] | None = None,
        batch_size: int = 32,
        learning_rate: float = 1e-4,
        initial: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.data = data
        self.primary = None if primary is None else tuple(primary)
        if isinstance(primary, str) or self.primary == ():
            raise ValueError(
                "`primary` must be a list of one or more task names, or None for all. "
                f"Received: primary={primary!r}"
            )
        self.batch_size = _checks.check_int("batch_size", batch_size, 1)
        self.learning_rate = _checks.check_range(
            "learning_rate", learning_rate, 0, low_open=True, high_open=True
        )
        self.initial = _checks.check_range(
            "initial", initial, 0, low_open=True, high_open=True
        )
        self.seed = None if seed is None else _checks.check_int("seed", seed, 0)
        self.generator = keras.random.SeedGenerator(self.seed)
        #: Variables that hold the validation data; not state.
        self.held: list = []

    def setup_state(self) -> None:
        names = self.task_names if self.primary is None else self.primary
        chosen = _checks.check_task_keys(
            "primary", dict.fromkeys(names, 1.0), self.task_names, partial=True
        )
        self._primary = np.array([chosen.get(n, 0) for n in self.task_names], "float32")
        shape = (self.num_tasks,)
        self.weights_of_tasks = self.add_state(
            "weights_of_tasks", shape, keras.initializers.Constant(self.initial)
        )
        self.momentum = self.add_state("momentum", shape)
        self.velocity = self.add_state("velocity", shape)
        self.updates = self.add_state("updates", shape)

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        weights = masking.cast_like(self.weights_of_tasks, losses) * mask
        return masking.weighted_sum(losses, weights)

    # -- the validation stream --------------------------------------------------------

    def on_fit_begin(self, model: Model, validation_data: Data) -> None:
        data = validation_data if self.data is None else self.data
        if data is None:
            if self.held:
                return  # those of an earlier `fit`
            raise ValueError(
                "`weighting='auto_lambda'` learns its weights on validation data: give "
                "AutoLambda(data=(x, y)), or `validation_data` to `fit`. Received: none"
            )
        arrays = model.checked_arrays(data)
        if arrays is None:
            raise TypeError(
                "AutoLambda's validation data must be arrays or a kmtl.data.Split: "
                "give AutoLambda(data=(x, y)). "
                f"Received: {type(data).__name__}"
            )
        parts = [np.asarray(array) for array in keras.tree.flatten(arrays)]
        kinds = [(part.shape, _dtype(part)) for part in parts]
        if kinds == [(tuple(v.shape), v.dtype) for v in self.held]:
            for variable, part in zip(self.held, parts, strict=True):
                variable.assign(part)
            return
        for variable in self.held:
            forget_variable(self, variable)
        form = keras.tree.map_structure(lambda array: 0, arrays)
        # A function: Keras wraps containers that are attributes of a layer.
        self._packed = lambda parts: keras.tree.pack_sequence_as(form, parts)
        self.held = [self._hold(part) for part in parts]
        model.train_function = None

    def _hold(self, array: Tensor) -> Variable:
        return self.add_weight(
            name=DATA,
            shape=array.shape,
            dtype=_dtype(array),
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(array, dtype),
            trainable=False,
            autocast=False,
        )

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """`(x, y, sample_weight)` of `batch_size` validation rows.

        Raises:
            ValueError: before `fit` has said where they come from.
        """
        if not self.held:
            raise ValueError(
                "AutoLambda learns its weights in `fit`, which gives it validation "
                "data. Received: a training step outside of it"
            )
        rows = self.held[0].shape[0]
        chosen = keras.random.randint(
            (self.batch_size,), 0, rows, dtype="int32", seed=self.generator
        )
        parts = [
            ops.take(ops.convert_to_tensor(part), chosen, axis=0) for part in self.held
        ]
        return keras.utils.unpack_x_y_sample_weight(self._packed(parts))

    # -- learning ---------------------------------------------------------------------

    def primary_loss(self, losses: Tensor) -> Tensor:
        """Sum of the primary tasks' losses, from `(T,)` losses."""
        return ops.sum(ops.cast(self._primary, losses.dtype) * losses)

    def learn(self, gradient: Tensor, present: Tensor) -> None:
        """A step of Adam on the weights.

        Args:
            gradient: `(T,)` float32, of the validation loss by the weights.
            present: `(T,)`, > 0 where the training batch has labels of the task.
        """
        mask = ops.cast(present > 0, "float32")
        mask = mask * ops.cast(ops.all(ops.isfinite(gradient)), "float32")
        gradient = ops.where(mask > 0, gradient, 0)
        direction = masking.adam_direction(self, gradient, mask)
        weights = ops.convert_to_tensor(self.weights_of_tasks)
        self.weights_of_tasks.assign(weights - self.learning_rate * direction)

    # -- saving -----------------------------------------------------------------------

    @property
    def state(self) -> list:
        held = {id(variable) for variable in self.held}
        return [v for v in super().state if id(v) not in held]

    def get_config(self) -> Config:
        return {  # data are not part of a description
            **super().get_config(),
            "primary": None if self.primary is None else list(self.primary),
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "initial": self.initial,
            "seed": self.seed,
        }


def _dtype(array: np.ndarray) -> str:
    if array.dtype.kind == "f":
        return "float32"
    return "int32" if array.dtype == "int64" else str(array.dtype)
