"""The loss of a batch: one mean per task, combined by weights and weighting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from kmtl import losses
from kmtl.layers import average
from kmtl.layers.beside import Beside, WithBeside
from kmtl.layers.deep_supervision import DeepSupervision
from kmtl.losses.masked import all_replicas_sum, replica_count
from kmtl.tasks.base import Task
from kmtl.tasks.checks import label_dict
from kmtl.training import alike, packed
from kmtl.training.labels import (
    apply_sample_weight,
    clean_labels,
    loss_targets,
    named,
    with_any,
)
from kmtl.training.teaching import teach
from kmtl.typing import Inputs, Labels, Model, Outputs, SampleWeight, TaskName, Tensor


class Batch(NamedTuple):
    """Losses of one batch; vectors are `(T,)`, in the model's task order.

    `parts` are the entries of `losses` before they became one tensor: a gradient of an
    entry would run back through every task.

    Under `tf.distribute` a replica sees its own part: `sums`, `counts`, `losses` and
    `rows` are local, as is `deep` (what predictions inside the model add to `sums`, or
    None), where `losses` is the local share of the global mean times the task's own
    weight; `all_counts`, `present`, `balanced` and `global_losses` are of all replicas.
    `present` is 1 for tasks with labels, `balanced` for those of them with a weight of
    their own above 0: under many a rule a loss of 0 would stop all others.
    """

    sums: Tensor
    counts: Tensor
    all_counts: Tensor
    present: Tensor
    balanced: Tensor
    own: Tensor
    parts: tuple
    losses: Tensor
    global_losses: Tensor
    rows: Tensor
    deep: Tensor | None = None
    #: `(K,)`, like `sums`, of each of several losses of tasks; None without.
    terms: Tensor | None = None
    #: Losses over several heads: the local share of their weighted sum; and sums over
    #: rows with numbers of rows, each `(J,)`. None without any.
    joint: Tensor | None = None
    joint_sums: tuple[Tensor, Tensor] | None = None
    #: What `Guards.look` saw in the data; None where they were checked before.
    seen: Tensor | None = None


def kept_predictions(model: Model) -> dict[str, list]:
    """Task name -> `(weight, tensor)` of the predictions inside the model.

    They are taken out: to be called once after the model, in the same trace.
    """
    found: dict[str, list] = {}
    for layer in model.layers:
        if isinstance(layer, DeepSupervision):
            tensor = layer.take()
            if tensor is not None:
                tensor = model.task_outputs[layer.task].of_members(tensor)
                found.setdefault(layer.task, []).append((layer.weight, tensor))
    return found


def loss_inputs(model: Model, y_pred: Outputs) -> Any:
    """Outputs in the scales in which the tasks' losses take them, and with what heads
    keep beside them. To be called once after the model, in the same trace."""
    if isinstance(y_pred, packed.Opened):
        return y_pred.inner
    layers = model.task_outputs.items()
    found = {name: layer.before(y_pred[name]) for name, layer in layers}
    for layer in model.layers:
        if isinstance(layer, Beside):
            found[layer.task] = WithBeside(found[layer.task], layer.look())
    return found


def task_losses(
    model: Model,
    x: Inputs,
    y: Labels,
    y_pred: Outputs,
    sample_weight: SampleWeight,
    kept: dict[str, list] | None = None,
    inner: Outputs | None = None,
) -> Batch:
    """The tasks' losses on a batch.

    Args:
        y_pred: What the model gave, in the labels' units.
        kept: What `kept_predictions` gave.
        inner: What `loss_inputs` gave.
    """
    kept = kept_predictions(model) if kept is None else kept
    teach(model, y, y_pred)
    y_pred = packed.opened(model, y_pred)
    inner = loss_inputs(model, y_pred) if inner is None else inner
    x = named(model, x)
    y = label_dict(y, model.tasks)
    names = model.task_names
    joint = model._state.joint
    groups = _groups(model)
    folded = alike.fold(model, groups, x, y, inner, sample_weight, kept)
    joined = {name for group in folded for name in group.names}
    rows = [_folded_losses(model, group) for group in folded]
    single: dict[TaskName, _Losses] = {}
    parted: list[Tensor] = []
    whole: dict[TaskName, Tensor] = {}
    for group, losses_of in zip(folded, rows, strict=True):
        if joint:
            blocks = group.blocks(losses_of.there)
            whole.update(zip(group.names, blocks, strict=True))
    for task in model.tasks:
        name = task.name
        if name in joined:
            continue
        labels, mask = clean_labels(task, x, y, y_pred[name])
        weights = apply_sample_weight(mask, sample_weight, name)
        # In data sets a weight of 0 stands for a label that is missing, too.
        there = with_any(weights, mask)
        layer = model.task_outputs[name]
        own = layer.label_weights(task, labels, there)
        given = loss_targets(task, y, task.marked(labels, there))
        targets = layer.targets(given, mask)
        if own is not there:
            weights = weights * own
            there = with_any(weights, mask)
        whole[name] = there
        values, each = layer.loss_values(task, targets, inner[name], there)
        total = ops.sum(values * weights)
        parted += [ops.sum(part * weights) for part in each]
        extra = sum(
            weight * layer.loss_values(task, targets, inside, there)[0]
            for weight, inside in kept.get(name, ())
        )
        deep = ops.sum(extra * weights) if name in kept else ops.zeros((), "float32")
        share, count = losses.masked_mean(
            values + extra if name in kept else values, weights
        )
        known = _known(task, labels, mask)
        single[name] = _Losses(total, share, count, deep, known, there)

    def of_all(field: str) -> Tensor:
        alone = {name: getattr(found, field) for name, found in single.items()}
        vectors = [getattr(found, field) for found in rows]
        return alike.in_order(names, folded, vectors, alone)

    # Tensors: tf.stack takes no variables.
    weights = [layer.task_weight * 1.0 for layer in model.task_outputs.values()]
    own = ops.stack(weights)
    shares, counts = of_all("share"), of_all("count")
    if folded:
        parts = tuple(ops.unstack(own * shares, len(names)))
    else:
        # Entries before they become one tensor; see `Batch`.
        parts = tuple(
            weight * single[name].share
            for name, weight in zip(names, weights, strict=True)
        )
    labels = all_replicas_sum(counts)
    present = ops.cast(labels > 0, "float32")
    found, joint_sums = _joint(model, y_pred, whole)
    return Batch(
        sums=of_all("sum"),
        counts=counts,
        all_counts=labels,
        present=present,
        balanced=present * ops.cast(own > 0, "float32"),
        own=own,
        parts=parts,
        losses=own * shares,
        global_losses=own * all_replicas_sum(shares),
        rows=_rows(model, x),
        deep=of_all("deep") if kept else None,
        terms=ops.stack(parted) if parted else None,
        joint=found,
        joint_sums=joint_sums,
        seen=_seen(model, x, y, sample_weight, folded, rows, single)
        if model._state.streams
        else None,
    )


class _Losses(NamedTuple):
    """What came of one task, each a scalar, or of a group, `(G,)`; see `Batch`.

    `labels` are those of `_known`, and `there` 1 for those with weight.
    """

    sum: Tensor
    share: Tensor
    count: Tensor
    deep: Tensor
    labels: Tensor
    there: Tensor


def _groups(model: Model) -> tuple:
    """Tasks whose losses are computed as one.

    Where TensorFlow takes the gradient of each task's loss by itself, that of one would
    run back through the whole group.
    """
    plan = model._state.plan
    each = plan is not None and plan.level == "parameters"
    if each and keras.backend.backend() == "tensorflow":
        return ()
    return model._state.alike


def _folded_losses(model: Model, group: alike.Folded) -> _Losses:
    """The losses of tasks alike."""
    task, layer = group.task, model.task_outputs[group.task.name]
    there = ops.cast(group.weights > 0, "float32")
    weights = group.weights * layer.label_weights(task, group.labels, there)
    given = {task.name: group.given}
    targets = layer.targets_side_by_side(
        [model.task_outputs[name] for name in group.names],
        loss_targets(task, given, task.marked(group.labels, there)),
        group.mask,
    )
    there = ops.cast(weights > 0, "float32")
    values, _ = layer.loss_values(task, targets, group.outputs, there)
    values, weights = group.by_task(values), group.by_task(weights)
    share, count = losses.masked_mean(values, weights, axis=1)
    total = ops.sum(values * weights, axis=1)
    known = _known(task, group.labels, group.mask)
    return _Losses(total, share, count, ops.zeros_like(count), known, there)


def _known(task: Task, labels: Tensor, mask: Tensor) -> Tensor:
    """Labels, with a number that the task takes where there is none.

    (0 is not always one, and some kinds mark what is missing.)
    """
    low, high = task.label_range
    return ops.where(mask > 0, labels, ops.cast(min(max(0.0, low), high), labels.dtype))


def _seen(
    model: Model,
    x: Inputs,
    y: Labels,
    sample_weight: SampleWeight,
    folded: list,
    rows: list[_Losses],
    single: dict[TaskName, _Losses],
) -> Tensor:
    """What `Guards.look` sees in a batch."""
    names = model.task_names

    def ends(function: Callable[..., Tensor]) -> Tensor:
        alone = {
            name: ops.cast(function(found.labels), "float32")
            for name, found in single.items()
        }
        vectors = [
            ops.cast(function(group.by_task(found.labels), axis=1), "float32")
            for group, found in zip(folded, rows, strict=True)
        ]
        return alike.in_order(names, folded, vectors, alone)

    highest, lowest = ends(ops.max), ends(ops.min)
    return model._state.guards.look(x, y, highest, lowest, sample_weight)


def _joint(
    model: Model, y_pred: Outputs, there: dict[TaskName, Tensor]
) -> tuple[Tensor | None, tuple[Tensor, Tensor] | None]:
    """Losses over several heads, and their sums; see `Batch`.

    Args:
        there: Task name -> 1 for labels with weight, 0 for others.
    """
    total, sums, rows = None, [], []
    for part in model._state.joint:
        outputs = [model.task(name).activate(y_pred[name]) for name in part.tasks]
        values = part(*outputs)
        mask = ops.ones_like(values)
        if part.where == "labelled":
            for name in part.tasks:
                axes = tuple(range(1, len(there[name].shape)))
                mask = mask * ops.min(there[name], axis=axes)
        # Not times 0 alone: what is not finite in a row without labels stays out.
        values = ops.where(mask > 0, values, ops.zeros_like(values))
        share, count = losses.masked_mean(values, mask)
        total = part.weight * share + (0.0 if total is None else total)
        sums.append(ops.sum(values * mask))
        rows.append(count)
    return total, (ops.stack(sums), ops.stack(rows)) if sums else None


def half_losses(
    model: Model,
    x: Inputs,
    y: Labels,
    y_pred: Outputs,
    sample_weight: SampleWeight,
    kept: dict[str, list],
) -> tuple[Tensor, Tensor]:
    """The tasks' losses on two halves of a batch: every other row, and the rest.

    So that the halves of replicas' batches make up those of the global one.

    Returns:
        `(parts, shares)`: 2T scalars, the first half's losses and then the second's,
        and `(2, T)`, the share of each half in a task's labels: the loss of the whole
        batch is the sum over halves of share times loss.
    """
    labels = label_dict(y, model.tasks)
    teach(model, y, y_pred)
    cut_out = isinstance(packed.opened(model, y_pred), packed.Opened)
    inner = None if cut_out else loss_inputs(model, y_pred)

    def losses_of(part: slice) -> Batch:
        def cut(tensor: Tensor) -> Tensor:
            return None if tensor is None else tensor[part]

        given = (x, labels, y_pred, sample_weight, inner)
        inside = {
            name: [(weight, cut(tensor)) for weight, tensor in pairs]
            for name, pairs in kept.items()
        }
        own_x, own_y, own_pred, weight, own_inner = keras.tree.map_structure(cut, given)
        return task_losses(
            model, own_x, own_y, own_pred, weight, inside, inner=own_inner
        )

    halves = [losses_of(slice(start, None, 2)) for start in (0, 1)]
    counts = ops.stack([half.all_counts for half in halves])
    everywhere = ops.sum(counts, axis=0)
    shares = counts / ops.where(everywhere > 0, everywhere, 1.0)
    return [part for half in halves for part in half.parts], shares


def _rows(model: Model, x: Inputs) -> Tensor:
    known = model._state.rows
    return ops.shape(keras.tree.flatten(x)[0])[0] if known is None else known


def total(model: Model, batch: Batch, training: bool) -> tuple[Tensor, ...]:
    """Total of the tasks' losses, each task's factor in it, and the rest, if any."""
    if model.weighting is None or model.weighting.kind == "gradient":
        return ops.sum(batch.losses), batch.own, None
    # Several replicas: balance the losses of the global batch. Each replica takes
    # 1/N of the total; the gradient of the sum over replicas gives the rest back.
    total, factors = model.weighting.combine(
        batch.global_losses, batch.all_counts * batch.balanced, training
    )
    factors = ops.stop_gradient(factors)
    other = ops.stop_gradient(total - ops.sum(factors * batch.global_losses))
    return total / replica_count(), factors * batch.own, other


def of_all(model: Model) -> Tensor | None:
    """`loss` of an evaluation that has ended, as that of all its rows in one batch.

    None where the mean over batches is that: where no weight looks at the losses.
    """
    if model.weighting is None or model.weighting.kind == "gradient":
        return None
    terms = model._state.terms
    own = ops.stack([layer.task_weight * 1.0 for layer in model.task_outputs.values()])
    labels = ops.convert_to_tensor(terms.labels)
    losses = ops.divide_no_nan(ops.convert_to_tensor(terms.raw), labels)
    present = labels * ops.cast(own > 0, "float32")
    balanced, _ = model.weighting.combine(own * losses, present, training=False)
    return terms.total(balanced)


def added_losses(model: Model) -> Tensor:
    """Sum of the regularisers' losses and those that layers add, None without any."""
    found = average.added_losses(model)
    extras = [ops.sum(ops.cast(extra, "float32")) for extra in found]
    return sum(extras[1:], extras[0]) if extras else None


