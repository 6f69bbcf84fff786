"""What the place that stations share holds, by run, and what may go: runs that nobody wrote to for a while."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from data_contracts.numbers import require_number
from pipeline_lib.stations.exchange import ROUND_PREFIX, Exchange

DAY_SECONDS = 86_400.0
_PUBLISHED_PARTS = 5  # <run_id>/<round>/<kind>/<sender>/<file>


@dataclass(frozen=True)
class SharedRun:
    """The files of one run in the shared place."""

    run_id: str
    files: int
    size_bytes: int
    idle_days: float  # since the last of them was written


@dataclass(frozen=True)
class SharedFiles:
    """What one sender published of one kind in a round."""

    run_id: str
    round: str
    kind: str
    sender: str
    files: int
    size_bytes: int
    written: float  # the last of them, seconds since 1970


@dataclass(frozen=True)
class SharedPruneReport:
    """What was removed, or would be, and what stays."""

    url: str
    removed: list[SharedRun]
    kept: list[SharedRun]
    failed: dict[str, str]  # run -> why it could not be removed
    foreign: list[str]  # names in the shared place that belong to no run; never touched
    dry_run: bool

    def describe(self) -> str:
        """In one line, with the runs that could not be removed."""
        size = sum(run.size_bytes for run in self.removed) / 1e6
        verb = "would remove" if self.dry_run else "removed"
        text = f"{self.url}: {verb} {len(self.removed)} runs ({size:.1f} MB), kept {len(self.kept)}"
        return text + "".join(f"; {run} stays: {cause}" for run, cause in self.failed.items())


def prune_exchange(exchange: Exchange, *, keep_days: float, dry_run: bool = False) -> SharedPruneReport:
    """Remove the runs to which nobody wrote for `keep_days`; what cannot be removed is named and the rest goes on.

    Coordinator and stations keep in their own stores what they fetched, so that only a run that still waits for its
    stations needs its folder here. Raises ConfigError for days below 0.
    """
    require_number("keep_days", keep_days, at_least=0)
    runs, foreign = _shared_runs(exchange)
    failed: dict[str, str] = {}
    removed, kept = [], []
    for run in runs:
        if run.idle_days < keep_days:
            kept.append(run)
            continue
        try:
            if not dry_run:
                exchange.fs.rm(f"{exchange.root}/{run.run_id}", recursive=True)
            removed.append(run)
        except OSError as error:
            failed[run.run_id] = str(error)
            kept.append(run)
    return SharedPruneReport(exchange.url, removed, kept, failed, foreign, dry_run)


def shared_files(exchange: Exchange) -> list[SharedFiles]:
    """What each sender put into the shared place, in the order in which it was written."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for path, info in _found(exchange):
        parts = path.split("/")
        if len(parts) == _PUBLISHED_PARTS and parts[1].startswith(ROUND_PREFIX):
            groups[tuple(parts[:-1])].append(info)
    found = [
        SharedFiles(
            run_id,
            number,
            kind,
            sender,
            len(infos),
            sum(int(info["size"]) for info in infos),
            max(map(_written, infos)),
        )
        for (run_id, number, kind, sender), infos in groups.items()
    ]
    return sorted(found, key=lambda one: (one.written, one.run_id, one.sender))


def _found(exchange: Exchange) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path below the shared place, what the file system says of it) of each file."""
    found = exchange.fs.find(exchange.root, detail=True) if exchange.fs.exists(exchange.root) else {}
    for path, info in found.items():
        yield str(path).removeprefix(exchange.root).lstrip("/"), info


def _shared_runs(exchange: Exchange) -> tuple[list[SharedRun], list[str]]:
    """The runs, the longest idle first, and the names at the top that are none."""
    files: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for path, info in _found(exchange):
        name, _, rest = path.partition("/")
        files[name].append((rest, info))
    now = time.time()
    runs, foreign = [], []
    for name, entries in sorted(files.items()):
        if not all(rest.startswith(ROUND_PREFIX) for rest, _ in entries):
            foreign.append(name)
            continue
        idle = now - max(_written(info) for _, info in entries)
        runs.append(
            SharedRun(name, len(entries), sum(int(info["size"]) for _, info in entries), max(0.0, idle) / DAY_SECONDS)
        )
    return sorted(runs, key=lambda run: -run.idle_days), foreign


def _written(info: dict[str, Any]) -> float:
    """When a file was last written, in seconds since 1970; a file system that does not say: now, so that it stays."""
    stamp = info.get("LastModified", info.get("mtime"))
    if isinstance(stamp, datetime):
        return stamp.timestamp()
    return float(stamp) if isinstance(stamp, int | float) else time.time()
