"""The stages of `kmtl.quickstart.run`."""

from __future__ import annotations

import dataclasses
import functools
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
from matplotlib.figure import Figure

import kmtl
from kmtl import _files, _swap, tuning
from kmtl.evaluation import (
    Baselines,
    BestEpoch,
    DeltaM,
    Evaluation,
    baselines,
    evaluate,
)
from kmtl.evaluation.balanced import WORST
from kmtl.evaluation.delta import LOG_NAME
from kmtl.evaluation.table import HEADERS, NOTE
from kmtl.export import ExportReport
from kmtl.plotting import comparison, curves
from kmtl.quickstart.settings import (
    BASELINES,
    COMPARISON_FILE,
    CURVES_FILE,
    MODEL_FILE,
    RESULTS_FILE,
    RUNS,
    SAVED_MODEL,
    SEARCH,
    STAGES,
    TABLE_FILE,
    Event,
    Result,
    Settings,
)
from kmtl.quickstart.words import MEANINGS, verdict
from kmtl.training.runs import fit_run
from kmtl.tuning.objective import trial_logs
from kmtl.typing import Callback, Trial, Tuner

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

FILTERS = (16, 32)
LEARNING_RATE = 2e-3
BATCH_SIZE = 64
STEPS_PER_EXECUTION = 20  # an epoch in one call: Python between steps costs more
#: Depth 0 are the separate nets, with which all trials are compared.
SPACE = {
    "sharing_depth": (1, len(FILTERS)),
    "dropout": (0.0, 0.2),
    "task_weights": tuning.TaskWeights(1 / 3, 3.0),
}


def made_with() -> dict[str, str]:
    """What a run is continued with only if it was begun with it."""
    return {
        "kmtl": kmtl.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }


class EpochEvents(keras.callbacks.Callback):
    """Tells a listener about each epoch. Holds nothing that cannot be copied."""

    def __init__(self, tell: Callable[[int, Mapping[str, float]], None]):
        super().__init__()
        self._tell = tell

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._tell(epoch + 1, logs or {})


