"""The nets that are compared, at about equal numbers of parameters."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import kmtl

#: Width of both blocks of the shared bottom, which sets the number of parameters.
WIDTH = 64
#: Hidden units of every task's head.
TOWER = 16
#: Four experts in the reach of both tasks; of the rest the defaults.
SCHEMES: dict[str, kmtl.sharing.Sharing] = {
    "shared_bottom": kmtl.sharing.HardSharing(),
    "mmoe": kmtl.sharing.MMoE(experts=4),
    "cgc": kmtl.sharing.CGC(shared_experts=2, task_experts=1),
    "ple": kmtl.sharing.PLE(shared_experts=2, task_experts=1),
    "dselect_k": kmtl.sharing.DSelectK(experts=4, selected=2),
    "sparse_moe": kmtl.sharing.SparseMoE(experts=4, selected=2),
}


def build(
    scheme: str, tasks: tuple[str, ...], features: int, width: int, seed: int
) -> kmtl.MultiTaskModel:
    """Two blocks of one width and a hidden layer per head."""
    return kmtl.build_mlp(
        input_shape=(features,),
        tasks=[
            kmtl.BinaryClassification(name, hidden=(TOWER,), metrics=())
            for name in tasks
        ],
        units=(width, width),
        sharing=SCHEMES[scheme],
        dropout=None,
        seed=seed,
    )


def parameters(model: kmtl.MultiTaskModel) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def fitting_width(scheme: str, tasks: tuple[str, ...], features: int) -> int:
    """The width with which a scheme has about as many parameters as the bottom."""
    if scheme == "shared_bottom":
        return WIDTH
    wanted = parameters(build("shared_bottom", tasks, features, WIDTH, 0))

    def excess(width: int) -> int:
        return parameters(build(scheme, tasks, features, width, 0)) - wanted

    low, high = 1, WIDTH
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if excess(middle) <= 0 else (low, middle)
    return min((low, high), key=lambda width: abs(excess(width)))


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, exact; ties count one half."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(count) - (count - 1) / 2
    positive = labels == 1
    positives, negatives = int(positive.sum()), int((~positive).sum())
    above = ranks[place][positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


class Program:
    """One compiled model of one scheme, trained again and again from new weights.

    On JAX most of a short run is compiling; a run here differs from one of a fresh
    model in nothing but that.
    """

    def __init__(
        self, scheme: str, tasks: tuple[str, ...], features: int, settings: dict
    ):
        self.scheme, self.tasks, self.settings = scheme, tasks, settings
        self.features = features
        self.width = fitting_width(scheme, tasks, features)
        self.model = build(scheme, tasks, features, self.width, 0)
        self.model.compile(keras.optimizers.Adam(1e-3))
        optimizer = self.model.optimizer
        optimizer.build(self.model.trainable_variables)
        self.fresh = [np.array(variable) for variable in optimizer.variables]

    @property
    def parameters(self) -> int:
        return parameters(self.model)

    def reset(self, seed: int, rate: float) -> None:
        """The state of a model just made with this seed."""
        source = build(self.scheme, self.tasks, self.features, self.width, seed)
        for layer in source.layers:
            target = self.model.get_layer(layer.name)
            for new, old in zip(layer.variables, target.variables, strict=True):
                old.assign(new)
        optimizer = self.model.optimizer
        for variable, value in zip(optimizer.variables, self.fresh, strict=True):
            variable.assign(value)
        optimizer.learning_rate = rate
        keras.utils.set_random_seed(seed)  # the order of the examples

    def train(self, train: Any, validation: Any, seed: int, rate: float) -> dict:
        """Train; keep the epoch with the best mean AUC on validation data.

        Returns:
            `{"epoch": best epoch from 1, "validation": {task: AUC}, "gates": ...}`.
        """
        self.reset(seed, rate)
        best: dict[str, Any] = {}
        weights: list[np.ndarray] = []
        for epoch in range(1, self.settings["epochs"] + 1):
            self.model.fit(
                *train.select(self.tasks),
                batch_size=self.settings["batch_size"],
                verbose=0,
            )
            found = self.auc(validation)
            if not best or sum(found.values()) > sum(best["validation"].values()):
                best = {"epoch": epoch, "validation": found}
                weights = self.model.get_weights()
        self.model.set_weights(weights)
        return {**best, "gates": self.gates()}

    def auc(self, part: Any) -> dict[str, float]:
        x, y = part.select(self.tasks)
        logits = self.model.predict(x, batch_size=4096, verbose=0)
        return {name: auc(y[name], logits[name][:, 0]) for name in self.tasks}

    def gates(self) -> dict[str, dict[str, list[float]]]:
        """Gate -> expert -> mean weight over the training so far."""
        found = {}
        for layer in self.model.layers:
            if isinstance(layer, kmtl.layers.Recorded):
                for values in layer.readings().values():
                    named = zip(layer.reading_labels(), values.tolist(), strict=True)
                    found[layer.name] = {k: round(v, 4) for k, v in named}
        return found
