"""How large each task's loss and gradient are, before the first step."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from kmtl.layers.copying import copy_state
from kmtl.typing import Inputs, Labels, Model, SampleWeight
from kmtl.weighting.base import Weighting


@dataclasses.dataclass(frozen=True)
class ScaleReport:
    """Loss and gradient of each task on one batch, and weights that would even them.

    Attributes:
        losses: Dict task name -> mean loss over the batch's labels, NaN without any.
        weights: Dict task name -> the model's weight now.
        gradient_norms: Dict task name -> norm of the gradient of the unweighted loss,
            at `where`; empty if the tasks share nothing.
        suggested: Dict task name -> weights in inverse proportion to the gradient
            norms (to the losses where nothing is shared), summing to the number of
            tasks; for `model.set_task_weights`. Tasks without a label keep theirs.
        where: `"features"` (at the seam) or `"parameters"` (shared ones).
    """

    losses: dict[str, float]
    weights: dict[str, float]
    gradient_norms: dict[str, float]
    suggested: dict[str, float]
    where: str | None

    def __str__(self) -> str:
        width = max(len("task"), *(len(name) for name in self.losses))
        head = (
            f"{'task':<{width}} {'loss':>11} {'grad norm':>11} {'weight':>9} suggested"
        )
        lines = [head]
        for name, loss in self.losses.items():
            norm = self.gradient_norms.get(name, np.nan)
            lines.append(
                f"{name:<{width}} {loss:>11.4g} {norm:>11.4g} "
                f"{self.weights[name]:>9.4g} {self.suggested[name]:>9.4g}"
            )
        if self.where:
            lines.append(f"Gradient norms are those of the shared {self.where}.")
        return "\n".join(lines)


def scale_report(
    model: Model, x: Inputs, y: Labels, sample_weight: SampleWeight
) -> ScaleReport:
    """See `MultiTaskModel.scale_report`."""
    from kmtl.weighting.pcgrad import PCGrad

    # A copy takes one step of size 0 and records what it saw: the very arithmetic of
    # training, on both backends, without a trace on the user's model.
    copy = type(model).from_config(model.get_config())
    for source, target in zip(model.layers, copy.layers, strict=True):
        copy_state(source, target)
    copy.set_task_weights(dict.fromkeys(model.task_names, 1.0))
    rows = len(keras.tree.flatten(x)[0])

    def compile_with(rule: Weighting | None) -> None:
        copy.compile(
            keras.optimizers.SGD(0.0),
            loss=model.replaced_losses,
            weighting=rule,
            run_eagerly=True,
        )

    try:
        compile_with(PCGrad(shuffle=False, monitor=True))
    except ValueError:
        compile_with(None)  # nothing is shared: only losses can be compared
    logs = copy.fit(
        x, y, sample_weight=sample_weight, batch_size=rows, shuffle=False, verbose=0
    ).history
    report = copy.loss_report(x, y, sample_weight)
    losses, norms = {}, {}
    for name in model.task_names:
        labelled = report[name]["labels"] > 0
        losses[name] = logs[f"{name}_loss"][0] if labelled else float("nan")
        if f"grad_norm_{name}" in logs and labelled:
            norms[name] = logs[f"grad_norm_{name}"][0]
    sizes = norms or {name: loss for name, loss in losses.items() if loss == loss}
    inverse = {name: 1.0 / size for name, size in sizes.items() if size > 0}
    total = sum(inverse.values())
    suggested = dict(model.task_weights)
    for name, value in inverse.items():
        suggested[name] = value / total * len(inverse)
    where = copy._state.plan.level if copy._state.plan else None
    return ScaleReport(losses, model.task_weights, norms, suggested, where)
