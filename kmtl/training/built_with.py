"""What a model was built of, so that one like it can be built for other tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from kmtl.backbones.base import Backbone
from kmtl.sharing.base import Sharing
from kmtl.typing import Config


@dataclasses.dataclass(frozen=True)
class BuiltWith:
    """Arguments of `kmtl.build`, but for the tasks and the inputs' kinds.

    A file holds the configs of backbone and sharing scheme. Nobody reads them until
    something is built: a class of the user's need not be known when it is loaded.

    Args:
        backbone: A `kmtl.backbones` object, or its config.
        sharing: A `kmtl.sharing` object, or its config.
        input_shape: Of one array of numbers; None where the model has `input_specs`.
        input_dtype, input_name: As for `kmtl.build`.
    """

    backbone: Backbone | Config
    sharing: Sharing | Config
    input_shape: tuple[int | None, ...] | None
    input_dtype: str
    input_name: str

    def parts(self) -> tuple[Backbone, Sharing]:
        """The backbone and the scheme."""
        backbone, sharing = self.backbone, self.sharing
        if isinstance(backbone, Mapping):
            backbone = Backbone.from_config(backbone)
        if isinstance(sharing, Mapping):
            sharing = Sharing.from_config(sharing)
        return backbone, sharing

    def to_config(self) -> Config:
        """JSON-ready: what `BuiltWith(**config)` takes."""
        found: dict[str, Any] = dict(vars(self))
        for name in ("backbone", "sharing"):
            if not isinstance(found[name], Mapping):
                found[name] = found[name].to_config()
        if self.input_shape is not None:
            found["input_shape"] = list(self.input_shape)
        return found
