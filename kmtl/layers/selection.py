"""Which tasks run a block and which skip it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.layers.choice import Choice
from kmtl.typing import Config, Options, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class Selection(Choice):
    """Each task runs a block or skips it.

    With b_t the block's output and x_t its input, task t goes on with
    `u_t0 b_t + u_t1 x_t`, u_t sampled while training (see `Choice`); at inference with
    the likelier of the two. While training it adds to the loss, with the probability
    α_t that task t runs the block,

        `sparsity Σ_t -log(1 - α_t) + sharing Σ_{s<t} |α_s - α_t|`.

    Its readings are each task's probabilities of running and of skipping.

    Args:
        tasks: Names of the tasks.
        sparsity: Float >= 0. Defaults to 0.
        sharing: Float >= 0. Defaults to 0.
        recipe: What `kmtl.harden` needs to build the model, JSON-ready.
        temperature, final_temperature, anneal_steps, seed: See `Choice`.

    Call arguments:
        inputs: List of the tasks' b_t and then their x_t, all of one shape.

    Returns:
        List of a tensor per task.

    Reference: Sun et al., NeurIPS 2020, arXiv:1911.12423, section 3; the two terms as
    the authors' code has them.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        sparsity: float = 0.0,
        sharing: float = 0.0,
        recipe: Options | None = None,
        temperature: float = 5.0,
        final_temperature: float = 0.5,
        anneal_steps: int = 1000,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(temperature, final_temperature, anneal_steps, seed, **kwargs)
        self.tasks = tuple(map(str, tasks))
        self.sparsity = _checks.check_range("sparsity", sparsity, 0)
        self.sharing = _checks.check_range("sharing", sharing, 0)
        self.recipe = None if recipe is None else dict(recipe)

    def build(self, input_shape: Shape) -> None:
        self._shape = tuple(input_shape[0][1:])
        self.add_choices((len(self.tasks), 2))
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> list:
        count = len(self.tasks)
        pairs = list(zip(inputs[:count], inputs[count:], strict=True))
        if not training:
            skips = self.chosen() > 0
            return [ops.where(skips[t], x, b) for t, (b, x) in enumerate(pairs)]
        if self.sparsity or self.sharing:
            self.add_loss(self.penalty())
        weights = ops.cast(self.sample(), inputs[0].dtype)
        return [weights[t, 0] * b + weights[t, 1] * x for t, (b, x) in enumerate(pairs)]

    def penalty(self) -> Tensor:
        """What is added to the loss."""
        logits = ops.convert_to_tensor(self.logits)
        total = self.sparsity * -ops.sum(ops.log_softmax(logits)[:, 1])
        runs = self.probabilities()[:, 0]
        for s, t in itertools.combinations(range(len(self.tasks)), 2):
            total = total + self.sharing * ops.abs(runs[s] - runs[t])
        return total

    def compute_output_shape(self, input_shape: Shape) -> list:
        return [tuple(shape) for shape in input_shape[: len(self.tasks)]]

    def readings(self) -> dict[str, np.ndarray]:
        """Each task's probabilities of running and of skipping the block."""
        rows = ops.convert_to_numpy(self.probabilities())
        return dict(zip(self.tasks, rows, strict=True))

    def reading_labels(self) -> tuple[str, ...]:
        return ("run", "skip")

    def to_keras(self) -> keras.Model:
        """The selection as it would be made now, of plain Keras layers."""
        count = len(self.tasks)
        inputs = [
            keras.Input(self._shape, dtype=self.compute_dtype) for _ in range(2 * count)
        ]
        outputs = [
            keras.layers.Identity(dtype=self.compute_dtype)(inputs[t + count * skips])
            for t, skips in enumerate(ops.convert_to_numpy(self.chosen()).tolist())
        ]
        return keras.Model(inputs, outputs, name=self.name)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "tasks": list(self.tasks),
            "sparsity": self.sparsity,
            "sharing": self.sharing,
            "recipe": self.recipe,
        }
