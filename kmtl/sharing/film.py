"""One trunk, modulated per task."""

from __future__ import annotations

import dataclasses

from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.film import FiLM as Modulation
from kmtl.layers.maker import LayerMaker
from kmtl.layers.reusing import ReusingMaker
from kmtl.sharing._conditioned import Conditioned
from kmtl.typing import Features, Tensor


@register("sharing", "film")
@dataclasses.dataclass(frozen=True, kw_only=True)
class FiLM(Conditioned):
    """All tasks share all blocks; each scales and shifts the channels after them.

    After block i, task t goes on with `γ_ti ⊙ x + β_ti`, one number per channel: the
    paper's modulation with the task as the condition (a linear generator that reads a
    one-hot task is a table of γ and β). It starts at γ = 1, β = 0, where it is hard
    sharing bit for bit.

    Choose it for many tasks on small budgets: a task adds 2 C numbers per block. Its
    reading (`kmtl.plotting.gates`) shows how far a task has moved from the others.

    Cost: next to no parameters, but the blocks after the first modulation run once per
    task: the time of T networks, or less with `depth`.

    Args:
        depth: Leading blocks without modulation, computed once; 0 to n - 1. Defaults
            to 0. At n - 1 only the last block's features are modulated, the trunk runs
            once, and the model has a seam.
        frozen: The trunk is not trained, only the modulations and heads are; see
            `kmtl.sharing.load_trunk`. Defaults to False.

    Raises:
        ValueError: if `depth` leaves no block to modulate.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8, 8), sharing="film", seed=0
    ... )
    >>> hard = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8, 8), seed=0)
    >>> x = np.ones((1, 4))
    >>> bool(model(x)["b"] == hard(x)["b"])
    True

    Reference: Perez et al., AAAI 2018, arXiv:1709.07871, eq. 2. The paper's conditions
        are sentences and its modulation stands before the activation; here it follows
        the block, whatever that is made of.
    """

    def block(
        self,
        backbone: Backbone,
        index: int,
        features: Tensor,
        trunk: ReusingMaker,
        make: LayerMaker,
    ) -> Features:
        features = self.after_block(backbone, index, features, trunk)
        return {
            name: make.layer(Modulation, f"{name}_film{index + 1}", task=name)(x)
            for name, x in features.items()
        }
