"""Builders: backbone + sharing + tasks -> model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kmtl import _checks, _registry
from kmtl._devices import ensure_memory_growth
from kmtl._fronts import check_specs, encoded_inputs, plain_input
from kmtl._private.keras import node_of
from kmtl._quick import compiling_quickly
from kmtl.backbones import CNN, MLP, Backbone
from kmtl.backbones.ways import Ways
from kmtl.inputs.base import Input
from kmtl.layers.maker import LayerMaker
from kmtl.sharing import HardSharing, Sharing
from kmtl.sharing.base import resolve as resolve_sharing
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_loss_weights, check_unique_tasks
from kmtl.tasks.head_groups import grouped_heads
from kmtl.tasks.heads import HeadContext
from kmtl.tasks.output import TaskOutput
from kmtl.training.built_with import BuiltWith
from kmtl.training.model import MultiTaskModel
from kmtl.typing import Activation, Initializer, Regularizer, Tensor


@compiling_quickly
def build(
    *,
    backbone: Backbone | str | Mapping[str, Backbone | str],
    tasks: Sequence[Task],
    input_shape: Sequence[int | None] | None = None,
    inputs: Mapping[str, Input] | Input | None = None,
    sharing_depth: int | Mapping[str, int] | None = None,
    sharing: Sharing | str = "hard",
    loss_weights: Mapping[str, float] | str | None = None,
    input_dtype: str = "float32",
    input_name: str = "inputs",
    seed: int | None = None,
    name: str = "kmtl",
) -> MultiTaskModel:
    """A multi-task model: a trunk of blocks, shared as asked, and one head per task.

    Of a dozen tasks alike, or more, that read the same features, and whose heads are
    one dense layer each, these are made as one layer (`kmtl.layers.HeadGroup`), which
    is much faster; names, initial weights and files stay those of single heads.
    `kmtl.ungrouped(model)` takes them apart.

    Args:
        backbone: A `kmtl.backbones` object, or the name of one with its defaults. For
            several inputs one that joins them, or a dict input name -> backbone.
        tasks: The tasks; their names are the model's outputs.
        input_shape: Shape of one array of numbers, without the batch axis, taken as it
            is. Or give `inputs`.
        inputs: Dict name -> `kmtl.inputs` object, fitted on the training rows: what
            `fit` and `predict` take, and what an export takes, by these names.
        sharing_depth: Number of leading blocks that all tasks share, 0 (nothing) to
            the number of blocks (all, the default). The other blocks are copied per
            task, so the total depth stays the same. A dict task name -> number lets
            some tasks leave the shared trunk earlier than others.
        sharing: A `kmtl.sharing` object or name. `sharing_depth` belongs to `"hard"`.
        loss_weights: Dict task name -> weight, replacing the tasks' own for some or
            all; `"uniform"` (1/T each); `"data"` (in proportion to each task's number
            of labels, summing to 1, counted when `fit` starts). Defaults to the tasks'.
        input_dtype: With `input_shape`: `"float32"`, or `"uint8"` for raw images,
            which the model then scales to [0, 1] itself.
        input_name: With `input_shape`: name of the input in exports.
        seed: Integer: initial weights and dropout masks depend on nothing else. None
            is different every time.
        name: Name of the model.

    Returns:
        A `kmtl.MultiTaskModel`; call its `compile("adam")` and `fit`.

    Raises:
        ValueError, TypeError: for arguments out of range, naming the argument.

    Example:

    >>> model = kmtl.build(
    ...     backbone=kmtl.backbones.CNN(filters=(8, 16), dropout=0.1),
    ...     input_shape=(8, 8, 1),
    ...     tasks=[kmtl.Classification("digit", classes=10),
    ...            kmtl.Segmentation("mask", classes=2)],
    ...     sharing_depth=1,
    ... )
    >>> {name: layer.output.shape for name, layer in model.task_outputs.items()}
    {'digit': (None, 10), 'mask': (None, 8, 8, 1)}
    """
    ensure_memory_growth()  # before the first variable takes the GPU
    tasks = check_unique_tasks(tasks)
    trunk = resolve_backbone(backbone)
    scheme = resolve_sharing(sharing)
    specs = check_specs(inputs, input_shape, tasks)
    trunk = trunk.for_inputs(specs)
    for task in tasks:
        if task.adversarial and not isinstance(scheme, HardSharing):
            raise ValueError(
                f"Task '{task.name}' is adversarial, which needs one place where it "
                "leaves the shared trunk: build with sharing='hard', or put a "
                "kmtl.layers.GradientReversal into a model of your own. Received: "
                f"sharing={scheme.registered_name!r}"
            )
    if seed is not None:
        seed = _checks.check_int("seed", seed, 0)
    if sharing_depth is not None:
        if not isinstance(scheme, HardSharing):
            raise ValueError(
                "`sharing_depth` belongs to sharing='hard'. "
                f"Received: sharing={scheme.registered_name!r}"
            )
        if scheme.depth is not None:
            raise ValueError(
                "Give the depth once: as `sharing_depth` or as HardSharing(depth=...)."
            )
        scheme = dataclasses.replace(scheme, depth=sharing_depth)
    tasks, rule = with_loss_weights(tasks, loss_weights)
    make = LayerMaker(seed=seed, kernel_regularizer=trunk.kernel_regularizer)
    if specs:
        front = encoded_inputs(specs, trunk, make)
    else:
        front = plain_input(input_shape, trunk, input_dtype, input_name)
    if not isinstance(front.encoded, Mapping):
        trunk = trunk.for_shape(tuple(front.encoded.shape[1:]))
    encoded = trunk.enter(front.encoded, make)
    masks = trunk.masks(encoded, make, trunk.enter(front.masks, make.part("mask")))
    make = dataclasses.replace(make, masks=masks)
    tasks = tuple(
        front.of(task).as_target(task) if task.target_is_input else task
        for task in tasks
    )

    ways = Ways(trunk)

    def context(task: Task, features: Tensor, part: str = "head") -> HeadContext:
        own = front.of(task)
        layers = trunk.head_maker(make.part(f"{task.name}_{part}"))
        layers = dataclasses.replace(layers, kernel_initializer=task.kernel_initializer)
        # Earlier blocks would be read past the reversal.
        levels = None if task.adversarial else ways.levels(features)
        return HeadContext(layers, own.shape, own.scale, levels)

    def head(task: Task, features: Tensor, part: str = "head") -> Tensor:
        return task.build_head(features, context(task, features, part))

    logits = _logits(scheme, ways.backbone, encoded, tasks, head, make, context)
    outputs = {
        task.name: TaskOutput(task, weight_rule=rule, members=trunk.members)(
            logits[task.name]
        )
        for task in tasks
    }
    _check_layer_names(keras.tree.flatten(front.inputs), outputs)
    model = MultiTaskModel(front.inputs, outputs, name=name)
    model.built_with = BuiltWith(
        backbone=trunk,
        sharing=scheme,
        input_shape=None if specs else tuple(input_shape or ()),
        input_dtype=input_dtype,
        input_name=input_name,
    )
    return model


def _logits(
    scheme: Sharing,
    backbone: Backbone,
    encoded: Any,
    tasks: tuple[Task, ...],
    head: Callable[..., Tensor],
    make: LayerMaker,
    context: Callable[..., HeadContext],
) -> dict[str, Tensor]:
    """Each task's logits; heads of many tasks alike are one layer."""
    own = type(scheme)
    plain = own.assemble is Sharing.assemble and own.outputs is Sharing.outputs
    if not plain or backbone.members > 1:
        return scheme.assemble(backbone, encoded, tasks, head, make)
    features = scheme.connect(backbone, encoded, tasks, make)
    contexts = {task.name: context(task, features[task.name]) for task in tasks}
    grouped = grouped_heads(tasks, features, contexts)
    return {
        task.name: grouped[task.name]
        if task.name in grouped
        else head(task, features[task.name])
        for task in tasks
    }