def relation_penalty(model: Model, training: bool) -> Tensor:
    """Penalty of the task relations, None without any; while training they learn."""
    return None if model.relations is None else model.relations.penalty(training)


def penalty_of(model: Model, training: bool) -> Tensor:
    """Sum of all regularisation losses, or None where there are none.

    To be called before the tasks' losses: there replicas wait for each other.
    """
    found = [added_losses(model), relation_penalty(model, training)]
    terms = [term for term in found if term is not None]
    return sum(terms[1:], terms[0]) if terms else None


def record(
    model: Model, batch: Batch, penalty: Tensor, weights: Tensor, gramian: Tensor
) -> None:
    """Book a step of a gradient-based weighting; losses count with own weights."""
    _book(model, batch, batch.own, None, penalty)
    if weights is not None:
        model.balance_log.add_weights(weights * batch.own)
    model.balance_log.add_gramian(gramian, batch.balanced)


def _book(
    model: Model,
    batch: Batch,
    factors: Tensor,
    other: Tensor | None,
    penalty: Tensor | None,
) -> None:
    terms = model._state.terms
    terms.update_state(
        batch.sums,
        batch.counts,
        factors,
        penalty,
        other,
        batch.rows,
        batch.deep,
        batch.terms,
        batch.joint_sums,
    )
    model._state.guards.update_state(terms.weighted.value, batch.seen)


