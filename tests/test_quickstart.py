"""The whole job: killed at every stage, gone on with, shown again, refused."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from failure_tools import Failing
from rich.console import Console

import kmtl
from kmtl import _files, quickstart
from kmtl.cli import _quiet
from kmtl.cli._progress import ProgressDisplay
from kmtl.cli.main import main
from kmtl.quickstart import Event, Settings
from kmtl.quickstart.words import verdict

JOB = Path(__file__).with_name("quickstart_job.py")
SMALL = Settings(trials=3, epochs=2)
slow = pytest.mark.slow  # every test that uses `runs`


@dataclasses.dataclass
class Runs:
    """A folder, and the events of each process that worked in it."""

    folder: Path
    events: list[list[dict[str, Any]]]

    def texts(self, kind: str, stage: str) -> list[list[str]]:
        return [
            [e["text"] for e in run if (e["kind"], e["stage"]) == (kind, stage)]
            for run in self.events
        ]

    def epochs(self, stage: str) -> list[list[int]]:
        return [
            [
                event["epoch"]
                for event in run
                if (event["kind"], event["stage"]) == ("epoch_end", stage)
            ]
            for run in self.events
        ]


def work(folder: Path, trials: int = 2, kill: tuple = ()) -> list[dict[str, Any]]:
    """One process of the job; the events it got to."""
    events = folder.parent / "events.jsonl"
    events.unlink(missing_ok=True)
    arguments = [str(JOB), str(folder), str(events), str(trials), *map(str, kill)]
    finished = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = -signal.SIGKILL if kill else 0
    assert finished.returncode == expected, finished.stderr[-3000:]
    return [json.loads(line) for line in events.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The job, with KMTL_THOROUGH killed in its second trial and finished then."""
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    kills = [("epoch_end", "search", 3)] if os.environ.get("KMTL_THOROUGH") else []
    events = [work(folder, kill=kill) for kill in kills]
    return Runs(folder, [*events, work(folder, trials=3)])


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The job killed in four stages, then finished with one more trial."""
    folder = tmp_path_factory.mktemp("killed") / "out"
    kills = [
        ("epoch_end", "baselines", 3),  # in the second single-task model
        ("epoch_end", "search", 3),  # in the second trial
        ("epoch_end", "train", 2),  # in the second epoch
        ("note", "export", 1),  # between writing the SavedModel and its check
    ]
    events = [work(folder, kill=kill) for kill in kills]
    return Runs(folder, [*events, work(folder, trials=3)])


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text("utf-8"))


@slow
def test_what_is_finished_is_not_repeated(runs: Runs) -> None:
    assert runs.epochs("baselines") == [[1, 2, 1, 2], [2, 2]]  # from files: a report
    begun = runs.texts("step_begin", "search")
    assert begun == [["trial 1", "trial 2"], ["trial 2", "trial 3"]]
    assert runs.epochs("search") == [[1, 2, 1], [1, 2, 1, 2]]
    assert runs.texts("note", "search")[1][0] == "1 trial was finished before"
    assert runs.epochs("train") == [[], [1, 2]]


@pytest.mark.thorough
def test_finished_baselines_are_not_trained_again(killed: Runs) -> None:
    epochs = killed.epochs("baselines")
    assert epochs[0] == [1, 2, 1]  # ink is done, digit is not
    assert epochs[1] == [2, 1, 2]  # ink comes from its file: one report, no training
    assert epochs[2:] == [[2, 2]] * 3


@pytest.mark.thorough
def test_finished_trials_are_not_repeated(killed: Runs) -> None:
    begun = killed.texts("step_begin", "search")
    assert begun == [[], ["trial 1", "trial 2"], ["trial 2"], [], ["trial 3"]]
    assert killed.epochs("search")[1:3] == [[1, 2, 1], [1, 2]]
    notes = killed.texts("note", "search")
    assert notes[2][0] == "1 trial was finished before"
    assert notes[3][0] == "2 trials were finished before"


@pytest.mark.thorough
def test_finished_epochs_of_the_best_model_are_not_repeated(killed: Runs) -> None:
    assert killed.epochs("train")[:4] == [[], [], [1, 2], [2]]
    folder = killed.folder / results(killed.folder)["files"]["run"]
    history = (folder / "history.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["epoch"] for line in history] == [0, 1]


@slow
def test_every_stage_is_announced_in_order(runs: Runs) -> None:
    stages = [event for event in runs.events[-1] if event["kind"] == "stage_begin"]
    assert [event["stage"] for event in stages] == list(quickstart.STAGES)
    assert [event["number"] for event in stages] == [1, 2, 3, 4, 5, 6]


@slow
def test_results_are_whole(runs: Runs) -> None:
    content = results(runs.folder)
    assert content["settings"] == {"seed": 0, "trials": 3, "epochs": 2}
    assert list(content["test"]["tasks"]) == ["ink", "digit"]
    assert content["test"]["split"] == "test"
    deltas = [task["delta"] for task in content["test"]["tasks"].values()]
    assert content["test"]["delta_m"] == pytest.approx(sum(deltas) / 2)
    assert max(content["export_differences"].values()) <= 1e-5
    weights = content["best_trial"]["loss_weights"]
    assert sum(weights.values()) == pytest.approx(2.0)
    for path in content["files"].values():
        assert (runs.folder / path).exists(), path
    table = (runs.folder / "table.md").read_text("utf-8")
    assert "| ink |" in table
    assert content["notes"][0] in table
    assert not list(runs.folder.rglob(".unfinished-*"))


@slow
def test_saved_files_are_the_model_of_the_table(runs: Runs) -> None:
    data = kmtl.data.digits(seed=0).select("ink", "digit")
    model = kmtl.load_model(runs.folder / "model.keras")
    scores = kmtl.evaluation.evaluate(model, data.test).scores
    for name, task in results(runs.folder)["test"]["tasks"].items():
        assert scores[name] == pytest.approx(task["score"], rel=1e-5)


@slow
def test_finished_run_is_shown_again_without_a_backend(runs: Runs) -> None:
    code = (
        "import sys\n"
        "from kmtl.cli.main import main\n"
        "arguments = ['quickstart', '--out', sys.argv[1], '--trials', '3']\n"
        "main([*arguments, '--epochs', '2'], standalone_mode=False)\n"
        "heavy = {'keras', 'tensorflow', 'jax'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, str(runs.folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "Finished before" in finished.stdout
    assert results(runs.folder)["table"] in finished.stdout
    assert str(runs.folder / "saved_model") in finished.stdout


@slow
def test_more_trials_continue_the_search(runs: Runs) -> None:
    assert runs.texts("step_begin", "search")[-1][-1] == "trial 3"
    assert results(runs.folder)["settings"]["trials"] == 3
    # fewer than there are: what is there is shown
    assert quickstart.finished(runs.folder, Settings(trials=1, epochs=2)) is not None


@slow
def test_what_was_deleted_is_made_again(runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(runs.folder, folder)
    assert quickstart.finished(folder, SMALL) is not None
    shutil.rmtree(folder / "saved_model")
    assert quickstart.finished(folder, SMALL) is None


@pytest.mark.parametrize(
    ("depth", "deltas", "said"),
    [
        (1, (2.0, 3.0), ["better off in one net that shares 1 of 2 blocks, by 2.5 %"]),
        (1, (1.0, 0.0), ["within 0.5 % of separate nets on average (Δm +0.5 %)"]),
        (2, (0.0, -1.0), ["within 0.5 % of separate nets", "30% of their parameters"]),
        (
            2,
            (-1.0, -9.0),
            ["Separate nets are better by 5.0 %", "`ink` that loses most: mae 2.18"],
        ),
        (
            0,
            (0.1, 0.1),
            ["shares nothing", "so few trainings do not", "Δm +0.1 %"],
        ),
    ],
)
def test_gain_and_loss_are_explained(
    depth: int, deltas: tuple[float, float], said: list[str]
) -> None:
    evaluation = kmtl.evaluation.Evaluation(
        tuple(
            kmtl.evaluation.TaskRow(
                name, "regression", False, "mae", "min", 9, 1.0, 0.0,
                {"mae": 2 * (1 - delta / 100)}, 2.0, delta,
            )
            for name, delta in zip(("digit", "ink"), deltas, strict=True)
        ),
        9,
        0.0,
        sum(deltas) / 2,
    )  # fmt: skip
    text = " ".join(verdict(evaluation, depth, 2, {"shared": 30, "separate": 100}))
    for part in said:
        assert part in text
    assert ("loses most" in text) == (min(deltas) < -2)


# -- what is refused ------------------------------------------------------------------


@slow
def test_other_settings_are_refused(runs: Runs) -> None:
    with pytest.raises(
        quickstart.OtherSettingsError, match=r"seed was 0 and is now 1; epochs was 2"
    ):
        quickstart.finished(runs.folder, Settings(seed=1, epochs=3))
    arguments = ["quickstart", "--out", str(runs.folder), "--seed", "1"]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 2
    assert "--fresh" in refused.output


@slow
def test_another_backend_is_refused(runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(runs.folder, folder)
    (folder / "results.json").unlink()
    file = folder / quickstart.SETTINGS_FILE
    recorded = json.loads(file.read_text("utf-8"))
    recorded["made_with"]["backend"] = "another"
    file.write_text(json.dumps(recorded), "utf-8")
    with pytest.raises(quickstart.OtherSettingsError, match=r"begun with .* another"):
        quickstart.run(folder, SMALL)


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(quickstart.OtherSettingsError, match="must be a new folder"):
        quickstart.run(tmp_path)
    with pytest.raises(quickstart.OtherSettingsError, match="left alone"):
        quickstart.remove(tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"
    quickstart.remove(tmp_path / "nothing")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is done at once."""

    def done(job: Any) -> quickstart.Result:
        content = {"settings": dataclasses.asdict(job.settings), "files": {}}
        content |= {"table": "table", "notes": []}
        _files.write_json(job.folder / quickstart.RESULTS_FILE, content)
        return quickstart.Result(job.folder, content)

    monkeypatch.setattr("kmtl.quickstart.job.Job.run", done)


