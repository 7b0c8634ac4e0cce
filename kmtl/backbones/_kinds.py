"""What a Keras model as a trunk takes of the kinds of inputs."""

from __future__ import annotations

import keras

from kmtl.backbones._graph import Graph
from kmtl.inputs.base import Input


def takes_ids(graph: Graph) -> bool:
    """Whether a model reads whole numbers: its input is of them, or is embedded."""
    if not keras.backend.is_float_dtype(graph.input.dtype):
        return True
    readers = [step.operation for step in graph.steps if 0 in step.inputs]
    # The default of keras.Input is float32, also where ids are meant.
    return any(isinstance(reader, keras.layers.Embedding) for reader in readers)


def takes_bag(graph: Graph, spec: Input) -> bool:
    """Whether a model reads a number per token, `log(1 + count)`."""
    shape = tuple(graph.input.shape[1:])
    return not takes_ids(graph) and shape == (getattr(spec, "tokens", None),)


def padded(graph: Graph) -> tuple[set[int], str | None]:
    """Which tensors are padded where the input, a sequence, is.

    Returns:
        The tensors that carry a mask if the input has one, and the name of the first
        step that would lose it and compute with padding: None if there is none.
    """
    found = {0}
    for step in graph.steps:
        if not found.intersection(step.inputs):
            continue
        if not getattr(step.operation, "supports_masking", False):
            return found, step.name
        found.update(number for number in step.outputs if graph.rank(number) == 3)
    return found, None


def has_own_mask(graph: Graph) -> bool:
    """Whether a model finds out itself where its input is padded."""
    masking = keras.layers.Masking
    return any(isinstance(step.operation, masking) for step in graph.steps)


def check_kind(name: str, spec: Input, graph: Graph) -> None:
    """Refuse what a model would take for something else.

    Raises:
        ValueError: for ids where it takes other numbers, the reverse, and ids of
            another length.
    """
    kind = f"kmtl.inputs.{type(spec).__name__}"
    dtype = graph.input.dtype
    wanted = tuple(graph.input.shape[1:])
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
    if takes_bag(graph, spec):
        return
    if not takes_ids(graph):
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
