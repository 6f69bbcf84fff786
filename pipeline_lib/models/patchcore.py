"""PatchCore as one object: fit on normal images, predict anomaly maps and scores, save, load.

Roth et al. 2022, "Towards total recall in industrial anomaly detection". The class is thin: features, coreset, memory
bank and scores come from the same functions as those of a run, so that the same images give the same bank.

>>> import numpy as np
>>> from pipeline_lib.models.patchcore import PatchCore
>>> normal = np.random.default_rng(0).integers(100, 140, (6, 64, 64, 3), dtype=np.uint8)
>>> model = PatchCore("efficientnet_lite0", coreset_percentage=0.1).fit(normal)
>>> broken = normal[:2].copy()
>>> broken[1, 20:40, 20:40] = 0
>>> anomaly_maps, scores = model.predict(broken)
>>> anomaly_maps.shape, bool(scores[1] > 2 * scores[0]), bool(anomaly_maps[1, 30, 30] > 2 * anomaly_maps[1, 5, 5])
((2, 64, 64), True, True)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from data_contracts.config import TOP_SHARE, ExperimentConfig, ImageScore
from data_contracts.errors import ArtifactError, DatasetError, FedpatchError
from data_contracts.manifests import CENTRALIZED_CLIENT, GLOBAL_BANK, Cells
from data_contracts.settings import AS_EARLIER, CoresetSettings, ScoringSettings
from pipeline_lib.bank.approximate import Search
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.bank.scoring import score_patches
from pipeline_lib.client.selection import coreset_of_patches
from pipeline_lib.configuration.files import parse_config
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.features.image_batches import (
    ImageInfo,
    ImagePatches,
    ImageSize,
    iter_images,
    iter_patches,
    reading_of,
)
from pipeline_lib.maps.map_files import resize_map
from pipeline_lib.maps.saved_maps import smooth_map
from pipeline_lib.models.saved_model import Inference, load_extractor, read_model, write_model
from pipeline_lib.neighbors.halves import widened
from pipeline_lib.upload.counts import rows_of

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


class Prediction(NamedTuple):
    """Anomaly maps at the images' own size, and the images' scores; both in feature distances, never rescaled."""

    anomaly_maps: np.ndarray  # float32 (image, height, width)
    scores: np.ndarray  # float64 (image,)


@dataclass(frozen=True)
class ScoredImage:
    """One image's map on the patch grid, and its score."""

    info: ImageInfo
    grid_map: np.ndarray  # float32 (grid height, grid width)
    score: float
    cells: Cells  # where the grid's cells look

    def anomaly_map(self, smoothing_sigma: float = 0.0) -> np.ndarray:
        """float32 (height, width) of the image: resized bilinearly, then blurred."""
        return smooth_map(resize_map(self.grid_map, self.info.height, self.info.width, self.cells), smoothing_sigma)


def as_prediction(scored: Iterable[ScoredImage], smoothing_sigma: float) -> Prediction:
    """Maps and scores as arrays. Raises FedpatchError when the images differ in size."""
    items = list(scored)
    sizes = sorted({(item.info.height, item.info.width) for item in items})
    if len(sizes) > 1:
        raise FedpatchError(f"predict got images of the sizes {sizes}; give those of one size at a time")
    height, width = sizes[0] if sizes else (0, 0)
    maps = np.empty((len(items), height, width), dtype=np.float32)
    for anomaly_map, item in zip(maps, items, strict=True):
        anomaly_map[:] = item.anomaly_map(smoothing_sigma)
    return Prediction(maps, np.array([item.score for item in items], dtype=np.float64))


