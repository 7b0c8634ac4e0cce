"""DSelect-k and sparse mixtures: their limits, losses and refusals."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.sharing import DSelectK, MMoE, SparseMoE

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 4)).astype("float32")
TASKS = [kmtl.Regression("a"), kmtl.Classification("b", classes=3)]
Y = {"a": RNG.normal(size=8), "b": RNG.integers(0, 3, 8)}


def mlp(sharing, **options):
    options = {"units": (5, 3), "seed": 2} | options
    return kmtl.build_mlp(input_shape=(4,), tasks=TASKS, sharing=sharing, **options)


def gate(model, task: str) -> keras.layers.Layer:
    return model.get_layer(f"{task}_gate1")


def test_dselect_k_of_all_experts_can_be_mmoe() -> None:
    """With the selectors at the codes of the experts and the gates' own kernels."""
    model, mmoe = mlp(DSelectK(experts=3, selected=3)), mlp(MMoE(experts=3))
    codes = [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5]]
    for task in "ab":
        layer = gate(model, task)
        layer.selector_kernel.assign(ops.zeros(layer.selector_kernel.shape))
        layer.selector_bias.assign(np.reshape(codes, -1))
        layer.weight_kernel.assign(gate(mmoe, task).kernel)
        layer.weight_bias.assign(ops.zeros(3))
    expected = mmoe(X)
    for name, output in model(X).items():
        np.testing.assert_array_equal(output, expected[name])


def test_selection_becomes_sparse() -> None:
    """The entropy term drives a selector to one expert that exists."""
    scheme = DSelectK(experts=5, selected=1, entropy=1.0, reachability=1.0)
    model = mlp(scheme)
    gates = keras.Model(model.inputs[0], gate(model, "a").output)
    before = np.sort(ops.convert_to_numpy(gates(X)), axis=1)
    assert before[:, -2].min() > 0.05  # spread over codes
    model.compile(keras.optimizers.Adam(0.05))
    model.fit(X, Y, epochs=60, verbose=0)
    after = np.sort(ops.convert_to_numpy(gates(X)), axis=1)
    np.testing.assert_allclose(after[:, -1], 1.0, atol=1e-3)
    np.testing.assert_allclose(after[:, :-1], 0.0, atol=1e-3)


def test_every_expert_selected_is_mmoe() -> None:
    full = mlp(SparseMoE(experts=3, selected=3, noise=False, temperature=0.5))
    expected = mlp(MMoE(experts=3, temperature=0.5))(X)
    for name, output in full(X).items():
        np.testing.assert_allclose(output, expected[name], rtol=1e-5)


def test_the_best_experts_are_mixed() -> None:
    model, mmoe = mlp(SparseMoE(experts=3, selected=1)), mlp(MMoE(experts=3))
    weights = keras.Model(model.inputs[0], gate(model, "b").output)(X)
    dense = keras.Model(mmoe.inputs[0], gate(mmoe, "b").output)(X)
    best = ops.convert_to_numpy(ops.argmax(dense, axis=1))
    # The softmax of one number may be an ulp off 1, as in tests/layers/test_gates.py.
    np.testing.assert_allclose(weights, np.eye(3)[best], rtol=1e-6, atol=0)


def test_losses_of_the_gates_reach_the_total_in_training_only() -> None:
    model = mlp(SparseMoE(experts=3, balance=0.5))
    model.compile(keras.optimizers.SGD(0.0))
    history = model.fit(X, Y, verbose=0).history
    # Two gates, each at most at balance * experts / selected: always the same experts.
    assert 0.5 < history["regularization_loss"][0] <= 2 * 0.75
    total = history["a_loss"][0] + history["b_loss"][0]
    penalty = history["regularization_loss"][0]
    assert history["loss"][0] == pytest.approx(total + penalty, rel=1e-5)
    logs = model.evaluate(X, Y, return_dict=True, verbose=0)
    assert logs["loss"] == pytest.approx(logs["a_loss"] + logs["b_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DSelectK(experts=3, selected=4), r"`selected`.*<= 3\. .*selected=4"),
        (lambda: DSelectK(gamma=0), r"`gamma` must be a number in \(0"),
        (lambda: DSelectK(entropy=-1), r"`entropy`"),
        (lambda: DSelectK(reachability=-1), r"`reachability`"),
        (lambda: SparseMoE(selected=0), r"`selected`"),
        (lambda: SparseMoE(balance=-0.1), r"`balance`"),
        (lambda: SparseMoE(noise="no"), r"`noise`"),
        (lambda: SparseMoE(temperature=0), r"`temperature`"),
    ],
)
def test_refusals(make, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()
