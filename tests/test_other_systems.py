"""Windows, as far as it can be held on another system: what it lacks is not imported, nor used where it would be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

ABSENT = ("fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty", "_posixsubprocess")

IMPORT_ALL = f"""
import builtins, importlib, pkgutil, sys

OURS = ("flows", "tasks", "pipeline_lib", "data_contracts")


def import_all():
    names = [module.name for package in OURS for module in pkgutil.walk_packages([package], package + ".")]
    for name in [*OURS, *names]:
        importlib.import_module(name)
    return len(names)


import_all()  # first with all that others import here, which on Windows import something else
for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
    del sys.modules[name]
real = builtins.__import__


def without(name, globals=None, *rest, **more):
    if (globals or {{}}).get("__name__", "").split(".")[0] in OURS and name.split(".")[0] in {ABSENT!r}:
        raise ModuleNotFoundError(f"No module named {{name!r}}, asked for by {{globals['__name__']}}")
    return real(name, globals, *rest, **more)


builtins.__import__ = without
sys.platform = "win32"
print(import_all())
try:
    exec("import fcntl", {{"__name__": "pipeline_lib.made_up"}})
except ModuleNotFoundError as error:
    print(error)
"""


def test_every_module_is_imported_without_what_windows_lacks() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    n_modules, refused = done.stdout.splitlines()[-2:]
    assert int(n_modules) > 200
    assert refused == "No module named 'fcntl', asked for by pipeline_lib.made_up"


@pytest.mark.slow
def test_nothing_is_called_that_windows_does_not_have(tmp_path: Path) -> None:
    """By typeshed's stubs, which say what `os`, `signal` and the others have where."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--platform", "win32", "--cache-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
