from __future__ import annotations

import math
from typing import Any

import keras_tuner
import numpy as np
import pytest

import kmtl
from kmtl.tuning import Choice, Float, Int, Space, TaskWeights

THREE = (
    kmtl.Classification("digit", classes=10),
    kmtl.Segmentation("mask", classes=2),
    kmtl.Regression("ink"),
)
VECTOR = {"input_shape": (8,)}
IMAGE = {"input_shape": (8, 8, 1)}


def values_of(space: Space, **chosen: Any) -> dict[str, Any]:
    hp = keras_tuner.HyperParameters()
    space.values(hp)
    hp.values.update(chosen)
    return space.values(hp)


def draws(space: Space, number: int) -> list[dict[str, Any]]:
    """Values as KerasTuner samples them, from seeds 0, 1, 2, ..."""
    hp = keras_tuner.HyperParameters()
    space.values(hp)
    found = []
    for i in range(number):
        for j, parameter in enumerate(hp.space):
            hp.values[parameter.name] = parameter.random_sample(i * len(hp.space) + j)
        found.append(space.values(hp))
    return found


# -- defaults --------------------------------------------------------------------------


def test_default_space_is_depth_dropout_weights_and_learning_rate() -> None:
    space = Space(kmtl.build_cnn, THREE, fixed={**IMAGE, "filters": (4, 8, 16)})
    assert space.dimensions == {
        "sharing_depth": Int(0, 3, default=3),
        "dropout": Float(0.0, 0.3, default=0.0),
        "task_weights": TaskWeights(0.25, 4.0, tasks=("digit", "mask", "ink")),
        "learning_rate": Float(5e-4, 5e-2, log=True, default=3e-3),
    }


def test_defaults_of_the_hyperparameters_are_the_builders_own() -> None:
    values = values_of(Space(kmtl.build_mlp, THREE, fixed=VECTOR))
    assert values["sharing_depth"] == 2
    assert values["dropout"] == 0.0
    assert values["task_weights"] == dict.fromkeys(("digit", "mask", "ink"), 1.0)
    assert values["learning_rate"] == pytest.approx(3e-3)


@pytest.mark.parametrize(
    ("fixed", "gone"),
    [
        ({"dropout": 0.2}, {"dropout"}),
        ({"dropout": None}, {"dropout"}),
        ({"sharing_depth": 1}, {"sharing_depth"}),
        ({"sharing": kmtl.sharing.HardSharing(depth=1)}, {"sharing_depth"}),
        ({"sharing": "hard"}, set()),
        ({"loss_weights": "uniform"}, {"task_weights"}),
    ],
)
def test_what_is_fixed_leaves_the_default_space(fixed: dict, gone: set) -> None:
    space = Space(kmtl.build_mlp, THREE, fixed={**VECTOR, **fixed})
    everything = {"sharing_depth", "dropout", "task_weights", "learning_rate"}
    assert set(space.dimensions) == everything - gone


def test_one_task_has_nothing_to_share_or_to_weigh() -> None:
    space = Space(kmtl.build_mlp, THREE[:1], fixed=VECTOR)
    assert list(space.dimensions) == ["dropout", "learning_rate"]


def test_names_choose_among_the_defaults() -> None:
    space = Space(kmtl.build_mlp, THREE, ["dropout"], VECTOR)
    assert space.dimensions == {"dropout": Float(0.0, 0.3, default=0.0)}


def test_builder_without_blocks_needs_a_range_for_the_depth() -> None:
    def builder(*, tasks: Any, sharing_depth: int = 1) -> Any: ...

    assert list(Space(builder, THREE).dimensions) == ["learning_rate"]
    with pytest.raises(ValueError, match="`sharing_depth` has no default range"):
        Space(builder, THREE, ["sharing_depth"])
    space = Space(builder, THREE, {"sharing_depth": (0, 4)})
    assert space.dimensions == {"sharing_depth": Int(0, 4, default=1)}


# -- the simplex -----------------------------------------------------------------------


