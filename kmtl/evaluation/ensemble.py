"""Several models of the same tasks as one, which averages their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras

from kmtl import _checks
from kmtl.export.serving import input_names
from kmtl.inputs.source import InputSource
from kmtl.layers.average import MEMBER, SPACES, AverageOutputs
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_same_meaning
from kmtl.tasks.output import TaskOutput
from kmtl.training.kmtl_model import check_models
from kmtl.training.model import MultiTaskModel
from kmtl.typing import Data

if TYPE_CHECKING:
    import pandas


#: One number per model, or task -> such numbers.
Shares = Sequence[float] | Mapping[str, Sequence[float]]


def average(
    models: Sequence[MultiTaskModel],
    shares: Shares | None = None,
    *,
    name: str = "ensemble",
) -> MultiTaskModel:
    """One model that averages the answers of several: probabilities, and values.

    Classes are averaged as probabilities, values in the labels' unit, into which each
    member's transform leads. The mean's losses are as the first model's: in the scale
    that it has learned in, with its weights of classes; what regularisers add is the
    mean of the members' penalties. The result is a model as any other: it evaluates,
    saves, loads and exports as one SavedModel with an output per task. It shares the
    members' layers; training it trains them.

    Args:
        models: Models of kmtl with the same tasks and inputs. (Their weights, and their
            blocks, may differ.)
        shares: Numbers >= 0, one per model; scaled to sum to 1. A dict task -> such
            numbers where they differ by task. None: equal shares.
        name: Name of the model.

    Returns:
        A `kmtl.MultiTaskModel`, not compiled.

    Raises:
        ValueError: for models of other inputs or tasks, and of tasks whose kind,
            classes or their order, or unit differ.

    Example:

    >>> from kmtl.evaluation import average
    >>> tasks = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
    >>> models = [
    ...     kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8,), seed=seed)
    ...     for seed in (0, 1)
    ... ]
    >>> both, x = average(models), np.ones((2, 4), "float32")
    >>> sizes = [model.predict(x, verbose=0)["size"] for model in models]
    >>> bool(np.allclose(both.predict(x, verbose=0)["size"], np.mean(sizes, axis=0)))
    True
    """
    models = list(models)
    _check_alike(models)
    first = models[0]
    shares_of = _by_task(shares, first, len(models))
    inputs, tensors = inputs_like(first)
    answers = []
    for number, model in enumerate(models, 1):
        # Its layers, not copies of them; and no output layer that others would find,
        # unless that layer does something.
        ends = {
            task: layer.input
            if layer.transform is None and layer.members == 1
            else model.output[task]
            for task, layer in model.task_outputs.items()
        }
        member = keras.Model(model.input, ends, name=f"{MEMBER}{number}")
        answers.append(member(tensors))
    outputs = {}
    for task in first.tasks:
        space = task.output_activation
        averaged = AverageOutputs(
            shares_of[task.name],
            space if space in SPACES else "linear",
            name=f"average_{task.name}",
        )([answer[task.name] for answer in answers])
        end = TaskOutput(task, in_unit=task.transform is not None)
        outputs[task.name] = end(averaged)
        end.set_weights(first.task_outputs[task.name].get_weights())
    return MultiTaskModel(inputs, outputs, name=name)


def _by_task(
    shares: Shares | None, first: MultiTaskModel, models: int
) -> Mapping[str, Sequence[float]]:
    if not isinstance(shares, Mapping):
        common = [1.0] * models if shares is None else list(shares)
        shares = dict.fromkeys(first.task_names, common)
    _checks.check_task_keys("shares", shares, first.task_names)
    for name, own in shares.items():
        if len(own) != models:
            raise ValueError(
                f"`shares` must have a number for each of the {models} models. "
                f"Received, for task '{name}': {list(own)}"
            )
    return shares


def set_shares(model: MultiTaskModel, shares: Sequence[float]) -> None:
    """Give the members of a model of `average` other shares."""
    total = sum(shares)
    for layer in model.layers:
        if isinstance(layer, AverageOutputs):
            layer.shares.assign([share / total for share in shares])


def greedy_shares(
    score: Callable[[Sequence[int]], float],
    candidates: int,
    draws: int,
    first: int = 0,
) -> list[int]:
    """How often each candidate is in the mean that scores best.

    Begins with the `first` best ones, and adds, as often as asked, the one with which
    the mean is best, which may be one that is in it already. The best of these means is
    taken.

    Args:
        score: Function of the numbers of times that each candidate counts; higher is
            better, NaN the worst.
        candidates: How many there are, >= 1.
        draws: Members to add at most, >= 1.
        first: How many the mean begins with. Where few rows decide, some that are good
            by themselves keep one that is the best by chance from ruling alone.
            Defaults to 0.

    Returns:
        Numbers of times.

    Reference: Caruana et al., Ensemble selection from libraries of models, ICML 2004.
    """

    def value(counts: Sequence[int]) -> float:
        found = score(counts)
        return found if found == found else -float("inf")

    counts = [0] * candidates
    found: list[tuple[float, list[int]]] = []
    if first:
        alone = [
            value([int(i == at) for at in range(candidates)]) for i in range(candidates)
        ]
        for place in sorted(range(candidates), key=lambda i: -alone[i])[:first]:
            counts[place] = 1
        found.append((value(counts), counts))
    for _ in range(draws):
        tried = []
        for place in range(candidates):
            more = [count + (place == at) for at, count in enumerate(counts)]
            tried.append((value(more), more))
        best = max(tried, key=lambda pair: pair[0])  # the first of equal ones
        counts = best[1]
        found.append(best)
    return max(found, key=lambda pair: pair[0])[1]


def compare(
    models: Mapping[str, MultiTaskModel],
    data: Data,
    baselines: Any = None,
    **options: Any,
) -> pandas.DataFrame:
    """The scores of several models side by side.

    Args:
        models: Dict name -> model, such as `{"best": ..., "mean of 3": ...}`.
        data, baselines, **options: As for `kmtl.evaluate`.

    Returns:
        A DataFrame, one row per model, with every task's score as `<task> <metric>`
        and, with baselines, its improvement as `<task> Δ %`, and `Δm %`.
    """
    import pandas

    from kmtl.evaluation._evaluate import evaluate

    lines = {}
    for name, model in models.items():
        lines[name] = scores_line(evaluate(model, data, baselines, **options))
    table = pandas.DataFrame.from_dict(lines, orient="index")
    table.index.name = "model"
    return table


def scores_line(found: Any) -> dict[str, float | None]:
    """Scores of a `kmtl.evaluation.Evaluation` under the names of `compare`."""
    line: dict[str, float | None] = {}
    for row in found.rows:
        if not row.auxiliary:
            line[f"{row.task} {row.metric}"] = row.score
    line |= {f"{task} Δ %": delta for task, delta in found.deltas.items()}
    if found.delta_m is not None:
        line["Δm %"] = found.delta_m
    return line


def check_means(tasks: Iterable[Task], models: int) -> None:
    """Refuse tasks whose outputs have no mean, of several models.

    Raises:
        ValueError: naming the task.
    """
    for task in tasks:
        if not task.has_mean and models > 1:
            raise ValueError(
                f"Task '{task.name}' of kind {task.registered_name} must have one "
                "model: several have no mean that its loss takes. Join them instead. "
                f"Received: {models} models"
            )


def _check_alike(models: Sequence[MultiTaskModel]) -> None:
    if not models:
        raise ValueError("`models` must have at least one model. Received: []")
    check_models(models)
    first = models[0]
    check_means(first.tasks, len(models))
    for model in models[1:]:
        _checks.check_task_keys(
            "models", dict.fromkeys(model.task_names), first.task_names
        )
        for task in first.tasks:
            other, mine = model.output[task.name], first.output[task.name]
            if other.shape != mine.shape:
                raise ValueError(
                    "`models` must have outputs of one shape. Received, for task "
                    f"'{task.name}': {mine.shape} and {other.shape}"
                )
            check_same_meaning("`models`", task, model.task(task.name))
        shapes, others = _shapes(first), _shapes(model)
        if others != shapes or model.input_specs != first.input_specs:
            raise ValueError(
                "`models` must take the same inputs, prepared alike. "
                f"Received: {shapes} and {others}"
            )


def _shapes(model: MultiTaskModel) -> list[tuple]:
    """Names, without those that Keras counts, shapes and types of the inputs."""
    tensors = zip(input_names(model), keras.tree.flatten(model.input), strict=True)
    return [(name, tensor.shape, tensor.dtype) for name, tensor in tensors]


def inputs_like(model: MultiTaskModel) -> tuple[Any, Any]:
    """New inputs as a model has them, and what its layers are to be called on."""
    specs = model.input_specs

    def fresh(tensor: Any) -> Any:
        return keras.Input(
            batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name
        )

    def known(tensor: Any) -> Any:
        spec = specs.get(tensor.name)
        return tensor if spec is None else InputSource(spec, tensor.name)(tensor)

    inputs = keras.tree.map_structure(fresh, model.input)
    return inputs, keras.tree.map_structure(known, inputs)
