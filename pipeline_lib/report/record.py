"""What a report is made of: the documents and frames that a finished run has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from data_contracts.config import ExperimentConfig
from data_contracts.manifests import BankManifest
from data_contracts.results import MetricsDocument
from data_contracts.settings import BackboneSettings
from data_contracts.validation import ValidationReport


@dataclass(frozen=True)
class RunRecord:
    """One finished run, as documents; no images and no maps."""

    config: ExperimentConfig
    backbone: BackboneSettings
    environment: Mapping[str, Any]  # pipeline_lib.configuration.hardware.describe_environment
    documents: Mapping[str, MetricsDocument]  # all | development | report
    curves: pd.DataFrame  # schema CURVES, on all of test
    scores: pd.DataFrame  # schema IMAGE_SCORES
    validation: ValidationReport | None  # None: the images lie at stations, which keep that to themselves
    banks: Sequence[BankManifest] = ()
    partition_stats: Mapping[str, Any] = field(default_factory=dict)  # partition_stats.json
    finished: str = ""  # when, for people

    @property
    def document(self) -> MetricsDocument:
        """The metrics on all of test."""
        return self.documents["all"]
