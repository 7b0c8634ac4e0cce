"""`kmtl table`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

#: Rows by which the SavedModel is compared with the model.
CHECKED = 100
#: What may be between cells, and how it is written in a shell.
SEPARATORS = {";": ";", "\t": r"\t", "|": "|", ",": ","}


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--targets",
    required=True,
    multiple=True,
    help="Columns to predict, separated by commas. May be given several times.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Time of the search.  [default: 5, or no limit with --trials]",
)
@click.option("--trials", type=click.IntRange(1), help="Nets to train, at most.")
@click.option(
    "--ignore", multiple=True, help="Columns not to predict from, as --targets."
)
@click.option("--groups", help="Column whose rows of one value stay together.")
@click.option("--time", help="Column of time: the last rows are the test.")
@click.option(
    "--sep", default=",", show_default=True, help=r"Between the cells; \t is a tab."
)
@click.option("--decimal", default=".", show_default=True, help="In numbers: . or ,")
@click.option("--thousands", help="Between thousands in numbers, such as , or .")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Decides the division of the rows, and the nets.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the result: predictor, leaderboard.csv and a SavedModel, and"
    " finished nets meanwhile.  [default: FILE without its ending, and '-kmtl']",
)
def command(
    file: Path,
    targets: tuple[str, ...],
    minutes: float | None,
    trials: int | None,
    ignore: tuple[str, ...],
    groups: str | None,
    time: str | None,
    sep: str,
    decimal: str,
    thousands: str | None,
    seed: int,
    out: Path | None,
) -> None:
    """Predict columns of a CSV file from the others: nets, linear models, trees.

    Trains nets that share weights between the targets and nets that do not, averages
    the best few, and says for each target what pays. Run again after Ctrl-C or a kill,
    it goes on where it was; with more --minutes, a finished search goes on.
    """
    from kmtl.cli._quiet import import_backend

    sep = sep.replace(r"\t", "\t")
    check_names(file, sep, [*targets, *ignore], [groups, time])
    import_backend()
    import kmtl
    from kmtl.cli._remedies import in_the_file
    from kmtl.data.csv_files import read_csv
    from kmtl.inputs.remedies import told_by

    out = out or file.with_name(f"{file.name.partition('.')[0]}-kmtl")
    try:
        with told_by(in_the_file):
            options = {"sep": sep, "decimal": decimal, "thousands": thousands}
            frame = read_csv(file, options)
            left_out = names_in(ignore, frame)
            predictor = kmtl.fit_table(
                frame.drop(columns=left_out),
                names_in(targets, frame),
                minutes,
                trials=trials,
                groups=groups,
                time=time,
                seed=seed,
                directory=out / "search",
            )
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from error
    predictor.save(out / "predictor", overwrite=True)
    predictor.leaderboard().to_csv(out / "leaderboard.csv", index=False)
    served = predictor.export(out / "served", overwrite=True)
    click.echo(f"\n{shown(predictor.leaderboard())}\n")
    click.echo(f"In {out}: predictor (kmtl.load_table), leaderboard.csv, served")
    if renamed := served_names(served):
        click.echo(f"The SavedModel takes {', '.join(renamed)}")
    click.echo("Running the SavedModel in a process without kmtl ...")
    kmtl.verify_export(served, predictor.model, frame[:CHECKED])
    click.echo("It gives the predictor's numbers.")


def check_names(
    file: Path, sep: str, given: Sequence[str], single: Sequence[str | None]
) -> None:
    """Refuse names that the header does not have, before the backend is imported.

    Args:
        file, sep: Read as far as the header; what cannot be read is told later.
        given: Names, separated by commas.
        single: One name each, or None.
    """
    import pandas as pd

    try:
        header = pd.read_csv(file, sep=sep, nrows=0)
    except (ValueError, OSError):  # of pandas too: no table, no text
        return
    try:
        names_in(given, header)
        _check_there([name for name in single if name], list(header.columns))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def names_in(given: Sequence[str], frame: Any) -> list[str]:
    """Columns named one by one or separated by commas; a name may hold commas itself.

    Raises:
        ValueError: for one that the file does not have.
    """
    known = list(frame.columns)
    found: list[str] = []
    for text in given:
        parts = [text] if text in known else [one.strip() for one in text.split(",")]
        found += [one for one in parts if one]
    _check_there(found, known)
    return found


def _check_there(names: Sequence[str], known: list[str]) -> None:
    from kmtl._checks import did_you_mean

    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or _other_first_line(known)
            raise ValueError(
                f"The file has no column '{name}'.{hint} "
                f"Received: columns {', '.join(map(str, known))}"
            )


def _other_first_line(columns: list[str]) -> str:
    """A hint, where all names are one, as another character is between them, and where
    they are numbers, as the file has none."""
    marks = [mark for mark in SEPARATORS if mark in str(columns[0])]
    if marks and len(columns) == 1:
        return f' Run again with --sep "{SEPARATORS[marks[0]]}"?'
    if all(str(name).lstrip("-").replace(".", "").isdigit() for name in columns):
        return " All names are numbers: is that a row? Write names above the data."
    return ""


def served_names(served: Path) -> list[str]:
    """Columns that a SavedModel takes under other names than their own, and these."""
    from kmtl.export.description import read_description
    from kmtl.export.raw import renamed

    columns = renamed(read_description(served)["inputs"])
    return [f"'{column}' as {name}" for name, column in columns.items()]


def shown(board: Any) -> str:
    """The leaderboard without what takes many words."""
    short = board.drop(columns=["choice", "better"])
    short["metric"] += board["better"].map({"higher": " ↑", "lower": " ↓"})
    return str(short.to_string(index=False, float_format="{:.4g}".format))
