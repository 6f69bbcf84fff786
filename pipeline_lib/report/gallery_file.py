"""A drawn gallery as JSON, its pictures in base64, so that the same pictures need not be drawn twice."""

from __future__ import annotations

from pydantic import TypeAdapter

from pipeline_lib.report.gallery import CategoryGallery
from pipeline_lib.report.why import EXPLAINED_KINDS

_FORMAT = TypeAdapter(CategoryGallery)


def gallery_to_json(gallery: CategoryGallery) -> bytes:
    """The gallery as UTF-8 JSON."""
    return _FORMAT.dump_json(gallery)


def gallery_from_json(content: bytes) -> CategoryGallery:
    """What `gallery_to_json` wrote. Raises ValueError for anything else."""
    return _FORMAT.validate_json(content)


def is_complete(gallery: CategoryGallery, *, n_explained: int, has_provenance: bool) -> bool:
    """Whether nothing is missing that another try might draw: images, outlines, explanations.

    n_explained: patches to explain of an image, 0 for none; has_provenance: normal patches have pictures too.
    """
    drawn = [example for examples in gallery.examples.values() for example in examples]
    if not all(example.image and not example.problem.startswith("no outline") for example in drawn):
        return False
    explained = [gallery.examples[kind][0] for kind in EXPLAINED_KINDS if gallery.examples.get(kind)]
    if n_explained and not all(example.why for example in explained):
        return False
    neighbors = [neighbor for example in explained for why in example.why for neighbor in why.neighbors]
    return not has_provenance or all(neighbor.picture for neighbor in neighbors)
