"""What `compile` is given: all of it is checked before anything changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.losses.joint import Joint
from kmtl.relations import base as relations_base
from kmtl.relations.base import Relations
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_loss_weights
from kmtl.tasks.terms import terms_of
from kmtl.training.adversaries import Adversary, check_adversary
from kmtl.training.alike import groups_of
from kmtl.training.balance import Plan, make_plan
from kmtl.training.executions import AUTO
from kmtl.training.heads import check_heads
from kmtl.training.metrics import TaskMetrics
from kmtl.training.rate_factors import check_factors
from kmtl.typing import Config, Model, Optimizer, TaskName
from kmtl.weighting import base as weighting_base
from kmtl.weighting.base import Weighting


@dataclasses.dataclass(frozen=True)
class Compilation:
    """Checked arguments of `compile`, and what was made of them.

    Attributes:
        tasks: Dict task name -> task with the loss that it is to have.
        losses: Dict task name -> loss in the place of the task's own, for some tasks.
        weights: Dict task name -> weight for some tasks, `"data"`, or None.
        metrics: The tasks' metrics.
        weighting, relations: Set up, but not yet the model's; or None.
        plan: What a gradient-based weighting acts on, else None.
        factors: Name of a part -> factor of the learning rate.
        adversary: What changes the inputs of every step, or None.
        terms: Log name of each of several losses of a task -> place of the task.
        joint: Losses over several heads.
        alike: Groups of tasks whose losses and metrics are computed as one.
        options: Arguments of `keras.Model.compile`.
    """

    tasks: dict[str, Task]
    losses: dict[TaskName, Any]
    weights: dict[str, float] | str | None
    metrics: TaskMetrics
    weighting: weighting_base.Weighting | None
    relations: relations_base.Relations | None
    plan: Plan | None
    factors: dict[str, float]
    adversary: Adversary | None
    terms: dict[str, int]
    joint: tuple[Joint, ...]
    alike: tuple[tuple[TaskName, ...], ...]
    options: Config

    def config(self) -> Config:
        """What was given, for saving, but for the losses: the output layers have them.

        The optimizer without the loss scaling that Keras puts around it, and not the
        resolved jit flag, which differs between backends.
        """
        return {
            **self.options,
            "metrics": self.metrics.config("metrics"),
            "weighted_metrics": self.metrics.config("weighted_metrics"),
            "weighting": self.weighting,
            "relations": self.relations,
            "lr_multipliers": self.factors or None,
            "adversary": self.adversary,
            "joint_losses": list(self.joint) or None,
        }


def check(
    model: Model,
    *,
    loss: Mapping[TaskName, Any] | None,
    loss_weights: Mapping[TaskName, float] | str | None,
    metrics: Mapping[TaskName, Any] | None,
    weighted_metrics: Mapping[TaskName, Any] | None,
    weighting: str | Config | Weighting | None,
    relations: str | Relations | None,
    joint_losses: Joint | Sequence[Joint] | None,
    lr_multipliers: Mapping[str, float] | None,
    adversary: Adversary | None,
    **options: Any,
) -> Compilation:
    """Check arguments of `compile`; the model stays as it is.

    Raises:
        ValueError, TypeError: for what does not fit the model.
    """
    names = model.task_names
    given = _checks.check_task_keys("loss", loss or {}, names, partial=True)
    losses = {name: value for name, value in given.items() if value is not None}
    tasks = {
        name: layer.with_loss(losses.get(name))
        for name, layer in model.task_outputs.items()
    }
    check_heads(model, tasks)
    weights = check_loss_weights(loss_weights, names)
    shapes = {name: tensor.shape for name, tensor in model.output.items()}
    groups = groups_of(tasks, model.task_outputs)
    task_metrics = TaskMetrics(tasks, shapes, metrics, weighted_metrics, groups)
    terms = _term_names(tasks, task_metrics.names)
    joint = _check_joint(model, joint_losses, (*task_metrics.names, *terms))
    factors = check_factors(model, lr_multipliers)
    adversary = check_adversary(model, adversary)
    options = _check_options(**options)
    rule = weighting_base.get(weighting)
    regulariser = relations_base.get(relations)
    if rule is not None:
        rule.check_is_free(model, "weighting")
        rule.check_losses(tasks.values())
    if regulariser is not None:
        regulariser.check_is_free(model, "relations")
        regulariser.check(model)
    plan = parameters = None
    if rule is not None and rule.kind == "gradient":
        plan = make_plan(model, rule)
        if plan is None:
            parameters = 0
        elif plan.level == "parameters":
            parameters = plan.num_parameters
    if rule is not None:
        rule.setup(names, parameters)
    if regulariser is not None:
        regulariser.setup(model)
    return Compilation(
        tasks,
        losses,
        weights,
        task_metrics,
        rule,
        regulariser,
        plan,
        factors,
        adversary,
        terms,
        joint,
        groups,
        options,
    )


def _term_names(tasks: Mapping[str, Task], taken: Iterable[str]) -> dict[str, int]:
    """Log name -> place of the task, of the losses of tasks that have several."""
    known = {"regularization_loss", "deep_supervision_loss", *taken}
    known |= {f"{name}_loss" for name in tasks}
    found: dict[str, int] = {}
    for place, (name, task) in enumerate(tasks.items()):
        for term in terms_of(task) if task._terms else ():
            log = f"{name}_{term.name}_loss"
            if log in known or log in found:
                raise ValueError(
                    f"Loss '{term.name}' of task '{name}' would be logged as '{log}', "
                    "which there is already. Give it another name: "
                    f"{{'my_{term.name}': (keras_loss, weight)}}"
                )
            found[log] = place
    return found


def _check_joint(
    model: Model, given: Joint | Sequence[Joint] | None, taken: Iterable[str]
) -> tuple[Joint, ...]:
    """The losses over several heads, tried on outputs of two rows."""
    found = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    joint = tuple(part for part in found if part is not None)
    known = {"loss", "regularization_loss", "deep_supervision_loss", *taken}
    known |= {f"{name}_loss" for name in model.task_names}
    for part in joint:
        if not isinstance(part, Joint):
            raise TypeError(
                "`joint_losses` must be a kmtl.losses.Joint or several. "
                f"Received: {part!r}"
            )
        for name in part.tasks:
            if name not in model.task_names:
                what = f"task of joint loss '{part.name}'"
                raise ValueError(_checks.unknown_name(what, name, model.task_names))
        if part.log in known:
            raise ValueError(
                f"Joint loss '{part.name}' would be logged as '{part.log}', which "
                "there is already: give it another name, Joint(..., name='...')"
            )
        known.add(part.log)
        shapes = [model.output[name].shape[1:] for name in part.tasks]
        part(*(ops.ones((2, *(size or 4 for size in shape))) for shape in shapes))
    return joint


def _optimizer(given: Any) -> Optimizer:
    """The Keras optimizer of a name, a config, or itself."""
    try:
        made = keras.optimizers.get(given)
    except (TypeError, ValueError):  # which name no argument
        made = None
    if isinstance(made, keras.optimizers.Optimizer):
        return made
    close = ""
    if isinstance(given, str):
        kinds = [
            one for one in vars(keras.optimizers).values() if isinstance(one, type)
        ]
        close = _checks.did_you_mean(given.lower(), (k.__name__.lower() for k in kinds))
    kind = ValueError if isinstance(given, str) else TypeError
    raise kind(
        '`optimizer` must be a Keras optimizer or its name, such as "adam" or '
        f"keras.optimizers.Adam(0.001).{close} Received: optimizer={given!r}"
    )


def _check_options(
    optimizer: str | Optimizer,
    steps_per_execution: Any,
    jit_compile: Any,
    **others: Any,
) -> Config:
    """What Keras would refuse half-way, or in the first step."""
    made = _optimizer(optimizer)
    steps = steps_per_execution
    if not isinstance(steps, str) or steps != AUTO:
        steps = _checks.check_int("steps_per_execution", steps, 1)
    _checks.check_choice("jit_compile", jit_compile, (True, False, "auto"))
    return {
        "optimizer": made,
        "steps_per_execution": steps,
        "jit_compile": jit_compile,
        **others,
    }
