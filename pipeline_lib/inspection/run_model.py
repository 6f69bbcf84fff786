"""A finished run as a model for new images: banks, thresholds, what training images looked like, and provenance."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.config import DecisionConfig, Promise
from data_contracts.errors import ArtifactError, FedpatchError
from data_contracts.manifests import GLOBAL_BANK
from data_contracts.numbers import require_number
from data_contracts.results import MetricsDocument
from pipeline_lib.dataset.groups.assignment import group_by_image
from pipeline_lib.maps.visualize import Scale, threshold_scale
from pipeline_lib.metrics.decisions import calibrated_threshold
from pipeline_lib.metrics.thresholds import Threshold
from pipeline_lib.models.model_file import (
    COLOUR_SCALES_FILE,
    GROUPS_FILE,
    INDEX_FILE,
    MODEL_FILE,
    PROVENANCE_DIRECTORY,
    SCORES_FILE,
    read_metrics,
)
from pipeline_lib.models.patchcore import PatchCore
from pipeline_lib.models.saved_model import SavedModel, load_extractor, read_model
from pipeline_lib.storage.artifact_store import read_checked


class TrainingSizes(NamedTuple):
    """Of a category's readable training images: smallest sides in pixels, width over height."""

    least_width: int
    least_height: int
    least_aspect: float
    largest_aspect: float


@dataclass
class RunModel:
    """A run directory (or what PatchCore.save wrote), opened. Banks are read when a category is first scored."""

    saved: SavedModel
    categories: tuple[str, ...]
    target_rate: float
    calibration: pd.DataFrame | None  # CALIBRATION_SCORES
    index: pd.DataFrame | None  # DATASET_INDEX
    promise: Promise = "rate"
    fixed_threshold: float | None = None
    device: str = "cpu"
    metrics: MetricsDocument | None = None
    scores: pd.DataFrame | None = None  # IMAGE_SCORES of the run's test images, with their group
    colour_scales: dict[str, Scale] = field(default_factory=dict)  # of the categories in the run's report
    _training_images: dict[str, str] | None = None
    _thresholds: dict[tuple[str, float, Promise], Threshold | None] = field(default_factory=dict, init=False)
    _models: dict[str, PatchCore] = field(default_factory=dict)
    _sizes: dict[str, TrainingSizes | None] = field(default_factory=dict)
    _provenance: dict[str, pd.DataFrame | None] = field(default_factory=dict)
    _row_clients: dict[str, list[str] | None] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """Where the model lies."""
        return self.saved.directory

    def bank_name(self, category: str) -> str:
        """The bank that scores a category. Raises FedpatchError for a category that the model does not know."""
        if category not in self.categories:
            raise FedpatchError(f"{self.directory} knows {', '.join(self.categories)}, not {category}")
        return GLOBAL_BANK if GLOBAL_BANK in self.saved.banks else category

    def patchcore(self, category: str) -> PatchCore:
        """The model of one category."""
        if category not in self._models:
            self.bank_name(category)
            extractor = load_extractor(self.saved.backbone, self.device)
            self._models[category] = PatchCore.load(self.directory, category, extractor=extractor)
        return self._models[category]

    def threshold(self, category: str) -> float | None:
        """Above it an image is defective; None where the model has no calibration scores of the category."""
        if self.fixed_threshold is not None:
            return self.fixed_threshold
        found = self.calibrated(category)
        return None if found is None else found.value

    def calibrated(self, category: str) -> Threshold | None:
        """The threshold with its nominal rate and bound. Raises ConfigError as `decision_threshold` does."""
        if self.calibration is None:
            return None
        asked = (category, self.target_rate, self.promise)
        if asked not in self._thresholds:
            own = self.calibration[self.calibration.category == category]
            wanted = DecisionConfig(target_false_alarm_rate=self.target_rate, promise=self.promise)
            self._thresholds[asked] = calibrated_threshold(own, wanted)
        return self._thresholds[asked]

    def promised(self, category: str) -> str:
        """What a category's threshold promises, in words; empty for one that was given, and without any."""
        found = None if self.fixed_threshold is not None else self.calibrated(category)
        return "" if found is None else self.named(category, found.promise())

    def named(self, category: str, text: str) -> str:
        """What is said of a category, with its name where the model has several."""
        return f"{category}: {text}" if len(self.categories) > 1 else text[:1].upper() + text[1:]

    def shortfalls(self, categories: Iterable[str]) -> list[str]:
        """Of which of the categories the threshold cannot keep the rate that was asked for, and why; a line a cause."""
        of_cause: dict[str, list[str]] = {}
        for category in categories if self.fixed_threshold is None else ():
            if (found := self.calibrated(category)) is not None and (cause := found.shortfall()):
                of_cause.setdefault(cause, []).append(category)
        return [self.named(", ".join(names), cause) for cause, names in of_cause.items()]

    def colour_scale(self, category: str, score: float) -> Scale:
        """The scores of the darkest and lightest colour, for all images of a category: those of the run's report.

        Where it has none, from half the threshold to 1.2 times it; without a threshold from 0 to the image's score.
        """
        if (known := self.colour_scales.get(category)) is not None:
            return known
        threshold = self.threshold(category)
        return threshold_scale(threshold) if threshold else (0.0, max(score, 1e-6))

    def category_of(self, path: Path) -> str:
        """The category that a file belongs to: the only one there is, or the one that a directory above it is named.

        Raises FedpatchError where neither says it.
        """
        if len(self.categories) == 1:
            return self.categories[0]
        for part in reversed(path.absolute().parts[:-1]):
            if part in self.categories:
                return part
        raise FedpatchError(
            f"of which category is it? The model knows {', '.join(self.categories)}; give --category, or put it in a "
            "directory of that name"
        )

    def training_sizes(self, category: str) -> TrainingSizes | None:
        """None where the model does not say."""
        if category not in self._sizes:
            self._sizes[category] = self._read_sizes(category)
        return self._sizes[category]

    def _read_sizes(self, category: str) -> TrainingSizes | None:
        if self.index is None:
            return None
        own = self.index[(self.index.category == category) & (self.index.split == "train") & (self.index.problem == "")]
        if not len(own):
            return None
        aspects = own.width / own.height
        return TrainingSizes(own.width.min(), own.height.min(), aspects.min(), aspects.max())

    def training_image(self, sha256: str) -> str:
        """image_id of the training image whose file has these bytes; empty without one.

        A model of stations has no index, and knows none.
        """
        if self._training_images is None:
            rows = pd.DataFrame() if self.index is None else self.index[self.index.split == "train"]
            self._training_images = {} if rows.empty else dict(zip(rows.sha256, rows.image_id, strict=True))
        return self._training_images.get(sha256, "")

    def provenance(self, category: str) -> pd.DataFrame | None:
        """bank_row, image_id, patch_index of each bank row where the run had all images at one place, else None."""
        if category not in self._provenance:
            path = self.directory / PROVENANCE_DIRECTORY / f"{self._bank_stem(category)}.parquet"
            self._provenance[category] = pq.ParquetFile(path).read().to_pandas() if path.is_file() else None
        return self._provenance[category]

    def row_clients(self, category: str) -> list[str] | None:
        """The client that each bank row came from, where the bank says it."""
        if category not in self._row_clients:
            self._row_clients[category] = self._read_row_clients(category)
        return self._row_clients[category]

    @property
    def of_stations(self) -> bool:
        """Whether its images lie at stations: thresholds are of several clients, and no table lists their images."""
        thresholds = [] if self.index is not None else map(self.calibrated, self.categories)
        return any(found is not None and found.by_client for found in thresholds)

    def _read_row_clients(self, category: str) -> list[str] | None:
        entry = self.saved.banks[self.bank_name(category)]
        with np.load(self.directory / str(entry["file"]), allow_pickle=False) as arrays:
            if "row_client" not in arrays.files:
                return None
            names = [str(name) for name in arrays["client_ids"]]
            return [names[number] for number in arrays["row_client"]]

    def _bank_stem(self, category: str) -> str:
        return Path(str(self.saved.banks[self.bank_name(category)]["file"])).stem


