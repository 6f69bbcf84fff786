"""Why an image of the gallery is flagged: its highest patches beside the normal patches that are most like them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image
from pydantic import ConfigDict, with_config

from data_contracts.errors import ImageError
from data_contracts.settings import BY_TYPE, ImageReading
from pipeline_lib.bank.explanation import N_NEIGHBORS, N_PATCHES, Neighbor, PatchExplanation
from pipeline_lib.dataset.images import load_image
from pipeline_lib.maps.visualize import patch_tile

BYTES_IN_JSON = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
EXPLAINED_KINDS = ("hits", "false alarms")
WHY_BYTES = 400_000
"""All tiles of a report together."""

_LEAST_TILE_BYTES = 1_200


@with_config(BYTES_IN_JSON)
@dataclass(frozen=True)
class NormalPatch:
    """A normal patch of the bank with its surroundings, where its image lies at the place of the run."""

    distance: float
    origin: str  # image id, or client
    picture: bytes = b""  # WebP


@with_config(BYTES_IN_JSON)
@dataclass(frozen=True)
class Why:
    """One patch of a flagged image with its surroundings (WebP), and the normal patches nearest to it."""

    score: float
    picture: bytes
    neighbors: tuple[NormalPatch, ...]


def tile_budget(n_categories: int) -> tuple[int, int]:
    """(patches to show of an image, bytes of a tile) with so many categories in a report; no patches for very many."""
    tiles = n_categories * len(EXPLAINED_KINDS) * (1 + N_NEIGHBORS)
    n_patches = min(N_PATCHES, WHY_BYTES // (tiles * _LEAST_TILE_BYTES))
    return n_patches, WHY_BYTES // (tiles * max(1, n_patches))


def draw_why(
    image: Image.Image,
    explanations: Sequence[PatchExplanation],
    encode: Callable[[Image.Image], bytes],
    reading: ImageReading = BY_TYPE,
) -> tuple[Why, ...]:
    """The tiles of an image's explanations. A normal image that cannot be read has no picture, only its name."""
    return tuple(
        Why(
            patch.score,
            encode(patch_tile(image, patch.center, patch.size)),
            tuple(_normal_patch(neighbor, patch.size, encode, reading) for neighbor in patch.neighbors),
        )
        for patch in explanations
    )


def _normal_patch(
    neighbor: Neighbor,
    size: tuple[float, float],
    encode: Callable[[Image.Image], bytes],
    reading: ImageReading,
) -> NormalPatch:
    if neighbor.image_path is None or neighbor.center is None:
        return NormalPatch(neighbor.distance, neighbor.origin)
    try:
        tile = patch_tile(load_image(neighbor.image_path, reading), neighbor.center, size)
    except ImageError:
        return NormalPatch(neighbor.distance, neighbor.origin)
    return NormalPatch(neighbor.distance, neighbor.origin, encode(tile))
