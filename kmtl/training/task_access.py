"""What a model knows of its tasks, before it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.layers.dropout import Dropout
from kmtl.layers.seam import Seam
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_unique_tasks
from kmtl.tasks.output import TaskOutput


class TaskAccess(keras.Model):
    """Base of `kmtl.MultiTaskModel`: its tasks, their weights, the dropout, exports.

    A subclass of `keras.Model`, since Keras makes functional models of those alone.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        outputs = getattr(self, "_outputs_struct", None)
        if not isinstance(outputs, Mapping) or not all(
            isinstance(_last_layer(tensor), TaskOutput) for tensor in outputs.values()
        ):
            raise ValueError(
                "A MultiTaskModel needs `outputs` as a flat dict {task name: tensor}, "
                "each tensor the output of a kmtl.TaskOutput layer. "
                f"Received: outputs={outputs!r}"
            )
        layers = {key: _last_layer(tensor) for key, tensor in outputs.items()}
        for key, layer in layers.items():
            if key != layer.name:
                raise ValueError(
                    f"Output key '{key}' must be the name of its task, '{layer.name}'."
                )
        check_unique_tasks([layer.task for layer in layers.values()])

    # -- tasks ------------------------------------------------------------------------

    @property
    def task_outputs(self) -> dict[str, TaskOutput]:
        """The output layers, by task name."""
        return {
            key: _last_layer(tensor) for key, tensor in self._outputs_struct.items()
        }

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, in the order of the outputs."""
        return tuple(layer.task for layer in self.task_outputs.values())

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(self._outputs_struct)

    def task(self, name: str) -> Task:
        """The task called `name`."""
        _checks.check_task_keys("task", {name: None}, self.task_names, partial=True)
        return self.task_outputs[name].task

    @property
    def task_weights(self) -> dict[str, float]:
        """Each task's weight in the total loss, as Python floats."""
        return {
            name: float(ops.convert_to_numpy(layer.task_weight))
            for name, layer in self.task_outputs.items()
        }

    def set_task_weights(self, weights: Mapping[str, float]) -> None:
        """Assign weights of some or all tasks; no retrace, saved with the model.

        Args:
            weights: Dict task name -> finite number >= 0.
        """
        _checks.check_task_keys("weights", weights, self.task_names, partial=True)
        checked = {
            name: _checks.check_range(f"weights['{name}']", value, 0, 1e30)
            for name, value in weights.items()
        }
        for name, value in checked.items():
            layer = self.task_outputs[name]
            layer.task_weight.assign(value)
            layer.weight_rule = None

    def set_dropout(self, rate: float | Sequence[float] | Mapping[str, float]) -> None:
        """Assign dropout rates on the built model; no retrace, saved with the model.

        Args:
            rate: Rate in [0, 1) of all trunk blocks (the heads keep their tasks'
                rates), a sequence with the rate of each block, or a dict layer name ->
                rate for single layers.

        Raises:
            ValueError: if the model was built with `dropout=None`, a name is unknown or
                the number of rates is not that of the blocks.
        """
        found = {
            layer.name: layer for layer in self.layers if isinstance(layer, Dropout)
        }
        if isinstance(rate, Mapping):
            for name in rate:
                if name not in found:
                    raise ValueError(_checks.unknown_name("dropout layer", name, found))
            for name, value in rate.items():
                _checks.check_range(f"rate['{name}']", value, 0, 1, high_open=True)
            for name, value in rate.items():
                found[name].set_rate(value)
            return
        heads = tuple(f"{name}_head_" for name in self.task_names)
        blocks = tuple(f"{name}_block" for name in self.task_names)  # a task "a_head"
        trunk = [
            layer
            for name, layer in found.items()
            if name.startswith(blocks) or not name.startswith(heads)
        ]
        if not trunk:
            raise ValueError(
                "This model has no dropout layers in its trunk: build it with "
                "`dropout=0.0` (or any rate) instead of `dropout=None`."
            )
        if not isinstance(rate, Sequence):
            for layer in trunk:
                layer.set_rate(rate)
            return
        # `shared_block2_dropout` and `<task>_block2_dropout` belong to block 2.
        places = [
            int(layer.name.split("_")[-2].removeprefix("block")) for layer in trunk
        ]
        if len(rate) != max(places):
            raise ValueError(
                f"`rate` must be one number or one per block: {max(places)} of them. "
                f"Received: rate={rate!r}"
            )
        for i, value in enumerate(rate):
            _checks.check_range(f"rate[{i}]", value, 0, 1, high_open=True)
        for layer, place in zip(trunk, places, strict=True):
            layer.set_rate(rate[place - 1])

    @property
    def seam(self) -> Seam | None:
        """The layer at which the shared trunk ends, if there is one such place."""
        found = [layer for layer in self.layers if isinstance(layer, Seam)]
        return found[0] if len(found) == 1 else None

    # -- leaving kmtl -----------------------------------------------------------------

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool = False,
        **options: Any,
    ) -> Any:
        """Write a SavedModel with one named output per task; see `kmtl.export`.

        Args:
            filepath: Folder to write; refused if something is there, unless
                `overwrite=True`.
            format: `"tf_saved_model"`, or another format of `keras.Model.export`.
            verbose: Whether to print what was written.
            **options: `outputs="probabilities"` or `"logits"`, `input_dtype`
                (`"uint8"` for raw images), `tasks` (a subset), `features=True`,
                `overwrite=True`; for the other formats also those of Keras.

        Returns:
            The absolute path written.
        """
        from kmtl.export import export_model

        return export_model(self, filepath, format, verbose, **options)

    def to_keras(self, activated: bool = False) -> keras.Model:
        """A plain functional Keras model with copies of the weights.

        It holds only layers of Keras, so its `.keras` file loads without kmtl.

        Args:
            activated: End in probabilities instead of logits.
        """
        from kmtl.training.convert import to_keras

        return to_keras(self, activated)


def _last_layer(tensor: Any) -> Any:
    return tensor._keras_history.operation
