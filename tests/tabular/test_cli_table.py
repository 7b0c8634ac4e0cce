"""`kmtl table`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from table_tools import TARGETS, houses

import kmtl
from kmtl.cli.main import main
from kmtl.cli.table import names_in


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "houses.csv"
    houses().to_csv(path, index=False)
    return path


def test_names_are_separated_by_commas_unless_they_hold_some() -> None:
    frame = pd.DataFrame(columns=["a", "b, c", "b", "d"])
    assert names_in(("a,d", "b, c"), frame) == ["a", "d", "b, c"]
    with pytest.raises(ValueError, match="no column 'c'"):
        names_in(("b,c",), frame)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--targets", "prise in $"], "Did you mean 'price in $'"),
        (["--targets", "sold", "--minutes", "0"], "--minutes"),
        (["--targets", "sold", "--ignore", "nothing"], "no column 'nothing'"),
        ([], "--targets"),
    ],
)
def test_mistakes_are_named(file: Path, arguments: list[str], message: str) -> None:
    found = CliRunner().invoke(main, ["table", str(file), *arguments])
    assert found.exit_code == 2
    assert message in " ".join(found.output.split())


def test_options_reach_the_call(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def fit_table(*arguments: Any, **options: Any) -> None:
        calls.append((arguments, options))
        raise ValueError("enough")

    monkeypatch.setattr(kmtl, "fit_table", fit_table)
    arguments = ["--targets", "sold,stars", "--ignore", "area", "--trials", "2"]
    found = CliRunner().invoke(main, ["table", str(file), *arguments, "--seed", "3"])
    assert "enough" in found.output
    (frame, targets, minutes), options = calls[0]
    assert targets == ["sold", "stars"]
    assert minutes is None
    assert list(frame.columns) == ["rooms", "town", *TARGETS]
    assert options["directory"] == file.parent / "houses-kmtl" / "search"
    assert options["trials"] == 2
    assert options["seed"] == 3


def test_numbers_are_read_as_the_options_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[pd.DataFrame] = []

    def fit_table(frame: pd.DataFrame, *_: Any, **__: Any) -> None:
        frames.append(frame)
        raise ValueError("enough")

    monkeypatch.setattr(kmtl, "fit_table", fit_table)
    file = tmp_path / "houses.csv"
    given = houses().assign(rent="1.250,5")
    given.to_csv(file, index=False, sep=";", decimal=",")
    arguments = ["--targets", "sold", "--sep", ";", "--decimal", ",", "--thousands"]
    CliRunner().invoke(main, ["table", str(file), *arguments, "."])
    assert set(frames[0]["rent"]) == {1250.5}
    assert frames[0]["area"].tolist() == pytest.approx(
        houses()["area"].tolist(), nan_ok=True
    )


@pytest.mark.thorough
def test_from_a_file_to_an_export(file: Path, tmp_path: Path) -> None:
    arguments = ["--targets", "sold,stars", "--trials", "1", "--out", f"{tmp_path}/r"]
    found = CliRunner().invoke(main, ["table", str(file), *arguments])
    assert found.exit_code == 0, found.output
    written = ("rooms", "categorical, 3 values", "average", "load_table")
    for words in (*written, "gives the predictor's numbers"):
        assert words in found.output
    board = pd.read_csv(tmp_path / "r" / "leaderboard.csv")
    again = kmtl.load_table(tmp_path / "r" / "predictor")
    assert board["test"].tolist() == pytest.approx(again.leaderboard()["test"].tolist())
    assert (tmp_path / "r" / "served" / "saved_model.pb").exists()
    later = CliRunner().invoke(main, ["table", str(file), *arguments])
    assert later.exit_code == 0
    assert "shared " not in later.output.split("skill")[1][:40]
