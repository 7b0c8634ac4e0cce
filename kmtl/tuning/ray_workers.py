"""Workers of a search on all nodes of a Ray cluster."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import keras

from kmtl import _checks
from kmtl.tuning.workers import END_SECONDS, SOURCE, Workers, shares
from kmtl.typing import Tuner

logger = logging.getLogger("kmtl")

#: Status of a process whose node or actor is gone.
LOST = "lost"


@dataclass(frozen=True)
class Ray:
    """As `workers` of a tuner: a worker on every place of a Ray cluster.

    Every worker is a Ray actor, which runs a process as `workers=N` does on one
    machine. One that dies, or whose node is lost, is replaced by another wherever there
    is room, and its trial goes on from its checkpoint. Ray itself, its version and
    that of Python are the same on all nodes, and kmtl is installed on them.

    `ray.init` is left to the caller where it needs arguments (as `runtime_env`, for
    modules of yours that the nodes do not have); else the cluster is that of
    `RAY_ADDRESS`, the one running on this machine, or this machine alone.

    Args:
        num_workers: Integer >= 1. Defaults to as many as the cluster has places for
            when the search begins, and no more than its trials.
        num_cpus: CPUs of a worker, > 0. Defaults to 1.
        num_gpus: GPUs of a worker, >= 0; 0.5 puts two on one. Defaults to 1 on a
            cluster that has any, else 0.

    Example:

    >>> kmtl.tuning.Ray(num_cpus=4)
    Ray(num_workers=None, num_cpus=4, num_gpus=None)
    """

    num_workers: int | None = None
    num_cpus: float = 1
    num_gpus: float | None = None

    def __post_init__(self) -> None:
        if self.num_workers is not None:
            _checks.check_int("num_workers", self.num_workers, 1)
        _checks.check_range("num_cpus", self.num_cpus, 0, low_open=True)
        if self.num_gpus is not None:
            _checks.check_range("num_gpus", self.num_gpus, 0)


def check_workers(workers: Any) -> int | Ray:
    """The `workers` argument of a tuner, if it can be one."""
    if workers == "ray":
        workers = Ray()
    if isinstance(workers, Ray):
        _import_ray()
        return workers
    if isinstance(workers, str):
        raise ValueError(
            "`workers` must be an integer >= 1, 'ray' or a kmtl.tuning.Ray. "
            f"Received: workers={workers!r}"
        )
    return _checks.check_int("workers", workers, 1)


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "`workers='ray'` needs the package ray, on every node: "
            'pip install "kmtl[ray]"'
        ) from error
    return ray


def check_cluster(tuner: Tuner) -> None:
    """Connect to the cluster, if the tuner's workers are on one that can do."""
    if not isinstance(tuner.workers, Ray):
        return
    ray = _import_ray()
    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    hosts = {str(node["NodeManagerHostname"]) for node in _alive(ray.nodes())}
    check_storage_reach(tuner.storage, hosts | {socket.gethostname()})


