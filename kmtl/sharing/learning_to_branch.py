"""A tree of blocks that is learned with the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from keras import ops

from kmtl import _checks
from kmtl._dimensions import Int, search_over
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.bank import BankMaker
from kmtl.layers.branch import Branch
from kmtl.layers.choice import check_annealing
from kmtl.layers.maker import LayerMaker
from kmtl.sharing._columns import shared_blocks
from kmtl.sharing.base import Sharing
from kmtl.sharing.hard import HardSharing
from kmtl.sharing.tree import TreeSharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, Model, Options, TaskName, Tensor


@register("sharing", "learning_to_branch")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningToBranch(Sharing):
    """Several nodes per block; every node, and every task, learns which one it reads.

    Each block has `width` copies, its nodes. Node j of block i + 1 reads the nodes x_p
    of block i through `Σ_p d_jp x_p`, and so does every task's head those of the last
    block; d_j = softmax((a_j + g) / temperature) is a Gumbel-softmax draw of one parent
    with learned logits a_j. At inference each takes its likeliest parent, which makes
    the network a tree. `kmtl.harden(model)` builds that tree by itself, with
    the learned weights or, as in the paper, to be trained from the start.

    Choose it when it is not known which tasks belong together nor from where on, and a
    search over trees is too dear. The branch probabilities are readings
    (`kmtl.plotting.gates`).

    Cost while training: `width` times the parameters and the time of one network (the
    nodes of a block run as one). The hardened model has only the nodes that are used.
    With `width=1` this is hard sharing. There is no seam.

    Args:
        width: Number of nodes per block, >= 1. None takes as many as there are tasks,
            enough for any tree. Defaults to None.
        depth: Leading blocks that all tasks share plainly, 0 to n - 1. Defaults to 0.
        temperature: Float > 0 at the first step; higher is more even. Defaults to 5.
        final_temperature: Float > 0, at most `temperature`. Defaults to 0.5.
        anneal_steps: Training steps over which the temperature goes from one to the
            other; 0 keeps the first. Choose it near the number of steps that you train.
            Defaults to 1000.

    Raises:
        ValueError: if `depth` leaves no block, or a block cannot run in copies.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8, 8), sharing="learning_to_branch"
    ... )
    >>> model.get_layer("b_branch3").readings()
    {'b': array([0.5, 0.5], dtype=float32)}
    >>> [x.name for x in kmtl.harden(model).layers if x.name.endswith("dense")]
    ['shared_block1_dense', 'shared_block2_dense']

    Reference: Guo et al., ICML 2020, arXiv:2006.01895. One optimizer trains weights
        and branches, and the temperature falls by steps, not epochs.
    """

    ranges = search_over(width=Int(2, 6, default=3))

    width: int | None = None
    depth: int = 0
    temperature: float = 5.0
    final_temperature: float = 0.5
    anneal_steps: int = 1000

    def __post_init__(self) -> None:
        if self.width is not None:
            _checks.check_int("width", self.width, 1)
        _checks.check_int("depth", self.depth, 0)
        check_annealing(self.temperature, self.final_temperature, self.anneal_steps)

    def adding(self, name: TaskName, names: Sequence[TaskName]) -> Sharing:
        """A new task chooses among the nodes that there are."""
        width = len(names) if self.width is None else self.width
        return dataclasses.replace(self, later=(*self.later, name), width=width)

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        blocks = backbone.num_blocks
        if not blocks:
            raise ValueError(
                "sharing='learning_to_branch' needs a backbone of at least one block. "
                "Received: a backbone of 0 blocks"
            )
        _checks.check_int("depth", self.depth, 0, blocks - 1)
        width = len(tasks) if self.width is None else self.width
        if width == 1:  # nothing to choose from
            return HardSharing().connect(backbone, inputs, tasks, make)
        features = shared_blocks(backbone, inputs, self.depth, make)
        bank = BankMaker.like(make, copies=width)
        bank.note(features, False)
        nodes = [f"node{j + 1}" for j in range(width)]
        for i in range(self.depth, blocks):
            if i > self.depth:
                features = self._branch(make, f"branch{i + 1}", width, nodes)(features)
                bank.note(features, True)
            part = bank.part(f"nodes_block{i + 1}", f"block{i + 1}")
            features = bank.fold(backbone.block(i, features, part))
        recipe = {
            "sharing": self.to_config(),
            "backbone": backbone.to_config(),
            "seed": make.seed,
        }
        return {
            task.name: self._branch(
                make, f"{task.name}_branch{blocks + 1}", width, [task.name], recipe
            )(features)
            for task in tasks
        }

    def _branch(
        self,
        make: LayerMaker,
        name: str,
        width: int,
        readers: list[str],
        recipe: Options | None = None,
    ) -> Branch:
        return make.layer(
            Branch,
            name,
            parents=width,
            readers=readers,
            recipe=recipe,
            temperature=self.temperature,
            final_temperature=self.final_temperature,
            anneal_steps=self.anneal_steps,
            seed=make.layer_seed(name),
        )

    def hardened(
        self, model: Model, backbone: Backbone
    ) -> tuple[TreeSharing, dict[str, tuple[str, int]]]:
        """The tree of the likeliest branches; for `kmtl.harden`.

        Returns:
            The scheme, and dict prefix of a part's layers -> (prefix of the bank whose
            copy it is, number of the copy).
        """
        names = list(model.task_names)
        blocks = range(self.depth + 1, backbone.num_blocks + 1)
        last = f"_branch{backbone.num_blocks + 1}"
        node = {name: int(_chosen(model, name + last)[0]) for name in names}
        groups: list[list[list[str]]] = []
        taken: list[dict[str, int]] = []
        for number in reversed(blocks):
            members: dict[int, list[str]] = {}
            for name in names:
                members.setdefault(node[name], []).append(name)
            groups.insert(0, list(members.values()))
            taken.insert(0, dict(node))
            if number > blocks[0]:
                parents = _chosen(model, f"branch{number}")
                node = {name: int(parents[node[name]]) for name in names}
        tree = TreeSharing(groups=[[names]] * self.depth + groups)
        copies = {}
        for number, nodes in zip(blocks, taken, strict=True):
            for prefix, group in tree.parts(names)[number - 1].items():
                copies[f"{prefix}_block{number}_"] = (
                    f"nodes_block{number}_",
                    nodes[group[0]],
                )
        return tree, copies


def _chosen(model: Model, name: str) -> Tensor:
    return ops.convert_to_numpy(model.get_layer(name).chosen())