def build_mlp(
    *,
    tasks: Sequence[Task],
    input_shape: Sequence[int] | None = None,
    units: Sequence[int] = (64, 64),
    sharing_depth: int | Mapping[str, int] | None = None,
    dropout: float | Sequence[float] | None = 0.0,
    activation: Activation = "relu",
    normalization: str | None = None,
    kernel_regularizer: Regularizer = None,
    kernel_initializer: Initializer | None = None,
    **options: Any,
) -> MultiTaskModel:
    """A multi-task multi-layer perceptron.

    Args:
        tasks: The tasks.
        input_shape: Shape of one input; more than one axis is flattened. Or give
            `inputs`, as in `kmtl.build`.
        units: Width of each block.
        sharing_depth: Blocks that all tasks share, 0 to `len(units)` (the default), or
            a dict task name -> number.
        dropout: Rate in [0, 1) after each block, a variable, or one rate per block;
            None for no such layers.
        activation: Any Keras activation.
        normalization: `"batch"`, `"layer"` or None.
        kernel_regularizer: Keras regulariser of all kernels.
        kernel_initializer: Keras initializer of the blocks' kernels (a task has one of
            its own for its head). Defaults to Glorot's, uniform.
        **options: `inputs`, `sharing`, `loss_weights`, `input_dtype`, `input_name`,
            `seed`, `name`, as in `kmtl.build`.

    Example:

    >>> model = kmtl.build_mlp(
    ...     input_shape=(16,), tasks=[kmtl.Regression("price")], units=(32,)
    ... )
    >>> model.task_names
    ('price',)
    """
    backbone = MLP(
        units=tuple(_checks.check_ints("units", units)),
        dropout=dropout,
        activation=activation,
        normalization=normalization,
        kernel_regularizer=kernel_regularizer,
        kernel_initializer=kernel_initializer,
    )
    return build(
        backbone=backbone,
        input_shape=input_shape,
        tasks=tasks,
        sharing_depth=sharing_depth,
        **options,
    )


