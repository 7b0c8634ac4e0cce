"""NDDR-CNN: layerwise fusing of features by 1x1 convolutions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras

from kmtl import _checks
from kmtl._dimensions import Float, search_over
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.fusion import Fusion
from kmtl.layers.maker import NORMALIZATIONS, LayerMaker
from kmtl.sharing import _columns
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Activation, Features, Tensor


@register("sharing", "nddr")
@dataclasses.dataclass(frozen=True, kw_only=True)
class NDDR(Sharing):
    """Every task has its own column; 1x1 convolutions fuse the columns' channels.

    After a block, all columns' features are concatenated along the channels, and each
    task goes on with `φ(BN(W_t [x_1; ...; x_T]))`: W_t is a 1x1 convolution back to the
    block's width (for vectors a dense layer), φ the activation. W_t begins as a
    weighted sum, `self_weight` for the task's own channels and an equal part of the
    rest for the same channel of each other task; weight decay keeps it small. With W_t
    diagonal it is cross-stitch per channel.

    Choose it over cross-stitch where a task may want other channels of another column
    than the ones of the same number, and where the data suffice for T² C² weights.

    Cost: T columns, so T times the parameters and the time of one network, and
    T (T C² + 2 C) parameters and T² C² multiplications per position and fused block.

    Args:
        depth: Leading blocks that all tasks share plainly, 0 to n - 1. Defaults to 0.
        self_weight: Initial diagonal of a task's own channels, in [0, 1]. Defaults to
            0.9, the paper's choice of (0.9, 0.1) for two tasks.
        normalization: `"batch"`, as in the paper, `"layer"`, or None (a bias instead).
        activation: Any Keras activation, or None. Defaults to `"relu"`, as in the
            official code.
        weight_decay: d of the penalty `d/2 ‖W_t‖²`, >= 0. Defaults to 5e-4.
        after: Numbers of the blocks (from 1) whose features are fused. None fuses
            after every block, which is what the paper does where a block ends in
            pooling. Defaults to None.

    Raises:
        ValueError: where the columns' features differ in shape, or `depth` or `after`
            do not fit the backbone.

    Example:

    >>> tasks = [kmtl.Segmentation("mask", classes=2), kmtl.Regression("ink")]
    >>> model = kmtl.build_cnn(
    ...     input_shape=(8, 8, 1), tasks=tasks, filters=(4, 8), sharing="nddr"
    ... )
    >>> tuple(model.get_layer("ink_nddr2_fusion").kernel.shape)
    (16, 8)

    Reference: Gao et al., CVPR 2019, arXiv:1801.08297, section 3.
    """

    ranges = search_over(
        self_weight=Float(0.5, 1.0, default=0.9),
        weight_decay=Float(1e-5, 1e-2, log=True, default=5e-4),
    )

    depth: int = 0
    self_weight: float = 0.9
    normalization: str | None = "batch"
    activation: Activation = "relu"
    weight_decay: float = 5e-4
    after: Sequence[int] | None = None

    def __post_init__(self) -> None:
        _checks.check_int("depth", self.depth, 0)
        _checks.check_range("self_weight", self.self_weight, 0, 1)
        if self.normalization is not None:
            _checks.check_choice("normalization", self.normalization, NORMALIZATIONS)
        if self.activation is not None:
            activation = _checks.check_activation(self.activation)
            object.__setattr__(self, "activation", activation)
        _checks.check_range("weight_decay", self.weight_decay, 0, 1e30)
        object.__setattr__(self, "after", _columns.check_after(self.after))

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        return _columns.run_columns(self, backbone, inputs, tasks, make, self._fuse)

    def _fuse(self, number: int, columns: Features, make: LayerMaker) -> Features:
        together: dict[tuple[str, ...], Tensor] = {}
        fused = {}
        for name, sources in _columns.readings(self, list(columns)).items():
            part = make.part(f"{name}_nddr{number}")
            read = tuple(sources)
            if read not in together:
                whose = f"{name}_" if name in self.later else ""
                together[read] = make.layer(
                    keras.layers.Concatenate, f"{whose}nddr{number}_concatenate"
                )([columns[source] for source in sources])
            decay = keras.regularizers.L2(self.weight_decay / 2)
            x = part.layer(
                Fusion,
                "fusion",
                sources=sources,
                own=name,
                own_weight=self.self_weight,
                use_bias=self.normalization != "batch",
                kernel_regularizer=decay if self.weight_decay else None,
            )(together[read])
            if self.normalization is not None:
                x = part.normalization(self.normalization, "norm")(x)
            if self.activation is not None:
                x = part.activation(self.activation, "activation")(x)
            fused[name] = x
        return fused
