"""The Task: everything kmtl knows about one output, said once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from kmtl import _arrays, _checks, _registry, losses
from kmtl.tasks import label_rules, soft
from kmtl.tasks.class_names import check_are_names, in_order, names_in, numbers_of
from kmtl.tasks.class_weights import RULES
from kmtl.tasks.heads import HeadContext, map_head, map_size, vector_head
from kmtl.tasks.metric import Metric, resolve_metrics
from kmtl.tasks.names import check_task_name
from kmtl.tasks.terms import MOST_WEIGHT, Term, are_several
from kmtl.tasks.terms import read as read_terms
from kmtl.typing import Config, DType, Initializer, Inputs, Options, Tensor


@dataclasses.dataclass(frozen=True)
class Task(_registry.Registrable):
    """One output of a multi-task model: head, loss, metrics, missing labels, weight.

    A frozen value. Builders, `compile`, the data pipeline, evaluation, search and
    export all read the same object. Use a subclass such as `kmtl.Classification`.

    Args:
        name: Python identifier, unique in the model. Becomes the output key, the
            layer name, the prefix in `history` and the SavedModel output.
        hidden: Units of dense layers (filters, for dense prediction) of the head
            before its output layer. Defaults to none.
        activation: Activation of the head's hidden layers. Defaults to `"relu"`.
        dropout: Rate in [0, 1) after each hidden layer of the head, 0 for none.
        pooling: How a vector head reads a feature map: `"avg"`, `"max"`, `"flatten"`,
            or `"auto"` (default): small maps whole, up to 4096 numbers, and the mean
            of larger ones, of open sizes and of sequences. Flatten keeps where things
            are; a mean keeps how much of them there is.
        loss: Name of one of the kind's losses, or a `keras.losses.Loss` on logits (or
            values), of single labels or of whole rows of values. Or several with their
            weights, `{"cross_entropy": 1, "dice": 0.5}`, or with a name of your own
            `{"angle": (keras.losses.CosineSimilarity(), 0.1)}`: their weighted sum,
            each logged as `<task>_<name>_loss`.
        metrics: Names of the kind's metrics or `kmtl.Metric` objects. The first one
            is the task's score in comparisons (delta-m, search objectives).
        weight: Factor of the task's loss in the total, >= 0. Defaults to 1.
        missing: Label value that says "not labelled"; NaN labels always do. `None`
            means that only NaN does.
        class_weight: Loss weight per class index, e.g. `{0: 1.0, 1: 4.0}`, of which
            a label has that of its (most probable) class. `"balanced"`: as
            scikit-learn's, in inverse proportion to the classes' numbers of labels, or
            `"effective"`, less so (Cui et al. 2019, arXiv:1901.05555): counted on the
            training labels when `fit` starts, per column where there are several, and
            kept in the output layer, as its `class_weights`.
        sample_weight: Column of the data that says what each row weighs in this task's
            loss and metrics, numbers >= 0. `kmtl.data.from_dataframe`, `from_csv` and
            `from_folder` read it; with arrays, give them beside the labels:
            `model.fit(x, y, sample_weight={"price": w})`. Metrics are those of
            scikit-learn with `sample_weight`, of the kinds whose metrics are means or
            counts of rows, steps or pixels (also areas under curves, R2 and F1); of
            clusters, of pairs of rows, in tables per class, and where transforms and
            weights of classes are learned, weights above 0 are all alike. Defaults to
            None: `sample_weight` of `fit` weighs the loss, and metrics count each row
            as one.
        label_smoothing: Share in [0, 1) of the truth that is spread over all classes,
            in the loss alone. Defaults to 0.
        auxiliary: Trained, but not part of scores. Defaults to False.
        adversarial: Strength >= 0 with which the shared trunk learns to make the task
            impossible, such as a domain that no other task should depend on: the
            gradient of its loss is multiplied by minus this where it enters the trunk.
            Above 0 the task is auxiliary. Give it `hidden` layers, and rows of every
            domain, which need no other labels; `kmtl.training.GradualReversal` raises
            the strength over the epochs. Defaults to 0.
        labels: Class (or column) names, for tables and exports.
        kernel_initializer: Keras initializer of the head's kernels. Defaults to
            Glorot's, uniform.
    """

    name: str
    _: dataclasses.KW_ONLY
    hidden: tuple[int, ...] = ()
    activation: str = "relu"
    dropout: float = 0.0
    pooling: str = "auto"
    loss: Any = None
    metrics: tuple[Metric, ...] = ()
    weight: float = 1.0
    missing: float | None = -1
    class_weight: Mapping[int, float] | str | None = None
    sample_weight: str | None = None
    label_smoothing: float = 0.0
    auxiliary: bool = False
    adversarial: float = 0.0
    labels: tuple[str, ...] | None = None
    kernel_initializer: Initializer | None = None

    #: Per-label loss functions of this kind, `name -> fn(labels, outputs)`; with more
    #: arguments where the kind's own `loss_values` gives them.
    LOSSES: ClassVar[Mapping[str, Callable[..., Tensor]]] = {}
    #: Metrics of this kind, `name -> (factory(task, name), higher_is_better)`.
    METRICS: ClassVar[
        Mapping[str, tuple[Callable[..., keras.metrics.Metric], bool]]
    ] = {}
    DEFAULT_METRICS: ClassVar[tuple[str, ...]] = ()
    #: Losses that take shares of the classes in the place of a label.
    SOFT_LOSSES: ClassVar[tuple[str, ...]] = ()
    #: What losses and metrics must know that others than this kind's do not, the end of
    #: a sentence such as "others know nothing of lists"; None where any will do.
    known: ClassVar[str | None] = None
    #: Labels may have a class axis, as this one; None where they may not.
    vector_axis: ClassVar[int | None] = None
    #: What labels weigh depends on the loss, which is one alone then.
    weighs_by_loss: ClassVar[bool] = False
    #: Labels between no (0) and yes (1) are shares.
    soft_labels: ClassVar[bool] = False
    #: The outputs have a class axis that the labels lack.
    classes_last: ClassVar[bool] = False
    #: Heads read a feature map instead of a vector.
    dense_prediction: ClassVar[bool] = False
    #: Labels are places or directions in the photo: where it is moved or turned, they
    #: would have to be computed anew.
    places_in_image: ClassVar[bool] = False
    #: These places are boxes, which can be computed anew: `kmtl.data.augment` does.
    boxes_in_image: ClassVar[bool] = False
    #: Names of what `decoded` gives, where it is a dict.
    decoded_parts: ClassVar[tuple[str, ...]] = ("decoded",)
    #: The loss of a row is one among the other rows of its batch.
    rows_together: ClassVar[bool] = False
    #: What is missing says where a label ends: data sets leave it in its place.
    missing_ends_label: ClassVar[bool] = False
    #: Labels are whole numbers, though there is not a class for each.
    whole_labels: ClassVar[bool] = False
    #: The mean of several nets' outputs is an output, and all that the loss needs.
    has_mean: ClassVar[bool] = True
    #: What labels that `breaks_rule` finds are called in errors.
    broken_label: ClassVar[str] = "a number that is not whole"
    #: A row counts without a label in the data, as where the input is the target.
    needs_labels: ClassVar[bool] = True
    #: Its head keeps what the loss needs beside the outputs: `loss_values_beside`.
    keeps_beside: ClassVar[bool] = False
    #: Its head writes by itself, and is told the labels where it learns.
    writes: ClassVar[bool] = False
    #: There is an answer that is the same for all rows, to which scores compare.
    on_common_scale: ClassVar[bool] = True
    #: Without labels of its own the task takes the model's input as its target.
    target_is_input: ClassVar[bool] = False
    #: Class numbers that are not labels either, beside `missing`.
    ignore: ClassVar[tuple[int, ...]] = ()
    #: Tasks of values may have a loss on logits, and then output these.
    values_from_logits: ClassVar[bool] = False
    #: Name of the transform of labels for the loss, and of their unit; None without.
    transform: ClassVar[str | None] = None
    unit: ClassVar[str | None] = None
    #: How `loss` is called, where it is a loss object.
    _keras_loss: ClassVar[Any] = None
    #: The parts of `loss`, where it is a dict.
    _terms: ClassVar[tuple[Term, ...]] = ()

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        # NumPy's strings, say from the columns of a table, do not save with a model.
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                put(field.name, str(value))
        check_task_name(self.name)
        put("hidden", _checks.check_ints("hidden", self.hidden))
        put(
            "dropout",
            _checks.check_range("dropout", self.dropout, 0, 1, high_open=True),
        )
        put("weight", _checks.check_range("weight", self.weight, 0, MOST_WEIGHT))
        _checks.check_choice("pooling", self.pooling, ("auto", "avg", "max", "flatten"))
        put("activation", _checks.check_activation(self.activation))
        put("kernel_initializer", _checks.check_initializer(self.kernel_initializer))
        if are_several(self.loss):
            kept, terms = read_terms(self, self.loss)
            put("loss", kept)
            put("_terms", terms)
        else:
            put("loss", self._check_loss(self.loss))
        put("metrics", resolve_metrics(self, self.metrics or self.DEFAULT_METRICS))
        self._check_metrics()
        put("missing", self._check_missing(self.missing))
        reversal = _checks.check_range("adversarial", self.adversarial, 0, MOST_WEIGHT)
        put("adversarial", reversal)
        put("auxiliary", bool(self.auxiliary) or reversal > 0)
        if self.labels is not None:
            check_are_names(self)
            put("labels", tuple(str(label) for label in self.labels))
            if len(self.labels) != self.label_count:
                raise ValueError(
                    f"`labels` of task '{self.name}' must name {self.label_count} "
                    f"classes or columns. Received: {len(self.labels)} names"
                )
        if self.class_weight is not None:
            put("class_weight", self._check_class_weight(self.class_weight))
        if self.sample_weight is not None and not (
            isinstance(self.sample_weight, str) and self.sample_weight
        ):
            raise TypeError(
                f"`sample_weight` of task '{self.name}' must be the name of a column; "
                "weights themselves are given to `fit`. Received: sample_weight of "
                f"type {type(self.sample_weight).__name__}"
            )
        smoothing = soft.check_smoothing(self, self.label_smoothing)
        put("label_smoothing", smoothing)

    # -- what the arguments mean -----------------------------------------------------

    @property
    def label_count(self) -> int:
        """Number of classes, or of columns for tasks without classes."""
        raise NotImplementedError

    @property
    def score(self) -> Metric:
        """The metric that stands for the task in comparisons: the first one."""
        return self.metrics[0]

    def _check_metrics(self) -> None:
        custom = [metric.name for metric in self.metrics if metric.custom]
        if self.known is not None and custom:
            raise ValueError(
                f"`metrics` of task '{self.name}' must be among {list(self.METRICS)}: "
                f"others know nothing of {self.known}. Received: {custom[0]!r}"
            )

    def _check_loss(self, loss: Any) -> Any:
        if loss is None:
            return next(iter(self.LOSSES))
        if self.known is not None and not (
            isinstance(loss, str) and loss in self.LOSSES
        ):
            names = list(self.LOSSES)
            rule = f"one of {names}" if len(names) > 1 else repr(names[0])
            raise ValueError(
                f"`loss` of task '{self.name}' must be {rule}: others know nothing of "
                f"{self.known}. Received: loss={loss!r}"
            )
        if isinstance(loss, dict):
            loss = keras.saving.deserialize_keras_object(loss)
        if isinstance(loss, str):
            return _checks.check_choice(
                "loss", loss, self.LOSSES, of=f"task '{self.name}'"
            )
        if not isinstance(loss, keras.losses.Loss):
            raise TypeError(
                f"`loss` of task '{self.name}' must be one of {list(self.LOSSES)} or a "
                f"keras.losses.Loss. Received: loss={loss!r}"
            )
        if takes_logits(loss) is False:
            raise ValueError(
                f"Heads output logits: `loss` of task '{self.name}' needs "
                f"from_logits=True. Received: {type(loss).__name__}(from_logits=False)"
            )
        made = losses.from_keras(
            loss, self.name, self.label_kind, self.class_count, self.value_columns
        )
        served = self.values_from_logits and made.rows == "entries"
        if self.label_kind == "values" and takes_logits(loss) and not served:
            raise ValueError(
                f"Outputs of task '{self.name}' are values: `loss` may not take them "
                "for logits. Use kmtl.BinaryClassification, kmtl.MultiLabel or "
                "kmtl.Classification. "
                f"Received: {type(loss).__name__}(from_logits=True)"
            )
        object.__setattr__(self, "_keras_loss", made)
        return loss

    def _check_missing(self, missing: float | None) -> float | None:
        message = (
            f"`missing` must be a finite number, NaN or None. "
            f"Received: missing={missing!r}"
        )
        if missing is None:
            return None
        if isinstance(missing, (bool, str)):
            raise TypeError(message)
        try:
            number = float(missing)
        except (TypeError, ValueError) as error:
            raise TypeError(message) from error
        if math.isinf(number):
            raise ValueError(message)
        return int(number) if number == number // 1 else number

    def _check_class_weight(self, table: Any) -> dict[int, float] | str:
        classes = self.class_count
        if classes is None:
            raise ValueError(
                f"`class_weight` needs classes, which task '{self.name}' of kind "
                f"{self.registered_name} has not."
            )
        if isinstance(table, str):
            return _checks.check_choice("class_weight", table, RULES)
        if not isinstance(table, Mapping):
            raise TypeError(
                "`class_weight` must be a dict class index -> weight, "
                "'balanced' or 'effective'. "
                f"Received: class_weight={table!r}"
            )
        checked = {}
        for key, value in table.items():
            if isinstance(key, str) and key.isdigit():  # from JSON
                key = int(key)
            index = _checks.check_int("class_weight key", key, 0, classes - 1)
            checked[index] = _checks.check_range(
                f"class_weight[{key}]", value, 0, MOST_WEIGHT
            )
        return checked

    @property
    def class_count(self) -> int | None:
        """Number of classes a label can take, None where labels are real numbers."""
        return None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names that labels may have in the place of class numbers; None without."""
        return None

    # -- arithmetic ------------------------------------------------------------------

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        """Clean labels in the loss's shape, and a float32 mask of the present ones.

        Args:
            labels: Batch of labels as the user gave them; NaN and `missing` mark what
                is not labelled.
            inputs: The model's inputs, for tasks whose target they are.
        """
        labels = ops.convert_to_tensor(labels)
        shape = (-1, *self.label_shape(labels))
        if len(labels.shape) != len(shape) or tuple(labels.shape[1:]) != shape[1:]:
            labels = ops.reshape(labels, shape)
        if keras.backend.is_float_dtype(labels.dtype):
            labels = ops.cast(labels, "float32")
            present = ops.logical_not(ops.isnan(labels))
        else:
            present = ops.ones_like(labels, dtype="bool")
        if self.missing is not None and _holds(labels.dtype, self.missing):
            present = ops.logical_and(
                present, labels != ops.cast(self.missing, labels.dtype)
            )
        labels = ops.where(present, labels, ops.zeros((), labels.dtype))
        return labels, ops.cast(present, "float32")

    def given_labels(self, labels: Tensor) -> Tensor:
        """Clean labels in the shape in which a user's own functions get them."""
        return labels

    def marked(self, labels: Tensor, there: Tensor) -> Tensor:
        """Clean labels that say themselves which of them are there.

        For losses that take several labels together, such as those of a list: a label
        left out may not count among the others. As they are by default.

        Args:
            labels: Clean labels.
            there: Of their shape, above 0 for those that count.
        """
        return labels

    def target_in(self, inputs: Inputs) -> Tensor:
        """The one of a model's inputs that is the target, for `target_is_input`."""
        raise NotImplementedError

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        """Shape of one clean label, given a batch of raw ones."""
        raise NotImplementedError

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Loss of each label, in the mask's shape, from clean labels and logits."""
        if isinstance(self.loss, str):
            return self.LOSSES[self.loss](labels, outputs)
        return self._keras_loss(labels, outputs)

    def masked_loss_values(
        self, labels: Tensor, outputs: Tensor, mask: Tensor
    ) -> Tensor:
        """`loss_values`, for losses that must know which labels count.

        Args:
            mask: 1 for labels that count, 0 for others.
        """
        return self.loss_values(labels, outputs)

    def loss_values_beside(
        self, labels: Tensor, outputs: Tensor, mask: Tensor, beside: Tensor
    ) -> Tensor:
        """`masked_loss_values`, for losses that need more than the outputs.

        Args:
            beside: What a `kmtl.layers.beside.Beside` layer of the head keeps.
        """
        return self.masked_loss_values(labels, outputs, mask)

    def label_weights(self, labels: Tensor, mask: Tensor) -> Tensor:
        """The mask times the class weight of each clean label.

        Where the loss takes a row of columns together, as `CosineSimilarity` does, the
        row counts if all its labels are there.
        """
        if self._keras_loss is not None and self._keras_loss.rows == "vectors":
            mask = mask * ops.min(mask, axis=-1, keepdims=True)
        if not isinstance(self.class_weight, Mapping) or self.class_count is None:
            return mask
        table = [self.class_weight.get(i, 1.0) for i in range(self.class_count)]
        table = ops.convert_to_tensor(table, dtype="float32")
        return mask * ops.take(table, ops.cast(labels, "int32"))

    @property
    def loss_may_be_negative(self) -> bool:
        """Whether the loss has values below 0, as that of a cosine has."""
        return self._keras_loss is not None and self._keras_loss.negative

    @property
    def value_columns(self) -> int | None:
        """Number of columns of a row of values, where the task knows it."""
        return None

    @property
    def label_kind(self) -> str:
        """What a label is: `"classes"`, `"yes_no"`, or `"values"`."""
        if self.classes_last:
            return "classes"
        return "values" if self.class_count is None else "yes_no"

    def constant_answers(self, labels: np.ndarray) -> list[np.ndarray]:
        """Answers, as `activate` gives them, that are good without seeing the inputs.

        Args:
            labels: Values or yes and no, `(rows, columns)`, float64, NaN where missing;
                each column has some.

        Returns:
            One vector or more, of which the best by the metric counts.
        """
        return [np.nanmean(labels, axis=0), np.nanmedian(labels, axis=0)]

    @property
    def output_activation(self) -> str:
        """Keras activation that turns outputs into what a user reads."""
        return "linear"

    def activate(self, outputs: Tensor) -> Tensor:
        """Logits to what a user reads: probabilities, or values."""
        return keras.activations.get(self.output_activation)(outputs)

    def decoded(self, outputs: Tensor) -> Tensor | dict[str, Tensor] | None:
        """What outputs, or what `activate` makes of them, say in a form that takes more
        than an activation: a SavedModel gives it as `<name>_decoded`, or several parts
        by the names in `decoded_parts`, as `<name>_<part>`. None without.

        Args:
            outputs: `(N, ...)`.
        """
        return None

    # -- head ------------------------------------------------------------------------

    def output_shape(self, input_shape: Sequence | None) -> tuple | None:
        """Shape of one output, which heads and hand-made models must have.

        Args:
            input_shape: Shape of one input (without batch), None where the model has
                several.

        Returns:
            Sizes, None for any size; or None where the kind leaves the shape open.
        """
        return None

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        """Head from the trunk's features to the logits (before the output layer).

        Args:
            features: KerasTensor, `(N, F)` or `(N, H, W, C)`.
            head: `kmtl.tasks.heads.HeadContext`: makes named, seeded layers and knows
                the input's shape.
        """
        shape = self.output_shape(head.input_shape)
        if shape is None:
            raise NotImplementedError(
                f"{type(self).__name__} must define `output_shape` or `build_head`."
            )
        if self.dense_prediction:
            return map_head(features, head, self, shape[-1], map_size(self, head))
        return vector_head(features, head, self, shape[-1])

    # -- checks on the user's data ---------------------------------------------------

    def label_array(self, labels: Tensor) -> np.ndarray:
        """Labels as the user gave them, as a NumPy array that every backend reads.

        Masked entries and pandas' NA become NaN, which marks a missing label, and names
        of classes their numbers.

        Raises:
            ValueError, TypeError: for what is no array, and names of no class.
        """
        what = f"Labels of task '{self.name}'"
        labels = in_order(labels, getattr(self, "labels", None), what)
        if self.class_names is not None:
            names = names_in(labels, what)
            if names is not None:
                return numbers_of(names, self.class_names, what)
        categories = _arrays.categories_in(labels)
        if self.class_count is None and categories:
            raise TypeError(
                f"{what} must be numbers. Received: categories {categories[:5]}"
                f"{self._name_hint()}"
            )
        array = _arrays.as_array(labels, what, holes=True)
        return _arrays.within_int32(array)

    def check_labels(self, labels: Tensor, input_shape: Sequence | None = None) -> None:
        """Refuse labels of a wrong shape, dtype or range, before training.

        Args:
            labels: Array of a batch or of all rows.
            input_shape: Shape of one input (without batch), where it matters.

        Raises:
            ValueError: naming the task, what was expected and what was received.
        """
        array = _arrays.as_array(labels, f"Labels of task '{self.name}'", holes=True)
        if array.dtype.kind not in "biuf":
            raise ValueError(
                f"Labels of task '{self.name}' must be numbers. "
                f"Received: dtype={array.dtype}"
                + (self._text_hint(array) * _arrays.is_text(array))
            )
        expected = self.expected_shapes(input_shape)
        if not array.ndim or not any(fits(array.shape[1:], s) for s in expected):
            raise ValueError(
                f"Labels of task '{self.name}' must have shape "
                f"{' or '.join(show_shape(shape) for shape in expected)}. "
                f"Received: shape={tuple(array.shape)}{self.shape_hint(array)}"
            )
        if soft.are_vectors(self, array.shape):
            soft.check_vectors(self, array)
            return
        present = self.are_present(array)
        values = array[present]
        if not values.size:
            return
        self.check_values(values)
        if self.class_count is None:
            self._check_digits(
                array if present.all() else np.where(present, array, np.nan)
            )

    def are_present(self, labels: np.ndarray) -> np.ndarray:
        """Which numbers of an array are labels, and not marks of missing ones."""
        present = np.ones(labels.shape, bool)
        if labels.dtype.kind == "f":
            present = ~np.isnan(labels)
        if self.missing is not None:
            present &= labels != self.missing
        return present

    def check_fits(self, labels: Tensor, output_shape: Sequence) -> None:
        """Refuse labels for which outputs of a model have no room; all fit by default.

        Args:
            labels: Array that `check_labels` has let pass.
            output_shape: Shape of one output, None where a size is open.

        Raises:
            ValueError: naming the task and the row.
        """

    def _text_hint(self, array: np.ndarray) -> str:
        texts = list(dict.fromkeys(array.ravel().tolist()))[:3]
        return f", such as {', '.join(map(repr, texts))}{self._name_hint()}"

    def _name_hint(self) -> str:
        if self.class_count is None:
            return (
                "; make numbers of text first, such as by pandas.to_numeric, or, if "
                "these are classes, take kmtl.Classification"
            )
        if self.class_names is None:
            return "; map class names to 0..C-1 first"
        return "; map the names in a data set first, as `task.label_array(names)` does"

    def _check_digits(self, array: np.ndarray) -> None:
        lost = _arrays.lost_digits(array)
        if lost is not None:
            column, step, deviation = lost
            where = f" (column {column})" if array.ndim == 2 and column else ""
            raise ValueError(
                f"Labels of task '{self.name}' must keep their digits in float32, in "
                "which a net calculates: subtract their mean first, and divide by "
                f"their standard deviation. Received: labels{where} with a standard "
                f"deviation of {deviation:.3g} where float32 has steps of {step:g}"
            )

    def expected_shapes(self, input_shape: Sequence | None) -> list[tuple]:
        """Accepted shapes of one raw label; None matches any size."""
        raise NotImplementedError

    def shape_hint(self, array: np.ndarray) -> str:
        """What to do about a label array of the wrong shape, if we can tell."""
        return ""

    @property
    def label_range(self) -> tuple[float, float]:
        """The smallest and the largest number that a label may be."""
        if self.class_count is None:
            return -_arrays.FLOAT_MAX, _arrays.FLOAT_MAX
        return 0.0, self.class_count - 1.0

    @property
    def label_rule(self) -> str:
        """What labels must be, in words, for errors."""
        if self.class_count is None:
            return (
                f"Labels of task '{self.name}' must be finite and within float32 "
                "(NaN marks a missing label)"
            )
        numbers = "numbers" if self.soft_labels else "integers"
        return (
            f"Labels of task '{self.name}' must be {numbers} in "
            f"[0, {self.class_count - 1}]"
            + ("" if self.missing is None else f", or {self.missing} where missing")
        )

    def breaks_rule(
        self, labels: Tensor, output_shape: Sequence, there: Tensor | None = None
    ) -> Tensor | None:
        """Whether a label of a batch is none that `check_labels` lets pass, though it
        is within `label_range`: what steps on streams look at, on the device.

        Args:
            labels: As the user gave them.
            output_shape: Shape of one output, None where a size is open.
            there: Which labels have a weight, in a shape that broadcasts to theirs;
                None where all have.

        Returns:
            A bool tensor; None where the range says it all.
        """
        try:
            vectors = soft.are_vectors(self, labels.shape)
        except ValueError:  # TensorFlow traces one step for labels of two ranks
            vectors = False
        if vectors:
            return ops.any(soft.no_shares(self, labels, there))
        whole = self.class_count is not None and not self.soft_labels
        floats = keras.backend.is_float_dtype(
            keras.backend.standardize_dtype(labels.dtype)
        )
        if not floats or not (whole or self.whole_labels):
            return None
        wrong = label_rules.not_whole(ops, labels)
        return ops.any(wrong if there is None else ops.logical_and(wrong, there))

    def with_holes(self, labels: Tensor, there: Tensor | None = None) -> Tensor:
        """Labels of a batch in float32, NaN where one is missing or not there."""
        labels = ops.convert_to_tensor(labels)
        floats = ops.cast(labels, "float32")
        if there is not None:
            floats = ops.where(there, floats, np.nan)
        if self.missing is None or not _holds(labels.dtype, self.missing):
            return floats
        return ops.where(labels == ops.cast(self.missing, labels.dtype), np.nan, floats)

    def check_values(self, values: np.ndarray) -> None:
        """Refuse present label values out of range. `values` is flat, not empty."""
        if values.dtype == "float16":  # the range does not fit into it
            values = values.astype("float32")
        low, high = self.label_range
        wrong = ~((values >= low) & (values <= high))
        classes = self.class_count is not None and not self.soft_labels
        if (classes or self.whole_labels) and values.dtype.kind == "f":
            wrong |= label_rules.not_whole(np, values)
        if wrong.any():
            share = self.label_kind == "yes_no" and 0 < values[wrong][0] < 1
            hint = "; for probabilities pass soft_labels=True" * bool(share)
            raise ValueError(f"{self.label_rule}{hint}. Received: {values[wrong][0]}")

    # -- JSON ------------------------------------------------------------------------

    def to_config(self) -> Config:
        """The task as JSON-ready data; `Task.from_config` gives an equal task."""
        config: Config = {"kind": _registry.saved_name("task", type(self))}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "metrics":
                value = [metric.to_config() for metric in value]
            elif field.name == "loss" and not isinstance(value, str):
                value = keras.saving.serialize_keras_object(value)
            elif field.name == "class_weight" and isinstance(value, Mapping):
                value = {str(key): weight for key, weight in value.items()}
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, float) and math.isnan(value):
                value = "nan"
            config[field.name] = value
        return config

    @staticmethod
    def from_config(config: Options) -> Task:
        """The task that `to_config` described."""
        config = dict(config)
        cls = _registry.get("task", config.pop("kind"))
        if config.get("missing") == "nan":
            config["missing"] = math.nan
        config["metrics"] = tuple(
            Metric.from_config(metric) for metric in config.get("metrics", ())
        )
        for key in ("hidden", "labels", "ignore"):
            if config.get(key) is not None:
                config[key] = tuple(config[key])
        return cls(**config)

    def replace(self, **changes: Any) -> Any:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def __eq__(self, other: object) -> bool:
        # Through the config: NaN sentinels and Keras losses do not compare equal.
        return isinstance(other, Task) and self.to_config() == other.to_config()

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.name))


def takes_logits(loss: Any) -> bool | None:
    """What a loss object says in `from_logits`; None if it says nothing."""
    if not isinstance(loss, keras.losses.Loss):
        return None
    said: bool | None = loss.get_config().get("from_logits")
    return said


def _holds(dtype: DType, value: float) -> bool:
    """Whether labels of this dtype can be `value`; a cast would make it another."""
    dtype = keras.backend.standardize_dtype(dtype)
    if dtype == "bool" or math.isnan(value):
        return False
    if keras.backend.is_float_dtype(dtype):
        return True
    limits = np.iinfo(dtype)
    return value == value // 1 and limits.min <= value <= limits.max


def fits(shape: Sequence, expected: Sequence) -> bool:
    """Whether a shape is the expected one, in which None stands for any size."""
    return len(shape) == len(expected) and all(
        want is None or have == want for have, want in zip(shape, expected, strict=True)
    )


def show_shape(shape: Sequence) -> str:
    """A shape as texts have it, with the batch axis: `(N, 3)`."""
    inner = ", ".join("?" if size is None else str(size) for size in ("N", *shape))
    return f"({inner})" if shape else "(N,)"
