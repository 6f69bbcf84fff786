"""Which annotated image is which file: by name, and by directory where several have one name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline_lib.dataset.annotations.outlines import AnnotatedImage

_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")
_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of a file


@dataclass
class Matches:
    """The annotated image of each file; files that have several; annotated images that have no file."""

    by_file: dict[Path, AnnotatedImage] = field(default_factory=dict)
    unclear: dict[Path, list[AnnotatedImage]] = field(default_factory=dict)
    without_file: list[AnnotatedImage] = field(default_factory=list)


def match_images(annotated: Sequence[AnnotatedImage], files: Sequence[Path]) -> Matches:
    """Find the annotated image of each file, all of them in one directory and of different stems.

    Names are compared with and without ending, then without what Label Studio puts before them. Where an annotated
    image lies in a directory of the name of the files' own, one that lies in another is not meant. Of several the one
    is taken that agrees with the file in more directories; where none does, it is unclear.
    """
    matches = Matches()
    is_open = {id(image): True for image in annotated}
    known = {directories[-1] for image in annotated if (directories := _directories(image.path))}
    for stripped in (False, True):
        by_name: dict[str, list[AnnotatedImage]] = {}
        for image in annotated:
            for name in _names(image.path, stripped=stripped) if is_open[id(image)] else ():
                by_name.setdefault(name, []).append(image)
        for file in files:
            if file in matches.by_file or file in matches.unclear:
                continue
            same = {id(image): image for name in _names(file.name) for image in by_name.get(name, ())}
            meant = _by_directory(list(same.values()), file, known)
            is_open |= {id(image): False for image in meant}
            if len(meant) == 1:
                matches.by_file[file] = meant[0]
            elif meant:
                matches.unclear[file] = meant
    matches.without_file = [image for image in annotated if is_open[id(image)] and image.is_annotated]
    return matches


def same_name(path: str, stem: str) -> bool:
    """Whether an image's path, as written in a file of annotations, is that of an image of this stem."""
    written = {name.casefold() for stripped in (False, True) for name in _names(path, stripped=stripped)}
    return _composed(stem).casefold() in written


def _by_directory(images: list[AnnotatedImage], file: Path, known: set[str]) -> list[AnnotatedImage]:
    """Those of the annotated images that may be `file`."""
    parents = [_composed(part) for part in reversed(file.absolute().parent.parts)]
    if parents[0] in known:
        images = [image for image in images if _directories(image.path)[-1:] in ([], parents[:1])]
    agreeing = [_agreeing(list(reversed(_directories(image.path))), parents) for image in images]
    best = [image for image, count in zip(images, agreeing, strict=True) if count == max(agreeing)]
    return best if len(best) == 1 else images


def _agreeing(inner: list[str], parents: list[str]) -> int:
    """How many directories agree, from the innermost on."""
    differ = [index for index, (one, other) in enumerate(zip(inner, parents, strict=False)) if one != other]
    return differ[0] if differ else min(len(inner), len(parents))


def _names(path: str, *, stripped: bool = False) -> set[str]:
    """The file name, with and without ending."""
    name = _composed(PurePosixPath(path).name)
    if stripped:
        name = _UPLOAD.sub("", name)
    return {name, _ENDING.sub("", name)}


def _directories(path: str) -> list[str]:
    return [_composed(part) for part in PurePosixPath(path).parts[:-1] if part not in {"/", ".", ".."}]


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
