"""Figures of a search, tested on the data they draw."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas
import pytest
from matplotlib import pyplot as plt

from kmtl.plotting import (
    depth_weight,
    hyperparameters,
    importances,
    learning_curves,
    parallel_coordinates,
    pareto,
)
from kmtl.plotting.search import BEST
from kmtl.tuning import importance

DIRECTIONS = {"val_kind_accuracy": "max", "val_size_mae": "min"}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def table(rows: int = 40, **columns: Any) -> pandas.DataFrame:
    """As `tuner.results()` makes it; accuracy depends on the depth alone."""
    random = np.random.default_rng(0)
    depth = random.integers(0, 3, rows)
    weight = random.uniform(0.1, 0.9, rows)
    found = pandas.DataFrame(
        {
            "status": "COMPLETED",
            "feasible": True,
            "sharing_depth": depth,
            "dropout": random.uniform(0, 0.5, rows),
            "task_weight_kind": weight,
            "task_weight_size": 1 - weight,
            "activation": random.choice(["relu", "tanh"], rows),
            "val_kind_accuracy": 0.5 + depth / 10,
            "val_size_mae": 1.0 - weight + depth / 10,
            **columns,
        },
        index=pandas.Index([str(i) for i in range(rows)], name="trial"),
    )
    names = [
        "sharing_depth",
        "dropout",
        "task_weight_kind",
        "task_weight_size",
        "activation",
    ]
    found.attrs = {
        "hyperparameters": names,
        "objectives": ["val_kind_accuracy"],
        "directions": DIRECTIONS,
        "scores": {"kind": "val_kind_accuracy", "size": "val_size_mae"},
    }
    return found


def points(ax: Any, which: int = 0) -> list[tuple[float, float]]:
    return [tuple(point) for point in ax.collections[which].get_offsets().tolist()]


def test_importance_finds_what_the_metric_depends_on() -> None:
    found = importance(table())
    assert found.index[0] == "sharing_depth"
    assert found.iloc[0] > 0.95
    assert found.sum() == pytest.approx(1.0)
    other = importance(table(), "val_size_mae")
    assert list(other.index[:2]) == ["task_weights", "sharing_depth"]
    # Variances: 0.8^2 / 12 of the weight, 0.1^2 * 2 / 3 of the depth: 8 to 1.
    assert other["task_weights"] > 0.8
    ax = importances(table())
    assert [bar.get_width() for bar in ax.patches] == list(found)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(found.index)


def test_importance_of_what_does_not_always_count() -> None:
    counts = np.arange(40) % 2 == 0
    rate = np.where(counts, 0.3, np.nan)
    made = table(dropout=rate, val_kind_accuracy=np.where(counts, 0.9, 0.1))
    assert importance(made).index[0] == "dropout"
    flat = importance(table(val_kind_accuracy=0.5))
    assert list(flat) == [0.0] * 4
    with pytest.raises(ValueError, match=r"8 completed trials.*Received: 7"):
        importance(table(7))


def test_the_best_trial_keeps_to_the_constraints() -> None:
    made = table(
        3,
        sharing_depth=[0, 1, 2],
        val_kind_accuracy=[0.6, 0.9, 0.8],
        val_size_mae=[0.3, 0.2, 0.4],
        feasible=pandas.array([True, False, True], dtype="boolean"),
    )
    ax = parallel_coordinates(made)
    assert ax.get_title() == "3 trials, trial 2 is the best"
    assert [line.get_label() for line in ax.get_lines()][:3] == ["1", "0", "2"]
    assert depth_weight(made).get_title().endswith("framed: trial 2")
    axes = hyperparameters(made)
    assert points(axes[0, 0], 1) == [(2, 0.8)]
    assert points(axes[1, 0], 1) == [(0, 0.3)]
    made["feasible"] = pandas.array([False] * 3, dtype="boolean")
    ax = parallel_coordinates(made)
    assert ax.get_title() == "3 trials, none keeps to the constraints"
    assert BEST not in [str(line.get_color()) for line in ax.get_lines()]


def test_parallel_coordinates_are_scaled_per_column() -> None:
    made = table(
        3,
        sharing_depth=[0, 1, 2],
        dropout=[0.1, 0.1, 0.1],
        task_weight_kind=[0.001, 0.1, 0.01],
        task_weight_size=[0.5, 0.25, 0.0],
        activation=["relu", "tanh", "relu"],
        val_kind_accuracy=[0.6, 0.9, 0.8],
    )
    ax = parallel_coordinates(made)
    names = [label.get_text() for label in ax.get_xticklabels()]
    # The dropout does not vary; a factor of 100 is drawn in logarithms.
    assert names == [
        "sharing_depth",
        "task_weight_kind",
        "task_weight_size",
        "activation",
        "val_kind_accuracy",
    ]
    lines = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    lines = {name: list(y) for name, y in lines.items() if name in made.index}
    assert list(lines) == ["0", "2", "1"]  # the best on top
    assert lines["0"] == pytest.approx([0, 0, 1, 0, 0])
    assert lines["1"] == pytest.approx([0.5, 1, 0.5, 1, 1])
    assert lines["2"] == pytest.approx([1, 0.5, 0, 0, 2 / 3])
    ax = parallel_coordinates(made, "val_size_mae", hyperparameters=["dropout"])
    assert len(ax.get_xticks()) == 2
    with pytest.raises(ValueError, match="Did you mean 'dropout'"):
        parallel_coordinates(made, hyperparameters=["dropuot"])


def test_every_hyperparameter_against_every_tasks_score() -> None:
    made = table(6)
    made.loc["3", "status"] = "FAILED"
    axes = hyperparameters(made)
    assert axes.shape == (2, 5)
    done = made.drop(index="3")
    np.testing.assert_allclose(points(axes[1, 1]), done[["dropout", "val_size_mae"]])
    best = done["val_size_mae"].idxmin()
    marked = done.loc[[best], ["dropout", "val_size_mae"]]
    np.testing.assert_allclose(points(axes[1, 1], 1), marked)
    assert axes[0, 0].get_ylabel() == "val_kind_accuracy"
    assert [ax.get_xlabel() for ax in axes[1]] == made.attrs["hyperparameters"]


def test_pareto_draws_the_front_of_two_metrics() -> None:
    made = table(
        4,
        val_kind_accuracy=[0.9, 0.8, 0.7, 0.95],
        val_size_mae=[4.0, 2.0, 3.0, 1.0],
        feasible=[True, True, True, False],
    )
    ax = pareto(made)
    assert len(points(ax)) == 3
    line = ax.get_lines()[0]
    assert list(zip(*line.get_data(), strict=True)) == [(0.8, 2.0), (0.9, 4.0)]
    assert line.get_drawstyle() == "steps-pre"  # (0.85, 2) is not reached
    ax = pareto(made, "val_size_mae", "val_kind_accuracy")
    assert ax.get_lines()[0].get_drawstyle() == "steps-post"
    made.attrs["scores"] = {"kind": "val_kind_accuracy"}
    with pytest.raises(ValueError, match="must be given"):
        pareto(made)


def test_learning_curves_are_means_over_executions() -> None:
    curves = pandas.DataFrame(
        {
            "trial": ["0", "0", "0", "0", "1"],
            "status": ["COMPLETED"] * 4 + ["PRUNED"],
            "rank": pandas.array([1, 1, 1, 1, None], dtype="Int64"),
            "execution": [0, 0, 1, 1, 0],
            "epoch": [1, 2, 1, 2, 1],
            "val_size_mae": [4.0, 2.0, 6.0, 3.0, 9.0],
        }
    )
    ax = learning_curves(curves, "val_size_mae")
    first, second = ax.get_lines()
    assert list(first.get_ydata()) == [5.0, 2.5]
    assert (first.get_label(), first.get_linestyle()) == ("trial 0", "-")
    assert list(second.get_ydata()) == [9.0]
    assert second.get_linestyle() == "--"
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
    curves.attrs["objectives"] = ["val_size_mae"]
    assert learning_curves(curves).get_ylabel() == "val_size_mae"
    with pytest.raises(ValueError, match="Did you mean 'val_size_mae'"):
        learning_curves(curves, "val_size_mea")


def test_heat_map_of_depth_and_weight() -> None:
    made = table(
        5,
        sharing_depth=[0, 0, 2, 2, 2],
        task_weight_kind=[0.2, 0.8, 0.2, 0.2, 0.8],
        val_kind_accuracy=[0.5, 0.6, 0.7, 0.9, 0.8],
    )
    ax = depth_weight(made)
    cells = ax.images[0].get_array()
    assert cells.tolist() == [[0.5, 0.6], [0.9, 0.8]]
    assert [text.get_text() for text in ax.texts] == [
        "0.5\n(1)",
        "0.6\n(1)",
        "0.9\n(2)",
        "0.8\n(1)",
    ]
    [frame] = ax.patches  # around the best
    assert frame.get_window_extent().contains(*ax.transData.transform((0, 1)))
    assert "framed: trial 3" in ax.get_title()
    lower = depth_weight(made.assign(val_size_mae=[5.0, 4, 3, 2, 1]), "val_size_mae")
    assert lower.images[0].get_array().tolist() == [[5.0, 4.0], [2.0, 1.0]]
    wide = depth_weight(table(40), bins=4, weight="task_weight_size")
    labels = [label.get_text() for label in wide.get_xticklabels()]
    assert len(labels) == 4
    near = table(40, task_weight_kind=0.333 + np.arange(40) / 1e5)
    labels = [label.get_text() for label in depth_weight(near).get_xticklabels()]
    assert labels[0] == "0.333–0.33308"
    assert wide.get_xlabel() == "task_weight_size"
    with pytest.raises(ValueError, match="Did you mean 'task_weight_kind'"):
        depth_weight(made, weight="task_weight_kin")
    made.attrs["hyperparameters"] = ["dropout"]
    with pytest.raises(ValueError, match="must have varied `sharing_depth`"):
        depth_weight(made)


def test_figures_have_titles_and_room_for_all_texts() -> None:
    made = table(12, a_hyperparameter_with_a_long_name=range(12))
    made.attrs["hyperparameters"] += ["a_hyperparameter_with_a_long_name"]
    for draw in (parallel_coordinates, importances, depth_weight, pareto):
        ax = draw(made)
        assert ax.get_title(), draw.__name__
        figure = ax.figure
        figure.canvas.draw()
        inside, page = figure.get_tightbbox(), figure.bbox_inches
        assert inside.x0 >= page.x0, draw.__name__
        assert inside.y0 >= page.y0, draw.__name__
        assert inside.x1 <= page.x1, draw.__name__
        assert inside.y1 <= page.y1, draw.__name__
    page = ax.figure.get_size_inches()
    with io.BytesIO() as file:
        ax.figure.savefig(file)
        file.seek(0)
        pixels = plt.imread(file, format="png").shape
    assert pixels[:2] == (300 * page[1], 300 * page[0])  # for print
    assert "12 trials" in hyperparameters(made)[0, 0].figure.get_suptitle()


def test_tables_and_metrics_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match=r"what `tuner.results\(\)` returned"):
        parallel_coordinates(pandas.DataFrame({"a": [1]}))
    with pytest.raises(ValueError, match="Did you mean 'val_size_mae'"):
        importances(table(), "val_size_mea")
    with pytest.raises(ValueError, match="no direction that is known"):
        depth_weight(table(val_other=1.0), "val_other")
