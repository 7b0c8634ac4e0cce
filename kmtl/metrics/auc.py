"""Area under the ROC curve per label column: exact up to a number of rows, and from a
streamed histogram beyond."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kmtl.losses.masked import all_replicas_sum, replica_count, replica_index
from kmtl.metrics.kept_scores import (
    bins_of_scores,
    exact_area,
    is_concrete,
    write_rows,
)
from kmtl.metrics.undefined import nan_where, ratio
from kmtl.typing import Config, DType, Tensor

# Scores that are kept of all columns together, and the bounds for the rows of them.
MOST_SCORES, FEWEST_ROWS, MOST_ROWS = 2**20, 1024, 2**17
# Fine bins for few columns, and a bounded state for many.
FEWEST_BINS, MOST_BINS, MOST_COUNTS = 1024, 4096, 2**16
#: Scores are told apart up to exp(16) / 2, 4 million, spreads from the centre.
REACH = 16.0
#: Up to here the distances of scores stay in float32's range.
LARGEST = 1e38
#: The least spread, in proportion to the centre, and to 0.1 for a net that begins at 0.
SMALLEST_SPREAD, SMALLEST_CENTRE = 1e-4, 0.1


@keras.saving.register_keras_serializable(package="kmtl")
class AUC(keras.metrics.Metric):
    """ROC-AUC, averaged over the columns that have both classes; NaN without any.

    Keras' own AUC counts a column without positives as 0 and knows no missing entry
    per column, so ours keeps the scores of rows: the result is that of scikit-learn's
    `roc_auc_score`. That of more rows than are kept comes from a histogram, per column,
    of the scores of each class; ties inside a bin count half. Its bins are
    fitted to each column's first labelled batch: 0.008 of its spread wide around its
    centre and 0.8 % of the distance to it farther out (at 4096 bins), so that logits of
    any size are told apart.

    Args:
        columns: Number of label columns K; labels, outputs (logits), mask `(N, K)`.
        bins: Number of histogram bins over the scores. Defaults to 4096, and to fewer
            (down to 1024) for more than 16 columns.
        rows: Rows that are kept, 8 bytes per row and column. Defaults to 131072, and to
            fewer (down to 1024) for more than 8 columns.
    """

    def __init__(
        self,
        columns: int = 1,
        bins: int | None = None,
        rows: int | None = None,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        if bins is None:
            bins = min(MOST_BINS, max(FEWEST_BINS, MOST_COUNTS // columns))
        if rows is None:
            rows = min(MOST_ROWS, max(FEWEST_ROWS, MOST_SCORES // columns))
        if rows < 1:
            raise ValueError(f"`rows` must be at least 1. Received: rows={rows}")
        self.columns = columns
        self.bins = bins
        self.rows = rows
        self.histogram = self.add_variable(
            (2 * columns * bins,), "zeros", dtype=self.dtype, name="histogram"
        )
        self.centre = self.add_variable(
            (columns,), "zeros", dtype=self.dtype, name="centre"
        )
        #: 0 until the column has had a label.
        self.spread = self.add_variable(
            (columns,), "zeros", dtype=self.dtype, name="spread"
        )
        #: Scores, and their weights: positive for label 1, negative for 0.
        self.kept = self.add_variable(
            (rows, columns, 2), "zeros", dtype="float32", name="kept"
        )
        #: Rows that are kept, and rows that there was no room for. (Floats: TensorFlow
        #: keeps variables of int32 off a GPU.)
        self.seen, self.lost = (
            self.add_variable((), "zeros", dtype="float32", name=name)
            for name in ("seen", "lost")
        )
        self._within: int | None = None

    def scored(self, labels: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores in float32's range, and labels of which those above 0.5 are of the
        positive class; each `(N, K)`."""
        score = ops.clip(ops.cast(outputs, "float32"), -LARGEST, LARGEST)
        return score, ops.cast(labels, "float32")

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        score, labels = (
            ops.reshape(part, (-1, self.columns))
            for part in self.scored(labels, outputs)
        )
        if sample_weight is None:
            weight = ops.ones_like(score)
        else:
            weight = ops.cast(sample_weight, "float32")
            weight = ops.reshape(weight, (-1, self.columns))
        counts = weight > 0
        # One NaN that counts makes the result NaN.
        weight = nan_where(ops.logical_and(ops.isnan(score), counts), weight)
        score = ops.where(ops.isnan(score), ops.zeros_like(score), score)
        centre, spread = self._scale(score, ops.cast(counts, "float32"))
        distance = ops.arcsinh((score - centre) / ops.where(spread > 0, spread, 1.0))
        place = (ops.clip(distance, -REACH, REACH) / REACH + 1.0) * (self.bins / 2)
        bins = ops.cast(ops.clip(place, 0, self.bins - 1), "int32")
        positive = labels > 0.5
        self._keep(score, ops.where(positive, weight, -weight))
        labels = ops.cast(positive, "int32")
        columns = ops.arange(self.columns, dtype="int32")
        index = (labels * self.columns + columns) * self.bins + bins
        self.histogram.assign_add(
            ops.cast(
                ops.segment_sum(
                    ops.reshape(weight, (-1,)),
                    ops.reshape(index, (-1,)),
                    num_segments=2 * self.columns * self.bins,
                ),
                self.dtype,
            )
        )

    def _keep(self, score: Tensor, weight: Tensor) -> None:
        """Write down a batch, each replica in a part of its own."""
        share = self.rows // replica_count()
        batch = ops.stack([score, weight], axis=-1)[:share]
        # Read before they are assigned: on TensorFlow this is the variable itself.
        seen = ops.cast(self.seen, "int32")
        first = ops.minimum(seen, share - ops.shape(batch)[0])
        end = seen + ops.shape(score)[0]
        write_rows(self.kept, replica_index() * share + first, batch)
        # Where a batch does not fit, what is kept is of no use any more.
        self.lost.assign_add(ops.cast(ops.maximum(end - share, 0), "float32"))
        self.seen.assign(ops.cast(ops.minimum(end, share), "float32"))

    def _scale(self, score: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Centre and spread of each column `(K,)`: those of its first labelled batch.

        Means of logarithms, which a few very large scores move little; and of the
        global batch, so that replicas count in the same bins.
        """
        rows = all_replicas_sum(ops.sum(counts, axis=0))
        share = counts / ops.where(rows > 0, rows, 1.0)
        middle = all_replicas_sum(ops.sum(ops.arcsinh(score) * share, axis=0))
        middle = ops.sinh(middle)
        least = SMALLEST_SPREAD * ops.maximum(ops.abs(middle), SMALLEST_CENTRE)
        away = ops.log(ops.maximum(ops.abs(score - middle), least))
        away = ops.exp(all_replicas_sum(ops.sum(away * share, axis=0)))
        known = ops.convert_to_tensor(self.spread) > 0
        centre = ops.where(known, self.centre * 1.0, middle)
        spread = ops.where(known, self.spread * 1.0, away)
        spread = ops.where(ops.logical_or(known, rows > 0), spread, 0.0)
        self.centre.assign(centre)
        self.spread.assign(spread)
        return centre, spread

    def result(self) -> Tensor:
        """Exact; inside of a compiled step, where sorting would take longer than the
        step, as the histogram has it."""
        return _mean(*self.of_columns())

    def exact_result(self, rows: int | None = None) -> Tensor:
        """`result`, exact inside of compiled code too.

        Args:
            rows: How many may have been seen at most. Defaults to all that are kept.
        """
        self._within = self.rows if rows is None else rows
        try:
            return self.result()  # that of a subclass, too
        finally:
            self._within = None

    def of_columns(self) -> tuple[Tensor, Tensor]:
        """Area of each column, and 1 where it has both classes, else 0; each `(K,)`."""
        if self._within is not None or is_concrete(self.lost):
            return self.exact_columns(self._within)
        return self._binned()

    def exact_columns(self, rows: int | None = None) -> tuple[Tensor, Tensor]:
        """`of_columns`, exact inside of compiled code too."""
        if is_concrete(self.lost):
            # (Of a strategy's variables the sum is a tensor, and they are none.)
            if int(self.lost + 0):
                return self._binned()
            kept = ops.convert_to_numpy(self.kept + 0)
            found = [exact_area(kept[:, i]) for i in range(self.columns)]
            areas, defined = np.array(found, self.dtype).T
            return areas, defined
        kept = ops.convert_to_tensor(self.kept)[:rows]
        binned, defined = self._binned()
        exact, _ = _area(*bins_of_scores(kept))
        complete = ops.convert_to_tensor(self.lost) == 0
        return ops.where(complete, ops.cast(exact, self.dtype), binned), defined

    def _binned(self) -> tuple[Tensor, Tensor]:
        """`of_columns` as the histogram has it."""
        histogram = ops.reshape(self.histogram, (2, self.columns, self.bins))
        return _area(histogram[0], histogram[1])

    def get_config(self) -> Config:
        sizes = {"columns": self.columns, "bins": self.bins, "rows": self.rows}
        return {**super().get_config(), **sizes}


def _area(negative: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Area from the weights of each class in bins of rising scores, `(K, bins)`, and 1
    where both classes are there."""
    below = ops.cumsum(negative, axis=-1) - negative
    wins = ops.sum(positive * (below + 0.5 * negative), axis=-1)
    pairs = ops.sum(negative, -1) * ops.sum(positive, -1)
    # A NaN among the pairs stays one.
    defined = ops.cast(ops.not_equal(pairs, 0), negative.dtype)
    return ops.divide_no_nan(wins, pairs), defined


def _mean(area: Tensor, defined: Tensor) -> Tensor:
    return ratio(ops.sum(area * defined), ops.sum(defined))
