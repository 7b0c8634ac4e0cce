"""What a model knows of its tasks, before it is trained."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras

from kmtl import _checks
from kmtl.inputs.base import Input
from kmtl.inputs.source import specs_of
from kmtl.layers.dropout import Dropout
from kmtl.layers.seam import Seam
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_unique_tasks
from kmtl.tasks.output import TaskOutput
from kmtl.training import model_files
from kmtl.training.freezing_access import FreezingAccess
from kmtl.training.heads import check_heads
from kmtl.typing import Model, PathLike


class TaskAccess(FreezingAccess):
    """Base of `kmtl.MultiTaskModel`: its tasks, their weights, the dropout, exports.

    A subclass of `keras.Model`, since Keras makes functional models of those alone.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # Read-only, and nothing that Keras would track a second time.
        self._task_outputs = MappingProxyType(_output_layers(self))
        self._input_specs = MappingProxyType(specs_of(self))
        check_unique_tasks(self.tasks)
        check_heads(self, dict(zip(self.task_names, self.tasks, strict=True)))

    @property
    def input_specs(self) -> Mapping[str, Input]:
        """Input name -> what is known of it, in the order of the model's inputs.

        Empty for a model that was built with `input_shape`, or by hand.
        """
        return self._input_specs

    # -- tasks ------------------------------------------------------------------------

    @property
    def task_outputs(self) -> Mapping[str, TaskOutput]:
        """The output layers, by task name: they hold what is known of the tasks."""
        return self._task_outputs

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks as they are trained now, in the order of the outputs."""
        return tuple(layer.task for layer in self._task_outputs.values())

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(self._task_outputs)

    @property
    def replaced_losses(self) -> dict[str, Any]:
        """Losses in the place of the tasks' own, as `compile(loss=...)` takes them."""
        losses = {n: layer.replaced_loss for n, layer in self._task_outputs.items()}
        return {name: loss for name, loss in losses.items() if loss is not None}

    def task(self, name: str) -> Task:
        """The task called `name` as it is trained now."""
        _checks.check_task_keys("task", {name: None}, self.task_names, partial=True)
        return self.task_outputs[name].task

    @property
    def task_weights(self) -> dict[str, float]:
        """Each task's weight in the total loss, as Python floats."""
        return {name: self.task(name).weight for name in self.task_names}

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
            self.task_outputs[name].set_weight(value)

    def set_dropout(self, rate: float | Sequence[float] | Mapping[str, float]) -> None:
        """Assign dropout rates on the built model; saved with the model.

        Steps of training leave layers at rate 0 out: they are traced once more for a
        rate that was 0, and never for another.

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
        # `shared_block2_dropout`, `<task>_block2_dropout` and
        # `<task>_block2_attention_dropout` belong to block 2.
        places = [_block_of(layer.name, self.task_names) for layer in trunk]
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

    # -- files ------------------------------------------------------------------------

    def save(
        self,
        filepath: PathLike,
        overwrite: bool = True,
        zipped: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Save, as `keras.Model.save`; an old file stays until the new one is whole.

        Args:
            filepath: Path that ends in `.keras`.
            overwrite: Whether a file that exists is replaced. Defaults to True.
            zipped, **kwargs: As in Keras.

        Raises:
            FileExistsError: if there is a file and `overwrite` is False.
        """
        model_files.check_format(filepath)
        model_files.check_absent(filepath, overwrite)
        save = super().save
        model_files.write(
            filepath, ".keras", lambda path: save(path, zipped=zipped, **kwargs)
        )

    def save_weights(
        self, filepath: PathLike, overwrite: bool = True, **kwargs: Any
    ) -> None:
        """Save the weights, as `keras.Model.save_weights`, whole or not at all.

        Args:
            filepath: Path that ends in `.weights.h5`.
            overwrite: Whether a file that exists is replaced. Defaults to True.
            **kwargs: As in Keras. With `max_shard_size` (and a path that ends in
                `.weights.json`) Keras writes several files, one after the other: not
                whole or not at all, and `load_weights` does not read them by name.
        """
        model_files.check_absent(filepath, overwrite)
        save = super().save_weights
        model_files.write(
            filepath, model_files.WEIGHTS, lambda path: save(path, **kwargs)
        )

    def load_weights(
        self, filepath: PathLike, skip_mismatch: bool = False, **kwargs: Any
    ) -> None:
        """Load weights, layer by layer and head by head of the same name.

        Keras fills layers in their order, which gives heads each other's weights when
        a task was added or renamed. Layers that nobody has named are filled in their
        order, if all are of the same kinds.

        Args:
            filepath: A `.weights.h5` or `.keras` file, of a multi-task model or of the
                plain model that `to_keras` gives.
            skip_mismatch: Fill the layers that are in the file with the same name and
                shape, and leave the others as they are, with a warning that names
                them. Defaults to False.
            **kwargs: As in Keras.

        Raises:
            ValueError: if the file has other tasks or layers, or none of the model's.
        """
        load = super().load_weights
        model_files.load_weights(
            self, filepath, skip_mismatch, functools.partial(load, **kwargs)
        )

    # -- leaving kmtl -----------------------------------------------------------------

    def export(
        self,
        filepath: PathLike,
        format: str = "tf_saved_model",
        verbose: bool = False,
        **options: Any,
    ) -> Any:
        """Write a model for serving, one named output per task; see `kmtl.export`.

        Args:
            filepath: Folder to write; refused if something is there, unless
                `overwrite=True`.
            format: `"tf_saved_model"`, `"onnx"`, `"openvino"` or `"litert"`.
            verbose: Whether to print what was written.
            **options: `outputs="probabilities"` or `"logits"`, `input_dtype`
                (`"uint8"` for raw images), `tasks` (a subset), `features=True`,
                `top_k=3` (best classes), `overwrite=True`; and of the formats, as in
                `kmtl.export.export_model`.

        Returns:
            The absolute path written.

        Raises:
            ValueError: for a model with weights that are not finite, too.
        """
        from kmtl.export import export_model
        from kmtl.training.guards import non_finite_weight

        broken = non_finite_weight(self)
        if broken is not None:
            raise ValueError(
                f"{broken}: what is served would give no numbers. Load a checkpoint "
                "from before, or train anew."
            )
        return export_model(self, filepath, format, verbose, **options)

    def to_keras(self, activated: bool = False) -> keras.Model:
        """A plain functional Keras model with copies of the weights.

        It holds only layers of Keras, so its `.keras` file loads without kmtl.

        Args:
            activated: End in probabilities instead of logits.
        """
        from kmtl.training.convert import to_keras

        return to_keras(self, activated)


