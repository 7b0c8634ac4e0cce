"""Adaptive information transfer along a chain of tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.layers.transfer import Calibrator, InformationTransfer
from kmtl.sharing._chain import HeadChain
from kmtl.sharing._shapes import fitted
from kmtl.tasks.base import Task
from kmtl.typing import Features, Outputs, Tensor


@register("sharing", "aitm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AITM(HeadChain):
    """A task weighs what the task before it hands over against its own features.

    Along the chain, with q_t the features that the base gives task t:
    z_1 = q_1; p = relu(W z_{t-1} + b); z_t = sum_{u in {p, q_t}} w_u V u with
    w = softmax_u((Q u · K u) / sqrt(F)). The head of t reads z_t. To the loss comes
    `calibrator` * mean(max(σ(after) - σ(before), 0)): what comes later must not be
    more probable than what it depends on. (It is part of `regularization_loss`.)

    When to choose it: a funnel of events (see, click, buy) with ever fewer positives,
    whose dependence is looser than the product of `"esmm"`.

    Cost: per task with one before it 4 F^2 + F parameters and as many multiplications
    per example.

    Args:
        after: Dict task name -> task whose features it takes over. Tasks that predict
            maps cannot be in it.
        base: Scheme (or its name) that makes the features; feature maps are averaged
            over their places. Defaults to `"hard"`; towers of the tasks' own come with
            `kmtl.sharing.HardSharing(depth=...)` below the number of blocks.
        calibrator: Number >= 0, weight of the calibrator; with 0 the tasks may be of
            any kind, else all in `after` must have sigmoid outputs of one shape.
            Defaults to 0.6, as in the paper.

    Raises:
        ValueError: for a circle in `after`, names that are not tasks, and kinds that do
            not fit.

    Example:

    >>> tasks = [kmtl.BinaryClassification("click"), kmtl.BinaryClassification("buy")]
    >>> scheme = kmtl.sharing.AITM(after={"buy": "click"},
    ...                            base=kmtl.sharing.HardSharing(depth=1))
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8, 8),
    ...                        sharing=scheme)
    >>> model.get_layer("buy_transfer_attention").count_params() >= 3 * 8 * 8
    True

    Reference: Xi et al., KDD 2021, arXiv:2105.08489.
    """

    calibrator: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        weight = _checks.check_range("calibrator", self.calibrator, 0, high_open=True)
        object.__setattr__(self, "calibrator", weight)

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        self._check_kinds(tasks)
        features = dict(self.scheme.connect(backbone, inputs, tasks, make))
        chained = {name for pair in self.after.items() for name in pair}
        for name in features:
            if name in chained:
                part = make.part(f"{name}_transfer")
                features[name] = fitted(features[name], _Vector, part)
        for task in self.ordered(tasks):
            before = self.after[task.name]
            part = make.part(f"{task.name}_transfer")
            width = int(features[task.name].shape[-1])
            handed = part.dense(width, "dense")(features[before])
            handed = part.activation("relu", "activation")(handed)
            dense = part.dense(width, "attention")  # for its initializer and penalty
            attention = part.layer(
                InformationTransfer,
                "attention",
                task=task.name,
                before=before,
                kernel_initializer=dense.kernel_initializer,
                kernel_regularizer=dense.kernel_regularizer,
            )
            features[task.name] = attention([handed, features[task.name]])
        return features

    def outputs(
        self,
        features: Features,
        head: Callable[..., Tensor],
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Outputs:
        logits = dict(self.scheme.outputs(features, head, tasks, make))
        if self.calibrator:
            for task in self.ordered(tasks):
                before = self.after[task.name]
                pair = [logits[before], logits[task.name]]
                if tuple(pair[0].shape) != tuple(pair[1].shape):
                    raise ValueError(
                        "`calibrator` compares tasks column by column, and the outputs "
                        f"of '{before}' and '{task.name}' have shapes "
                        f"{tuple(pair[0].shape)} and {tuple(pair[1].shape)}: set it to "
                        f"0. Received: calibrator={self.calibrator}"
                    )
                layer = make.part(task.name).layer(
                    Calibrator, "calibrator", weight=self.calibrator
                )
                logits[task.name] = layer(pair)
        return logits

    def _check_kinds(self, tasks: tuple[Task, ...]) -> None:
        known = {task.name: task for task in tasks}
        for task in self.ordered(tasks):
            pair = known[self.after[task.name]], task
            for end in pair:
                if end.dense_prediction:
                    raise ValueError(
                        "`after` of sharing 'aitm' chains tasks that read vectors, and "
                        f"task '{end.name}' predicts a map; 'pad_net' links such. "
                        f"Received: a task of kind '{end.registered_name}'"
                    )
                if self.calibrator and end.output_activation != "sigmoid":
                    raise ValueError(
                        "`calibrator` compares probabilities of yes, which task "
                        f"'{end.name}' of kind '{end.registered_name}' has not: set it "
                        f"to 0. Received: calibrator={self.calibrator}"
                    )


class _Vector:
    """Stands for any `(N, F)` where only the number of axes counts."""

    shape = (None, None)
