"""Figures are tested on the data they draw."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

import kmtl
from kmtl.evaluation import Evaluation, TaskRow
from kmtl.plotting import comparison, curves
from kmtl.plotting.comparison import BETTER, NEUTRAL, WORSE

HISTORY = {
    "loss": [5.0, 4.0],
    "regularization_loss": [0.1, 0.1],
    "kind_loss": [3.0, 2.5],
    "kind_accuracy": [0.5, 0.6],
    "size_loss": [2.0, 1.5],
    "val_kind_loss": [3.5, 3.0],
    "val_kind_accuracy": [0.4, 0.5],
}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def drawn(ax: plt.Axes) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}


def test_curves_draw_the_losses_of_the_tasks() -> None:
    ax = curves(HISTORY)
    assert drawn(ax) == {
        name: HISTORY[name] for name in ("kind_loss", "val_kind_loss", "size_loss")
    }
    assert list(ax.get_lines()[0].get_xdata()) == [1, 2]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    train, validation, other = ax.get_lines()
    assert train.get_color() == validation.get_color() != other.get_color()
    assert (train.get_linestyle(), validation.get_linestyle()) == ("--", "-")


def test_curves_draw_scores_of_given_tasks_on_given_axes() -> None:
    axes = plt.subplots()[1]
    assert curves(HISTORY, [kmtl.Classification("kind", classes=2)], axes) is axes
    assert set(drawn(axes)) == {"kind_accuracy", "val_kind_accuracy"}
    task = kmtl.Classification("kind", classes=2, metrics=("macro_f1",))
    assert curves({"kind_macro_f1": [0.5]}, [task]).get_ylabel() == "macro_f1"


def test_curves_refuse_what_the_history_lacks() -> None:
    with pytest.raises(ValueError, match=r"'kind_acuracy'. Did you mean 'kind_acc"):
        curves(HISTORY, [kmtl.Classification("kind", classes=2)], metric="acuracy")
    with pytest.raises(ValueError, match="loss of a task"):
        curves({"loss": [1.0]})


def evaluation(
    delta_m: float | None, noise: float | None = None, **deltas: float
) -> Evaluation:
    like = ("regression", False, "mae", "min", 3, 1.0, 1.0, {"mae": 1.0}, 1.0)
    rows = [TaskRow(name, *like, d, noise) for name, d in deltas.items()]
    return Evaluation(tuple(rows), 3, 1.0, delta_m)


def test_curves_refuse_other_things() -> None:
    with pytest.raises(TypeError, match=r"`history` must be what `fit`.*list"):
        curves([1.0, 2.0])
    with pytest.raises(TypeError, match=r"`tasks` must be tasks.*'size'"):
        curves({"size_loss": [1.0]}, tasks=["size"])
    ax = curves({"a_loss": [1.0], "deep_supervision_loss": [2.0]})
    assert [line.get_label() for line in ax.get_lines()] == ["a_loss"]


def test_comparison_draws_improvements_and_their_mean() -> None:
    ax = comparison(evaluation(-5.0, first=2.0, second=-12.0))
    bars = {
        label.get_text(): bar.get_width()
        for label, bar in zip(ax.get_yticklabels(), ax.patches, strict=True)
    }
    assert bars == {"first": 2.0, "second": -12.0}
    assert colors(ax) == ["tab:gray", "tab:gray"]
    assert ax.get_lines()[1].get_xdata()[0] == -5.0
    text = ax.get_legend().get_texts()[0].get_text()
    assert text == "Δm = -5.00 % (noise of seeds not known)"


def colors(ax: plt.Axes) -> list[str]:
    names = {to_rgba(n): n for n in (BETTER, WORSE, NEUTRAL)}
    return [names[bar.get_facecolor()] for bar in ax.patches]


def test_comparison_colours_what_is_beyond_the_noise() -> None:
    ax = comparison(evaluation(-1.0, 1.0, a=2.5, b=-2.5, c=0.4, d=-1.9))
    assert colors(ax) == [BETTER, WORSE, NEUTRAL, NEUTRAL]
    # Several models: their mean, and twice its standard error.
    ax = comparison([evaluation(1.0, a=1.0, b=4.0), evaluation(3.0, a=3.0, b=-2.0)])
    assert [bar.get_width() for bar in ax.patches] == [2.0, 1.0]
    assert colors(ax) == [NEUTRAL, NEUTRAL]
    assert ax.get_legend().get_texts()[0].get_text() == "Δm = +2.00 % ± 1.00"
    alike = [evaluation(1.0, a=value) for value in (1.0, 1.1, 0.9)]
    assert colors(comparison(alike)) == [BETTER]


def test_comparison_needs_baselines() -> None:
    with pytest.raises(ValueError, match="with `baselines`"):
        comparison(evaluation(None))


def test_boxes_are_drawn_where_objects_are() -> None:
    cars = kmtl.Detection("cars", labels=("car", "bus"))
    found = {
        "boxes": np.array([[0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.1, 0.1]]),
        "scores": np.array([0.9, 0.1]),
        "classes": ["bus", "car"],
    }
    labels = np.array([[0.25, 0.1, 0.5, 0.6, 0], [0, 0, 0, 0, -1]])
    ax = kmtl.plotting.boxes(cars, np.zeros((10, 20, 3)), labels, found)
    drawn = [
        [patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()]
        for patch in ax.patches
    ]
    np.testing.assert_allclose(drawn, [[5, 1, 5, 5], [10, 5, 10, 5]], atol=1e-6)
    assert [text.get_text() for text in ax.texts] == ["car", "bus 0.90"]
    assert ax.patches[0].get_edgecolor() != ax.patches[1].get_edgecolor()
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 20), (10, 0))
    none = kmtl.plotting.boxes(
        cars, np.zeros((10, 20), "uint8"), np.full((1, 5), np.nan)
    )
    assert len(none.patches) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((kmtl.Keypoints("t", points=1), np.zeros((4, 4, 1))), "must be a kmtl.Detec"),
        ((kmtl.Detection("t", classes=1), np.zeros((4, 4, 2))), "1, 3 or 4"),
        (
            (kmtl.Detection("t", classes=1), np.zeros((4, 4, 1)), None, [1]),
            "one entry of `task.decode",
        ),
    ],
)
def test_boxes_refuse_other_things(arguments: tuple, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        kmtl.plotting.boxes(*arguments)


def test_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("show() was called"))
    curves(HISTORY)
    comparison(evaluation(2.0, first=2.0))