def _output_layers(model: Model) -> dict[str, TaskOutput]:
    """The layers at which a model's outputs end, by task name."""
    outputs = getattr(model, "output", None)
    keys = list(outputs) if isinstance(outputs, Mapping) else []
    ends: dict[str, str] = {}
    if len(keys) == len(getattr(model, "output_names", ())):
        # The names are in Keras' own order of keys.
        in_order = keras.tree.flatten({key: key for key in keys})
        ends = dict(zip(in_order, model.output_names, strict=True))
    layers = {key: model.get_layer(name) for key, name in ends.items()}
    if not layers or not all(isinstance(end, TaskOutput) for end in layers.values()):
        raise ValueError(
            "A MultiTaskModel needs `outputs` as a flat dict {task name: tensor}, "
            "each tensor the output of a kmtl.TaskOutput layer. "
            f"Received: outputs={outputs!r}"
        )
    for key, layer in layers.items():
        if key != layer.name:
            raise ValueError(
                f"Output key '{key}' must be the name of its task, '{layer.name}'."
            )
    return {key: layers[key] for key in keys}


def _block_of(name: str, task_names: Sequence[str]) -> int:
    """Number of the block that a layer of the trunk belongs to."""
    owners = [task for task in task_names if name.startswith(f"{task}_")]
    inner = name.removeprefix(max(owners, key=len, default=""))  # a task "block7"
    found = re.search(r"(?:^|_)block(\d+)_", inner)
    if found is None:
        raise ValueError(
            "`rate` must be one number, or a dict layer name -> rate, for dropout "
            f"layers that belong to no block. Received: a layer '{name}'"
        )
    return int(found[1])
