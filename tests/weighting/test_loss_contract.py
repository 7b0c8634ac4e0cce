"""What every loss-based weighting keeps, whatever its formula."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import loss_weighting_tools as tools
import numpy as np
import pytest
from keras import ops

from kmtl import weighting as package
from kmtl.testing import loss_weighting

pytestmark = pytest.mark.backend

each_case = pytest.mark.parametrize("case", sorted(tools.CASES))


@each_case
@pytest.mark.parametrize("check", loss_weighting.CHECKS, ids=lambda c: c.__name__)
def test_contract(case: str, check: Callable[..., None]) -> None:
    draws = case in tools.RANDOM
    options = loss_weighting.WITHOUT_DRAWS.get(check) if draws else None
    check(tools.CASES[case], **(options or {}))


@pytest.mark.parametrize("case", tools.RANDOM)
def test_random_weights_under_xla(case: str) -> None:
    step = tools.compiled(tools.make(case, tools.task_names(3)))
    present = np.array([1, 0, 1])
    draws = [ops.convert_to_numpy(step(np.ones(3), present)[1]) for _ in range(3)]
    np.testing.assert_allclose(np.sum(draws, axis=1), 1, rtol=1e-5)
    assert len({float(draw[0]) for draw in draws}) == 3


@keras.saving.register_keras_serializable(package="kmtl_tests")
class Holder(keras.Model):
    """A model that has a weighting as an attribute, and uses it in `compute_loss`."""

    def __init__(self, weighting: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)
        self.weighting = weighting

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        losses = ops.mean((y - y_pred) ** 2, axis=0)
        return self.weighting.combine(losses, ops.ones((2,)), training)[0]

    def get_config(self) -> dict[str, Any]:
        weighting = keras.saving.serialize_keras_object(self.weighting)
        return {**super().get_config(), "weighting": weighting}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        return cls(keras.saving.deserialize_keras_object(config.pop("weighting")))


@pytest.mark.parametrize("case", ["dwa", "famo", "rlw", "stch", "uncertainty"])
def test_state_is_trained_saved_and_restored(case: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(16, 3)).astype("float32")
    y = random.normal(size=(16, 2)).astype("float32") * [1, 10]

    model = Holder(tools.make(case, tools.task_names(2)))
    start = tools.state(model.weighting)
    model.compile(keras.optimizers.Adam(0.01))
    hooks = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: model.weighting.on_epoch_begin(epoch),
        on_epoch_end=lambda epoch, logs: model.weighting.on_epoch_end(epoch, {}),
    )
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[hooks])
    trained = tools.state(model.weighting)
    assert any(not np.array_equal(a, b) for a, b in zip(start, trained, strict=True))
    assert all(np.all(np.isfinite(values)) for values in trained)

    path = tmp_path / "model.keras"
    model.save(path)
    restored = keras.saving.load_model(path)
    for a, b in zip(trained, tools.state(restored.weighting), strict=True):
        np.testing.assert_array_equal(a, b)
    weights = tmp_path / "model.weights.h5"
    model.save_weights(weights)
    other = Holder(tools.make(case, tools.task_names(2)))
    other(x)
    other.load_weights(weights)
    for a, b in zip(trained, tools.state(other.weighting), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="must have as many variables"):
        other.weighting.load_own_variables({})


def test_every_registered_class_is_exported() -> None:
    for case in tools.CASES.values():
        cls = type(case(tools.task_names(2)))
        assert getattr(package, cls.__name__) is cls
        assert cls.__name__ in package.__all__
    with pytest.raises(AttributeError, match="Did you mean 'DWA'"):
        _ = package.DWAA
