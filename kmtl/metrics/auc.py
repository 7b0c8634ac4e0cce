"""Area under the ROC curve per label column, from streamed histograms."""

from __future__ import annotations

import keras
from keras import ops

from kmtl.losses.masked import all_replicas_sum
from kmtl.metrics.undefined import nan_where, ratio
from kmtl.typing import Config, DType, Tensor

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
    per column, so ours keeps, per column, a histogram of the logits of each class; ties
    inside a bin count half. The bins are fitted to each column's first labelled batch:
    0.008 of its spread wide around its centre and 0.8 % of the distance to it farther
    out (at 4096 bins), so that logits of any size are told apart.

    Args:
        columns: Number of label columns K; labels, outputs (logits), mask `(N, K)`.
        bins: Number of histogram bins over the scores. Defaults to 4096, and to fewer
            (down to 1024) for more than 16 columns.
    """

    def __init__(
        self,
        columns: int = 1,
        bins: int | None = None,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        if bins is None:
            bins = min(MOST_BINS, max(FEWEST_BINS, MOST_COUNTS // columns))
        self.columns = columns
        self.bins = bins
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

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        score = ops.clip(ops.cast(outputs, "float32"), -LARGEST, LARGEST)
        if sample_weight is None:
            weight = ops.ones_like(score)
        else:
            weight = ops.cast(sample_weight, "float32")
        counts = weight > 0
        # One NaN that counts makes the result NaN.
        weight = nan_where(ops.logical_and(ops.isnan(score), counts), weight)
        score = ops.where(ops.isnan(score), ops.zeros_like(score), score)
        centre, spread = self._scale(score, ops.cast(counts, "float32"))
        distance = ops.arcsinh((score - centre) / ops.where(spread > 0, spread, 1.0))
        place = (ops.clip(distance, -REACH, REACH) / REACH + 1.0) * (self.bins / 2)
        bins = ops.cast(ops.clip(place, 0, self.bins - 1), "int32")
        labels = ops.cast(ops.cast(labels, "float32") > 0.5, "int32")
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
        area, defined = self.of_columns()
        return ratio(ops.sum(area * defined), ops.sum(defined))

    def of_columns(self) -> tuple[Tensor, Tensor]:
        """Area of each column, and 1 where it has both classes, else 0; each `(K,)`."""
        histogram = ops.reshape(self.histogram, (2, self.columns, self.bins))
        negative, positive = histogram[0], histogram[1]
        below = ops.cumsum(negative, axis=-1) - negative
        wins = ops.sum(positive * (below + 0.5 * negative), axis=-1)
        pairs = ops.sum(negative, -1) * ops.sum(positive, -1)
        # A NaN among the pairs stays one.
        defined = ops.cast(ops.not_equal(pairs, 0), self.dtype)
        return ops.divide_no_nan(wins, pairs), defined

    def get_config(self) -> Config:
        return {**super().get_config(), "columns": self.columns, "bins": self.bins}
