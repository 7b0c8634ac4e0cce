"""What a task may be called."""

from __future__ import annotations

import keyword

# Keras writes the total to `loss` and validation logs to `val_...`, where the loss of a
# task `val` would be `val_loss`; the others are entries of a SavedModel, of our logs
# (`regularization_loss`, `deep_supervision_loss`) or of `loss_report`, or begin the
# names of what tasks share.
RESERVED_TASK_NAMES = (
    "loss",
    "val",
    "regularization",
    "deep_supervision",
    "other",
    "total",
    "shared",
    "experts",
    "features",
    "serve",
    "serving_default",
    "signatures",
    "variables",
    "trainable_variables",
    "non_trainable_variables",
)


def check_task_name(name: object) -> str:
    """A task name becomes an output key, a layer, a log prefix and a signature."""
    # ASCII, because TensorFlow's scopes take nothing else.
    if (
        not isinstance(name, str)
        or not (name.isidentifier() and name.isascii())
        or keyword.iskeyword(name)
    ):
        raise ValueError(
            "A task name must be a Python identifier (ASCII letters, digits, "
            "underscore, not a keyword), because it names an output and its logs. "
            f"Received: name={name!r}"
        )
    if name in RESERVED_TASK_NAMES or name.startswith(("val_", "_")):
        raise ValueError(
            f"A task may not be called {', '.join(map(repr, RESERVED_TASK_NAMES))} nor "
            f"start with 'val_' or '_': logs, exports and layers use those names. "
            f"Received: name={name!r}"
        )
    return name
