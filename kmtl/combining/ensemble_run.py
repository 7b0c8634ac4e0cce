"""An ensemble that was trained: its members, how far they are apart, its scores."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kmtl.evaluation.ensemble import compare
from kmtl.evaluation.table import Evaluation
from kmtl.training.model import MultiTaskModel
from kmtl.typing import Data, Inputs, Outputs

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True, eq=False)
class EnsembleRun:
    """An ensemble that was trained.

    Attributes:
        model: The one model of all members; it saves, loads and exports as any other.
        members: The members; of boosting the sums of the first stages, up to all.
        method: How they were trained.
        histories: Per training log name -> values per epoch.
        out_of_bag: Of bagging, the scores of rows by the members that had not trained
            on them; else None.
    """

    model: MultiTaskModel
    members: tuple[MultiTaskModel, ...]
    method: str
    histories: tuple[dict[str, list[float]], ...]
    out_of_bag: Evaluation | None = None

    def evaluate(self, data: Data, **options: Any) -> pandas.DataFrame:
        """The scores of the members, their mean and spread, and the ensemble's.

        Args:
            data, **options: As for `kmtl.evaluate`.

        Returns:
            A DataFrame: a row per member, then `"mean"` and `"spread"` (the standard
            deviation over members), and `"ensemble"`; a column per task's score.
        """
        import pandas

        word = "stages" if self.method == "boosting" else "member"
        named = {f"{word} {i}": m for i, m in enumerate(self.members, 1)}
        table = compare({**named, "ensemble": self.model}, data, **options)
        own = table.iloc[:-1]
        ddof = 1 if len(own) > 1 else 0
        extra = pandas.DataFrame({"mean": own.mean(), "spread": own.std(ddof=ddof)}).T
        found = pandas.concat([own, extra, table.iloc[-1:]])
        found.index.name = table.index.name
        return found

    def spread(self, x: Inputs, batch_size: int | None = None) -> Outputs:
        """How far the members' answers are apart: a standard deviation per answer.

        Of probabilities for classes, in the labels' unit for values.

        Args:
            x: Inputs, as for `predict`.
            batch_size: As for `predict`.

        Returns:
            Dict task name -> array of the shape of the task's outputs.

        Raises:
            ValueError: for boosting, whose stages are no answers of their own.
        """
        if self.method == "boosting":
            raise ValueError(
                "`spread` needs members that answer alone, which stages of boosting do "
                "not: train with method='seeds' or 'bagging'"
            )
        found = [m.predict(x, batch_size=batch_size, verbose=0) for m in self.members]
        return {
            task.name: np.std(
                [
                    keras.ops.convert_to_numpy(task.activate(answers[task.name]))
                    for answers in found
                ],
                axis=0,
            )
            for task in self.model.tasks
        }
