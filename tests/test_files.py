"""Files that kills, full disks and damage leave whole, or named."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from failure_tools import Failing, tree

from kmtl import _files, _swap
from kmtl._files import DamagedFileError


def write_all(folder: Path) -> None:
    """One of everything, over what an earlier call has left."""
    folder.mkdir(exist_ok=True)
    _files.write_json(folder / "a.json", {"x": 1})
    _files.append_lines(folder / "b.jsonl", [json.dumps({"n": 1})])
    if not (folder / "c").exists():
        with _files.whole_folder(folder / "c") as made:
            (made / "one").write_text("1")
            (made / "two").write_text("2")


@pytest.mark.parametrize("kill", [True, False])
def test_a_failure_at_any_step_leaves_old_or_new_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: bool
) -> None:
    failing = Failing(monkeypatch, kill)
    steps = 0
    for place in failing.every(write_all, tmp_path):
        steps += 1
        found = tree(place) if place.exists() else {}
        whole = {
            name: data for name, data in found.items() if ".unfinished" not in name
        }
        assert whole.get("a.json") in (None, b'{\n  "x": 1\n}\n')
        assert ("c/one" in whole) == ("c/two" in whole)
        write_all(place)
        _swap.remove_abandoned(place)
        found = tree(place)
        assert found.pop("b.jsonl").splitlines()[0] == b'{"n": 1}'
        assert found == {"a.json": b'{\n  "x": 1\n}\n', "c/one": b"1", "c/two": b"2"}
        assert sorted(os.listdir(place)) == ["a.json", "b.jsonl", "c"]
    assert steps > 10


def test_what_is_moved_aside_takes_the_next_name(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "a").write_text(str(number))
        aside = _files.move_aside(tmp_path / "a")
        assert aside == tmp_path / f"a.damaged-{number}"
        assert aside.read_text() == str(number)
    (tmp_path / "f").mkdir()
    assert _files.move_aside(tmp_path / "f").is_dir()


DAMAGED = {
    b"": "it is empty",
    b"  \n": "it is empty",
    b'{"x": 1': "it is not JSON",
    b"\x00" * 40: "it is not JSON",
    b"\xff\xfe{}": "it is not JSON",
    b"[" * 100_000: "it is not JSON",
    b"[1]": "it holds no JSON object but a list",
    b"null": "it holds no JSON object but a NoneType",
    b"{}": "it has no x",
}


@pytest.mark.parametrize(("content", "what"), DAMAGED.items())
def test_a_damaged_file_is_named_with_what_to_do(
    tmp_path: Path, content: bytes, what: str
) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError) as info:
        _files.read_json(path, "Call home.", keys=("x",))
    assert str(info.value).startswith(f"'{path}' is damaged: {what}")
    assert str(info.value).endswith("Call home.")
    assert info.value.path == path


def test_a_damaged_line_is_named_and_a_torn_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(b'{"x": 1}\n{"x": 2}\n{"x"')
    assert list(_files.read_lines(path, "")) == [({"x": 1}, 9), ({"x": 2}, 18)]
    assert list(_files.read_lines(path, "", start=9)) == [({"x": 2}, 18)]
    path.write_bytes(b'{"x": 1}\n{"x": 2}\ngarbage\n{"x": 3}\n')
    for start in (0, 9):
        with pytest.raises(DamagedFileError, match=r"in line 3, it is not JSON.*Home"):
            list(_files.read_lines(path, "Home", start=start))
    path.write_bytes(b"x" * 3_000_000)  # one torn line, longer than a block
    _files.append_lines(path, ["{}"], sync=False)
    assert path.read_bytes() == b"{}\n"


def test_errors_of_the_disk_are_told_from_others() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = full
    foreign = RuntimeError("ResourceExhausted: file.tmp; No space left on device")
    for error in (full, wrapped, foreign):
        assert _files.is_storage_error(error)
    for error in (FileNotFoundError(errno.ENOENT, "no"), OSError("h5"), ValueError()):
        assert not _files.is_storage_error(error)