class Job:
    """One quickstart run. Each stage takes what it made earlier from its files."""

    def __init__(
        self, folder: Path, settings: Settings, on_event: Callable[[Event], None]
    ):
        self.folder = folder
        self.settings = settings
        self.on_event = on_event
        self.stage = ""

    def run(self) -> Result:
        """All stages, in order."""
        self._begin("data")
        self.data = kmtl.data.digits(seed=self.settings.seed)
        for task in self.data.tasks:
            kind = f"{task.registered_name}, scored by {task.score.name}"
            self._tell("note", f"{task.name}: {MEANINGS[task.name]} ({kind})")
        rows = {name: len(part) for name, part in self.data.splits.items()}
        images = ", ".join(f"{count} {name}" for name, count in rows.items())
        self._tell("note", f"images {self.data.input_shape}: {images}")
        singles = self.baselines()
        tuner = self.search(singles)
        model, history, run_folder = self.train(tuner, singles)
        evaluation = self.compare(model, singles, history)
        report = self.export(model)
        return self._finish(tuner, model, run_folder, evaluation, report)

    # -- stages -----------------------------------------------------------------------

    def baselines(self) -> Baselines:
        """One single-task model per task: same backbone, optimizer, rows, epochs."""
        self._begin("baselines")
        hypermodel = self.hypermodel
        names = [task.name for task in self.data.tasks]

        def begin(number: int) -> None:
            if number <= len(names):
                text = f"{names[number - 1]} alone"
                epochs = self.settings.epochs
                self._tell(
                    "step_begin", text, number=number, total=len(names), epochs=epochs
                )

        def progress(name: str, seed: int, epoch: int, epochs: int) -> None:
            self._tell("epoch_end", "", epoch=epoch, epochs=epochs)
            if epoch == epochs:
                number = names.index(name) + 1
                text = f"{name} alone: trained"
                self._tell("step_end", text, number=number, total=len(names))
                begin(number + 1)

        begin(1)
        singles = baselines(
            hypermodel.builder,
            tasks=self.data.tasks,
            train=self.data.train,
            validation=self.data.validation,
            test=self.data.test,
            epochs=self.settings.epochs,
            batch_size=BATCH_SIZE,
            compile_options={
                "optimizer": hypermodel.optimizer,
                **hypermodel.compile_options,
            },
            cache_dir=self.folder / BASELINES,
            progress=progress,
            seed=self.settings.seed,
            **hypermodel.fixed,
        )
        scores = ", ".join(
            f"{task.name} {task.score.name} {singles.scores[task.name]:.4g}"
            for task in self.data.tasks
        )
        self._tell("note", f"on validation: {scores}")
        return singles

    def search(self, singles: Any) -> tuning.BayesianOptimization:
        """Every sharing depth at the defaults, then Bayesian optimisation, on Δm."""
        self._begin("search")
        tuner = tuning.BayesianOptimization(
            self.hypermodel,
            objective=LOG_NAME,
            max_trials=self.settings.trials,
            baselines=singles,
            seed=self.settings.seed,
            directory=str(self.folder),
            project_name=SEARCH,
            listener=self._on_search_event,
        )
        for depth in range(len(FILTERS), 0, -1):  # the defaults first
            usual = self.hypermodel.default_values()
            tuner.enqueue({**usual, "sharing_depth": depth})
        done = len(tuner.oracle.end_order)
        if done:
            were = "trial was" if done == 1 else "trials were"
            self._tell("note", f"{done} {were} finished before")
        tuner.search(
            *self.data.train.arrays(),
            validation_data=self.data.validation.arrays(),
            epochs=self.settings.epochs,
            batch_size=BATCH_SIZE,
            verbose=0,
        )
        best = tuner.oracle.get_best_trials(1)[0]
        self._tell("note", f"best: trial {_number(tuner, best)}, {self._values(best)}")
        return tuner

    def _on_search_event(self, event: tuning.SearchEvent) -> None:
        name = f"trial {event.number}"
        if event.kind == "trial_begin":
            self._tell(
                "step_begin",
                name,
                number=event.number,
                total=event.total,
                epochs=self.settings.epochs,
            )
        elif event.kind == "epoch_end":
            self._tell_epoch(event.epoch, event.logs)
        elif event.kind == "trial_end":
            outcome = event.reason or _improvement(event.trial)
            if event.number == 1:
                name = f"{name} (the defaults)"
            self._tell(
                "step_end",
                f"{name}: {self._values(event.trial)}  {outcome}",
                number=event.number,
                total=event.total,
            )

    def train(self, tuner: Tuner, singles: Any) -> tuple[Any, Any, Path]:
        """The best trial's model, trained anew in a folder of its own."""
        self._begin("train")
        best = tuner.oracle.get_best_trials(1)[0]
        epochs = self.settings.epochs
        folder = self.folder / RUNS / f"trial-{_number(tuner, best)}"
        self._tell("step_begin", "best model", number=1, total=1, epochs=epochs)
        model = self.hypermodel.build(best.hyperparameters)
        history = fit_run(
            model,
            self.data.train,
            validation=self.data.validation,
            folder=folder,
            epochs=epochs,
            batch_size=BATCH_SIZE,
            seed=self.settings.seed,
            callbacks=[
                DeltaM(singles, self.data.tasks),
                BestEpoch(),  # the rule by which the baselines keep their weights
                EpochEvents(self._tell_epoch),
            ],
            config={
                "settings": {"seed": self.settings.seed, "epochs": epochs},
                "trial": _number(tuner, best),
                "hyperparameters": dict(best.hyperparameters.values),
            },
            verbose=0,
        )
        best_epoch = max(history.history[LOG_NAME])
        text = f"{epochs} epochs, the best with Δm {best_epoch:+.2f} % on validation"
        self._tell("step_end", text, number=1, total=1)
        return model, history, folder

    def compare(
        self, model: MultiTaskModel, singles: Baselines, history: Callback
    ) -> Evaluation:
        """Scores on the test split, which nothing so far has chosen anything by."""
        self._begin("compare")
        evaluation = evaluate(model, self.data.test, baselines=singles)
        # Figures of their own, not pyplot's: no window, whatever the desktop.
        for name, draw in (
            (CURVES_FILE, lambda ax: curves(history, ax=ax)),
            (COMPARISON_FILE, lambda ax: comparison(evaluation, ax=ax)),
        ):
            figure = Figure(figsize=(7, 4), layout="constrained")
            draw(figure.subplots())
            figure.savefig(self.folder / name)
        return evaluation

    def export(self, model: MultiTaskModel) -> ExportReport:
        """The model's files; the SavedModel is run without kmtl before it counts."""
        self._begin("export")
        with _swap.file_beside(self.folder / MODEL_FILE) as made:
            model.save(made)
        path = model.export(self.folder / SAVED_MODEL, overwrite=True)
        self._tell("note", "written; now running it in a new process")
        report = kmtl.verify_export(path, model, self.data.test.x)
        for name, difference in report.differences.items():
            text = f"{name}: largest difference {difference:.1e}"
            self._tell("note", f"{text} on {report.rows} images")
        return report

    def _finish(
        self,
        tuner: Tuner,
        model: MultiTaskModel,
        run_folder: Path,
        evaluation: Evaluation,
        report: ExportReport,
    ) -> Result:
        best = tuner.oracle.get_best_trials(1)[0]
        completed = sum(
            trial.status == "COMPLETED" for trial in tuner.oracle.trials.values()
        )
        files = {
            "SavedModel": SAVED_MODEL,
            "Keras model": MODEL_FILE,
            "table": TABLE_FILE,
            "results": RESULTS_FILE,
            "learning curves": CURVES_FILE,
            "comparison": COMPARISON_FILE,
            "run": run_folder.relative_to(self.folder).as_posix(),
            "history": (
                run_folder.relative_to(self.folder) / "history.jsonl"
            ).as_posix(),
            "search": SEARCH,
            "baselines": BASELINES,
        }
        arguments = self.hypermodel.arguments(best.hyperparameters)
        notes = [
            *verdict(
                evaluation, arguments["sharing_depth"], len(FILTERS), self._sizes(model)
            ),
            f"Best of {completed} trials: number {_number(tuner, best)}, "
            f"{self._values(best)}.",
            "The single-task models had the same net, rows and epochs "
            f"({self.settings.epochs}), but no search.",
            "The SavedModel gave the model's numbers in a process without kmtl "
            f"(largest difference {max(report.differences.values()):.1e}).",
        ]
        content = {
            "settings": {**dataclasses.asdict(self.settings), "trials": completed},
            "made_with": {**made_with(), "python": platform.python_version()},
            "best_trial": {
                "trial": _number(tuner, best),
                "validation_delta_m": trial_logs(best)[LOG_NAME],
                "hyperparameters": best.hyperparameters.values,
                "loss_weights": arguments["loss_weights"],
            },
            "test": evaluation.to_dict(),
            "export_differences": report.differences,
            "table": str(evaluation),
            "notes": notes,
            "files": files,
        }
        _files.write_text(self.folder / TABLE_FILE, _markdown(evaluation, notes))
        _files.write_json(
            self.folder / RESULTS_FILE, content
        )  # last: it says all is done
        return Result(self.folder, content)

    # -- parts ------------------------------------------------------------------------

    @functools.cached_property
    def hypermodel(self) -> tuning.HyperModel:
        """The builder, what is fixed of it and what is searched."""
        return tuning.HyperModel(
            kmtl.build_cnn,
            tasks=self.data.tasks,
            space=SPACE,
            optimizer=keras.optimizers.Adam(LEARNING_RATE),
            compile_options={"steps_per_execution": STEPS_PER_EXECUTION},
            seed=self.settings.seed,
            input_shape=self.data.input_shape,
            filters=FILTERS,
        )

    def _sizes(self, model: MultiTaskModel) -> dict[str, int]:
        """Numbers of parameters of the model, and of one net for each task."""
        fixed = self.hypermodel.fixed
        separate = [
            self.hypermodel.builder(tasks=[task], **fixed).count_params()
            for task in self.data.tasks
        ]
        return {"shared": model.count_params(), "separate": sum(separate)}

    def _values(self, trial: Trial) -> str:
        """What a trial varies, in one line."""
        arguments = self.hypermodel.arguments(trial.hyperparameters)
        weights = " ".join(
            f"{name} {weight:.2f}" for name, weight in arguments["loss_weights"].items()
        )
        return (
            f"sharing depth {arguments['sharing_depth']}, "
            f"dropout {arguments['dropout']:.2f}, weights {weights}"
        )

    def _begin(self, stage: str) -> None:
        self.stage = stage
        number = list(STAGES).index(stage) + 1
        self._tell("stage_begin", STAGES[stage], number=number, total=len(STAGES))

    def _tell(self, kind: str, text: str, **details: Any) -> None:
        self.on_event(Event(kind, self.stage, text, **details))

    def _tell_epoch(self, epoch: int | None, logs: Mapping[str, float]) -> None:
        shown = [f"loss {logs['loss']:.3f}"] if "loss" in logs else []
        if LOG_NAME in logs:
            shown.append(f"Δm {logs[LOG_NAME]:+.2f} %")
        self._tell(
            "epoch_end", "  ".join(shown), epoch=epoch, epochs=self.settings.epochs
        )


def _improvement(trial: Trial) -> str:
    """Δm of a trial, and the task that gains least, in words."""
    logs = trial_logs(trial)
    return (
        f"Δm {logs[LOG_NAME]:+.1f} % against separate nets, worst task "
        f"{logs[WORST]:+.1f} %"
    )


def _number(tuner: Tuner, trial: Trial) -> int:
    """Number of a trial, from 1, as the search's events have it."""
    return list(tuner.oracle.trials).index(trial.trial_id) + 1


def _markdown(evaluation: Evaluation, notes: list[str]) -> str:
    """The table for a page."""
    rows = [HEADERS, ("---",) * len(HEADERS), *(row.cells() for row in evaluation.rows)]
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    head = [
        f"# {evaluation.title}",
        "",
        *lines,
        "",
        f"{evaluation.summary}. {NOTE}",
        "",
    ]
    return "\n".join([*head, *(f"- {note}" for note in notes), ""])
