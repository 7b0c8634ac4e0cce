"""Distillation: teachers of single tasks, or larger ones, and a student of all."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any

import keras

from kmtl import _checks
from kmtl.combining import taught_data
from kmtl.combining.asking import FEATURES, TAUGHT, Teachers
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_same_meaning
from kmtl.tasks.output import TaskOutput
from kmtl.tasks.taught import Taught
from kmtl.training import sources, targets
from kmtl.training.model import MultiTaskModel
from kmtl.typing import Data, TaskName


@dataclasses.dataclass(frozen=True, eq=False)
class Distillation:
    """A student with its teachers' words as further tasks.

    Attributes:
        model: The student's layers with an output more per taught task; to be compiled
            and trained. The student learns with it.
        student: The student.
        teachers: Dict task name -> its teacher.
        data: `(x, y, sample_weight)`, or a data set, to train `model` on, as `fit`
            does.
    """

    model: MultiTaskModel
    student: MultiTaskModel
    teachers: dict[TaskName, MultiTaskModel]
    data: Data

    def fit(
        self, validation_data: Data | None = None, **options: Any
    ) -> keras.callbacks.History:
        """Train `model`, which has been compiled, on `data`.

        Args:
            validation_data: As for `prepare`, which is done.
            **options: As for `model.fit`.

        Returns:
            What `model.fit` returns.
        """
        if validation_data is not None:
            options["validation_data"] = self.prepare(validation_data)
        if not isinstance(self.data, tuple):
            return self.model.fit(self.data, **options)
        x, y, weight = self.data
        return self.model.fit(x, y, sample_weight=weight, **options)

    def prepare(self, data: Data) -> Data:
        """Further data with the teachers' words, such as validation data.

        Args:
            data: As for `kmtl.distill`.

        Returns:
            `(x, y, sample_weight)` for `model`, or of a data set one that asks the
            teachers about each batch.
        """
        own = set(self.model.task_names)
        alone = [name for name in self.student.task_names if name not in own]
        teachers = Teachers(self.model, self.student, self.teachers)
        arrays = sources.arrays_of(data)
        if arrays is None:
            return teachers.of_set(data, alone)
        raw = arrays[0]
        x, y, weight = taught_data.checked(self.student, arrays, alone)
        return x, {**y, **teachers.of_rows(raw)}, weight


def distill(
    student: MultiTaskModel,
    teachers: MultiTaskModel | Sequence[MultiTaskModel],
    data: Data,
    *,
    temperature: float = 2.0,
    strength: float = 1.0,
    features: float = 0.0,
    seed: int = 0,
) -> Distillation:
    """A student that learns what labels say, and what teachers do.

    Beside each task with a teacher stands a further one, `<task>_taught`, on the same
    outputs, whose labels are the teacher's: logits at a temperature for classes, values
    for all else. It has them for every row, so rows without labels teach, too. All that
    kmtl does with tasks it does with these: weights, weightings, masks, searches.

    Args:
        student: The model to train, of any size and sharing.
        teachers: Trained models of some or all of its tasks, one for each task:
            single-task models, or larger ones of several tasks.
        data: `(x, y)` or `(x, y, sample_weight)`, arrays, or a `kmtl.data.Split`: the
            teachers are asked once, here. Or a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches, augmented ones too: they are asked about
            each batch, on either backend. Tasks with a teacher may have no labels: they
            learn from it alone.
        temperature: Number > 0 that divides logits. Defaults to 2.
        strength: Weight >= 0 of what teachers say, a factor of the task's own weight.
            Defaults to 1.
        features: Weight >= 0 of a `<task>_features` task besides: the student's trunk,
            through a dense layer per task, points where the teacher's does. Defaults to
            0: none.
        seed: Integer >= 0 of the initial weights of these layers. Defaults to 0.

    Returns:
        `Distillation`: `model` and `data` to train with. The layers are the student's.

    Raises:
        ValueError: for teachers without a task of the student's, two of one task, and
            outputs of another shape or meaning: another kind of task, other classes or
            these in another order, another unit.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    >>> y = {"kind": (x[:, 0] > 0).astype(int), "size": np.full(20, np.nan)}
    >>> tasks = [kmtl.Classification("kind", classes=2), kmtl.Regression("size")]
    >>> teachers = [
    ...     kmtl.build_mlp(input_shape=(4,), tasks=[task], units=(16,), seed=0)
    ...     for task in tasks
    ... ]  # and train each
    >>> student = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(4,), seed=0)
    >>> taught = kmtl.distill(student, teachers, (x, y))
    >>> taught.model.compile("adam")
    >>> history = taught.fit(verbose=0)
    >>> student.predict(x, verbose=0)["size"].shape
    (20, 1)

    A model that learns a new task and keeps what it said of the old ones, without their
    data (learning without forgetting): its own past is the teacher.

    >>> old = teachers[0]
    >>> new = kmtl.add_task(old, kmtl.BinaryClassification("flag"), freeze=False)
    >>> taught = kmtl.distill(new, old, (x, {"flag": (x[:, 1] > 0).astype(int)}))
    >>> taught.model.task_names
    ('flag', 'kind_taught')

    Reference: Hinton, Vinyals, Dean, 2015, arXiv:1503.02531; Li, Bilen, "Knowledge
    Distillation for Multi-task Learning", ECCV 2020 workshops, arXiv:2007.06889; Li,
    Hoiem, "Learning without Forgetting", TPAMI 2018, arXiv:1606.09282.
    """
    temperature = _checks.check_range("temperature", temperature, 0, low_open=True)
    strength = _checks.check_range("strength", strength, 0, 1e30)
    features = _checks.check_range("features", features, 0, 1e30)
    seed = _checks.check_int("seed", seed, 0)
    given = [teachers] if isinstance(teachers, MultiTaskModel) else list(teachers)
    known = _by_task(student, given)
    sources.refuse_plan(data, "Teachers are asked about each row once")
    alone = taught_data.unlabelled(student, known, data)
    arrays = sources.arrays_of(data)
    # The scale in which values are learned.
    if arrays is not None:
        taught_data.adapt(student, *taught_data.checked(student, arrays, alone), alone)
    else:
        taught_data.adapt(student, data, None, None, alone)
    outputs = {n: tensor for n, tensor in student.output.items() if n not in alone}
    for name, teacher in known.items():
        layer = student.task_outputs[name]
        targets.check_adapted(teacher, "distill")
        mine, its = _shapes(student.input), _shapes(teacher.input)
        if not _fit(mine, its):
            raise ValueError(
                "A teacher must have the student's inputs. Received, for task "
                f"'{name}': {its}, and a student with {mine}"
            )
        if teacher.output[name].shape != student.output[name].shape:
            raise ValueError(
                "A teacher must have outputs of the student's shape. Received, for "
                f"task '{name}': {teacher.output[name].shape} and "
                f"{student.output[name].shape}"
            )
        check_same_meaning("A student and its teachers", layer.task, teacher.task(name))
        if layer.task.writes:
            raise ValueError(
                f"Task '{name}' writes texts, of which a teacher has no scores that a "
                "student's could be compared with: give the student what the teacher "
                "writes as labels, task.decode(teacher.predict(x)[name]). "
                f"Received: a teacher of task '{name}'"
            )
        if layer.members > 1:
            raise ValueError(
                "`student` must be one net, with one answer for each row. Received: a "
                "kmtl.backbones.Ensemble; average teachers with "
                "kmtl.evaluation.average instead"
            )
        task = Taught(
            name + TAUGHT,
            shape=tuple(layer.input.shape[1:]),
            space=_space(layer.task),
            temperature=temperature,
            weight=strength * layer.task.weight,
            auxiliary=True,
        )
        outputs[task.name] = TaskOutput(task)(layer.input)
        if features:
            task = _feature_task(student, teacher, name, features * layer.task.weight)
            # Another one for each task, as the layers of heads have.
            own = zlib.crc32(f"{name}_head_adapter {seed}".encode()) % 2**31
            adapter = keras.layers.Dense(
                task.shape[-1],
                kernel_initializer=keras.initializers.GlorotUniform(seed=own),
                name=f"{name}_head_adapter",
            )
            seam: Any = student.seam
            outputs[task.name] = TaskOutput(task)(adapter(seam.output))
    model = MultiTaskModel(student.input, outputs, name="taught")
    made = Distillation(model, student, known, data)
    return dataclasses.replace(made, data=made.prepare(data))


def _shapes(inputs: Any) -> list[tuple]:
    return [tuple(part.shape) for part in keras.tree.flatten(inputs)]


def _fit(some: Sequence[tuple], others: Sequence[tuple]) -> bool:
    """Whether shapes are alike, where both say how large."""
    return len(some) == len(others) and all(
        len(one) == len(other)
        and all(a == b or None in (a, b) for a, b in zip(one, other, strict=True))
        for one, other in zip(some, others, strict=True)
    )


def _by_task(
    student: MultiTaskModel, teachers: Sequence[Any]
) -> dict[TaskName, MultiTaskModel]:
    found: dict[TaskName, MultiTaskModel] = {}
    for teacher in teachers:
        if not isinstance(teacher, MultiTaskModel):
            raise TypeError(
                "`teachers` must be models of kmtl, whose outputs are named and, for "
                f"classes, logits. Received: {type(teacher).__name__}"
            )
        mine = [name for name in teacher.task_names if name in student.task_names]
        if not mine:
            raise ValueError(
                "`teachers` must have tasks of the student: "
                f"{', '.join(student.task_names)}. Received: one of "
                f"{', '.join(teacher.task_names)}"
            )
        for name in mine:
            if name in found:
                raise ValueError(
                    "`teachers` must be one for each task; make one of several with "
                    f"kmtl.evaluation.average. Received: two of task '{name}'"
                )
            found[name] = teacher
    if not found:
        raise ValueError("`teachers` must have at least one model. Received: none")
    return found


def _space(task: Task) -> str:
    activation = task.output_activation
    return activation if activation in ("softmax", "sigmoid") else "values"


def _feature_task(
    student: MultiTaskModel, teacher: MultiTaskModel, name: TaskName, weight: float
) -> Taught:
    if student.seam is None or teacher.seam is None:
        raise ValueError(
            "`features` needs a student and teachers whose trunk ends at one place: "
            "build them with sharing='hard', or give features=0. Received: "
            f"{'a student' if student.seam is None else f'a teacher of {name}'} without"
        )
    own, other = student.seam.output.shape[1:], teacher.seam.output.shape[1:]
    if own[:-1] != other[:-1] or None in other:
        raise ValueError(
            "`features` needs trunks that end in maps of one size; their channels may "
            f"differ. Received, for task '{name}': {tuple(own)} and {tuple(other)}"
        )
    return Taught(
        name + FEATURES,
        shape=tuple(other),
        space="direction",
        weight=weight,
        auxiliary=True,
    )
