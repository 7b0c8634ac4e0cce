"""What `kmtl.fit_table` returns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl import _files, _swap
from kmtl.data.assembling import checked_frame
from kmtl.tabular.leaderboard import frame_of
from kmtl.tabular.nets import ROWS, answers_of
from kmtl.tabular.scores import scores
from kmtl.tabular.targets import TargetColumn
from kmtl.typing import PathLike

if TYPE_CHECKING:
    import pandas

    from kmtl.training.model import MultiTaskModel

META, MODEL = "table_predictor.json", "model.keras"
FORMAT = 1
_REMEDY = "Save the predictor again, or take another copy."


@dataclasses.dataclass(frozen=True, eq=False)
class TablePredictor:
    """The averaged models of a table, and how they came to be.

    Made by `kmtl.fit_table`, or read by `kmtl.load_table`.

    Args:
        model: The average, a `kmtl.MultiTaskModel` of all targets.
        targets: The targets' columns and tasks.
        verdict: Column -> in words: share it, train it alone, or take something else.
        rows: Part of the data -> numbers of its rows in the table that was given.
        description: What became of each column.
        board, nets: Rows of `leaderboard()` and `trials()`.
    """

    model: MultiTaskModel
    targets: tuple[TargetColumn, ...]
    verdict: dict[str, str]
    rows: dict[str, np.ndarray]
    description: str
    board: list[dict[str, Any]] = dataclasses.field(repr=False)
    nets: list[dict[str, Any]] = dataclasses.field(repr=False)

    def __repr__(self) -> str:
        members = [row["model"] for row in self.nets if row["share"]]
        trained = sum(math.isfinite(row["validation_skill"]) for row in self.nets)
        parts = ", ".join(f"{name} {len(rows)}" for name, rows in self.rows.items())
        lines = [
            f"<TablePredictor: mean of {len(members)} of {trained} models; "
            f"rows: {parts}>"
        ]
        for target in self.targets:
            lines.append(f"{target.column}: {self.verdict[target.column]}")
        return "\n".join(lines)

    # -- use --------------------------------------------------------------------------

    def predict(self, frame: Any, probabilities: bool = False) -> pandas.DataFrame:
        """Predictions for the rows of a frame with the columns that were trained on.

        Args:
            frame: `pandas.DataFrame` (or one of polars, or a dict of columns, or of a
                single row's cells). Further columns, the targets among them, are not
                looked at. There may be no row.
            probabilities: Add a column `"<target>: <class>"` per class.

        Returns:
            A DataFrame with a column per target and the index of `frame`: values in
            the target's unit; of classes the most probable one (of classes in an order
            the median), as the column had it.

        Raises:
            ValueError: for a column that is not there.
        """
        import pandas as pd

        frame = _as_columns(frame)
        answers = self._answers(frame)
        found: dict[str, Any] = {}
        for target in self.targets:
            own = answers[target.task.name]
            found[target.column] = target.named(own)
            if probabilities:
                found |= target.chances(own)
        index = frame.index if isinstance(frame, pd.DataFrame) else None
        return pd.DataFrame(found, index=index)

    def evaluate(self, frame: Any) -> pandas.DataFrame:
        """Scores on other labelled rows.

        Args:
            frame: As for `predict`, with the targets' columns. Rows without a label do
                not count for that target.

        Returns:
            A DataFrame with a row per target and metric: the target's score first.

        Raises:
            ValueError: for a target that is not there, or values that are no classes.
        """
        import pandas as pd

        frame = _as_columns(frame)
        answers = self._answers(frame)
        frame = checked_frame(frame)
        lines = []
        for target in self.targets:
            if target.column not in frame.columns:
                raise ValueError(
                    f"`frame` must have the column of target '{target.column}'. "
                    f"Received: columns {', '.join(frame.columns)}"
                )
            labels = target.labels(frame)
            found = scores(target.task, labels, answers[target.task.name])
            lines += [
                {"target": target.column, "metric": name, "value": value}
                for name, value in found.items()
            ]
        return pd.DataFrame(lines, columns=["target", "metric", "value"])

    def _answers(self, frame: Any) -> dict[str, np.ndarray]:
        x = self.model.prepare_inputs(_some_row(frame))
        outputs = self.model.predict(x, batch_size=ROWS, verbose=0)
        found = answers_of(self.model.tasks, outputs)
        count = _row_count(frame)
        return {name: answers[:count] for name, answers in found.items()}

    # -- what happened ----------------------------------------------------------------

    def leaderboard(self) -> pandas.DataFrame:
        """Per target every side, the best on the test rows first.

        Columns: `target`; `model`: the average (which `predict` uses), the best net in
        which targets share weights, the best in which each has its own, a linear model,
        a forest and gradient boosting (which cannot be in the average: it could not be
        exported), and the constant answer that training labels give; `metric`, and
        whether `better` is `"higher"` or `"lower"`; `test`, on rows that were looked at
        once, after all choices; `validation`, by which these were made; `choice`: what
        was chosen, and how. What was not fitted is last, without scores.
        """
        return frame_of(self.board)

    def trials(self) -> pandas.DataFrame:
        """One row per trained net, in their order, then one per net that failed or was
        left out (`why` says it), and one per other kind of model.

        What it is for, its skill on the validation rows (0: no better than the mean, 1:
        perfect; mean over the targets), epochs, seconds, and its share in the average
        (the mean over the targets; `leaderboard()` has that of each).
        """
        import pandas as pd

        return pd.DataFrame(self.nets)

    # -- files ------------------------------------------------------------------------

    def export(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write a SavedModel that takes the table's columns as they are.

        See `MultiTaskModel.export`. Names of columns are made valid there: all but
        letters and digits are underscores, and a letter comes first. A column
        `area m2` is `area_m2`, and `2nd` is `column_2nd`; each has its own name as
        `"column"` in `assets.extra/kmtl_signature.json`, the export's description.

        Outputs are called as the tasks: values in their unit; of two classes the
        probability of the second; of several all probabilities, and as `<task>_top` the
        most probable one, by name if it is written on TensorFlow, else by its number.
        The names of classes, and units, are in the description too.

        Args:
            path: The folder to write.
            overwrite: Replace an export of kmtl that exists. Defaults to False.
        """
        import keras

        options: dict[str, Any] = {}
        if any(task.classes_last for task in self.model.tasks):
            options["top_k"] = 1
            options["names"] = keras.backend.backend() == "tensorflow"
        return self.model.export(path, overwrite=overwrite, **options)

    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write everything into a folder, for `kmtl.load_table`.

        Raises:
            FileExistsError: if something is there that is no saved predictor, or one
                and `overwrite` is False.
        """
        target = _swap.real_path(path)
        if target.exists() and not (overwrite and _is_ours(target)):
            raise FileExistsError(
                "`path` must not exist yet, or be a saved predictor and overwrite=True."
                f" Received: path='{target}'"
            )
        record = {
            "format": FORMAT,
            "targets": [one.to_config() for one in self.targets],
            "verdict": self.verdict,
            "rows": {name: rows.tolist() for name, rows in self.rows.items()},
            "description": self.description,
            "board": _without_nan(self.board),
            "nets": _without_nan(self.nets),
        }
        with _swap.folder_beside(target) as folder:
            made = folder / target.name
            made.mkdir()
            self.model.save(made / MODEL)
            _files.write_json(made / META, record)
            _swap.replace(made, target, _is_ours)
        return target


def load_table(path: PathLike) -> TablePredictor:
    """A predictor that `TablePredictor.save` has written.

    No code of the file is run: it holds numbers, JSON and Keras' config.

    Raises:
        FileNotFoundError: if there is none.
        kmtl.DamagedFileError: for a file that cannot be read.
    """
    from kmtl.training.loading import load_model

    folder = Path(path)
    if not (folder / META).exists():
        raise FileNotFoundError(
            "`path` must be a folder that TablePredictor.save has written. "
            f"Received: path='{folder}'"
        )
    found = _files.read_json(folder / META, _REMEDY, keys=("targets", "board", "nets"))
    model = load_model(folder / MODEL)
    targets = tuple(
        TargetColumn(
            one["column"],
            model.task(one["task"]),
            None if one["values"] is None else tuple(one["values"]),
            one.get("given", False),
            one.get("ordered", False),
        )
        for one in found["targets"]
    )
    rows = {name: np.array(rows, np.int64) for name, rows in found["rows"].items()}
    return TablePredictor(
        model,
        targets,
        found["verdict"],
        rows,
        found["description"],
        _with_nan(found["board"]),
        _with_nan(found["nets"]),
    )


def _as_columns(frame: Any) -> Any:
    """Cells of one row as columns of one cell."""
    if not isinstance(frame, Mapping):
        return frame
    is_row = all(cell is None or np.ndim(cell) == 0 for cell in frame.values())
    return {name: [cell] for name, cell in frame.items()} if is_row else frame


def _some_row(frame: Any) -> Any:
    """The frame, or one row of missing cells if it has none: Keras predicts nothing of
    no row."""
    if _row_count(frame) != 0:
        return frame
    names = frame if isinstance(frame, Mapping) else frame.columns
    return {name: [None] for name in names}


def _row_count(frame: Any) -> int:
    columns = list(frame.values()) if isinstance(frame, Mapping) else [frame]
    return max((len(one) for one in columns if hasattr(one, "__len__")), default=1)


def _is_ours(path: Path) -> bool:
    return path.is_dir() and ((path / META).is_file() or not any(path.iterdir()))


def _without_nan(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """NaN as None: JSON knows no NaN."""
    return [
        {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in row.items()
        }
        for row in rows
    ]


def _with_nan(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]
