"""Single-task models: trained once, stored whole, with an equal budget."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl.data.plans import RowPlan
from kmtl.evaluation import Baselines, _baselines, _cache
from kmtl.evaluation._plan import Plan
from kmtl.evaluation.results import BaselineRun

pytestmark = pytest.mark.backend

KIND = kmtl.Classification("kind", classes=3, weight=0.1)
SIZE = kmtl.Regression("size", weight=10.0)
HELPER = kmtl.Regression("helper", auxiliary=True)
TASKS = [KIND, SIZE, HELPER]
EPOCHS = 3


def part(rows: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)).astype("float32")
    return x, {
        "kind": np.digitize(x[:, 0], [-0.5, 0.5]),
        "size": x[:, 1] + 2,
        "helper": x[:, 2],
    }


BUILT: list[Any] = []


def builder(tasks: Any, seed: int, units: int = 6, **options: Any) -> Any:
    """Remembers the models it makes."""
    model = kmtl.build_mlp(
        input_shape=(4,), tasks=tasks, units=(units,), seed=seed, **options
    )
    BUILT.append(model)
    return model


def train(folder: Path, **changes: Any) -> Baselines:
    BUILT.clear()
    options = {
        "builder": builder,
        "tasks": TASKS,
        "train": part(20, 0),
        "validation": part(10, 1),
        "epochs": EPOCHS,
        "batch_size": 8,
        "cache_dir": folder,
        "compile_options": {"optimizer": keras.optimizers.Adam(0.05)},
    }
    options.update(changes)
    return kmtl.baselines(options.pop("builder"), **options)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Baselines]:
    """A folder with baselines, for tests that do not change it."""
    folder = tmp_path_factory.mktemp("baselines")
    singles = train(folder, test=part(12, 2))
    assert len(BUILT) == 2
    return folder, singles


def test_scores_are_those_of_the_stored_models(stored) -> None:
    _, singles = stored
    assert set(singles.scores) == {"kind", "size"}
    assert singles.splits == ("validation", "test")
    for split, data in (("validation", part(10, 1)), ("test", part(12, 2))):
        for name in ("kind", "size"):
            model = singles.load_model(name)
            assert model.task_names == (name,)
            x, y = data
            logs = model.evaluate(x, {name: y[name]}, return_dict=True, verbose=0)
            found = singles.metrics_on(split)[name]
            for metric, value in found.items():
                assert value == pytest.approx(logs[f"{name}_{metric}"], rel=1e-5)
            assert (
                singles.scores_on(split)[name]
                == found[{"kind": "accuracy", "size": "mae"}[name]]
            )


def test_second_call_only_reads(stored) -> None:
    folder, singles = stored
    calls: list[tuple] = []
    again = train(folder, test=part(12, 2), progress=lambda *call: calls.append(call))
    assert not BUILT
    assert all(run.cached for run in again.runs)
    assert again.scores == singles.scores
    assert again.scores_on("test") == singles.scores_on("test")
    assert calls == [("kind", 0, EPOCHS, EPOCHS), ("size", 0, EPOCHS, EPOCHS)]


def test_budget_is_equal_and_several_task_arguments_do_not_count(stored) -> None:
    folder, _ = stored
    train(
        folder,
        sharing_depth=1,
        loss_weights={"kind": 3.0},
        compile_options={
            "optimizer": keras.optimizers.Adam(0.05),
            "weighting": "uncertainty",
            "loss_weights": "uniform",
        },
    )
    assert not BUILT
    # Another weight of a task changes nothing for a model of its own.
    train(folder, tasks=[KIND.replace(weight=1.0), SIZE])
    assert not BUILT


def test_models_of_all_tasks_see_the_same_budget(tmp_path: Path) -> None:
    calls: list[tuple] = []
    singles = train(
        tmp_path, keep="last", progress=lambda *call: calls.append(call), seeds=(4,)
    )
    expected = [(name, 4, e, EPOCHS) for name in ("kind", "size") for e in (1, 2, 3)]
    assert calls == expected
    for model in BUILT:
        steps = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
        assert steps == EPOCHS * 3  # 20 rows in batches of 8
        assert model.task_weights == {model.task_names[0]: 1.0}
        rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
        assert rate == pytest.approx(0.05)
    first, second = BUILT
    assert first.optimizer is not second.optimizer
    assert [run.epoch for run in singles.runs] == [EPOCHS, EPOCHS]
    for run in singles.runs:  # what was kept is what the last epoch reached
        metric = {"kind": "accuracy", "size": "mae"}[run.task]
        last = run.history[f"val_{run.task}_{metric}"][-1]
        assert run.metrics["validation"][metric] == pytest.approx(last, rel=1e-5)


def test_best_epoch_is_kept(tmp_path: Path) -> None:
    """The learning rate explodes, so that the last epoch is not the best."""
    rates = keras.callbacks.LearningRateScheduler(
        lambda epoch: (0.05, 0.05, 5.0)[epoch]
    )
    singles = train(tmp_path, tasks=[SIZE], callbacks=[rates])
    (run,) = singles.runs
    maes = run.history["val_size_mae"]
    assert run.epoch == 1 + int(np.argmin(maes)) < EPOCHS
    assert run.metrics["validation"]["mae"] == pytest.approx(min(maes), rel=1e-5)


@pytest.mark.thorough(on="jax")
def test_seeds_are_averaged_and_kept_apart(tmp_path: Path) -> None:
    singles = train(tmp_path, tasks=[SIZE], seeds=(1, 2), epochs=1)
    one, two = (run.metrics["validation"]["mae"] for run in singles.runs)
    assert one != two
    assert singles.scores["size"] == pytest.approx((one + two) / 2)
    spread = singles.spread_on("validation")["size"]["mae"]
    assert spread == pytest.approx(abs(one - two) / 2**0.5)
    # One more seed trains one more model; a task more, its own.
    train(tmp_path, tasks=[SIZE], seeds=(1, 2, 3), epochs=1)
    assert len(BUILT) == 1
    # Nothing but the seed decides: the same model comes out elsewhere.
    other = train(tmp_path / "other", tasks=[SIZE], seed=2, epochs=1)
    assert other.seeds == (2,)
    assert other.scores["size"] == pytest.approx(two, rel=1e-5)


# -- keys -----------------------------------------------------------------------------


def key(**changes: Any) -> str:
    options: dict[str, Any] = {
        "builder": builder,
        "arguments": {"units": 6},
        "compile_options": {"optimizer": "adam"},
        "seeds": None,
        "epochs": 3,
        "batch_size": 8,
        "keep": "best",
        "patience": None,
        "callbacks": [],
        "verbose": 0,
        "progress": lambda *_: None,
    }
    return _cache.key(Plan(**{**options, **changes}).description(KIND))


def scheduler(factor: float) -> Any:
    return keras.callbacks.LearningRateScheduler(lambda epoch: factor / (1 + epoch))


@pytest.mark.parametrize(
    "change",
    [
        {"builder": kmtl.build_mlp},
        {"arguments": {"units": 7}},
        {"arguments": {"units": 6, "kernel_regularizer": keras.regularizers.L2(0.1)}},
        {"compile_options": {"optimizer": "sgd"}},
        {"compile_options": {"optimizer": keras.optimizers.Adam(0.1)}},
        {"compile_options": {"optimizer": "adam", "jit_compile": True}},
        {"compile_options": {"optimizer": "adam", "loss": {"kind": "focal"}}},
        {"epochs": 4},
        {"batch_size": 9},
        {"keep": "last"},
        {"patience": 2},
        {"callbacks": [scheduler(0.1)]},
        {"steps_per_epoch": 2},
        {"validation_steps": 1},
        {"shuffle": False},
        {"rows": RowPlan(("kind", "size"), (10, 10), (0.5, 0.5))},
    ],
    ids=lambda change: "-".join(change),
)
def test_another_configuration_has_another_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


def test_keys_of_equal_configurations_are_equal() -> None:
    same = {"optimizer": keras.optimizers.Adam(), "loss": {"size": "mae"}}
    assert key(compile_options=same) == key(
        compile_options={"optimizer": "adam", "loss": {}}
    )
    assert key(arguments={"units": np.int64(6), "sharing_depth": 0}) == key()
    assert key(callbacks=[scheduler(0.1)]) == key(callbacks=[scheduler(0.1)])
    assert key(callbacks=[scheduler(0.1)]) != key(callbacks=[scheduler(0.2)])
    assert key(verbose=1, seeds=(3,), progress=print) == key()


def test_what_cannot_be_part_of_a_key_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`arguments` must be plain values.*object"):
        key(arguments={"units": object()})


def test_other_data_or_versions_are_another_baseline(
    stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = stored
    x, y = part(20, 0)
    seen = []
    entry = _baselines._entry

    def seen_entry(*arguments: Any) -> Any:
        place, key = entry(*arguments)
        seen.append(key)
        return place, key

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_baselines, "_entry", seen_entry)
    monkeypatch.setattr(_baselines, "_train", stop)
    changed = {**y, "size": y["size"] + 1e-3}
    for changes in (
        {"train": (x, changed)},
        {"validation": part(10, 3)},
        {"train": (x, y, np.full(20, 2.0))},
    ):
        with pytest.raises(KeyboardInterrupt):
            train(folder, **changes)
    monkeypatch.setattr(kmtl, "__version__", "0.0.1")
    with pytest.raises(KeyboardInterrupt):
        train(folder)
    assert len(set(seen)) == len(seen) == 4 * 2  # of both tasks


# -- damage and interruption ----------------------------------------------------------


@pytest.fixture
def copied(stored, tmp_path: Path) -> tuple[Path, Baselines]:
    """A copy of the stored baselines, for tests that damage it."""
    folder = tmp_path / "copied"
    shutil.copytree(stored[0], folder)
    return folder, stored[1]


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("model.keras", b"PK", "digest of its model"),
        ("model.keras", None, "No such file"),
        ("result.json", b'{"format": 1', "result.json' is damaged: it is not JSON"),
        ("result.json", b"", "it is empty"),
        ("result.json", b"\xff\xfe", "it is not JSON"),
        ("result.json", b"[]", "no JSON object but a list"),
        ("result.json", b"{}", "it has no format, key"),
        ("result.json", "metrics", "metrics and history are no JSON objects"),
        ("result.json", None, "No such file"),
    ],
)
def test_damaged_entry_is_moved_aside_and_the_log_says_why(
    copied, caplog: pytest.LogCaptureFixture, file: str, content: Any, reason: str
) -> None:
    (place,) = copied[0].glob("size-*")
    wanted = json.loads((place / "result.json").read_text())["key"]
    assert _cache.read_entry(place, wanted)["key"] == wanted
    if content is None:
        (place / file).unlink()
    elif isinstance(content, str):
        found = json.loads((place / file).read_text())
        (place / file).write_text(json.dumps({**found, content: []}))
    else:
        (place / file).write_bytes(content)
    with caplog.at_level(logging.WARNING, "kmtl"):
        assert _cache.read_entry(place, wanted) is None
    assert "damaged and is trained again" in caplog.text
    assert reason in caplog.text
    assert not place.exists()
    aside = place.with_name(f"{place.name}.damaged-1")
    assert (aside / file).exists() is (content is not None)


def test_an_entry_that_cannot_be_read_now_is_left_alone(
    copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place,) = copied[0].glob("size-*")
    wanted = json.loads((place / "result.json").read_text())["key"]

    def fail(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(_cache._files, "digest", fail)
        with pytest.raises(OSError, match=r"model\.keras"):
            _cache.read_entry(place, wanted)
    assert _cache.read_entry(place, wanted)["key"] == wanted


def test_damaged_model_is_trained_again(copied) -> None:
    folder, singles = copied
    (place,) = folder.glob("size-*")
    content = (place / "model.keras").read_bytes()
    (place / "model.keras").write_bytes(content[: len(content) // 2])
    again = train(folder)
    assert [model.task_names for model in BUILT] == [("size",)]
    assert again.scores == pytest.approx(singles.scores, rel=1e-5)
    train(folder)
    assert not BUILT


@pytest.mark.thorough(on="jax")
def test_interruption_keeps_finished_tasks(tmp_path: Path) -> None:
    def interrupt(task: str, seed: int, epoch: int, epochs: int) -> None:
        if (task, epoch) == ("size", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, progress=interrupt)
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == ["kind"]
    singles = train(tmp_path)
    assert [model.task_names for model in BUILT] == [("size",)]
    assert [run.cached for run in singles.runs] == [True, False]


def test_interruption_while_storing_leaves_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, value: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("kmtl._files.write_json", fail)
        with pytest.raises(OSError, match="no space"):
            train(tmp_path, tasks=[SIZE], epochs=1)
    assert not list(tmp_path.iterdir())


def test_damaged_test_scores_are_computed_again(
    copied, caplog: pytest.LogCaptureFixture
) -> None:
    folder, singles = copied
    (path,) = folder.glob("size-*/test-*.json")
    path.write_text("{")
    again = train(folder, test=part(12, 2))
    assert not BUILT
    assert again.scores_on("test") == pytest.approx(singles.scores_on("test"))
    assert "evaluating again" in caplog.text
    assert json.loads(path.read_text())["metrics"]["mae"] > 0


# -- forms of data --------------------------------------------------------------------


@pytest.mark.thorough(on="jax")
def test_tf_data_with_masks_and_a_split(tmp_path: Path) -> None:
    """Labels that miss in one task only are left out of its loss alone."""
    pytest.importorskip("tensorflow")
    x, y = part(20, 0)
    y["kind"][5:] = -1
    split = kmtl.data.Split(x, y, TASKS, "train")
    unshuffled = split.dataset(8, shuffle=False)
    validation = kmtl.data.Split(*part(10, 1), TASKS, "validation")
    options = {"validation": validation, "tasks": [KIND], "batch_size": None}
    data = train(tmp_path, train=unshuffled, **options)

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, i: int) -> tuple:
            rows = slice(8 * i, 8 * i + 8)
            return x[rows], {name: labels[rows] for name, labels in y.items()}

    batches = train(tmp_path, train=Batches(), **options)
    assert len(BUILT) == 1
    for name, score in data.scores.items():
        assert batches.scores[name] == pytest.approx(score, rel=1e-4)


def test_data_without_labels_of_a_task_are_refused(tmp_path: Path) -> None:
    x, y = part(10, 1)
    y["size"][:] = np.nan
    with pytest.raises(ValueError, match=r"`validation` must have labels .* 'size'"):
        train(tmp_path, validation=(x, y))


# -- the result -----------------------------------------------------------------------


def test_json_round_trip(stored, tmp_path: Path) -> None:
    _, singles = stored
    singles.save(tmp_path / "baselines.json")
    again = Baselines.load(tmp_path / "baselines.json")
    assert again == singles
    assert again.configuration["seeds"] == [0]
    assert again.load_model("size").task_names == ("size",)
    with pytest.raises(ValueError, match="Received: format=None"):
        Baselines.from_json("{}")


def test_evaluate_finds_the_scores_of_the_same_data(stored) -> None:
    _, singles = stored
    model = kmtl.build_mlp(input_shape=(4,), tasks=TASKS, units=(6,), seed=0)
    for split, data in (("validation", part(10, 1)), ("test", part(12, 2))):
        result = kmtl.evaluate(model, data, singles)
        assert result.split == split
        for name, score in singles.scores_on(split).items():
            assert result[name].baseline == score
        assert set(result.deltas) == {"kind", "size"}
    # On other data the stored models are evaluated too, as those of a search are.
    other = part(10, 5)
    result = kmtl.evaluate(model, other, singles)
    single = singles.load_model("size")
    alone = kmtl.evaluate(single, (other[0], {"size": other[1]["size"]}))
    assert result["size"].baseline == pytest.approx(alone["size"].score, rel=1e-6)
    assert (result.split, singles.splits) == (None, ("validation", "test"))
    moved = dataclasses.replace(
        singles, runs=[dataclasses.replace(r, folder="gone") for r in singles.runs]
    )
    with pytest.raises(FileNotFoundError, match="no model in 'gone'"):
        kmtl.evaluate(model, part(10, 6), moved)
    assert kmtl.evaluate(model, part(10, 5), singles, split="test").delta_m
    with pytest.raises(ValueError, match="`split` must be one of"):
        kmtl.evaluate(model, part(10, 5), singles, split="train")


def test_delta_m_callback_takes_baselines(stored) -> None:
    _, singles = stored
    assert kmtl.DeltaM(singles, TASKS).baselines == singles.scores


def test_a_baseline_of_0_is_noticed_when_it_is_made(monkeypatch, copied) -> None:
    found = {"loss": 0.5, "accuracy": 0.0, "mae": 1.0}
    monkeypatch.setattr(_baselines, "_scores", lambda *arguments: found)
    with pytest.raises(ValueError, match=r"baselines\['kind'\]"):
        train(copied[0], test=part(12, 7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "`epochs`"),
        ({"keep": "first"}, "`keep` must be one of"),
        ({"seeds": ()}, "`seeds` must be distinct"),
        ({"seeds": (1, 1)}, "`seeds` must be distinct"),
        ({"validation": None}, "`validation` data are needed"),
        ({"tasks": [HELPER]}, "only auxiliary"),
        ({"builder": lambda tasks: None, "seeds": (1, 2)}, "takes `seed`"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(tmp_path, **changes)


def test_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KMTL_CACHE_DIR", str(tmp_path))
    assert _cache.default_folder() == tmp_path / "baselines"
    monkeypatch.delenv("KMTL_CACHE_DIR")
    assert _cache.default_folder() == Path.home() / ".cache" / "kmtl" / "baselines"


def test_they_are_printed_as_a_table() -> None:
    """It was a dump of every run's history."""
    tasks = (kmtl.Classification("kind", classes=2), kmtl.Regression("size"))
    runs = tuple(
        BaselineRun(
            task=task.name,
            seed=seed,
            metrics={"validation": {task.score.name: 0.5 + 0.25 * seed}},
            history={"loss": [1.0] * 1000},
            epoch=1,
            seconds=1.0,
            folder="somewhere",
        )
        for task in tasks
        for seed in (0, 1)
    )
    prints = {"train": "1a", "validation": "2b"}
    assert str(Baselines(tasks, runs, prints)).splitlines() == [
        "<Baselines: 4 single-task models; seeds: 0, 1>",
        "task  metric      validation",
        "kind  accuracy ↑  0.625 ± 0.18",
        "size  mae ↓       0.625 ± 0.18",
    ]
    assert "0.5\n" in repr(Baselines(tasks, runs[::2], prints))
