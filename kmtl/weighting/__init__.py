"""Rules that balance tasks, one per file; every registered class is exported here.

Classes and functions load when first asked for, so that `import kmtl.weighting` loads
no backend. A new file with a registered class needs no line here.
"""

from __future__ import annotations

import importlib
from typing import Any

# What is public and not in the registry.
_OTHERS = {
    "Weighting": "base",
    "LossWeighting": "base",
    "GradientWeighting": "base",
    "get": "base",
    "LOSS_FLOOR": "base",
    "cast_like": "_masking",
    "observed": "_masking",
    "aggregate": "functional",
    "task_weights": "functional",
}


def _classes() -> dict[str, type]:
    from kmtl import _registry

    registered = (
        _registry.get("weighting", name) for name in _registry.names("weighting")
    )
    own = (cls for cls in registered if cls.__module__.startswith(f"{__name__}."))
    return {cls.__name__: cls for cls in own}


def __getattr__(name: str) -> Any:
    if name in _OTHERS:
        module = importlib.import_module(f"{__name__}.{_OTHERS[name]}")
        value = getattr(module, name)
    elif name == "__all__":
        return sorted([*_OTHERS, *_classes()])
    elif name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        classes = _classes()
        if name not in classes:
            from kmtl._checks import did_you_mean

            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}."
                f"{did_you_mean(name, [*_OTHERS, *classes])}"
            )
        value = classes[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_OTHERS, *_classes()])
