"""Sluice networks."""

from __future__ import annotations

import dataclasses

from kmtl import _checks
from kmtl._dimensions import Choice, Float, search_over
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.layers.stitch import Stitch
from kmtl.layers.subspaces import SubspaceOrthogonality
from kmtl.sharing import _columns
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, TaskName, Tensor


@register("sharing", "sluice")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sluice(Sharing):
    """Learns which subspaces and which layers of the other columns a task uses.

    Every task has its own column of blocks, whose features are cut into G subspaces.
    After every block the subspaces of all columns are mixed by learned numbers,
    `x̃_tg = Σ_s Σ_h α_tgsh x_sh`, on which the next block goes on; the head reads a
    learned mixture over the blocks, `Σ_k β_tk x̃_t^(k)`. A penalty
    `‖W_gᵀ W_h‖²_F` on the kernels of every block keeps subspaces apart, so that one
    can be shared while the other stays private.

    Choose it where tasks are loosely related and it is open which part of a layer they
    share. Cross-stitch with one matrix per stitch is G = 1 without β; at
    `self_weight=1`, `last_weight=1` and no penalty it starts as independent networks.

    Cost: T columns, so T times the parameters and the time of one network, T² G² α per
    block and K β per task. The paper starts each α with a bias towards one source
    subspace, in the official code the last one; here that is the column's own one. The
    penalty is on the incoming weights of the units, as the paper writes it.

    Args:
        depth: Leading blocks that all tasks share plainly, 0 to n - 1. Defaults to 0.
        subspaces: Number G of subspaces, a divisor of every block's width. Defaults
            to 2.
        self_weight: Initial α of a column's own subspace, in [0, 1]; the others share
            the rest. Defaults to 0.9.
        last_weight: Initial β of the last block, in [0, 1]; the others share the rest.
            None leaves β out: the head reads the last block. Defaults to 0.9.
        orthogonality: Factor of the penalty, >= 0. Defaults to 0.1.

    Raises:
        ValueError: where `subspaces` does not divide a block's width, blocks that β
            mixes differ in shape, or `depth` does not fit the backbone.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8, 8), sharing="sluice"
    ... )
    >>> tuple(model.get_layer("a_stitch1").alpha.shape)
    (2, 2, 2)
    >>> model.get_layer("a_mixture").readings()
    {'a': array([0.1, 0.9], dtype=float32)}

    Reference: Ruder et al., AAAI 2019, arXiv:1705.08142, section 3.
    """

    ranges = search_over(
        subspaces=Choice([1, 2, 4], default=2),
        orthogonality=Float(1e-3, 1.0, log=True, default=0.1),
    )

    depth: int = 0
    subspaces: int = 2
    self_weight: float = 0.9
    last_weight: float | None = 0.9
    orthogonality: float = 0.1

    def __post_init__(self) -> None:
        _checks.check_int("depth", self.depth, 0)
        _checks.check_int("subspaces", self.subspaces, 1)
        _checks.check_range("self_weight", self.self_weight, 0, 1)
        if self.last_weight is not None:
            _checks.check_range("last_weight", self.last_weight, 0, 1)
        _checks.check_range("orthogonality", self.orthogonality, 0, 1e30)

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        names = [task.name for task in tasks]
        numbers = _columns.linked_blocks(
            "sluice", None, self.depth, backbone.num_blocks
        )
        trunk = _columns.shared_blocks(backbone, inputs, self.depth, make)
        columns = dict.fromkeys(names, trunk)
        if len(names) == 1:
            for number in numbers:
                trunk = _columns.own_block(backbone, number, trunk, names[0], make)
            return {names[0]: trunk}
        apart = self._apart(make)
        layers: dict[TaskName, dict[str, Tensor]] = {name: {} for name in names}
        for number in numbers:
            columns = {
                name: _columns.own_block(backbone, number, columns[name], name, apart)
                for name in names
            }
            columns = columns | self._stitch(number, columns, make)
            for name in names:
                layers[name][f"block{number}"] = columns[name]
        if self.last_weight is None or len(numbers) == 1:
            return columns
        mixed = _columns.readings(self, names)
        return {
            name: self._mixture(name, layers[name], make) if name in mixed else column
            for name, column in columns.items()
        }

    def _apart(self, make: LayerMaker) -> LayerMaker:
        """Maker of blocks whose subspaces the penalty keeps apart."""
        if self.subspaces == 1 or not self.orthogonality:
            return make
        penalty = SubspaceOrthogonality(
            self.subspaces, self.orthogonality, make.kernel_regularizer
        )
        return dataclasses.replace(make, kernel_regularizer=penalty)

    def _stitch(self, number: int, columns: Features, make: LayerMaker) -> dict:
        shapes = {f"{name}_block{number}": x.shape for name, x in columns.items()}
        _columns.check_alike(
            "sluice", shapes, f"make block {number} alike for all tasks"
        )
        width = next(iter(columns.values())).shape[-1]
        if width % self.subspaces:
            raise ValueError(
                f"`subspaces` must divide the width of every block: change it, or the "
                f"width {width} of block {number}. "
                f"Received: subspaces={self.subspaces}"
            )
        return {
            name: make.layer(
                Stitch,
                f"{name}_stitch{number}",
                sources=sources,
                own=name,
                own_weight=self.self_weight,
                subspaces=self.subspaces,
            )([columns[source] for source in sources])
            for name, sources in _columns.readings(self, list(columns)).items()
        }

    def _mixture(
        self, name: str, layers: dict[str, Tensor], make: LayerMaker
    ) -> Tensor:
        """β: what the head reads is a mixture over the task's blocks."""
        _columns.check_alike(
            "sluice",
            {key: x.shape for key, x in layers.items()},
            "give all blocks that tasks have to themselves one width (and pooling="
            "None), raise `depth`, or leave the mixture out with last_weight=None",
        )
        *_, last = layers
        return make.layer(
            Stitch,
            f"{name}_mixture",
            sources=list(layers),
            own=last,
            own_weight=self.last_weight,
            reading=name,
        )(list(layers.values()))
