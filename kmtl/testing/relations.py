"""The battery for regularisers of task relations."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmtl.relations.base import Relations
from kmtl.tasks.regression import Regression
from kmtl.testing._models import VECTORS, model_of
from kmtl.testing._running import arrays, gradient, run

#: Makes an object with a factor of the penalty.
Make = Callable[[float], Relations]
NAMES = ("a", "b", "c")
LABELS = {name: VECTORS[:, place] for place, name in enumerate(NAMES)}


def compiled(relations: Relations | None) -> Any:
    """A small model with three tasks."""
    model = model_of([Regression(name) for name in NAMES], VECTORS)
    model.compile(keras.optimizers.SGD(0.1), relations=relations)
    return model


def check_config(make: Make) -> None:
    """The config gives an object with the same arguments."""
    original = make(0.5)
    config = keras.saving.serialize_keras_object(original)
    again: Any = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(original)
    assert again.get_config() == original.get_config()
    assert again.alpha == 0.5


def check_penalty(make: Make) -> None:
    """The penalty is a finite number >= 0 with a finite gradient, kinks included."""
    relations = compiled(make(1.0)).relations
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    one_direction = weights[:, :1] * np.array([1.0, -2.0, 0.5], "float32")
    for matrix in (weights, one_direction, 0 * weights):
        value, slope = gradient(relations.penalty_of, matrix)
        assert np.isfinite(value)
        assert value >= 0
        assert slope.shape == matrix.shape
        assert np.isfinite(slope).all()


def check_matrix(make: Make) -> None:
    """The relation matrix is symmetric with trace 1, before and after an update."""
    relations = compiled(make(1.0)).relations
    for _ in range(2):
        matrix = np.asarray(relations.covariance(), "float64")
        assert matrix.shape == (3, 3)
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
        np.testing.assert_allclose(np.trace(matrix), 1, rtol=1e-4)
        assert list(relations.matrix().columns) == list(NAMES)
        relations.update(relations.weights_matrix())


def check_alpha_zero(make: Make) -> None:
    """With `alpha=0` training is what it is without, bit for bit."""
    plain, zero = compiled(None), compiled(make(0.0))
    for model in (plain, zero):
        model.fit(VECTORS, LABELS, batch_size=3, verbose=0, shuffle=False)
    for one, other in zip(
        arrays(plain.trainable_variables), arrays(zero.trainable_variables), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def check_training(make: Make) -> None:
    """A model with it trains, and is saved and loaded with its state."""
    model = compiled(make(0.1))
    model.fit(VECTORS, LABELS, batch_size=3, verbose=0)
    logs = model.evaluate(VECTORS, LABELS, return_dict=True, verbose=0)
    penalty = float(model.relations.penalty(training=False))
    np.testing.assert_allclose(logs["regularization_loss"], penalty, rtol=1e-4)
    before = arrays(model.relations.variables)
    model.relations.penalty(training=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded: Any = keras.models.load_model(path)
    assert type(loaded.relations) is type(model.relations)
    for found in (model.relations, loaded.relations):
        for old, new in zip(before, arrays(found.variables), strict=True):
            np.testing.assert_array_equal(old, new)


CHECKS = (check_config, check_penalty, check_matrix, check_alpha_zero, check_training)


def check_relations(make: Any) -> None:
    """Run kmtl's own contract tests on a regulariser of task relations.

    Args:
        make: The class; or a function from the factor `alpha` to an object of it.

    Raises:
        AssertionError: from the first check that fails; its notes say what it checks.
        TypeError: if what is made is no relations object of kmtl.

    Example:

    >>> kmtl.testing.check_relations(kmtl.relations.TraceNorm)
    """
    factory = (lambda alpha: make(alpha=alpha)) if isinstance(make, type) else make
    made = factory(1.0)
    if not isinstance(made, Relations):
        raise TypeError(
            "`make` must give an object of a subclass of kmtl.relations.Relations. "
            f"Received: {type(made).__name__}"
        )
    run(CHECKS, factory)
