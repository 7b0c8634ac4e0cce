"""Makes `keras.models.load_model` find kmtl's classes after a bare `import kmtl`.

Keras finds a custom class in its registry, which the class enters when its module is
imported. kmtl's modules import Keras, which `import kmtl` must not. So, once anybody
has imported Keras, a stand-in enters the registry for each class: on use it imports
the class, which takes its place.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import wrapt

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
    root = Path(__file__).parent
    for file in sorted(root.rglob("*.py")):
        module = ".".join(file.relative_to(root.parent).with_suffix("").parts)
        for name in SAVED_CLASS.findall(file.read_text("utf-8")):
            keras.saving.get_custom_objects().setdefault(
                f"kmtl>{name}", StandIn(module, name)
            )
