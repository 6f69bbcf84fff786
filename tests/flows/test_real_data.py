"""Real images end to end: a part of each category, through the whole chain, on the offline backbone."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_contracts.results import MetricsDocument
from flows.experiment import federated_experiment
from pipeline_lib.configuration.files import load_config
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


def test_federated_run_on_real_images_finds_defects(real_data: Path, tmp_path: Path) -> None:
    overrides = [
        f"dataset.root={real_data}",
        "dataset.max_images=60",
        "evaluation.bootstrap=100",
        f"runtime.store={tmp_path / 'store'}",
        f"runtime.out={tmp_path / 'run'}",
    ]
    state = federated_experiment(load_config(ROOT / "configs" / "real3_iid.yaml", overrides), return_state=True)
    assert state.is_completed()  # type: ignore[union-attr]
    document = MetricsDocument.model_validate_json((tmp_path / "run" / "metrics.json").read_text())
    assert set(document.categories) == {"ballscrew", "cookie", "magnetic_tile"}
    for category, least_auroc, least_spro in [
        ("ballscrew", 0.80, 0.55),
        ("cookie", 0.85, 0.8),
        ("magnetic_tile", 0.70, 0.4),  # split by tile: no other exposure of a test tile is among the training images
    ]:
        values = document.categories[category]
        assert values.image_auroc is not None
        assert values.image_auroc > least_auroc
        spro = values.auc_spro["0.05"]
        assert spro is not None
        assert spro > least_spro
        assert values.ci95["image_auroc"] is not None
        low, high = values.ci95["image_auroc"]
        assert low <= values.image_auroc <= high
    assert len(document.federation.clients) == 3
    assert document.peak_rss_mb is not None
    assert document.peak_rss_mb < 8 * 1024
