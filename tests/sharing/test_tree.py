"""Trees of blocks: who shares what, the limit cases, refusals."""

from __future__ import annotations

import json

import column_tools as tools
import numpy as np
import pytest

import kmtl
from kmtl.sharing import HardSharing, Sharing, TreeSharing

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]

TASKS = [kmtl.Classification("kind", classes=3), *map(kmtl.Regression, "abc")]
NAMES = ["kind", "a", "b", "c"]
ALL = [NAMES]
ALONE = [[name] for name in NAMES]
FORK = [["c", "a"], ["b", "kind"]]


def tree(*groups, **options):
    options = {"tasks": TASKS, "activation": "tanh"} | options
    return tools.mlp(sharing=TreeSharing(groups=groups), **options)


def dense_layers(model) -> list[str]:
    return [layer.name for layer in model.layers if layer.name.endswith("_dense")]


def test_blocks_and_their_outputs() -> None:
    model = tree(ALL, FORK, [["a"], ["c"], ["kind", "b"]])
    assert sorted(dense_layers(model)) == [
        "a_and_c_block2_dense",
        "a_block3_dense",
        "c_block3_dense",
        "kind_and_b_block2_dense",
        "shared_block1_dense",
        "shared_block3_dense",
    ]
    assert model.seam is None
    tools.shake(model)
    x, _ = tools.data(model)

    def block(name: str, features: np.ndarray) -> np.ndarray:
        kernel, bias = map(tools.value, model.get_layer(f"{name}_dense").weights)
        return np.tanh(features @ kernel + bias)

    first = block("shared_block1", x)
    left, right = block("a_and_c_block2", first), block("kind_and_b_block2", first)
    features = {"a": block("a_block3", left), "c": block("c_block3", left)}
    features |= dict.fromkeys(("kind", "b"), block("shared_block3", right))
    for name, output in tools.outputs(model, x).items():
        kernel, bias = map(tools.value, model.get_layer(f"{name}_head_logits").weights)
        expected = features[name] @ kernel + bias
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


HARD = {
    "all": ((ALL, ALL, ALL), 3),
    "two": ((ALL, ALL, ALONE), 2),
    "none": ((ALONE, ALONE, ALONE), 0),
    "per_task": (
        (ALL, [["kind", "a", "b"], ["c"]], [["kind"], ["a"], ["b"], ["c"]]),
        {"kind": 2, "a": 2, "b": 2, "c": 1},
    ),
    "chain": (
        (ALL, [["kind", "a", "b"], ["c"]], [["kind"], ["a", "b"], ["c"]]),
        {"kind": 2, "a": 3, "b": 3, "c": 1},
    ),
}


@pytest.mark.parametrize("case", HARD)
def test_equals_hard_sharing(case: str) -> None:
    groups, depth = HARD[case]
    one = tree(*groups)
    two = tools.mlp(tasks=TASKS, sharing=HardSharing(depth=depth))
    assert {v.path for v in one.weights} == {v.path for v in two.weights}
    assert (one.seam is None) == (two.seam is None)
    tools.assert_same(one, two, tools.data(one)[0])


def test_order_of_names_decides_nothing() -> None:
    one = TreeSharing(groups=[ALL, FORK])
    two = TreeSharing(groups=[[NAMES[::-1]], [["kind", "b"], ["a", "c"]]])
    assert one == two
    assert Sharing.from_config(json.loads(json.dumps(one.to_config()))) == one
    # All tasks apart from the first block on, and single-task models.
    assert tools.mlp(tasks=TASKS[:1], sharing=TreeSharing(groups=[[["kind"]]] * 3)).seam


def test_trains_and_survives(tmp_path) -> None:
    model = tree(ALL, FORK, ALONE, dropout=0.1)
    x, labels = tools.data(model)
    labels |= dict.fromkeys("abc", labels["size"])
    model.compile("adam", weighting="pcgrad")
    history = model.fit(x, {n: labels[n] for n in NAMES}, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    model.set_dropout([0.1, 0.2, 0.3])
    tools.survives(model, tmp_path)
    image = tools.cnn(tasks=TASKS, sharing=TreeSharing(groups=[FORK, ALONE]))
    assert image(np.zeros((2, 6, 6, 2)))["kind"].shape == (2, 3)


BAD = {
    "blocks": ((ALL, ALL), ValueError, "per block: 3 of them. Received: 2 part"),
    "unknown": (([["kind", "a", "b", "d"]],) * 3, ValueError, "Unknown task 'd' in"),
    "lacks": (([["kind", "a", "b"]],) * 3, ValueError, "`groups` lacks task c"),
    "later": ((ALL, [["a", "b"]], ALL), ValueError, r"`groups\[1\]` lacks tasks c, k"),
    "twice": (
        (ALL, [["a", "b"], ["b", "c", "kind"]], ALL),
        ValueError,
        "'b' in groups",
    ),
    "meet": ((ALL, FORK, ALL), ValueError, r"never meet again.*groups\[1\]="),
    "cross": (
        (FORK, [["a", "b"], ["c", "kind"]], ALONE),
        ValueError,
        r"Received: \['a', 'b'\] in groups\[1\]",
    ),
    "text": (("kind",) * 3, TypeError, r"groups\[0\]='kind'"),
    "flat": ((["kind", "a"],), TypeError, r"\[\.\.\.\]='kind'"),
    "empty": (([[], NAMES],), ValueError, r"at least one. Received: \[\]"),
    "number": (([[1, 2]],), ValueError, r"Received: \[1, 2\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case: str) -> None:
    groups, error, message = BAD[case]
    with pytest.raises(error, match=message):
        tree(*groups)
