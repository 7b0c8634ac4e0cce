"""How a model is trained where nothing is said: a recipe that was measured."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras

from kmtl import _checks
from kmtl.training.schedules import SCHEDULES, LearningRateSchedule
from kmtl.training.sources import is_dataset, is_split, is_stream, plan_of
from kmtl.typing import Callbacks, Data, Inputs, Labels, Model, SampleWeight

#: Learning rates of few and of many training rows, and from how many these are many.
_FEW_ROWS, _MANY_ROWS, _MANY = 0.005, 0.01, 2000
#: Epochs without a better one after which training ends, of few rows.
_PATIENCE = 40
#: Batches of an epoch that a batch size is chosen for, and the sizes it stays within.
_BATCHES, _SMALLEST, _LARGEST = 64, 32, 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Optimizer, schedule, epochs, batches and stopping that go together.

    `fit` compiles a model and trains it in one call. The parts are there one by one
    too, for a `compile` and `fit` of your own: `recipe.optimizer(rows)`,
    `recipe.callbacks(rows=rows)`, `recipe.rows_per_batch(rows)`, `recipe.epochs`.

    The defaults are those for `kmtl.backbones.TabularMLP`, chosen on validation rows of
    some of the data sets in `experiments/tables`, and on the tables of its `RECIPE.md`.

    Args:
        learning_rate: Of AdamW, in the first epoch. None takes 0.005 for fewer than
            2,000 training rows, on which larger ones are less steady, and for data sets
            whose rows nobody has counted; and 0.01 for more.
        schedule: How it changes over the epochs, one of
            `kmtl.training.schedules.SCHEDULES`. Defaults to `"cosine"`: towards 0.
        weight_decay: Of AdamW, >= 0. Defaults to 0.01.
        epochs: Defaults to 150.
        patience: Training ends when the validation loss has not fallen for so many
            epochs; the weights are those of the best epoch, either way. None takes 40
            where the rate is the smaller one, and all epochs where it is 0.01: there
            the loss may stand still for long, and fall as the rate does.
        batch_size: None takes a power of two between 32 and 256, a sixty-fourth of
            the rows or so.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    >>> model = kmtl.build(
    ...     backbone="tabular", input_shape=(3,), tasks=[kmtl.Regression("sum")]
    ... )
    >>> recipe = kmtl.Recipe(epochs=2)
    >>> history = recipe.fit(
    ...     model, x, x.sum(1), validation_data=(x, x.sum(1)), verbose=0
    ... )
    >>> len(history.history["val_loss"])
    2
    """

    learning_rate: float | None = None
    schedule: str = "cosine"
    weight_decay: float = 0.01
    epochs: int = 150
    patience: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        if self.learning_rate is not None:
            rate = _checks.check_range(
                "learning_rate", self.learning_rate, 0, low_open=True, high_open=True
            )
            put("learning_rate", rate)
        _checks.check_choice("schedule", self.schedule, SCHEDULES)
        decay = _checks.check_range("weight_decay", self.weight_decay, 0, 1)
        put("weight_decay", decay)
        put("epochs", _checks.check_int("epochs", self.epochs, 1))
        if self.patience is not None:
            put("patience", _checks.check_int("patience", self.patience, 1))
        if self.batch_size is not None:
            put("batch_size", _checks.check_int("batch_size", self.batch_size, 1))

    def rows_per_batch(self, rows: int) -> int:
        """The batch size for so many training rows.

        >>> [kmtl.Recipe().rows_per_batch(rows) for rows in (200, 4000, 100_000)]
        [32, 64, 256]
        """
        if self.batch_size is not None:
            return self.batch_size
        power = round(math.log2(max(rows, 1) / _BATCHES))
        return max(_SMALLEST, min(_LARGEST, 2 ** max(power, 0)))

    def rate(self, rows: int | None = None) -> float:
        """The learning rate of the first epoch for so many training rows.

        >>> [kmtl.Recipe().rate(rows) for rows in (200, 4000)]
        [0.005, 0.01]
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return _MANY_ROWS if _are_many(rows) else _FEW_ROWS

    def stops_after(self, rows: int | None = None) -> int:
        """Epochs without a better one that end training, for so many training rows.

        >>> [kmtl.Recipe().stops_after(rows) for rows in (200, 4000)]
        [40, 150]
        """
        if self.patience is not None:
            return self.patience
        return self.epochs if _are_many(rows) else _PATIENCE

    def optimizer(self, rows: int | None = None) -> keras.optimizers.Optimizer:
        """A new optimizer for so many training rows."""
        return keras.optimizers.AdamW(
            learning_rate=self.rate(rows), weight_decay=self.weight_decay
        )

    def callbacks(
        self, validation: bool = True, rows: int | None = None
    ) -> list[keras.callbacks.Callback]:
        """New callbacks: the schedule, and with validation data the best epoch."""
        schedule = LearningRateSchedule(self.schedule, self.rate(rows), self.epochs)
        if not validation:
            return [schedule]
        stopping = keras.callbacks.EarlyStopping(
            "val_loss",
            mode="min",
            patience=self.stops_after(rows),
            restore_best_weights=True,
        )
        return [schedule, stopping]

    def fit(
        self,
        model: Model,
        x: Inputs | Data,
        y: Labels | None = None,
        *,
        validation_data: Data | None = None,
        sample_weight: SampleWeight | None = None,
        callbacks: Callbacks = None,
        verbose: Any = "auto",
        **compile_options: Any,
    ) -> keras.callbacks.History:
        """Compile a model and train it.

        Args:
            model: A `kmtl.MultiTaskModel`.
            x, y, sample_weight: Training data, as for `model.fit`; or as `x` a tuple of
                them.
            validation_data: As for `model.fit`. Without it, the model is the one after
                the last epoch.
            callbacks: Further ones.
            verbose: As for `model.fit`.
            **compile_options: As for `model.compile`, such as `weighting="dwa"`.

        Returns:
            What `model.fit` returns.

        Raises:
            ValueError, TypeError: as `model.fit` does.
        """
        whole = y is None and (is_split(x) or isinstance(x, tuple))
        if whole and sample_weight is not None:
            raise ValueError(
                "`sample_weight` must be left out when `x` is a tuple or a "
                "kmtl.data.Split: give `x`, `y` and `sample_weight`, or "
                "x=(x, y, sample_weight). Received: sample_weight of type "
                f"{type(sample_weight).__name__}"
            )
        model.compile(self.optimizer(), **compile_options)
        rows = None
        options: dict[str, Any] = {}
        if not (is_dataset(x) or is_stream(x)):
            # Without labels where the inputs are the targets.
            if whole:
                options["plan"] = plan_of(x)
            arrays = model.checked_arrays(x if whole else (x, y, sample_weight))
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(arrays)
            rows = len(keras.tree.flatten(x)[0])
            options["batch_size"] = self.rows_per_batch(rows)
        # The schedule says the rate of each epoch, of the first one too.
        own = self.callbacks(validation_data is not None, rows)
        return model.fit(
            x,
            y,
            sample_weight=sample_weight,
            validation_data=validation_data,
            epochs=self.epochs,
            callbacks=[*own, *_as_list(callbacks)],
            verbose=verbose,
            **options,
        )


def _are_many(rows: int | None) -> bool:
    return rows is not None and rows >= _MANY


def _as_list(callbacks: Callbacks) -> list[keras.callbacks.Callback]:
    if isinstance(callbacks, keras.callbacks.Callback):
        return [callbacks]
    return list(callbacks or ())
