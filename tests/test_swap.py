"""Finished files and folders in their places, whatever others do meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kmtl import _swap


def folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@pytest.fixture(params=["exchange", "steps"])
def exchanging(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the system's atomic exchange, and where there is none."""
    if request.param == "steps":
        monkeypatch.setattr(_swap, "_renameat2", lambda *arguments: False)
    return request.param


def test_replace_puts_the_new_one_there_and_deletes_the_old(
    tmp_path: Path, exchanging: str
) -> None:
    made, path = folder(tmp_path / "made", "new"), folder(tmp_path / "path", "old")
    _swap.replace(made, path, ours=lambda old: (old / "file").read_text() == "old")
    assert (path / "file").read_text() == "new"
    assert names(tmp_path) == ["path"]
    _swap.replace(folder(made, "newer"), tmp_path / "absent", ours=lambda old: False)
    assert names(tmp_path) == ["absent", "path"]


def test_replace_keeps_what_is_not_ours(tmp_path: Path, exchanging: str) -> None:
    made, path = folder(tmp_path / "made", "new"), folder(tmp_path / "path", "mine")
    with pytest.raises(FileExistsError, match="may not be replaced"):
        _swap.replace(made, path, ours=lambda old: False)
    # another process has exchanged it between the look and the exchange
    answers = iter([True, False])
    with pytest.raises(FileExistsError, match="may not be replaced"):
        _swap.replace(made, path, ours=lambda old: next(answers))
    assert (path / "file").read_text() == "mine"
    assert (made / "file").read_text() == "new"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_of_several_at_once_one_is_placed(
    kind: str, tmp_path: Path, exchanging: str
) -> None:
    made = []
    for number in range(8):
        path = tmp_path / str(number)
        made.append(path)
        path.write_text("x") if kind == "file" else folder(path, str(number))

    def try_to_place(path: Path) -> bool:
        try:
            _swap.place(path, tmp_path / "there")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(try_to_place, made)) == 1
    assert len(names(tmp_path)) == 8  # the others are left to their makers


def test_place_takes_an_empty_folder_and_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    _swap.place(folder(tmp_path / "made", "new"), tmp_path / "there")
    assert (tmp_path / "there" / "file").read_text() == "new"
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(FileExistsError, match="nothing was written"):
        _swap.place(folder(tmp_path / "made", "new"), tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs renameat2")
def test_a_reader_never_finds_nothing(tmp_path: Path) -> None:
    path = folder(tmp_path / "path", "0")
    stop, missing = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            if not os.path.exists(path):
                missing.append(True)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(200):
        made = folder(tmp_path / "made", str(number))
        _swap.replace(made, path, ours=lambda old: True)
    stop.set()
    reader.join()
    assert not missing


def test_the_old_one_comes_back_if_an_exchange_in_steps_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path = folder(tmp_path / "made", "new"), folder(tmp_path / "path", "old")
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if source == made:
            raise PermissionError("no")
        rename(source, target)

    monkeypatch.setattr(_swap, "_renameat2", lambda *arguments: False)
    monkeypatch.setattr(_swap.os, "rename", refuse)
    with pytest.raises(PermissionError):
        _swap.replace(made, path, ours=lambda old: True)
    assert (path / "file").read_text() == "old"
    assert names(tmp_path) == ["made", "path"]


KILLED = """
import sys, pathlib
from kmtl import _swap
with _swap.folder_beside(pathlib.Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_killed_processes_left_is_removed_and_what_lives_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "served"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        writers[0].kill()
        writers[0].wait()
        other = folder(tmp_path / ".unfinished-0123456789ab-other", "of another path")
        mine = folder(tmp_path / ".unfinished-notes-served", "of the user")
        assert len(names(tmp_path)) == 4
        with _swap.folder_beside(path) as made:
            left = {other.name, mine.name, made.name}
            kept = set(names(tmp_path)) - left
        assert len(kept) == 1  # of the process that still writes
        assert (tmp_path / kept.pop() / "half").exists()
        assert (other / "file").exists()
        assert (mine / "file").exists()
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_a_file_takes_its_place_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    (tmp_path / "link").symlink_to(path)
    with _swap.file_beside(tmp_path / "link") as made:
        made.write_text("new")
    assert path.read_text() == "new"
    assert (tmp_path / "link").is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640

    def half() -> None:
        with _swap.file_beside(path) as made:
            made.write_text("ha")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        half()
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file", "link"]
