"""What gates, stitches and branches do: readings of all recorded layers."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from kmtl._private.keras import sublayers
from kmtl.inspection.parts import owner_and_number
from kmtl.layers.recorded import Recorded

if TYPE_CHECKING:
    import pandas

    from kmtl.training.model import MultiTaskModel

#: How far from 1 a sum of shares may be, for rounding.
TOLERANCE = 1e-3
COLUMNS = ("layer", "reading", "row", "entry", "value")
WIDTH = 100


@dataclasses.dataclass(frozen=True)
class Usage:
    """How evenly something is divided, such as a task's weight over experts.

    Args:
        layer: Name of the layer.
        reading: Whose reading it is.
        shares: Dict entry (an expert, a source) -> its share.
        entropy: `-Σ p ln p` in nats, from 0 (one entry has all) to ln(entries).
        effective: exp(entropy): how many entries, evenly used, would be as much.
        imbalance: Largest share times the number of entries: 1 is even.
        unused: Entries with less than a tenth of an even share.
    """

    layer: str
    reading: str
    shares: dict[str, float]
    entropy: float
    effective: float
    imbalance: float
    unused: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Gates:
    """Readings of a model, made by `kmtl.gates`. `print` shows a table.

    Args:
        frame: A pandas DataFrame with a row per number: `layer`, `reading`, `row` (of
            a matrix, else 0), `entry` (what the number stands for) and `value`.
        usage: One `Usage` per reading that divides something: shares that are not
            negative and sum to 1.
    """

    frame: pandas.DataFrame
    usage: tuple[Usage, ...]

    def usage_frame(self) -> pandas.DataFrame:
        """A pandas DataFrame, one row per layer and reading."""
        import pandas

        rows = []
        for found in self.usage:
            row = dataclasses.asdict(found)
            row["unused"] = ", ".join(row["unused"])
            rows.append(row)
        names = [field.name for field in dataclasses.fields(Usage)]
        return pandas.DataFrame(rows, columns=names).set_index(["layer", "reading"])

    def __str__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        if not len(self.frame):
            return "No layer of the model is recorded."
        table = Table(box=box.SIMPLE_HEAD, expand=False)
        for header in ("Layer", "Reading", "Values", "Effective", "Imbalance"):
            table.add_column(header)
        usage = {(found.layer, found.reading): found for found in self.usage}
        for (layer, reading), rows in self.frame.groupby(
            ["layer", "reading"], sort=False
        ):
            found = usage.get((layer, reading))
            table.add_row(
                layer,
                reading,
                ", ".join(
                    f"{entry} {value:.3f}"
                    for entry, value in zip(rows["entry"], rows["value"], strict=True)
                ),
                "-" if found is None else f"{found.effective:.2f}",
                "-" if found is None else f"{found.imbalance:.2f}",
            )
        console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
        console.print(table)
        text = str(console.file.getvalue())  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


def gates(model: MultiTaskModel) -> Gates:
    """The present readings of a model's gates, stitches and branches.

    A gate that depends on its inputs tells means over the training examples since its
    readings were last reset (`kmtl.inspection.GateRecorder` does so before every
    epoch); before any training they are NaN.

    Args:
        model: A Keras model with `kmtl.layers.Recorded` layers.

    Returns:
        A `kmtl.inspection.Gates`.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8,), sharing="cross_stitch"
    ... )
    >>> kmtl.gates(model).frame.round(2)[["layer", "entry", "value"]]
           layer entry  value
    0  a_stitch1     a    0.9
    1  a_stitch1     b    0.1
    2  b_stitch1     a    0.1
    3  b_stitch1     b    0.9
    """
    import pandas

    rows = []
    for layer in recorded_layers(model):
        for reading, values in layer.readings().items():
            rows += _rows(layer, reading, np.asarray(values, "float64"))
    frame = pandas.DataFrame(rows, columns=list(COLUMNS))
    return Gates(frame, tuple(usage_of(frame)))


def recorded_layers(model: MultiTaskModel) -> list[Recorded]:
    """All recorded layers of a model, also inside of other layers: by the number of
    their block, tasks in the model's order, then in the order of the layers."""
    found = [layer for layer in sublayers(model) if isinstance(layer, Recorded)]
    tasks = tuple(getattr(model, "task_names", ()))

    def place(layer: Recorded) -> tuple[float, int]:
        owner, number = owner_and_number(layer, tasks)
        return (
            math.inf if number is None else number,
            len(tasks) if owner is None else tasks.index(owner),
        )

    return sorted({id(layer): layer for layer in found}.values(), key=place)


def usage_of(frame: pandas.DataFrame) -> Iterable[Usage]:
    """Usage of every reading that is shares: not negative, with sum 1."""
    for (layer, reading), rows in frame.groupby(["layer", "reading"], sort=False):
        values = rows["value"].to_numpy("float64")
        if rows["row"].nunique() > 1 or not is_shares(values):
            continue
        yield _usage(layer, reading, dict(zip(rows["entry"], values, strict=True)))


def is_shares(values: np.ndarray) -> bool:
    """Whether numbers divide a whole."""
    return bool(
        len(values) > 1
        and np.isfinite(values).all()
        and (values >= -TOLERANCE).all()
        and abs(values.sum() - 1) < TOLERANCE
    )


def _usage(layer: str, reading: str, shares: Mapping[str, float]) -> Usage:
    values = np.clip(np.array(list(shares.values())), 0.0, None)
    values = values / values.sum()
    logs = np.log(np.where(values > 0, values, 1.0))
    entropy = float(-(values * logs).sum())
    even = 1.0 / len(values)
    return Usage(
        layer=layer,
        reading=reading,
        shares={name: float(value) for name, value in shares.items()},
        entropy=entropy,
        effective=float(np.exp(entropy)),
        imbalance=float(values.max() / even),
        unused=tuple(
            name for name, v in zip(shares, values, strict=True) if v < even / 10
        ),
    )


def _rows(layer: Recorded, reading: str, values: np.ndarray) -> list[tuple]:
    """One row per number of a reading."""
    table = values.reshape(-1, values.shape[-1]) if values.ndim else values[None, None]
    labels = list(layer.reading_labels())
    if len(labels) != table.shape[-1]:
        labels = [str(i + 1) for i in range(table.shape[-1])]
    return [
        (layer.name, reading, row, label, float(value))
        for row, line in enumerate(table)
        for label, value in zip(labels, line, strict=True)
    ]
