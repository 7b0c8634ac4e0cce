"""Frames and CSV files to inputs, tasks and splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kmtl.data.assembling import assemble, checked_frame
from kmtl.data.column_names import ColumnNames
from kmtl.data.containers import TaskData
from kmtl.data.csv_files import read_csv
from kmtl.typing import Options, PathLike

if TYPE_CHECKING:
    from kmtl.tasks.base import Task


def from_dataframe(
    frame: Any,
    tasks: Sequence[Task] | Mapping[Task, Any] | None = None,
    *,
    targets: Sequence[str] | None = None,
    inputs: Any = None,
    split: Any = (0.7, 0.15, 0.15),
    groups: str | None = None,
    time: str | None = None,
    seed: int = 0,
    verbose: bool = True,
) -> TaskData:
    """Inputs, tasks and splits of a table, ready to build, train, search and compare.

    Every column that is no target is an input, taken for what it holds: numbers are
    numeric, booleans boolean, dates (and text that holds ISO dates) datetime, other
    text and pandas' categories categorical. Left out, with a word, are identifiers
    (text, and whole numbers in a column called so, different in every row), text of its
    own in most rows, and columns of one value or without any in the training rows.
    Dates in other formats, times of day, and numbers with signs, units or marks between
    thousands ("$1,200"), are text: a warning says how to make dates and numbers of
    them. Missing cells are filled and flagged, from the training rows' statistics.

    A target of two values becomes a `kmtl.BinaryClassification`; pandas' ordered
    categories (`pandas.Categorical(..., ordered=True)`, `pandas.cut`) a `kmtl.Ordinal`
    with all of them, in their order; lists of names (any number of them per row) a
    `kmtl.MultiLabel`; text, other categories and whole numbers of up to
    ten values a `kmtl.Classification`, with the values as names; other numbers a
    `kmtl.Regression` learned in standard units. Rows without a label are kept: they are
    masked for that task.

    Args:
        frame: `pandas.DataFrame` (or one of polars, or a dict of columns). Columns
            whose names are no text, such as 3 or ("t", "y"), are called by these or by
            their text, `"3"`, which is what is printed.
        tasks: Tasks named as their columns, or a dict task -> column, or columns for a
            task of several: `{kmtl.MultiLabel("tags", classes=2): ["new", "hot"]}`.
            `kmtl.Classification("kind", labels="auto")` learns the classes of its
            column, as `targets` does, with options of your own.
            `kmtl.Regression("price", sample_weight="area")` weighs rows by a column,
            which is no input then, unless `inputs` names it.
        targets: Names of columns whose tasks are inferred, beside `tasks`.
        inputs: None for all columns that nothing else names; names of columns; a
            `kmtl.inputs.Table(columns={"zip": "categorical"})`, which says what some
            are; or a dict of inputs: tables by any name, other kinds by the name of
            their column, such as `{"facts": Table(), "review": Text()}`.
        split: Fractions of train, validation and test; a column that names them in
            each row; or a dict of their rows, `{"train": [0, 1], "test": [4]}`, numbers
            or flags. Fractions divide at random, alike in all targets at once. Columns
            and dicts may say "val", "valid" or "dev" as well; where they name no
            validation rows, or no test rows, these are 15 % of the training rows, drawn
            in the same way, which is written above the table.
        groups: Column whose rows of one value stay in one part, such as a patient. No
            input, unless `inputs` names it.
        time: Column of dates or numbers: the earliest rows train, the last ones test.
            No input, unless `inputs` names it.
        seed: Integer >= 0, of the division.
        verbose: Write what becomes of each column (also `data.description`).

    Returns:
        A `kmtl.data.TaskData`: `inputs` fitted on the training rows, `tasks`, `train`,
        `validation` and `test`; `frame.iloc[data.test.rows]` are the test rows as
        given.

    Raises:
        ValueError, TypeError: for targets that are no columns, dates, prose, one value
            or without labels; columns of one name, of mixed cells, of dates in two
            formats; inputs that are targets; no row. Each names the column.

    Example:

    >>> import pandas as pd
    >>> frame = pd.DataFrame({
    ...     "rooms": [2, 3, None, 4] * 10,
    ...     "town": ["Ulm", "Bonn", "Ulm", None] * 10,
    ...     "price": np.arange(40) * 1000.0,
    ...     "sold": ["yes", "no", "no", "yes"] * 10,
    ...     "state": pd.Categorical(
    ...         ["poor", "good", "fair", None] * 10, ["poor", "fair", "good"],
    ...         ordered=True),
    ... })
    >>> data = kmtl.data.from_dataframe(frame, targets=["price", "sold", "state"])
    40 rows: train 28, validation 6, test 6
    column  role    taken for                            missing
    rooms   table   numeric                              25 %
    town    table   categorical, 2 values                25 %
    price   target  regression 'price', standardize
    sold    target  binary_classification 'sold': no, yes
    state   target  ordinal 'state': poor, fair, good    25 %
    >>> model = kmtl.build(inputs=data.inputs, tasks=data.tasks, backbone="mlp", seed=0)
    >>> model.compile("adam")
    >>> history = model.fit(data.train, validation_data=data.validation, verbose=0)
    >>> kmtl.evaluate(model, data.test).examples
    6
    """
    named = ColumnNames(frame).options(
        tasks=tasks,
        targets=targets,
        inputs=inputs,
        split=split,
        groups=groups,
        time=time,
    )
    return assemble(checked_frame(frame), **named, seed=seed, verbose=verbose)


def from_csv(
    path: PathLike,
    tasks: Sequence[Task] | Mapping[Task, Any] | None = None,
    *,
    read_options: Options | None = None,
    **options: Any,
) -> TaskData:
    """`from_dataframe` of a CSV file (gzip and the like too), read by pandas.

    Args:
        path: The file, or its address.
        tasks: As for `from_dataframe`.
        read_options: Further arguments of `pandas.read_csv`, such as `{"sep": ";",
            "na_values": ["?"]}` or `{"parse_dates": ["day"]}`. With `thousands`,
            columns whose texts have that mark elsewhere, as dates have, stay text.
            `{"header": None}` for a file without a header.
        **options: Further arguments of `from_dataframe`.

    Raises:
        ValueError: as `from_dataframe`; for a file without a table, a header with one
            name twice, and one of numbers alone, which is taken for a row of data until
            `read_options` say `{"header": None}` or `{"header": 0}`.

    Example:

    >>> with open("houses.csv", "w") as file:
    ...     _ = file.write("rooms;price\\n" + "".join(
    ...         f"{n % 4 + 1};{n * 1000}\\n" for n in range(40)))
    >>> data = kmtl.data.from_csv(
    ...     "houses.csv", targets=["price"], read_options={"sep": ";"}, verbose=False
    ... )
    >>> data
    <TaskData: tasks price; inputs (1,); rows: train 28, validation 6, test 6>
    """
    return from_dataframe(read_csv(path, read_options), tasks, **options)
