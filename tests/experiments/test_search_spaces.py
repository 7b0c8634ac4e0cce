"""Where good trials are: the table follows from the searches that are there."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
from script_tools import run_script

from kmtl.tuning.defaults import RANGES

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "search_spaces"


def test_the_table_is_that_of_the_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("spaces", FOLDER / "run.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(["--out", str(tmp_path)])
    found = (tmp_path / "README.md").read_text("utf-8")
    assert found == (FOLDER / "README.md").read_text("utf-8")
    spaces = {"with all three": [0.5, 0.125], "learning rate and dropout": [0.25]}
    rows = [{"space": name, "behind": behind} for name, behind in spaces.items()]
    (tmp_path / "random.json").write_text(json.dumps({"searches": rows}), "utf-8")
    monkeypatch.setattr(script, "HERE", tmp_path)
    assert "(0.125\nbehind, 0.250 without them)" in script.end()
    # What comes within 1 of the best can be found by default.
    near = [t for search in script.searches() for t in search if t["behind"] <= 1]
    for name in ("learning_rate", "dropout"):
        span = RANGES[name]
        assert all(span.low <= trial[name] <= span.high for trial in near), name
    edges = script.PARTS["dropout"]
    assert [script.part_of(v, edges) for v in (0.0, 0.05, 0.31, 0.5)] == [0, 1, 4, 4]
    with pytest.raises(ValueError, match="not in what was searched"):
        script.part_of(0.6, edges)


def random_trials(folder: Path, *options: str) -> tuple[dict, str]:
    """random.json and RANDOM.md of a run in a process of its own."""
    run_script("search_spaces/random_trials.py", *options, "--out", folder)
    found = json.loads((folder / "random.json").read_text("utf-8"))
    return found, (folder / "RANDOM.md").read_text("utf-8")


@pytest.mark.slow
def test_rules_are_weighed_by_the_trials_that_are_there(tmp_path: Path) -> None:
    """Eight trials of 15 epochs: the one that ends best is third until the tenth."""
    values = {"learning_rate": 0.01, "dropout": 0.0, "sharing_depth": 1}
    ends = [0.9, 0.5, 0.6, 0.4, 0.3, 0.3, 0.2, 0.1]
    curves = [[end / 2] * 10 + [end] * 5 for end in ends]
    curves[0] = [0.24] * 10 + [0.9] * 5
    trials = [{"values": values, "curve": curve} for curve in curves]
    runs = tmp_path / "runs_random.jsonl"
    record = {"set": "edm", "epochs": 15, "trials": trials}
    runs.write_text(json.dumps(record) + "\n", "utf-8")
    found, text = random_trials(tmp_path, "--report")
    # Their distances from the best one are 0, .4, .3, .5, .6, .6, .7 and .8.
    assert "| 0.01 to 0.02 | 8 | 0.550 | 12% | 12% |" in text
    [rows] = found["rules"].values()
    rules = {row["rule"]: row for row in rows}
    assert rules["none"] == {"rule": "none", "cost": 1.0, "kept": 1.0, "loss": 0.0}
    half = rules["at 1/2, one in 2 (the default)"]
    assert 0.5 < half["cost"] < 0.9
    early = rules["from 1/5 on, one in 3"]
    assert early["cost"] < half["cost"]
    # Where it is not the first of all to begin, two others are ahead of it early.
    assert early["kept"] < half["kept"]
    assert early["loss"] == pytest.approx((1 - early["kept"]) * 0.3, abs=0.05)


@pytest.mark.slow
@pytest.mark.thorough
def test_fast_mode_of_random_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # as its command says
    _, text = random_trials(tmp_path, "--fast")
    assert "which means nothing" in text
    [line] = (tmp_path / "runs_random_fast.jsonl").read_text("utf-8").splitlines()
    assert [len(trial["curve"]) for trial in json.loads(line)["trials"]] == [8] * 6
    [line] = (tmp_path / "runs_size_fast.jsonl").read_text("utf-8").splitlines()
    spaces = [trial["space"] for trial in json.loads(line)["trials"]]
    assert len(spaces) == len(set(spaces)) == 6
    [line] = (tmp_path / "runs_size_test_fast.jsonl").read_text("utf-8").splitlines()
    assert list(map(len, json.loads(line)["scores"].values())) == [5] * 5


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script's second part."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("sizes")


@pytest.fixture
def nets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("size_nets")


def test_weight_decay_as_a_variable_is_that_of_adamw(nets: ModuleType) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 3)), rng.normal(size=(32, 1))
    weights = []
    for decay, optimizer in (
        (0.5, nets.Decayed(0.1)),
        (None, keras.optimizers.AdamW(0.1, weight_decay=0.5)),
        (0.0, nets.Decayed(0.1)),
        (None, keras.optimizers.Adam(0.1)),
    ):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(optimizer, "mse")
        optimizer.build(model.trainable_variables)
        if decay is not None:
            optimizer.decay.assign(decay)
        model.fit(x, y, epochs=3, batch_size=8, shuffle=False, verbose=0)
        weights.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-5)
    np.testing.assert_allclose(weights[2], weights[3], rtol=1e-5)
    assert np.abs(weights[0] - weights[2]).max() > 0.01


def test_trials_draw_what_their_space_has(sizes: ModuleType) -> None:
    found = sizes.drawn(20, 0)
    assert found == sizes.drawn(20, 0) != sizes.drawn(20, 1)
    assert len(found) == 20 * 6
    for space, values in found:
        own = sizes.SPACES.get(space, (sizes.DECAY,))
        for name, fixed in sizes.FIXED.items():
            assert name in own or values[name] == fixed
        assert 5e-4 <= values["learning_rate"] <= 5e-2
        assert 0 <= values["dropout"] <= 0.3
    rates = [values["learning_rate"] for _, values in found]
    assert rates == rates[:20] * 6
    drawn = [values for space, values in found if space == "with all three"]
    assert {values["width"] for values in drawn} == {16, 32, 64, 128, 256}
    assert {values["blocks"] for values in drawn} == {1, 2, 3, 4}
    assert max(values[sizes.DECAY] for values in drawn) <= 0.1
    wide = [values[sizes.DECAY] for space, values in found if space == sizes.WIDE]
    assert max(wide) > 0.1


def test_searches_with_and_without_sizes_are_compared(sizes: ModuleType) -> None:
    """Of four trials of each space the last is .2 better: 256 wide, where it can be."""
    trials = []
    for space, own in {**sizes.SPACES, sizes.WIDE: (sizes.DECAY,)}.items():
        for number in range(4):
            best = number == 3
            values = {"learning_rate": 0.01, "dropout": 0.1, **sizes.FIXED}
            if "width" in own:
                values["width"] = 256 if best else 16
            if sizes.DECAY in own:
                values[sizes.DECAY] = 0.5 if space == sizes.WIDE else 1e-3
            score = 0.5 + 0.2 * best + 0.1 * ("width" in own)
            trials.append({"space": space, "values": values, "score": score})
    runs = [{"set": "edm", "epochs": 30, "trials": trials}]
    tested = [{"set": "edm", "scores": {space: [0.5, 0.75] for space in sizes.SPACES}}]
    settings = {"epochs": 30, "trials": 4, "draws": 50}
    lines, rows = sizes.section(runs, tested, settings)
    text = "\n".join(lines)
    assert "| 16 | 6 | 0.200 | 0% | 0% |" in text  # with width, with all three
    assert "| 256 | 2 | 0.000 | 100% | 100% |" in text
    assert "| 0 to 1e-05 | 4 | 0.300 | 0% | 0% |" in text
    assert "| 0.1 to 1 | 4 | 0.300 | 0% | 0% |" in text
    assert "| edm | 0.625 | 0.625 | 0.625 | 0.625 | 0.625 |" in text
    found = {row["space"]: row for row in rows}
    plain, width = found["learning rate and dropout"], found["with width"]
    assert (plain["within"], plain["trials"], plain["compiled"]) == (0, None, 1)
    assert (width["within"], width["compiled"]) == (1, 2)
    assert width["trials"] in (2, 3)
    assert plain["by problem"]["edm"] == pytest.approx(0.1)
    assert width["behind"] == pytest.approx([0, 0, 0])
