"""Where a graph is cut into blocks: at layers that were named, or at found ones."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from kmtl.backbones._graph import Graph

#: Most blocks where nothing in the graph says where one ends.
MOST_BLOCKS = 12
#: Layers that add zeros around a map.
PADS = (
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
)


def named(graph: Graph, names: Sequence[str]) -> list[int]:
    """The tensors at which layers of these names part the graph, in order.

    Raises:
        ValueError: for a name that is no layer's, and a layer that does not part it.
    """
    cuts = []
    for name in names:
        number = graph.find(name)
        if number == graph.output:
            raise ValueError(
                "`cuts` must leave something behind the last one: the model ends in "
                f"{name!r}. Received: cuts={list(names)}"
            )
        step = graph.crossing(number)
        if step is not None:
            raise ValueError(
                "A cut must part the model in two: what comes after it may read "
                f"nothing else. '{step.name}' comes after {name!r} and reads, or "
                "shares weights with, what lies before it. "
                f"{_advice(graph)}Received: cuts={list(names)}"
            )
        cuts.append(number)
    if len(set(cuts)) < len(cuts):
        raise ValueError(f"`cuts` must be distinct. Received: cuts={list(names)}")
    return sorted(cuts, key=graph.position)


def at_levels(graph: Graph) -> list[int]:
    """The maps that the model names, but the last one, in order.

    Raises:
        ValueError: for a model that names none, or whose maps do not part it.
    """
    found = {at: name for name, at in graph.levels.items() if at != graph.output}
    names = [*found.values()]
    if not names:
        raise ValueError(
            '`cuts="pyramid"` is for a model with `pyramid_outputs`, as backbones of '
            "keras-hub have them, or with a dict of maps for outputs. Received: a "
            f"model that names no map before its output. {_advice(graph)}"
        )
    return named(graph, names)


def _advice(graph: Graph) -> str:
    found = [graph.name_of(number) for number in automatic(graph)]
    return f'cuts="auto" cuts at {found}. ' if found else ""


def automatic(graph: Graph) -> list[int]:
    """Cuts between the stages of a convolutional net, or its layers.

    Of all tensors that part the graph those count before which and after which there
    are kernels. Where layers with strides make maps smaller, a block is what works at
    one size; else it is a layer with what follows without kernels, some together where
    there are more than `MOST_BLOCKS`.
    """
    # Zeros around a map are for the kernel that reads them, and so of its block.
    cuts = [cut for cut in graph.separators() if not isinstance(graph.maker(cut), PADS)]
    units = _units(graph, cuts)
    ends = [cut for cut, _, _ in units[:-1]]
    if not ends:
        return []
    stages = _stages(graph, units)
    if stages:
        return stages
    if len(ends) < MOST_BLOCKS:
        return ends
    step = (len(ends) + 1) / MOST_BLOCKS
    return [ends[round(i * step) - 1] for i in range(1, MOST_BLOCKS)]


def _units(graph: Graph, cuts: list[int]) -> list[tuple[int, bool, bool]]:
    """A kernel each, with what follows it: (end, strides at its kernels, after)."""
    units: list[tuple[int, bool, bool]] = []
    begun = False  # what comes before the first kernel belongs to the first unit
    for end, piece in zip([*cuts, graph.output], graph.pieces(cuts), strict=True):
        kernels = any(step.has_kernel for step in piece)
        strides = any(step.strides for step in piece)
        if kernels and begun:
            units.append((end, strides, False))
        elif units:
            _, first, after = units[-1]
            if begun:
                units[-1] = (end, first, after or strides)
            else:
                units[-1] = (end, first or strides, after)
        else:
            units.append((end, strides, False))
        begun = begun or kernels
    return units


def _stages(graph: Graph, units: list[tuple[int, bool, bool]]) -> list[int]:
    """Where maps become smaller, but before the first block and within the last."""
    found: list[int] = []
    for i in range(1, len(units)):
        before, at = units[i - 1], units[i]
        if before[2]:  # pooled at its end
            found.append(before[0])
        elif at[1]:
            # An expansion right before it belongs to it: the cut is where it is narrow.
            place = i - 1
            if place and not units[place][1] and not units[place - 1][2]:
                wide = graph.channels(units[place][0])
                narrow = graph.channels(units[place - 1][0])
                if narrow and wide >= 2 * narrow:
                    place -= 1
            found.append(units[place][0])
    return sorted(set(found), key=graph.position)
