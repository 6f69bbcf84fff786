"""What the command line says of itself: every command has an example that parses, completion, exact messages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from flows.cli import main
from flows.cli.options import app


def commands(of: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command that does something, with the words that call it."""
    for name in of:
        if name.startswith("-"):
            continue
        inner = of[name]
        if inner.default_command is not None:
            yield (*path, name), inner
        yield from commands(inner, (*path, name))


ALL = dict(commands(app))


def test_all_commands_are_there() -> None:
    assert {
        ("run",),
        ("score",),
        ("doctor",),
        ("dataset", "acquire"),
        ("dataset", "import"),
        ("model", "rollback"),
    } <= {*ALL}


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_the_help_of_every_command_has_an_example_that_parses(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*path, "--help"])
    assert not stop.value.code
    text = " ".join(capsys.readouterr().out.split())
    found = re.search(r"Examples?: (fedpatch .*?)(?: [╭┌]|$| Parameters| Commands)", text)
    assert found, text
    for line in found[1].split("; "):
        words = shlex.split(line)
        assert words[0] == "fedpatch"
        app.parse_args(words[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["run"], 2, "config"),
        (["no-such-command"], 2, "no-such-command"),
        (["run", "nowhere.yaml"], 1, "nowhere.yaml"),
        (["score"], 2, "paths"),
        (
            ["show", "nowhere"],
            1,
            "nowhere is not the directory of a finished run: cannot read metrics.json",
        ),
        (
            ["dataset", "acquire", "--category", "bolt", "--out", "x"],
            1,
            "AutoVI has no category bolt; it has engine_wi",
        ),
        (["dataset", "stats", "nowhere"], 1, "data set root nowhere does not exist; set dataset.root to the directory"),
    ],
)
def test_errors_are_one_line_with_the_status(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == status
    shown = capsys.readouterr().err
    lines = shown.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fedpatch: ")
    assert message.lower() in lines[0].lower()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_for_each_shell(shell: str) -> None:
    script = app.generate_completion(shell=shell)
    assert "fedpatch" in script
    assert "rollback" in script
