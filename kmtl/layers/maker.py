"""Makes the layers of a part of a model: names, seeds, regularisers in one place."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any, Self

import keras

from kmtl._checks import check_choice
from kmtl.layers.copying import copy_tables, copy_values
from kmtl.layers.dropout import Dropout
from kmtl.layers.named import put_name
from kmtl.typing import (
    Activation,
    Config,
    Initializer,
    Layer,
    Operation,
    Regularizer,
    Tensor,
)

NORMALIZATIONS = ("batch", "layer")
#: Of batch normalisation's moving statistics. With Keras' 0.99 inference follows
#: training late: in experiments/defaults, after 75 to 190 steps, 0.9 is ahead on all.
MOMENTUM = 0.9


GROUPS, GROUP_CHANNELS = 32, 8
#: Argument of `layer` with the layer of another model that is copied.
SOURCE = "kmtl_source"
#: Beside it, where its config has no name: its class may take nothing but its own
#: arguments.
OWN = "kmtl_own"


def _like(kind: Any, name: str, config: Config) -> Layer:
    """A layer of another one's config.

    Raises:
        TypeError: its class cannot be made from that.
    """
    named = not config.pop(OWN, False)
    trainable = None if named else config.pop("trainable", None)
    given = {**config, "name": name} if named else config
    try:
        made = kind.from_config(given)
    except TypeError as error:
        raise TypeError(
            f"Layers of type {kind.__name__} cannot be copied, nor loaded from a "
            "file: their `get_config` must return what `__init__` takes, and "
            "`__init__` take `**kwargs` for `super().__init__(**kwargs)`. Received: "
            f"{kind.__name__}.from_config({given!r}), which raises: {error}"
        ) from error
    if made.name != name:  # it takes none, or has one of its own
        put_name(made, name, trainable)
    return made


def _join(prefix: str, name: str) -> str:
    return f"{prefix}_{name}" if prefix else name


def _seeded(value: Any, seed: int | None) -> Any:
    """An entry of a layer's config, an initializer in it with another seed."""
    inner = value.get("config") if isinstance(value, dict) else None
    if seed is None or not isinstance(inner, dict) or "seed" not in inner:
        return value
    return {**value, "config": {**inner, "seed": seed}}