@pytest.mark.parametrize("kill", [True, False])
def test_a_failure_at_any_step_of_the_first_files_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: None, kill: bool
) -> None:
    steps = 0
    for place in Failing(monkeypatch, kill).every(quickstart.run, tmp_path):
        steps += 1
        assert not quickstart.run(place).content["notes"]
        quickstart.remove(place)
        assert not place.exists()
        place.mkdir()
        (place / ".unfinished-0123456789ab-quickstart.json").mkdir()
        quickstart.run(place)  # what a kill at the very first moment leaves
        assert sorted(os.listdir(place)) == ["quickstart.json", "results.json"]
    assert steps > 5


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "it is empty"),
        ("{", "it is not JSON"),
        ("[]", "no JSON object"),
        ("{}", "it has no settings, made_with"),
        ('{"settings": {}, "made_with": []}', "items"),
        ('{"settings": {"seed": -1}, "made_with": {}}', "`seed` must be"),
        ('{"settings": {"wrong": 1}, "made_with": {}}', "wrong"),
    ],
)
def test_damaged_settings_are_named(
    tmp_path: Path, stub: None, content: str, what: str
) -> None:
    quickstart.run(tmp_path)
    (tmp_path / "quickstart.json").write_text(content)
    arguments = ["quickstart", "--out", str(tmp_path)]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 2
    text = "".join(refused.output.replace("│", "").split())  # as it is broken in lines
    assert "quickstart.json'isdamaged" in text
    assert what.replace(" ", "") in text
    quickstart.remove(tmp_path)  # as --fresh
    assert not tmp_path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"settings": 1}'])
