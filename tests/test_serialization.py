"""`import kmtl` alone lets Keras load kmtl's classes, and imports no backend."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import kmtl
from kmtl._serialization import SAVED_CLASS

PACKAGE = Path(kmtl.__file__).parent
SECONDS = 120

# A stand-in for Keras, so that the hook is tested in milliseconds and can be made to
# fail.
FAKE_KERAS = """
class saving:
    objects = {}

    def get_custom_objects():
        return saving.objects
"""
SETUP = """
import sys, threading
import kmtl

def entered():
    return "kmtl>Dropout" in sys.modules["keras"].saving.objects
"""


def run(code: str, path: Path, **environment: str) -> str:
    """Run Python in a new process that finds modules in `path` first."""
    paths = [str(path), str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    finished = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)],
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A folder with a fake `keras`."""
    (tmp_path / "keras.py").write_text(FAKE_KERAS)
    return tmp_path


def test_import_kmtl_imports_no_backend(tmp_path: Path) -> None:
    code = """
    import sys, kmtl
    dir(kmtl)
    heavy = {"keras", "tensorflow", "jax", "numpy", "keras_tuner", "matplotlib"}
    print(sorted(heavy & set(sys.modules)))
    """
    assert run(code, tmp_path) == "[]\n"


def test_classes_are_entered_when_keras_comes_later(fake: Path) -> None:
    code = f"""{SETUP}
assert "keras" not in sys.modules
import keras
assert entered()
assert "kmtl.layers" not in sys.modules  # nothing of kmtl was imported for it
"""
    run(code, fake)


def test_classes_are_entered_at_once_when_keras_is_there(fake: Path) -> None:
    run(f"import keras\n{SETUP}\nassert entered()", fake)


def test_a_class_that_is_there_stays(fake: Path) -> None:
    with (fake / "keras.py").open("a") as file:
        file.write("\nsaving.objects['kmtl>Dropout'] = 'the class'")
    code = f"{SETUP}\nimport keras\nassert entered()\nprint(keras.saving.objects)"
    assert "'kmtl>Dropout': 'the class'" in run(code, fake)


def test_failed_import_of_keras_is_not_the_last_chance(fake: Path) -> None:
    (fake / "broken.py").write_text("now = True")
    (fake / "keras.py").write_text("import broken\nif broken.now: 1 / 0\n" + FAKE_KERAS)
    code = f"""{SETUP}
import broken
try:
    import keras
except ZeroDivisionError:
    pass
else:
    raise SystemExit("the error of keras was swallowed")
assert "keras" not in sys.modules
broken.now = False
import keras
assert entered()
"""
    run(code, fake)


def test_missing_keras_raises_its_own_error(fake: Path) -> None:
    code = f"""{SETUP}
sys.modules["keras"] = None
try:
    import keras
except ModuleNotFoundError as error:
    assert error.name == "keras"
else:
    raise SystemExit("no error")
"""
    run(code, fake)


def test_looking_keras_up_is_not_importing_it(fake: Path) -> None:
    code = f"""{SETUP}
import importlib.util
spec = importlib.util.find_spec("keras")
assert spec.origin.endswith("keras.py") and "keras" not in sys.modules
import keras
assert entered()
"""
    run(code, fake)


def test_threads_that_import_keras_and_kmtl_at_once(fake: Path) -> None:
    """kmtl begins while another thread is in the middle of Keras."""
    (fake / "meet.py").write_text(
        "import threading; begun = threading.Event(); go_on = threading.Event()"
    )
    (fake / "keras.py").write_text(
        "import meet; meet.begun.set(); assert meet.go_on.wait(20)\n" + FAKE_KERAS
    )
    code = """
    import importlib, sys, threading, meet
    first = threading.Thread(target=importlib.import_module, args=["keras"])
    first.start()
    assert meet.begun.wait(20)
    second = threading.Thread(target=importlib.import_module, args=["kmtl"])
    second.start()
    meet.go_on.set()
    first.join(), second.join()
    assert "kmtl>Dropout" in sys.modules["keras"].saving.objects
    """
    run(code, fake)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a kmtl layer, saved by Keras."""
    import keras

    from kmtl.layers import Dropout

    path = tmp_path_factory.mktemp("saved") / "model.keras"
    keras.Sequential([keras.Input((3,)), Dropout(0.25)]).save(path)
    return path


@pytest.mark.parametrize(
    "order",
    [
        "import kmtl, keras",
        "import kmtl.layers.transfer, keras",  # which imports Keras half-way
    ],
)
def test_keras_loads_a_kmtl_layer_in_a_new_process(saved: Path, order: str) -> None:
    code = f"""
    {order}
    model = keras.models.load_model({str(saved)!r})
    print(type(model.layers[-1]).__module__)
    """
    assert run(code, saved.parent) == "kmtl.layers.dropout\n"


def test_every_class_has_a_stand_in_that_gives_way(tmp_path: Path) -> None:
    """All that kmtl's modules register was found in their texts, and the reverse."""
    code = """
    import importlib, kmtl, keras
    from kmtl._serialization import StandIn
    found = keras.saving.get_custom_objects()
    announced = {name for name, cls in found.items() if isinstance(cls, StandIn)}
    for module in {stand_in.module for stand_in in list(found.values())}:
        importlib.import_module(module)
    assert "kmtl>Dropout" in announced
    left = {name for name, cls in found.items() if isinstance(cls, StandIn)}
    print(left, set(found) - announced)
    """
    assert run(code, tmp_path) == "set() set()\n"


def test_classes_are_registered_in_the_way_that_is_looked_for() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name != "_serialization.py":
            text = path.read_text("utf-8")
            uses = text.count("register_keras_serializable(package=")
            assert uses == len(SAVED_CLASS.findall(text)), path


@pytest.mark.backend
def test_load_model_returns_the_saved_model(saved: Path) -> None:
    layer = kmtl.load_model(saved).layers[-1]
    assert type(layer).__module__ == "kmtl.layers.dropout"
    assert float(layer.rate) == 0.25
