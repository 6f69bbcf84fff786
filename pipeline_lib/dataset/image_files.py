"""Which files of a directory are images, the one rule of data sets and of scoring; what is left out is counted."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from data_contracts.errors import DatasetError
from pipeline_lib.dataset.images import IMAGE_SUFFIXES, is_hidden, is_image_file

_HIDDEN, _ENDING, _NO_FILE = "hidden or recycled", "unsupported ending", "neither file nor directory"
_SYMLINKED, _UNREADABLE = "symlinked directory", "directory that cannot be listed"
_DEEPER, _OUTSIDE = "in a deeper directory", "outside the folders of the layout"
_SHOWN_ENDINGS = 5
_SHOWN_DIRECTORIES = 3
_LOOSE_DEPTH = 2  # <root>/<category>/<directory>

Leave = Callable[["os.DirEntry[str]"], str]
"""Why an entry of a directory is left out for another reason than its name, or an empty text."""


class LeftOut:
    """How much was left out, by reason; a hidden or symlinked directory counts as one, it is not looked into."""

    def __init__(self) -> None:
        self.by_reason: Counter[str] = Counter()
        self.endings: Counter[str] = Counter()

    def add_ending(self, name: str) -> None:
        """One file whose name does not end as that of an image."""
        self.by_reason[_ENDING] += 1
        self.endings[Path(name).suffix.lower() or "none"] += 1

    def describe(self) -> str:
        """One line, such as "left out: 3 unsupported ending (.jfif, .pgm), 1 hidden or recycled"; empty where nothing
        was left out."""
        parts = []
        for reason, number in self.by_reason.items():
            endings = ""
            if reason == _ENDING:
                more = ", ..." if len(self.endings) > _SHOWN_ENDINGS else ""
                endings = f" ({', '.join(e for e, _ in self.endings.most_common(_SHOWN_ENDINGS))}{more})"
            parts.append(f"{number} {reason}{endings}")
        return f"left out: {', '.join(parts)}" if parts else ""


def images_in(directory: Path, left_out: LeftOut) -> list[Path]:
    """Image files right in `directory`, in no order; of those that lie deeper the number is counted. Raises OSError."""
    images, inner = _look(directory, left_out, _none)
    if deeper := len(_below(inner, LeftOut(), _none)):
        left_out.by_reason[_DEEPER] += deeper
    return images


def images_below(directory: Path, left_out: LeftOut, *, leave: Leave | None = None) -> list[Path]:
    """Image files anywhere below `directory`, sorted; symlinked directories are not entered.

    Raises OSError where `directory` itself cannot be listed; one below it is counted.
    """
    images, inner = _look(directory, left_out, leave or _none)
    return sorted(images + _below(inner, left_out, leave or _none))


def loose_images(root: Path) -> str:
    """What is said of a directory in which no layout finds an image: where images lie, and what makes a data set of
    them. Directories that cannot be listed are passed over."""
    counts: Counter[Path] = Counter()
    level = [root]
    for _ in range(_LOOSE_DEPTH + 1):
        inner = []
        for directory in level:
            with contextlib.suppress(OSError):
                images, below = _look(directory, LeftOut(), _none)
                counts[directory] += len(images)
                inner += below
        level = inner
    found = [(directory, number) for directory, number in counts.most_common() if number]
    if not found:
        return f"it holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})"
    shown = ", ".join(f"{directory} ({number})" for directory, number in found[:_SHOWN_DIRECTORIES])
    more = f" and {len(found) - _SHOWN_DIRECTORIES} more directories" if len(found) > _SHOWN_DIRECTORIES else ""
    which = f"--good {shlex.quote(str(found[0][0]))}" if len(found) == 1 else "--good DIR --defective DIR"
    return (
        f"images lie in {shown}{more}; `fedpatch dataset import {which} --category NAME --out DATA` makes a data set "
        "of them"
    )


def refuse_missing(path: Path) -> None:
    """Raise DatasetError where there is neither a file nor a directory."""
    if not path.exists():
        raise DatasetError(f"there is no file or directory {path}")


def count_outside(directory: Path, folders: Collection[str], left_out: LeftOut) -> None:
    """Count the images below `directory` that lie in none of its `folders`. Raises OSError."""
    images, inner = _look(directory, LeftOut(), _none)
    others = [path for path in inner if path.name not in folders]
    if outside := len(images) + len(_below(others, LeftOut(), _none)):
        left_out.by_reason[_OUTSIDE] += outside


def _below(directories: Iterable[Path], left_out: LeftOut, leave: Leave) -> list[Path]:
    """Image files anywhere below the directories, in no order."""
    images: list[Path] = []
    waiting = list(directories)
    while waiting:
        try:
            found, inner = _look(waiting.pop(), left_out, leave)
        except OSError:
            left_out.by_reason[_UNREADABLE] += 1
            continue
        images += found
        waiting += inner
    return images


def _look(directory: Path, left_out: LeftOut, leave: Leave) -> tuple[list[Path], list[Path]]:
    """(image files, directories) right in `directory`, in no order; all else is counted."""
    images, directories = [], []
    with os.scandir(directory) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                left_out.by_reason[_HIDDEN] += 1
            elif reason := leave(entry):
                left_out.by_reason[reason] += 1
            elif entry.is_dir():
                if entry.is_symlink():
                    left_out.by_reason[_SYMLINKED] += 1
                else:
                    directories.append(Path(entry.path))
            elif not is_image_file(Path(entry.name)):
                left_out.add_ending(entry.name)
            elif entry.is_file() or entry.is_symlink():  # a link to nothing is an image that cannot be read
                images.append(Path(entry.path))
            else:
                left_out.by_reason[_NO_FILE] += 1
    return images, directories


def _none(_: os.DirEntry[str]) -> str:
    return ""