def build_cnn(
    *,
    tasks: Sequence[Task],
    input_shape: Sequence[int | None] | None = None,
    filters: Sequence[int] = (32, 64),
    kernel_size: int = 3,
    convs: int = 1,
    pooling: str | None = "max",
    sharing_depth: int | Mapping[str, int] | None = None,
    dropout: float | Sequence[float] | None = 0.0,
    activation: Activation = "relu",
    normalization: str | None = None,
    kernel_regularizer: Regularizer = None,
    kernel_initializer: Initializer | None = None,
    **options: Any,
) -> MultiTaskModel:
    """A multi-task convolutional net.

    Args:
        tasks: The tasks.
        input_shape: `(height, width, channels)`. Or give `inputs`, as in `kmtl.build`.
        filters: Filters of each block.
        kernel_size: Side of the kernels.
        convs: Convolutions per block.
        pooling: `"max"`, `"avg"`, `"stride"` or None; halves the map per block.
        sharing_depth: Blocks that all tasks share, 0 to `len(filters)` (the default),
            or a dict task name -> number.
        dropout: Rate in [0, 1) after each block, a variable, or one rate per block;
            None for no such layers.
        activation: Any Keras activation.
        normalization: `"batch"`, `"layer"` or None.
        kernel_regularizer: Keras regulariser of all kernels.
        kernel_initializer: Keras initializer of the blocks' kernels (a task has one of
            its own for its head). Defaults to Glorot's, uniform.
        **options: `inputs`, `sharing`, `loss_weights`, `input_dtype`, `input_name`,
            `seed`, `name`, as in `kmtl.build`.

    Example:

    >>> model = kmtl.build_cnn(
    ...     input_shape=(8, 8, 1), filters=(8, 16), sharing_depth=2,
    ...     tasks=[kmtl.Classification("digit", classes=10)],
    ... )
    >>> model.seam.name
    'seam'
    """
    backbone = CNN(
        filters=tuple(_checks.check_ints("filters", filters)),
        kernel_size=kernel_size,
        convs=convs,
        pooling=pooling,
        dropout=dropout,
        activation=activation,
        normalization=normalization,
        kernel_regularizer=kernel_regularizer,
        kernel_initializer=kernel_initializer,
    )
    return build(
        backbone=backbone,
        input_shape=input_shape,
        tasks=tasks,
        sharing_depth=sharing_depth,
        **options,
    )


def resolve_backbone(backbone: Any) -> Backbone:
    """A backbone from a backbone, a name, or a dict input name -> one of these."""
    if isinstance(backbone, Mapping):
        encoders = {name: resolve_backbone(one) for name, one in backbone.items()}
        made: Backbone = _registry.get("backbone", "fusion")(encoders=encoders)
        return made
    if isinstance(backbone, keras.Model):
        raise TypeError(
            "`backbone` must be an object of kmtl.backbones: of a Keras model make "
            f"kmtl.backbones.FromKeras(model). Received: backbone={backbone!r}"
        )
    found: Backbone = _registry.made("backbone", backbone)
    return found


def _check_layer_names(inputs: Sequence[Any], outputs: Mapping[str, Any]) -> None:
    """No two layers have one name: a task may be called as no other layer."""
    taken = {*outputs, *(tensor.name for tensor in inputs)}
    seen: set[int] = set()
    owners: dict[str, Any] = {}
    tensors = list(outputs.values())
    while tensors:
        node = node_of(tensors.pop())
        if id(node) in seen:
            continue
        seen.add(id(node))
        tensors += node.input_tensors
        layer = node.operation
        if owners.setdefault(layer.name, layer) is not layer:
            if layer.name not in taken:
                raise ValueError(
                    f"Two layers would be called '{layer.name}': the backbone (or a "
                    "task's head) makes it itself, and this sharing scheme applies "
                    "its block several times. Make it with `make.layer(kind, name, "
                    "**arguments)`, which then gives the same layer again. "
                    f"Received: two {type(layer).__name__} layers"
                )
            raise ValueError(
                f"Two layers would be called '{layer.name}', because a task (or the "
                f"input) has the name of a layer inside the model. Rename it. "
                f"Received: tasks {', '.join(outputs)}"
            )


def with_loss_weights(
    tasks: tuple[Task, ...], loss_weights: Any
) -> tuple[tuple[Task, ...], str | None]:
    """Tasks with their weights, and the rule that is still to be applied."""
    names = [task.name for task in tasks]
    given = check_loss_weights(loss_weights, names)
    if isinstance(given, str):
        return tasks, given
    weights = {task.name: task.weight for task in tasks} | (given or {})
    return tuple(task.replace(weight=weights[task.name]) for task in tasks), None
