"""Finished nets in a folder, so that a search can go on."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from kmtl import _files, _swap
from kmtl.tabular.candidate import Candidate
from kmtl.tabular.nets import Net

RECORD, TRIALS = "table_search.json", "trials.jsonl"
REMEDY = "Move the folder away, and the search begins anew."


class _Trials(_files.Records):
    KEY = ("name", "seed")


class Journal:
    """What a search has finished.

    Args:
        folder: Where it is kept; made if need be.
        record: What the search depends on: its nets are of no use to another one.

    Raises:
        ValueError: if the folder is of another search.
        FileExistsError: if other files are in it.
    """

    def __init__(self, folder: Path, record: dict[str, Any]):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / RECORD
        if path.exists():
            known = _files.read_json(path, REMEDY)
            other = [key for key in record if known.get(key) != record[key]]
            if other:
                raise ValueError(
                    "`directory` must be of the same search, to go on with it: give "
                    "another one, or what was given before. Received: "
                    f"directory='{folder}', where {', '.join(other)} "
                    f"{'differs' if len(other) == 1 else 'differ'}"
                )
        elif any(folder.iterdir()):
            raise FileExistsError(
                "`directory` must be empty, or of a search of kmtl.fit_table. "
                f"Received: directory='{folder}', which holds other files"
            )
        else:
            _files.write_json(path, record)
        self._trials = _Trials(folder / TRIALS)

    @property
    def seconds(self) -> float:
        """Time of all its nets."""
        return sum(found["seconds"] for found in self._trials.found.values())

    def add(self, candidate: Candidate, seed: int, net: Net | str) -> None:
        """Keep a net, or why there is none."""
        record: dict[str, Any] = {"name": candidate.name, "seed": seed}
        if isinstance(net, str):
            self._trials.add({**record, "failure": net, "seconds": 0.0})
            return
        arrays = {f"weight{i}": value for i, value in enumerate(net.weights)}
        arrays |= {f"answers_{name}": value for name, value in net.answers.items()}
        path = self._path(candidate, seed)
        path.parent.mkdir(exist_ok=True)
        with _swap.file_beside(path) as made, open(made, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        self._trials.add(
            {
                **record,
                "epochs": net.epochs,
                "seconds": net.seconds,
                "skills": net.skills,
                "cut_from": net.cut_from,
            }
        )

    def net(self, candidate: Candidate, seed: int) -> Net | str | None:
        """A finished net, why there is none, or None where it is not finished."""
        found = self._trials.found.get((candidate.name, seed))
        if found is None:
            return None
        if "failure" in found:
            return str(found["failure"])
        path = self._path(candidate, seed)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                count = sum(name.startswith("weight") for name in arrays.files)
                weights = [arrays[f"weight{i}"] for i in range(count)]
                answers = {name: arrays[f"answers_{name}"] for name in found["skills"]}
        except (EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise _files.DamagedFileError(
                path, f"it holds no finished net ({error})", REMEDY
            ) from error
        return Net(
            candidate,
            seed,
            weights,
            answers,
            found["skills"],
            found["epochs"],
            found["seconds"],
            found.get("cut_from"),  # older records have none
        )

    def _path(self, candidate: Candidate, seed: int) -> Path:
        words = candidate.name.replace(",", "").replace(" ", "-")
        return self.folder / "nets" / f"{words}-{seed}.npz"
