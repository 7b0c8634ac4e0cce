"""Models for other tasks, with what a trained one has learned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from kmtl import _checks
from kmtl.backbones.from_keras import FromKeras
from kmtl.builders import build
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_unique_tasks
from kmtl.training.built_with import BuiltWith
from kmtl.training.kmtl_model import check_model
from kmtl.training.model import MultiTaskModel
from kmtl.transferring import carrying
from kmtl.typing import Model


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
            the same name and, but for its weight, the same config. Of a plain Keras
            model, layers go into those of their name, and into copies of themselves in
            a trunk of `FromKeras` (`shared_block1_stem` is `stem`).
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
    if not isinstance(source, keras.Model):
        check_model(source, "source")
    if not isinstance(freeze, Iterable):
        raise TypeError(
            '`freeze` must be "trunk", or another part, or several, as of '
            f"`model.freeze`. Received: freeze={freeze!r}"
        )
    if into is not None:
        check_model(into, "into")
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
        tasks = check_unique_tasks([*kept, *tasks])
        sharing = _for_tasks(source, [task.name for task in tasks])
        model = built_again(source, tasks, sharing, seed, name)
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
        heads = carrying.same_tasks(source, model) if into is not None else set(keep)
        model.transferred = carrying.carry(source, model, heads)
    elif into is not None:
        model.transferred = carrying.carry_plain(source, model)
    else:
        model.transferred = carrying.of_trunk(model)
    if not model.transferred.reused:
        raise ValueError(
            "`source` has no layer that the new model has, by name and shape: nothing "
            f"would be transferred. The source has {carrying.listed(source)}. "
            f"Received: a model with {carrying.listed(model)}"
        )
    parts = (freeze,) if isinstance(freeze, str) else tuple(freeze)
    if parts:
        model.freeze(*parts)
    return model


def built_again(
    source: MultiTaskModel,
    tasks: Sequence[Task],
    sharing: Sharing,
    seed: int | None,
    name: str | None,
) -> MultiTaskModel:
    """A new model with the backbone and the inputs of another one."""
    record = record_of(source)
    backbone, _ = record.parts()
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
        sharing=sharing,
        seed=seed,
        name=name or source.name,
        **front,
    )


def record_of(source: MultiTaskModel, argument: str = "source") -> BuiltWith:
    """What a model was built of.

    Raises:
        ValueError: for a model made by hand.
    """
    record = source.built_with
    if record is None:
        raise ValueError(
            f"`{argument}` must be a model of kmtl.build (or build_mlp, build_cnn), "
            "which knows how to build another one. Put the weights of a net made by "
            "hand into a model that you build: kmtl.transfer(source, into=model). "
            f"Received: model '{source.name}'"
        )
    return record


def _for_tasks(source: MultiTaskModel, names: Sequence[str]) -> Sharing:
    """The source's scheme for other tasks, which are all there from the beginning."""
    _, sharing = record_of(source).parts()
    later = [name for name in sharing.later if name in names]
    known = list(source.task_names)
    for name in names:
        if name not in known:
            sharing = sharing.adding(name, known)
            known.append(name)
    for name in known:
        if name not in names:
            sharing = sharing.without(name)
    return sharing.joined_by(later)
