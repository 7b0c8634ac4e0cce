"""Arguments that must be models of kmtl."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from kmtl.training.model import MultiTaskModel


def check_model(model: Any, argument: str = "model") -> MultiTaskModel:
    """Refuse what is no model of kmtl.

    Raises:
        TypeError: naming the argument, with what to do about a file.
    """
    if isinstance(model, MultiTaskModel):
        return model
    load = ""
    if isinstance(model, (str, os.PathLike)):
        load = ": load the file with kmtl.load_model(path)"
    raise TypeError(
        f"`{argument}` must be a kmtl model, which knows its tasks{load}. "
        f"Received: {type(model).__name__}"
    )


def check_models(models: Any, argument: str = "models") -> list[MultiTaskModel]:
    """A list of models of kmtl.

    Raises:
        TypeError: for what is none, or holds something else.
    """
    if isinstance(models, str) or not isinstance(models, Iterable):
        raise TypeError(
            f"`{argument}` must be a list of kmtl models. "
            f"Received: {type(models).__name__}"
        )
    return [check_model(model, f"{argument}[{i}]") for i, model in enumerate(models)]
