"""Gate figures are tested on the data they draw."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from matplotlib import pyplot as plt

import kmtl
from kmtl.inspection.readings import Gates
from kmtl.plotting import gates


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def record(values: dict[str, list[list[float]]], epochs: int = 2) -> pandas.DataFrame:
    """Rows of layers' readings `(epochs, entries)`."""
    rows = [
        (epoch + 1, layer, layer.split("_")[0], 0, f"expert {i + 1}", value)
        for epoch in range(epochs)
        for layer, table in values.items()
        for i, value in enumerate(table[epoch])
    ]
    names = ["epoch", "layer", "reading", "row", "entry", "value"]
    return pandas.DataFrame(rows, columns=names)


SHARES = {"a_gate1": [[0.5, 0.5], [0.9, 0.1]], "b_gate1": [[0.2, 0.8], [0.4, 0.6]]}


@pytest.mark.parametrize("form", ["frame", "history", "callback"])
def test_shares_over_epochs_are_areas(form: str) -> None:
    frame = record(SHARES)
    source = {
        "frame": frame,
        "history": SimpleNamespace(gates=frame),
        "callback": SimpleNamespace(frame=frame),
    }[form]
    axes = gates(source)
    assert [ax.get_title() for ax in axes] == ["a_gate1", "b_gate1"]
    areas = axes[0].collections
    assert [area.get_label() for area in areas] == ["expert 1", "expert 2"]
    first = areas[0].get_paths()[0].vertices
    assert first[:, 0].min() == 1
    assert first[:, 0].max() == 2
    assert first[:, 1].max() == 0.9  # expert 1 in epoch 2
    assert axes[0].get_ylim() == (0, 1)


def test_other_numbers_over_epochs_are_lines() -> None:
    (ax,) = gates(record({"a_stitch1": [[0.9, 0.4], [1.2, -0.1]]}))
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}
    assert drawn == {"expert 1": [0.9, 1.2], "expert 2": [0.4, -0.1]}
    assert list(ax.get_lines()[0].get_xdata()) == [1, 2]


def test_the_present_state_is_bars() -> None:
    frame = record(SHARES)
    (ax,) = gates(Gates(frame[frame["epoch"] == 2], ()), layers=["b_gate1"])
    assert [bar.get_height() for bar in ax.patches] == [0.4, 0.6]
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        "expert 1", "expert 2"
    ]  # fmt: skip


def test_a_matrix_is_a_map_of_colours() -> None:
    names = ["layer", "reading", "row", "entry", "value"]
    rows = [("mix", "all", r, e, v) for r, e, v in zip(
        [0, 0, 1, 1], "abab", [0.9, 0.1, 0.2, 0.8], strict=True
    )]  # fmt: skip
    (ax,) = gates(Gates(pandas.DataFrame(rows, columns=names), ()))
    np.testing.assert_array_equal(
        ax.get_images()[0].get_array(), [[0.9, 0.1], [0.2, 0.8]]
    )
    assert {text.get_text() for text in ax.texts} == {"0.90", "0.10", "0.20", "0.80"}


def test_a_models_present_state() -> None:
    tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=tasks, units=(4,), sharing="cross_stitch"
    )
    axes = gates(model)
    heights = [bar.get_height() for bar in axes[0].patches]
    assert heights == pytest.approx([0.9, 0.1])
    assert axes[0].figure is axes[1].figure


def test_one_layer_on_one_axes() -> None:
    ax = plt.subplots()[1]
    (drawn,) = gates(record(SHARES), layers="b_gate1", axes=ax)
    assert drawn is ax
    assert ax.get_title() == "b_gate1"


def test_refusals() -> None:
    frame = record(SHARES)
    with pytest.raises(ValueError, match="Unknown recorded layer 'a_gate'"):
        gates(frame, layers=["a_gate"])
    with pytest.raises(ValueError, match=r"`axes` must be 2.*Received: 1"):
        gates(frame, axes=[plt.subplots()[1]])
    with pytest.raises(ValueError, match="no readings"):
        gates(frame[:0])
    with pytest.raises(TypeError, match="of type int"):
        gates(3)
