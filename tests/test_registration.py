"""Classes from outside kmtl: as objects, by name, through plugins, in saved models."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import registry_tools
from keras import ops

import kmtl
from kmtl import _registry

pytestmark = pytest.mark.backend

TASKS = [kmtl.Regression("a"), kmtl.Regression("b")]
X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y = {"a": X[:, 0], "b": X[:, 1]}


class WorstTask(kmtl.weighting.LossWeighting):
    """All weight for the task with the largest loss."""

    def __init__(self, power: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.power = power

    def combine(self, losses: Any, present: Any, training: bool = True) -> Any:
        losses, mask = self.prepare(losses, present)
        worst = ops.cast(losses == ops.max(losses), losses.dtype) * mask
        weights = ops.stop_gradient(worst / ops.maximum(ops.sum(worst), 1))
        return ops.sum(weights * losses), weights

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power}


class Huber(kmtl.Regression):
    """A kind of its own that only its class tells from its parent."""

    def loss_values(self, labels: Any, outputs: Any) -> Any:
        return 2.0 * super().loss_values(labels, outputs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Narrow(kmtl.backbones.Backbone):
    """One dense block."""

    width: int = 3
    INPUT_RANKS = (1,)

    @property
    def num_blocks(self) -> int:
        return 1

    def block(self, index: int, features: Any, make: Any) -> Any:
        return self.finish(make.dense(self.width, "dense")(features), make)


class Twice(kmtl.sharing.HardSharing):
    """Hard sharing under another name."""


class Ridge(kmtl.relations.Relations):
    """The square of all kernels."""

    def penalty_of(self, weights: Any) -> Any:
        return ops.sum(ops.square(weights))


@pytest.fixture
def registry() -> Iterator[None]:
    """What is registered in a test is forgotten after it."""
    mine = [WorstTask, Huber, Narrow, Twice, Ridge]
    names = [cls.registered_name for cls in mine]
    with registry_tools.restored():
        yield
    for cls, name in zip(mine, names, strict=True):
        cls.registered_name = name


def build(**options: Any) -> kmtl.MultiTaskModel:
    options = {"tasks": TASKS, "backbone": Narrow()} | options
    return kmtl.build(input_shape=(4,), seed=0, **options)


def test_objects_work_at_once(tmp_path: Path) -> None:
    model = build(tasks=[Huber("a"), TASKS[1]], sharing=Twice())
    plain = kmtl.build(
        backbone=kmtl.backbones.MLP(units=(3,)), input_shape=(4,), tasks=TASKS, seed=0
    )
    for net in (model, plain):
        net.compile(keras.optimizers.SGD(0.0), weighting=WorstTask(), relations=Ridge())
        net.fit(X, Y, verbose=0)
    first, second = (
        net.evaluate(X, Y, return_dict=True, verbose=0) for net in (model, plain)
    )
    assert first["a_loss"] == pytest.approx(2 * second["a_loss"], rel=1e-5)
    assert first["b_loss"] == pytest.approx(second["b_loss"], rel=1e-5)
    assert model.weighting.name == "worst_task_weighting"
    assert first["regularization_loss"] > 0


def test_a_name_for_each_kind_and_a_file_that_remembers_it(
    registry: None, tmp_path: Path
) -> None:
    assert kmtl.register(WorstTask) is WorstTask
    assert kmtl.register("my_huber")(Huber) is Huber
    assert kmtl.register(kind="backbone")(Narrow) is Narrow
    kmtl.register(Twice, "twice")
    kmtl.register(Ridge, name="ridge", kind="relations")
    kmtl.register(Ridge, name="ridge")  # again, as a notebook's cell does
    assert Huber.registered_name == "my_huber"
    assert {"worst_task", "my_huber", "narrow", "twice", "ridge"} <= {
        name for kind in _registry.KINDS for name in _registry.names(kind)
    }
    model = build(tasks=[Huber("a"), TASKS[1]], backbone="narrow", sharing="twice")
    model.compile("adam", weighting="worst_task", relations="ridge")
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.task("a")) is Huber
    assert type(loaded.weighting) is WorstTask
    assert type(loaded.relations) is Ridge
    assert loaded.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)
    space = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=TASKS,
        input_shape=(4,),
        space={"weighting": [None, "worst_task"], "worst_task.power": (0.5, 2.0)},
    ).space
    assert "worst_task.power" in space.dimensions


def test_a_subclass_is_never_taken_for_its_parent() -> None:
    config = Huber("a").to_config()
    assert config["kind"] == f"{__name__}.Huber"
    assert type(kmtl.Task.from_config(config)) is Huber
    assert Huber("a") != kmtl.Regression("a")
    same_name = type("Regression", (kmtl.Regression,), {"__module__": "elsewhere"})
    assert type(kmtl.Task.from_config(same_name("a").to_config())) is same_name
    assert type(kmtl.Task.from_config(kmtl.Regression("a").to_config())) is (
        kmtl.Regression
    )
    config["kind"] = "elsewhere.Unknown"  # as in a process that has not imported it
    with pytest.raises(ValueError, match=r"Unknown task .*call kmtl\.register"):
        kmtl.Task.from_config(config)
    for kind, thing in (("backbone", Narrow()), ("sharing", Twice())):
        again = type(thing).from_config(thing.to_config())
        assert again == thing, kind


def test_what_cannot_be_registered(registry: None) -> None:
    with pytest.raises(TypeError, match=r"subclass of kmtl\.tasks\.Task or .*int"):
        kmtl.register(int)
    with pytest.raises(TypeError, match=r"of kmtl\.sharing\.Sharing\. Received"):
        kmtl.register(Narrow, kind="sharing")
    with pytest.raises(ValueError, match="`kind` must be one of"):
        kmtl.register(Narrow, kind="trunk")
    with pytest.raises(ValueError, match="weighting name `dwa` is taken by kmtl"):
        kmtl.register(WorstTask, "dwa")
    with pytest.raises(ValueError, match="must be an identifier"):
        kmtl.register(WorstTask, "worst task")
    with pytest.raises(ValueError, match=r"Unknown weighting 'worst_task'"):
        kmtl.weighting.get("worst_task")


@dataclasses.dataclass
class Point:
    """An entry point as `importlib.metadata` gives it."""

    name: str
    loaded: Any

    @property
    def value(self) -> str:
        return f"package:{self.name}"

    def load(self) -> Any:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


def test_plugins(registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        Point("from_class", WorstTask),
        Point("from_function", lambda: kmtl.register(Ridge, "from_function")),
        Point("from_module", types),
        Point("broken", ImportError("no module named torch")),
    ]
    asked = []

    def entry_points(group: str) -> list[Point]:
        asked.append(group)
        return points

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    monkeypatch.setattr(_registry, "_loaded", _registry._loaded - {_registry.PLUGINS})
    with pytest.warns(RuntimeWarning, match=r"plugin 'broken' .*no module named torch"):
        names = _registry.names("weighting")
    assert "from_class" in names
    assert "from_function" in _registry.names("relations")
    assert asked == ["kmtl.plugins"]
    assert type(kmtl.weighting.get("from_class")) is WorstTask
    assert "WorstTask" not in kmtl.weighting.__all__
