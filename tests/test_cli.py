"""The shell of the command line: finding commands, help, errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import kmtl
from kmtl.cli.main import CommandFolder, command_docstring, debug_option, main


def modules_after(*arguments: str) -> tuple[str, set[str]]:
    """What the command prints in a new process, and the modules it imported."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from kmtl.cli.main import main\n"
        f"main({list(arguments)!r}, prog_name='kmtl')"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return finished.stdout, set(finished.stderr.split())


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_no_backend_is_imported(argument: str) -> None:
    printed, modules = modules_after(argument)
    assert printed
    heavy = {"keras", "tensorflow", "jax", "numpy", "rich", "keras_tuner", "sklearn"}
    assert modules & heavy == set()
    assert "kmtl.cli.devices" not in modules  # help comes from the sources


def test_help_lists_every_command_with_its_first_line() -> None:
    printed = CliRunner().invoke(main, ["--help"]).output
    assert "devices" in printed
    assert "Show the hardware and precision that training would use." in printed


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert f"Usage: main {name}" in result.output
    assert "--debug" in result.output


def test_python_runs_it_as_a_module() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "kmtl", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert finished.stdout.startswith("Usage: kmtl ")
    assert "devices" in finished.stdout


def test_version() -> None:
    assert (
        CliRunner().invoke(main, ["-V"]).output == f"kmtl, version {kmtl.__version__}\n"
    )


def test_unknown_command_is_refused_with_a_suggestion() -> None:
    result = CliRunner().invoke(main, ["devcies"])
    assert result.exit_code == 2
    assert "Unknown command 'devcies'. Did you mean 'devices'?" in result.output


def test_devices_as_json() -> None:
    result = CliRunner().invoke(main, ["devices", "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["backend"] == os.environ.get("KERAS_BACKEND", "tensorflow")
    assert found["cpu_cores"] == kmtl.devices().cpu_cores


def test_devices_as_text() -> None:
    assert CliRunner().invoke(main, ["devices"]).stdout == f"{kmtl.devices()}\n"


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandFolder]:
    """A group over a folder with commands of the test's own."""
    package = tmp_path / "own_commands"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_private.py").write_text("command = 1")
    (package / "helper.py").write_text("'''Not a command.'''")
    (package / "fail.py").write_text(
        "import click\n@click.command()\n@click.argument('what')\n"
        "def command(what):\n    '''Fail.\n\n    More.'''\n"
        "    if what == 'usage': raise click.UsageError('no')\n"
        "    if what == 'interrupt': raise KeyboardInterrupt\n"
        "    raise ValueError(f'no {what}')\n"
    )
    (package / "two_words.py").write_text(
        "'''Make two.'''\nimport click\n"
        "command = click.Command('other', callback=lambda: click.echo('done'))\n"
    )
    (package / "broken.py").write_text("import does_not_exist\ndef command(): 'Break.'")
    monkeypatch.syspath_prepend(tmp_path)

    class Own(CommandFolder):
        folder = tmp_path / "own_commands"
        package = "own_commands"

    group = Own("own")
    group.params.append(debug_option())
    yield group
    for name in [name for name in sys.modules if name.startswith("own_commands")]:
        del sys.modules[name]


def test_files_with_a_command_are_commands(group: CommandFolder) -> None:
    assert group.list_commands(click.Context(group)) == ["broken", "fail", "two-words"]
    lines = CliRunner().invoke(group, ["--help"]).output.split("Commands:\n")[1]
    assert [line.split(maxsplit=1) for line in lines.splitlines()] == [
        ["broken", "Break."],
        ["fail", "Fail."],
        ["two-words", "Make two."],
    ]
    assert "own_commands.broken" not in sys.modules


def test_name_of_a_command_is_its_file(group: CommandFolder) -> None:
    assert CliRunner().invoke(group, ["two-words"]).output == "done\n"
    assert (
        "Usage: own two-words" in CliRunner().invoke(group, ["two-words", "-h"]).output
    )


def test_unexpected_error_is_one_line(group: CommandFolder) -> None:
    result = CliRunner().invoke(group, ["fail", "luck"])
    assert result.exit_code == 1
    assert result.output == (
        "Error: ValueError: no luck\n"
        "Run the command again with --debug for the whole traceback.\n"
    )


@pytest.mark.parametrize(
    "arguments", [["--debug", "fail", "x"], ["fail", "x", "--debug"]]
)
def test_debug_raises_the_error(group: CommandFolder, arguments: list[str]) -> None:
    result = CliRunner().invoke(group, arguments)
    assert isinstance(result.exception, ValueError)
    assert str(result.exception) == "no x"


def test_errors_of_click_keep_their_form(group: CommandFolder) -> None:
    usage = CliRunner().invoke(group, ["fail", "usage"])
    assert usage.exit_code == 2
    assert "--debug for" not in usage.output
    interrupted = CliRunner().invoke(group, ["fail", "interrupt"])
    assert interrupted.exit_code == 1
    assert interrupted.output.strip() == "Aborted!"


def test_command_that_cannot_be_imported_is_an_error(group: CommandFolder) -> None:
    result = CliRunner().invoke(group, ["broken"])
    assert result.exit_code == 1
    assert "ModuleNotFoundError: No module named 'does_not_exist'" in result.output


def test_docstring_is_none_without_a_command(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text("def other(): 'No.'")
    assert command_docstring(path) is None
    path.write_text("command: int = 1")
    assert command_docstring(path) == ""


def test_backend_of_the_environment_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    CliRunner().invoke(main, ["devices"])
    assert "KERAS_BACKEND" not in os.environ