def compute(
    model: Model,
    x: Inputs,
    y: Labels,
    y_pred: Outputs,
    sample_weight: SampleWeight,
    training: bool,
) -> Tensor:
    """Total loss to minimise; books its terms. What `compute_loss` returns."""
    kept = kept_predictions(model)
    penalty = penalty_of(model, training)
    batch = task_losses(model, x, y, y_pred, sample_weight, kept)
    model._state.present = batch.present > 0
    loss, factors, other = total(model, batch, training)
    if training and model.balance_log is not None:
        model.balance_log.add_weights(factors)
    _book(model, batch, factors, other, penalty)
    if batch.joint is not None:
        loss = loss + batch.joint
    return loss if penalty is None else loss + penalty / replica_count()


def report(
    model: Model, x: Inputs, y: Labels, sample_weight: SampleWeight
) -> dict[str, Any]:
    """See `MultiTaskModel.loss_report`."""
    x = keras.tree.map_structure(ops.convert_to_tensor, x)
    outputs = model(x, training=False)
    batch = task_losses(model, x, y, outputs, sample_weight)
    loss, factors, other = total(model, batch, training=False)
    penalty = penalty_of(model, training=False)
    penalty = 0.0 if penalty is None else float(penalty)
    sums, counts, factors = map(
        ops.convert_to_numpy, (batch.sums, batch.counts, factors)
    )
    raw = sums / (counts + (counts == 0))
    report: dict[str, Any] = {
        name: {
            "loss": float(raw[i]),
            "weight": float(factors[i]),
            "weighted": float(raw[i] * factors[i]),
            "labels": float(counts[i]),
        }
        for i, name in enumerate(model.task_names)
    }
    report["regularization"] = penalty
    report["other"] = 0.0 if other is None else float(other)
    if batch.joint is not None:
        loss = loss + batch.joint
        report["joint"] = float(batch.joint)
    report["total"] = float(loss) + penalty
    return report
