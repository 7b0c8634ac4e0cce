"""Gates against their equations, on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from core_tools import gradient
from keras import ops

import kmtl
from kmtl.layers.dselect_k_gate import DSelectKGate, smooth_step
from kmtl.layers.gates import SoftmaxGate
from kmtl.layers.top_k_gate import TopKGate

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]

ONE = np.ones((1, 1), "float32")


def dselect(experts: int, selectors, logits, **arguments) -> DSelectKGate:
    """A gate whose z and logits are these, whatever it reads."""
    gate = DSelectKGate(experts, "a", selected=len(logits), **arguments)
    gate.build((None, 1))
    for name in ("selector_kernel", "weight_kernel"):
        variable = getattr(gate, name)
        variable.assign(ops.zeros(variable.shape))
    gate.selector_bias.assign(np.reshape(selectors, -1))
    gate.weight_bias.assign(logits)
    return gate


def test_smooth_step() -> None:
    t = np.array([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0], "float32")
    # gamma = 2: -t ** 3 / 4 + 3 t / 4 + 1 / 2
    expected = [0, 0, 0.15625, 0.5, 0.84375, 1, 1]
    np.testing.assert_allclose(smooth_step(t, 2.0), expected, atol=1e-7)
    _, slope = gradient(lambda at: ops.sum(smooth_step(at, 2.0)), t)
    np.testing.assert_allclose(slope, [0, 0, 0.5625, 0.75, 0.5625, 0, 0], atol=1e-6)


def test_dselect_k_by_hand() -> None:
    # gamma = 1: S(0.25) = -2 / 64 + 1.5 / 4 + 0.5 = 0.84375; codes 00, 01, 10, 11.
    gate = dselect(4, [[0.25, -1.0], [0.0, 1.0]], [np.log(3.0), 0.0])
    first = [0.15625, 0, 0.84375, 0]
    second = [0, 0.5, 0, 0.5]
    expected = 0.75 * np.array(first) + 0.25 * np.array(second)
    np.testing.assert_allclose(gate(ONE), [expected], atol=1e-6)
    assert gate.losses == []  # nothing at inference
    gate(ONE, training=True)
    both = np.array(first + second)
    entropy = -np.sum(both * np.log(both + 1e-6))
    assert float(gate.losses[0]) == pytest.approx(1e-3 * entropy, rel=1e-5)
    np.testing.assert_allclose(gate.readings()["a"], expected, atol=1e-6)


def test_dselect_k_with_codes_that_are_nobodys() -> None:
    # Three experts: of the second selector only the codes 00, 01, 10 count.
    selectors = [[1.0, -1.0], [0.25, 0.25]]
    gate = dselect(3, selectors, [0.0, 0.0], entropy=0.0, reachability=0.5)
    assert gate.bits == 2
    low, high = 0.15625, 0.84375
    second = np.array([low * low, low * high, high * low])
    expected = 0.5 * np.array([0, 0, 1]) + 0.5 * second
    np.testing.assert_allclose(gate(ONE), [expected], atol=1e-6)
    gate(ONE, training=True)
    penalty = 0.5 * (1.0 + 1.0 / second.sum())
    assert float(gate.losses[0]) == pytest.approx(penalty, rel=1e-5)
    for experts in (2, 4, 8):  # no such codes: no such loss
        gate = DSelectKGate(experts, "a", entropy=0.0)
        gate(ONE, training=True)
        assert gate.losses == []


@pytest.mark.parametrize("experts", [2, 3, 4, 5])
def test_dselect_k_with_as_many_selectors_can_be_any_softmax_gate(experts: int) -> None:
    """Selector l at the code of expert l, and W x + b the logits of the softmax."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 3)).astype("float32")
    softmax = SoftmaxGate(experts, "a")
    expected = softmax(x)
    gate = DSelectKGate(experts, "a", selected=experts, gamma=1.0)
    gate(x)
    codes = [
        [0.5 if letter == "1" else -0.5 for letter in f"{e:0{gate.bits}b}"]
        for e in range(experts)
    ]
    gate.selector_kernel.assign(ops.zeros(gate.selector_kernel.shape))
    gate.selector_bias.assign(np.reshape(codes, -1))
    gate.weight_kernel.assign(softmax.kernel)
    gate.weight_bias.assign(ops.zeros(experts))
    np.testing.assert_array_equal(gate(x), expected)
    # And not by chance: with a code changed it is another one.
    gate.selector_bias.assign(-np.reshape(codes, -1))
    assert not np.allclose(gate(x), expected)


def top_k(logits, **arguments) -> tuple[TopKGate, np.ndarray]:
    """A gate that passes its inputs on as logits, and these."""
    logits = np.array(logits, "float32")
    gate = TopKGate(logits.shape[1], "a", noise=False, **arguments)
    gate.build(logits.shape)
    gate.kernel.assign(np.eye(logits.shape[1]))
    return gate, logits