def test_task_weights_sum_to_their_number_and_ratios_are_log_uniform() -> None:
    space = Space(kmtl.build_mlp, THREE, ["task_weights"], VECTOR)
    weights = [draw["task_weights"] for draw in draws(space, 2000)]
    table = np.array([[w["digit"], w["mask"], w["ink"]] for w in weights])
    assert table.min() > 0
    np.testing.assert_allclose(table.sum(axis=1), 3.0, rtol=1e-12)
    for task in (1, 2):
        logs = np.log10(table[:, task] / table[:, 0])
        most = np.log10(4)
        assert logs.min() >= -most - 1e-9
        assert logs.max() <= most + 1e-9
        counts, _ = np.histogram(logs, bins=10, range=(-most, most))
        # Chi-squared with 9 degrees of freedom: 27.9 has a probability of 0.001.
        assert ((counts - 200.0) ** 2 / 200.0).sum() < 27.9
    correlation = np.corrcoef(np.log(table[:, 1:] / table[:, :1]).T)[0, 1]
    assert abs(correlation) < 0.08


def test_task_weights_by_hand() -> None:
    space = Space(
        kmtl.build_mlp, THREE, {"task_weights": TaskWeights(0.5, 4, total=6)}, VECTOR
    )
    values = values_of(space, weight_ratio_mask=0.5, weight_ratio_ink=4.0)
    # 1 : 0.5 : 4 scaled to sum to 6
    expected = {"digit": 6 / 5.5, "mask": 3 / 5.5, "ink": 24 / 5.5}
    assert values["task_weights"] == pytest.approx(expected)
    assert space.signature.builder_values(values) == {
        "input_shape": (8,),
        "loss_weights": pytest.approx(expected),
    }


def test_weights_have_one_parameter_less_than_tasks() -> None:
    hp = keras_tuner.HyperParameters()
    Space(kmtl.build_mlp, THREE, ["task_weights"], VECTOR).values(hp)
    assert list(hp.values) == ["weight_ratio_mask", "weight_ratio_ink"]


def test_learning_rate_is_log_uniform() -> None:
    space = Space(kmtl.build_mlp, THREE, ["learning_rate"], VECTOR)
    logs = [math.log10(draw["learning_rate"]) for draw in draws(space, 1000)]
    ends = (math.log10(5e-4), math.log10(5e-2))
    counts, _ = np.histogram(logs, bins=4, range=ends)
    assert ((counts - 250.0) ** 2 / 250.0).sum() < 16.3  # 3 degrees, 0.001


# -- ranges ----------------------------------------------------------------------------


def test_short_forms() -> None:
    space = Space(
        kmtl.build_mlp,
        THREE,
        {
            "sharing_depth": (0, 1),
            "dropout": (0.1, 0.4),
            "learning_rate": (1e-3, 1, "log"),
            "units": [(4,), (8, 8)],
            "normalization": [None, "batch"],
            "activation": {"soft": "softplus", "hard": "relu"},
        },
        VECTOR,
    )
    # They begin at what holds without a search, or as near as they come to it.
    assert space.dimensions["sharing_depth"] == Int(0, 1, default=1)
    assert space.dimensions["dropout"] == Float(0.1, 0.4, default=0.1)
    middle = space.dimensions["learning_rate"].default  # nothing is known of it here
    assert middle == pytest.approx(10**-1.5)
    assert space.dimensions["learning_rate"] == Float(1e-3, 1, log=True, default=middle)
    values = values_of(
        space, units="(8, 8)", normalization="None", activation="hard", dropout=0.25
    )
    assert values == {
        "sharing_depth": 1,
        "dropout": 0.25,
        "learning_rate": middle,
        "units": (8, 8),
        "normalization": None,
        "activation": "relu",
    }


def test_a_model_with_fewer_blocks_shares_all_it_has() -> None:
    space = Space(
        kmtl.build_mlp,
        THREE,
        {"units": [(4,), (8, 8, 8)], "sharing_depth": "default"},
        VECTOR,
    )
    assert space.dimensions["sharing_depth"] == Int(0, 3, default=3)
    assert values_of(space, units="(4,)", sharing_depth=3)["sharing_depth"] == 1
    assert values_of(space, units="(8, 8, 8)", sharing_depth=3)["sharing_depth"] == 3


