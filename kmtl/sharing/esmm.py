"""Entire-space multi-task model: probabilities along a chain of events."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.joint import JointLogits
from kmtl.layers.maker import LayerMaker
from kmtl.sharing._chain import HeadChain
from kmtl.tasks.base import Task
from kmtl.typing import Features, Outputs, Tensor


@register("sharing", "esmm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ESMM(HeadChain):
    """A task's head gives the probability given the task before it.

    For `after={"buy": "click"}`: p(click) = σ(a), p(buy | click) = σ(b), and the output
    of task buy is p(click and buy) = p(click) p(buy | click), as a logit
    -log(e^-a + e^-b + e^-(a+b)). Along a longer chain p(click and buy) takes the place
    of p(click).

    When to choose it: events that happen one after the other, each seldom. Every label
    is then one of all examples ("clicked and bought", 0 for who did not click), so that
    the conditional head learns without the bias of the selected. What a head gives
    before the product is the layer `<task>_head_logits`.

    Cost: none beyond the base's.

    Args:
        after: Dict task name -> task that must have happened before. Both of a kind
            whose outputs are sigmoid logits (`kmtl.BinaryClassification`, or
            `kmtl.MultiLabel` column by column) and of one shape.
        base: Scheme (or its name) that makes the tasks' features. Defaults to
            `"hard"`.

    Raises:
        ValueError: for a circle in `after`, names that are not tasks, and kinds that
            have no such probability.

    Example:

    >>> tasks = [kmtl.BinaryClassification("click"), kmtl.BinaryClassification("buy")]
    >>> scheme = kmtl.sharing.ESMM(after={"buy": "click"})
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8,),
    ...                        sharing=scheme)
    >>> p = model.to_keras(activated=True).predict(np.ones((2, 4)), verbose=0)
    >>> bool((p["buy"] < p["click"]).all())
    True

    Reference: Ma et al., SIGIR 2018, arXiv:1804.07931. There the towers share only an
    embedding; here what they share is the base's matter.
    """

    def outputs(
        self,
        features: Features,
        head: Callable[..., Tensor],
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Outputs:
        logits = self.scheme.outputs(features, head, tasks, make)
        return self._joined(logits, tasks, make)

    def assemble(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        head: Callable[..., Tensor],
        make: LayerMaker,
    ) -> Outputs:
        self._check_kinds(tasks)
        logits = self.scheme.assemble(backbone, inputs, tasks, head, make)
        return self._joined(logits, tasks, make)

    def _joined(
        self, logits: Outputs, tasks: tuple[Task, ...], make: LayerMaker
    ) -> Outputs:
        logits = dict(logits)
        self._check_kinds(tasks)
        for task in self.ordered(tasks):
            before, own = logits[self.after[task.name]], logits[task.name]
            if tuple(before.shape) != tuple(own.shape):
                raise ValueError(
                    f"`after`: tasks '{self.after[task.name]}' and '{task.name}' must "
                    "have outputs of one shape. Received: shapes "
                    f"{tuple(before.shape)} and {tuple(own.shape)}"
                )
            part = make.part(task.name)
            logits[task.name] = part.layer(JointLogits, "joint")([before, own])
        return logits

    def _check_kinds(self, tasks: tuple[Task, ...]) -> None:
        known = {task.name: task for task in tasks}
        for task in self.ordered(tasks):
            for end in (known[self.after[task.name]], task):
                if end.output_activation != "sigmoid":
                    raise ValueError(
                        "`after` of sharing 'esmm' multiplies probabilities of yes, "
                        f"which task '{end.name}' has not: make it a "
                        "kmtl.BinaryClassification, or chain features with sharing "
                        f"'aitm'. Received: a task of kind '{end.registered_name}'"
                    )
