"""Spaces beyond the default: conditions, components, blocks, tasks, simplex, fit."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

import kmtl
from kmtl import _registry
from kmtl.training.schedules import SCHEDULES, LearningRateSchedule, factor
from kmtl.tuning import (
    Choice,
    Float,
    Int,
    PerBlock,
    PerTask,
    Space,
    UniformWeights,
    WeightGrid,
    signature,
)

THREE = (kmtl.Regression("a"), kmtl.Regression("b"), kmtl.Regression("c"))
VECTOR = {"input_shape": (8,)}
IMAGE = {"input_shape": (8, 8, 1)}


def make(space: Any, builder: Any = kmtl.build_mlp, **fixed: Any) -> Space:
    shape = IMAGE if builder is kmtl.build_cnn else VECTOR
    return Space(builder, THREE, space, {**shape, **fixed})


def values_of(space: Space, **chosen: Any) -> dict[str, Any]:
    """Values where the hyperparameters have these; `__` stands for a dot."""
    hp = keras_tuner.HyperParameters()
    space.values(hp)
    for name, value in chosen.items():
        assert name.replace("__", ".") in hp.values
        hp.values[name.replace("__", ".")] = value
    return space.values(hp)


def draws(space: Space, number: int) -> list[dict[str, Any]]:
    hp = keras_tuner.HyperParameters()
    space.values(hp)
    found = []
    for i in range(number):
        for j, parameter in enumerate(hp.space):
            hp.values[parameter.name] = parameter.random_sample(i * len(hp.space) + j)
        found.append(space.values(hp))
    return found


# -- conditions ------------------------------------------------------------------------


def test_a_value_counts_only_where_its_condition_holds() -> None:
    space = make(
        {
            "normalization": [None, "batch", "layer"],
            "sharing_depth": (0, 2),
            "dropout": Float(0.1, 0.5, when={"normalization": [None, "layer"]}),
            "activation": Choice(["relu", "tanh"], when={"sharing_depth": 0}),
        }
    )
    both = values_of(space, normalization="None", sharing_depth=0)
    assert both["dropout"] == 0.1
    assert both["activation"] == "relu"
    neither = values_of(space, normalization="batch", sharing_depth=1)
    assert neither == {"normalization": "batch", "sharing_depth": 1}
    assert space.signature.builder_values(neither) == {**VECTOR, **neither}
    # All are declared, flat: a sampler sees the same space in every trial.
    hp = keras_tuner.HyperParameters()
    space.values(hp)
    assert {item.name for item in hp.space} == set(space.dimensions)


def test_conditions_of_conditions() -> None:
    space = make(
        {
            "kernel_regularizer": Choice(["l1", "l2"], when={"activation": "tanh"}),
            "activation": Choice(["relu", "tanh"], when={"normalization": "batch"}),
            "normalization": ["layer", "batch"],
        }
    )
    chosen = {"activation": "tanh", "kernel_regularizer": "l2"}
    assert values_of(space, **chosen) == {"normalization": "layer"}
    assert values_of(space, **chosen, normalization="batch") == {
        **chosen,
        "normalization": "batch",
    }


@pytest.mark.parametrize(
    ("when", "error", "message"),
    [
        ({"normalisation": "batch"}, ValueError, "Did you mean 'normalization'"),
        ({"normalization": "bach"}, ValueError, "never is.*Did you mean 'batch'"),
        ({"sharing_depth": 3}, ValueError, "<= 2.*=3"),
        ({"learning_rate": 0.1}, TypeError, "needs a Choice or an Int.*a float"),
        ({"task_weights": 0.1}, TypeError, "a UniformWeights, which has several"),
        ({"dropout": 0.1}, TypeError, "a float"),
        ({"normalization": "batch"}, ValueError, "`space.'activation'.` waits for its"),
        ({}, TypeError, "`when` must be a dict"),
        ("batch", TypeError, "`when` must be a dict"),
    ],
)
def test_conditions_that_cannot_hold_are_refused(
    when: Any, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        make(
            {
                "dropout": Float(0.0, 0.5, when=when),
                "activation": Choice(["relu", "tanh"], when={"pooling": "max"}),
                "pooling": Choice(["max", "avg"], when={"activation": "relu"}),
                "normalization": ["batch", "layer"],
                "sharing_depth": (0, 2),
                "learning_rate": "default",
                "task_weights": "uniform",
            },
            kmtl.build_cnn,
        )


# -- weighting, optimizer, sharing -----------------------------------------------------


def hypermodel(space: Any, **options: Any) -> kmtl.HyperModel:
    options = {"units": (4,), "tasks": THREE, **VECTOR, "seed": 0, **options}
    return kmtl.HyperModel(kmtl.build_mlp, space=space, **options)


def compiled(model: kmtl.HyperModel, **chosen: Any) -> dict[str, Any]:
    return model.compile_arguments(values_of(model.space, **chosen))


@pytest.mark.backend
def test_weighting_with_its_own_hyperparameters() -> None:
    model = hypermodel(
        {
            "weighting": ["equal", "dwa", "gradnorm"],
            "dwa.temperature": (1.0, 4.0),
            "gradnorm.alpha": "default",
        }
    )
    chosen = {"dwa__temperature": 3.0, "gradnorm__alpha": 0.5}
    dwa = compiled(model, weighting="dwa", **chosen)["weighting"]
    assert (type(dwa), dwa.temperature) == (kmtl.weighting.DWA, 3.0)
    norm = compiled(model, weighting="gradnorm", **chosen)["weighting"]
    assert (type(norm), norm.alpha) == (kmtl.weighting.GradNorm, 0.5)
    assert compiled(model, weighting="equal", **chosen)["weighting"] == "equal"
    assert values_of(model.space, weighting="equal", **chosen) == {"weighting": "equal"}
    hp = keras_tuner.HyperParameters()
    model.build(hp)
    hp.values.update({"weighting": "dwa", "dwa.temperature": 3.0})
    assert model.build(hp).weighting.temperature == 3.0


def test_default_weightings_bring_their_hyperparameters() -> None:
    space = make(["weighting"])
    assert list(space.dimensions) == [
        "weighting",
        "dwa.temperature",
        "famo.learning_rate",
    ]
    model = hypermodel(["weighting"])
    for name in space.dimensions["weighting"].names:
        hp = keras_tuner.HyperParameters()
        model.declare_hyperparameters(hp)
        hp.values["weighting"] = name
        assert model.build(hp).weighting.registered_name == name


@pytest.mark.parametrize("kind", ["sharing", "weighting"])
def test_default_ranges_are_of_arguments_and_hold_their_defaults(kind: str) -> None:
    found = 0
    for name in _registry.names(kind):
        defaults = inspect.signature(_registry.get(kind, name)).parameters
        for argument in signature.arguments_of(kind, name):
            dimension = signature.default_range(f"{name}.{argument}")
            if dimension is None:
                continue
            found += 1
            usual = defaults[argument].default
            if usual is not None:
                assert (
                    dimension.declare(keras_tuner.HyperParameters(), argument) == usual
                )
    assert found >= 9


def test_arguments_of_what_is_not_searched() -> None:
    model = hypermodel(
        {"dwa.temperature": (1.0, 4.0), "adam.beta_1": (0.8, 0.99)},
        compile_options={"weighting": "dwa"},
    )
    found = compiled(model, dwa__temperature=2.5, adam__beta_1=0.85)
    assert found["weighting"].temperature == 2.5
    assert found["optimizer"].beta_1 == 0.85


def test_optimizer_with_its_own_learning_rate() -> None:
    model = hypermodel(
        {
            "optimizer": ["adam", "sgd"],
            "learning_rate": (1e-4, 1e-2, "log"),
            "sgd.learning_rate": "default",
            "sgd.momentum": "default",
        }
    )
    chosen = {
        "learning_rate": 2e-3,
        "sgd__learning_rate": 0.25,
        "sgd__momentum": 0.75,
    }
    adam = compiled(model, optimizer="adam", **chosen)["optimizer"]
    sgd = compiled(model, optimizer="sgd", **chosen)["optimizer"]
    assert isinstance(adam, keras.optimizers.Adam)
    assert float(adam.learning_rate) == pytest.approx(2e-3)
    assert isinstance(sgd, keras.optimizers.SGD)
    assert (float(sgd.learning_rate), sgd.momentum) == (0.25, 0.75)


def test_a_learning_rate_that_is_not_used_does_not_count() -> None:
    common, own = (1e-4, 1e-2, "log"), (1e-2, 1.0, "log")
    rates = {"learning_rate": common, "sgd.learning_rate": own}
    space = hypermodel({"optimizer": ["adam", "sgd"], **rates}).space
    assert set(values_of(space, optimizer="adam")) == {"optimizer", "learning_rate"}
    assert set(values_of(space, optimizer="sgd")) == {"optimizer", "sgd.learning_rate"}
    fixed = hypermodel(rates, optimizer="sgd").space
    assert set(values_of(fixed)) == {"sgd.learning_rate"}
    # A rate is no optimizer's own that is an argument of a weighting.
    famo = {"learning_rate": common, "famo.learning_rate": own, "weighting": ["famo"]}
    assert set(values_of(hypermodel(famo).space)) == set(famo)
    circle = {"optimizer": Choice(["adam", "sgd"], when={"learning_rate": 0.1})}
    with pytest.raises(ValueError, match="waits for itself"):
        hypermodel({**circle, **rates, "learning_rate": [0.1, 0.2]})


def test_the_depth_counts_for_hard_sharing_only() -> None:
    space = make({"sharing": ["hard", "other"], "sharing_depth": (0, 2)})
    assert values_of(space, sharing="hard", sharing_depth=1) == {
        "sharing": "hard",
        "sharing_depth": 1,
    }
    assert values_of(space, sharing="other", sharing_depth=1) == {"sharing": "other"}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"dwa.temperature": (1.0, 2.0)}, "cannot be chosen"),
        ({"weighting": ["dwa"], "dwa.temprature": (1.0, 2.0)}, "mean 'temperature'"),
        ({"weighting": ["dwa"], "daw.temperature": (1.0, 2.0)}, "Did you mean 'dwa'"),
        ({"optimizer": ["sgd"], "sgd.momentun": (0.1, 0.9)}, "Did you mean 'momentum'"),
        ({"width": "default", "units": [(4,), (8,)]}, "one thing"),
        ({"dropout": PerTask()}, "is for `space\\['sharing_depth'\\]"),
        ({"sharing_depth": PerBlock()}, "is for `space\\['dropout'\\]"),
        ({"sharing_depth": PerTask(0, 3)}, "<= 2"),
        ({"batch_size": (0, 4)}, ">= 1"),
        ({"task_weights": WeightGrid(2)}, ">= 3"),
        ({"task_weights": [{"a": 1, "b": 1}]}, "lacks task"),
        ({"task_weights": UniformWeights(1.0)}, "low"),
        ({"task_weights": UniformWeights(0.5, total=1.0)}, "low"),
    ],
)
def test_spaces_that_cannot_be_are_refused(space: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make(space)


# -- blocks and tasks ------------------------------------------------------------------


def test_dropout_per_block() -> None:
    space = make({"dropout": "per_block", "units": [(4,), (8, 8, 8)]})
    rates = {f"dropout_block{i}": i / 10 for i in (1, 2, 3)}
    assert values_of(space, **rates, units="(8, 8, 8)")["dropout"] == (0.1, 0.2, 0.3)
    assert values_of(space, **rates, units="(4,)")["dropout"] == (0.1,)
    model = hypermodel({"dropout": PerBlock(0.1, 0.2)}, units=(4, 4))
    built = kmtl.build_mlp(**model.arguments(keras_tuner.HyperParameters()))
    rate = built.get_layer("shared_block2_dropout").current_rate()
    assert rate == pytest.approx(0.1)


def test_sharing_depth_per_task() -> None:
    space = make({"sharing_depth": "per_task"})
    depths = {f"sharing_depth_{task}": 2 for task in "abc"}
    assert values_of(space)["sharing_depth"] == {"a": 2, "b": 2, "c": 2}
    # Alone in the second block is the same as leaving after the first.
    found = values_of(space, **{**depths, "sharing_depth_a": 0, "sharing_depth_b": 1})
    assert found["sharing_depth"] == {"a": 0, "b": 1, "c": 1}
    space = make({"sharing_depth": PerTask(1), "units": [(4,), (4, 4)]})
    assert values_of(space, **depths, units="(4,)")["sharing_depth"] == {
        "a": 1,
        "b": 1,
        "c": 1,
    }
    built = hypermodel(["sharing_depth"], units=(4, 4)).space
    assert built.dimensions["sharing_depth"] == Int(0, 2, default=2)


def test_width_and_blocks() -> None:
    space = make({"width": "default", "blocks": "default", "sharing_depth": "default"})
    assert space.dimensions["sharing_depth"] == Int(0, 4, default=4)
    values = values_of(space, width=128, blocks=3, sharing_depth=4)
    assert space.signature.builder_values(values) == {
        **VECTOR,
        "units": (128, 128, 128),
        "sharing_depth": 3,
    }
    cnn = make({"width": (4, 8), "blocks": (1, 3)}, kmtl.build_cnn)
    values = values_of(cnn, width=4, blocks=3)
    assert cnn.signature.builder_values(values)["filters"] == (4, 8, 16)
    alone = make({"blocks": (1, 3)}, kmtl.build_cnn)  # 32 filters first, as the builder
    assert alone.signature.builder_values(values_of(alone, blocks=1))["filters"] == (
        32,
    )
    alone = make({"width": (4, 8)}, kmtl.build_cnn)
    assert alone.signature.builder_values(values_of(alone, width=5))["filters"] == (
        5,
        10,
    )
    backbone = kmtl.backbones.CNN(filters=(4, 8), normalization="batch")
    space = Space(kmtl.build, THREE, ["width"], {**IMAGE, "backbone": backbone})
    built = space.signature.builder_values(values_of(space, width=16))["backbone"]
    assert built == kmtl.backbones.CNN(filters=(16, 32), normalization="batch")
    with pytest.raises(ValueError, match="fixed and in `space`"):
        make(["width"], units=(4,))


def test_l2_regularises_all_kernels() -> None:
    model = hypermodel({"l2": "default", "activation": "default"})
    hp = keras_tuner.HyperParameters()
    model.declare_hyperparameters(hp)
    hp.values.update({"l2": 0.01, "activation": "gelu"})
    layer = model.build(hp).get_layer("shared_block1_dense")
    assert layer.kernel_regularizer.l2 == pytest.approx(0.01)


# -- weights ---------------------------------------------------------------------------


def test_uniform_weights_are_uniform_on_the_simplex() -> None:
    found = [d["task_weights"] for d in draws(make({"task_weights": "uniform"}), 2000)]
    table = np.array([[w["a"], w["b"], w["c"]] for w in found]) / 3
    np.testing.assert_allclose(table.sum(axis=1), 1.0, rtol=1e-12)
    assert table.min() >= 0
    for column in table.T:  # each weight is Beta(1, 2): P(w <= x) = 1 - (1 - x)^2
        quantiles = 1 - (1 - column) ** 2
        counts, _ = np.histogram(quantiles, bins=10, range=(0, 1))
        assert ((counts - 200.0) ** 2 / 200.0).sum() < 27.9  # 9 degrees, 0.001
    # Dirichlet(1, 1, 1): covariance of two weights is -1/36.
    assert np.cov(table.T)[0, 1] == pytest.approx(-1 / 36, abs=4e-3)
    assert np.cov(table.T)[1, 2] == pytest.approx(-1 / 36, abs=4e-3)


def test_uniform_weights_by_hand() -> None:
    even = values_of(make({"task_weights": "uniform"}))["task_weights"]
    assert even == pytest.approx(dict.fromkeys("abc", 1.0))
    space = make({"task_weights": UniformWeights(0.1, total=2.3)})
    # a takes 1 - sqrt(1 - 0.75) = 1/2 of 2, b a quarter of the rest, and 0.1 each
    found = values_of(space, weight_stick_a=0.75, weight_stick_b=0.25)
    assert found["task_weights"] == pytest.approx({"a": 1.1, "b": 0.35, "c": 0.85})


def test_grid_of_weights() -> None:
    space = make({"task_weights": WeightGrid(5)})
    names = space.dimensions["task_weights"].names
    assert len(names) == 6  # 4 over 2
    found = values_of(space, task_weights="0.2/0.6/0.2")["task_weights"]
    assert found == pytest.approx({"a": 0.6, "b": 1.8, "c": 0.6})
    even = values_of(make({"task_weights": WeightGrid(6)}))["task_weights"]
    assert even == dict.fromkeys("abc", 1.0)
    space = make({"task_weights": WeightGrid(4, total=1)})
    found = values_of(space, task_weights="0.25/0.5/0.25")["task_weights"]
    assert found == {"a": 0.25, "b": 0.5, "c": 0.25}
    with pytest.raises(ValueError, match="`total` must be None for a list"):
        WeightGrid([{"a": 1.0}], total=1.0)
    points = [{"a": 1, "b": 1, "c": 2}, {"c": 0, "b": 3, "a": 1}]
    space = make({"task_weights": points})
    found = values_of(space, task_weights="1/3/0")["task_weights"]
    assert found == {"a": 1.0, "b": 3.0, "c": 0.0}
    with pytest.raises(ValueError, match="distinct"):
        make({"task_weights": [points[0], points[0]]})


# -- fit -------------------------------------------------------------------------------


def test_schedules_by_hand() -> None:
    def rates(name: str, epochs: int = 10) -> list[float]:
        return [round(factor(name, epoch, epochs), 4) for epoch in range(epochs)]

    assert rates("constant") == [1.0] * 10
    assert rates("linear", 4) == [1.0, 0.75, 0.5, 0.25]
    assert rates("cosine", 4) == [1.0, 0.8536, 0.5, 0.1464]
    assert rates("step") == [1.0] * 6 + [0.1] * 3 + [0.01]
    assert rates("warmup_cosine", 5) == [0.5, 1.0, 0.8536, 0.5, 0.1464]
    for name in SCHEDULES:
        assert all(
            0 < rate <= 1 for epochs in (1, 2, 3) for rate in rates(name, epochs)
        )
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        LearningRateSchedule("cosin")


DATA = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
LABELS = dict.fromkeys("abc", DATA[:, 0])


class Watch(keras.callbacks.Callback):
    """Notes the learning rate and the number of steps of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, int]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.first = int(self.model.optimizer.iterations)
        self.rate = float(self.model.optimizer.learning_rate)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        steps = int(self.model.optimizer.iterations) - self.first
        self.seen.append((round(self.rate, 6), steps))


