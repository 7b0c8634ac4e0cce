"""What people read of a search's trials: the values that count, and the best ones."""

from __future__ import annotations

from typing import Any

from kmtl._dimensions import Choice
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.objective import trial_logs
from kmtl.tuning.parts import PerBlock, WeightDimension
from kmtl.tuning.space import Space
from kmtl.typing import AnyHyperModel, HyperParameters, Tuner


def summary(tuner: Tuner, num_trials: int) -> str:
    """The best trials as KerasTuner prints them, with what counts in each."""
    objective = tuner.oracle.objective
    scores = objective.scores(list(tuner.oracle.trials.values()))
    parts = [
        f"Results summary\nResults in {tuner.project_dir}\n"
        f"Showing {num_trials} best trials\n{objective}"
    ]
    for trial in tuner.oracle.get_best_trials(num_trials):
        logs, score = trial_logs(trial), scores[trial.trial_id]
        values = parameters_of(tuner.hypermodel, trial.hyperparameters)
        lines = [f"Trial {trial.trial_id} summary", "Hyperparameters:"]
        lines += [f"{name}: {value}" for name, value in values.items()]
        broken = objective.has_value(logs) and not objective.feasible(logs)
        lines.append(f"Score: {score}{', breaks a constraint' if broken else ''}")
        parts.append("\n".join(lines))
    found = tuner.conclusion()
    if found is not None:
        parts.append(found.text)
    return "\n\n".join(parts) + "\n"


def parameters_of(
    hypermodel: AnyHyperModel, hyperparameters: HyperParameters
) -> dict[str, Any]:
    """The hyperparameters that count in a trial, one name per number."""
    space = getattr(hypermodel, "space", None)
    if not (isinstance(hypermodel, HyperModel) and isinstance(space, Space)):
        values = hyperparameters.values.items()
        return {name: value for name, value in values if not name.startswith("tuner/")}
    hp = hyperparameters.copy()
    found: dict[str, Any] = {}
    for name, value in space.values(hp).items():
        dimension = space.dimensions[name]
        if isinstance(dimension, WeightDimension):
            found |= {f"task_weight_{task}": part for task, part in value.items()}
        elif isinstance(value, dict):
            found |= {f"{name}_{task}": part for task, part in value.items()}
        elif isinstance(dimension, PerBlock):
            found |= {f"{name}_block{i}": rate for i, rate in enumerate(value, 1)}
        elif isinstance(dimension, Choice):
            found[name] = hp.values[name]
        else:
            found[name] = value
    return found
