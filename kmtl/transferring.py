"""Models for other tasks, with what a trained one has learned."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

import keras

from kmtl import _checks
from kmtl.backbones.from_keras import FromKeras
from kmtl.builders import build
from kmtl.evaluation import evaluate
from kmtl.layers.copying import copy_state
from kmtl.layers.dropout import Dropout
from kmtl.sharing.base import Sharing
from kmtl.sharing.hard import HardSharing
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_unique_tasks
from kmtl.tasks.output import TaskOutput
from kmtl.training import rate_factors
from kmtl.training.freezing import parts_of, set_trainable
from kmtl.training.model import MultiTaskModel
from kmtl.training.sources import is_split
from kmtl.training.task_variables import tasks_of_layers
from kmtl.typing import Data, Layer, Model, TaskName


@dataclasses.dataclass(frozen=True)
class Transferred:
    """What a model has of another one, layer by layer.

    Attributes:
        reused: Layer name -> number of weights (numbers, statistics included) taken
            over.
        new: Layer name -> number of weights drawn anew.
        unlike: Names of `new` layers that the source has too, in other shapes.
        left: Names of the source's layers of which the model has nothing.
    """

    reused: Mapping[str, int]
    new: Mapping[str, int]
    unlike: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        def listed(names: Any) -> str:
            return ", ".join(names) or "none"

        total = sum(self.reused.values())
        lines = [
            f"Reused: {total:,} of {total + sum(self.new.values()):,} weights, in "
            f"{listed(self.reused)}",
            f"New: {listed(self.new)}",
        ]
        if self.unlike:
            lines.append(f"Of another shape in the source: {listed(self.unlike)}")
        lines.append(f"Left behind: {listed(self.left)}")
        return "\n".join(lines)


def transfer(
    source: Model,
    tasks: Sequence[Task] = (),
    *,
    keep: Sequence[str] = (),
    into: MultiTaskModel | None = None,
    freeze: str | Sequence[str] = (),
    seed: int | None = None,
    name: str | None = None,
) -> MultiTaskModel:
    """A model for other tasks that begins with what a trained one has learned.

    It has the backbone and the sharing scheme of the source; layers of the same name
    and shape begin with its weights, the others with their own. New heads always begin
    anew, with what they know of the labels' scale: also that of a new task with the
    name of an old one, unless it is in `keep`.
    `compile(lr_multipliers={"trunk": 0.1})` trains what was learned more slowly, and
    `kmtl.training.Curriculum` thaws it block by block. What was reused is in
    `model.transferred`: print it.

    Args:
        source: A trained model: of `kmtl.build` and its like, with one task or several,
            also loaded from a file. Or a plain functional Keras model whose output the
            heads are to read (`keras.Model(net.input, net.get_layer("pool").output)`
            leaves a net's own head behind), which becomes a trunk as by
            `kmtl.backbones.FromKeras(source)`. It stays as it is.
        tasks: The new tasks.
        keep: Names of the source's tasks that are kept, with their heads; they come
            first. Defaults to none.
        into: Instead of `tasks` and `keep`: a model of your own building to put the
            weights into, by name; for another depth, scheme or width of heads. It is
            changed and returned. Heads are taken over where a task of the source has
            the same name and, but for its weight, the same config.
        freeze: Parts that are not trained, as for `model.freeze`: `"trunk"`, or
            several.
        seed: Of what is drawn anew.
        name: Name of the model. Defaults to the source's.

    Returns:
        A `kmtl.MultiTaskModel`, not compiled.

    Raises:
        ValueError: for a model made by hand, which cannot be built again, and when
            nothing of the source is in the new model.

    Example:

    >>> old = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=[kmtl.Regression("size")], units=(8, 8), seed=0
    ... )
    >>> model = kmtl.transfer(
    ...     old, [kmtl.Classification("kind", classes=3)], freeze="trunk"
    ... )
    >>> print(model.transferred)
    Reused: 112 of 139 weights, in shared_block1_dense, shared_block2_dense
    New: kind_head_logits
    Left behind: size_head_logits
    >>> model.compile("adam")

    Reference: Yosinski et al., "How transferable are features in deep neural
    networks?", NeurIPS 2014.
    """
    if into is not None:
        if tasks or keep:
            raise ValueError(
                "Give either `into`, a model with its tasks, or `tasks` and `keep`. "
                f"Received: into and tasks={list(tasks)}, keep={list(keep)}"
            )
        model = into
    elif isinstance(source, MultiTaskModel):
        names = source.task_names
        _checks.check_task_keys("keep", dict.fromkeys(keep), names, partial=True)
        kept = [source.task(one) for one in names if one in keep]
        model = _built_again(source, [*kept, *tasks], seed, name)
    else:
        if keep:
            raise ValueError(
                "`keep` names tasks of a kmtl model, and a plain Keras model has none. "
                f"Received: keep={list(keep)}"
            )
        backbone = FromKeras(source)
        shape = tuple(source.inputs[0].shape[1:])
        model = build(
            backbone=backbone,
            tasks=tasks,
            input_shape=shape,
            seed=seed,
            name=name or source.name,
        )
    if isinstance(source, MultiTaskModel):
        heads = _same_tasks(source, model) if into is not None else set(keep)
        model.transferred = carry(source, model, heads)
    else:
        model.transferred = _of_trunk(model)
    if not model.transferred.reused:
        raise ValueError(
            "`source` has no layer that the new model has, by name and shape: nothing "
            f"would be transferred. The source has {_listed(source)}. "
            f"Received: a model with {_listed(model)}"
        )
    parts = (freeze,) if isinstance(freeze, str) else tuple(freeze)
    if parts:
        model.freeze(*parts)
    return model


def add_task(
    model: MultiTaskModel,
    task: Task,
    *,
    freeze: bool | str | Sequence[str] = True,
    seed: int | None = None,
) -> MultiTaskModel:
    """A model with one task more; the old tasks' outputs stay what they are.

    All that the old tasks read is taken over, so that before training their outputs are
    the same to the last bit; where a sharing scheme lets them read the new task's part,
    that is refused. By default all of it is frozen: then they stay the same after
    training, too. `kmtl.forgetting` measures what was lost where it is not.

    Args:
        model: A trained model of `kmtl.build` and its like. It stays as it is.
        task: The task.
        freeze: True freezes all that the old model had, and switches its dropout off,
            False nothing; or parts, as for `model.freeze`, such as `"trunk"`.
        seed: Of what the new task has for itself.

    Returns:
        A `kmtl.MultiTaskModel`, not compiled; `model.transferred` says what it has.

    Raises:
        ValueError: if the old tasks' outputs would not be the same; it names the
            layers.

    Example:

    >>> old = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=[kmtl.Regression("size")], units=(8,), seed=0
    ... )
    >>> model = kmtl.add_task(old, kmtl.BinaryClassification("flag"))
    >>> model.task_names, model.frozen
    (('size', 'flag'), ('trunk', 'block_1', 'size'))
    >>> x = np.ones((2, 4), "float32")
    >>> bool(np.all(model(x)["size"] == old(x)["size"]))
    True

    Reference: Li and Hoiem, "Learning without Forgetting", TPAMI 2018,
    arXiv:1606.09282, for the setting.
    """
    old = model.task_names
    made = transfer(model, [task], keep=old, seed=seed)
    users = tasks_of_layers(made)
    read = {
        layer.name
        for layer, names in users.items()
        if isinstance(layer, keras.layers.Layer) and names & set(old)
    }
    lacking = sorted(read & made.transferred.new.keys())
    if lacking:
        raise ValueError(
            f"Task '{task.name}' cannot be added: under this sharing scheme the old "
            f"tasks read what is new ({', '.join(lacking)}), and would give other "
            "outputs. Build a model for all tasks and put in what fits with "
            "kmtl.transfer(model, into=new), then train all of it; or give the new "
            "task a model of its own."
        )
    if freeze is True:
        # As `model.freeze` does it: with what has no weights, such as dropout.
        had = {layer.name for layer in model.layers} - made.transferred.new.keys()
        set_trainable(
            made,
            [
                layer
                for layer in made.layers
                if layer.name in had and not isinstance(layer, TaskOutput)
            ],
            False,
        )
    elif freeze:
        made.freeze(*((freeze,) if isinstance(freeze, str) else freeze))
    return made


def remove_task(model: MultiTaskModel, name: str) -> MultiTaskModel:
    """A model with one task less; the others' outputs are the same to the last bit.

    Parts that served that task alone are gone. Works with every sharing scheme, and
    with nets made by hand.

    Args:
        model: A model of several tasks. It stays as it is.
        name: The task.

    Returns:
        A `kmtl.MultiTaskModel`, not compiled.

    Raises:
        ValueError: for the name of no task, and the only one.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8,), seed=0)
    >>> kmtl.remove_task(model, "b").task_names
    ('a',)
    """
    names = model.task_names
    _checks.check_task_keys("name", {name: None}, names, partial=True)
    if len(names) == 1:
        raise ValueError(f"`name` is the model's only task. Received: name={name!r}")
    outputs = {task: out for task, out in model.output.items() if task != name}
    rest = MultiTaskModel(model.input, outputs, name=model.name)
    made = MultiTaskModel.from_config(rest.get_config())
    copy_state(rest, made)
    made.built_with = _without(model, name)
    return made


@dataclasses.dataclass(frozen=True)
class Forgetting:
    """Old tasks' scores before and after; see `kmtl.forgetting`.

    Attributes:
        rows: Task name -> `(metric, before, after, lost)`; `lost` is how much worse,
            in the metric's unit, below 0 for better.
    """

    rows: Mapping[str, tuple[str, float, float, float]]

    @property
    def worst(self) -> float:
        """The most that a task has lost."""
        return max(row[3] for row in self.rows.values())

    def __str__(self) -> str:
        width = max(map(len, self.rows))
        return "\n".join(
            f"{name:{width}}  {metric} {before:.4g} -> {after:.4g} "
            f"({'lost' if lost > 0 else 'gained'} {abs(lost):.3g})"
            for name, (metric, before, after, lost) in self.rows.items()
        )


def forgetting(before: MultiTaskModel, after: MultiTaskModel, data: Data) -> Forgetting:
    """What the tasks that two models have in common score in each.

    Args:
        before: The model before a task was added, say.
        after: The model after it was trained.
        data: As for `kmtl.evaluate`, with labels of all tasks of both models, or of
            those in common alone where it is arrays.

    Returns:
        A printable `Forgetting`.

    Raises:
        ValueError: if the two have no task in common.

    Example:

    >>> tasks = [kmtl.Regression("a")]
    >>> old = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(4,), seed=0)
    >>> new = kmtl.add_task(old, kmtl.Regression("b"))
    >>> kmtl.forgetting(old, new, (np.ones((4, 2)), {"a": np.ones(4)})).worst
    0.0
    """
    common = [name for name in before.task_names if name in after.task_names]
    if not common:
        raise ValueError(
            "The models must have tasks in common. Received: "
            f"{', '.join(before.task_names)}, and {', '.join(after.task_names)}"
        )
    results = []
    for model in (before, after):
        for name in set(model.task_names) - set(common):
            model = remove_task(model, name)
        results.append(evaluate(model, _labels_of(data, common)))
    rows = {}
    for name in common:
        old, new = (result[name] for result in results)
        if old.score is None or new.score is None:
            continue
        sign = 1.0 if old.direction == "min" else -1.0
        rows[name] = (old.metric, old.score, new.score, sign * (new.score - old.score))
    return Forgetting(rows)


def _labels_of(data: Data, names: Sequence[str]) -> Data:
    if is_split(data):
        data = tuple(data.arrays())
    if not isinstance(data, (tuple, list)) or not isinstance(data[1], Mapping):
        return data
    x, y, *weight = data
    y = {name: labels for name, labels in y.items() if name in names}
    if weight and isinstance(weight[0], Mapping):
        weight = [{n: w for n, w in weight[0].items() if n in names}]
    return (x, y, *weight)


# -- carrying weights over -------------------------------------------------------------


def _built_again(
    source: MultiTaskModel, tasks: Sequence[Task], seed: int | None, name: str | None
) -> MultiTaskModel:
    record = source.built_with
    if record is None:
        raise ValueError(
            "`source` must be a model of kmtl.build (or build_mlp, build_cnn), which "
            "knows how to build another one. Put the weights of a net made by hand "
            "into a model that you build: kmtl.transfer(source, into=model). "
            f"Received: model '{source.name}'"
        )
    tasks = check_unique_tasks(tasks)
    backbone, sharing = record.parts()
    front: dict[str, Any] = {"inputs": dict(source.input_specs)}
    if record.input_shape is not None:
        front = {
            "input_shape": record.input_shape,
            "input_dtype": record.input_dtype,
            "input_name": record.input_name,
        }
    return build(
        backbone=backbone,
        tasks=tasks,
        sharing=_for_tasks(sharing, [task.name for task in tasks]),
        seed=seed,
        name=name or source.name,
        **front,
    )


def _for_tasks(sharing: Sharing, names: Sequence[str]) -> Sharing:
    """The scheme for other tasks: a new one goes as deep as two others go together."""
    if isinstance(sharing, HardSharing) and isinstance(sharing.depth, Mapping):
        together = sorted(sharing.depth.values())[-2:][0]
        depths = {name: sharing.depth.get(name, together) for name in names}
        return dataclasses.replace(sharing, depth=depths)
    return sharing


def _without(model: MultiTaskModel, name: str) -> Any:
    record = model.built_with
    if record is None:
        return None
    backbone, sharing = record.parts()
    if isinstance(sharing, HardSharing) and isinstance(sharing.depth, Mapping):
        depths = {n: d for n, d in sharing.depth.items() if n != name}
        sharing = dataclasses.replace(sharing, depth=depths)
    return dataclasses.replace(record, backbone=backbone, sharing=sharing)


def carry(source: MultiTaskModel, target: Model, heads: Set[TaskName]) -> Transferred:
    """Give a model the state of the layers that another one has by name and shape.

    Heads, with what they know of the labels, are those of the tasks in `heads` alone:
    another task of the same name has other labels.
    """
    given, dropped = {}, []
    for layer in _learned(source):
        if _is_of_other_task(layer, source, heads):
            dropped.append(layer)
        else:
            given[layer.name] = layer
    reused, new, unlike = {}, {}, []
    for layer in _learned(target):
        anew = _is_of_other_task(layer, target, heads)
        other = None if anew else given.get(layer.name)
        if other is not None and _fits(other, layer):
            copy_state(other, layer)
            if not isinstance(layer, (TaskOutput, Dropout)):
                reused[layer.name] = _size(layer)
        elif not isinstance(layer, (TaskOutput, Dropout)):
            new[layer.name] = _size(layer)
            unlike += [layer.name] if other is not None else []
    names = {layer.name for layer in _learned(target)}
    gone = {layer.name for layer in given.values() if layer.name not in names}
    gone |= {layer.name for layer in dropped}
    left = [
        layer.name
        for layer in _learned(source)
        if layer.name in gone and not isinstance(layer, (TaskOutput, Dropout))
    ]
    return Transferred(reused, new, tuple(unlike), tuple(left))


def _is_of_other_task(layer: Layer, model: Model, heads: Set[TaskName]) -> bool:
    """Whether a layer is in the head of a task that is none of these."""
    if isinstance(layer, TaskOutput):
        return layer.name not in heads
    task = rate_factors.task_of(layer, model)
    return task is not None and task not in heads


def _same_tasks(one: MultiTaskModel, other: MultiTaskModel) -> set[TaskName]:
    """Names of the tasks that both models have, with equal configs.

    A task's weight says nothing of its head, and training may have moved it.
    """
    configs = [
        {name: {**model.task(name).to_config(), "weight": None} for name in names}
        for model, names in ((one, one.task_names), (other, other.task_names))
    ]
    return {
        name for name, config in configs[0].items() if configs[1].get(name) == config
    }


def _of_trunk(model: MultiTaskModel) -> Transferred:
    """What a model has of the plain net that is its trunk."""
    found = {
        layer.name: _size(layer)
        for layer in _learned(model)
        if not isinstance(layer, (TaskOutput, Dropout))
    }
    trunk = {layer.name for layer in parts_of(model).get("trunk", ())}
    return Transferred(
        {name: size for name, size in found.items() if name in trunk},
        {name: size for name, size in found.items() if name not in trunk},
        (),
        (),
    )


def _learned(model: Model) -> list[Layer]:
    return [layer for layer in model.layers if layer.weights]


def _size(layer: Layer) -> int:
    return sum(math.prod(variable.shape) for variable in layer.weights)


def _fits(one: Layer, other: Layer) -> bool:
    shapes = [[tuple(v.shape) for v in layer.weights] for layer in (one, other)]
    return type(one) is type(other) and shapes[0] == shapes[1]


def _listed(model: Model) -> str:
    return ", ".join(layer.name for layer in _learned(model)) or "none"