def test_top_k_by_hand() -> None:
    ln = np.log
    rows = [[0.0, ln(3.0), 0.0 - 5, ln(1.0) - 9], [ln(4.0), -7, -8, ln(1.0)]]
    gate, logits = top_k(rows, selected=2, balance=0.1)
    expected = [[0.25, 0.75, 0, 0], [0.8, 0, 0, 0.2]]
    np.testing.assert_allclose(gate(logits), expected, atol=1e-6)
    assert gate.losses == []
    gate(logits, training=True)
    # Four choices: expert 1 twice, 2 and 4 once.
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    used = np.array([0.5, 0.25, 0.0, 0.25])
    balance = 0.1 * 4 * np.sum(used * probabilities.mean(0))
    assert float(gate.losses[0]) == pytest.approx(balance, rel=1e-5)
    np.testing.assert_allclose(gate.readings()["a"], np.mean(expected, 0), atol=1e-6)


def test_balance_of_even_and_of_single_use() -> None:
    even, logits = top_k(9.0 * np.eye(4), selected=1, balance=1.0)
    even(logits, training=True)
    assert float(even.losses[0]) == pytest.approx(1.0, rel=1e-5)
    single, logits = top_k([[30.0, 0, 0, 0]] * 3, selected=1, balance=1.0)
    single(logits, training=True)
    assert float(single.losses[0]) == pytest.approx(4.0, rel=1e-5)
    free, logits = top_k(np.eye(4), balance=0.0)
    free(logits, training=True)
    assert free.losses == []


def test_top_k_of_all_experts_is_the_softmax_gate() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3))
    gate, logits = top_k(logits, selected=3, temperature=0.7)
    np.testing.assert_allclose(
        gate(logits), ops.softmax(logits / 0.7), rtol=1e-5, atol=1e-7
    )


def test_the_noise_of_top_k() -> None:
    gate = TopKGate(3, "a", selected=1, seed=5, balance=0.0)
    x = np.zeros((4000, 1), "float32")  # logits 0, scale softplus(0): any expert
    chosen = ops.convert_to_numpy(gate(x, training=True))
    np.testing.assert_allclose(chosen.mean(0), 1 / 3, atol=0.03)
    again = TopKGate(3, "a", selected=1, seed=5, balance=0.0)
    np.testing.assert_array_equal(again(x, training=True), chosen)
    assert not np.array_equal(again(x, training=True), chosen)  # drawn anew
    # TensorFlow's softmax multiplies by a reciprocal, an ulp off on some CPUs; what is
    # not chosen is exactly 0.
    silent = ops.convert_to_numpy(gate(x))
    np.testing.assert_allclose(silent, np.tile([1, 0, 0], (4000, 1)), rtol=1e-6, atol=0)
    # With a scale that is 0 nothing is noisy.
    gate.kernel.assign([[0.0, 1.0, 0.5]])
    gate.noise_kernel.assign([[-200.0] * 3])
    ones = np.ones((5, 1), "float32")
    np.testing.assert_array_equal(gate(ones, training=True), np.tile([0, 1, 0], (5, 1)))


@pytest.mark.parametrize("kind", [SoftmaxGate, TopKGate, DSelectKGate])
def test_configs_give_the_same_gate(kind: type) -> None:
    gate = kind(3, "a", labels=("x", "y", "z"), pool=False)
    again = kind.from_config(gate.get_config())
    assert again.get_config() == gate.get_config()
    assert again.reading_labels() == ("x", "y", "z")
    x = np.ones((2, 3, 2), "float32")
    assert gate(x).shape == (2, 3)  # flattened
    assert gate.trainable_variables[0].shape[0] == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopKGate(3, "a", selected=4), r"`selected`.*>= 1 and <= 3.*=4"),
        (lambda: TopKGate(3, "a", balance=-1), r"`balance` must be a number in \[0"),
        (lambda: DSelectKGate(1, "a", selected=1), r"`experts`.*>= 2.*experts=1"),
        (lambda: DSelectKGate(3, "a", selected=0), r"`selected`.*=0"),
        (lambda: DSelectKGate(3, "a", gamma=0), r"`gamma` must be a number in \(0"),
        (lambda: DSelectKGate(3, "a", entropy=-1), r"`entropy`"),
        (lambda: SoftmaxGate(3, "a", temperature=-2), r"`temperature`.*=-2"),
        (lambda: kmtl.layers.Mixture(2)([np.ones((1, 3)), ONE]), "must get 2 weights"),
    ],
)
def test_refusals(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_mixture_of_several_banks() -> None:
    mix = kmtl.layers.Mixture([2, 1])
    first = np.arange(12, dtype="float32").reshape(1, 3, 4)  # places, 2 * 2 channels
    second = np.full((1, 3, 2), 100.0, "float32")
    got = mix([np.array([[1.0, 2.0, 3.0]]), first, second])
    expected = first[..., :2] + 2 * first[..., 2:] + 3 * second
    np.testing.assert_allclose(got, expected)
    plain = mix.to_keras()
    np.testing.assert_allclose(
        plain([np.array([[1.0, 2.0, 3.0]]), first, second]), expected
    )