def _alive(nodes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [node for node in nodes if node["Alive"]]


def check_storage_reach(storage: str | None, hosts: Iterable[str]) -> None:
    """Refuse a storage of one machine for a search on several."""
    hosts = sorted(hosts)
    if len(hosts) == 1:
        return
    shown = storage
    if storage is not None and "://" in storage:
        from sqlalchemy.engine import make_url

        url = make_url(storage)
        shown = str(url)  # without its password
        here = (None, "", "localhost", "127.0.0.1", "::1")
        # Drivers also take the host as an option.
        if not url.drivername.startswith("sqlite") and (
            url.host not in here or "host" in url.query
        ):
            return
    raise ValueError(
        f"`workers='ray'` on {len(hosts)} machines needs a `storage` that all of them "
        "reach: the URL of a database server, as "
        "'postgresql+psycopg://USER:PASSWORD@HOST/DATABASE'. A journal file, SQLite "
        "and a server that listens on localhost do on one machine. "
        f"Received: storage={shown!r}, machines: {', '.join(hosts)}"
    )


def count_places(
    nodes: Iterable[Mapping[str, Any]], num_cpus: float, num_gpus: float
) -> int:
    """How many workers the nodes have room for, as `ray.nodes()` lists them."""
    total = 0
    for node in _alive(nodes):
        has = node["Resources"]
        room = has.get("CPU", 0) // num_cpus
        if num_gpus:
            room = min(room, has.get("GPU", 0) // num_gpus)
        total += int(room)
    return total


def workers_of(tuner: Tuner, job: Mapping[str, Any]) -> Workers:
    """The workers that a tuner was told to have, which do `job`."""
    if isinstance(tuner.workers, Ray):
        return RayWorkers(tuner, tuner.workers, job)
    return Workers(tuner, tuner.workers, job)


class RayWorkers(Workers):
    """The workers of one call of `search`, on a cluster."""

    def __init__(self, tuner: Tuner, wanted: Ray, job: Mapping[str, Any]):
        self._ray = ray = _import_ray()
        nodes = ray.nodes()
        gpus = wanted.num_gpus
        if gpus is None:
            gpus = min(1, count_places(nodes, 1, 1))
        count = wanted.num_workers or count_places(nodes, wanted.num_cpus, gpus)
        if not count:
            raise ValueError(
                "No node of the Ray cluster has room for a worker. Give less to each: "
                "`workers=kmtl.tuning.Ray(num_cpus=1, num_gpus=0)`; or `num_workers` "
                "for a cluster that grows by itself. Received: "
                f"num_cpus={wanted.num_cpus}, num_gpus={gpus}, a cluster of "
                f"{ray.cluster_resources()}"
            )
        if wanted.num_workers is None:
            count = min(count, tuner.oracle.expected_trials or count)
        super().__init__(tuner, count, job)
        self._until = job["until"]
        self._finished = False
        self._seen: set[str] = set()
        self._job_there = ray.put(self._job)  # once per node, not per worker
        self._actor = ray.remote(_actor_class()).options(
            num_cpus=wanted.num_cpus,
            num_gpus=gpus,
            max_concurrency=2,  # `stop` while `run` runs
            runtime_env={"env_vars": {"KERAS_BACKEND": keras.backend.backend()}},
        )
        self._defaults = shares(wanted.num_cpus, 0 < gpus < 1)

    def _goes_on(self) -> bool:
        places = list(self._processes.values())
        for place in places:
            self._look_at(place)
        if any(place.where for place in places):
            return True
        # Nothing is left to begin: none needs the nodes that others wait for.
        return bool(places) and not self._finished and time.time() < self._until

    def _look_at(self, place: Place) -> None:
        if place.find() and not place.sees and place.where not in self._seen:
            self._seen.add(place.where)
            logger.warning(
                "%s does not see the folder '%s' of the search: checkpoints of its "
                "trials stay there. A `directory` that all nodes see keeps them for "
                "whoever goes on, and the best models for this process.",
                place.where,
                self.folder.parent,
            )

    def _start(self, number: int) -> None:
        log = str(self._log(number))
        actor = self._actor.remote()
        started = actor.run.remote(number, self._job_there, log, self._defaults, SOURCE)
        # A file of this search alone: who sees it shares its folder.
        mark = self.folder / f"{self.tuner.oracle.owner.record['id']}.lock"
        found = actor.where.remote(str(mark))
        self._processes[number] = Place(self._ray, actor, started, found)

    def _name(self, number: int) -> str:
        where = self._last_place.where
        return f"Worker {number} ({where})" if where else f"Worker {number}"

    def _last_lines(self, number: int, process: Any) -> str:
        return f"What {self._name(number)} wrote last:\n{process.tail}"

    def _ended(self, number: int, process: Any) -> None:
        self._last_place: Place = process
        process.kill()  # its place is for others
        self._finished |= process.returncode == 0
        super()._ended(number, process)


class Place:
    """An actor with its process, under the names that `subprocess.Popen` has for it.

    `started` and `found` are what its `run` and its `where` will return.
    """

    def __init__(self, ray: ModuleType, actor: Any, started: Any, found: Any):
        self._ray = ray
        self._actor = actor
        self._started = started
        self._found = found
        self.returncode: int | str | None = None
        self.stdout = io.BytesIO()
        self.tail = ""
        #: The node, once it has one.
        self.where = ""
        self.sees = True

    def find(self) -> bool:
        """Whether it has a node, which is asked once."""
        if not self.where and self._is_ready(self._found):
            with contextlib.suppress(*self._losses()):
                self.where, self.sees = self._ray.get(self._found)
        return bool(self.where)

    def poll(self) -> int | str | None:
        if self.returncode is None and self._is_ready(self._started):
            self.find()
            try:
                self.returncode, answer, self.tail = self._ray.get(self._started)
                self.stdout = io.BytesIO(answer)
            except self._losses() as error:
                self.returncode, self.tail = LOST, str(error)
        return self.returncode

    def terminate(self) -> None:
        if self.find():
            self._actor.stop.remote()
        else:  # it may wait for a node for ever
            self.kill()

    def wait(self, timeout: float | None = None) -> int | str | None:
        if not self._is_ready(self._started, timeout):
            raise subprocess.TimeoutExpired("run", timeout or 0)
        status = self.poll()
        self.kill()
        return status

    def kill(self) -> None:
        if self.where and self.poll() is None:  # its process would survive the actor
            self._actor.stop.remote(now=True)
            self._is_ready(self._started, END_SECONDS)
        self._ray.kill(self._actor)

    def _is_ready(self, reference: Any, timeout: float | None = 0) -> bool:
        return bool(self._ray.wait([reference], timeout=timeout)[0])

    def _losses(self) -> tuple[type[Exception], ...]:
        errors = self._ray.exceptions
        return (errors.RayActorError, errors.NodeDiedError, errors.OutOfMemoryError)


def _actor_class() -> type:
    """The class of the actors.

    Made in a function, and with nothing of this module in it, so that Ray sends its
    code: actors that import kmtl would hold all of Keras beside the worker's own.
    """

    class Worker:
        def __init__(self) -> None:
            self.process: Any = None
            self.stopped = False

        def where(self, mark: str) -> tuple[str, bool]:
            """Name of the node, and whether it sees the file `mark`."""
            import os

            import ray

            node = ray.get_runtime_context().get_node_id()
            name = f"node {node[:8]} on {ray.util.get_node_ip_address()}"
            return name, os.path.exists(mark)

        def run(
            self, number: int, job: bytes, log: str, defaults: dict, source: str
        ) -> tuple[int, bytes, str]:
            """Its status, its standard output and the end of its log, once it has
            ended.
            """
            import os
            import subprocess
            import sys

            if self.stopped:
                return 0, b"", ""
            environment = {**defaults, **os.environ}
            paths = [source, os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
            os.makedirs(os.path.dirname(log), exist_ok=True)
            with open(log, "ab") as file:
                self.process = process = subprocess.Popen(
                    [sys.executable, "-m", "kmtl.tuning.worker", str(number)],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    start_new_session=True,
                )
            answer, _ = process.communicate(job)
            with open(log, "rb") as written:
                end = written.seek(0, os.SEEK_END)
                written.seek(max(0, end - 4000))
                tail = written.read().decode("utf-8", "replace")
            return process.returncode, answer, tail

        def stop(self, now: bool = False) -> None:
            """End the process: in order, so that its trial is given back, or now."""
            self.stopped = True
            if self.process is not None:
                (self.process.kill if now else self.process.terminate)()

    return Worker
