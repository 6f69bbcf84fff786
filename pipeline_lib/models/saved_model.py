"""A trained model on disk: its memory banks, and all that is needed to score an image as they were made.

Layout, which is also that of a run directory::

    model.json           backbone, banks (file, SHA-256, rows, dim), how files become pixels and how images are scored
    banks/<bank>.npz     the rows (`features`) of each bank; nothing is pickled, indexes are built anew when loaded

A run directory's model.json says nothing on scoring; its config.yaml does.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from data_contracts.config import PreprocessingConfig
from data_contracts.errors import ArtifactError, WeightsError
from data_contracts.settings import AS_EARLIER, BackboneSettings, Reading, ScoringSettings
from pipeline_lib.bank.memory_bank import MemoryBank
from pipeline_lib.configuration.files import load_run_config
from pipeline_lib.extensions import is_extension
from pipeline_lib.features.backbone import extension_weights_sha256, find_recorded_weights
from pipeline_lib.features.extraction import shared_extractor
from pipeline_lib.features.image_batches import ImageSize
from pipeline_lib.models.model_file import MODEL_FILE, SCHEMA_VERSION, no_model, read_model_file
from pipeline_lib.storage.artifact_store import read_checked, sha256_of_file, write_file
from pipeline_lib.storage.files import safe_name, write_json_file
from pipeline_lib.when_needed import torch

if TYPE_CHECKING:
    from pipeline_lib.features.extractor import FeatureExtractor


@dataclass(frozen=True)
class Inference:
    """How images become scores with a model's banks."""

    scoring: ScoringSettings
    image_size: ImageSize | None  # that pixels are resized to; None: as they are
    smoothing_sigma: float = 0.0  # pixels of the image

    def memory_bank(self, rows: np.ndarray) -> MemoryBank:
        """The searchable bank of float rows (row, dim)."""
        scoring = self.scoring
        return MemoryBank(rows, use_faiss=scoring.use_faiss, search=scoring.search, seed=scoring.seed)


@dataclass(frozen=True)
class SavedModel:
    """What `read_model` found; the rows of a bank are read when asked for."""

    directory: Path
    backbone: BackboneSettings
    inference: Inference
    banks: Mapping[str, Mapping[str, Any]]
    reading: Reading = AS_EARLIER

    def bank_rows(self, bank: str) -> np.ndarray:
        """Rows of one bank, (row, dim). Raises ArtifactError when there is no such bank or its file is not intact."""
        if bank not in self.banks:
            raise ArtifactError(f"{self.directory} has no memory bank {bank!r}; it has {', '.join(sorted(self.banks))}")
        entry = self.banks[bank]
        content = read_checked(self.directory / str(entry["file"]), str(entry["sha256"]), "memory bank")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            rows: np.ndarray = arrays["features"]
        return rows


def write_model(
    directory: Path | str,
    backbone: BackboneSettings,
    inference: Inference,
    banks: Mapping[str, Mapping[str, np.ndarray]],
    reading: Reading = AS_EARLIER,
) -> None:
    """Write a model; `banks` holds the arrays of each bank, `features` (row, dim) among them.

    model.json is written last, each file whole or not at all: a directory with a model.json is complete.
    """
    directory = Path(directory)
    entries = {}
    for bank, arrays in banks.items():
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **dict(arrays))
        write_file(directory / bank_file(bank), buffer.getbuffer())
        rows, dim = arrays["features"].shape
        entries[bank] = {"sha256": hashlib.sha256(buffer.getbuffer()).hexdigest(), "rows": rows, "dim": dim}
    size = inference.image_size
    scored = {
        "scoring": inference.scoring.model_dump(mode="json"),
        "image_size": size.model_dump(mode="json") if isinstance(size, PreprocessingConfig) else size,
        "smoothing_sigma": inference.smoothing_sigma,
    }
    write_model_file(directory, backbone, entries, reading, inference=scored)


def bank_file(bank: str) -> str:
    """Where a bank's rows lie in a model's directory."""
    return f"banks/{safe_name(bank)}.npz"


def write_model_file(
    directory: Path,
    backbone: BackboneSettings,
    banks: Mapping[str, Mapping[str, Any]],
    reading: Reading,
    **more: Mapping[str, Any],
) -> None:
    """Write model.json over files that are there: bank -> its SHA-256, rows and dim; `more`: further sections."""
    entries = {bank: {"file": bank_file(bank), "bank": bank, **entry} for bank, entry in banks.items()}
    described = {
        "backbone": backbone.model_dump(mode="json"),
        "reading": reading.model_dump(),
        "banks": entries,
        **more,
    }
    write_json_file(directory / MODEL_FILE, {"schema_version": SCHEMA_VERSION, **described})


def read_model(directory: Path | str) -> SavedModel:
    """Read a saved model or a run directory. Raises ArtifactError when it is none, naming what is wrong."""
    directory = Path(directory)
    content = read_model_file(directory)
    try:
        backbone = BackboneSettings.model_validate(content["backbone"])
        inference = _inference(content["inference"]) if "inference" in content else _inference_of_run(directory)
        banks = {str(bank): dict(e) for bank, e in content["banks"].items()}
        reading = Reading.model_validate(content.get("reading", {}))  # earlier models have none
        return SavedModel(directory, backbone, inference, banks, reading)
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise no_model(directory / MODEL_FILE, error) from error


def load_extractor(settings: BackboneSettings, device: torch.device | str = "cpu") -> FeatureExtractor:
    """The backbone that a model's banks were made with, wherever its weights lie on this machine.

    Raises WeightsError when they are not there, or are not the same: distances to the bank would mean nothing.
    """
    path = settings.weights_path
    if is_extension(settings.backbone) and extension_weights_sha256(settings) != settings.weights_sha256:
        raise WeightsError(
            f"the memory bank was made with another state of {settings.backbone}; bring its module and weights back, "
            "or train again"
        )
    if path is not None and not path.is_file():
        path = find_recorded_weights(settings)
    if path is not None and (found := sha256_of_file(path)) != settings.weights_sha256:
        raise WeightsError(
            f"the memory bank was made with {settings.backbone} weights of SHA-256 {settings.weights_sha256[:12]}..., "
            f"{path} has {found[:12]}...; put the same file there, or train again with these weights"
        )
    return shared_extractor(settings.model_copy(update={"weights_path": path}), torch.device(device))


def _inference(values: Mapping[str, Any]) -> Inference:
    size = values["image_size"]
    if isinstance(size, dict):
        size = PreprocessingConfig.model_validate(size)
    elif size is not None:
        width, height = size
        size = int(width), int(height)
    return Inference(ScoringSettings.model_validate(values["scoring"]), size, float(values["smoothing_sigma"]))


def _inference_of_run(directory: Path) -> Inference:
    config, _ = load_run_config(directory)
    return Inference(ScoringSettings.of(config), config.preprocessing, config.inference.smoothing_sigma)
