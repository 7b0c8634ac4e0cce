"""Multi-task attention networks."""

from __future__ import annotations

import dataclasses
import functools

import keras

from kmtl import _checks
from kmtl._dimensions import Choice, search_over
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import NORMALIZATIONS, LayerMaker
from kmtl.layers.mask import SoftMask
from kmtl.layers.sequences import MaskedPooling, window_between
from kmtl.sharing import _columns
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, Layer, Shape, Tensor


@register("sharing", "mtan")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MTAN(Sharing):
    """One shared trunk; each task picks features from every block by soft attention.

    With p_j the shared features after block j, task t attends to them by a mask,

        â_t1 = a_t1 ⊙ p_1,   a_t1 = h_t1(g_t1(p_1)),
        â_tj = a_tj ⊙ p_j,   a_tj = h_tj(g_tj([p_j; f_j(â_t,j-1)])),

    and its head reads â_tn. g is a 1x1 convolution with normalisation and ReLU, h the
    same with a sigmoid, f a 3x3 convolution with normalisation and ReLU that all tasks
    share, pooled to the size of p_j; for vectors all three are dense layers.

    Choose it where tasks of different kinds use one trunk and each should be able to
    leave features out; it costs far less than a column per task. With all masks at one
    it is hard sharing.

    Cost: the trunk once, and per task and block about 4 C² parameters and
    multiplications per position (h, g), plus 9 C² for f. The paper's g reads u_j, a
    feature from inside block j, where the block has one; blocks here give one, their
    output, as in the authors' own wide residual network.

    Args:
        depth: Leading blocks without attention, 0 to n - 1. Defaults to 0.
        bottleneck: Divides the channels between g and h, an integer >= 1. Defaults
            to 1.
        normalization: `"batch"`, as in the paper, `"layer"`, or None.

    Raises:
        ValueError: for maps of unknown height or width, or where `depth` does not fit
            the backbone.

    Example:

    >>> tasks = [kmtl.Segmentation("mask", classes=2), kmtl.Regression("ink")]
    >>> model = kmtl.build_cnn(
    ...     input_shape=(8, 8, 1), tasks=tasks, filters=(4, 8), sharing="mtan"
    ... )
    >>> model.get_layer("ink_attention2_mask").output.shape
    (None, 2, 2, 8)

    Reference: Liu et al., CVPR 2019, arXiv:1803.10704, eqs. 1 and 2.
    """

    ranges = search_over(bottleneck=Choice([1, 2, 4]))

    depth: int = 0
    bottleneck: int = 1
    normalization: str | None = "batch"

    def __post_init__(self) -> None:
        _checks.check_int("depth", self.depth, 0)
        _checks.check_int("bottleneck", self.bottleneck, 1)
        if self.normalization is not None:
            _checks.check_choice("normalization", self.normalization, NORMALIZATIONS)

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        names = [task.name for task in tasks]
        numbers = _columns.linked_blocks("mtan", None, self.depth, backbone.num_blocks)
        trunk = _columns.shared_blocks(backbone, inputs, self.depth, make)
        attended: Features = {}
        for number in numbers:
            part = make.part(f"shared_block{number}", f"block{number}")
            trunk = backbone.block(number - 1, trunk, part)
            read = dict.fromkeys(names, trunk)
            if attended:
                handed = self._hand_over(number, attended, trunk, make)
                read = {
                    name: make.layer(
                        keras.layers.Concatenate, f"{name}_attention{number}_input"
                    )([trunk, handed[name]])
                    for name in names
                }
            attended = {
                name: self._attend(name, number, trunk, read[name], make)
                for name in names
            }
        return attended

    def _attend(
        self, name: str, number: int, trunk: Tensor, read: Tensor, make: LayerMaker
    ) -> Tensor:
        """â = h(g(read)) ⊙ trunk."""
        part = make.part(f"{name}_attention{number}")
        channels = trunk.shape[-1]
        inner = max(1, channels // self.bottleneck)
        g = self._convolve(read, inner, 1, part.part("g"))
        g = part.activation("relu", "g_activation")(g)
        logits = self._convolve(g, channels, 1, part.part("h"))
        return part.layer(SoftMask, "mask", reading=name)([trunk, logits])

    def _hand_over(
        self, number: int, attended: Features, trunk: Tensor, make: LayerMaker
    ) -> Features:
        """f(â): what the attention of the block before passes on, by shared layers."""
        part = make.part(f"shared_attention{number}")
        channels = trunk.shape[-1]
        activation = part.activation("relu", "f_activation")
        layers: list[Layer] = []  # made once, applied to every task
        handed = {}
        for name, x in attended.items():
            if not layers:
                layers = [
                    *self._convolution(x, channels, 3, part.part("f")),
                    activation,
                    *_resizing(x.shape, trunk.shape, part),
                ]
            for layer in layers:
                x = layer(x)
            handed[name] = x
        return handed

    def _convolve(
        self, x: Tensor, channels: int, size: int, part: LayerMaker
    ) -> Tensor:
        for layer in self._convolution(x, channels, size, part):
            x = layer(x)
        return x

    def _convolution(
        self, x: Tensor, channels: int, size: int, part: LayerMaker
    ) -> list:
        """Convolution (dense layer, unless `x` is a map) and normalisation."""
        bias = {"use_bias": self.normalization != "batch"}
        if len(x.shape) == 4:
            layers = [part.conv(channels, size, "conv", **bias)]
        else:
            layers = [part.dense(channels, "dense", **bias)]
        if self.normalization is not None:
            layers.append(part.normalization(self.normalization, "norm"))
        return layers


def _resizing(before: Shape, after: Shape, part: LayerMaker) -> list:
    """Layers from the positions of one feature map to those of another."""
    before, after = tuple(before[1:-1]), tuple(after[1:-1])
    if None in (*before, *after):
        raise ValueError(
            "sharing='mtan' brings maps of one block to the size of the next, which "
            "must be known: give `input_shape` a height and a width. "
            f"Received: maps of {before} and {after}"
        )
    if before == after:
        return []
    if len(before) == len(after) == 1 and after[0] < before[0]:
        size = window_between(before[0], after[0])
        return [part.layer(MaskedPooling, "f_pool", pooling="max", size=size)]
    if len(before) != 2 or len(after) != 2:
        raise ValueError(
            "sharing='mtan' needs blocks that keep the number of positions, or feature "
            f"maps. Received: positions {before} before and {after} after a block"
        )
    # The smallest window that gives the size: the one of the block, where it pools.
    for size in range(2, max(before) + 1):
        for padding, sides in (
            ("valid", tuple(side // size for side in before)),
            ("same", tuple(-(-side // size) for side in before)),
        ):
            if sides == after:
                kind = keras.layers.MaxPooling2D
                return [part.layer(kind, "f_pool", pool_size=size, padding=padding)]
    kind = keras.layers.Resizing
    resize = part.layer(kind, "f_resize", height=after[0], width=after[1])
    # Else True, for all that is behind it, too.
    return [functools.partial(resize, training=False)]
