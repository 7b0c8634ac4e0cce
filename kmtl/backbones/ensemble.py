"""Several nets in one, which share most of their weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from kmtl import _checks, _registry
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.backbones.fusion import Fusion
from kmtl.inputs.base import Input
from kmtl.layers.maker import LayerMaker
from kmtl.layers.member_maker import MemberMaker
from kmtl.layers.members import ToMembers
from kmtl.typing import Config, Inputs, Shape, Tensor


@register("backbone", "ensemble")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ensemble(Backbone):
    """A trunk with `members` members, whose predictions are averaged.

    Members share the kernels of dense layers and convolutions, trunk and heads. Each
    has factors of its own for what goes into a layer and what comes out of it (r and s
    in s ⊙ (W (r ⊙ x) + b)); in the first block r starts with random signs, so that
    members differ. While training, each member has its own loss, and a task's loss is
    the mean of them; in validation and at inference it is that of the averaged
    prediction. (Means are of logits, and of values in the scale of a task's
    `transform`.)

    Members are rows of the batch inside the model: it costs the time of as many times
    the rows, and hardly any parameters. Every sharing scheme, weighting and task takes
    it. An export has no `features`, which would be those of the members.

    Members learn slower than a net alone: where few rows have targets with little
    noise, `kmtl.Recipe(learning_rate=0.01)` is worth a try (`experiments/tables`).

    Args:
        backbone: The trunk, an object or a name; or a dict input -> that of its
            encoder, which is a `Fusion`.
        members: Number of members, >= 2. Defaults to 8.

    Example:

    >>> net = kmtl.backbones.Ensemble(backbone=kmtl.backbones.MLP(units=(32,)))
    >>> model = kmtl.build(
    ...     backbone=net, input_shape=(4,), tasks=[kmtl.Regression("price")]
    ... )
    >>> model.predict(np.ones((3, 4)), verbose=0)["price"].shape
    (3, 1)

    Reference: Wen et al. (BatchEnsemble), ICLR 2020, arXiv:2002.06715; with a loss per
    member, and signs in the first layer alone: Gorishniy et al. (TabM), ICLR 2025,
    arXiv:2410.24210.
    """

    backbone: Backbone | str = "tabular"
    members: int = 8
    dropout: float | Sequence[float] | None = None

    #: Arguments that are the trunk's, and what they are here.
    OF_TRUNK: ClassVar = {"dropout": None, "activation": "relu", "normalization": None}

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        given: Any = self.backbone
        if isinstance(given, str):
            given = _registry.get("backbone", given)()
        elif isinstance(given, Mapping):
            given = (
                Backbone.from_config(given)
                if isinstance(given.get("kind"), str)
                else Fusion(encoders=given)
            )
        if not isinstance(given, Backbone) or isinstance(given, Ensemble):
            raise TypeError(
                "`backbone` must be a kmtl.backbones object, or the name of one, and "
                f"no ensemble itself. Received: backbone={self.backbone!r}"
            )
        put("backbone", given)
        for name, value in self.OF_TRUNK.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"`{name}` belongs to the trunk of an ensemble: "
                    f"Ensemble(backbone=kmtl.backbones.{type(given).__name__}("
                    f"{name}=...)). Received: {name}={getattr(self, name)!r}"
                )
        put("members", _checks.check_int("members", self.members, 2))
        if self.kernel_regularizer is None:
            put("kernel_regularizer", given.kernel_regularizer)
        if self.kernel_initializer is None:
            put("kernel_initializer", given.kernel_initializer)
        super().__post_init__()

    @property
    def trunk(self) -> Backbone:
        """The backbone, as an object."""
        return self.backbone  # type: ignore[return-value]  # see `__post_init__`

    @property
    def num_blocks(self) -> int:
        return self.trunk.num_blocks

    def for_inputs(self, inputs: Mapping[str, Input]) -> Backbone:
        return dataclasses.replace(self, backbone=self.trunk.for_inputs(inputs))

    def for_shape(self, input_shape: Shape) -> Backbone:
        return dataclasses.replace(self, backbone=self.trunk.for_shape(input_shape))

    def encodes(self, name: str, spec: Input) -> bool:
        return self.trunk.encodes(name, spec)

    def check_input_shapes(self, shapes: Mapping[str, tuple]) -> None:
        self.trunk.check_input_shapes(shapes)

    def check_input_shape(self, input_shape: tuple) -> None:
        self.trunk.check_input_shape(input_shape)

    def masks(self, inputs: Inputs, make: LayerMaker, given: Any = None) -> Any:
        return self.trunk.masks(inputs, make, given)

    def gate_input(self, features: Tensor, make: LayerMaker) -> Tensor:
        return self.trunk.gate_input(features, make)

    def enter(self, inputs: Any, make: LayerMaker) -> Any:
        return self._repeated(self.trunk.enter(inputs, make), make)

    def _repeated(self, inputs: Any, make: LayerMaker) -> Any:
        if isinstance(inputs, Mapping):
            return {
                name: self._repeated(one, make.part(name))
                for name, one in inputs.items()
            }
        if isinstance(inputs, tuple):
            return tuple(
                self._repeated(one, make.part(str(i))) for i, one in enumerate(inputs)
            )
        if inputs is None:
            return None
        return make.layer(ToMembers, "members", members=self.members)(inputs)

    def block(self, index: int, features: Tensor, make: LayerMaker) -> Tensor:
        own = MemberMaker.around(make, self.members, first=index == 0)
        return self.trunk.block(index, features, own)

    def head_maker(self, make: LayerMaker) -> LayerMaker:
        return MemberMaker.around(make, self.members)

    def to_config(self) -> Config:
        return {**super().to_config(), "backbone": self.trunk.to_config()}
