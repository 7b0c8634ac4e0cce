"""Runs that are killed, damaged or stopped go on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas
import pytest

import kmtl
from kmtl import _files
from kmtl.training import RunCheckpoint, fit_run, run_history
from kmtl.training.batches import ShuffledBatches

pytestmark = pytest.mark.backend

EPOCHS = 4
TASKS = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]


def arrays(rows: int = 20) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(rows, 4)).astype("float32")
    return x, {
        "kind": rng.integers(-1, 3, rows),
        "size": rng.normal(size=rows).astype("float32"),
    }


def make_model(**compile_options: Any) -> kmtl.MultiTaskModel:
    """Dropout, batch statistics, Adam and a learned weighting: state of every kind."""
    model = kmtl.build_mlp(
        input_shape=(4,),
        tasks=TASKS,
        units=(6,),
        dropout=0.5,
        normalization="batch",
        seed=0,
    )
    options = {"optimizer": keras.optimizers.Adam(0.05), "weighting": "uncertainty"}
    model.compile(**{**options, **compile_options})
    return model


class Interrupt(keras.callbacks.Callback):
    """Raises, or kills the process, at a batch of an epoch."""

    def __init__(self, epoch: int, batch: int, kill: bool = False):
        super().__init__()
        self.when, self.kill, self.now = (epoch, batch), kill, -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.now, batch) == self.when:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt


def run(folder: Path, *callbacks: Any, epochs: int = EPOCHS, **options: Any):
    model = make_model()
    history = fit_run(
        model,
        options.pop("data", arrays()),
        folder=folder,
        epochs=epochs,
        batch_size=8,
        validation=arrays(10),
        callbacks=list(callbacks),
        verbose=0,
        **options,
    )
    return model, history


def assert_same(first: tuple, second: tuple) -> None:
    assert second[1].history == first[1].history
    assert second[1].epoch == first[1].epoch
    pairs = zip(first[0].variables, second[0].variables, strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A run that is never interrupted."""
    return run(tmp_path_factory.mktemp("reference"))


def test_interrupted_run_ends_exactly_like_an_uninterrupted_one(
    tmp_path: Path, reference: tuple
) -> None:
    assert len(reference[1].history["val_kind_accuracy"]) == EPOCHS
    for epoch, batch in ((0, 0), (2, 1)):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, Interrupt(epoch, batch))
    assert_same(reference, run(tmp_path))


def test_more_epochs_continue_a_finished_run(tmp_path: Path, reference: tuple) -> None:
    run(tmp_path, epochs=2)
    assert_same(reference, run(tmp_path))
    # A third call has nothing to do and changes nothing.
    assert_same(reference, run(tmp_path))


@pytest.mark.thorough(on="jax")
def test_logs_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util.tensor_util import make_ndarray

    run(tmp_path, epochs=1, tensorboard=True)
    _, history = run(tmp_path, epochs=2, tensorboard=True)  # goes on
    logs = {}
    for part in ("train", "validation"):
        found = event_accumulator.EventAccumulator(
            str(tmp_path / "tensorboard" / part), {"tensors": 0}
        ).Reload()
        for tag in found.Tags()["tensors"]:
            events = found.Tensors(tag)
            values = [float(make_ndarray(event.tensor_proto)) for event in events]
            logs[part, tag] = [event.step for event in events], values
    for log, part, name in (
        ("size_loss", "train", "epoch_size_loss"),
        ("weight_kind", "train", "epoch_weight_kind"),
        ("val_kind_accuracy", "validation", "epoch_kind_accuracy"),
    ):
        steps, values = logs[part, name]
        assert steps == [0, 1]
        np.testing.assert_allclose(values, history.history[log], rtol=1e-6)