class PatchCore:
    """A frozen backbone and a memory bank of normal patches.

    `extractor` is a FeatureExtractor or a backbone's name. `image_size` (width, height) is what pixels are resized to
    (`PreprocessingConfig` for sizes by category; None leaves them as they are); normalized tensors are never resized.
    `coreset_percentage`, `subsampling`, `shard_patches`, `rows` and `lloyd_steps` are the configuration's `model` keys,
    `num_neighbors`, `image_score`, `top_share` and `search` its `inference` keys. Raises ConfigError for values out of
    range, and what FeatureExtractor raises for a backbone that cannot be had.
    """

    def __init__(
        self,
        extractor: FeatureExtractor | str = "wide_resnet50_2",
        *,
        coreset_percentage: float = 0.1,
        subsampling: Literal["kcenter", "random", "density"] = "kcenter",
        shard_patches: int | None = None,
        rows: Literal["picks", "cell_means"] = "cell_means",
        lloyd_steps: int = 1,
        num_neighbors: int = 1,
        image_score: ImageScore = "max",
        top_share: float = TOP_SHARE,
        search: Search = "exact",
        use_faiss: bool = True,
        smoothing_sigma: float = 0.0,
        image_size: ImageSize | None = None,
        seed: int = 42,
    ) -> None:
        self.config: ExperimentConfig = parse_config(
            {
                "seed": seed,
                "model": {
                    "coreset_percentage": coreset_percentage,
                    "subsampling": subsampling,
                    "shard_patches": shard_patches,
                    "rows": rows,
                    "lloyd_steps": lloyd_steps,
                    "use_faiss": use_faiss,
                },
                "inference": {
                    "num_neighbors": num_neighbors,
                    "image_score": image_score,
                    "top_share": top_share,
                    "search": search,
                    "smoothing_sigma": smoothing_sigma,
                },
            }
        )
        self.extractor = FeatureExtractor(extractor) if isinstance(extractor, str) else extractor
        self.inference = Inference(ScoringSettings.of(self.config), image_size, smoothing_sigma)
        self.category: str | None = None
        self.reading = AS_EARLIER  # how the files of the images that it is fitted on became pixels
        self.statistics: dict[str, float] = {}
        self._bank: MemoryBank | None = None

    @property
    def memory_bank(self) -> MemoryBank:
        """The bank. Raises FedpatchError before `fit`."""
        if self._bank is None:
            raise FedpatchError("this PatchCore has no memory bank yet; call fit with normal images, or load one")
        return self._bank

    def fit(self, images: Any, *, progress: Progress | None = None) -> PatchCore:
        """Build the memory bank from normal images (anything that `iter_images` takes); returns the model.

        Images that cannot be read are left out with a warning. `statistics` then holds n_images, n_patches, bank_rows
        and covering_radius. Raises DatasetError without a readable image.
        """
        self.reading = reading_of(images)
        loaded = list(self._patches(images, on_bad_image="skip"))
        if not loaded:
            raise DatasetError("fit got no readable image; a memory bank needs at least one of a good part")
        categories = {item.info.category for item in loaded}
        self.category = categories.pop() if len(categories) == 1 else None
        coreset = coreset_of_patches(
            np.concatenate([item.patches for item in loaded]),
            [item.info.image_id for item in loaded],
            [len(item.patches) for item in loaded],
            CoresetSettings.of(self.config, CENTRALIZED_CLIENT),
            bank=self.category or GLOBAL_BANK,
            client_id=CENTRALIZED_CLIENT,
            raw_image_bytes=0,
            progress=progress,
        )
        assert coreset is not None  # a first round always selects
        self._bank = self.inference.memory_bank(rows_of(coreset.arrays))
        self.statistics = {
            "n_images": coreset.n_images,
            "n_patches": coreset.n_patches,
            "bank_rows": coreset.n_rows,
            "covering_radius": coreset.covering_radius,
        }
        logger.info("memory bank of %d rows from %d images", coreset.n_rows, coreset.n_images)
        return self

    def predict(self, images: Any) -> Prediction:
        """Anomaly maps and scores, in the images' order. Raises FedpatchError when the images differ in size."""
        return as_prediction(self.score(images), self.inference.smoothing_sigma)

    def score(self, images: Any, *, on_bad_image: Literal["skip", "fail"] = "fail") -> Iterator[ScoredImage]:
        """One scored image after the other: for sets that are too large, or too mixed in size, for `predict`."""
        _ = self.memory_bank  # said at once, not with the first image
        return (self.score_extracted(item) for item in self._patches(images, on_bad_image=on_bad_image))

    def score_extracted(self, item: ImagePatches) -> ScoredImage:
        """Score an image whose patches are there already."""
        patches = widened(item.patches[None])
        by_patch, scores = score_patches(self.memory_bank, patches, self.inference.scoring)
        return ScoredImage(item.info, by_patch[0].reshape(item.grid), float(scores[0]), item.cells)

    def model_of(self, category: str) -> PatchCore:
        """The model that scores a category: this one, whatever the category."""
        return self

    def save(self, path: Path | str) -> None:
        """Write the model to the directory `path` (see pipeline_lib.models.saved_model)."""
        bank = {self.category or GLOBAL_BANK: {"features": self.memory_bank.features}}
        write_model(path, self.extractor.settings, self.inference, bank, self.reading)

    @classmethod
    def load(
        cls,
        path: Path | str,
        category: str | None = None,
        *,
        extractor: FeatureExtractor | None = None,
        device: str = "cpu",
    ) -> PatchCore:
        """A model that `save` wrote, or one bank of a run directory; the index is built anew.

        `category` may be left out where there is one bank; a global bank serves every category. Raises ArtifactError
        for a directory without that bank or with a damaged one, WeightsError when the backbone's weights differ.
        """
        saved = read_model(path)
        bank = GLOBAL_BANK if GLOBAL_BANK in saved.banks else category
        if bank is None and len(saved.banks) == 1:
            bank = next(iter(saved.banks))
        if bank is None:
            raise FedpatchError(f"{path} has the memory banks {', '.join(saved.banks)}; say which category to load")
        rows = saved.bank_rows(bank)
        if extractor is None:
            extractor = load_extractor(saved.backbone, device)
        elif extractor.settings.identity() != saved.backbone.identity():
            raise ArtifactError(
                f"{path} was made with {saved.backbone.identity()}, the given extractor is "
                f"{extractor.settings.identity()}; leave it out, and the right one is made"
            )
        model = cls.of_rows(rows, extractor, saved.inference, category=category if bank == GLOBAL_BANK else bank)
        model.reading = saved.reading
        return model

    @classmethod
    def of_rows(
        cls, rows: np.ndarray, extractor: FeatureExtractor, inference: Inference, *, category: str | None = None
    ) -> PatchCore:
        """A model around a bank that exists, (row, dim), such as the one of a federation."""
        model = cls(extractor)
        model.inference, model.category = inference, category
        model._bank = inference.memory_bank(rows)
        model.statistics = {"bank_rows": len(rows)}
        return model

    def _patches(self, images: Any, *, on_bad_image: Literal["skip", "fail"]) -> Iterator[ImagePatches]:
        inputs = iter_images(
            images, image_size=self.inference.image_size, category=self.category, on_bad_image=on_bad_image
        )
        return iter_patches(self.extractor, inputs)
