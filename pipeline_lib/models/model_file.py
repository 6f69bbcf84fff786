"""model.json: what makes a directory a trained model, and where the rest of it lies. Read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_contracts.errors import ArtifactError
from data_contracts.results import MetricsDocument

MODEL_FILE = "model.json"
INDEX_FILE = "dataset_index.parquet"
PROVENANCE_DIRECTORY = "provenance"
SCORES_FILE, GROUPS_FILE = "scores.parquet", "groups.parquet"  # of the run's test images; groups with dataset.group
COLOUR_SCALES_FILE = "colour_scales.json"
"""Category -> [low, high] of the colours of its maps in the run's report."""
CURRENT = "current"
"""Of a shelf of models: the link to the one in use."""
SCHEMA_VERSION = 1


def read_model_file(directory: Path) -> dict[str, Any]:
    """What model.json holds. Raises ArtifactError where the directory has none, or one of another kind."""
    path = directory / MODEL_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version is {content['schema_version']}, this version reads {SCHEMA_VERSION}")
    except OSError as error:
        if directory.name == CURRENT and not directory.exists():
            raise ArtifactError(
                f"{directory}: no model is in use yet; fedpatch model promote RUN_DIR puts a finished run there"
            ) from error
        raise ArtifactError(
            f"{directory} holds no trained model: cannot read {path} ({error.strerror}); "
            "give a run directory or what PatchCore.save wrote"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise no_model(path, error) from error
    return content


def read_metrics(directory: Path) -> MetricsDocument | None:
    """metrics.json of a model, where it has one that can be read."""
    try:
        return MetricsDocument.model_validate_json((directory / "metrics.json").read_bytes())
    except (OSError, ValueError):
        return None


def no_model(path: Path, error: Exception) -> ArtifactError:
    """What is said of a model.json that cannot be understood."""
    reason = " ".join(str(error).split())
    return ArtifactError(f"{path} does not describe a trained model ({reason}); train or save it again")
