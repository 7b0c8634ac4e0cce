"""A tree of blocks given by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.layers.seam import Seam
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, TaskName, Tensor

#: Groups of task names that share a block, one partition of the tasks per block.
Partitions = tuple[tuple[tuple[str, ...], ...], ...]


@register("sharing", "tree")
@dataclasses.dataclass(frozen=True, kw_only=True)
class TreeSharing(Sharing):
    """Tasks share each block in groups that split from block to block: a tree.

    Block i has one copy per group of the i-th partition; a group reads what the group
    of block i - 1 that holds it has computed, so every partition must refine the one
    before. `HardSharing` is the tree that splits once, or one task at a time.

    Choose it when you know which tasks belong together, from their affinity or from a
    search (`kmtl.harden` turns learned branches into such a tree). A block
    costs its parameters and time once per group.

    Where all tasks split into single ones at one place, that is the model's seam, and
    gradient-based weightings can work at features level; a tree with several splits has
    none.

    Args:
        groups: One partition of the tasks per block, from the input on: a list of
            groups, each a list of task names.

    Raises:
        ValueError: if a partition lacks a task or names one twice, does not refine the
            one before, or there is not one per block.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b"), kmtl.Regression("c")]
    >>> groups = [[["a", "b", "c"]], [["a", "b"], ["c"]]]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8, 8),
    ...     sharing=kmtl.sharing.TreeSharing(groups=groups),
    ... )
    >>> [layer.name for layer in model.layers if layer.name.endswith("dense")]
    ['shared_block1_dense', 'shared_block2_dense', 'c_block2_dense']

    Reference: Vandenhende et al., BMVC 2020, arXiv:1904.02920 (trees from affinities).
    """

    groups: Sequence[Sequence[Sequence[str]]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", _check_groups(self.groups))

    def adding(self, name: TaskName, names: Sequence[TaskName]) -> Sharing:
        """A new task shares the blocks that all others share."""
        groups = [
            [[*group, name] for group in partition]
            if len(partition) == 1
            else [*partition, [name]]
            for partition in self.groups
        ]
        return dataclasses.replace(self, later=(*self.later, name), groups=groups)

    def without(self, name: TaskName) -> Sharing:
        left = [
            [[n for n in group if n != name] for group in partition]
            for partition in self.groups
        ]
        groups = [[group for group in partition if group] for partition in left]
        return dataclasses.replace(self, later=self.later_without(name), groups=groups)

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        names = [task.name for task in tasks]
        if len(self.groups) != backbone.num_blocks:
            raise ValueError(
                "`groups` must hold one partition of the tasks per block: "
                f"{backbone.num_blocks} of them. "
                f"Received: {len(self.groups)} partitions"
            )
        if self.groups:
            _checks.check_task_keys(
                "groups", {name: 0 for group in self.groups[0] for name in group}, names
            )
        features = dict.fromkeys(names, inputs)
        together = True
        for i, parts in enumerate(self.parts(names)):
            if i and together and len(parts) == len(names) > 1:
                features = dict.fromkeys(names, Seam(name="seam")(features[names[0]]))
            together = len(parts) == 1
            for prefix, group in parts.items():
                part = make.part(f"{prefix}_block{i + 1}", f"block{i + 1}")
                output = backbone.block(i, features[group[0]], part)
                features.update(dict.fromkeys(group, output))
        if self.groups and together:
            features = dict.fromkeys(names, Seam(name="seam")(features[names[0]]))
        return features

    def parts(self, names: Sequence[str]) -> list[dict[str, list[str]]]:
        """Per block: dict prefix of its copies' names -> tasks that share the copy.

        Args:
            names: All tasks, in order.
        """
        found = []
        for partition in self.groups:
            # Groups in the order of the tasks, so that it decides nothing.
            groups = [[n for n in names if n in group] for group in partition]
            groups.sort(key=lambda group: names.index(group[0]))
            # Of a group that a task has joined later the name stays what it was.
            first = [self.founders(group) for group in groups]
            old = [one for one in first if one[0] not in self.later]
            owners = [_owner(one, old if one in old else first) for one in first]
            if len(set(owners)) < len(owners):
                raise ValueError(
                    "Two groups' blocks would have one name, because a task is called "
                    f"as one of them. Rename it. Received: tasks {', '.join(names)}"
                )
            found.append(dict(zip(owners, groups, strict=True)))
        return found


def _owner(group: Sequence[str], groups: Sequence[Sequence[str]]) -> str:
    """What a group's block is called after."""
    if len(group) == 1 and len(groups) > 1:
        return group[0]
    # One shared block among those of single tasks needs no other name; it is that of
    # `HardSharing`, whose weights then fit.
    if sum(len(other) > 1 for other in groups) <= 1:
        return "shared"
    return "_and_".join(group)


def _check_groups(groups: Any) -> Partitions:
    """Partitions as sorted tuples, each refining the one before."""
    partitions = [
        [_names(f"groups[{i}]", group) for group in _items(f"groups[{i}]", partition)]
        for i, partition in enumerate(_items("groups", groups))
    ]
    checked: list[tuple[tuple[str, ...], ...]] = []
    for i, partition in enumerate(partitions):
        found = [name for group in partition for name in group]
        twice = sorted({name for name in found if found.count(name) > 1})
        if twice:
            raise ValueError(
                f"`groups[{i}]` must name every task once: each belongs to one group. "
                f"Received: '{twice[0]}' in groups[{i}]={partition}"
            )
        if checked:
            before = [name for group in checked[-1] for name in group]
            _checks.check_task_keys(f"groups[{i}]", dict.fromkeys(found), before)
            for group in partition:
                if not any(set(group) <= set(larger) for larger in checked[-1]):
                    raise ValueError(
                        f"`groups[{i}]` must refine the partition before it: tasks "
                        "that have parted never meet again. "
                        f"Received: {list(group)} in groups[{i}], which "
                        f"groups[{i - 1}]={[list(g) for g in checked[-1]]} keeps apart"
                    )
        checked.append(tuple(sorted(tuple(sorted(group)) for group in partition)))
    return tuple(checked)


def _items(argument: str, value: Any) -> list:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(
            f"`{argument}` must be a list (one partition per block, each a list of "
            f"groups of task names). Received: {argument}={value!r}"
        )
    return list(value)


def _names(argument: str, group: Any) -> list[str]:
    names = _items(f"{argument}[...]", group)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"A group of `{argument}` must be a list of task names, at least one. "
            f"Received: {group!r}"
        )
    return names
