"""An autoregressive Transformer decoder: texts, token by token, from what a net saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl._largest import largest
from kmtl.layers.kept import Kept
from kmtl.layers.sequences import Positions
from kmtl.typing import Config, Shape, Tensor

#: Far below any score.
_NEVER = -1e9
#: By how much a token that beam search did not take lies below the one it took.
_BELOW = 1e-3


@keras.saving.register_keras_serializable(package="kmtl")
class TextDecoder(keras.layers.Layer):
    """Writes texts: every token from those before it, and from a memory that all read.

    Blocks of causal self-attention, cross-attention to the memory, and two dense
    layers, each behind a layer normalisation. Tokens are numbers in [0, tokens); the
    end of a text is the number `tokens`, which also stands before the first one. All in
    float32.

    A call writes by itself: the most probable token after those it has written. In
    training it writes nothing (NaN): there `taught` gives the scores of tokens after
    those of the labels, from the memory of the last call.

    Args:
        task: Name of the task.
        tokens: Number of tokens, >= 1.
        length: Tokens of the longest text, >= 1.
        units: Channels of the blocks, a multiple of `2 * heads`. Defaults to 64.
        blocks: Number of blocks, >= 1. Defaults to 2.
        heads: Heads of an attention. Defaults to 4.
        beam: Texts that are followed at once, >= 1; that with the largest mean of
            log-probabilities is taken. Defaults to 1: greedily.
        kernel_initializer: Keras initializer of the kernels. Defaults to Glorot's,
            uniform.
        seed: Integer for it, or None.

    Call arguments:
        inputs: Memory `(N, M, C)`; or `[memory, mask]`, with the mask `(N, M)` above 0
            at places that are there.

    Returns:
        `(N, length + 1, tokens + 1)`, logits of each token of the text and of its end.
        Their largest ones are the text: with a beam, tokens that are more probable than
        the one taken are lowered to just below it.

    Example:

    >>> layer = kmtl.layers.TextDecoder("text", tokens=3, length=4, units=8, seed=0)
    >>> memory = np.ones((2, 5, 6), "float32")
    >>> written = layer(memory)
    >>> tuple(written.shape)
    (2, 5, 4)
    >>> text = ops.argmax(written, axis=-1)
    >>> bool(ops.all(layer.taught(text) == written))  # its own text as the label
    True

    Reference: Vaswani et al., NeurIPS 2017, arXiv:1706.03762; normalisation first:
    Xiong et al., ICML 2020, arXiv:2002.04745.
    """

    def __init__(
        self,
        task: str,
        tokens: int,
        length: int,
        units: int = 64,
        blocks: int = 2,
        heads: int = 4,
        beam: int = 1,
        kernel_initializer: Any = "glorot_uniform",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.task = task
        self.tokens = _checks.check_int("tokens", tokens, 1)
        self.length = _checks.check_int("length", length, 1)
        self.units = _checks.check_int("units", units, 1)
        self.blocks = _checks.check_int("blocks", blocks, 1)
        self.heads = _checks.check_int("heads", heads, 1)
        self.beam = _checks.check_int("beam", beam, 1)
        if self.units % (2 * self.heads):
            raise ValueError(
                "`units` of a decoder must be a multiple of 2 * heads. "
                f"Received: units={units}, heads={heads}"
            )
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed = None if seed is None else _checks.check_int("seed", seed)
        self._kept = Kept()

    # -- its parts ---------------------------------------------------------------------

    def build(self, input_shape: Shape) -> None:
        many = isinstance(input_shape[0], Sequence)
        _, places, channels = tuple(input_shape[0] if many else input_shape)
        units = self.units
        #: One place alone is all that there is to attend to.
        self.one_place = places == 1
        self.parts: dict[str, keras.layers.Layer] = {}
        start = keras.initializers.RandomNormal(stddev=1.0, seed=self._seed_of(0))
        self._add("tokens", keras.layers.Embedding(self.tokens + 1, units, start), ())
        self._add("memory", self._dense(units), (channels,))
        for block in range(self.blocks):
            for name in ("self", "cross"):
                here = f"{name}{block + 1}"
                projections = ["values"]
                if name == "self" or not self.one_place:
                    self._norm(here)
                    # No biases: that of the keys would change nothing.
                    projections += ["queries", "keys"]
                for projection in projections:
                    made = self._dense(units, use_bias=False)
                    self._add(f"{here}_{projection}", made, (units,))
                self._add(f"{here}_output", self._dense(units), (units,))
            here = f"dense{block + 1}"
            self._norm(here)
            wide = self._dense(4 * units, activation="relu")
            self._add(f"{here}_inner", wide, (units,))
            self._add(f"{here}_output", self._dense(units), (4 * units,))
        self._norm("last")
        self._add("logits", self._dense(self.tokens + 1), (units,))
        self.places = Positions(dtype="float32")
        self.places.build((None, None, units))
        self.built = True

    def _seed_of(self, number: int) -> int | None:
        return None if self.seed is None else self.seed + number

    def _dense(self, units: int, **options: Any) -> keras.layers.Layer:
        config = self.kernel_initializer.get_config()
        if "seed" in config:
            config["seed"] = self._seed_of(len(self.parts))
        initializer = type(self.kernel_initializer).from_config(config)
        return keras.layers.Dense(units, kernel_initializer=initializer, **options)

    def _add(self, name: str, layer: keras.layers.Layer, inner: tuple) -> None:
        made = type(layer).from_config(
            {**layer.get_config(), "name": name, "dtype": "float32"}
        )
        made.build((None, None, *inner))
        self.parts[name] = made

    def _norm(self, name: str) -> None:
        layer = keras.layers.LayerNormalization(epsilon=1e-6)
        self._add(f"{name}_norm", layer, (self.units,))

    # -- scores ------------------------------------------------------------------------

    def _attend(self, name: str, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        def split(projection: str, tensor: Tensor) -> Tensor:
            made = self.parts[f"{name}_{projection}"](tensor)
            steps = ops.shape(made)[1]
            sizes = (-1, steps, self.heads, self.units // self.heads)
            return ops.reshape(made, sizes)

        causal = memory is None
        source = x if causal else memory
        if not causal and self.one_place:
            return self.parts[f"{name}_output"](self.parts[f"{name}_values"](source))
        if mask is not None:
            mask = ops.expand_dims(ops.cast(mask, "bool"), (1, 2))
        attended = ops.dot_product_attention(
            split("queries", x),
            split("keys", source),
            split("values", source),
            mask=mask,
            is_causal=causal,
        )
        attended = ops.reshape(attended, (-1, ops.shape(x)[1], self.units))
        return self.parts[f"{name}_output"](attended)

    def scores(self, given: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Logits of the token behind each one, `(N, length + 1, tokens + 1)`.

        Args:
            given: `(N, length + 1)`, int: the start, and tokens.
            memory: `(N, M, units)`.
            mask: `(N, M)` or None.
        """
        parts = self.parts
        x = self.places(parts["tokens"](given))
        for block in range(1, self.blocks + 1):
            own = parts[f"self{block}_norm"](x)
            x = x + self._attend(f"self{block}", own, None, None)
            own = x if self.one_place else parts[f"cross{block}_norm"](x)
            x = x + self._attend(f"cross{block}", own, memory, mask)
            own = parts[f"dense{block}_inner"](parts[f"dense{block}_norm"](x))
            x = x + parts[f"dense{block}_output"](own)
        return parts["logits"](parts["last_norm"](x))

    def call(self, inputs: Tensor | Sequence[Tensor], training: bool = False) -> Tensor:
        memory, mask = inputs if isinstance(inputs, (list, tuple)) else (inputs, None)
        memory = self.parts["memory"](ops.cast(memory, "float32"))
        if not self.one_place:
            memory = self.places(memory)
        self._kept.put((memory, mask))
        if training:
            nothing = ops.full((1, self.length + 1, self.tokens + 1), float("nan"))
            return ops.zeros_like(memory[:, :1, :1]) + nothing
        memory = ops.stop_gradient(memory)
        if self.beam > 1:
            return self._of_beam(memory, mask)
        return self.scores(self._greedy(memory, mask), memory, mask)

    def taught(self, labels: Tensor) -> Tensor:
        """Logits of tokens behind those of the labels, from the last call's memory.

        Args:
            labels: `(N, length + 1)`, int: tokens and the end.
        """
        labels = ops.cast(labels, "int32")
        start = ops.full_like(labels[:, :1], self.tokens)
        return self.scores(
            ops.concatenate([start, labels[:, :-1]], axis=1), *self._kept.look()
        )

    # -- writing -----------------------------------------------------------------------

    def _start(self, memory: Tensor) -> Tensor:
        rows = ops.zeros_like(memory[:, :1, 0], dtype="int32")
        return rows + ops.full((1, self.length + 1), self.tokens, dtype="int32")

    def _greedy(self, memory: Tensor, mask: Tensor | None) -> Tensor:
        """The start, and the tokens that are most probable in their turn."""
        places = ops.arange(self.length + 1, dtype="int32")

        def step(at: Tensor, given: Tensor) -> Tensor:
            scores = ops.take(self.scores(given, memory, mask), at, axis=1)
            return ops.where(places == at + 1, _first_largest(scores)[:, None], given)

        return ops.fori_loop(0, self.length, step, self._start(memory))

    def _of_beam(self, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Logits along the best of several texts, of which the text has the largest."""
        beam, end, length = self.beam, self.tokens, self.length
        places = ops.arange(length + 1, dtype="int32")
        wide = ops.repeat(memory, beam, axis=0)
        wide_mask = None if mask is None else ops.repeat(mask, beam, axis=0)
        start = self._start(memory)
        texts = ops.repeat(start[:, None], beam, axis=1)
        zeros = ops.zeros_like(ops.cast(texts[:, :, 0], "float32"))
        # All texts begin alike: the first step takes tokens after one of them.
        totals = zeros + ops.where(ops.arange(beam) > 0, _NEVER, 0.0)
        after_end = ops.where(ops.arange(end + 1) == end, 0.0, _NEVER)

        def step(at: Tensor, state: tuple) -> tuple:
            texts, totals, ended = state
            flat = ops.reshape(texts, (-1, length + 1))
            scores = ops.take(self.scores(flat, wide, wide_mask), at, axis=1)
            more = ops.reshape(ops.log_softmax(scores, axis=-1), (-1, beam, end + 1))
            more = ops.where(ended[..., None] > 0, after_end, more)
            every = ops.reshape(totals[..., None] + more, (-1, beam * (end + 1)))
            totals, chosen = largest(every, beam)
            chosen = ops.cast(chosen, "int32")
            parent, token = chosen // (end + 1), chosen % (end + 1)
            texts = ops.take_along_axis(texts, parent[..., None], axis=1)
            texts = ops.where(places == at + 1, token[..., None], texts)
            ended = ops.take_along_axis(ended, parent, axis=1)
            ended = ops.maximum(ended, ops.cast(token == end, "float32"))
            return texts, totals, ended

        texts, totals, ended = ops.fori_loop(0, length, step, (texts, totals, zeros))
        written = ops.sum(ops.cast(texts[..., 1:] != end, "float32"), axis=-1) + ended
        best = _first_largest(totals / ops.maximum(written, 1.0))[:, None, None]
        text = ops.take_along_axis(texts, best, axis=1)[:, 0]
        scores = self.scores(text, memory, mask)
        taken = ops.take_along_axis(scores[:, :-1], text[:, 1:, None], axis=-1)
        others = ops.arange(end + 1) != text[:, 1:, None]
        below = ops.minimum(scores[:, :-1], taken - _BELOW)
        lowered = ops.where(others, below, scores[:, :-1])
        return ops.concatenate([lowered, scores[:, -1:]], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        many = isinstance(input_shape[0], Sequence)
        rows = (input_shape[0] if many else input_shape)[0]
        return (rows, self.length + 1, self.tokens + 1)

    def get_config(self) -> Config:
        names = ("task", "tokens", "length", "units", "blocks", "heads", "beam", "seed")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def _first_largest(x: Tensor) -> Tensor:
    """Where the largest entry of the last axis is, int32.

    As `ops.argmax`, which on TensorFlow looks at bits, for zeros with a sign: neither
    ONNX nor LiteRT files can say that.
    """
    places = ops.arange(x.shape[-1], dtype="int32")
    largest = x == ops.max(x, axis=-1, keepdims=True)
    return ops.min(ops.where(largest, places, x.shape[-1] - 1), axis=-1)
