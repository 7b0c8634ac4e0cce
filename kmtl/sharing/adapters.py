"""One trunk with a small residual module per task and block."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from kmtl import _checks
from kmtl._dimensions import Int, search_over
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.layers.reusing import ReusingMaker
from kmtl.sharing._conditioned import Conditioned
from kmtl.typing import Activation, Features, Tensor

FORMS = ("auto", "bottleneck", "linear")


@register("sharing", "adapters")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapters(Conditioned):
    """All tasks share all blocks; each adds a small learned residual after them.

    After block i, task t goes on with `x + a_ti(x)`:

    - `"bottleneck"` (Houlsby): `a(x) = U f(D x + d) + u`, D to `bottleneck` channels, f
      the activation, U back to C;
    - `"linear"` (Rebuffi's residual adapter, in series): `a(x) = A x + b`, on feature
      maps a 1 x 1 convolution.

    U or A, and its bias, start at zero, where this is hard sharing bit for bit.

    Choose it to add tasks to a trunk that is there, most of all with `frozen=True` on
    pretrained weights (`kmtl.sharing.load_trunk`): what a task then adds cannot harm
    another one.

    Cost: about 2 C `bottleneck` parameters per task and block (C² for `"linear"`). The
    blocks after the first adapter run once per task: the time of T networks, or less
    with `depth`.

    Args:
        bottleneck: Channels inside a bottleneck, >= 1. Defaults to 8.
        form: `"bottleneck"`, `"linear"`, or `"auto"`: bottlenecks on vectors and linear
            ones on feature maps, as in the papers. Defaults to `"auto"`.
        activation: Keras activation inside a bottleneck. Defaults to `"relu"`.
        depth: Leading blocks without adapters, computed once; 0 to n - 1. Defaults to
            0. At n - 1 the trunk runs once, and the model has a seam.
        frozen: The trunk is not trained, only the adapters and heads are. Defaults to
            False.

    Raises:
        ValueError: if `depth` leaves no block to adapt.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(16,), sharing="adapters"
    ... )
    >>> tuple(model.get_layer("a_adapter1_down").kernel.shape)
    (16, 8)

    Reference: Houlsby et al., ICML 2019, arXiv:1902.00751, section 2.1 (without its
        layer normalisation, which belongs to transformers); Rebuffi et al., CVPR 2018,
        arXiv:1803.10082, eq. 2.
    """

    ranges = search_over(bottleneck=Int(2, 64, log=True, default=8))

    bottleneck: int = 8
    form: str = "auto"
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_int("bottleneck", self.bottleneck, 1)
        _checks.check_choice("form", self.form, FORMS)
        activation = _checks.check_activation(self.activation)
        object.__setattr__(self, "activation", activation)

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
            name: self._adapt(x, make.part(f"{name}_adapter{index + 1}"))
            for name, x in features.items()
        }

    def _adapt(self, features: Tensor, make: LayerMaker) -> Tensor:
        rank = len(features.shape)
        form = self.form
        if form == "auto":
            form = "bottleneck" if rank == 2 else "linear"
        inner, channels = features, features.shape[-1]
        if form == "bottleneck":
            inner = _mix(make, rank, self.bottleneck, "down")(inner)
            inner = make.activation(self.activation, "activation")(inner)
        inner = _mix(make, rank, channels, "up", kernel_initializer="zeros")(inner)
        return make.layer(keras.layers.Add, "add")([features, inner])


def _mix(
    make: LayerMaker, rank: int, channels: int, name: str, **options: Any
) -> Tensor:
    """Layer that mixes the channels of each place by itself."""
    if rank == 4:
        return make.conv(channels, 1, name, **options)
    return make.dense(channels, name, **options)  # acts on the last axis
