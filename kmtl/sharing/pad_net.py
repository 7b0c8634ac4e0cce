"""Prediction-and-distillation network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from kmtl._dimensions import Float, search_over
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.sharing._distillation import (
    check_arguments,
    check_map,
    dense_tasks,
    distilled,
    initial_features,
)
from kmtl.sharing.base import Sharing, resolve
from kmtl.tasks.base import Task
from kmtl.typing import Features, Outputs, TaskName, Tensor


@register("sharing", "pad_net")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PADNet(Sharing):
    """Tasks that predict maps predict twice, and tell each other in between.

    On the base's features each dense task t makes an initial prediction, on which its
    loss is taken as well (`kmtl.layers.DeepSupervision`, in training), and features
    F_t = relu(conv([E_t, soft prediction])), E_t being what it predicted from. Then
    F_t + σ(G_t F_t) ⊙ sum_{s != t} W_ts F_s is what its head reads: the task's own
    gate decides where the others' messages count. Other tasks read the base's features.

    When to choose it: several dense tasks of one scene (segmentation, depth, edges).

    Cost: a second head per dense task, and 3 x 3 convolutions at the size of the
    features: 4 + (T - 1) times channels^2 * 9 parameters per task.

    Args:
        base: Scheme (or its name) that makes the features, which must be maps.
            Defaults to `"hard"`.
        weight: Number > 0: weight of an initial prediction's loss beside the final
            one's. Defaults to 1, as in the paper.
        channels: Integer >= 1: width of F, or None for that of the base's features.

    Raises:
        ValueError: at build time, without dense tasks or feature maps, or with a base
            that links heads itself.

    Example:

    >>> tasks = [kmtl.Segmentation(name, classes=2) for name in ("mask", "edges")]
    >>> model = kmtl.build_cnn(input_shape=(8, 8, 1), tasks=tasks, filters=(4, 4),
    ...                        sharing=kmtl.sharing.PADNet(weight=0.5))
    >>> model.get_layer("mask_initial_supervision").weight
    0.5

    Reference: Xu et al., CVPR 2018, arXiv:1805.04409 (distillation module C). As in
    the implementation of Vandenhende et al., F also carries the features behind the
    initial prediction and not the prediction alone.
    """

    ranges = search_over(weight=Float(0.1, 2.0, log=True, default=1.0))

    base: Sharing | str = "hard"
    weight: float = 1.0
    channels: int | None = None

    def __post_init__(self) -> None:
        scheme = resolve(self.base, "base")
        linked = [getattr(type(scheme), name) for name in ("outputs", "assemble")]
        if linked != [Sharing.outputs, Sharing.assemble]:
            raise ValueError(
                "`base` of sharing 'pad_net' must leave the heads to it: put "
                f"'{scheme.registered_name}' around it instead, if that has a base. "
                f"Received: base={self.base!r}"
            )
        check_arguments(self)

    def adding(self, name: TaskName, names: Sequence[TaskName]) -> Sharing:
        base = resolve(self.base, "base").adding(name, names)
        return dataclasses.replace(self, base=base, later=(*self.later, name))

    def joined_by(self, later: Sequence[TaskName]) -> Sharing:
        base = resolve(self.base, "base").joined_by(later)
        return dataclasses.replace(self, base=base, later=tuple(later))

    def without(self, name: TaskName) -> Sharing:
        base = resolve(self.base, "base").without(name)
        later = self.later_without(name)
        return dataclasses.replace(self, base=base, later=later)

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        found = dense_tasks(tasks, "pad_net")
        scheme = resolve(self.base, "base")
        features = scheme.connect(backbone, inputs, tasks, make)
        for task in found:
            check_map(features[task.name], task, "pad_net")
        return features

    def outputs(
        self,
        features: Features,
        head: Callable[..., Tensor],
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Outputs:
        own = {
            task.name: initial_features(task, features[task.name], head, make, self)
            for task in tasks
            if task.dense_prediction
        }
        features = features | distilled(self, own, make)
        return {task.name: head(task, features[task.name]) for task in tasks}
