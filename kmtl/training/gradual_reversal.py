"""Adversarial tasks that come into their strength over the epochs."""

from __future__ import annotations

import math

from kmtl import _checks
from kmtl._private.keras import sublayers
from kmtl.layers.gradient_reversal import GradientReversal
from kmtl.training.callbacks import Scheduled
from kmtl.typing import Logs


class GradualReversal(Scheduled):
    """Raises the strength of all gradient reversals from 0 over the epochs.

    Formula: strength (2 / (1 + exp(-gamma p)) - 1) with p = epoch / epochs, so that the
    trunk first learns the other tasks. A training that goes on later (`initial_epoch`)
    has the same strengths as one without a pause. They stay as in the last epoch, also
    where the weights of the best one are put back.

    Args:
        gamma: How soon the full strength is near, > 0. Defaults to 10, the paper's.
        epochs: Number of all epochs. None takes `fit`'s.

    Example:

    >>> tasks = [
    ...     kmtl.Classification("digit", classes=3),
    ...     kmtl.BinaryClassification("domain", adversarial=1.0),
    ... ]
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8,), seed=0)
    >>> model.compile("adam")
    >>> y = {"digit": np.array([0, 1, 2, -1]), "domain": np.array([0, 0, 1, 1])}
    >>> gradual = kmtl.training.GradualReversal()
    >>> x = np.eye(4, dtype="float32")
    >>> history = model.fit(x, y, epochs=2, callbacks=[gradual], verbose=0)
    >>> round(float(model.get_layer("domain_head_reversal").strength.numpy()), 3)
    0.987

    Reference: Ganin et al., JMLR 17, 2016, arXiv:1505.07818, section 5.2.2.
    """

    def __init__(self, gamma: float = 10.0, epochs: int | None = None):
        super().__init__()
        self.gamma = _checks.check_range("gamma", gamma, 0, low_open=True)
        self.epochs = None if epochs is None else _checks.check_int("epochs", epochs, 1)
        self.share: float | None = None  # kept by `RunCheckpoint`

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.share = None
        self._layers = [
            layer
            for layer in sublayers(self.model)
            if isinstance(layer, GradientReversal)
        ]
        if not self._layers:
            raise ValueError(
                "GradualReversal needs a task with `adversarial` above 0. "
                f"Received: a model of {', '.join(self.model.task_names)}"
            )

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        done = min(epoch / (self.epochs or self.params["epochs"]), 1.0)
        self.share = 2.0 / (1.0 + math.exp(-self.gamma * done)) - 1.0
        self.settle()

    def settle(self) -> None:
        if self.share is None:
            return  # no epoch has begun
        for layer in self._layers:
            layer.strength.assign(self.share * layer.get_config()["strength"])
