"""Federations over the small made-up data set, and clients that fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_lib.dataset.autovi_dataset import AutoVIDataset
from pipeline_lib.features.extractor import FeatureExtractor
from pipeline_lib.models.client import PatchCoreClient
from pipeline_lib.models.federated_patchcore import FederatedPatchCore
from tests.conftest import experiment_values


def values(**sections: Any) -> dict[str, Any]:
    """The quick configuration of the flow's tests."""
    base = experiment_values(Path("data"), Path("store"), Path("out"), **sections)
    return {name: section for name, section in base.items() if name not in ("dataset", "runtime")}


def federation(extractor: FeatureExtractor, images: AutoVIDataset, **sections: Any) -> FederatedPatchCore:
    made = FederatedPatchCore(values(**sections), extractor=extractor)
    made.setup_clients(images)
    return made


def banks(made: FederatedPatchCore) -> dict[str, np.ndarray]:
    return {bank: merged.rows for bank, merged in made.server.banks.items()}


def same_banks(one: FederatedPatchCore, other: FederatedPatchCore) -> bool:
    left, right = banks(one), banks(other)
    return left.keys() == right.keys() and all(np.array_equal(left[bank], right[bank]) for bank in left)


def failing(monkeypatch: pytest.MonkeyPatch, should_fail: Callable[[PatchCoreClient, int], bool]) -> list[str]:
    """Let a client's round fail where `should_fail` says so; returns the rounds that ran, as client:round."""
    calls: list[str] = []
    original = PatchCoreClient.extract_and_build_coreset

    def wrapped(self: PatchCoreClient, loader: Any, *, round_number: int = 1, **rest: Any) -> Any:
        calls.append(f"{self.client_id}:{round_number}")
        if should_fail(self, round_number):
            raise OSError(5, "Input/output error")
        return original(self, loader, round_number=round_number, **rest)

    monkeypatch.setattr(PatchCoreClient, "extract_and_build_coreset", wrapped)
    return calls
