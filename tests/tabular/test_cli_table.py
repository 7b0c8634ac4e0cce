"""`kmtl table`."""

from __future__ import annotations

import logging
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from table_tools import TARGETS, houses

import kmtl
from kmtl.cli._remedies import in_the_file
from kmtl.cli.main import main
from kmtl.cli.table import names_in, served_names
from kmtl.inputs.remedies import Remedy, told_by


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


@pytest.mark.parametrize("option", ["--targets", "--ignore", "--groups", "--time"])
def test_names_are_looked_at_before_the_backend_is_imported(
    file: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def imported() -> None:
        raise AssertionError

    monkeypatch.setattr("kmtl.cli._quiet.import_backend", imported)
    arguments = ["table", str(file), "--targets", "sold", option, "starz"]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 2
    assert "no column 'starz'. Did you mean 'stars'" in " ".join(found.output.split())


def test_too_few_labels_are_told_without_python(file: Path) -> None:
    frame = pd.read_csv(file)
    frame["price in $"] = frame["price in $"].where(frame.index < 5)
    frame.to_csv(file, index=False)
    arguments = ["table", str(file), "--targets", "price in $"]
    told = " ".join(CliRunner().invoke(main, arguments).output.split())
    assert "label more, divide otherwise, or leave it out" in told


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


def frames_read(monkeypatch: pytest.MonkeyPatch) -> list[pd.DataFrame]:
    """What the command reads from now on; nothing is trained."""
    found: list[pd.DataFrame] = []

    def fit_table(frame: pd.DataFrame, *_: Any, **__: Any) -> None:
        found.append(frame)
        raise ValueError("enough")

    monkeypatch.setattr(kmtl, "fit_table", fit_table)
    return found


def test_numbers_are_read_as_the_options_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = frames_read(monkeypatch)
    file = tmp_path / "houses.csv"
    given = houses().assign(rent="1.250,5")
    given.to_csv(file, index=False, sep=";", decimal=",")
    arguments = ["--targets", "sold", "--sep", ";", "--decimal", ",", "--thousands"]
    CliRunner().invoke(main, ["table", str(file), *arguments, "."])
    assert set(frames[0]["rent"]) == {1250.5}
    assert frames[0]["area"].tolist() == pytest.approx(
        houses()["area"].tolist(), nan_ok=True
    )


SPELLINGS = {
    "points": [f"{n:,}.5" for n in range(1_000_000, 9_000_000, 100_007)],
    "commas": [
        f"{n:,}.5".translate(str.maketrans(",.", ".,"))
        for n in range(1_000_000, 9_000_000, 100_007)
    ],
    "spaces": [f"{n:,}".replace(",", " ") for n in range(0, 8_000_000, 100_007)],
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("points", '--thousands ","'),
        ("commas", '--thousands "." --decimal ","'),
        ("spaces", '--thousands " "'),
    ],
)
def test_marks_in_numbers_are_said_by_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, options: str
) -> None:
    file = tmp_path / "prices.csv"
    texts = SPELLINGS[kind]
    pd.DataFrame({"price": texts, "rooms": range(80)}).to_csv(file, index=False)
    arguments = ["table", str(file), "--targets", "price"]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 2
    told = " ".join(found.output.split())
    assert f"run again with {options}, if all numbers are written so" in told
    frames = frames_read(monkeypatch)
    CliRunner().invoke(main, [*arguments, *shlex.split(options)])
    marks = {"points": (",", ""), "commas": (".", ""), "spaces": (" ", "")}[kind]
    wanted = [float(text.replace(*marks).replace(",", ".")) for text in texts]
    assert frames[0]["price"].tolist() == wanted


def test_what_is_between_cells_is_said_by_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = frames_read(monkeypatch)
    for mark in (";", "\t", "|"):
        file = tmp_path / "rows.csv"
        pd.DataFrame({"a": [1, 2], "b": [3, 4]}).to_csv(file, sep=mark, index=False)
        arguments = ["table", str(file), "--targets", "b"]
        told = " ".join(CliRunner().invoke(main, arguments).output.split())
        (options,) = re.findall(r"Run again with (.*)\?", told)
        CliRunner().invoke(main, [*arguments, *shlex.split(options)])
        assert frames.pop()["b"].tolist() == [3, 4]
    pd.DataFrame({"a": [1, 2], "b": [3, 4]}).to_csv(file, index=False)
    told = CliRunner().invoke(main, [*arguments, "--sep", ";"]).output
    assert 'Run again with --sep ","?' in " ".join(told.split())


