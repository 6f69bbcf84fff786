"""What a command begins with, and what one would do next: lines on stderr, so that what it prints stays as it is."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

NEXT = {
    "demo": "on images of your own: fedpatch init DIR",
    "init": "fedpatch run {file} --out runs/first; images and time before: fedpatch dataset validate {file}; "
    "fedpatch plan {file}; where images stay at several stations: open docs/stations.md",
    "acquire": "check it: fedpatch dataset validate {root}",
    "import": "a configuration for it: fedpatch init {root}; then check it, at its sizes: "
    "fedpatch dataset validate own.yaml",
    "synthesize": "a configuration for it: fedpatch init {root}",
    "validate": "a configuration for it, where there is none: fedpatch init {data}",
    "validate, configuration": "what a run will need: fedpatch plan {data}",
    "validate, errors": "mend what is listed as an error, then: fedpatch dataset validate {data}",
    "partition": "a run on it: fedpatch run {config} --set federated.partitioning=saved "
    "--set federated.partition_path={out}",
    "plan": "fedpatch run {config} --out runs/first",
    "plan, benchmark": "fedpatch benchmark {config}",
    "plan, too large": "make it smaller (model.coreset_percentage, dataset.max_images), then: fedpatch plan {config}",
    "run": "open {report}; on new images: fedpatch score {run} IMAGES --out scored --explain; against all "
    "images at one place, three seeds each, with intervals: fedpatch benchmark {run}/config.yaml --out runs/compared",
    "benchmark": "open {report}",
    "show": "on new images: fedpatch score {run} IMAGES --out scored --explain; with seeds and intervals: "
    "fedpatch benchmark {run}/config.yaml --out runs/compared",
    "show, several": "with seeds and intervals: fedpatch benchmark {run}/config.yaml --out runs/compared; put the one "
    "that you choose in use: fedpatch model promote RUN_DIR",
    "show, stations": "on new images: fedpatch score {run} IMAGES --out scored",
    "show, several, stations": "put the one that you choose in use: fedpatch model promote RUN_DIR",
    "evaluate": "beside a run: fedpatch show {out} RUN_DIR",
    "score": "open {page}",
    "score, nowhere": "with pictures and tables: fedpatch score {run} IMAGES --out scored --explain",
    "model compare": "put the second in use: fedpatch model promote {run}",
    "in use": "fedpatch score {current} IMAGES --out scored --explain",
    "doctor": "try it: fedpatch demo",
    "doctor, problems": "mend what is marked as a problem, then: fedpatch doctor",
    "doctor of a station": "its worker: prefect worker start --pool stations --work-queue {station}; then a run can "
    "come: open docs/stations.md#two-stations-good-parts-only",
    "doctor of a station, at work": "a run can come, once the other stations' workers run, too: open "
    "docs/stations.md#two-stations-good-parts-only",
    "doctor of a station, problems": "mend what is marked as a problem, then: fedpatch doctor --station {station}",
    "store status": "what may go: fedpatch store prune --dry-run",
}
"""After which command, and how it ended -> the line; what comes after `fedpatch` can be called as it stands."""


def say_next(after: str, **values: Path | str | list[str]) -> None:
    """Print the line of `NEXT`; a list of values is words of a command line, in which each is quoted."""
    words = {
        name: shlex.join(value) if isinstance(value, list) else shlex.quote(str(value))
        for name, value in values.items()
    }
    print(f"next: {NEXT[after].format(**words)}", file=sys.stderr)


def say_begins(what: str, *, quiet: bool) -> None:
    """Print at once that a command is at work: what it needs takes a while to load."""
    if not quiet:
        print(f"{time.strftime('%H:%M:%S')} {what}: starting, its libraries and Prefect first", file=sys.stderr)


def with_overrides(config: Path, overrides: list[str] | None) -> list[str]:
    """The words that name a configuration on a command line, with its --set."""
    return [str(config), *(word for override in overrides or [] for word in ("--set", override))]
