"""One epoch of several models of one structure, as one compiled program (JAX)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from kmtl._private.keras import sublayers
from kmtl.data.plans import RowPlan
from kmtl.training import kept_programs, total_loss
from kmtl.training.batches import epoch_length, epoch_order
from kmtl.training.cpu_kernels import cpu_kernels
from kmtl.typing import Data

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

#: Rows of validation data in one batch where their number makes no difference.
VALIDATION_ROWS = 1024
#: Layers whose output for a row depends on that row (and its random numbers) alone.
ROWWISE_LAYERS = (
    "InputLayer", "Dense", "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv2D",
    "SeparableConv2D", "Conv2DTranspose", "Activation", "ReLU", "LeakyReLU", "Softmax",
    "Flatten", "Reshape", "Rescaling", "Resizing", "Identity", "LayerNormalization",
    "MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D",
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D",
    "GlobalMaxPooling2D", "UpSampling2D", "ZeroPadding2D", "Embedding", "Add",
    "Multiply", "Concatenate", "Average", "Dropout", "SpatialDropout2D",
    "GaussianNoise", "Seam", "TaskOutput", "MultiTaskModel", "Functional",
    "BalanceLog", "Stitch", "FiLM", "StopGradient", "GradientReversal",
    "InputSource", "ColumnScaling",
    "OneHotColumns", "Columns", "PiecewiseLinear", "PeriodicEmbedding",
    "GroupedConcatenate", "ToMembers", "MemberScale", "BagOfTokens", "Steps", "LogMel",
    "MelSpectrogram", "WaveFrames", "PaddingMask", "Masked", "MaskedPooling",
    "MaskWindows", "BlankPadding", "Positions", "Places", "Attention", "Recurrent",
    "GRU", "GRUCell", "LSTM", "LSTMCell", "Bidirectional", "WithMask",
)  # fmt: skip

#: Values of the variables that training changes: trainable, non-trainable, optimizer's.
State = tuple[list, list, list]


class Program:
    """Trains models of one structure for an epoch and validates them, in one call.

    The step is the model's own `train_step`, mapped over models and scanned over
    batches, so losses, masks, weightings, regularisers and metrics are those of `fit`.
    Data are `(x, y, sample_weight)` on the device; each model sees the rows in its own
    order.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        train: tuple,
        validation: tuple | None,
        *,
        batch_size: int,
        validation_batch_size: int | None,
        plan: RowPlan | None = None,
    ):
        self.model = model
        self.batch_size = batch_size
        self.plan = plan
        self._given = len(keras.tree.flatten(train[0])[0])
        #: Rows of an epoch.
        self.rows = epoch_length(plan, self._given, batch_size)
        self.steps, rest = divmod(self.rows, batch_size)
        # A short last batch, filled up and masked, spares the compiling of a step for
        # batches of its size; unless rows of a batch act on each other.
        self.pads = bool(rest) and _rows_are_apart(model)
        self.steps += self.pads
        self.rest = 0 if self.pads else rest
        if validation is not None:
            rows = len(keras.tree.flatten(validation[0])[0])
            size = validation_batch_size or batch_size
            if _any_batches_will_do(model):
                size = VALIDATION_ROWS
            parts = math.ceil(rows / size)
            if size == VALIDATION_ROWS:
                size = math.ceil(rows / parts)
            self._validation_rows = _filled(np.arange(rows), parts, size)
            self._validation_count = rows
        model.reset_metrics()
        self._metrics = [jnp.asarray(v.value) for v in model.metrics_variables]

    def lower(self, states: State, rows: Any, train: Any, validation: Any) -> Any:
        """Trace for states with a leading axis of models; `compile()` comes next.

        The data are arguments of what is compiled: it serves any of these shapes.
        """
        over_models = jax.vmap(self._epoch, in_axes=(0, 0, None, None))
        with cpu_kernels(self.model, always=True):
            jitted = jax.jit(over_models, donate_argnums=0)
            lowered = jitted.lower(states, rows, train, validation)
        self.model._state.present = None  # a tracer by now
        # Half of a short search is compiling; on a CPU the last touch changes nothing.
        on_cpu = jax.default_backend() == "cpu"
        options = {"xla_backend_optimization_level": 1} if on_cpu else {}
        return lambda: kept_programs.compiled(lowered, options)

    def order(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of an epoch in the order of `ShuffledBatches`, in batches.

        `(steps, batch_size)`, filled up at the end, and the rows of a last short batch
        that is not filled up, `(rest,)`.
        """
        rows = epoch_order(self.plan, self._given, seed, epoch, self.batch_size)
        scanned = _filled(rows[: self.rows - self.rest], self.steps, self.batch_size)
        return scanned.astype("int32"), rows[self.rows - self.rest :].astype("int32")

    # -- what is traced ---------------------------------------------------------------

    def _epoch(
        self, state: State, rows: Any, train: Any, given: Any
    ) -> tuple[State, dict, dict, Any]:
        model = self.model
        scanned, rest = rows
        trainable, non_trainable, optimizer = state
        if model.balance_log is not None:
            with self._holding(model.non_trainable_variables, non_trainable) as scope:
                model.balance_log.reset()
            non_trainable = _current(scope, model.non_trainable_variables)
        carry: Any = (trainable, non_trainable, optimizer, list(self._metrics))
        kinds = jax.tree.map(lambda leaf: leaf.dtype, carry)

        def step(carry: Any, batch: Any) -> tuple[Any, None]:
            rows, start = batch
            data = self._batch(train, rows, start, self.rows, self.pads)
            with self._short_batch(start, self.rows, self.batch_size, self.pads):
                _, carry = model.train_step(carry, data)
            carry = tuple(list(part) for part in carry)
            return jax.tree.map(lambda a, kind: a.astype(kind), carry, kinds), None

        if self.steps:
            starts = jnp.arange(self.steps) * self.batch_size
            carry, _ = jax.lax.scan(step, carry, (scanned, starts))
        if self.rest:
            data = self._batch(train, rest, 0, self.rest, False)
            _, carry = model.train_step(carry, data)
            carry = tuple(list(part) for part in carry)
        trainable, non_trainable, optimizer, metrics = carry
        logs = self._results(metrics)
        validation = self._validate(trainable, non_trainable, given)
        finite = _all_finite([*trainable, *non_trainable])
        return (trainable, non_trainable, optimizer), logs, validation, finite

    def _validate(self, trainable: list, non_trainable: list, given: Any) -> dict:
        if given is None:
            return {}
        model, count = self.model, self._validation_count
        parts, size = self._validation_rows.shape
        pads = parts * size > count

        def step(metrics: list, batch: Any) -> tuple[list, None]:
            rows, start = batch
            if parts == 1 and not pads:
                data = given
            else:
                data = self._batch(given, rows, start, count, pads)
            with self._short_batch(start, count, size, pads):
                _, (_, _, metrics) = model.test_step(
                    (trainable, non_trainable, metrics), data
                )
            return list(metrics), None

        starts = jnp.arange(parts) * size
        metrics = list(self._metrics)
        if parts == 1:
            metrics, _ = step(metrics, (self._validation_rows[0], 0))
        else:
            batches = (jnp.asarray(self._validation_rows), starts)
            metrics, _ = jax.lax.scan(step, metrics, batches)
        logs = self._results(metrics, exact=parts * size)
        variables = [*model.trainable_variables, *model.non_trainable_variables]
        with self._holding(
            [*variables, *model.metrics_variables],
            [*trainable, *non_trainable, *metrics],
        ):
            loss = total_loss.of_all(model)
        return logs if loss is None else {**logs, "loss": loss}

    def _batch(self, data: Data, rows: Any, start: Any, count: int, pads: bool) -> Any:
        x, y, weight = keras.tree.map_structure(
            lambda array: None if array is None else array[rows], data
        )
        if pads:
            here = (start + jnp.arange(len(rows)) < count).astype("float32")
            if isinstance(weight, Mapping):
                weight = {
                    name: part * here.reshape(-1, *[1] * (part.ndim - 1))
                    for name, part in weight.items()
                }
            else:
                weight = here
        return x, y, weight

    @contextlib.contextmanager
    def _short_batch(
        self, start: Any, count: int, size: int, pads: bool
    ) -> Iterator[None]:
        """Tell the model how many rows of the batch are there."""
        if pads:
            self.model._state.rows = jnp.minimum(count - start, size)
        try:
            yield
        finally:
            self.model._state.rows = None

    def _results(self, metrics: list, exact: int = 0) -> dict:
        """Logs; if they are to be exact, of at most so many rows."""
        with self._holding(self.model.metrics_variables, metrics):
            logs = dict(self.model.get_metrics_result())
            if exact:
                logs.update(self.model._state.metrics.exact_results(exact))
        return {name: jnp.asarray(value) for name, value in logs.items()}

    def _holding(self, variables: list, values: list) -> Any:
        return keras.StatelessScope(
            state_mapping=list(zip(variables, values, strict=True))
        )


def _all_finite(arrays: list) -> Any:
    """Whether all floats are: an activation may hide NaN from the loss."""
    floats = [a for a in arrays if jnp.issubdtype(a.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.isfinite(array).all() for array in floats]))


def _current(scope: Any, variables: list) -> list:
    found = (scope.get_current_value(variable) for variable in variables)
    return [
        variable.value if value is None else value
        for variable, value in zip(variables, found, strict=True)
    ]


def _filled(rows: np.ndarray, parts: int, size: int) -> np.ndarray:
    """`(parts, size)`; what is lacking at the end is filled with the first rows."""
    return np.resize(rows, parts * size).reshape(parts, size)


def _rows_are_apart(model: MultiTaskModel) -> bool:
    """Whether rows of weight 0 leave everything as it would be without them.

    Random numbers are drawn for a whole batch; a longer one begins with the same
    numbers if JAX makes each from its place alone.
    """
    if not jax.config.jax_threefry_partitionable:
        return False
    weighting = model.weighting
    if weighting is not None and weighting.kind == "gradient":
        return False
    kinds = {type(layer).__name__ for layer in [model, *sublayers(model)]}
    known = set(ROWWISE_LAYERS)
    if weighting is not None:
        known.add(type(weighting).__name__)
    own = ("keras.", "kmtl.")
    modules = {type(layer).__module__ for layer in [model, *sublayers(model)]}
    return kinds <= known and all(module.startswith(own) for module in modules)


def _any_batches_will_do(model: MultiTaskModel) -> bool:
    """Whether the logs do not depend on how the validation rows are batched."""
    return all(
        getattr(metric, "any_batches", False)
        for metric in model._state.metrics.objects()
    )