#: Columns -> what is said of one as an input, and as a target.
TROUBLES = {
    "money": (
        [f"${n},000" for n in range(10, 90)],
        "plain numbers in the file",
        "classes",
    ),
    "hour": (
        [f"{n % 24:02}:{n % 60:02}" for n in range(80)],
        "Write minutes as numbers in the file",
        "no numbers",
    ),
    "built": (
        [f"{n % 28 + 1}.12.20{n % 20 + 10}" for n in range(80)],
        "Write the dates as 2024-12-31",
        "days since the first date",
    ),
    "odd": (["?", *map(str, range(79))], "Leave such cells empty", "no numbers"),
    "own": (
        [f"some {chr(97 + n)} {chr(98 + n)}" for n in range(120)],
        "Write fewer different texts in the file",
        "write fewer different texts in the file",
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_remedies_are_of_the_file_and_not_of_python(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    def fit(*_: Any) -> None:
        raise ValueError("enough")

    monkeypatch.setattr("kmtl.tabular.fitting._fit", fit)
    file = tmp_path / "rows.csv"
    texts, told, refused = TROUBLES[name]
    rows = pd.DataFrame(
        {name: (texts * 2)[:160], "rooms": [*range(80)] * 2, "y": [3, 4] * 80}
    )
    rows.to_csv(file, index=False)
    arguments = ["table", str(file), "--targets"]
    with caplog.at_level(logging.WARNING, "kmtl"):
        as_input = CliRunner().invoke(main, [*arguments, "y"])
    assert "enough" in as_input.output
    (warning,) = caplog.messages
    assert told in warning
    as_target = CliRunner().invoke(main, [*arguments, name])
    assert as_target.exit_code == 2
    assert refused in " ".join(as_target.output.split())
    for words in ("frame[", "pandas", "read_csv", "tasks=", "Table(", "NaN"):
        assert words not in as_target.output + warning


@pytest.mark.parametrize(
    ("columns", "targets"), [(("a m", "a-m"), "a m,a-m"), (("a m", "a_m"), "a m")]
)
def test_columns_of_one_name_are_renamed_in_the_file(
    tmp_path: Path, columns: tuple[str, str], targets: str
) -> None:
    file = tmp_path / "rows.csv"
    values = {name: range(80) for name in (*columns, "x")}
    pd.DataFrame(values).to_csv(file, index=False)
    arguments = ["table", str(file), "--targets", targets]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 2
    told = " ".join(found.output.split())
    assert "ename one of the two columns in the file" in told
    assert "tasks=" not in told


def test_many_categories_are_told_without_python(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "kmtl"):
        kmtl.inputs.Table(max_categories=2).fit({"c": ["a", "b", "c"]})
        with told_by(in_the_file):
            kmtl.inputs.Table(max_categories=2).fit({"c": ["a", "b", "c"]})
    python, file = caplog.messages
    assert "Raise `max_categories` to keep more." in python
    assert "max_categories" not in file
    assert "Write rare ones as one in the file" in file


def test_every_kind_of_trouble_has_words() -> None:
    kinds = re.findall(r'`"([a-z ]+)"`\s+\(', Remedy.__doc__ or "")
    assert len(kinds) == 10
    for kind in set(kinds) - {"spelling"}:
        assert in_the_file(Remedy(kind, "column", "")) != ""


def test_times_are_written_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    days = [f"{n % 28 + 1}.12.2024" for n in range(80)]
    pd.DataFrame({"day": days, "y": range(80)}).to_csv(file, index=False)
    arguments = ["table", str(file), "--targets", "y", "--time", "day"]
    found = " ".join(CliRunner().invoke(main, arguments).output.split())
    assert "13:30:00 (write them so in the file). Received: '1.12.2024'" in found
    assert "pandas" not in found


@pytest.mark.thorough
def test_from_a_file_to_an_export(file: Path, tmp_path: Path) -> None:
    arguments = ["--targets", "sold,stars", "--trials", "1", "--out", f"{tmp_path}/r"]
    found = CliRunner().invoke(main, ["table", str(file), *arguments])
    assert found.exit_code == 0, found.output
    written = ("rooms", "categorical, 3 values", "average", "load_table")
    assert served_names(tmp_path / "r" / "served") == ["'price in $' as price_in__"]
    written += ("The SavedModel takes 'price in $' as price_in__",)
    for words in (*written, "gives the predictor's numbers"):
        assert words in found.output
    board = pd.read_csv(tmp_path / "r" / "leaderboard.csv")
    again = kmtl.load_table(tmp_path / "r" / "predictor")
    assert board["test"].tolist() == pytest.approx(again.leaderboard()["test"].tolist())
    assert (tmp_path / "r" / "served" / "saved_model.pb").exists()
    later = CliRunner().invoke(main, ["table", str(file), *arguments])
    assert later.exit_code == 0
    assert "shared " not in later.output.split("skill")[1][:40]


def test_a_file_without_a_header_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "iris.csv"
    file.write_text("5.1,3.5,1.4\n4.9,3.0,1.3\n" * 20)
    for target, told in (("1.4", "Write a line of names"), ("kind", "Write names")):
        arguments = ["table", str(file), "--targets", target]
        found = CliRunner().invoke(main, arguments)
        assert found.exit_code == 2
        output = " ".join(found.output.split())
        assert told.lower() in output.lower()
        assert "read_options" not in output
