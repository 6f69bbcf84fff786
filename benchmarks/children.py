"""Processes of their own, with the largest anonymous memory that each one had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLE_EVERY_S = 0.005


@dataclass(frozen=True)
class Outcome:
    """What a child printed last (JSON), its wall time and its peak memory."""

    answer: Any
    wall_s: float
    peak_anonymous_mb: float  # all processes of the child's group together


def run_child(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run a command to its end from the repository's root. Raises RuntimeError with its last lines when it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[1],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    peak = _Peak(process.pid)
    peak.start()
    out, err = process.communicate()
    wall = time.perf_counter() - start
    peak.stop.set()
    peak.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{err[-3000:]}")
    return Outcome(_last_json(out), wall, peak.kilobytes / 1024)


def _last_json(text: str) -> Any:
    """The JSON value that a text is or ends with, on one line or over several."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(text.strip().splitlines()[-1])


def run_module(name: str, *arguments: str) -> Outcome:
    """`run_child` for a module of this package."""
    return run_child([sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}", *arguments])


class _Peak(threading.Thread):
    """Samples RssAnon: what lies in memory and in no file. Mapped files can be dropped, so they do not count."""

    def __init__(self, group: int) -> None:
        super().__init__(daemon=True)
        self.group = group
        self.kilobytes = 0
        self.stop = threading.Event()

    def run(self) -> None:
        members, looked = [self.group], time.monotonic()
        while not self.stop.wait(SAMPLE_EVERY_S):
            if time.monotonic() - looked > 0.5:
                members, looked = _members(self.group), time.monotonic()
            self.kilobytes = max(self.kilobytes, sum(_anonymous_kb(pid) for pid in members))


def _members(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == session:
                found.append(int(entry.name))
    return found


def _anonymous_kb(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("RssAnon")), 0)
    except OSError:
        return 0
