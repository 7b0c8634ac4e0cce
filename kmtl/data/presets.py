"""Known data sets by name: tasks, input, and parts that tensorflow-datasets reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kmtl import _checks
from kmtl.data.dividing import PARTS
from kmtl.data.tensorflow_sets import from_tfds
from kmtl.typing import Data

if TYPE_CHECKING:
    from kmtl.data.preset_table import Entry
    from kmtl.inputs.base import Input
    from kmtl.tasks.base import Task


def preset(name: str, size: tuple[int, int] | None = None) -> Preset:
    """A known data set: its tasks, its input, and what loads its parts.

    Nothing is read before `load`. Sets whose images differ in size, or are large, are
    brought to one size, their maps with them.

    - `mnist` (digit), `fashion_mnist` (garment), `svhn` (house_digit), `cifar10`
      (thing): ten classes each;
    - `cifar100`: fine (100 classes) and coarse (20);
    - `oxford_iiit_pet`: species, breed (37), mask (3 classes per pixel);
    - `celeb_a`: 40 attributes of faces, each yes or no;
    - `nyu_depth_v2`: depth; `cityscapes`: things (34 classes per pixel);
    - `dsprites`, `shapes3d`, `smallnorb`: the 5, 6 and 4 factors of made-up pictures;
    - `speech_commands`: command (12), of a second of sound;
    - `imdb`: sentiment of a review.

    Args:
        name: One of these.
        size: `(height, width)` of images, where it is not to be the set's own.

    Returns:
        A `Preset`.

    Raises:
        ValueError: for a name that is none of them.

    Example (loading needs the data set):

    >>> cifar = kmtl.data.preset("cifar100")
    >>> cifar
    <Preset 'cifar100': tasks fine, coarse; input image (32, 32, 3)>
    >>> model = kmtl.build_cnn(
    ...     inputs=cifar.input, tasks=cifar.tasks, filters=(8, 16), seed=0
    ... )
    >>> model.compile("adam")

    ```python
    model.fit(cifar.load("train"), validation_data=cifar.load("validation"), epochs=10)
    ```
    """
    from kmtl.data.preset_table import TABLE

    name = _checks.check_choice("name", name, TABLE)
    if size is not None:
        size = _checks.check_size(size)  # type: ignore[assignment]
    entry = TABLE[name](size)
    return Preset(name, list(entry.tasks), entry)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Preset:
    """A known data set that is not yet read; made by `kmtl.data.preset`.

    Args:
        name: Name of the preset.
        tasks: The tasks, for builders.
        entry: What is known of the set.
    """

    name: str
    tasks: list[Task]
    entry: Entry

    def __repr__(self) -> str:
        tasks = ", ".join(task.name for task in self.tasks[:5])
        more = f" and {len(self.tasks) - 5} others" if len(self.tasks) > 5 else ""
        kind = f"{self.input.registered_name} {self.input.shape}"
        return f"<Preset '{self.name}': tasks {tasks}{more}; input {kind}>"

    @property
    def input(self) -> Input:
        """What the input is, for `kmtl.build_cnn(inputs=...)`; not fitted."""
        found: Input = self.entry.input
        return found

    @property
    def input_shape(self) -> tuple:
        """Shape of one input, for `kmtl.build_cnn(..., input_dtype="uint8")`."""
        return tuple(self.input.shape)

    def select(self, *names: str) -> Preset:
        """The same set with some of the tasks, in the order given."""
        known = {task.name: task for task in self.tasks}
        _checks.check_task_keys("names", dict.fromkeys(names), known, partial=True)
        return self.with_tasks([known[name] for name in names])

    def with_tasks(self, tasks: Sequence[Task]) -> Preset:
        """The same set with other task objects of the same names.

        Raises:
            ValueError: for a task that this set has not.
        """
        from kmtl.tasks.checks import check_unique_tasks

        chosen = list(check_unique_tasks(tasks))
        sources = {task.name: source for task, source in self.entry.tasks.items()}
        names = dict.fromkeys(task.name for task in chosen)
        _checks.check_task_keys("tasks", names, sources, partial=True)
        entry = dataclasses.replace(
            self.entry, tasks={task: sources[task.name] for task in chosen}
        )
        return dataclasses.replace(self, tasks=chosen, entry=entry)

    def load(self, part: str = "train", **options: Any) -> Data:
        """A part as a `tf.data.Dataset` of `(input, {task: label}, {task: mask})`.

        Args:
            part: `"train"`, `"validation"` or `"test"`; where the set has no validation
                part, it is the end of its training part. Or a split in tfds' language.
            **options: As for `kmtl.data.from_tfds`: `batch_size`, `data_dir`, `cache`,
                `download`. `shuffle` defaults to True for `"train"`.

        Raises:
            ValueError, FileNotFoundError: as `kmtl.data.from_tfds` does.
        """
        parts = self.entry.parts
        if part not in parts and "[" not in part and "+" not in part:
            _checks.check_choice("part", part, PARTS)
        options = {"shuffle": part == "train", **options}
        return from_tfds(
            self.entry.tfds,
            inputs=self.entry.inputs,
            tasks=self.entry.tasks,
            split=parts.get(part, part),
            **options,
        )
