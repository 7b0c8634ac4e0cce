"""The last layer of every head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._private.keras import value_of
from kmtl.layers.beside import WithBeside
from kmtl.layers.kept import Kept
from kmtl.layers.members import split_members
from kmtl.tasks import terms
from kmtl.tasks.base import Task
from kmtl.tasks.class_weights import from_counts
from kmtl.tasks.transforms import TRANSFORMS, Transform
from kmtl.tasks.values import Values
from kmtl.typing import Config, Shape, Tensor, Variable


@keras.saving.register_keras_serializable(package="kmtl")
class TaskOutput(keras.layers.Layer):
    """Outputs in float32, in the labels' unit, named as the task.

    Keras takes log names, dict keys and export names from several places (the dict
    key, the output layer, its position); one layer named as the task at the end of
    every head makes them agree. What is known of the task stands here and nowhere
    else: its loss, which `compile(loss=...)` may replace, and its weight, a variable.
    So a model knows its tasks as they are trained after `clone_model` or loading.

    It is the identity, unless the task has a `transform`: then what leaves the model is
    in the labels' unit, and the loss sees what came in. What the transform has learned
    of the training labels are variables.

    Args:
        task: A `kmtl.Task`, or its config.
        loss: Loss in the place of the task's own: a name of the kind's, a
            `keras.losses.Loss`, or its config. Defaults to the task's own.
        members: Members of an ensemble, which follow one another in the rows of the
            inputs (see `kmtl.layers.members`): outputs are their mean, and while
            training each has its own loss. Defaults to 1.
        weight_rule: `"data"` when every `fit` sets the weight from label counts.
        in_unit: Whether the inputs are in the labels' unit, as a mean of models is:
            then they leave as they came, and the loss sees them transformed. Defaults
            to False.

    Call arguments:
        inputs: Logits or values of the task, any float dtype.
    """

    def __init__(
        self,
        task: Task | Config,
        loss: Any = None,
        weight_rule: str | None = None,
        members: int = 1,
        in_unit: bool = False,
        **kwargs: Any,
    ):
        declared = task if isinstance(task, Task) else Task.from_config(task)
        kwargs["name"] = declared.name
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self._declared = self._task = declared
        self.weight_rule = weight_rule
        self.in_unit = bool(in_unit)
        self.members = _checks.check_int("members", members, 1)
        if self.members > 1 and not declared.has_mean:
            raise ValueError(
                f"Task '{declared.name}' of kind {declared.registered_name} must have "
                "one net: several have no mean that its loss takes. Train them one by "
                f"one, and join their outputs. Received: members={self.members}"
            )
        self._kept = Kept()
        self.set_loss(loss)

    def build(self, input_shape: Shape) -> None:
        self.task_weight = self.add_weight(
            name="task_weight",
            shape=(),
            initializer=keras.initializers.Constant(self._task.weight),
            trainable=False,
            dtype="float32",
        )
        self._input_shape = tuple(input_shape)
        self._state: dict[str, Variable] = {}
        #: Weights of the classes, of a task that has a rule for them; else None.
        self._class_weights: Any = None
        if isinstance(self._declared.class_weight, str):
            classes = self._declared.class_count
            yes_no = self._declared.label_kind == "yes_no"
            shape = (int(input_shape[-1]), 2) if yes_no else (classes,)
            self._class_weights, self._counted = (
                self.add_weight(
                    name=name, shape=size, initializer=start, trainable=False
                )
                for name, size, start in (
                    ("class_weights", shape, "ones"),
                    ("classes_counted", (), "zeros"),
                )
            )
        if self.transform is not None:
            start = {"fitted": np.zeros(())}
            columns = self._declared.value_columns or int(input_shape[-1])
            start |= self.transform.initial(columns)
            self._state = {
                name: self.add_weight(
                    name=name,
                    shape=value.shape,
                    initializer=keras.initializers.Constant(value),
                    trainable=False,
                    dtype="float32",
                )
                for name, value in start.items()
            }
        self.built = True

    # -- the transform ----------------------------------------------------------------

    @property
    def transform(self) -> Transform | None:
        """The transform of the labels for the loss, None without one."""
        name = self._declared.transform
        return None if name is None else TRANSFORMS[name]

    @property
    def _of_values(self) -> Values:
        """The task, where it has a transform."""
        return cast(Values, self._declared)

    @property
    def adapted(self) -> bool:
        """Whether transform and class weights know the training labels."""
        if self._class_weights is not None:
            return bool(ops.convert_to_numpy(self._counted.value))
        if self.transform is None:
            return True
        return bool(ops.convert_to_numpy(self._state["fitted"].value))

    @property
    def learns(self) -> bool:
        """Whether there is something to know of the training labels."""
        return self.transform is not None or self._class_weights is not None

    @property
    def class_weights(self) -> np.ndarray | None:
        """Weights that `class_weight="balanced"` or `"effective"` came to, `(C,)`, or
        `(columns, 2)` for yes and no; 1 before they are counted; None without a rule.
        """
        if self._class_weights is None:
            return None
        return np.asarray(ops.convert_to_numpy(self._class_weights.value))

    def count_classes(self, counts: np.ndarray) -> None:
        """Set the weights of the classes by their numbers of labels, shaped alike.

        Raises:
            ValueError: if there is no label.
        """
        rule = self._declared.class_weight
        if not counts.any():
            raise ValueError(
                f"class_weight='{rule}' of task '{self.name}' is counted on the "
                "training labels: give it some, or a dict of weights. "
                "Received: no label"
            )
        self._class_weights.assign(from_counts(str(rule), counts).astype("float32"))
        self._counted.assign(1.0)

    def label_weights(self, task: Task, labels: Tensor, mask: Tensor) -> Tensor:
        """The mask times the weights of labels, those of classes among them."""
        weights = terms.label_weights(task, labels, mask)
        if self._class_weights is None:
            return weights
        table = ops.convert_to_tensor(self._class_weights)
        if len(self._class_weights.shape) == 2:  # yes and no of each column
            return weights * ops.where(labels > 0.5, table[:, 1], table[:, 0])
        return weights * ops.take(table, ops.cast(labels, "int32"))

    def adapt(self, values: np.ndarray) -> None:
        """Fit the transform.

        Args:
            values: Labels `(N, columns)`, NaN where one is missing.

        Raises:
            ValueError: for a column without labels.
        """
        if self.transform is None:
            return
        values = np.asarray(values, "float64")
        empty = np.flatnonzero(np.isnan(values).all(axis=0))
        if empty.size:
            where = f" in column {empty[0]}" if values.shape[-1] > 1 else ""
            raise ValueError(
                f"transform='{self._declared.transform}' of task '{self.name}' must be "
                "fitted on training labels: give it some, or transform=None. Received: "
                f"no label{where}"
            )
        for name, value in self.transform.fit(values).items():
            self._state[name].assign(value.astype("float32"))
        self._state["fitted"].assign(1.0)

    def targets(self, labels: Tensor, mask: Tensor) -> Tensor:
        """Clean labels as the loss takes them; 0 where one is missing."""
        if self.transform is None:
            return labels
        values = self.transform.forward(labels, self._state)
        return ops.where(mask > 0, values, 0.0)

    def targets_side_by_side(
        self, layers: Sequence[TaskOutput], labels: Tensor, mask: Tensor
    ) -> Tensor:
        """`targets` of several layers alike, whose rows follow one another.

        Args:
            layers: The layers, this one first; their transform is entrywise.
            labels, mask: Blocks of as many rows for each layer.
        """
        if self.transform is None:
            return labels
        forward = self.transform.forward
        values = self._side_by_side(layers, labels, forward)
        return ops.where(mask > 0, values, 0.0)

    def read(self, values: Tensor) -> Tensor:
        """What the net puts out, in float32, in the labels' unit."""
        if self.transform is None or self.in_unit:
            return values
        return self._of_values.read(values, self.transform, self._state)

    def read_side_by_side(self, layers: Sequence[TaskOutput], values: Tensor) -> Tensor:
        """`read` of several layers alike, whose rows follow one another."""
        if self.transform is None:
            return values

        def read(blocks: Tensor, state: dict) -> Tensor:
            return self._of_values.read(blocks, cast(Transform, self.transform), state)

        return self._side_by_side(layers, values, read)

    def _side_by_side(
        self,
        layers: Sequence[TaskOutput],
        rows: Tensor,
        function: Callable[[Tensor, dict], Tensor],
    ) -> Tensor:
        """An entrywise function of blocks of rows, each with its layer's state."""
        state = {}
        for name, own in self._state.items():
            # Tensors: tf.stack takes no variables.
            values = [layer._state[name] * 1.0 for layer in layers]
            axes = [1] * (len(rows.shape) - len(own.shape))
            state[name] = ops.reshape(ops.stack(values), (-1, *axes, *own.shape))
        sizes = ops.shape(rows)[1:]
        blocks = ops.reshape(rows, (len(layers), -1, *sizes))
        return ops.reshape(function(blocks, state), (-1, *sizes))

    def before(self, outputs: Tensor) -> Tensor:
        """Outputs as the loss takes them: what came in when they came out.

        For other tensors than the last output it is computed from them.
        """
        if self.transform is None and self.members == 1:
            return outputs
        inputs, given = self._kept.look() or (None, None)
        if given is outputs:
            return inputs
        if self.transform is None:
            return outputs
        return self._of_values.learned(outputs, self.transform, self._state)

    def of_members(self, predictions: Tensor) -> Tensor:
        """Predictions inside the model, with an axis for the members if there are."""
        if self.members == 1:
            return predictions
        return split_members(predictions, self.members)

    def loss_values(
        self, task: Task, targets: Tensor, predictions: Tensor, mask: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss of each label, the mean over the members where there are several.

        Args:
            task: The task of this layer, with its loss.
            targets: What `targets` gave.
            predictions: What `before` or `of_members` gave.
            mask: 1 for the labels that count.

        Returns:
            The loss, and what several losses of the task add to it, before their
            weights.
        """
        if isinstance(predictions, WithBeside):
            outputs, beside = predictions
            return terms.loss_values(task, targets, outputs, mask, beside)
        if len(predictions.shape) == len(self._input_shape):
            return terms.loss_values(task, targets, predictions, mask)
        if task.rows_together:
            found = [
                terms.loss_values(task, targets, predictions[:, member], mask)
                for member in range(self.members)
            ]
            values = ops.mean(ops.stack([values for values, _ in found]), axis=0)
            several = zip(*(parts for _, parts in found), strict=True)
            return values, [ops.mean(ops.stack(part), axis=0) for part in several]
        # Members are rows again: losses know rows alone.
        flat = ops.reshape(predictions, (-1, *predictions.shape[2:]))
        targets, mask = (ops.repeat(t, self.members, axis=0) for t in (targets, mask))
        values, parts = terms.loss_values(task, targets, flat, mask)

        def mean(values: Tensor) -> Tensor:
            return ops.mean(split_members(values, self.members), axis=1)

        return mean(values), [mean(part) for part in parts]

    # -- the task ---------------------------------------------------------------------

    @property
    def task(self) -> Task:
        """The task with the loss and the weight that it has now.

        While a step is traced the weight is the one from before: a step reads the
        variable, `task_weight`.
        """
        weight = _concrete(self.task_weight) if self.built else None
        if weight is not None and weight != np.float32(self._task.weight):
            # The shortest number with this value in float32: 0.3 and not 0.30000001.
            self._task = self._task.replace(weight=float(str(weight)))
        return self._task

    @property
    def replaced_loss(self) -> Any:
        """The loss in the place of the task's own, None where it has its own."""
        now, own = self._task.loss, self._declared.loss
        same = now is own or (isinstance(now, dict) and now == own)
        return None if same else now

    def with_loss(self, loss: Any = None) -> Task:
        """The task as `set_loss(loss)` would make it; refuses what does not fit."""
        changes = {} if loss is None else {"loss": loss}
        if loss is not None and self._declared.transform is not None:
            changes["transform"] = self._declared.transform  # that of this layer
        return self._declared.replace(weight=self.task.weight, **changes)

    def set_loss(self, loss: Any = None) -> None:
        """Put a loss in the place of the task's own, or with None its own back."""
        self._task = self.with_loss(loss)

    def set_weight(self, weight: float, rule: str | None = None) -> None:
        """Assign the task's weight, >= 0, or with a rule leave it to be counted."""
        task = self.task.replace(weight=weight)
        if self.built:
            self.task_weight.assign(task.weight)
        self._task, self.weight_rule = task, rule

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        seen = inputs = ops.cast(inputs, "float32")
        if self.members > 1:
            grouped = split_members(inputs, self.members)
            inputs = ops.mean(grouped, axis=1)
            seen = grouped if training else inputs
        elif self.transform is None or self.in_unit:
            return inputs
        outputs = self.read(inputs)
        # Not computed back from the outputs: that would lose digits and gradients.
        self._kept.put((seen, outputs))
        return outputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rows = input_shape[0]
        return (None if rows is None else rows // self.members, *input_shape[1:])

    def to_keras(self, activation: str = "linear") -> keras.layers.Layer:
        """The plain Keras layer that does the same, with an activation after it."""
        transform = None if self.in_unit else self.transform
        if transform is None and self.members == 1:
            if activation == "linear":
                return keras.layers.Identity(dtype="float32", name=self.name)
            return keras.layers.Activation(activation, dtype="float32", name=self.name)
        state = {
            name: ops.convert_to_numpy(variable.value)
            for name, variable in self._state.items()
        }
        inputs = keras.Input(batch_shape=self._input_shape, dtype="float32")
        outputs = inputs
        if self.members > 1:
            outputs = ops.mean(split_members(inputs, self.members), axis=1)
        if transform is not None:
            outputs = self._of_values.read(outputs, transform, state)
        outputs = keras.activations.get(activation)(outputs)
        return keras.Model(inputs, outputs, name=self.name)

    def get_config(self) -> Config:
        config = super().get_config()
        return {
            **config,
            "task": self.with_loss(None).to_config(),
            "loss": keras.saving.serialize_keras_object(self.replaced_loss),
            "weight_rule": self.weight_rule,
            "members": self.members,
            "in_unit": self.in_unit,
        }


def _concrete(variable: Variable) -> Variable:
    """The value of a scalar variable as numpy has it; None while a step is traced."""
    value = value_of(variable)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return np.float32(value.numpy()) if tf.executing_eagerly() else None
    return None if value is None else np.float32(value)
