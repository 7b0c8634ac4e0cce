"""The table of label shapes in the documentation of `kmtl.tasks` holds."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas
import pytest

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
