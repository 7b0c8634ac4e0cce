"""What teachers say of inputs: of all rows at once, or of a data set batch by batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.layers.copying import copy_state
from kmtl.tasks.checks import label_dict
from kmtl.tasks.output import TaskOutput
from kmtl.tasks.taught import Taught
from kmtl.training.model import MultiTaskModel
from kmtl.training.passed_on import PassedOn
from kmtl.training.raw_sets import prepared
from kmtl.training.sources import is_tf_dataset
from kmtl.typing import Batch, Data, Inputs, Labels, TaskName

#: Ends of the names of what is learned from teachers.
TAUGHT, FEATURES = "_taught", "_features"


class Teachers:
    """The teachers of a model with taught tasks.

    Args:
        model: The model that learns, with a task `<task>_taught` per teacher, and maybe
            a `<task>_features`.
        student: The student.
        by_task: Dict task name -> its teacher.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        student: MultiTaskModel,
        by_task: Mapping[TaskName, MultiTaskModel],
    ):
        self.model = model
        self.student = student
        self.by_task = dict(by_task)
        self.shapes = {
            task.name: tuple(task.shape)
            for task in model.tasks
            if isinstance(task, Taught)
        }
        # While a model trains on JAX, its own variables hold nothing.
        self._scales = {
            name: _twin(layer)
            for name in self.by_task
            if (layer := student.task_outputs[name]).transform is not None
        }
        #: Models to ask, with the names of what they are asked for.
        self._asked: list[tuple[keras.Model, MultiTaskModel, dict[str, str]]] = []
        for teacher in {id(one): one for one in self.by_task.values()}.values():
            mine = [name for name, one in self.by_task.items() if one is teacher]
            outputs = {name + TAUGHT: teacher.output[name] for name in mine}
            seen = [name + FEATURES for name in mine if name + FEATURES in self.shapes]
            if seen:
                seam: Any = teacher.seam  # checked by `distill`
                outputs["features"] = seam.output
            names = {name: name for name in outputs if name != "features"}
            names |= dict.fromkeys(seen, "features")
            net = keras.Model(teacher.input, outputs)
            self._asked.append((net, teacher, names))

    def of_rows(self, raw: Inputs) -> dict[TaskName, np.ndarray]:
        """Task name -> labels, of all rows of inputs as users have them."""
        found: dict[TaskName, np.ndarray] = {}
        for net, teacher, names in self._asked:
            given = prepared(teacher.input_specs, raw) if teacher.input_specs else raw
            found |= self._labels(net.predict(given, verbose=0), names)
        return found

    def of_batch(self, x: Inputs) -> dict[TaskName, np.ndarray]:
        """Task name -> labels, of a batch as the models take it."""
        found: dict[TaskName, np.ndarray] = {}
        for net, _, names in self._asked:
            found |= self._labels(net.predict_on_batch(x), names)
        return found

    def of_set(self, data: Data, without: Collection[TaskName]) -> Data:
        """A data set with what teachers say as further labels.

        Args:
            data: A `tf.data.Dataset` or `keras.utils.PyDataset` of batches.
            without: Tasks whose labels, if there are any, are left out.
        """
        for model in (self.student, *self.by_task.values()):
            if model.input_specs:
                raise TypeError(
                    "Of data sets, models with `inputs` of kmtl cannot be asked: give "
                    "arrays or a kmtl.data.Split. Received: "
                    f"{type(data).__name__}, and model '{model.name}'"
                )
        if is_tf_dataset(data):
            return _mapped(self, data, without)
        return _Asked(self, data, without)

    def _labels(
        self, said: Mapping[str, Any], names: Mapping[str, str]
    ) -> dict[TaskName, np.ndarray]:
        found = {}
        for name, key in names.items():
            labels = np.asarray(ops.convert_to_numpy(said[key]), "float32")
            if key == name:
                labels = self._in_scale(name.removesuffix(TAUGHT), labels)
            found[name] = labels
        return found

    def _in_scale(self, name: TaskName, said: np.ndarray) -> np.ndarray:
        """A teacher's outputs in the scale in which the student learns the task."""
        layer = self._scales.get(name)
        if layer is None:
            return said
        mask = np.ones(said.shape, "float32")
        return ops.convert_to_numpy(layer.targets(ops.convert_to_tensor(said), mask))

    def joined(
        self,
        batch: Batch,
        said: Mapping[TaskName, Any],
        ones: Any,
        without: Collection[TaskName],
    ) -> tuple:
        """A batch with further labels, and with `ones` for their sample weights."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        labels = self._own(y, without)
        if weight is None:
            return x, {**labels, **said}
        if not isinstance(weight, Mapping):
            weight = dict.fromkeys(labels, weight)
        weight = {name: part for name, part in weight.items() if name in labels}
        return x, {**labels, **said}, weight | dict.fromkeys(said, ones)

    def _own(self, y: Labels, without: Collection[TaskName]) -> dict:
        if isinstance(y, Mapping):
            return {name: part for name, part in y.items() if name not in without}
        tasks = [task for task in self.student.tasks if task.name not in without]
        return label_dict(y, tasks)


def _twin(layer: TaskOutput) -> TaskOutput:
    """An output layer that knows the same of the labels."""
    twin = type(layer).from_config(layer.get_config())
    twin(keras.Input(layer.input.shape[1:]))
    copy_state(layer, twin)
    return twin


class _Asked(PassedOn):
    """With what teachers say of each batch."""

    def __init__(
        self,
        teachers: Teachers,
        source: keras.utils.PyDataset,
        without: Collection[TaskName],
    ):
        super().__init__(source)
        self.teachers = teachers
        self.without = without

    def __getitem__(self, index: int) -> Batch:
        batch = self.source[index]
        batch = batch if isinstance(batch, tuple) else (batch,)
        said = self.teachers.of_batch(batch[0])
        ones = np.ones(len(next(iter(said.values()))), "float32")
        return self.teachers.joined(batch, said, ones, self.without)


def _mapped(teachers: Teachers, data: Data, without: Collection[TaskName]) -> Data:
    """A `tf.data.Dataset` that asks outside of TensorFlow's graph.

    So that models of any backend answer, on any device.
    """
    import tensorflow as tf

    names = list(teachers.shapes)

    def change(*batch: Any) -> tuple:
        x = batch[0]

        def on_host(*leaves: Any) -> list[np.ndarray]:
            arrays = [np.asarray(leaf) for leaf in leaves]
            said = teachers.of_batch(tf.nest.pack_sequence_as(x, arrays))
            return [np.asarray(said[name], "float32") for name in names]

        found = tf.numpy_function(
            on_host, tf.nest.flatten(x), [tf.float32] * len(names)
        )
        said = {
            name: tf.ensure_shape(tensor, (None, *teachers.shapes[name]))
            for name, tensor in zip(names, found, strict=True)
        }
        ones = tf.ones((tf.shape(tf.nest.flatten(x)[0])[0],), tf.float32)
        return teachers.joined(batch, said, ones, without)

    return data.map(change)