@pytest.mark.thorough(on="jax")
@pytest.mark.filterwarnings(
    "ignore:Your input ran out of data"
)  # Keras, unknown length
@pytest.mark.parametrize("unknown_length", [False, True])
def test_seeded_tf_data_continues_in_the_same_order(
    tmp_path: Path, unknown_length: bool
) -> None:
    """Canary for how many iterators Keras makes per epoch (`skip_epochs`)."""
    pytest.importorskip("tensorflow")
    keras.utils.set_random_seed(3)

    def data() -> Any:
        made = kmtl.data.from_arrays(
            *arrays(), tasks=TASKS, batch_size=8, shuffle=True, seed=5
        )
        return made.filter(lambda *batch: True) if unknown_length else made

    reference = run(tmp_path / "whole", data=data())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", Interrupt(2, 1), data=data())
    assert_same(reference, run(tmp_path / "parts", data=data()))


def rows_of_set(shuffled: int = 20) -> Any:
    import tensorflow as tf

    x, y = arrays()
    y = {"kind": y["kind"].astype("int32"), "size": y["size"]}
    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(shuffled, seed=5)


def mixture_of_sets() -> Any:
    kind, size = TASKS
    x, y = arrays()
    few = rows_of_set().take(8).map(lambda x, y: (x, {"size": y["size"]}))
    return kmtl.data.mixture(
        {kind: (x, {"kind": y["kind"]}), size: few.batch(4)}, "equal", batch_size=8
    )


#: Data that begin a pass over others in the middle of their own, and epochs that end in
#: the middle of a pass.
ENDINGS = {
    "repeated": (lambda: rows_of_set().repeat(2).batch(8), {}),
    "joined": (lambda: rows_of_set().concatenate(rows_of_set()).batch(8), {}),
    "twice": (lambda: rows_of_set().batch(8).shuffle(3, seed=6), {}),
    "mixture": (mixture_of_sets, {}),
    "endless": (lambda: rows_of_set().repeat().batch(8), {"steps_per_epoch": 4}),
    "a part": (lambda: rows_of_set().batch(8), {"steps_per_epoch": 2}),
    "arrays": (arrays, {"steps_per_epoch": 2}),
}
LONG = ("repeated", "joined", "a part")


@pytest.mark.thorough(on="jax")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.thorough) if name in LONG else name
        for name in ENDINGS
    ],
)
def test_epochs_that_end_anywhere_continue_in_the_same_order(
    tmp_path: Path, name: str
) -> None:
    pytest.importorskip("tensorflow")
    data, options = ENDINGS[name]
    reference = run(tmp_path / "whole", data=data(), **options)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", Interrupt(2, 1), data=data(), **options)
    assert_same(reference, run(tmp_path / "parts", data=data(), **options))
    if options:
        with pytest.raises(ValueError, match="steps_per_epoch"):
            run(tmp_path / "parts", data=data(), steps_per_epoch=3)


def test_a_cache_behind_a_shuffle_is_told_of(tmp_path: Path, caplog: Any) -> None:
    """It keeps the order of the first pass, which a run that goes on has not seen."""
    pytest.importorskip("tensorflow")
    for epochs in (1, 2):
        run(tmp_path, data=rows_of_set().cache().batch(8), epochs=epochs)
        assert ("put `cache()` before" in caplog.text) == (epochs == 2)


