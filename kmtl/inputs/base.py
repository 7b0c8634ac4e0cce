"""The Input: everything kmtl knows about what goes into a model, said once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import keras
import numpy as np

from kmtl import _arrays, _registry
from kmtl.layers.maker import LayerMaker
from kmtl.typing import Config, Inputs, Options, Tensor


@dataclasses.dataclass(frozen=True)
class Input(_registry.Registrable):
    """One input of a model: what the user has, and how it becomes numbers.

    A frozen, JSON-ready value. `build` makes a `keras.Input` of its `shape` and `dtype`
    and encodes it; `fit`, `evaluate`, `predict`, searches and exports read the same
    object. Use a subclass such as `kmtl.inputs.Table`.

    A kind of your own says `shape` and `dtype` (fields or properties) and overrides the
    methods that differ from those of one plain array of numbers.
    """

    #: Whether prepared rows hold numbers of tokens, which are no quantities.
    gives_ids: ClassVar[bool] = False

    #: Why prepared rows are no target of a task that gives its input again
    #: (`kmtl.Reconstruction`), and what to do instead; None where they are one.
    no_target: ClassVar[str | None] = None

    #: What `fit` calls its rows in errors.
    training_rows: ClassVar[str] = "The training rows"

    #: Whether the last channel of prepared rows says which steps are there.
    ends_in_mask: ClassVar[bool] = False

    if TYPE_CHECKING:

        @property
        def shape(self) -> tuple[int | None, ...]:
            """Shape of one prepared row, without the batch axis."""

        @property
        def dtype(self) -> str:
            """Dtype of prepared rows."""

    @property
    def target_scale(self) -> float:
        """Factor that brings prepared values to the scale in which a task that has
        this input as its target (`kmtl.Reconstruction`) learns them."""
        return 1.0

    @property
    def fitted(self) -> bool:
        """Whether it knows what it needs of the training rows."""
        return True

    def fit(self, data: Inputs) -> Self:
        """A copy that knows the training rows; itself where there is nothing to know.

        Args:
            data: Training rows, in the form in which `fit` of the model takes them.
        """
        return self.learn(data, self.training_rows)

    def learn(self, data: Inputs, what: str) -> Self:
        """What `fit` does, with rows that errors call by another name.

        Args:
            data: Training rows.
            what: Their name, which begins sentences, such as "The training rows".
        """
        return self

    def prepare(self, data: Inputs, what: str) -> np.ndarray:
        """The array that the model takes, of what the user has.

        What it has returned it takes again, and returns as it is.

        Args:
            data: Rows as the user has them.
            what: Their name in errors, such as "`x`".

        Returns:
            Array `(N, *shape)` of `dtype`.

        Raises:
            ValueError, TypeError: naming column and row.
        """
        return _arrays.as_array(data, what)

    def is_row(self, thing: Any) -> bool:
        """Whether the only entry of a list is one row, and not an array of rows."""
        try:
            return np.ndim(thing) <= len(self.shape)
        except ValueError:  # a list of rows of several lengths
            return False

    def encode(self, x: Tensor, make: LayerMaker) -> Tensor:
        """Prepared rows as any trunk takes them, inside the model.

        Only layers without trainable weights.

        Args:
            x: KerasTensor `(N, *shape)`.
            make: Maker of layers.
        """
        return x

    def mask(self, x: Tensor, make: LayerMaker) -> Tensor | None:
        """Where rows are padded, for trunks over sequences, inside the model.

        Args:
            x: KerasTensor `(N, *shape)`, prepared rows.
            make: Maker of layers.

        Returns:
            `(N, L)`, 1 at the steps that `encode` gives and 0 at padding; None for rows
            of one length.
        """
        return None

    def scaled(self, x: Tensor, make: LayerMaker) -> Tensor:
        """Prepared rows for a trunk that encodes this kind itself, inside the model.

        The trunk has the kind's name in its `ENCODES`.
        """
        return x

    def step_sizes(self) -> np.ndarray | None:
        """What a change of 1 is in each number of a row, as attacks count it.

        Returns:
            Float32 array that broadcasts to `shape`, 0 for what is not to be changed by
            little, such as a category's number; None (default) for 1 everywhere.
        """
        return None

    def takes_columns(self) -> tuple[str, ...]:
        """Names of the columns that make up this input; none for one array."""
        return ()

    def serving_signature(self, name: str) -> dict[str, keras.InputSpec]:
        """What a served model takes for this input, by name.

        Args:
            name: The input's name in the model.
        """
        spec = keras.InputSpec(shape=(None, *self.shape), dtype=self.dtype)
        return {name: spec}

    def serve(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """What `prepare` does, in TensorFlow's operations: a part of the SavedModel.

        Args:
            tensors: TensorFlow tensors, named as `serving_signature` names them.
        """
        import tensorflow as tf

        (tensor,) = tensors.values()
        return tf.cast(tensor, self.dtype)

    def serving_resources(self) -> tuple[Any, ...]:
        """What `serve` needs besides numbers: lookup tables, and layers that have some.

        The same objects in every call, for they are saved with the SavedModel.
        """
        return ()

    def serving_columns(self, name: str) -> dict[str, str]:
        """Served name -> the user's name for it, where these differ."""
        return {}

    def serving_rows(self, name: str, data: Inputs, what: str) -> dict[str, np.ndarray]:
        """Rows as a served model takes them, to try it: one array per name.

        Args:
            name: The input's name in the model.
            data: Rows as `prepare` takes them.
            what: Their name in errors.
        """
        ((key, spec),) = self.serving_signature(name).items()
        return {key: as_served(data, spec.dtype, what)}

    def from_serving(self, name: str, rows: Mapping[str, np.ndarray]) -> Inputs:
        """What `prepare` takes, of what `serving_rows` has given."""
        (array,) = rows.values()
        return array

    @property
    def served_prepared(self) -> bool:
        """Whether a served model takes the prepared array itself."""
        return type(self).serve is Input.serve

    def replace(self, **changes: Any) -> Any:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_config(self) -> Config:
        """JSON-ready description; `Input.from_config` gives an equal input."""
        kind = _registry.saved_name("input", type(self))
        fields = {f.name: _plain(getattr(self, f.name)) for f in _saved(self)}
        return {"kind": kind, **fields}

    @staticmethod
    def from_config(config: Options) -> Input:
        config = dict(config)
        return _registry.get("input", config.pop("kind"))(**config)


def as_served(data: Inputs, dtype: str, what: str) -> np.ndarray:
    """An array of numbers of a dtype, or of strings as bytes."""
    if dtype != "string":
        return _arrays.as_array(data, what).astype(dtype)
    texts = np.asarray(data, dtype=object)
    encoded = [t if isinstance(t, bytes) else str(t).encode() for t in texts.ravel()]
    array = np.empty(len(encoded), dtype=object)
    array[:] = encoded
    return array.reshape(texts.shape)


def _saved(value: Any) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(value) if field.init]


def _plain(value: Any) -> Any:
    """A field's value in JSON's types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in _saved(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value