def test_damaged_results_are_made_again(
    tmp_path: Path, stub: None, content: str
) -> None:
    quickstart.run(tmp_path)
    assert quickstart.finished(tmp_path, Settings()) is not None
    (tmp_path / "results.json").write_text(content)
    assert quickstart.finished(tmp_path, Settings()) is None
    assert quickstart.run(tmp_path).content["table"] == "table"
    assert quickstart.finished(tmp_path, Settings()) is not None


def test_fresh_keeps_what_is_not_of_a_run(tmp_path: Path, stub: None) -> None:
    quickstart.run(tmp_path)
    (tmp_path / "thesis").write_text("mine")
    with pytest.raises(quickstart.OtherSettingsError, match="it holds thesis"):
        quickstart.remove(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["quickstart.json", "results.json", "thesis"]


@pytest.mark.parametrize("name", ["seed", "trials", "epochs"])
def test_settings_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be an integer >="):
        Settings(**{name: -1})


# -- command and display --------------------------------------------------------------


@pytest.fixture
def no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_quiet, "import_backend", lambda: None)


def test_ctrl_c_says_how_to_go_on(
    no_backend: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(quickstart, "run", interrupted)
    result = CliRunner().invoke(main, ["quickstart", "--out", str(tmp_path / "out")])
    assert result.exit_code == 130
    assert "Run the same command again to go on from here." in result.output


@slow
def test_fresh_deletes_the_earlier_run(
    no_backend: None, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(runs.folder, folder)
    given = []

    def run(out: Path, settings: Settings, on_event: Any) -> quickstart.Result:
        given.append((out.exists(), settings))
        return quickstart.Result(runs.folder, results(runs.folder))

    monkeypatch.setattr(quickstart, "run", run)
    arguments = ["quickstart", "--out", str(folder), "--seed", "3", "--fresh"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert given == [(False, Settings(seed=3))]
    assert "Try next" in result.output


EVENTS = [
    Event("stage_begin", "search", "Search", number=3, total=6),
    Event("step_begin", "search", "trial 1", number=1, total=2, epochs=2),
    Event("epoch_end", "search", "loss [0.5]", epoch=1, epochs=2),
    Event("step_end", "search", "trial 1: done [x]", number=1, total=2),
    Event("stage_begin", "train", "Training", number=4, total=6),
]


def test_plain_output_has_one_line_per_step() -> None:
    console = Console(file=io.StringIO(), width=40)
    with ProgressDisplay(console).shown() as display:
        for event in EVENTS:
            display(event)
    assert console.file.getvalue().splitlines() == [
        "[3/6] Search",
        "      trial 1: done [x]",
        "[4/6] Training",
    ]


def test_terminal_shows_bars_and_epochs() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with ProgressDisplay(console).shown() as display:
        for event in EVENTS[:3]:
            display(event)
        display._bars.refresh()
        drawn = console.file.getvalue()
        for event in EVENTS[3:]:
            display(event)
        assert [bar.description for bar in display._bars.tasks] == ["Training"]
    assert "trial 1" in drawn
    assert "1/2" in drawn
    assert "loss [0.5]" in drawn


def test_notices_of_the_backend_are_held_back(capfd: pytest.CaptureFixture) -> None:
    with _quiet._kept_standard_error():
        os.write(2, b"greeting\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ZeroDivisionError), _quiet._kept_standard_error():
        os.write(2, b"reason\n") / 0
    assert "reason" in capfd.readouterr().err
