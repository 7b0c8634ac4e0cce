"""Progressive layered extraction."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from kmtl._registry import register
from kmtl.sharing._extraction import Extraction


@register("sharing", "ple")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PLE(Extraction):
    """Stacked `CGC`: one level per block, each with experts and gates of its own.

    At every level each task has experts that read its path, and the shared experts read
    the shared path. A task's path goes on with the mixture of its own and the shared
    experts, the shared path with that of all experts, by a gate of its own (at the last
    level there is none). Each gate reads its path:
    g^{t,j}(x) = softmax(W^{t,j} x^{t,j-1} / temperature). Without shared experts the
    tasks are independent.

    Choose it where tasks are loosely related and the trunk has several blocks: what is
    shared is decided anew at every level.

    Cost: at every level (T * task_experts + shared_experts) copies of its block, T + 1
    gates (T at the last).

    Args:
        shared_experts: Number of shared experts per level, >= 0. Defaults to 2.
        task_experts: Number of experts of each task per level, >= 0, or a dict
            task name -> number. Defaults to 1.
        depth: Number of leading blocks that all tasks share plainly, 0 to n - 1; every
            other block is a level. Defaults to 0.
        temperature: Of the gates, > 0: higher is more even. Defaults to 1.

    Raises:
        ValueError: for arguments out of range; for `depth` when the model is built.

    Example:

    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), units=(8, 8), sharing="ple",
    ...     tasks=[kmtl.Regression("a"), kmtl.Regression("b")], seed=0)
    >>> [layer.name for layer in model.layers if "_gate" in layer.name]
    ['a_gate1', 'shared_gate1', 'b_gate1', 'a_gate2', 'b_gate2']

    Reference: Tang et al., RecSys 2020, section 4.2.
    """

    def levels(self, blocks: range) -> Sequence[Sequence[int]]:
        return [[i] for i in blocks]
