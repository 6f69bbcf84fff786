"""Command init: a configuration for a data set of one's own, and what to do with it."""

from __future__ import annotations

import shlex
from pathlib import Path

from data_contracts.errors import PlaceError
from pipeline_lib.planning.first_configuration import first_configuration
from pipeline_lib.storage.artifact_store import write_file


def write_first_configuration(root: Path, out: Path) -> None:
    """Write it and print the next commands. Raises PlaceError for a file that is there already."""
    if out.exists():
        raise PlaceError(f"{out} is there already; give another --out, or move it away")
    text = first_configuration(root)
    write_file(out, text.encode())
    file, data = shlex.quote(str(out)), shlex.quote(str(root))
    print(f"configuration: {out}; look at the sizes in it, then:")
    print(f"  fedpatch dataset validate {data}")
    print(f"  fedpatch run {file} --out runs/first")
    print(f"  fedpatch run {file} --set federated.mode=centralized --out runs/baseline")
