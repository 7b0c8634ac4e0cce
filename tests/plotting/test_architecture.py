"""Pictures of architectures: boxes and lines as data, places, and that they draw."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib import pyplot as plt

import kmtl
from kmtl.plotting import _dot, architecture
from kmtl.plotting._layout import _apart, crossings, layered
from kmtl.plotting._picture import Picture
from kmtl.plotting.diagram import diagram
from kmtl.plotting.drawing import COLORS

NAMES = ("digit", "mask", "ink", "slant", "closed", "width", "height", "centre")


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def mlp(tasks: int = 3, units=(8, 8), **options) -> kmtl.MultiTaskModel:
    return kmtl.build_mlp(
        input_shape=(6,),
        tasks=[kmtl.Regression(name) for name in NAMES[:tasks]],
        units=units,
        **options,
    )


def boxes(model) -> dict[str, tuple]:
    return {box.name: (box.kind, box.label, box.task) for box in diagram(model).boxes}


def lines(model) -> set[tuple]:
    return {(line.source, line.target, line.task) for line in diagram(model).lines}


def test_hard_sharing() -> None:
    model = mlp(sharing_depth={"digit": 2, "mask": 2, "ink": 1})
    assert boxes(model) == {
        "inputs": ("input", "inputs", None),
        "shared_block1": ("block", "block 1", None),
        "shared_block2": ("block", "block 2", None),
        "digit_head": ("head", "digit", "digit"),
        "mask_head": ("head", "mask", "mask"),
        "ink_block2": ("block", "block 2", "ink"),
        "ink_head": ("head", "ink", "ink"),
    }
    assert lines(model) == {
        ("inputs", "shared_block1", None),
        ("shared_block1", "shared_block2", None),
        ("shared_block1", "ink_block2", "ink"),
        ("shared_block2", "digit_head", "digit"),
        ("shared_block2", "mask_head", "mask"),
        ("ink_block2", "ink_head", "ink"),
    }
    found = diagram(model)
    assert found["shared_block2"].tasks == ("digit", "mask")
    assert found["shared_block2"].detail == "8"
    ranks = found.ranks()
    assert ranks["inputs"] == 0
    assert ranks["ink_block2"] == ranks["shared_block2"] == 2
    assert {ranks[f"{name}_head"] for name in NAMES[:3]} == {3}


def test_experts_gates_and_sums() -> None:
    model = mlp(2, sharing=kmtl.sharing.MMoE(experts=3))
    found = diagram(model)
    bank = found["experts_block1"]
    assert (bank.kind, bank.copies, bank.task) == ("bank", 3, None)
    assert bank.label == "experts, block 1"
    assert bank.detail == "8"  # of one expert
    gate, total = found["digit_gate1"], found["digit_mixture1"]
    assert (gate.kind, gate.task, gate.beside) == ("gate", "digit", total.name)
    assert (total.kind, total.label) == ("sum", "Σ")
    controls = {(x.source, x.target) for x in found.lines if x.controls}
    assert controls == {
        (a, b)
        for task in NAMES[:2]
        for a, b in (("inputs", f"{task}_gate1"), (f"{task}_gate1", f"{task}_mixture1"))
    }
    assert ("experts_block2", "mask_mixture1", "mask") in lines(model)
    ranks = found.ranks()
    assert ranks["digit_gate1"] == ranks["digit_mixture1"] > ranks["experts_block2"]


def test_a_bank_of_one_is_a_block() -> None:
    scheme = kmtl.sharing.CGC(shared_experts=2, task_experts=1)
    found = diagram(mlp(2, sharing=scheme))
    own = found["digit_experts_block1"]
    assert (own.kind, own.label, own.task) == ("block", "block 1", "digit")
    assert found["shared_experts_block1"].copies == 2


def test_stitches_of_all_tasks_are_one_bar() -> None:
    model = mlp(3, sharing="cross_stitch")
    found = diagram(model)
    bar = found["digit_stitch1"]
    assert (bar.kind, bar.label, bar.task) == ("bar", "stitch 1", None)
    assert bar.parts == tuple(f"{name}_stitch1" for name in NAMES[:3])
    assert bar.columns == NAMES[:3]
    for name in NAMES[:3]:
        assert (f"{name}_block1", bar.name, name) in lines(model)
        assert (bar.name, f"{name}_block2", name) in lines(model)
        assert found[f"{name}_block1"].task == name  # though all tasks depend on it


def test_what_works_inside_of_a_block_stands_beside_it() -> None:
    found = diagram(mlp(2, sharing="lora"))
    inner = found["digit_lora1"]
    assert (inner.kind, inner.label, inner.beside) == ("inner", "lora", "shared_block1")
    assert not [x for x in found.lines if inner.name in (x.source, x.target)]


def test_layers_of_a_model_made_by_hand_keep_their_names() -> None:
    inputs = keras.Input((4,), name="features")
    x = keras.layers.Dense(3, name="dense_1")(inputs)
    outputs = {
        name: kmtl.TaskOutput(kmtl.Regression(name))(
            keras.layers.Dense(1, name=f"{name}_out2")(x)
        )
        for name in NAMES[:2]
    }
    model = kmtl.MultiTaskModel(inputs, outputs)
    found = boxes(model)
    assert found["dense_1"] == ("layer", "dense_1", None)
    assert found["digit_out2"] == ("layer", "out2", "digit")
    assert architecture(model).figure.dpi == 200


# -- places ----------------------------------------------------------------------------


def test_boxes_that_are_apart_keep_order_and_distance() -> None:
    assert _apart([0.0, 0.0], [1.0, 1.0], [0.0, 2.0]) == [-1.0, 1.0]
    assert _apart([0.0, 5.0], [1.0, 1.0], [0.0, 2.0]) == [0.0, 5.0]
    # The heavier one moves less: the mean of 0 and -2 with weights 3 and 1 is -0.5.
    assert _apart([0.0, 0.0], [3.0, 1.0], [0.0, 2.0]) == [-0.5, 1.5]


def test_crossings_are_counted_and_undone() -> None:
    links = [("a", "d"), ("b", "c")]
    assert crossings([["a", "b"], ["c", "d"]], links) == 1
    assert crossings([["a", "b"], ["d", "c"]], links) == 0
    rows = {"a": 0, "b": 0, "c": 1, "d": 1, "e": 2}
    placed = layered(
        rows,
        dict.fromkeys(rows, (0.5, 0.5)),
        [*links, ("a", "e"), ("d", "e")],
        [(0.0, 1.0), (2.0, 3.0), (4.0, 5.0)],
        {"a": 0, "b": 1, "c": 0, "d": 1, "e": 0},
    )
    assert (placed.x["a"] < placed.x["b"]) is (placed.x["d"] < placed.x["c"])
    assert placed.y == {"a": 0.5, "b": 0.5, "c": 2.5, "d": 2.5, "e": 4.5}
    # The line over the middle row has a point at each of its edges, at one x.
    (x1, y1), (x2, y2) = placed.routes["a", "e"]
    assert (x1, y1, y2) == (x2, 2.0, 3.0)
    assert all(abs(x1 - placed.x[name]) > 0.5 for name in ("c", "d"))


SCHEMES = {
    "hard": {"sharing_depth": 1},
    "independent": {"sharing": "independent"},
    "cross_stitch": {"sharing": "cross_stitch"},
    "mmoe": {"sharing": "mmoe"},
    "ple": {"sharing": "ple"},
    "film": {"sharing": "film"},
    "lora": {"sharing": "lora"},
}


@pytest.mark.parametrize("tasks", [2, 8])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_two_boxes_overlap(scheme: str, tasks: int) -> None:
    picture = Picture(diagram(mlp(tasks, **SCHEMES[scheme])), use_dot=False)
    x, y, size = picture.placed.x, picture.placed.y, picture.size
    for one, two in itertools.combinations(size, 2):
        apart = max(
            abs(x[one] - x[two]) - (size[one][0] + size[two][0]) / 2,
            abs(y[one] - y[two]) - (size[one][1] + size[two][1]) / 2,
        )
        assert apart > 0.03, (one, two)
    left, right, _, _ = picture.extent()
    assert right - left < 2.2 * tasks + 4
    order = [x[f"{name}_head"] for name in NAMES[:tasks]]
    assert order == sorted(order)


# -- drawing ---------------------------------------------------------------------------


def test_every_box_and_line_is_drawn() -> None:
    model = mlp(2, sharing="mmoe")
    found = diagram(model)
    ax = architecture(model, layout="own")
    texts = [text.get_text() for text in ax.texts]
    for word in ("digit", "mask", "gate", "Σ", "experts, block 2", "inputs"):
        assert word in texts
    arrows = [p for p in ax.patches if type(p).__name__ == "FancyArrowPatch"]
    assert len(arrows) == len(found.lines)
    assert texts.count("gate") == 2
    faces = {tuple(np.round(p.get_facecolor(), 3)) for p in ax.patches}
    from matplotlib.colors import to_rgba

    assert tuple(np.round(to_rgba(COLORS[1]), 3)) in faces  # the second task's head
    assert not ax.axison


def test_shapes_can_be_left_out_and_axes_given() -> None:
    _, axes = plt.subplots(1, 2, figsize=(4, 2))
    model = mlp(2)
    assert architecture(model, axes[1], shapes=False) is axes[1]
    texts = {text.get_text() for text in axes[1].texts}
    assert texts == {"inputs", "block 1", "block 2", "digit", "mask"}
    small = axes[1].texts[0].get_size()
    assert small < architecture(model).texts[0].get_size()  # fits the given space


def test_dots_name_the_tasks_that_share_a_block() -> None:
    ax = architecture(mlp(sharing_depth={"digit": 2, "mask": 2, "ink": 1}))
    dots = [p for p in ax.patches if type(p).__name__ == "Circle"]
    from matplotlib.colors import to_hex

    assert [to_hex(dot.get_facecolor()).upper() for dot in dots] == [*COLORS[:2]]


def test_unknown_layouts_and_models_are_refused(monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"`layout` must be one of .*'dot', 'own'"):
        architecture(mlp(), layout="dto")
    monkeypatch.setattr(_dot.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="needs Graphviz"):
        architecture(mlp(), layout="dot")
    with pytest.raises(TypeError, match="MultiTaskModel"):
        architecture("model")


# -- Graphviz --------------------------------------------------------------------------

PLAIN = """graph 1 2 3
node n0 1 0.25 0.75 0.5 "" solid box black lightgrey
node n1 0.5 2.75 0.75 0.5 "" solid box black lightgrey
edge n0 n1 7 1 0.5 1 0.7 0.9 0.9 0.8 1.1 0.7 1.5 0.6 1.8 0.5 2.2 solid black
stop
"""


def test_the_plain_format_is_read() -> None:
    placed = _dot._read(PLAIN, ["a", "b"])
    assert placed.x == {"a": 1.0, "b": 0.5}
    assert placed.y == {"a": 0.25, "b": 2.75}
    assert placed.routes == {("a", "b"): [(0.8, 1.1)]}
    with pytest.raises(ValueError, match="placed 2 of 3 boxes"):
        _dot._read(PLAIN, ["a", "b", "c"])


def test_what_dot_is_asked() -> None:
    rows, sizes = {"a": 0, "b": 1, "c": 1}, dict.fromkeys("abc", (1.0, 0.5))
    text = _dot.dot_source(rows, sizes, [("a", "b"), ("a", "c")], ["a", "b", "c"])
    assert "{rank=same; n1; n2;}" in text
    assert "n0 -> n1;" in text
    assert "n0 -> n2;" in text
    assert "width=1.000 height=0.500" in text


@pytest.mark.parametrize("answer", ["exit 3", "echo nonsense here"])
def test_a_dot_that_fails_is_told_and_done_without(
    answer: str, tmp_path: Path, monkeypatch, caplog
) -> None:
    program = tmp_path / "dot"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    ax = architecture(mlp(2), layout="dot")
    assert "Graphviz found no layout" in caplog.text
    assert {"digit", "mask"} <= {text.get_text() for text in ax.texts}


@pytest.mark.skipif(not _dot.is_present(), reason="Graphviz' dot is not installed")
def test_with_dot() -> None:
    found = diagram(mlp(3, sharing="cross_stitch"))
    picture = Picture(found, use_dot=True)
    ranks, y = found.ranks(), picture.placed.y
    for line in found.lines:
        assert (y[line.source] < y[line.target]) is (
            ranks[line.source] < ranks[line.target]
        )
