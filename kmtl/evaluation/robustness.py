"""What a model says of inputs that were made to mislead it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from kmtl.evaluation._evaluate import evaluate
from kmtl.evaluation.ensemble import scores_line
from kmtl.training import sources, targets
from kmtl.training.adversaries import Adversary
from kmtl.training.attacking import changed
from kmtl.training.model import MultiTaskModel
from kmtl.training.raw_sets import prepared_data
from kmtl.typing import Data

if TYPE_CHECKING:
    import pandas


def attack(model: MultiTaskModel, data: Data, by: Adversary) -> Data:
    """Data whose inputs were changed so that a model errs, for `kmtl.evaluate`.

    Args:
        model: The model, which stays as it is.
        data: `(x, y)` or `(x, y, sample_weight)`, a `kmtl.data.Split`, or a finite data
            set. Rows without a label of a task are not attacked in it.
        by: The attack, such as `kmtl.training.FGSM(0.1)`, in the unit of the inputs.

    Returns:
        `(x, y)` or `(x, y, sample_weight)`, arrays.

    Raises:
        ValueError: for inputs that are no floats, or that the model encodes itself.

    Example:

    >>> from kmtl.training import FGSM
    >>> tasks = [kmtl.Classification("kind", classes=2)]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(2,), tasks=tasks, units=(4,), activation="tanh", seed=0
    ... )
    >>> x, y = np.eye(2, dtype="float32"), {"kind": np.array([0, 1])}
    >>> attacked = kmtl.evaluation.attack(model, (x, y), FGSM(0.1))
    >>> bool(np.allclose(np.abs(attacked[0] - x), 0.1))
    True
    >>> found = kmtl.evaluate(model, attacked)
    """
    if not isinstance(by, Adversary):
        raise TypeError(
            "`by` must be an object of kmtl.training, such as kmtl.training.FGSM(0.1). "
            f"Received: by={by!r}"
        )
    by.check(model)
    targets.check_adapted(model, "attack")
    data = prepared_data(model.input_specs, data)
    arrays = model.checked_arrays(data)
    parts: list[tuple] = []
    for x, y, weight in sources.batches_of(arrays or data):
        given = keras.tree.map_structure(ops.convert_to_tensor, x)
        found, labels = changed(model, by, (given, y, weight))
        batch = (found, labels) if weight is None else (found, labels, weight)
        parts.append(keras.tree.map_structure(ops.convert_to_numpy, batch))
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def robustness(
    model: MultiTaskModel,
    data: Data,
    attacks: Mapping[str, Adversary],
    **options: Any,
) -> pandas.DataFrame:
    """The scores of a model on clean data and under attacks.

    Args:
        model: The model, which stays as it is.
        data: As for `attack`.
        attacks: Dict name -> attack, or noise.
        **options: As for `kmtl.evaluate`.

    Returns:
        A DataFrame, one row per attack after `"clean"`, with every task's score as
        `<task> <metric>`.

    Example:

    >>> from kmtl.training import FGSM, InputNoise
    >>> tasks = [kmtl.Classification("kind", classes=2)]
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(4,), seed=0)
    >>> data = np.eye(2, dtype="float32"), {"kind": np.array([0, 1])}
    >>> attacks = {"FGSM 0.5": FGSM(0.5), "noise 0.5": InputNoise(0.5, seed=0)}
    >>> kmtl.evaluation.robustness(model, data, attacks).index.tolist()
    ['clean', 'FGSM 0.5', 'noise 0.5']
    """
    import pandas

    if not isinstance(attacks, Mapping) or not attacks or "clean" in attacks:
        raise ValueError(
            "`attacks` must be a dict name -> attack, of other names than 'clean', "
            f"such as {{'FGSM 0.1': kmtl.training.FGSM(0.1)}}. Received: {attacks!r}"
        )
    given = {name: attack(model, data, by) for name, by in attacks.items()}
    lines = {
        name: scores_line(evaluate(model, part, **options))
        for name, part in {"clean": data, **given}.items()
    }
    table = pandas.DataFrame.from_dict(lines, orient="index")
    table.index.name = "inputs"
    return table
