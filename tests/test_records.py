"""Records of finished parts survive a kill."""

from __future__ import annotations

from pathlib import Path

from kmtl._files import Records


class Runs(Records):
    KEY = ("side", "seed")


def test_records_come_back_but_for_a_torn_line(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    runs = Runs(file)
    assert runs.found == {}
    first, second = {"side": "a", "seed": 0, "x": 1.5}, {"side": "a", "seed": 1}
    runs.add(first)
    runs.add(second)
    whole = file.read_text("utf-8")
    file.write_text(whole + '{"side": "b", "se', "utf-8")
    again = Runs(file)
    assert again.found == {("a", 0): first, ("a", 1): second}
    again.add({**first, "x": 2.0})
    assert file.read_text("utf-8").startswith(whole + '{"side": "a"')
    assert Runs(file).found["a", 0]["x"] == 2.0
