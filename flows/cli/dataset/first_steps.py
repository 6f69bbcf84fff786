"""Command init: a configuration for a data set of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

from data_contracts.errors import PlaceError
from flows.cli.next_steps import say_next
from pipeline_lib.planning.first_configuration import first_configuration
from pipeline_lib.storage.artifact_store import write_file


def write_first_configuration(root: Path, out: Path) -> None:
    """Write it. Raises PlaceError for a file that is there already."""
    if out.exists():
        raise PlaceError(f"{out} is there already; give another --out, or move it away")
    found = first_configuration(root)
    write_file(out, found.text.encode())
    for line in found.taken:
        print(f"taken: {line}")
    for folder in found.unjudged:
        print(f"warning: {folder} sounds as if nobody had judged its images; they count as known defective")
    print(f"configuration: {out}")
    print(f"not judged yet? keep such images outside {root}, and score them with the run", file=sys.stderr)
    say_next("init", file=out)
