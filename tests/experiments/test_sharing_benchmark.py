"""The sharing benchmark: fair nets, bars, and that its fast mode runs."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from script_tools import run_script

import kmtl
from kmtl import _registry

BENCHMARKS = Path(__file__).resolve().parents[2] / "experiments" / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of the benchmark."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield module
    for name in set(sys.modules) - before:
        if name.startswith(("sharing", "weighting")):
            del sys.modules[name]


@pytest.mark.parametrize("net", ["mlp", "cnn", "wide"])
def test_hard_sharing_of_as_many_parameters(load, net: str) -> None:
    nets = load("sharing_nets")
    for target in (20_000, 60_000):
        model = nets.equal_hard(net, 2, target, small=True, alike=False)
        found = kmtl.summary(model).total.parameters
        assert found == pytest.approx(target, rel=0.05)
        assert found == nets._hard_parameters(net, 2, _trunk(nets, net, model))


def _trunk(nets, net, model):
    """A backbone with the widths of the model's blocks."""
    kind = "dense" if net == "mlp" else "conv"
    if net == "wide":
        kind = "conv2_conv"
    widths = []
    while layer := _layer(model, f"shared_block{len(widths) + 1}_{kind}"):
        widths.append(layer.output.shape[-1])
    if net == "mlp":
        return kmtl.backbones.MLP(units=tuple(widths))
    return kmtl.backbones.CNN(filters=tuple(widths), convs=2 if net == "wide" else 1)


def _layer(model, name):
    return next((layer for layer in model.layers if layer.name == name), None)


def test_every_scheme_is_measured_or_named(load) -> None:
    nets = load("sharing_nets")
    left_out = set(_registry.names("sharing")) - set(nets.schemes("mlp", 2))
    # For tasks of other kinds, and what others leave when they are hardened.
    assert left_out == {"aitm", "esmm", *nets.DENSE, "selected_blocks"}


def test_bars_and_command(load) -> None:
    report = load("sharing_report")
    own, peer = {"milliseconds": 3.0}, {"milliseconds": 4.0}
    assert report._against("tensorflow", own, peer) == "0.75"
    assert report._against("jax", own, peer) == "0.75 **miss**"
    assert report._against("jax", own, None) == "–"
    hidden = report.command(["--fast", "--out", "x", "--torch-python=/secret"])
    assert hidden.endswith("sharing.py --fast --out PATH")


def test_fast_mode_leaves_results_alone(load) -> None:
    options = load("sharing").parse(["--fast"])
    assert options.out != BENCHMARKS
    assert load("sharing").parse([]).out == BENCHMARKS


@pytest.mark.slow
@pytest.mark.thorough
def test_fast_mode(tmp_path: Path) -> None:
    options = ["--fast", "--backends", "jax", "--schemes", "mmoe", "--out", tmp_path]
    run_script("benchmarks/sharing.py", *options)
    record = json.loads((tmp_path / "sharing.json").read_text("utf-8"))
    (entry,) = record["time"][0]["entries"]
    assert entry["scheme"] == "mmoe"
    assert entry["parameters"] == pytest.approx(entry["hard_parameters"], rel=0.1)
    assert "`mmoe`" in (tmp_path / "SHARING.md").read_text("utf-8")
