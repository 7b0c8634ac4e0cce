"""Mixed precision, XLA and several steps per execution."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl

pytestmark = pytest.mark.backend

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 6)).astype("float32")
Y = {
    "size": (X[:, 0] - 2 * X[:, 1]).astype("float32"),
    "kind": (X[:, 2] > 0).astype("int32") + (X[:, 3] > 0),
}
Y["size"][::7] = np.nan


def build(**options):
    return kmtl.build_mlp(
        input_shape=(6,),
        units=(16,),
        tasks=[kmtl.Regression("size"), kmtl.Classification("kind", classes=3)],
        seed=0,
        **options,
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_weights_really_move_and_outputs_are_float32(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = build(dropout=0.1)
        model.compile(keras.optimizers.Adam(0.02))
        before = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
        history = model.fit(X, Y, epochs=25, batch_size=20, verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    after = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    assert all(np.abs(b - a).max() > 1e-2 for b, a in zip(before, after, strict=True))
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    outputs = model.predict(X, verbose=0)
    assert {output.dtype for output in outputs.values()} == {np.dtype("float32")}
    assert np.isfinite(history["size_loss"]).all()


def test_outputs_have_the_digits_of_float32():
    """In bfloat16 numbers about 2000 are multiples of 8."""
    years = kmtl.Quantile("years", levels=(0.1, 0.9))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = kmtl.build_mlp(
            input_shape=(6,), units=(8,), tasks=[kmtl.Regression("year"), years], seed=0
        )
    finally:
        keras.config.set_dtype_policy("float32")
    weights = {variable.path: variable for variable in model.weights}
    weights["year_head_logits/bias"].assign([2013.25])
    weights["years_head_logits/bias"].assign([2013.25, -3.0])
    weights["years_head_logits/kernel"].assign(np.zeros((8, 2)))
    weights["year_head_logits/kernel"].assign(np.zeros((8, 1)))
    found = {name: np.array(part)[0] for name, part in model(X[:1]).items()}
    np.testing.assert_allclose(found["year"], [2013.25])
    step = np.log1p(np.exp(-3.0))
    np.testing.assert_allclose(found["years"], [2013.25, 2013.25 + step], atol=1e-3)


@pytest.mark.thorough(on="jax")
@pytest.mark.parametrize(
    "options", [{"jit_compile": True}, {"steps_per_execution": 3}], ids=str
)
@pytest.mark.parametrize("weighting", [None, "dwa", "cagrad"])
def test_execution_options_change_no_number(options, weighting):
    def run(**options):
        model = build()
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
        model.compile(optimizer, weighting=weighting, **options)
        return model.fit(
            X, Y, epochs=2, batch_size=16, shuffle=False, verbose=0
        ).history

    plain = run(jit_compile=False) if keras.backend.backend() != "jax" else run()
    other = run(**options)
    assert set(plain) == set(other)
    for key, values in plain.items():
        np.testing.assert_allclose(other[key], values, rtol=1e-4, err_msg=key)