@dataclasses.dataclass(frozen=True)
class LayerMaker:
    """Layers named `<prefix>_<name>`, each seeded by its own name.

    Seeding by name and not by order of creation gives a block the same initial weights
    in every model that has it, shared or copied: a single-task baseline starts where
    the multi-task model starts.

    Args:
        prefix: Start of every layer's name.
        seed: Integer, or None for a different initialisation every time.
        kernel_regularizer: Keras regulariser (or name) of every kernel.
        seed_scope: What stands for the prefix in the seeds.
        kernel_initializer: Keras initializer of every kernel, seeded by the layer's
            name. Defaults to Glorot's, uniform.
        masks: Where the sequences that the trunk reads are padded: what the backbone's
            `masks` gave.
    """

    prefix: str = ""
    seed: int | None = None
    kernel_regularizer: Regularizer = None
    seed_scope: str = ""
    masks: Any = dataclasses.field(default=(), compare=False, repr=False)
    kernel_initializer: Initializer | None = None
    # Layers of other models, and what was made like them and is to have their values.
    _copied: list[tuple[Layer, Layer]] = dataclasses.field(
        default_factory=list, compare=False, repr=False
    )

    @classmethod
    def like(cls, make: LayerMaker, **changes: Any) -> Self:
        """A maker of this class with the names and seeds of another."""
        fields = {
            field.name: getattr(make, field.name)
            for field in dataclasses.fields(LayerMaker)
        }
        return cls(**{**fields, **changes})

    def part(self, prefix: str, seed_scope: str | None = None) -> Self:
        """Maker for a part of this part."""
        return dataclasses.replace(
            self,
            prefix=_join(self.prefix, prefix),
            seed_scope=_join(
                self.seed_scope, prefix if seed_scope is None else seed_scope
            ),
        )

    def at(self, block: int) -> Self:
        """Maker for what reads the features that block `block` (0-based) reads.

        Its first mask is that of these features. (Lengths cannot tell masks apart where
        they are open.)
        """
        if not isinstance(self.masks, tuple):
            return self
        return dataclasses.replace(self, masks=self.masks[block:])

    def name(self, name: str) -> str:
        """Full name of a layer of this part."""
        return _join(self.prefix, name)

    def layer_seed(self, name: str) -> int | None:
        """The seed of that layer."""
        if self.seed is None:
            return None
        scoped = f"{self.seed}/{_join(self.seed_scope, name)}"
        return zlib.crc32(scoped.encode()) & 0x7FFFFFFF

    def kernel_options(self, name: str) -> Config:
        """Initializer and regulariser of the kernel of a layer."""
        # A regulariser object must not be shared between layers of a cloned model.
        regularizer = keras.regularizers.get(self.kernel_regularizer)
        if regularizer is not None:
            regularizer = type(regularizer).from_config(regularizer.get_config())
        return {
            "kernel_initializer": self._initializer(name),
            "kernel_regularizer": regularizer,
        }

    def _initializer(self, name: str) -> keras.initializers.Initializer:
        """A kernel's initializer, which draws by the layer's seed."""
        seed = self.layer_seed(name)
        if self.kernel_initializer is None:
            return keras.initializers.GlorotUniform(seed=seed)
        made = keras.initializers.get(self.kernel_initializer)
        config = made.get_config()
        if "seed" in config:
            config["seed"] = seed
        return type(made).from_config(config)

    def layer(self, kind: type, name: str, **arguments: Any) -> keras.layers.Layer:
        """A layer of this part. All layers are made here, so that another maker (one
        that gives the same layer twice, say) changes this one method."""
        if SOURCE not in arguments:
            return kind(name=self.name(name), **arguments)
        source = arguments.pop(SOURCE)
        made = _like(kind, self.name(name), arguments)
        if source is not None:
            copy_tables(source, made)  # before it is called
            self._copied.append((source, made))
        return made

    def copy(
        self, source: Layer, name: str, values: bool = True, **changes: Any
    ) -> Layer:
        """A layer of this part like one of another model.

        Args:
            source: The layer, built.
            name: Of the new one, within this part.
            values: It begins with the values of `source`, after `fill` has been called;
                else as this part's seed says.
            **changes: Entries of its config that are to be others.
        """
        config = {**source.get_config(), **changes}
        if config.pop("name", None) is None:
            config[OWN] = True
        seed = self.layer_seed(name)
        if seed is not None and "seed" in config:
            config["seed"] = seed
        if not values:
            config = {key: _seeded(value, seed) for key, value in config.items()}
        if self.kernel_regularizer is not None and "kernel_regularizer" in config:
            config["kernel_regularizer"] = self.kernel_options(name)[
                "kernel_regularizer"
            ]
        config[SOURCE] = source if values else None
        return self.layer(type(source), name, **config)

    def fill(self) -> None:
        """Give the copies that have been called the values of their sources."""
        while self._copied:
            copy_values(*self._copied.pop())

    def operation(self, source: Operation, name: str) -> Callable[..., Tensor]:
        """An operation of `keras.ops` like one of another model."""
        config = {**source.get_config(), "name": self.name(name)}
        return type(source).from_config(config)

    def once(self, apply: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """`apply(inputs)`, of inputs that may stand there several times: it makes
        nothing of a row that the row alone does not decide."""
        return apply(inputs)

    def dense(self, units: int, name: str, **kwargs: Any) -> keras.layers.Layer:
        kwargs = {**self.kernel_options(name), **kwargs}
        return self.layer(keras.layers.Dense, name, units=int(units), **kwargs)

    def conv(
        self, filters: int, kernel_size: int | tuple[int, ...], name: str, **kwargs: Any
    ) -> keras.layers.Layer:
        kwargs = {"padding": "same", **self.kernel_options(name), **kwargs}
        kwargs |= {"filters": int(filters), "kernel_size": kernel_size}
        return self.layer(keras.layers.Conv2D, name, **kwargs)

    def activation(self, activation: Activation, name: str) -> keras.layers.Layer:
        activation = keras.activations.get(activation)
        return self.layer(keras.layers.Activation, name, activation=activation)

    def dropout(self, rate: float, name: str) -> keras.layers.Layer:
        return self.layer(Dropout, name, rate=rate, seed=self.layer_seed(name))

    def normalization(
        self, kind: str, name: str, batch: type = keras.layers.BatchNormalization
    ) -> keras.layers.Layer:
        """`batch`: the class of a batch normalisation."""
        check_choice("normalization", kind, NORMALIZATIONS)
        if kind == "batch":
            return self.layer(batch, name, momentum=MOMENTUM)
        return self.layer(keras.layers.LayerNormalization, name)

    def group_normalization(self, channels: int, name: str) -> keras.layers.Layer:
        """Of at most `GROUPS` groups, each of `GROUP_CHANNELS` channels or more."""
        groups = max(
            n
            for n in range(1, GROUPS + 1)
            if channels % n == 0 and (n == 1 or channels // n >= GROUP_CHANNELS)
        )
        return self.layer(keras.layers.GroupNormalization, name, groups=groups)

    def flatten(self, name: str) -> keras.layers.Layer:
        return self.layer(keras.layers.Flatten, name)

    def pooling(self, kind: str, size: int, name: str) -> keras.layers.Layer:
        """`kind`: `"max"` or `"avg"` over windows of `size` x `size`."""
        layer = {
            "max": keras.layers.MaxPooling2D,
            "avg": keras.layers.AveragePooling2D,
        }[kind]
        return self.layer(layer, name, pool_size=size)
