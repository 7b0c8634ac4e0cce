"""Numbers per class equal scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

import kmtl

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(1)
ROWS = 30
X = RNG.normal(size=(ROWS, 4, 4, 1)).astype("float32")
Y = {
    "kind": RNG.integers(0, 3, ROWS),
    "spam": RNG.integers(0, 2, ROWS),
    "bits": RNG.integers(0, 2, (ROWS, 3)).astype("float32"),
    "mask": RNG.integers(0, 3, (ROWS, 4, 4)),
    "area": RNG.integers(0, 2, (ROWS, 4, 4)),
    "size": RNG.normal(size=ROWS),
}
Y["kind"][:5] = -1
Y["bits"][:4, 1] = np.nan
Y["mask"][Y["mask"] == 1] = -1  # a class without labels
WEIGHT = {name: np.ones(ROWS) for name in Y}
WEIGHT["spam"][-3:] = 0


@pytest.fixture(scope="module")
def model():
    tasks = [
        kmtl.Classification("kind", labels=("a", "b", "c")),
        kmtl.BinaryClassification("spam"),
        kmtl.MultiLabel("bits", classes=3, labels=("x", "y", "z")),
        kmtl.Segmentation("mask", classes=3, decoder="dense"),
        kmtl.Segmentation("area", classes=2, decoder="dense"),
        kmtl.Regression("size"),
    ]
    return kmtl.build_mlp(input_shape=(4, 4, 1), tasks=tasks, units=(6,), seed=1)


@pytest.fixture(scope="module")
def result(model):
    return kmtl.evaluate(model, (X, Y, WEIGHT), per_class=True)


@pytest.fixture(scope="module")
def outputs(model):
    return model.predict(X, verbose=0)


def same(table, true, predicted, classes) -> None:
    labels = list(range(classes))
    expected = sk.precision_recall_fscore_support(
        true, predicted, labels=labels, zero_division=np.nan
    )
    names = ("precision", "recall", "f1", "support")
    for name, values in zip(names, expected, strict=True):
        np.testing.assert_allclose(getattr(table, name), values, rtol=1e-12)
    iou = sk.jaccard_score(true, predicted, labels=labels, average=None)
    np.testing.assert_allclose(np.nan_to_num(table.iou), iou, rtol=1e-12)
    matrix = sk.confusion_matrix(true, predicted, labels=labels)
    np.testing.assert_array_equal(table.confusion, matrix)


def test_classes(result, outputs) -> None:
    there = Y["kind"] >= 0
    guess = outputs["kind"].argmax(-1)
    same(result.per_class["kind"], Y["kind"][there], guess[there], 3)
    guess = outputs["spam"][:, 0] > 0
    same(result.per_class["spam"], Y["spam"][:-3], guess[:-3].astype(int), 2)


def test_columns(result, outputs) -> None:
    table = result.per_class["bits"]
    for column, name in enumerate("xyz"):
        true = Y["bits"][:, column]
        there = ~np.isnan(true)
        guess = (outputs["bits"][:, column] > 0)[there].astype(int)
        matrix = sk.confusion_matrix(true[there], guess, labels=[0, 1])
        np.testing.assert_array_equal(table.confusion[column], matrix)
        f1 = sk.f1_score(true[there], guess)
        assert table.to_frame().loc[name, "f1"] == pytest.approx(f1)
    assert table.confusion_frame().loc["x", "true_positive"] == table.confusion[0, 1, 1]


def test_maps(result, outputs) -> None:
    there = Y["mask"] >= 0
    guess = outputs["mask"].argmax(-1)
    table = result.per_class["mask"]
    same(table, Y["mask"][there], guess[there], 3)
    guess = (outputs["area"][..., 0] > 0).astype(int)
    same(result.per_class["area"], Y["area"].ravel(), guess.ravel(), 2)
    mean = result["area"].metrics["mean_iou"]
    assert result.per_class["area"].iou.mean() == pytest.approx(mean, rel=1e-5)


def test_shown(result, model) -> None:
    assert list(result.per_class) == ["kind", "spam", "bits", "mask", "area"]
    text = str(result)
    assert "kind per class" in text
    assert "Evaluation" in text
    assert "bits" in result._repr_html_()
    plain = result.to_dict()["tasks"]
    assert plain["mask"]["per_class"]["1"]["recall"] is None
    assert "per_class" not in plain["size"]
    assert kmtl.evaluate(model, (X, Y)).per_class is None


def test_a_plot(result) -> None:
    import matplotlib.pyplot as plt

    ax = kmtl.plotting.confusion(result.per_class["kind"], normalize=False)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b", "c"]
    assert ax.texts[0].get_text() == str(result.per_class["kind"].confusion[0, 0])
    plt.close("all")
    with pytest.raises(ValueError, match="yes/no columns"):
        kmtl.plotting.confusion(result.per_class["bits"])
    with pytest.raises(TypeError, match="per_class=True"):
        kmtl.plotting.confusion(result)
