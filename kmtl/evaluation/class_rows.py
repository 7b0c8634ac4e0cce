"""Numbers per class as plain data and as a table to print."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from kmtl.typing import Config

if TYPE_CHECKING:
    import pandas
    from rich.table import Table


class ClassRows:
    """What the tables of classes and of objects have in common: a row per class, of
    `to_frame()`, whose last column is the class's `support`."""

    task: str
    names: tuple[str, ...]

    @property
    def title(self) -> str:
        """Above the printed table."""
        raise NotImplementedError

    def to_frame(self) -> pandas.DataFrame:
        """One row per class."""
        raise NotImplementedError

    def to_dict(self) -> Config:
        """Plain data: class name -> its numbers, None where undefined."""
        rows = self.to_frame().to_dict("records")
        return {
            name: {
                key: int(value)
                if key == "support"
                else (None if np.isnan(value) else float(value))
                for key, value in row.items()
            }
            for name, row in zip(self.names, rows, strict=True)
        }

    def table(self) -> Table:
        """A rich table."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=self.title, box=box.SIMPLE_HEAD)
        table.add_column("Class")
        for name in self.to_frame().columns:
            table.add_column(name, justify="right", no_wrap=True)
        for name, row in self.to_dict().items():
            cells = [
                "-" if value is None else f"{value:.3g}"
                for key, value in row.items()
                if key != "support"
            ]
            table.add_row(escape(name), *cells, str(row["support"]))
        return table

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=100, color_system=None)
        console.print(self.table())
        return str(console.file.getvalue()).rstrip()  # type: ignore[attr-defined]
