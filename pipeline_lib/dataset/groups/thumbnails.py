"""Small grey pictures of a data set's images, made where they are decoded anyway."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data_contracts.settings import ImageReading
from pipeline_lib.dataset.images import StoredImage

SIDE_PX = 48


class Thumbnails:
    """Thumbnails by image id; `add` may be called from several threads."""

    def __init__(self) -> None:
        self._by_id: dict[str, np.ndarray] = {}

    def add(self, image_id: str, stored: StoredImage) -> None:
        """Keep a thumbnail of a decoded image, upright; of more than 8 bits, its own largest value is white."""
        read_as = ImageReading(value_range=max(1, stored.max_value))
        small = stored.to_rgb(read_as).resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX, reducing_gap=2.0)
        self._by_id[image_id] = np.asarray(small.convert("L"))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Named arrays for an npz file: image_ids (image,) in order, thumbnails uint8 (image, SIDE_PX, SIDE_PX)."""
        image_ids = sorted(self._by_id)
        found = [self._by_id[image_id] for image_id in image_ids]
        thumbnails = np.stack(found) if found else np.empty((0, SIDE_PX, SIDE_PX), np.uint8)
        return {"image_ids": np.array(image_ids, np.str_), "thumbnails": thumbnails}
