"""What a Keras model as a trunk takes of the kinds of inputs."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from kmtl.backbones._graph import Graph
from kmtl.inputs.base import Input
from kmtl.typing import Layer


def takes_ids(graph: Graph, name: str) -> bool:
    """Whether a model reads whole numbers: its input is of them, or is embedded."""
    if not keras.backend.is_float_dtype(graph.input(name).dtype):
        return True
    # The default of keras.Input is float32, also where ids are meant.
    return embedding(graph, graph.number_of(name)) is not None


def embedding(graph: Graph, number: int = 0) -> Layer | None:
    """The layer that embeds the ids of an input; None where none does."""
    readers = (step.operation for step in graph.steps if number in step.inputs)
    embeds = keras.layers.Embedding
    return next((reader for reader in readers if isinstance(reader, embeds)), None)


def takes_bag(graph: Graph, name: str, spec: Input) -> bool:
    """Whether a model reads a number per token, `log(1 + count)`."""
    shape = tuple(graph.input(name).shape[1:])
    return not takes_ids(graph, name) and shape == (getattr(spec, "tokens", None),)


def padded(graph: Graph, number: int) -> tuple[set[int], str | None]:
    """Which tensors are padded where an input, a sequence, is.

    Returns:
        The tensors that carry a mask if the input has one, and the name of the first
        step that would lose it and compute with padding: None if there is none.
    """
    found = {number}
    for step in graph.steps:
        if not found.intersection(step.inputs):
            continue
        if not getattr(step.operation, "supports_masking", False):
            return found, step.name
        found.update(number for number in step.outputs if graph.rank(number) == 3)
    return found, None


def has_own_mask(graph: Graph, number: int) -> bool:
    """Whether a model finds out itself where an input is padded."""
    return any(padding.input == number for padding in graph.padding.values()) or any(
        isinstance(step.operation, keras.layers.Masking) for step in graph.steps
    )


def check_names(inputs: Iterable[str], graph: Graph) -> None:
    """Refuse other inputs than those of a model with several.

    Raises:
        ValueError: naming both.
    """
    if len(graph.inputs) > 1 and {*inputs} != {*graph.inputs}:
        raise ValueError(
            "`inputs` must be those of the model of backbone 'from_keras', by name: "
            f"{', '.join(graph.inputs)}. Give kmtl.inputs objects by these names, or "
            "make the model with keras.Input(..., name=...) for yours. "
            f"Received: {', '.join(inputs)}"
        )


def check_kind(name: str, spec: Input, graph: Graph) -> None:
    """Refuse what a model would take for something else.

    Raises:
        ValueError: for ids where it takes other numbers, the reverse, ids of another
            length, and such with another number for padding.
    """
    kind = f"kmtl.inputs.{type(spec).__name__}"
    dtype = graph.input(name).dtype
    wanted = tuple(graph.input(name).shape[1:])
    if not spec.gives_ids:
        # Values that are not scaled may be whole.
        scaled = getattr(spec, "scale", "always") is not None
        if scaled and not keras.backend.is_float_dtype(dtype):
            raise ValueError(
                f"`inputs['{name}']` must be of whole numbers, as the model of "
                f"backbone 'from_keras' takes {dtype}: "
                "kmtl.inputs.Text or Tokens for ids, or "
                f"a kind with scale=None for values as they are. Received: {kind}, "
                "which gives float32"
            )
        return
    if takes_bag(graph, name, spec):
        return
    if not takes_ids(graph, name):
        raise ValueError(
            f"`inputs['{name}']` gives ids of tokens, {spec.dtype}, and the model of "
            f"backbone 'from_keras' takes {dtype}: begin it with "
            'keras.Input((None,), dtype="int32") and a keras.layers.Embedding, or '
            f"with a number per token, keras.Input(({getattr(spec, 'tokens', None)},))."
            f" Received: {kind} for a model of {dtype} of shape {wanted}"
        )
    if len(wanted) == 1 and wanted[0] not in (None, spec.shape[0]):
        raise ValueError(
            f"`inputs['{name}']` must have the length of the model of backbone "
            f"'from_keras', {wanted[0]}: give {kind} `length={wanted[0]}`, or the "
            f"model keras.Input((None,)). Received: length={spec.shape[0]}"
        )
    padding = getattr(spec, "padding", 0)
    number = graph.number_of(name)
    own = {p.value for p in graph.padding.values() if p.input == number}
    if own and padding not in own:
        raise ValueError(
            f"`inputs['{name}']` must have the padding of the model of backbone "
            f"'from_keras', which leaves out the id {own.pop():g} (mask_zero): give "
            f"rows whose padding that is. Received: {kind}(padding={padding})"
        )
