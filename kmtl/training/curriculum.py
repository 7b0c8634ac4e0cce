"""What is trained when: tasks that join and stop, blocks that thaw, moving weights."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.training import freezing, rate_factors, unfinished
from kmtl.training.balance import current_plan
from kmtl.training.callbacks import Scheduled
from kmtl.typing import Layer, Logs, TaskName

logger = logging.getLogger("kmtl")


class Curriculum(Scheduled):
    """Says for every epoch which parts are trained, and how much each task counts.

    What is not trained is frozen as by `model.freeze`: bit for bit, with its batch
    statistics, and its dropout off. A task that is not trained has weight 0, and what
    it has for itself (its head, its own blocks) is frozen. Epochs count from 0. When
    training ends, the weights of the tasks and what is frozen are as they were before
    it; where it was broken off (Ctrl-C, an error), the next training with a Curriculum
    begins with them. A step is traced anew only where parts are frozen or thawed;
    weights are variables.

    Goes with every weighting, and with `kmtl.training.fit_run`: a run that was killed
    goes on in the stage in which it was.

    Args:
        start: Dict part -> the first epoch in which it is trained. Parts are those of
            `model.freeze`: `"trunk"`, `"block_2"`, names of tasks. What is said of a
            block comes before what is said of the trunk.
        stop: Dict part -> the first epoch in which it is not trained any more.
        weights: Dict task -> dict epoch -> factor >= 0 of the task's weight,
            interpolated linearly between, constant outside; as in
            `kmtl.weighting.Schedule`, which is a weighting of its own.
        patience: A task stops when its first metric on the validation data has not
            become better for so many epochs, while the others go on; training ends with
            the last one. A task without any score, for lack of labels, cannot get
            better: it does not stop, and none waits for it. An integer >= 1 for all
            tasks, or a dict task -> integer for some. Defaults to none.

    Raises:
        ValueError: for epochs and factors out of range; in `fit`, for names of no part,
            and a model in which parts cannot be frozen on the way.

    Example:

    >>> from kmtl.training import Curriculum
    >>> tasks = [kmtl.Regression("easy"), kmtl.Regression("hard")]
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(4, 4), seed=0)
    >>> model.compile("adam")
    >>> x, y = np.ones((8, 2)), {"easy": np.ones(8), "hard": np.ones(8)}
    >>> plan = Curriculum(
    ...     start={"block_1": 2, "hard": 1},  # the heads first, then downwards
    ...     weights={"hard": {1: 0.1, 3: 1.0}},
    ... )
    >>> history = model.fit(x, y, epochs=4, callbacks=[plan], verbose=0)
    >>> model.frozen
    ()

    Reference: Howard and Ruder, "Universal Language Model Fine-tuning for Text
    Classification", ACL 2018 (gradual unfreezing); Bengio et al., "Curriculum
    Learning", ICML 2009.
    """

    def __init__(
        self,
        start: Mapping[str, int] | None = None,
        stop: Mapping[str, int] | None = None,
        weights: Mapping[TaskName, Mapping[float, float]] | None = None,
        patience: int | Mapping[TaskName, int] | None = None,
    ):
        super().__init__()
        self.start = _epochs("start", start, 0)
        self.stop = _epochs("stop", stop, 0)
        for name in self.start.keys() & self.stop.keys():
            if self.stop[name] <= self.start[name]:
                raise ValueError(
                    f"`stop` of '{name}' must come after its `start`. Received: "
                    f"start={self.start[name]}, stop={self.stop[name]}"
                )
        self.weights = dict(weights or {})
        self._schedule()  # refuses what is no such dict
        if patience is not None and not isinstance(patience, Mapping):
            patience = _checks.check_int("patience", patience, 1)
        else:
            patience = _epochs("patience", patience, 1)
        self.patience = patience
        # Kept by `RunCheckpoint`, which knows lists of arrays; in the tasks' order.
        self.base_weights: list[Any] = []
        self.best: list[Any] = []
        self.best_epoch: list[Any] = []
        self.stopped_epoch: list[Any] = []

    def _schedule(self) -> Any:
        from kmtl.weighting.schedule import Schedule

        return Schedule(self.weights)

    # -- the plan ----------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        model = self.model
        unfinished.undo_unfinished(model)
        names = model.task_names
        self._factors = self._schedule()
        _checks.check_task_keys("weights", self.weights, names, partial=True)
        self._factors.setup(names)
        patience = self.patience
        if not isinstance(patience, Mapping):
            patience = dict.fromkeys(names, patience)
        _checks.check_task_keys("patience", patience, names, partial=True)
        self._patience = patience
        parts = freezing.parts_of(model)
        self._layers: dict[str, list[Layer]] = {}
        self._from: dict[str, int] = {}
        self._until: dict[str, float] = {}
        for argument, given in (("start", self.start), ("stop", self.stop)):
            for name in given:
                key = rate_factors.part_name(name, names)
                if key not in parts:
                    what = f"part of the model in `{argument}`:"
                    raise ValueError(_checks.unknown_name(what, name, parts))
                self._layers[key] = parts[key]
                where = self._from if argument == "start" else self._until
                where[key] = given[name]
        for name in patience:
            self._layers[name] = parts[name]
        if "trunk" in self._layers:
            said = {
                id(layer)
                for name, layers in self._layers.items()
                if rate_factors.is_of_trunk(name) and name != "trunk"
                for layer in layers
            }
            trunk = self._layers["trunk"]
            self._layers["trunk"] = [la for la in trunk if id(la) not in said]
        self._check()
        self.base_weights = [np.float32(w) for w in model.task_weights.values()]
        self.best = [np.float64("nan") for _ in names]
        self.best_epoch = [np.int64(-1) for _ in names]
        self.stopped_epoch = [np.int64(-1) for _ in names]
        self._before = [(layer, layer.trainable) for layer in self._planned()]
        unfinished.BEGUN[model] = unfinished.Begun(self._before, model.task_weights)
        # The optimizer is to know all that will be trained: a checkpoint has the same
        # variables in every stage.
        freezing.set_trainable(model, self._planned(), True)
        self._note()
        freezing.cover(model)

    def _note(self) -> None:
        """What this training has set, to tell it from what the user sets later."""
        begun = unfinished.BEGUN[self.model]
        begun.set_trainable = {id(la): la.trainable for la, _ in begun.trainable}
        begun.set_weights = self.model.task_weights

    def _planned(self) -> list[Layer]:
        return [layer for layers in self._layers.values() for layer in layers]

    def _check(self) -> None:
        if not self._layers:
            return
        weighting = self.model.weighting
        if freezing.averages(self.model.optimizer):
            raise ValueError(
                "A Curriculum that freezes or thaws parts needs an optimizer with "
                "use_ema=False: an optimizer averages the same weights in all steps. "
                "Average with `kmtl.training.WeightAverage` instead."
            )
        if getattr(weighting, "parameter_state", False):
            raise ValueError(
                f"Weighting '{weighting.registered_name}' keeps a gradient of every "
                "shared parameter, which must be the same ones in all steps: leave "
                "`start`, `stop` and `patience` of the Curriculum out, or choose "
                "another weighting."
            )

    def _is_out(self, name: str, epoch: int) -> bool:
        """Whether a part is not trained in an epoch."""
        if epoch < self._from.get(name, 0) or epoch >= self._until.get(name, math.inf):
            return True
        names = self.model.task_names
        return name in names and self.stopped_epoch[names.index(name)] >= 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        model = self.model
        out = {name for name in self._layers if self._is_out(name, epoch)}
        frozen = {id(layer) for name in out for layer in self._layers[name]}
        groups: dict[bool, list[Layer]] = {True: [], False: []}
        for layer in self._planned():
            groups[id(layer) not in frozen].append(layer)
        for value, layers in groups.items():
            freezing.set_trainable(model, layers, value)
        if model.train_function is None:
            current_plan(model)  # what is shared now, for weightings of gradients
            model.make_train_function(force=True)
        factors = ops.convert_to_numpy(self._factors.weights_at(float(epoch)))
        unfinished.put_weights(
            model,
            {
                name: 0.0 if name in out else float(base) * float(factor)
                for name, base, factor in zip(
                    model.task_names, self.base_weights, factors, strict=True
                )
            },
        )
        self._note()

    # -- tasks that have learned all they can ------------------------------------------

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        names = self.model.task_names
        for name, patience in self._patience.items():
            if patience is None or self._is_out(name, epoch):
                continue
            score = self.model.task(name).score
            log = f"val_{name}_{score.name}"
            if log not in (logs or {}):
                raise ValueError(
                    f"`patience` of task '{name}' needs '{log}' in the logs: give "
                    "`fit` validation data, evaluated after every epoch "
                    f"(validation_freq=1). Received: {sorted(logs or {})}"
                )
            at, value = names.index(name), float((logs or {})[log])
            best = float(self.best[at])
            higher = score.direction == "max"
            better = math.isnan(best) or (value > best if higher else value < best)
            if better and not math.isnan(value):
                self.best[at] = np.float64(value)
                self.best_epoch[at] = np.int64(epoch)
                continue
            if self.best_epoch[at] < 0:
                if epoch - self._from.get(name, 0) + 1 == patience:
                    warnings.warn(
                        f"Curriculum does not stop task '{name}': it has no score in "
                        "validation, for lack of labels",
                        stacklevel=2,
                    )
            elif epoch - self.best_epoch[at] >= patience:
                self.stopped_epoch[at] = np.int64(epoch)
                logger.info(
                    "Task '%s' stops after epoch %d: no better %s for %d epochs.",
                    name,
                    epoch + 1,
                    score.name,
                    patience,
                )
        limited = {n for n, patience in self._patience.items() if patience is not None}
        left = [name for name in names if not self._lacks_scores(name, epoch)]
        if (
            limited == set(names)
            and left
            and all(
                self._is_out(name, epoch + 1) and epoch + 1 >= self._from.get(name, 0)
                for name in left
            )
        ):
            self.model.stop_training = True

    def _lacks_scores(self, name: str, epoch: int) -> bool:
        """Whether a task has had no score for as long as it may not get better."""
        if self.best_epoch[self.model.task_names.index(name)] >= 0:
            return False
        patience = self._patience.get(name)
        trained = epoch - self._from.get(name, 0) + 1
        return patience is not None and trained >= patience

    def settle(self) -> None:
        unfinished.BEGUN.pop(self.model, None)
        unfinished.set_back(self.model, self._before)
        weights = dict(zip(self.model.task_names, self.base_weights, strict=True))
        unfinished.put_weights(self.model, {n: float(w) for n, w in weights.items()})


def _epochs(
    argument: str, given: Mapping[str, int] | None, lowest: int
) -> dict[str, int]:
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(
            f"`{argument}` must be a dict from the name of a part (or task) to an "
            f"integer. Received: {argument}={given!r}"
        )
    return {
        name: _checks.check_int(f"{argument}['{name}']", value, lowest)
        for name, value in (given or {}).items()
    }
