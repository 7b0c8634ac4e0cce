"""Makes `keras.models.load_model` find kmtl's classes after a bare `import kmtl`.

Keras finds custom classes only in its registry, and a class enters the registry when
its module is imported. kmtl's modules import Keras, which `import kmtl` must not. So,
where Keras is not there yet, a finder waits on `sys.meta_path` until Keras has been
imported by anybody, imports kmtl's serialisable modules, and takes itself away.

They are not imported while another kmtl module is half executed: the module that
caused the import of Keras may be one which they need. The finder therefore watches
kmtl's own modules too, and registers when the outermost of them is complete.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# Packages of which every module may register classes, and single modules.
PACKAGES = (
    "kmtl.layers",
    "kmtl.metrics",
    "kmtl.relations",
    "kmtl.tasks",
    "kmtl.weighting",
)
MODULES = ("kmtl.training.model",)


def serialisable_modules() -> list[str]:
    """Names of the modules that define classes which Keras saves and loads."""
    found = []
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        found += [f"{package}.{module.name}" for module in pkgutil.iter_modules(path)]
    return found + list(MODULES)


def register() -> None:
    """Import every serialisable module, and with it Keras. Errors are not caught."""
    for module in serialisable_modules():
        importlib.import_module(module)


def load_model(path: Any, **options: Any) -> keras.Model:
    """Load a model saved with `model.save("x.keras")`.

    The same as `keras.models.load_model` after `import kmtl`, and exempt from import
    order: kmtl's classes are registered before the file is read.

    Args:
        path: String or path of the `.keras` file.
        **options: What `keras.models.load_model` accepts: `custom_objects`,
            `compile`, `safe_mode`.

    Returns:
        The model, with the class it was saved with.
    """
    register()
    import keras

    return keras.models.load_model(path, **options)


def install() -> None:
    """Register now if Keras is there, else as soon as it is. Safe to call again."""
    if "keras" in sys.modules:
        importlib.import_module("keras")  # waits where another thread imports it
    if _is_complete("keras"):
        register()
    elif _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def _is_complete(name: str) -> bool:
    """Whether a module has been imported to its end."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return module is not None and not getattr(spec, "_initializing", False)


class _WatchingLoader(Loader):
    """Runs another loader, with a call before and after it executes the module."""

    def __init__(
        self, loader: Any, before: Callable[[], None], after: Callable[[bool], None]
    ) -> None:
        self._loader = loader
        self._before = before
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # get_source, get_code, is_package, ...

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module looks as if it had never been watched.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._before()
        done = False
        try:
            self._loader.exec_module(module)
            done = True
        finally:
            self._after(done)


class _RegisteringFinder(MetaPathFinder):
    """Calls `register` once Keras is imported and no kmtl module is half executed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executing = 0  # kmtl modules being executed, in all threads
        self._keras_done = False
        self._registering = False
        self._finding = threading.local()  # names that this thread is looking up

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The spec that the other finders give, with its loader watched."""
        if fullname != "keras" and not fullname.startswith("kmtl."):
            return None
        names: set[str] = self._finding.__dict__.setdefault("names", set())
        if fullname in names:  # asked again by a finder that asks all finders, as we do
            return None
        names.add(fullname)
        try:
            spec = self._ask_others(fullname, path, target)
        finally:
            names.discard(fullname)
        if spec is None or spec.loader is None:
            return spec
        if not hasattr(spec.loader, "exec_module"):
            return spec
        if fullname == "keras":
            watched = _WatchingLoader(spec.loader, lambda: None, self._after_keras)
        else:
            watched = _WatchingLoader(spec.loader, self._before_kmtl, self._after_kmtl)
        spec.loader = watched
        return spec

    def _ask_others(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                return spec
        return None

    def _after_keras(self, done: bool) -> None:
        if done:  # else the finder waits for the next attempt
            with self._lock:
                self._keras_done = True
            self._register_if_possible()

    def _before_kmtl(self) -> None:
        with self._lock:
            self._executing += 1

    def _after_kmtl(self, done: bool) -> None:
        with self._lock:
            self._executing -= 1
        if done:
            self._register_if_possible()

    def _register_if_possible(self) -> None:
        with self._lock:
            if self._registering or self._executing:
                return
            # Complete without our seeing it: its import began before ours.
            if not self._keras_done and not _is_complete("keras"):
                return
            self._registering = True
        try:
            register()
            if self in sys.meta_path:
                sys.meta_path.remove(self)
        finally:
            with self._lock:
                self._registering = False


_finder = _RegisteringFinder()
