"""What `kmtl.data.check` counts, notes, and stops at."""

from __future__ import annotations

import numpy as np
import pytest

import kmtl

KIND = kmtl.Classification("kind", classes=4, labels=("a", "b", "c", "d"))
SIZE = kmtl.Regression("size")
TAGS = kmtl.MultiLabel("tags", classes=2)


def data(rows: int = 8, seed: int = 0):
    """Inputs `(rows, 3)` and labels, the last of each missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).astype("float32")
    kind, size = np.arange(rows) % 4, x.sum(1)
    kind[-1], size[-1] = -1, np.nan
    return x, {"kind": kind, "size": size}


def texts(report):
    return [str(finding) for finding in report.findings]


def test_labels_are_counted_as_numpy_does():
    x, y = data(40)
    report = kmtl.data.check((x, y), [KIND, SIZE])
    assert report.ok
    assert texts(report) == []
    kind, size = report["data", "kind"], report["data", "size"]
    assert (kind.rows, kind.labels, kind.classes, size.labels) == (40, 39, 4, 39)
    assert kind.coverage == 39 / 40
    assert (kind.rarest, kind.commonest) == (9 / 39, 10 / 39)
    values = y["size"][:-1].astype("float64")
    np.testing.assert_allclose(
        [size.mean, size.deviation, size.low, size.high],
        [values.mean(), values.std(), values.min(), values.max()],
    )
    frame = report.to_frame()
    assert frame.loc[("data", "kind"), "labels"] == 39
    assert "Nothing to remark" in str(report)
    assert "<td>39 (98%)</td>" in report._repr_html_()


def test_batches_give_the_same_numbers_as_arrays():
    tf = pytest.importorskip("tensorflow")
    x, y = data(40)
    y["size"] += 1000
    whole = kmtl.data.check((x, y), [KIND, SIZE])["data", "size"]
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    found = kmtl.data.check(batches, [KIND, SIZE])["data", "size"]
    assert (found.labels, found.low, found.high) == (39, whole.low, whole.high)
    np.testing.assert_allclose(found.deviation, whole.deviation)
    np.testing.assert_allclose(found.mean, whole.mean)


def test_weights_of_zero_are_no_labels():
    x, y = data()
    weights = {"kind": np.array([1, 0, 0, 1, 1, 1, 1, 1.0])}
    report = kmtl.data.check((x, y, weights), [KIND, SIZE])
    assert report["data", "kind"].labels == 5
    assert report["data", "size"].labels == 7


def test_all_that_stops_is_told_at_once():
    x, y = data()
    x[2, 1] = np.nan
    y["kind"][0] = 9
    y["size"][:] = np.nan
    with pytest.raises(ValueError, match="cannot be trained on") as error:
        kmtl.data.check({"train": (x, y)}, [KIND, SIZE])
    text = str(error.value)
    assert "- train: `x` must be finite" in text
    assert "nan in row 2, column 1" in text
    assert "'kind' must be integers in [0, 3]" in text
    assert "- train, size: no training label" in text
    report = kmtl.data.check({"train": (x, y)}, [KIND, SIZE], stop=False)
    assert not report.ok
    assert len(report.findings) == 3


def test_other_parts_may_lack_labels_but_not_be_wrong():
    x, y = data()
    other_x, other_y = data(seed=1)
    other_y["size"][:] = np.nan
    parts = {"train": (x, y), "validation": (other_x, other_y)}
    report = kmtl.data.check(parts, [KIND, SIZE])
    assert texts(report) == [
        "validation, size: no label: losses and metrics of it will be NaN here"
    ]
    other_x[0] = np.inf
    with pytest.raises(ValueError, match="validation: `x` must be finite"):
        kmtl.data.check(parts, [KIND, SIZE])


def test_rows_in_two_parts_are_found():
    x, y = data(20)
    other_x, other_y = data(5, seed=1)
    other_x[3] = x[7]
    other_x[4] = other_x[2]
    parts = {"train": (x, y), "test": (other_x, other_y)}
    found = texts(kmtl.data.check(parts, [KIND, SIZE]))
    assert found[0].startswith("test: 1 row with inputs that are in train, too (row 3 ")
    assert "is row 7 there" in found[0]
    assert found[1] == "test: 1 row with inputs of an earlier one, such as 4 of 2"


def test_rows_of_another_precision_are_found():
    x, y = data(40)
    parts = {"train": (x.astype("float64"), y), "test": (x.astype("float32"), y)}
    assert any(
        "40 rows with inputs that are in train" in t
        for t in texts(kmtl.data.check(parts, [KIND, SIZE]))
    )


def test_weights_below_zero_and_no_row_are_named():
    x, y = data(40)
    weights = np.full(40, -1.0)
    with pytest.raises(
        ValueError, match=r"Weights of task 'kind' must be .*-1.0 in row 0"
    ):
        kmtl.data.check((x, y, weights), [KIND, SIZE])
    with pytest.raises(ValueError, match=r"There must be a row"):
        kmtl.data.check((x[:0], {k: v[:0] for k, v in y.items()}), [KIND, SIZE])


def test_what_tells_nothing_is_noted():
    x, y = data(40)
    x[:, 2] = 1
    y["kind"] = np.where(y["kind"] == 3, 0, y["kind"])
    y["size"] = 1000 * y["size"]
    found = texts(kmtl.data.check({"train": (x, y)}, [KIND, SIZE]))
    assert "no training label of class d: " in found[0]
    assert "transform='standardize'" in found[1]
    assert found[2].endswith("of one value, which tell nothing apart: 2")
    y = {"kind": np.zeros(40, int), "size": np.ones(40)}
    found = texts(kmtl.data.check({"train": (x[:, :2], y)}, [KIND, SIZE]))
    assert found == [
        "train, kind: all labels are of one class: there is nothing to learn",
        "train, size: all labels are 1: there is nothing to learn",
    ]


def test_rare_answers_are_noted():
    spam = kmtl.BinaryClassification("spam")
    y = {"spam": np.arange(40) == 0}
    found = texts(kmtl.data.check((data(40)[0], y), [spam]))
    assert len(found) == 1
    assert "97.5% of the labels are of one class" in found[0]


def test_columns_of_yes_and_no_are_counted_together():
    x, _ = data()
    tags = np.array([[0, 1]] * 4 + [[1, 1]] * 3 + [[-1, -1]])
    row = kmtl.data.check((x, {"tags": tags}), [TAGS])["data", "tags"]
    assert (row.labels, row.classes) == (7, 2)
    assert row.commonest == 10 / 14


def test_bundled_data_know_their_tasks():
    report = kmtl.data.check(kmtl.data.digits())
    assert {row.part for row in report.rows} == {"train", "validation", "test"}
    assert report["train", "mask"].coverage == 1.0


def test_refusals():
    with pytest.raises(ValueError, match="`tasks` must be given"):
        kmtl.data.check(data())
    with pytest.raises(ValueError, match=r"- data: must be \(x, y\)"):
        kmtl.data.check(data()[0], [KIND])
    x, y = data()
    with pytest.raises(ValueError, match="as many rows as the inputs"):
        kmtl.data.check((x, {"kind": y["kind"][:3]}), [KIND])