def test_a_finished_run_leaves_the_model_as_others_are(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    for _ in range(2):  # the second one finds nothing to do
        model, _ = run(
            tmp_path, data=rows_of_set().batch(8), steps_per_epoch=2, epochs=2
        )
    before = [v.numpy().copy() for v in model.trainable_variables]
    assert model.fit(*arrays(), verbose=0).history["loss"]
    after = [v.numpy() for v in model.trainable_variables]
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


def test_steps_of_an_epoch_see_all_rows_of_arrays(tmp_path: Path) -> None:
    """Where an epoch ends the next one goes on: no row is left out."""
    seen = []

    class Rows(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(logs["size_mae"])

    x, y = np.zeros((6, 4), "float32"), {"size": np.array([0.0, 0, 0, 0, 0, 6])}
    model = kmtl.build_mlp(
        input_shape=(4,), tasks=TASKS[1:], units=(2,), dropout=None, seed=0
    )
    model.compile(keras.optimizers.SGD(0.0))
    fit_run(
        *(model, (x, y)),
        folder=tmp_path,
        epochs=6,
        batch_size=2,
        steps_per_epoch=1,
        callbacks=[Rows()],
        verbose=0,
    )
    # Two passes of three steps: in each one step has the row that is 6 off.
    assert sorted(np.round(seen, 3).tolist()) == [0.0, 0.0, 0.0, 0.0, 3.0, 3.0]
    assert seen[:3].count(3.0) == 1


@pytest.mark.thorough(on="jax")
def test_early_stopping_keeps_its_counters_and_best_weights(tmp_path: Path) -> None:
    def stopping() -> Any:
        return keras.callbacks.EarlyStopping(
            "size_loss", mode="max", patience=2, restore_best_weights=True
        )

    whole = stopping()
    reference = run(tmp_path / "whole", whole, epochs=20)
    assert (whole.best_epoch, whole.wait) == (0, 2)  # the best is before the kill
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stopping(), Interrupt(2, 0), epochs=20)
    assert_same(reference, run(tmp_path / "parts", stopping(), epochs=20))
    # Once it has stopped it stays so, and ends with the best weights again.
    last = stopping()
    assert_same(reference, run(tmp_path / "parts", last, epochs=20))
    assert last.best == whole.best


@pytest.mark.thorough(on="jax")
def test_failure_while_saving_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: tuple
) -> None:
    savez, calls = np.savez, []

    def failing(path: Path, **arrays: Any) -> None:
        calls.append(path)
        savez(path, **arrays)
        if len(calls) == 3:
            path.write_bytes(path.read_bytes()[:100])
            raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", failing)
    with pytest.raises(OSError, match="no space"):
        run(tmp_path)
    assert RunCheckpoint(tmp_path).epoch == 2
    assert_same(reference, run(tmp_path))


def test_damaged_checkpoint_is_found_and_the_one_before_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reference: tuple
) -> None:
    run(tmp_path, epochs=2)
    newest = tmp_path / "checkpoints" / "epoch-000002.npz"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(bytes(content))
    assert RunCheckpoint(tmp_path).epoch == 1
    assert "damaged checkpoint" in caplog.text
    assert newest.read_bytes() == content  # looking changes nothing
    assert_same(reference, run(tmp_path))
    aside = tmp_path / "checkpoints" / "epoch-000002.npz.damaged-1"
    assert aside.read_bytes() == content


def test_a_run_whose_checkpoints_are_all_damaged_is_not_begun_anew(
    tmp_path: Path,
) -> None:
    run(tmp_path, epochs=2)
    files = sorted((tmp_path / "checkpoints").iterdir())
    history = (tmp_path / "history.jsonl").read_text()
    for file in files:
        file.write_bytes(b"no zip")
    with pytest.raises(kmtl.DamagedFileError, match=r"each of its 2 .*move the run's"):
        run(tmp_path)
    assert (tmp_path / "history.jsonl").read_text() == history
    assert sorted((tmp_path / "checkpoints").iterdir()) == files


def test_folder_holds_what_it_says(tmp_path: Path) -> None:
    _, history = run(tmp_path, config={"units": (6,)})
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["config"] == {"units": [6]}
    assert config["kmtl"] == kmtl.__version__
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(EPOCHS))
    assert json.loads(lines[1])["size_mae"] == history.history["size_mae"][1]
    table = pandas.read_csv(tmp_path / "history.csv")
    assert list(table["epoch"]) == list(range(EPOCHS))
    assert table.drop(columns="epoch").to_dict("list") == history.history
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["epoch-000003.npz", "epoch-000004.npz"]
    assert not list(tmp_path.rglob(f"{_files.UNFINISHED}*"))


