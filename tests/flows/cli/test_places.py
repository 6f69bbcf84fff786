"""A place that cannot be written is said in one line before anything is read or computed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import main
from tests.conftest import ROOT

DEMO = str(ROOT / "configs/demo.yaml")
NOWHERE = "/dev/null/made"  # nor can root make it


@pytest.mark.parametrize(
    "command",
    [
        ["run", DEMO],
        ["benchmark", str(ROOT / "configs/benchmark_quick.yaml")],
        ["demo"],
        ["partition", DEMO],
        ["evaluate", "--dataset-root", "nothing", "--maps", "nothing"],
        ["score", "nothing", "nothing"],
        ["dataset", "synthesize"],
    ],
    ids=lambda command: command[0],
)
def test_out(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--out", NOWHERE])
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fedpatch: --out: {NOWHERE} cannot be written (/dev/null is no directory)")


def test_store_and_run_directory_of_the_configuration(
    prefect_server: None, tiny_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ("runtime.store", "runtime.out")
    with pytest.raises(SystemExit):
        main(
            [
                "run",
                DEMO,
                "--set",
                f"dataset.root={tiny_root}",
                *(t for p in places for t in ("--set", f"{p}={NOWHERE}")),
            ]
        )
    (line,) = capsys.readouterr().err.splitlines()
    assert all(f"{place} (" in line for place in places)


def test_prefect_home(tiny_root: Path, tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PREFECT_HOME": NOWHERE}
    run = ["run", DEMO, "--set", f"dataset.root={tiny_root}", "--out", str(tmp_path)]
    command = [sys.executable, "-c", "from flows.cli import main; main()", *run]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    *_, line = done.stderr.splitlines()
    assert line.startswith(f"fedpatch: PREFECT_HOME: {NOWHERE} cannot be written")
