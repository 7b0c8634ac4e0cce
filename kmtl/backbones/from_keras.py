"""Any functional Keras model as a trunk."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._private.keras import producer
from kmtl._registry import register
from kmtl.backbones import _cuts, _kinds
from kmtl.backbones._graph import Graph, Step, Value
from kmtl.backbones.base import Backbone
from kmtl.backbones.preprocessing import MODES, mode_of, preprocess
from kmtl.inputs.base import Input
from kmtl.inputs.source import InputSource
from kmtl.layers.maker import LayerMaker
from kmtl.layers.members import ToMembers
from kmtl.layers.sequences import MaskedPooling, PaddingMask, WithMask
from kmtl.typing import Config, Inputs, Shape, Tensor

logger = logging.getLogger("kmtl")

#: What functions of `keras.applications` load unless told otherwise.
IMAGENET = "imagenet"
#: Give what block 0 reads as the model takes it.
INPUTS = (keras.layers.InputLayer, InputSource, ToMembers)
#: Where a net is cut if its layers are not named.
FOUND = {"auto": _cuts.automatic, "pyramid": _cuts.at_levels}


@register("backbone", "from_keras")
@dataclasses.dataclass(frozen=True, eq=False)
class FromKeras(Backbone):
    """Any functional Keras model as a trunk, with its weights.

    The model is cut into blocks, each a piece of its graph between two cuts. They are
    shared, copied per task or mixed as any scheme says; every copy begins with the
    model's weights. The model itself stays as it is. A model that embeds ids takes
    `kmtl.inputs.Text` and `Tokens` as ids. What it does to its inputs
    (`Rescaling`, `Normalization`, ...) is part of the first block, and so of exports.

    Args:
        model: A functional `keras.Model` (or `keras.Sequential`) with one output, which
            the heads read: hand-made, of `keras.applications`, an image backbone of
            keras-hub (see below); or with a dict of maps for outputs, of which the one
            that is made of all the others is read. One with several inputs takes the
            `inputs` of `kmtl.build` by the names of its own. Or a function that makes
            one with one input, such as `keras.applications.MobileNetV2`, or that
            function's name: it is called with the `input_shape` (or `image_shape`) of
            the net to build, and `include_top=False`.
        cuts: Names of the layers at which a block ends, in any order; all of the model
            after a cut must depend on what is before by that layer's output alone (and
            the mask of padding that Keras takes along from an `Embedding` or `Masking`
            of the input, which goes beside): with several inputs, after they have met.
            Of a nested model, layers are called `<model>_<layer>`. Maps may be named as
            the model names them in its `pyramid_outputs` or dict of outputs ("P3"), and
            `"pyramid"` cuts at each of these. `"auto"` cuts between the sizes of the
            maps of a convolutional net, else between layers with weights.
            `backbone.cut_names` tells where.
        freeze: `"all"`, or the number of leading blocks that are not trained: nothing
            in them changes. Batch normalisation runs with its statistics and dropout is
            off, so that heads learn from what they will see later; `model.unfreeze`
            trains them. None trains all that is trainable in the model.
        weights: For a function: `"imagenet"`, the path of a weights file, or None for
            weights drawn by the `seed` of the net to build. A model has its own.
        preprocessing: What is done to the inputs first: `"bytes"` brings images in
            [0, 1] to [0, 255]; `"tf"`, `"torch"` and `"caffe"` are those of
            `keras.applications`, for images in [0, 1]; None takes the inputs as they
            are. `"auto"` is what a net of `keras.applications`, given by its function
            or name, was trained on, and None for all others.
        arguments: Further arguments of the function, such as `{"alpha": 0.5}`.
        dropout: As for `Backbone`, after every block; None (the default) for none but
            the model's own.
        kernel_regularizer: In the place of the layers' own; None keeps them.

    A backbone of keras-hub is given as it comes from its class or `from_preset`. Heads
    with a decoder, as `kmtl.Segmentation(decoder="unet")`, read the maps at all cuts.
    What its `keras_hub.layers.ImageConverter` does to images (its `scale` and `offset`,
    on values up to 255) is not part of it: that is `preprocessing`, or a layer before
    it, as in `keras.Model(x, net(keras.layers.Rescaling(...)(x)))`, whose cuts have the
    net's name before theirs. Its weights are frozen by `freeze`, or by its `trainable`.
    A file of the kmtl model is loaded after `import keras_hub`.

    >>> net = keras_hub.models.Backbone.from_preset(  # doctest: +SKIP
    ...     "resnet_18_imagenet", image_shape=(128, 128, 3)
    ... )
    >>> backbone = kmtl.backbones.FromKeras(  # doctest: +SKIP
    ...     net, cuts="pyramid", freeze=1  # blocks end at the maps P2, P3 and P4
    ... )

    Raises:
        ValueError: for a subclassed model, several outputs, and cuts that are no layers
            or do not part the model.

    Example:

    >>> inputs = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="stem")(inputs)
    >>> x = keras.layers.Conv2D(8, 3, activation="relu", name="body")(x)
    >>> net = keras.Model(inputs, x)
    >>> backbone = kmtl.backbones.FromKeras(net, cuts=["stem"])
    >>> model = kmtl.build(
    ...     backbone=backbone, input_shape=(8, 8, 3), sharing_depth=1,
    ...     tasks=[kmtl.Regression("a"), kmtl.Regression("b")],
    ... )
    >>> [layer.name for layer in model.layers if "_block" in layer.name]
    ['shared_block1_stem', 'a_block2_body', 'b_block2_body']
    """

    model: Any
    cuts: Sequence[str] | str = "auto"
    _: dataclasses.KW_ONLY
    dropout: float | Sequence[float] | None = None
    activation: None = None  # type: ignore[assignment]
    freeze: str | int | None = None
    weights: str | None = IMAGENET
    preprocessing: str | None = "auto"
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: Digest of the model's weights: what tells apart configs of equal layers.
    digest: str | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name in ("activation", "normalization", "kernel_initializer"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"`{name}` of backbone 'from_keras' must be None: its layers are "
                    f"the model's. Received: {name}={getattr(self, name)!r}"
                )
        put("arguments", dict(self.arguments))
        if self.preprocessing is not None:
            choices = ("auto", *MODES)
            _checks.check_choice("preprocessing", self.preprocessing, choices)
        if isinstance(self.model, Mapping):
            put("model", _from_config(self.model))
        if isinstance(self.model, str):
            put("model", _application(self.model))
        if isinstance(self.model, keras.Model):
            self._check_model()
        elif not callable(self.model):
            raise TypeError(
                "`model` must be a functional keras.Model, a function that makes one, "
                "or the name of one in keras.applications. "
                f"Received: model={self.model!r}"
            )
        if not (isinstance(self.cuts, str) and self.cuts in FOUND):
            if isinstance(self.cuts, str) or not all(
                isinstance(name, str) for name in self.cuts
            ):
                raise TypeError(
                    '`cuts` must be "auto", "pyramid" or a sequence of names of '
                    f"layers. Received: cuts={self.cuts!r}"
                )
            put("cuts", tuple(self.cuts))
        if self.is_made:
            self.pieces  # noqa: B018  refuses cuts that do not fit
        if self.freeze not in (None, "all"):
            most = self.num_blocks
            put("freeze", _checks.check_int("freeze", self.freeze, 0, most))
        if self.dropout is not None:
            put("dropout", self._check_dropout())
        if self.kernel_regularizer is not None:
            made = _checks.check_regularizer(self.kernel_regularizer)
            put("kernel_regularizer", made)

    def _check_model(self) -> None:
        if self.arguments:
            raise ValueError(
                "`arguments` are those of a function that makes the model. Received: "
                f"a model and arguments={self.arguments}"
            )
        if self.weights not in (IMAGENET, None):
            raise ValueError(
                "`weights` are for a function that makes the model; for a model call "
                f"its `load_weights` first. Received: weights={self.weights!r}"
            )
        if self.preprocessing == "auto":
            object.__setattr__(self, "preprocessing", None)
        if self.preprocessing is not None and len(self.graph.inputs) > 1:
            raise ValueError(
                "`preprocessing` is for a model with one input: make it a part of the "
                f"model. Received: preprocessing={self.preprocessing!r} and a model "
                f"with the inputs {', '.join(self.graph.inputs)}"
            )

    # -- the model ---------------------------------------------------------------------

    @property
    def is_made(self) -> bool:
        """Whether it has a model, and not only a function that makes one."""
        return isinstance(self.model, keras.Model)

    @functools.cached_property
    def _made(self) -> dict[Any, FromKeras]:
        """Shape of one input -> the backbone with the model for it."""
        return {}

    def for_shape(self, input_shape: Shape) -> FromKeras:
        """The backbone with the model that its function makes for inputs of a shape."""
        if self.is_made:
            return self
        key = None if input_shape is None else tuple(input_shape)
        made = self._made
        if key not in made:
            model = self._make(key)
            changes: Config = {"model": model, "arguments": {}}
            if self.preprocessing == "auto":
                changes["preprocessing"] = mode_of(self.model)
            changes["weights"] = self.weights and IMAGENET
            made[key] = dataclasses.replace(self, **changes)
        made[key] = made.pop(key)  # the last one that was asked for
        return made[key]

    def _make(self, input_shape: Shape | None) -> keras.Model:
        known = inspect.signature(self.model).parameters
        open_ = any(p.kind is p.VAR_KEYWORD for p in known.values())
        given: Config = {}
        if "include_top" in known:
            given["include_top"] = False
        if "weights" in known:
            given["weights"] = self.weights if input_shape is not None else None
        shape = "image_shape" if "image_shape" in known else "input_shape"
        if input_shape is not None and (shape in known or open_):
            given[shape] = input_shape
        model = self.model(**{**given, **self.arguments})
        if not isinstance(model, keras.Model):
            raise TypeError(
                "`model` must be a functional keras.Model or a function that makes "
                f"one. Received: a function that returned {type(model).__name__}"
            )
        if len(model.inputs) > 1:
            raise ValueError(
                "A function that makes a model must make one with one input: of "
                "several inputs give the model itself. Received: a function that "
                f"returned a model with {len(model.inputs)} inputs"
            )
        return model

    @functools.cached_property
    def graph(self) -> Graph:
        """The model's steps, of the function's default model where there is none."""
        return Graph(self.model) if self.is_made else self._some.graph

    @property
    def _some(self) -> FromKeras:
        """With the model that the function has made last, or its default one."""
        made = self._made
        return next(reversed(made.values()), None) or self.for_shape(None)

    @functools.cached_property
    def _ends(self) -> list[int]:
        if isinstance(self.cuts, str):
            return FOUND[self.cuts](self.graph)
        return _cuts.named(self.graph, self.cuts)

    @functools.cached_property
    def pieces(self) -> list[list[Step]]:
        """The steps of each block."""
        return self.graph.pieces(self._ends)

    @property
    def cut_names(self) -> tuple[str, ...]:
        """Names of the layers at which the blocks end, but for the last one."""
        if not self.is_made:
            return self._some.cut_names
        return tuple(map(self.graph.name_of, self._ends))

    @property
    def num_blocks(self) -> int:
        if not self.is_made and not isinstance(self.cuts, str):
            return len(self.cuts) + 1
        return len(self.pieces) if self.is_made else self._some.num_blocks

    @property
    def frozen_blocks(self) -> int:
        """Number of leading blocks that are not trained."""
        return self.num_blocks if self.freeze == "all" else int(self.freeze or 0)

    @property
    def INPUT_RANKS(self) -> tuple[int, ...]:  # type: ignore[override]
        """Ranks of one input that the blocks accept."""
        return tuple({len(t.shape) - 1: None for t in self.graph.inputs.values()})

    def check_input_shapes(self, shapes: Mapping[str, tuple]) -> None:
        if not self.is_made or len(self.graph.inputs) == 1:
            return super().check_input_shapes(shapes)
        _kinds.check_names(shapes, self.graph)
        for name, shape in shapes.items():
            self._check_shape(shape, self.graph.input(name), f" for input '{name}'")
        return None

    def check_input_shape(self, input_shape: tuple) -> None:
        if not self.is_made:
            return self.for_shape(input_shape).check_input_shape(input_shape)
        if len(self.graph.inputs) > 1:
            raise ValueError(
                "`input_shape` is for a model with one input: build with `inputs`, a "
                "dict of kmtl.inputs objects by the names of the model's inputs, "
                f"{', '.join(self.graph.inputs)}. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        return self._check_shape(input_shape, self.graph.input(""), "")

    def _check_shape(self, shape: tuple, own: Tensor, where: str) -> None:
        wanted = tuple(own.shape[1:])
        fits = len(wanted) == len(shape) and all(
            None in (size, given) or size == given
            for size, given in zip(wanted, shape, strict=True)
        )
        if not fits:
            raise ValueError(
                "`input_shape` of backbone 'from_keras' must be that of its model, "
                f"{wanted}; make the model with keras.Input of the shape that you "
                "have (weights of convolutions fit any size). "
                f"Received: input_shape={tuple(shape)}{where}"
            )

    def for_inputs(self, inputs: Mapping[str, Input]) -> Backbone:
        if self.is_made and inputs:
            _kinds.check_names(inputs, self.graph)
        several = self.is_made and len(self.graph.inputs) > 1
        for name, spec in inputs.items():
            if spec.registered_name == "image":
                self._check_scale(name, spec)
            if several or (len(inputs) == 1 and (self.is_made or spec.gives_ids)):
                net = self.for_shape(spec.shape)
                if self.is_made or _kinds.takes_ids(net.graph, name):
                    _kinds.check_kind(name, spec, net.graph)
        return self

    def _check_scale(self, name: str, spec: Input) -> None:
        scale = getattr(spec, "scale", "unit")
        mode = self.preprocessing
        if mode == "auto":
            mode = mode_of(self.model)
        if mode is not None and scale != "unit":
            raise ValueError(
                '`Image(scale=...)` must be "unit" for a net of keras.applications, '
                "whose preprocessing is part of the model (or give the backbone "
                "preprocessing=None, to do it yourself). "
                f"Received: inputs['{name}'] with scale={scale!r} and "
                f"preprocessing={mode!r}"
            )

    def encodes(self, name: str, spec: Input) -> bool:
        if not spec.gives_ids:
            return False
        return _kinds.takes_ids(self.for_shape(spec.shape).graph, name)

    def masks(self, inputs: Inputs, make: LayerMaker, given: Any = None) -> Any:
        several = isinstance(inputs, Mapping)
        net = self if several else self.for_shape(inputs.shape[1:])
        graph = net.graph
        named: Any = inputs if several else dict.fromkeys(graph.inputs, inputs)
        told = given if isinstance(given, Mapping) else dict.fromkeys(named, given)
        #: Of the tensors of the graph that are padded.
        found: dict[int, Tensor] = {}
        for number, name in enumerate(graph.inputs):
            x, mask = named[name], told.get(name)
            if mask is None or len(x.shape) != 3 or _kinds.has_own_mask(graph, number):
                continue  # of ids the model's Embedding knows
            padded, loses = _kinds.padded(graph, number)
            if loses is None:
                found |= dict.fromkeys(padded, mask)
                continue
            logger.warning(
                "The model of backbone 'from_keras' computes padding as steps, for its "
                "'%s' takes no mask: predictions depend on how far rows are padded. "
                "Give rows of one length, a model whose layers take Keras' masks "
                "(recurrent ones, attention, GlobalAveragePooling1D), or a net of "
                "kmtl.backbones.", loses,
            )  # fmt: skip
        reads = [*net._ends, graph.output]
        own = {graph.padding[n] for n in reads if n in graph.padding}
        made = {
            padding: make.part(f"padding{i + 1}").layer(
                PaddingMask, "mask", padding=padding.value
            )([*named.values()][padding.input])
            for i, padding in enumerate(sorted(own, key=dataclasses.astuple))
        }
        found |= {n: made[graph.padding[n]] for n in reads if n in graph.padding}
        if not found:
            return ()
        first = {name: found.get(i) for i, name in enumerate(graph.inputs)}
        return (first if several else found.get(0), *map(found.get, reads))

    def gate_input(self, features: Inputs, make: LayerMaker) -> Tensor:
        if isinstance(features, Mapping):
            raise ValueError(
                "A gate reads what the experts read, and the model of backbone "
                "'from_keras' has several inputs: give the sharing scheme a `depth` of "
                "1 or more, so that experts begin behind the first cut. "
                f"Received: depth=0 for the inputs {', '.join(features)}"
            )
        mask, found = make.masks[0] if make.masks else None, None
        if isinstance(producer(features), INPUTS):
            found = _kinds.embedding(self.for_shape(features.shape[1:]).graph)
        if found is not None:  # the numbers of ids say nothing
            if found.mask_zero:
                mask = make.layer(PaddingMask, "padding_mask")(features)
            own = {"values": self.weights is not None, "mask_zero": False}
            features = make.copy(found, "embedding", **own)(features)
            make.fill()
        if len(features.shape) != 3 or (mask is None and found is None):
            return features
        read = features if mask is None else [features, mask]
        return make.layer(MaskedPooling, "pool")(read)

    # -- blocks ------------------------------------------------------------------------

    def block(self, index: int, features: Inputs, make: LayerMaker) -> Tensor:
        if not self.is_made:  # as an encoder of a fusion
            net = self._some if index else self.for_shape(features.shape[1:])
            return net.block(index, features, make)
        # Anew in every block: what schemes put between blocks takes no mask.
        masks = make.masks[index] if make.masks else None
        if isinstance(features, Mapping):
            masks = masks or {}
            values = {
                i: _with_mask(features[name], masks.get(name), make.part(name))
                for i, name in enumerate(self.graph.inputs)
            }
        else:
            features = _with_mask(features, masks, make)
            if index == 0:
                features = preprocess(self.preprocessing, features, make)
            values = {self._ends[index - 1] if index else 0: features}
        frozen = index < self.frozen_blocks
        ends = [*self._ends, self.graph.output]

        def current(leaf: Any) -> Any:
            return values[leaf.number] if isinstance(leaf, Value) else leaf

        made: dict[int, Callable[..., Any]] = {}  # of layers that are applied twice
        for step in self.pieces[index]:
            args = keras.tree.map_structure(current, step.args)
            kwargs = keras.tree.map_structure(current, step.kwargs)
            called = made.get(id(step.operation))
            if called is None:
                called = made[id(step.operation)] = self._copy(step, make, frozen)
            outputs = keras.tree.flatten(called(*args, **kwargs))
            values.update(zip(step.outputs, outputs, strict=True))
        make.fill()
        features = self.drop(index, values[ends[index]], make)
        if make.masks and make.masks[index + 1] is not None:
            # An operation, for these lose the mask without a word.
            copy = producer(ops.copy(features))
            features = make.operation(copy, "unmask")(features)
        return features

    def _copy(self, step: Step, make: LayerMaker, frozen: bool) -> Callable[..., Any]:
        if not isinstance(step.operation, keras.layers.Layer):
            return make.operation(step.operation, step.name)
        changes: Config = {"trainable": False} if frozen else {}
        # Without weights of its own a net is drawn by the seed of what is built.
        values = self.weights is not None
        return make.copy(step.operation, step.name, values=values, **changes)

    # -- records -----------------------------------------------------------------------

    def to_config(self) -> Config:
        """JSON-ready description, with a digest in the place of the weights.

        What is made of it has the layers of the model, and weights drawn anew: those of
        a kmtl model are in its own file.
        """
        config = super().to_config()
        if self.is_made:
            config["model"] = _described(self.model)
            if self.weights is not None:
                config["digest"] = self.digest or _digest(self.model)
        else:
            config["model"] = _function_name(self.model)
        if not isinstance(self.cuts, str):
            config["cuts"] = list(self.cuts)
        return config

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FromKeras):
            return NotImplemented
        return self is other or self.to_config() == other.to_config()

    def __hash__(self) -> int:
        return hash((type(self), self.cuts, self.freeze))

    def __deepcopy__(self, memo: dict) -> FromKeras:
        return self  # nothing of it changes, and a model is not copied lightly


def _with_mask(features: Tensor, mask: Tensor | None, make: LayerMaker) -> Tensor:
    """Features as layers of Keras read them that know of padding."""
    if mask is None:
        return features
    return make.layer(WithMask, "mask")([features, mask])


def _described(model: keras.Model) -> Config:
    config: Config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    return json.loads(json.dumps(config))  # tuples become lists, as in a file


def _digest(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for variable in model.weights:
        value = np.ascontiguousarray(ops.convert_to_numpy(variable))
        digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    return digest.hexdigest()


def _application(name: str) -> Callable[..., keras.Model]:
    """A function of `keras.applications`, or one of a module that is imported."""
    module, _, own = name.rpartition(".")
    found = getattr(sys.modules.get(module), own, None) if module else None
    if found is None and not module:
        known = [
            known
            for known in dir(keras.applications)
            if callable(getattr(keras.applications, known))
        ]
        if name not in known:
            raise ValueError(
                _checks.unknown_name("model of keras.applications", name, known)
            )
        found = getattr(keras.applications, name)
    if not callable(found):
        raise ValueError(
            f"The function that makes the model must have been imported: '{own}' of "
            f"'{module}'. Received: model={name!r}"
        )
    return found


def _function_name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "")
    if name and getattr(keras.applications, name, None) is function:
        return name
    module = getattr(function, "__module__", "")
    if getattr(sys.modules.get(module), name, None) is not function:
        raise ValueError(
            "A function that makes a model must be found by its name, at the top of a "
            "module, to be part of a config: give the model that it makes. "
            f"Received: {function!r}"
        )
    return f"{module}.{name}"


def _from_config(config: Mapping[str, Any]) -> keras.Model:
    return keras.saving.deserialize_keras_object(dict(config))