def test_the_table_of_the_history_quotes_names(tmp_path: Path) -> None:
    """A task has none with a comma, but a metric of Keras may."""
    logs = [{"epoch": 0, 'within 1,5 of "it"': 0.5}, {"epoch": 1, "loss": 2.0}]
    run_history.write(tmp_path, logs)
    table = pandas.read_csv(tmp_path / "history.csv")
    assert list(table) == ["epoch", 'within 1,5 of "it"', "loss"]
    assert table.iloc[0].dropna().to_dict() == logs[0]
    assert table.iloc[1].dropna().to_dict() == logs[1]


def test_history_survives_values_that_json_has_not(tmp_path: Path) -> None:
    checkpoint = RunCheckpoint(tmp_path)
    model = make_model()
    checkpoint.set_model(model)
    model.stop_training = False
    checkpoint.on_epoch_end(0, {"loss": float("nan"), "val_loss": float("inf")})
    assert "NaN" not in (tmp_path / "history.jsonl").read_text()
    again = RunCheckpoint(tmp_path).history
    assert np.isnan(again["loss"][0])
    assert again["val_loss"] == [np.inf]


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    run(tmp_path, epochs=1, config={"seed": 1, "units": 6})
    message = r"Different: units \(was 6, is 7\)\. Received: folder="
    with pytest.raises(ValueError, match=message):
        run(tmp_path, epochs=2, config={"seed": 1, "units": 7})


def test_another_model_is_refused(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    model = kmtl.build_mlp(input_shape=(4,), tasks=TASKS, units=(5,))
    model.compile("adam")
    with pytest.raises(ValueError, match=r"Different: .*learning_rate .*, layers"):
        fit_run(model, arrays(), folder=tmp_path, epochs=2, verbose=0)
    again = RunCheckpoint(tmp_path)
    with pytest.raises(ValueError, match="same model and optimizer"):
        model.fit(*arrays(), initial_epoch=1, epochs=2, verbose=0, callbacks=[again])


@pytest.mark.parametrize(
    ("policy", "options", "rows", "named"),
    [
        ("mixed_bfloat16", {}, 20, "dtypes"),
        ("float32", {"lr_multipliers": {"trunk": 0.5}}, 20, "lr_multipliers"),
        ("float32", {}, 9, "batches"),
    ],
)
def test_what_else_decides_the_numbers(
    tmp_path: Path, policy: str, options: dict, rows: int, named: str
) -> None:
    pytest.importorskip("tensorflow")
    run(tmp_path, data=rows_of_set().batch(8), epochs=1)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = make_model(**options)
    finally:
        keras.config.set_dtype_policy(before)
    data = rows_of_set().take(rows).batch(8)
    with pytest.raises(ValueError, match=f"Different: .*{named}"):
        fit_run(model, data, folder=tmp_path, epochs=2, batch_size=8, verbose=0)


def test_wrong_initial_epoch_is_refused(tmp_path: Path) -> None:
    run(tmp_path, epochs=2)
    with pytest.raises(
        ValueError, match=r"`initial_epoch` .* must be 2 .* Received: 0"
    ):
        make_model().fit(
            *arrays(), epochs=3, verbose=0, callbacks=[RunCheckpoint(tmp_path)]
        )


def test_data_of_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Received: generator"):
        fit_run(make_model(), (x for x in ()), folder=tmp_path, epochs=1)


def test_arrays_of_any_kind_train_as_plain_ones(tmp_path: Path) -> None:
    """Big-endian inputs, masked labels and None, whole numbers beyond int32."""
    x, y = arrays()
    size = np.round(y["size"] * 4)
    large = np.arange(20) % 4 * 2**40

    def train(folder: str, x: Any, labels: dict) -> kmtl.MultiTaskModel:
        tasks = [*TASKS, kmtl.Regression("large")]
        model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(6,), seed=0)
        model.compile(keras.optimizers.SGD(1e-30))
        fit_run(model, (x, labels), folder=tmp_path / folder, epochs=1, verbose=0)
        return model

    plain = {
        "kind": y["kind"],
        "size": np.where(y["size"] > 1, np.nan, size).astype("float32"),
        "large": large.astype("float32"),
    }
    given = {
        "kind": np.array([None if k < 0 else k for k in y["kind"]], "object"),
        "size": np.ma.masked_array(size, y["size"] > 1),
        "large": large,
    }
    wide = np.round(x * 2.0**33)
    first = train("plain", wide.astype("float32"), plain)
    second = train("given", wide.astype("int64").astype(">i8"), given)
    for name, values in first.history.history.items():
        assert np.isfinite(values).all(), name
        assert second.history.history[name] == pytest.approx(values, rel=1e-5), name


