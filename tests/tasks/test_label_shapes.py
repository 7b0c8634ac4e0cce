"""The table of label shapes in the documentation of `kmtl.tasks` holds."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas
import pytest
from keras import ops

import kmtl
from kmtl import _arrays

NAN = np.nan
SIZE = (2, 2, 3)
_ABC = {"labels": ("a", "b", "c")}
#: How each kind is made, the shape of an input, and what the labels are.
KINDS: dict[str, tuple[dict, tuple, Any]] = {
    "Classification": (_ABC, (4,), [0, 2, NAN]),
    "Ordinal": (_ABC, (4,), [0, 2, NAN]),
    "BinaryClassification": ({"labels": ("no", "yes")}, (4,), [[0], [1], [NAN]]),
    "MultiLabel": ({"classes": 2}, (4,), [[0, 1], [1, NAN]]),
    "Regression": ({}, (4,), [[3], [NAN]]),
    "Quantile": ({}, (4,), [[3], [NAN]]),
    "Distribution": ({}, (4,), [[3], [NAN]]),
    "Count": ({}, (4,), [[3], [NAN]]),
    "ZeroInflated": ({}, (4,), [[3], [NAN]]),
    "Survival": ({}, (4,), [[2, 1], [3, 0]]),
    "Embedding": ({}, (4,), [7, 3, NAN]),
    "Clustering": ({"clusters": 2}, (4,), [7, 3, NAN]),
    "Tagging": ({"labels": ("O", "B-x", "I-x")}, (2, 3), [[0, 2], [1, NAN]]),
    "CTC": (_ABC, (6, 3), [[0, 1], [2, NAN]]),
    "TextGeneration": ({**_ABC, "length": 2}, (4,), [[0, 1, 3], [2, 3, NAN]]),
    "SequenceRegression": ({}, (2, 3), [[[1], [2]], [[3], [NAN]]]),
    "Ranking": ({}, (2, 3), [[1, 2], [3, NAN]]),
    "Forecast": ({"horizon": 2}, (4,), [[[1], [2]], [[3], [NAN]]]),
    "Keypoints": ({"points": 2}, SIZE, [[[0.1, 0.2], [NAN, NAN]]]),
    "Segmentation": ({"classes": 3}, SIZE, [[[0, 2], [1, NAN]]]),
    "DenseRegression": ({}, SIZE, [[[[1], [2]], [[3], [NAN]]]]),
    "Depth": ({}, SIZE, [[[[1], [2]], [[3], [NAN]]]]),
    "Edges": ({}, SIZE, [[[[0], [1]], [[1], [NAN]]]]),
    "Normals": ({}, (1, 2, 3), [[[[1, 0, 0], [NAN, NAN, NAN]]]]),
}


def table() -> dict[str, list[str]]:
    """Kind -> the forms of its labels, as Python writes them."""
    found = {}
    for line in kmtl.tasks.__doc__.split("\n- ")[1:]:
        kinds, _, forms = " ".join(line.split()).partition("`: `")
        for kind in kinds.replace("`", "").split(", "):
            found[kind] = re.findall(r"`([^`]+)`", f"`{forms}")
    return found


def test_all_kinds_with_labels_are_in_the_table() -> None:
    kinds = {name for name in kmtl.__all__ if _is_kind(getattr(kmtl, name))}
    assert set(table()) == set(KINDS)
    others = {"Task", "CustomTask", "Reconstruction"}
    assert set(KINDS) <= kinds - others


def _is_kind(made: Any) -> bool:
    return isinstance(made, type) and issubclass(made, kmtl.Task)


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_is_the_same_labels(kind: str) -> None:
    options, shape, expected = KINDS[kind]
    task = getattr(kmtl, kind)("t", **options)
    known = {"pandas": pandas, "nan": NAN, "array": np.array}
    forms = table()[kind]
    assert len(forms) > 1
    for form in forms:
        if "pyarrow" in form:
            known["pyarrow"] = pytest.importorskip("pyarrow")
        labels = task.label_array(eval(form, known))
        task.check_labels(labels, shape)
        clean, mask = map(np.asarray, task.clean_labels(labels))
        found = np.where(mask > 0, clean, NAN)
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=form)


def test_columns_of_vectors() -> None:
    vectors = pandas.Series([np.array([1.0, 2.0]), None, [3, 4]])
    found = _arrays.as_array(vectors, "`x`")
    np.testing.assert_array_equal(found, [[1, 2], [NAN, NAN], [3, 4]])
    for wrong, message in (
        ([[1, 2], [3]], "rows of different shapes"),
        ([[1, 2], 3], "an array of arrays and int"),
    ):
        with pytest.raises(ValueError, match=f"`x` must have rows of one.*{message}"):
            _arrays.as_array(pandas.Series(wrong), "`x`")


def test_a_frame_of_columns_by_their_names() -> None:
    """One-hot columns in the order of the alphabet, as pandas makes them."""
    pd = pandas

    names = ("red", "green", "blue")
    colours = ["red", "blue", "green", "red"]
    task = kmtl.Classification("colour", labels=names)
    dummies = pd.get_dummies(pd.Series(colours))
    assert list(dummies.columns) != list(names)
    assert task.label_array(dummies).tolist() == [0, 2, 1, 0]
    tags = kmtl.MultiLabel("tags", labels=("new", "hot"))
    frame = pd.DataFrame({"hot": [1, 0], "new": [0, 1]})
    assert tags.label_array(frame).tolist() == [[0, 1], [1, 0]]
    # Columns that are called otherwise are taken in their place.
    other = frame.rename(columns="is_{}".format)
    assert tags.label_array(other).tolist() == [[1, 0], [0, 1]]
    spam = kmtl.BinaryClassification("spam", labels=("ham", "spam"))
    assert spam.label_array(pd.DataFrame({"spam": [0, 1]})).tolist() == [[0], [1]]
    with pytest.raises(ValueError, match=r"columns new, hot, in any.*hot, old"):
        tags.label_array(frame.rename(columns={"new": "old"}))


def test_several_names_per_row() -> None:
    pd = pandas

    task = kmtl.MultiLabel("tags", labels=("new", "hot", "old"))
    rows = [["hot"], ("old", "new"), set(), None]
    wanted = [[0, 1, 0], [1, 0, 1], [0, 0, 0], [NAN] * 3]
    for given in (rows, pd.Series(rows, dtype=object)):
        np.testing.assert_array_equal(task.label_array(given), wanted)
    assert task.classes == 3
    model = kmtl.build_mlp(input_shape=(2,), tasks=[task], units=(4,), seed=0)
    model.compile("adam")
    x = np.ones((4, 2), "float32")
    by_name = model.evaluate(x, {"tags": rows}, return_dict=True, verbose=0)
    by_number = model.evaluate(
        x, {"tags": np.array(wanted)}, return_dict=True, verbose=0
    )
    assert by_name == by_number
    with pytest.raises(ValueError, match=r"among new, hot, old.*Received: 'hat'"):
        task.label_array([["hat"]])
    with pytest.raises(ValueError, match="say which there are"):
        kmtl.MultiLabel("tags", classes=2).label_array(rows)


@pytest.mark.parametrize("missing", [0, 1, 2, -1])
def test_one_hot_vectors_are_their_class_whatever_is_missing(missing: int) -> None:
    """`missing=0` is a class that is not labelled, and no entry of a vector."""
    numbers = np.arange(12) % 3
    vectors = np.eye(3)[numbers]
    vectors[4] = NAN
    holes = np.where(np.arange(12) == 4, NAN, numbers)
    tasks = (
        (kmtl.Classification("t", classes=3, missing=missing), ()),
        (kmtl.Tagging("t", classes=3, missing=missing), (3, 4)),
        (kmtl.Segmentation("t", classes=3, missing=missing), (3, 2, 2)),
        (kmtl.Segmentation("t", classes=3, ignore=(max(missing, 0), 2)), (3, 2, 2)),
    )
    for task, shape in tasks:
        y = holes.reshape(shape) if shape else holes
        soft = vectors.reshape(*y.shape, 3)
        labels, mask = map(ops.convert_to_numpy, task.clean_labels(y))
        # As arrays, which become numbers, and as streams have them.
        for given in (task.label_array(soft), soft.astype("float32")):
            task.check_labels(given)
            found, there = map(ops.convert_to_numpy, task.clean_labels(given))
            np.testing.assert_array_equal(there, mask)
            np.testing.assert_array_equal(found * mask, labels * mask)
        assert 0 < mask.sum() < 12, task