@pytest.mark.backend
@pytest.mark.parametrize("first", [0, 2])
def test_schedule_and_batch_size_of_a_trial(first: int) -> None:
    model = hypermodel(
        {
            "learning_rate_schedule": "default",
            "batch_size": [10, 20],
            "learning_rate": (0.01, 0.1),
        }
    )
    hp = keras_tuner.HyperParameters()
    model.declare_hyperparameters(hp)
    hp.values.update({"learning_rate_schedule": "linear", "batch_size": 20})
    watch = Watch()
    model.fit(
        hp,
        model.build(hp),
        DATA,
        LABELS,
        epochs=4,
        initial_epoch=first,
        callbacks=[watch],
        verbose=0,
    )
    expected = [(0.01, 2), (0.0075, 2), (0.005, 2), (0.0025, 2)]
    assert watch.seen == expected[first:]


def test_a_searched_batch_size_is_given_once_and_needs_arrays() -> None:
    model = hypermodel({"batch_size": [10, 20]})
    hp = keras_tuner.HyperParameters()
    built = model.build(hp)
    with pytest.raises(keras_tuner.errors.FatalValueError, match="`batch_size` is sea"):
        model.fit(hp, built, DATA, LABELS, batch_size=4)
    with pytest.raises(keras_tuner.errors.FatalValueError, match="type zip"):
        model.fit(hp, built, zip([DATA], [LABELS], strict=True))
    for name in ("batch_size", "learning_rate_schedule"):
        assert name not in model.arguments(hp)