def test_order_of_batches_depends_on_seed_and_epoch_alone() -> None:
    x = np.arange(10.0)

    def epochs(first: int, count: int, **options: Any) -> list[list[float]]:
        batches = ShuffledBatches(
            x, {"a": x}, batch_size=4, first_epoch=first, **options
        )
        seen = []
        for _ in range(count):
            batches.on_epoch_begin()
            parts = [batches[i] for i in range(len(batches))]
            assert all((part[0] == part[1]["a"]).all() for part in parts)
            seen.append(np.concatenate([part[0] for part in parts]).tolist())
            np.random.default_rng().random()
            batches.on_epoch_end()
        return seen

    whole = epochs(0, 4)
    assert epochs(2, 2) == whole[2:]
    assert all(sorted(order) == x.tolist() for order in whole)
    assert len({tuple(order) for order in whole}) == 4
    assert epochs(0, 4, seed=1) != whole


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import os, signal
import numpy as np
import test_runs as t
folder, epoch, batch = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if batch == -1:  # in the middle of writing the checkpoint of this epoch
    savez = np.savez
    def kill(path, **arrays):
        savez(path, **arrays)
        if "epoch-%06d" % epoch in str(path):
            os.kill(os.getpid(), signal.SIGKILL)
    np.savez = kill
t.run(folder, t.Interrupt(epoch, batch, kill=True))
"""


@pytest.mark.thorough(on="jax")
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_process_loses_nothing(tmp_path: Path, reference: tuple) -> None:
    script = KILLED.format(tests=str(Path(__file__).parent))
    for epoch, batch, finished in ((1, 1, 1), (2, -1, 1)):
        done = subprocess.run(
            [
                *(sys.executable, "-c", script, str(tmp_path / "parts")),
                *(str(epoch), str(batch)),
            ],
            env={**os.environ, "PYTHONPATH": str(Path(kmtl.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        names = [p.name for p in (tmp_path / "parts" / "checkpoints").glob("epoch-*")]
        assert max(names) == f"epoch-{finished:06d}.npz"
    resumed = run(tmp_path / "parts")
    assert resumed[1].epoch == reference[1].epoch
    for name, values in reference[1].history.items():
        np.testing.assert_allclose(resumed[1].history[name], values, rtol=1e-5)


@pytest.mark.parametrize("name", ["pcgrad", "rlw", "graddrop"])
def test_the_seed_is_that_of_the_weighting_too(name: str, tmp_path: Path) -> None:
    """Three tasks: of two, PCGrad's order changes nothing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4)).astype("float32")
    tasks = [kmtl.Regression(letter) for letter in "abc"]
    y = {task.name: rng.normal(size=40) for task in tasks}
    losses = []
    for number, seed in enumerate((0, 0, 1)):
        model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(6,), seed=0)
        model.compile(keras.optimizers.Adam(0.05), weighting=name)
        run = fit_run(
            *(model, (x, y)),
            folder=tmp_path / str(number),
            epochs=2,
            batch_size=40,
            seed=seed,
            verbose=0,
        )
        losses.append(
            run.history["loss"] + [float(model.predict(x, verbose=0)["a"][0, 0])]
        )
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
