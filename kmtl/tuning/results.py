"""What a search has found, as tables and fronts."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from keras_tuner.engine.trial import TrialStatus

from kmtl.evaluation.balanced import WORST
from kmtl.evaluation.delta import LOG_NAME, LOG_NAMES
from kmtl.evaluation.pareto import ParetoFront
from kmtl.tuning import objective as objectives
from kmtl.tuning.averaging import ensemble_of
from kmtl.tuning.conclusion import Conclusion, conclude
from kmtl.tuning.confirm import Confirmation, confirm
from kmtl.tuning.display import failure_reason
from kmtl.tuning.points import parameters_of
from kmtl.tuning.search_data import SearchData
from kmtl.typing import (
    AnyHyperModel,
    Callbacks,
    Data,
    Inputs,
    Labels,
    Oracle,
    PathLike,
    Trial,
)

if TYPE_CHECKING:
    import pandas

    from kmtl.training.model import MultiTaskModel

#: Columns of a table of results before the hyperparameters.
LEADING = ("status", "rank", "score", "feasible", "on_front", "epochs", "executions")


class SearchResults:
    """The part of `SearchTuner` that reads a search, while it runs or afterwards."""

    oracle: Oracle
    hypermodel: AnyHyperModel
    tasks: tuple
    #: Trial -> its share in the model that `ensemble` gave last.
    ensemble_shares: Mapping[str, float] = MappingProxyType({})

    def results(self, *, all_columns: bool = False) -> pandas.DataFrame:
        """All trials, one row each, in the order in which they began.

        Args:
            all_columns: Whether to give every log. Defaults to False: what the search
                compares and each task's score.

        Returns:
            A DataFrame with the trial's name as index and the columns

            - `status`; `rank`, 1 for the best completed trial; `score`, the number that
              the search compares (of a trial that breaks a constraint the first goal's
              value, though it ranks behind all that keep to it; with `"mean_rank"` the
              mean rank, where less is better; with `"pareto"` the mean of the values,
              by which nothing is decided); `epochs` that were trained;
            - every hyperparameter that counts in the trial, the task weights as
              `task_weight_<task>`;
            - the objectives, the logs in constraints and each task's score, at the
              epoch that counts, mean over the executions, and, with two executions or
              more, its standard deviation as `<log>_std`;
            - where it says something: `feasible`, whether the constraints are met;
              `on_front`, in a search with several goals, whether no other trial is
              better in one goal and as good in the others; `executions`, with two or
              more; `reason`, why the trial failed.

            With `all_columns` all of these, and every log.

            `attrs` has `hyperparameters`, `objectives`, `directions`, `constraints`
            and `scores` (log of each task's score), which `kmtl.plotting` reads.
        """
        import pandas

        objective = self.oracle.objective
        begun = self._beginnings()
        front = set(self.pareto_front().members)
        rows: list[dict[str, Any]] = []
        parameters: dict[str, None] = {}
        logs: dict[str, None] = {}
        trials = list(self.oracle.trials.values())
        shown = objective.scores(trials)
        for trial in trials:
            trained = self._trainings(trial)
            chosen = parameters_of(self.hypermodel, trial.hyperparameters)
            found = self._logs(trial)
            parameters |= dict.fromkeys(chosen)
            logs |= dict.fromkeys(found)
            failed = trial.status in (TrialStatus.FAILED, TrialStatus.INVALID)
            known = objective.has_value(found)
            rows.append(
                {
                    **begun[trial.trial_id],
                    "score": shown[trial.trial_id],
                    "feasible": objective.feasible(found) if known else None,
                    "on_front": trial.trial_id in front,
                    "epochs": sum(map(len, trained)),
                    "executions": len(trained),
                    **chosen,
                    **found,
                    "reason": failure_reason(trial) if failed else None,
                }
            )
        scores = {task.name: objectives.score_log(task) for task in self.tasks}
        leading = list(LEADING)
        reason = ["reason"]
        if not all_columns:
            wanted = {*objective.names, *scores.values()}
            if objective.needs(LOG_NAMES):
                wanted |= {LOG_NAME, WORST}
            wanted |= {f"{name}_std" for name in wanted}
            logs = {name: None for name in logs if name in wanted}
            needless = {
                "feasible": not objective.constraints,
                "on_front": len(objective.goals) < 2,
                "executions": all(row["executions"] <= 1 for row in rows),
            }
            leading = [name for name in LEADING if not needless.get(name)]
            reason = reason if any(row["reason"] for row in rows) else []
        columns = [*leading, *parameters, *logs, *reason]
        table = pandas.DataFrame(rows, columns=["trial", *columns]).set_index("trial")
        table["rank"] = table["rank"].astype("Int64")
        if "feasible" in table:
            table["feasible"] = table["feasible"].astype("boolean")
        table.attrs = {
            "hyperparameters": list(parameters),
            "objectives": [goal.name for goal in objective.goals],
            "constraints": [str(part) for part in objective.constraints],
            "directions": self._directions(),
            "scores": scores,
        }
        return table

    def curve_table(self) -> pandas.DataFrame:
        """The logs of every epoch of every trial: one row per epoch.

        Returns:
            A DataFrame with the columns `trial`, `status`, `rank` (1 is the best),
            `execution` (from 0), `epoch` (from 1), and the logs. `attrs` has
            `objectives`.
        """
        import pandas

        rows = [
            {**beginning, **row}
            for trial_id, beginning in self._beginnings().items()
            for row in self.curves(trial_id)
        ]
        leading = ["trial", "status", "rank", "execution", "epoch"]
        names = dict.fromkeys(leading) | {name: None for row in rows for name in row}
        table = pandas.DataFrame(rows, columns=list(names))
        table["rank"] = table["rank"].astype("Int64")
        goals = self.oracle.objective.goals
        table.attrs = {"objectives": [goal.name for goal in goals]}
        return table

    def curves(self, trial_id: str) -> list[dict[str, float]]:
        """A trial's logs, epoch by epoch.

        Args:
            trial_id: The trial.

        Returns:
            A dict per epoch: `"execution"`, which training of the trial it belongs to,
            from 0; `"epoch"`, from 1; and the logs.
        """
        return [
            {"execution": execution, "epoch": epoch, **logs}
            for execution, curve in self.oracle.curves(trial_id).items()
            for epoch, logs in enumerate(curve, 1)
        ]

    def to_tensorboard(self, folder: PathLike) -> Path:
        """Write all trials for TensorBoard: curves, and a row each in its HParams tab.

        Of any tuner, on any backend, also of trials that trained as a population; what
        an earlier call wrote there is replaced. `tensorboard --logdir FOLDER` shows it.

        Args:
            folder: Where to; made if it is not there.

        Returns:
            The folder. Each trial has one of its own in it, with its logs per epoch,
            means over its executions.

        Raises:
            ValueError: without TensorFlow, which writes the files.
        """
        from kmtl.plotting._boards import write_boards

        table = self.results(all_columns=True)
        return write_boards(table, self.curve_table(), folder)

    # -- winners ----------------------------------------------------------------------

    def confirm(
        self,
        x: Inputs | None = None,
        y: Labels | None = None,
        *,
        validation_data: Data | None = None,
        num_trials: int = 3,
        seeds: int = 3,
        epochs: int | None = None,
        callbacks: Callbacks = None,
        **fit_options: Any,
    ) -> Confirmation:
        """Train the best trials again on seeds that the search has not seen.

        The best of many noisy scores is too good; the winner is the trial whose mean
        over fresh seeds is best. The study keeps what was trained, for a call with the
        same arguments (not with generators, endless data or callbacks of a kind that
        cannot be compared).

        From then on `get_best_models`, `get_best_hyperparameters` and `best_arguments`
        follow the order found here, until a further search changes which trials are
        the best `num_trials`. Columns `rank` and `score` of `results()` stay those of
        the search.

        Args:
            x, y, validation_data, callbacks, **fit_options: As for `search`; other
                validation data than the search's make the scores free of its choice.
            num_trials: Integer >= 1, number of the best trials. Defaults to 3. A winner
                beyond the tuner's `keep_checkpoints` has no model to load: it is named
                in a warning.
            seeds: Integer >= 1, trainings of each. Defaults to 3.
            epochs: Integer >= 1. None: as many as the longest of these trials had.

        Returns:
            A `Confirmation`: `winner`, `hyperparameters`, `summary`, `runs`.

        Raises:
            RuntimeError: if no trial has completed.
        """
        data = SearchData.given(x, y, validation_data, callbacks, fit_options)
        data.check()
        return confirm(self, data.ready(self.hypermodel), num_trials, seeds, epochs)

    def conclusion(self) -> Conclusion | None:
        """Whether the best trial is better than the first.

        The first had the defaults, unless values were enqueued or came from an earlier
        search.

        Returns:
            A `kmtl.tuning.Conclusion`: `print(tuner.conclusion().text)`. None for
            several goals side by side, and where the first trial has no score.
        """
        return conclude(self)

    def results_summary(self, num_trials: int = 10) -> None:
        """Print the best trials, and whether the best is better than the first."""
        objective = self.oracle.objective
        scores = objective.scores(list(self.oracle.trials.values()))
        parts = [
            f"Results summary\nResults in {self.project_dir}\n"  # type: ignore[attr-defined]
            f"Showing {num_trials} best trials\n{objective}"
        ]
        for trial in self.oracle.get_best_trials(num_trials):
            logs, score = objectives.trial_logs(trial), scores[trial.trial_id]
            values = parameters_of(self.hypermodel, trial.hyperparameters)
            lines = [f"Trial {trial.trial_id} summary", "Hyperparameters:"]
            lines += [f"{name}: {value}" for name, value in values.items()]
            broken = objective.has_value(logs) and not objective.feasible(logs)
            lines.append(f"Score: {score}{', breaks a constraint' if broken else ''}")
            parts.append("\n".join(lines))
        found = self.conclusion()
        if found is not None:
            parts.append(found.text)
        sys.stdout.write("\n\n".join(parts) + "\n")

    def ensemble(
        self, k: int = 3, *, validation_data: Data | None = None, **options: Any
    ) -> MultiTaskModel:
        """The best trials' models averaged, as one model.

        Members are chosen among the trials whose checkpoints are kept, one after
        another, each time the one with which the mean is best by the objective on the
        validation data; one may be chosen several times. If no mean is better than the
        best trial alone, it is that one.

        Args:
            k: Integer >= 1, members at most. Defaults to 3.
            validation_data: As for `search`. None: that of the last `search` of this
                process; after one with `folds` there is none.
            **options: Further arguments of `evaluate`, such as `batch_size`.

        Returns:
            A `kmtl.MultiTaskModel` as of `kmtl.evaluation.average`: it evaluates, saves
            and exports as any other. `tuner.ensemble_shares` is a dict trial -> share.

        Raises:
            RuntimeError: if no trial has completed.
            ValueError: without validation data, and for several goals side by side.
            FileNotFoundError: if no checkpoint is there.

        Reference: Caruana et al., Ensemble selection from libraries of models, ICML
        2004.
        """
        return ensemble_of(self, k, validation_data, options)

    # -- fronts -----------------------------------------------------------------------

    def pareto_front(self, names: Sequence[str] | None = None) -> ParetoFront:
        """The completed trials that keep to the constraints, and their front.

        Args:
            names: Logs to compare by, with a known direction. None: the goals of a
                search with several, else the score of every task that is not auxiliary.

        Returns:
            A `kmtl.evaluation.ParetoFront` whose labels are the trials' names:
            `front.members`, `front.hypervolume(...)`, `front.prefer(...)`.
        """
        objective = self.oracle.objective
        known = self._directions()
        if names is None:
            if len(objective.goals) > 1:
                names = [goal.name for goal in objective.goals]
            else:
                names = objectives.score_logs(self.tasks)
        goals = [objectives.parse_goal(name, known, names) for name in names]
        values, labels = [], []
        for trial in self.oracle.trials.values():
            if trial.status != TrialStatus.COMPLETED:
                continue
            logs = objectives.trial_logs(trial)
            met = not objective.has_value(logs) or objective.feasible(logs)
            if met and all(math.isfinite(logs.get(g.name, math.nan)) for g in goals):
                values.append([logs[goal.name] for goal in goals])
                labels.append(trial.trial_id)
        return ParetoFront(
            tuple(goal.name for goal in goals),
            tuple(known[goal.name] for goal in goals),
            values,  # type: ignore[arg-type]
            tuple(labels),
        )

    def get_pareto_trials(
        self,
        preference: Mapping[str, float] | None = None,
        bounds: Mapping[str, float] | None = None,
    ) -> list[Any]:
        """The front's trials, the preferred one first; nothing is trained.

        Args:
            preference: Dict goal -> weight, as for `ParetoFront.prefer`. None weighs
                all alike.
            bounds: Dict goal -> value that a trial must reach.
        """
        chosen = self.pareto_front().prefer(preference, bounds=bounds)
        return [self.oracle.get_trial(trial_id) for trial_id in chosen]

    def get_pareto_models(
        self,
        preference: Mapping[str, float] | None = None,
        bounds: Mapping[str, float] | None = None,
        num_models: int | None = None,
    ) -> list[MultiTaskModel]:
        """The models of the front's trials, the preferred one first.

        Args:
            preference, bounds: As for `get_pareto_trials`.
            num_models: Integer >= 1, at most so many. None: all. (A search on
                `"pareto"` keeps the checkpoints of its whole front.)

        Raises:
            FileNotFoundError: for a trial whose checkpoint was not kept.
        """
        trials = self.get_pareto_trials(preference, bounds)[:num_models]
        return [self.load_model(trial) for trial in trials]  # type: ignore[attr-defined]

    # -- parts ------------------------------------------------------------------------

    def _beginnings(self) -> dict[str, dict[str, Any]]:
        """How every trial's rows of a table begin."""
        trials = list(self.oracle.trials.values())
        ranked = self.oracle.objective.rank(trials)
        places = {trial.trial_id: i for i, trial in enumerate(ranked, 1)}
        return {
            name: {"trial": name, "status": trial.status, "rank": places.get(name)}
            for name, trial in self.oracle.trials.items()
        }

    def _directions(self) -> dict[str, str]:
        """Which way is better, of all that trials can be compared by."""
        goals = {goal.name: goal.direction for goal in self.oracle.objective.goals}
        return objectives.directions(self.tasks) | goals

    def _trainings(self, trial: Trial) -> list[list[dict[str, float]]]:
        """The curves of a trial's executions that have an epoch."""
        curves = self.oracle.curves(trial.trial_id)
        return [curves[execution] for execution in sorted(curves) if curves[execution]]

    def _best_epochs(self, trial: Trial) -> list[Mapping[str, float]]:
        """The epoch that counts, of each of them."""
        objective = self.oracle.objective
        found = []
        for curve in self._trainings(trial):
            known = [row for row in curve if objective.has_value(row)]
            found.append(
                objectives.best_epoch(known, objective) if known else curve[-1]
            )
        return found

    def _logs(self, trial: Trial) -> dict[str, float]:
        """Logs that count, with their spread over the executions."""
        logs = objectives.trial_logs(trial)
        if self.oracle.objective.name not in self.oracle.objective.names:
            logs.pop(self.oracle.objective.name, None)  # the score, of several goals
        best = self._best_epochs(trial)
        if not logs and best:  # a trial that has not ended
            logs = dict(best[-1])
        if len(best) > 1:
            for name in list(logs):
                values = [row[name] for row in best if name in row]
                if len(values) > 1:
                    logs[f"{name}_std"] = statistics.stdev(values)
        return logs
