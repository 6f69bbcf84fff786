"""What the command line says of itself: every command has an example that parses, completion, exact messages."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import get_args

import pytest
from cyclopts import App

from flows.cli import main
from flows.cli.options import app
from tests.conftest import ROOT
from tests.dataset_fixtures import write_tiny_autovi


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


@pytest.mark.parametrize("words", [["config-reference"], ["--version"]])
def test_a_reader_that_has_seen_enough_ends_it_quietly(words: list[str]) -> None:
    """As of `| head`, here before the first line."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "from flows.cli import main; main()", *words]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=300)
    os.close(writer)
    assert (done.returncode != 0, done.stderr) == (True, "")


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


FLOATS = [(path, argument.name) for path, command in ALL.items() for argument in command.assemble_argument_collection()
          if argument.hint is float or float in get_args(argument.hint)]  # fmt: skip


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(("path", "option"), FLOATS)
def test_no_option_of_any_command_takes_a_number_that_is_not_finite(
    path: tuple[str, ...], option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for needed in ([], ["--out", "x"], ["x"]):
        with pytest.raises(SystemExit) as stop:
            main([*path, *needed, f"{option}={value}"])
        assert stop.value.code == 2
        if "finite" in (shown := capsys.readouterr().err):
            break
    assert f"{option}" in shown
    assert "It accepts a finite number" in shown


def test_the_options_that_are_floats_are_known() -> None:
    assert {option for _, option in FLOATS} == {
        "--false-alarm-rate", "--threshold", "--scale", "--keep-days", "--unfinished-days", "--max-gb",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["store", "prune", "--keep-days", "-1"], "keep_days is -1; it accepts a finite number at least 0"),
        (["store", "prune", "--unfinished-days", "-0.5"], "unfinished_days is -0.5"),
        (["store", "prune", "--max-gb", "-1"], "max_bytes is -1e+09"),
        (["exchange", "prune", ".", "--keep-days", "-1"], "keep_days is -1"),
        (["dataset", "synthesize", "--out", "made", "--scale", "0"], "scale is 0"),
        (["dataset", "synthesize", "--out", "made", "--images", "-3"], "images is -3"),
    ],
)
def test_a_number_out_of_range_is_refused_with_what_is_accepted(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDPATCH_STORE", str(tmp_path / "store"))
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 1
    assert message in capsys.readouterr().err


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


@pytest.mark.parametrize("command", ["stats", "validate", "preview"])
def test_what_is_left_out_is_said_on_stderr_in_one_line(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_tiny_autovi(tmp_path / "data")
    (tmp_path / "data/pipe_clip/train/good/x.jfif").write_bytes(b"x")
    (tmp_path / "data/pipe_clip/train/good/.snapshot").mkdir()
    out = ["--out", str(tmp_path / "sheet.png")] if command == "preview" else []
    with pytest.raises(SystemExit) as stop:
        main(["dataset", command, str(tmp_path / "data"), *out])
    assert not stop.value.code
    layout, line, *_ = capsys.readouterr().err.splitlines()
    assert layout.startswith("layout autovi, ")
    assert line.startswith(f"fedpatch: {tmp_path / 'data'}: left out: ")
    assert "1 hidden or recycled" in line
    assert "1 unsupported ending (.jfif)" in line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_for_each_shell(shell: str) -> None:
    script = app.generate_completion(shell=shell)
    assert "fedpatch" in script
    assert "rollback" in script


def test_the_version_is_the_packages_number_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out == f"{metadata.version('fedpatch')}\n"
