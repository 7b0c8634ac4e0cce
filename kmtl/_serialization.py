"""Makes `keras.models.load_model` find kmtl's classes after a bare `import kmtl`.

Their modules import Keras, which `import kmtl` must not: once anybody has imported it,
a stand-in enters its registry for each class, on use imports that, and gives way to it.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import wrapt

_ROOT = Path(__file__).parent
_DECORATOR = re.escape('@keras.saving.register_keras_serializable(package="kmtl")\n')
SAVED_CLASS = re.compile(rf"^{_DECORATOR}(?:@.*\n)*class (\w+)", re.MULTILINE)


class StandIn:
    """What Keras finds under the name of a class that has not been imported."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def from_config(self, config: Any, **options: Any) -> Any:
        cls = getattr(importlib.import_module(self.module), self.name)
        return cls.from_config(config, **options)


@wrapt.when_imported("keras")
def enter_stand_ins(_: Any) -> None:
    """Enter one for every class that kmtl's files register."""
    keras = importlib.import_module("keras")  # complete, also if in another thread
    known = keras.saving.get_custom_objects()
    for file in sorted(_ROOT.rglob("*.py")):
        module = ".".join(file.relative_to(_ROOT.parent).with_suffix("").parts)
        for name in SAVED_CLASS.findall(file.read_text("utf-8")):
            known.setdefault(f"kmtl>{name}", StandIn(module, name))
