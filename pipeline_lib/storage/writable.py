"""Whether a directory can be written, asked before anything is computed for it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from data_contracts.errors import PlaceError


def write_problem(directory: Path) -> str | None:
    """Why no file can be made in a directory, there or to be made; None when it can be. Nothing is left behind."""
    directory = directory.expanduser().absolute()
    place = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    if not place.is_dir():
        return f"{place} is no directory"
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            return None
    except OSError as error:
        return f"{place}: {error.strerror or error}"


def refuse_unwritable(places: Mapping[str, Path]) -> None:
    """Raise PlaceError naming every place (what sets it -> directory) that cannot be written."""
    problems = [
        f"{name}: {directory} cannot be written ({problem}); name a directory of yours"
        for name, directory in places.items()
        if (problem := write_problem(directory))
    ]
    if problems:
        raise PlaceError("; ".join(problems))
