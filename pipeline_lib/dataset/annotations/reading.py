"""Files of annotations, whatever their format; a file that cannot be read is listed, and its image is not marked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from data_contracts.errors import DatasetError
from pipeline_lib.dataset.annotations.coco import read_coco
from pipeline_lib.dataset.annotations.labelme import read_labelme
from pipeline_lib.dataset.annotations.matching import same_name
from pipeline_lib.dataset.annotations.outlines import BAD_ENTRY, AnnotatedImage, Annotations, said
from pipeline_lib.dataset.annotations.voc import read_voc

_COCO = {"images", "annotations", "categories"}
_ACCEPTED = "accepted are labelme (shapes), COCO (images, annotations, categories) and Pascal VOC (annotation)"


def read_annotations(path: Path | str) -> Annotations:
    """Annotations of a COCO file, of one labelme or VOC file, or of all .json and .xml files in a directory.

    Raises DatasetError for a path that is not there or holds none, and where not one of the files can be read.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(
            p for p in path.iterdir() if p.suffix.lower() in {".json", ".xml"} and not p.name.startswith(".")
        )
    else:
        files = [path] if path.is_file() else []
    if not files:
        raise DatasetError(
            f"no annotations at {path}: give a COCO .json, or a directory of labelme .json or Pascal VOC .xml"
        )
    found, coco, n_read = Annotations(), dict[str, AnnotatedImage](), 0
    for file in files:
        try:
            content = _content(file)
            if isinstance(content, dict) and set(content) >= _COCO:
                found.problems += read_coco(file, content, coco)
            else:
                found.images.append(_image(file, content))
            n_read += 1
        except (DatasetError, *BAD_ENTRY) as error:
            text = str(error) if isinstance(error, DatasetError) else f"{file}: {said(error)}"
            found.images.append(AnnotatedImage(file.stem, str(file), unreadable=[text]))
    if not n_read:
        raise DatasetError("; ".join(found.images[0].unreadable))
    found.images += coco.values()
    if not found.problems and not any(image.is_annotated for image in found.images):
        found.problems.append(f"{path}: nothing is annotated in it")
    return found


def _image(file: Path, content: Any) -> AnnotatedImage:
    """The one image of a labelme or VOC file. Raises DatasetError for another format."""
    if isinstance(content, ElementTree.Element) and content.tag == "annotation":
        image = read_voc(file, content)
    elif isinstance(content, dict) and "shapes" in content:
        image = read_labelme(file, content)
    else:
        what = f"its root is {content.tag}" if isinstance(content, ElementTree.Element) else "it is other JSON"
        raise DatasetError(f"{file} is of another format, {what}; {_ACCEPTED}")
    if not same_name(image.path, file.stem):
        image.unreadable = [
            f"{file}: its name is that of {file.stem}, but inside it says {image.path}; give both the name of the "
            "image that was drawn on"
        ]
        image.path = file.stem
    return image


def _content(file: Path) -> Any:
    """What JSON holds, or the root of XML. Raises DatasetError for neither, and for another encoding."""
    kind = "XML" if file.suffix.lower() == ".xml" else "JSON"
    try:
        content = file.read_bytes()
        return _root(content, file) if kind == "XML" else json.loads(content)
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} cannot be read as {kind} in UTF-8: {error}; save it in UTF-8") from error
    except (OSError, LookupError, ValueError, RecursionError, ElementTree.ParseError) as error:
        raise DatasetError(f"{file} cannot be read as {kind}: {error}") from error


def _root(content: bytes, file: Path) -> ElementTree.Element:
    named = re.match(rb"""\s*<\?xml[^>]*encoding=["']([\w-]+)""", content)
    text = content.decode(named[1].decode() if named else "utf-8-sig")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DatasetError(f"{file} declares a document type or entities, which annotations have no use for")
    return ElementTree.fromstring(text)
