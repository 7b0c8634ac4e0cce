"""Customized gate control."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from kmtl._registry import register
from kmtl.sharing._extraction import Extraction


@register("sharing", "cgc")
@dataclasses.dataclass(frozen=True, kw_only=True)
class CGC(Extraction):
    """Every task has experts of its own beside those that all tasks share.

    f^t(x) = sum_e g^t(x)_e f_e(x) over the task's own experts and the shared ones, with
    g^t(x) = softmax(W^t x / temperature). Every expert is a copy of all of the
    backbone's blocks after the first `depth`; those of one owner run as one batched
    product. The gates read what the experts read, as in `MMoE`. `PLE` is the form with
    a gate after every block. Without task experts it is MMoE, without shared ones no
    task shares more than the first `depth` blocks.

    Choose it where MMoE lets a task suffer from another one: what a task's own experts
    learn, no other task can disturb.

    Cost: (T * task_experts + shared_experts) times the parameters and work of the
    blocks after `depth`, and a gate per task.

    Args:
        shared_experts: Number of experts of all tasks, >= 0. Defaults to 2.
        task_experts: Number of experts of each task, >= 0, or a dict task name ->
            number. Defaults to 1.
        depth: Number of leading blocks that all tasks share plainly, 0 to n - 1.
            Defaults to 0.
        temperature: Of the gates, > 0: higher is more even. Defaults to 1.

    Raises:
        ValueError: for arguments out of range; for `depth` when the model is built.

    Example:

    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), units=(8, 8), sharing=kmtl.sharing.CGC(shared_experts=2),
    ...     tasks=[kmtl.Regression("a"), kmtl.Regression("b")], seed=0)
    >>> model.get_layer("a_gate1").reading_labels()
    ('a 1', 'shared 1', 'shared 2')

    Reference: Tang et al., RecSys 2020, section 4.1.
    """

    def levels(self, blocks: range) -> Sequence[Sequence[int]]:
        return [blocks]