def test_arguments_of_a_fixed_backbone() -> None:
    backbone = kmtl.backbones.CNN(filters=(4, 8), normalization="batch")
    space = Space(kmtl.build, THREE, None, {**IMAGE, "backbone": backbone})
    assert list(space.dimensions)[:2] == ["sharing_depth", "dropout"]
    assert space.dimensions["sharing_depth"] == Int(0, 2, default=2)
    built = space.signature.builder_values(values_of(space, dropout=0.3))["backbone"]
    assert built == kmtl.backbones.CNN(
        filters=(4, 8), normalization="batch", dropout=0.3
    )


def test_values_are_python_numbers_after_bayesian_steps() -> None:
    space = Space(
        kmtl.build_mlp, THREE, {"sharing_depth": (0, 2), "dropout": (0.0, 0.5)}, VECTOR
    )
    values = values_of(space, sharing_depth=np.int64(1), dropout=np.float64(0.25))
    assert type(values["sharing_depth"]) is int
    assert type(values["dropout"]) is float


@pytest.mark.parametrize(
    ("space", "error", "message"),
    [
        ({"dropuot": (0.0, 0.5)}, ValueError, "Did you mean 'dropout'"),
        ({"filters": [(4,)]}, ValueError, "'filters'"),
        ({"tasks": [1]}, ValueError, "cannot be searched"),
        ({"seed": (0, 5)}, ValueError, "cannot be searched"),
        ({"loss_weights": (0.0, 1.0)}, ValueError, r"space\['task_weights'\]"),
        ({"dropout": (0.5, 0.1)}, ValueError, r"space\['dropout'\].*`high`.*\[0.5"),
        ({"dropout": (0.0, 1.0)}, ValueError, r"number in \[0, 1\)"),
        ({"learning_rate": (0.0, 1.0)}, ValueError, r"number in \(0"),
        ({"learning_rate": (0.0, 1.0, "log")}, ValueError, "must be > 0 on a log"),
        ({"learning_rate": (0.1, 1.0, "lgo")}, ValueError, "Did you mean 'log'"),
        ({"sharing_depth": (0, 3)}, ValueError, "<= 2. Received.*=3"),
        ({"sharing_depth": (-1, 2)}, ValueError, ">= 0"),
        ({"units": "default"}, ValueError, "`units` has no default range"),
        ({"units": []}, ValueError, "at least one value"),
        ({"units": [(4,), (4,)]}, ValueError, "must be distinct"),
        ({"activation": [len]}, TypeError, "give objects a name"),
        ({"dropout": 0.5}, TypeError, r"`\(low, high\)`"),
        ({"dropout": TaskWeights()}, TypeError, "kmtl.tuning.TaskWeights"),
        ({"task_weights": (0.1, 10.0)}, TypeError, "kmtl.tuning.TaskWeights"),
        ({"input_shape": [(4,)]}, ValueError, "fixed and in `space`"),
        ("dropout", TypeError, "`space` must be"),
        (3, TypeError, "`space` must be"),
    ],
)
def test_bad_spaces_are_refused(space: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Space(kmtl.build_mlp, THREE, space, VECTOR)


def test_bad_builders_and_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'unitz'. Did you mean 'units'"):
        Space(kmtl.build_mlp, THREE, None, {**VECTOR, "unitz": (4,)})
    with pytest.raises(ValueError, match="needs `size`"):
        Space(lambda tasks, size: None, THREE)
    with pytest.raises(TypeError, match="must take `tasks`"):
        Space(lambda units: None, THREE)
    with pytest.raises(TypeError, match="must be callable"):
        Space("mlp", THREE)
    with pytest.raises(ValueError, match="two tasks or more"):
        Space(kmtl.build_mlp, THREE[:1], ["task_weights"], VECTOR)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Int(0, 5, log=True),
        lambda: Int(1, 5, log=True, step=2),
        lambda: Int(0, 5, default=6),
        lambda: Float(0.0, float("nan")),
        lambda: Float(0.0, 1.0, default=2.0),
        lambda: TaskWeights(low=0.0),
        lambda: TaskWeights(low=2.0, high=1.0),
        lambda: Choice(["a", "b"], default="c"),
    ],
)
def test_bad_dimensions_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="Received"):
        make()


def test_choice_defaults_to_its_first_value_or_the_one_given() -> None:
    assert Choice([(4,), (8,)]).default == "(4,)"
    assert Choice([[4], [8]], default=[8]).default == "(8,)"
    assert Choice([1, 2, 3], default=2).default == 2
