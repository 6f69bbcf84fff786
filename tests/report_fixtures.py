"""A made-up finished run on a tiny data set: documents, curves, scores and maps, for the tests of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_contracts.config import ExperimentConfig
from data_contracts.manifests import BankManifest
from data_contracts.results import CategoryMetrics, ClientSummary, FederationSummary, MetricsDocument, MetricValues
from data_contracts.settings import BackboneSettings
from data_contracts.tables import CURVES
from data_contracts.validation import Finding, ValidationReport
from pipeline_lib.bank.explanation import Neighbor, PatchExplanation
from pipeline_lib.dataset.index import category_test_table, index_dataset
from pipeline_lib.report.explainer import BankExplainer
from pipeline_lib.report.gallery import CategoryGallery, category_gallery
from pipeline_lib.report.record import RunRecord

BACKBONE = BackboneSettings(
    backbone="efficientnet_lite0",
    layers=("blocks.2", "blocks.4"),
    weights_source="package",
    weights_sha256="ab" * 32,
    weights_path=None,
    seed=1,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    neighborhood_size=3,
)


def values(auroc: float | None = 0.9, *, n_good: int = 40, n_defective: int = 30) -> dict[str, Any]:
    """Fields of MetricValues."""
    return {
        "image_auroc": auroc,
        "image_ap": 0.8,
        "pixel_auroc": 0.95,
        "auc_spro": {"0.01": 0.3, "0.05": 0.6, "0.1": 0.7, "0.3": 0.8, "1.0": 0.9},
        "tpr_at_tnr": {"0.99": 0.5, "0.95": 0.7, "0.9": 0.8},
        "n_good": n_good,
        "n_defective": n_defective,
    }


def document(subset: str, categories: dict[str, dict[str, Any]], **fields: Any) -> MetricsDocument:
    """A metrics document; the mean is made up too."""
    return MetricsDocument(
        experiment="made-up",
        config_hash="0123456789abcdef",
        seed=1,
        subset=subset,
        categories={name: CategoryMetrics(**fields_) for name, fields_ in categories.items()},
        mean=MetricValues(**values()),
        **fields,
    )


def category_fields(**changes: Any) -> dict[str, Any]:
    """Fields of CategoryMetrics with one defect, one folder and one group."""
    split = MetricValues(**values(0.97, n_defective=12))
    fields = {
        **values(),
        "by_defect": {"scratch": split},
        "by_folder": {"scratches": split},
        "by_group": {"structural": split},
        "ci95": {"image_auroc": (0.85, 0.94), "auc_spro_0.05": (0.5, 0.7)},
    }
    return {**fields, **changes}


def curve_rows(category: str) -> pd.DataFrame:
    """An ROC and an sPRO curve."""
    frames = [
        pd.DataFrame({"category": category, "curve": curve, "x": x, "y": x**0.4, "threshold": 1 - x})
        for curve, x in (("roc", np.linspace(0, 1, 9)), ("spro_fpr", np.linspace(0, 1, 21)))
    ]
    return pd.concat(frames, ignore_index=True)[CURVES.names]


class MadeUpExplainer(BankExplainer):
    """Says the same of every image: near a normal patch of the first training image, a lost one, and a client's."""

    def __init__(self, root: Path, category: str) -> None:
        self.path = next((root / category / "train" / "good").glob("*.png"))
        self.category = category

    def explain(self, image_id: str, grid_map: np.ndarray, n_patches: int) -> list[PatchExplanation]:
        name = f"{self.category}/train/good/{self.path.stem}"
        neighbors = (
            Neighbor(5, 2.25, "client_0", name, self.path, (0.4, 0.4)),
            Neighbor(6, 2.5, "client_0", "a/train/good/lost & <gone>", self.path.with_name("lost.png"), (0.4, 0.4)),
            Neighbor(7, 2.75, "client_7"),
        )
        return [PatchExplanation((0.5, 0.5), (1 / 8, 1 / 6), 14.5 - i, neighbors) for i in range(n_patches)]


def made_up_run(
    root: Path, *, threshold: float | None = None, **changes: Any
) -> tuple[RunRecord, list[CategoryGallery]]:
    """The record and the galleries of a run on the data set at `root` (AutoVI layout); fields of the record changed."""
    rng = np.random.default_rng(3)
    index = index_dataset(root, workers=1)
    categories = list(dict.fromkeys(index.category))
    frames, galleries = [], []
    for category in categories:
        rows = category_test_table(index, category)
        maps = (10 + rng.random((len(rows), 6, 8)) + 4 * rng.random((len(rows), 1, 1))).astype(np.float32)
        maps[rows.label_index == 1, 2, 3] += 3 * rng.random(int((rows.label_index == 1).sum())) + 2
        rows["score"] = maps.reshape(len(maps), -1).max(axis=1).astype(np.float64)
        frames.append(rows)
        galleries.append(
            category_gallery(
                maps,
                rows,
                root,
                layout="autovi",
                sigma_px=0,
                n_categories=len(categories),
                explainer=MadeUpExplainer(root, category),
                threshold=threshold,
            )
        )
    federation = FederationSummary(
        mode="federated",
        clients={
            "client_0": ClientSummary(
                train_images=9, patches=5760, coreset_rows=576, upload_bytes=350_208, raw_image_bytes=700_416,
                covering_radius=2.35,
            )
        },
        failed_clients={"client_1": "OSError: camera <offline> & gone"},
        skipped_clients=["client_2"],
        bank_rows=576,
    )  # fmt: skip
    shared: dict[str, Any] = {"federation": federation, "timings_s": {"clients": 12.5, "score": 2.5}}
    fields = {category: category_fields() for category in categories}
    record = {
        "config": ExperimentConfig.model_validate(
            {"name": "made-up", "seed": 1, "federated": {"mode": "federated", "num_clients": 3}}
        ),
        "backbone": BACKBONE,
        "environment": {"python": "3.11", "processor": "a processor", "cores": 2, "packages": {"numpy": "2.4"}},
        "documents": {
            half: document(half, fields, peak_rss_mb=1234.0, warnings=["look <here>"], **shared)
            for half in ("all", "development", "report")
        },
        "curves": pd.concat([curve_rows(category) for category in categories], ignore_index=True),
        "scores": pd.concat(frames, ignore_index=True),
        "validation": ValidationReport(
            root=str(root),
            layout="autovi",
            findings=(
                Finding(
                    severity="warning",
                    code="unreadable_image",
                    category=categories[0],
                    path="a/b&c.png",
                    message="truncated",
                    advice="copy it again",
                ),
            ),
            counts={categories[0]: {"train": {"good": 9}, "test": {"good": 4, "scratch": 3}}},
        ),
        "banks": (
            BankManifest(
                kind="memory_bank",
                path="b.npz",
                sha256="cd" * 32,
                size_bytes=350_208,
                rows=576,
                bank="pipe_clip",
                dim=152,
            ),
        ),
        "partition_stats": {
            "by_category": {categories[0]: 9},
            "clients": {"client_0": {"by_category": {categories[0]: 9}, "js_divergence": 0.25}},
        },
        "finished": "2026-01-02 03:04 UTC",
    }
    return RunRecord(**{**record, **changes}), galleries