def open_run_model(
    directory: Path | str, *, target_rate: float | None = None, threshold: float | None = None, device: str = "cpu"
) -> RunModel:
    """Open a run directory or a saved PatchCore.

    target_rate replaces the run's own target false-alarm rate; threshold replaces all thresholds. Raises ArtifactError
    for a directory without a model or without a bank, and for calibration scores that were damaged; ConfigError for a
    rate that is not between 0 and 1, a threshold that is not finite, and a rate that the model promises as a bound and
    has too few normal images for.
    """
    if target_rate is not None:
        require_number("the false-alarm rate", target_rate, above=0, below=1)
    if threshold is not None:
        require_number("the threshold", threshold)
    directory = Path(directory)
    saved = read_model(directory)
    if not saved.banks:
        raise ArtifactError(
            f"{directory} has no memory bank of its own, as after a run of local_only (one for each client, below "
            "clients/); new images are scored by a run of federated or centralized"
        )
    content = json.loads((directory / MODEL_FILE).read_bytes())
    entry = content.get("calibration")
    calibration = _calibration(directory, entry) if entry else None
    index_path = directory / INDEX_FILE
    index = pq.ParquetFile(index_path).read().to_pandas() if index_path.is_file() else None
    categories = tuple(saved.banks)
    if GLOBAL_BANK in saved.banks and index is not None:
        categories = tuple(sorted(set(index.category)))
    elif GLOBAL_BANK in saved.banks and calibration is not None and len(calibration):
        categories = tuple(sorted(set(calibration.category)))
    decision = entry or {}
    rate = target_rate if target_rate is not None else float(decision.get("target_false_alarm_rate", 0.05))
    promise = decision.get("promise", "rate")
    model = RunModel(
        saved, categories, rate, calibration, index, promise, threshold, device,
        metrics=read_metrics(directory), scores=_test_scores(directory), colour_scales=_colour_scales(directory),
    )  # fmt: skip
    if target_rate is not None and threshold is None:
        for category in categories:
            model.calibrated(category)  # refuses a bound that the images do not bear
    return model


def _test_scores(directory: Path) -> pd.DataFrame | None:
    """scores.parquet with the group of each image, where the run has one that can be read."""
    try:
        scores: pd.DataFrame = pq.read_table(directory / SCORES_FILE).to_pandas()
        groups = directory / GROUPS_FILE
        group_of = group_by_image(pq.read_table(groups).to_pandas()) if groups.is_file() else {}
    except (OSError, pa.ArrowException):
        return None
    return scores.assign(group=[group_of.get(image_id, image_id) for image_id in scores.image_id])


def _colour_scales(directory: Path) -> dict[str, Scale]:
    try:
        values = json.loads((directory / COLOUR_SCALES_FILE).read_bytes())
        return {str(name): (float(low), float(high)) for name, (low, high) in values.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _calibration(directory: Path, entry: dict[str, str]) -> pd.DataFrame:
    content = read_checked(directory / entry["file"], entry["sha256"], "the table of calibration scores")
    frame: pd.DataFrame = pq.ParquetFile(io.BytesIO(content)).read().to_pandas()
    return frame
