"""The line of what comes next: commands that exist, on stderr, and none beside JSON."""

from __future__ import annotations

import re
import shlex
import string
from pathlib import Path

import pytest

from flows.cli import app, main
from flows.cli.next_steps import NEXT, say_next, with_overrides

VALUES = {name: "x" for text in NEXT.values() for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("after", NEXT)
def test_the_commands_that_are_named_can_be_called(after: str, capsys: pytest.CaptureFixture[str]) -> None:
    say_next(after, **VALUES)
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    commands = re.findall(r"fedpatch ([^;]+)", line)
    assert commands or "open " in line
    for command in commands:
        app.parse_args(shlex.split(command), exit_on_error=False, print_error=False)


def test_what_a_shell_would_take_apart_is_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    say_next("plan", config=with_overrides(Path("my own.yaml"), ["dataset.categories=[a, b]"]))
    words = "'my own.yaml' --set 'dataset.categories=[a, b]'"
    assert capsys.readouterr().err == f"next: fedpatch run {words} --out runs/first\n"


def call(*words: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert not stop.value.code


def test_from_a_data_set_each_command_says_what_follows(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = shlex.quote(str(tiny_root))
    call("dataset", "validate", str(tiny_root))
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"next: a configuration for it, where there is none: fedpatch init {data}"
    call("init", str(tiny_root))
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "configuration: own.yaml"
    assert "fedpatch run own.yaml --out runs/first" in said.err
    call("dataset", "validate", "own.yaml")
    assert capsys.readouterr().err.splitlines()[-1] == "next: what a run will need: fedpatch plan own.yaml"
    call("plan", "own.yaml")
    assert capsys.readouterr().err.splitlines()[-1] == "next: fedpatch run own.yaml --out runs/first"


def test_beside_json_there_is_none(tiny_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("dataset", "validate", str(tiny_root), "--json")
    assert "next" not in capsys.readouterr().err
