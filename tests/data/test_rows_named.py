"""Errors about columns that are inputs of their own name the frame's rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import kmtl

ROWS = 40
PHOTO = np.ones((4, 4, 3), "uint8")
inputs = kmtl.inputs


def column(value: Any, bad: Any, row: int) -> pd.Series:
    cells = np.empty(ROWS, object)
    for i in range(ROWS):
        cells[i] = value
    cells[row] = bad
    return pd.Series(cells)


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize(
    ("spec", "value", "bad", "message"),
    [
        (inputs.Array((2,)), np.ones(2), np.array([1, np.inf]), "inf in row {}, col"),
        (inputs.Array((2,)), np.ones(2), np.ones(3), r"\(2,\) and, in row {}, \(3,"),
        (inputs.Array((2,)), np.ones(2), "one", "'one' in row {}"),
        (inputs.Text(length=4), "two words", 3.5, "3.5 in row {}"),
        (inputs.Tokens(5, length=4), [1, 2], [1, 9], "9 in row {}"),
        (inputs.Series(length=4), np.ones((4, 1)), np.full((4, 1), np.inf), "Row {}"),
        (inputs.Audio(8000), np.ones(800), np.full(800, np.inf), "Row {}"),
        (inputs.Image((4, 4, 3), scale="standardize"), PHOTO, "no.png", "row {}"),
    ],
)
def test_a_bad_row_has_its_number_in_the_frame(
    spec: inputs.Input, value: Any, bad: Any, message: str, part: str
) -> None:
    frame = pd.DataFrame({"x": np.arange(ROWS) * 1.5, "y": np.arange(ROWS) % 2})
    row = 33
    rest = np.delete(np.arange(ROWS), row)
    split = {"train": rest[10:], "validation": rest[5:10], "test": rest[:5]}
    split[part] = np.append(split[part], row)
    frame["own"] = column(value, bad, row)
    frame.index += 1000  # which is no place in a table
    message = message.format(row)
    with pytest.raises((TypeError, ValueError), match=message) as e:
        kmtl.data.from_dataframe(
            frame,
            targets=["y"],
            inputs={"facts": inputs.Table(columns=["x"]), "own": spec},
            split=split,
            verbose=False,
        )
    assert "Column 'own'" in str(e.value)
    assert "training" not in str(e.value)


@pytest.mark.parametrize(
    ("spec", "value", "message"),
    [
        (
            inputs.Array((1,), scale="standardize"),
            np.array([1.7e9]),
            "keep their digits",
        ),
        (inputs.Text(), "", "hold tokens"),
        (inputs.Tokens(), [], "hold ids"),
        (inputs.Series(), np.ones((0, 1)), "hold steps"),
        (inputs.Audio(8000), np.zeros(800), "hold sound"),
    ],
)
def test_a_column_of_nothing_is_called_by_its_name(
    spec: inputs.Input, value: Any, message: str
) -> None:
    frame = pd.DataFrame({"y": np.arange(ROWS) % 2})
    frame["own"] = column(value, value, 0)
    if isinstance(spec, inputs.Array):
        frame["own"] = [value + i for i in range(ROWS)]  # seconds since 1970
    with pytest.raises(ValueError, match=rf"^Column 'own' must {message}"):
        kmtl.data.from_dataframe(
            frame, targets=["y"], inputs={"own": spec}, verbose=False
        )


def test_what_a_kind_of_the_users_says_stays() -> None:
    """It overrides `fit`, and says itself what is wrong."""

    class Own(inputs.Array):
        def fit(self, data: Any) -> Own:
            raise ValueError("The training rows are too few.")

    frame = pd.DataFrame({"y": np.arange(ROWS) % 2})
    frame["own"] = column(np.ones(1), np.ones(1), 0)
    with pytest.raises(ValueError, match="The training rows are too few"):
        kmtl.data.from_dataframe(
            frame, targets=["y"], inputs={"own": Own((1,), scale=None)}, verbose=False
        )
