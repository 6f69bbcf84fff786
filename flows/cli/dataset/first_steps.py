"""Command init: a configuration for a data set of one's own."""

from __future__ import annotations

from pathlib import Path

from data_contracts.errors import PlaceError
from flows.cli.next_steps import say_next
from pipeline_lib.planning.first_configuration import first_configuration
from pipeline_lib.storage.artifact_store import write_file


def write_first_configuration(root: Path, out: Path) -> None:
    """Write it. Raises PlaceError for a file that is there already."""
    if out.exists():
        raise PlaceError(f"{out} is there already; give another --out, or move it away")
    text = first_configuration(root)
    write_file(out, text.encode())
    print(f"configuration: {out}")
    say_next("init", file=out)
