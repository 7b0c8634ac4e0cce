"""Blocks that each task learns to run or to skip."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from keras import ops

from kmtl import _checks
from kmtl._dimensions import Float, search_over
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.choice import check_annealing
from kmtl.layers.maker import LayerMaker
from kmtl.layers.reusing import ReusingMaker
from kmtl.layers.selection import Selection
from kmtl.sharing.base import Sharing
from kmtl.sharing.selected_blocks import SelectedBlocks
from kmtl.tasks.base import Task
from kmtl.typing import Features, Model, Tensor


@register("sharing", "adashare")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaShare(Sharing):
    """One trunk of which every task learns which blocks to run and which to skip.

    With B_l the block that all share, task t goes on with `u B_l(x) + (1 - u) x`, u a
    Gumbel-softmax draw with learned logits, and at inference with the likelier of the
    two. α_tl is the probability that task t runs block l of the L that can be skipped.
    Two terms join the loss: `sparsity Σ_t Σ_l -log(1 - α_tl) / L`, against blocks that
    are not needed, and `sharing Σ_{s<t} Σ_l (L - l) / L |α_sl - α_tl|`, which keeps
    the tasks together, in the lower blocks most.

    Choose it for deep trunks of equal blocks, where tasks need different depths. The
    probabilities are readings (`kmtl.plotting.gates`), and `kmtl.harden(model)`
    builds the model with the chosen blocks alone.

    Cost: parameters of one network and two numbers per task and block; the time of T
    networks while training. Gradient-based weightings act on parameters.

    Args:
        depth: Leading blocks that all tasks run, 0 to n - 1; those that change the
            shape of the features must be among them. Defaults to 1.
        sparsity: Float >= 0. Defaults to 0.05.
        sharing: Float >= 0. Defaults to 0.05.
        temperature: Float > 0 at the first step; higher is more even. Defaults to 5.
        final_temperature: Float > 0, at most `temperature`. Defaults to 0.5.
        anneal_steps: Training steps over which the temperature goes from one to the
            other; 0 keeps the first. Defaults to 1000.

    Raises:
        ValueError: if a block that may be skipped changes the shape of the features, or
            `depth` leaves none.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8, 8, 8), sharing="adashare"
    ... )
    >>> model.get_layer("select2").readings()["a"]  # run it, skip it
    array([0.5, 0.5], dtype=float32)

    Reference: Sun et al., NeurIPS 2020, arXiv:1911.12423, eq. 1 to 5; the sparsity is
        the authors' code's, which stays above 0. Weights and choices are trained
        together instead of in turn, and all blocks from the first step on.
    """

    ranges = search_over(
        sparsity=Float(1e-3, 1.0, log=True, default=0.05),
        sharing=Float(1e-3, 1.0, log=True, default=0.05),
    )

    depth: int = 1
    sparsity: float = 0.05
    sharing: float = 0.05
    temperature: float = 5.0
    final_temperature: float = 0.5
    anneal_steps: int = 1000

    def __post_init__(self) -> None:
        _checks.check_int("depth", self.depth, 0)
        _checks.check_range("sparsity", self.sparsity, 0)
        _checks.check_range("sharing", self.sharing, 0)
        check_annealing(self.temperature, self.final_temperature, self.anneal_steps)

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        blocks = backbone.num_blocks
        if self.depth >= blocks:
            raise ValueError(
                "`depth` must leave a block that tasks may skip: sharing='adashare' "
                f"needs a backbone of more than {self.depth} blocks. "
                f"Received: depth={self.depth} and a backbone of {blocks} blocks"
            )
        names = [task.name for task in tasks]
        reusing = ReusingMaker.like(make)

        def run(number: int, features: Tensor) -> Tensor:
            part = reusing.part(f"shared_block{number}", f"block{number}")
            return backbone.block(number - 1, features, part)

        trunk = inputs
        for number in range(1, self.depth + 1):
            trunk = run(number, trunk)
        features = dict.fromkeys(names, trunk)
        recipe = {
            "sharing": self.to_config(),
            "backbone": backbone.to_config(),
            "seed": make.seed,
        }
        count = blocks - self.depth
        for number in range(self.depth + 1, blocks + 1):
            if number == self.depth + 1:
                outputs = dict.fromkeys(names, run(number, trunk))
            else:
                outputs = {name: run(number, features[name]) for name in names}
            _check_shape(number, features[names[0]], outputs[names[0]])
            chosen: Features = {}
            for layer, group in self._selections(number, names).items():
                selection = make.layer(
                    Selection,
                    layer,
                    tasks=group,
                    sparsity=self.sparsity / count,
                    sharing=self.sharing * (blocks - number) / count,
                    recipe=recipe,
                    temperature=self.temperature,
                    final_temperature=self.final_temperature,
                    anneal_steps=self.anneal_steps,
                    seed=make.layer_seed(layer),
                )
                read = [of[name] for of in (outputs, features) for name in group]
                chosen |= zip(group, selection(read), strict=True)
            features = {name: chosen[name] for name in names}
        return features

    def _selections(self, number: int, names: Sequence[str]) -> dict[str, list[str]]:
        """Name of a layer that chooses -> the tasks for which it does.

        A task that joined later has one to itself, so that the others' stays.
        """
        first = [name for name in names if name not in self.later]
        return {f"select{number}": first} | {
            f"{name}_select{number}": [name] for name in names if name not in first
        }

    def hardened(
        self, model: Model, backbone: Backbone
    ) -> tuple[SelectedBlocks, dict[str, tuple[str, int]]]:
        """The likelier choices; for `kmtl.harden`.

        Returns:
            The scheme, and dict prefix of a part's layers -> (prefix of the part with
            its weights, 0).
        """
        names = list(model.task_names)
        blocks = {name: list(range(1, self.depth + 1)) for name in names}
        for number in range(self.depth + 1, backbone.num_blocks + 1):
            for layer, group in self._selections(number, names).items():
                skips = ops.convert_to_numpy(model.get_layer(layer).chosen())
                for name, skip in zip(group, skips, strict=True):
                    if not skip:
                        blocks[name].append(number)
        scheme = SelectedBlocks(blocks=blocks)
        used = {number for numbers in blocks.values() for number in numbers}
        return scheme, {
            f"{scheme.prefix(number, names)}_": (f"shared_block{number}_", 0)
            for number in used
        }


def _check_shape(number: int, before: Tensor, after: Tensor) -> None:
    if tuple(before.shape) != tuple(after.shape):
        raise ValueError(
            "sharing='adashare' skips blocks, so they must give the shape that they "
            f"get: make block {number} as wide as the one before and without pooling "
            f"(pooling=None), or count it to the leading ones with depth={number}. "
            f"Received: block {number} from {tuple(before.shape)[1:]} to "
            f"{tuple(after.shape)[1:]}"
        )
