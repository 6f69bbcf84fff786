"""Which steps of several runs are the same, so that they are computed once: by what the stages' cache keys hold.

Keys come from configurations alone. Two runs whose artifacts turn out to have the same bytes although their
configurations differ share more than this says; none shares less, as long as nothing goes wrong.
"""

from __future__ import annotations

from typing import Any

from data_contracts.config import canonical_hash
from data_contracts.settings import (
    AggregationSettings,
    CalibrationSettings,
    CoresetSettings,
    EvaluationSettings,
    ScoringSettings,
    Settings,
)
from pipeline_lib.planning.experiment import ExperimentPlan


class Steps:
    """What was counted before. A run counted alone has no step twice."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def is_new(self, step: str, key: str) -> bool:
        """Whether this step with this key comes up for the first time."""
        is_new = (step, key) not in self._seen
        self._seen.add((step, key))
        return is_new


def index_key(plan: ExperimentPlan) -> str:
    """Index and validation: the data set, sizes, weights of defects."""
    config = plan.config
    dataset, preprocessing = config.dataset.model_dump(mode="json"), config.preprocessing.model_dump(mode="json")
    return canonical_hash([dataset, preprocessing, config.evaluation.defect_weights])


def feature_key(plan: ExperimentPlan, split: str, category: str) -> str:
    """Patch features of one category's training or test images: image by image, whichever client has them."""
    part = (plan.train if split == "train" else plan.test)[category]
    model, dataset = plan.config.model, plan.config.dataset
    backbone = plan.backbone.model_dump(
        mode="json", exclude={"seed", "weights_sha256", "weights_source", "weights_license", "weights_path"}
    )
    seed = plan.config.seed if model.weights == "random" else None
    weights = [model.backbone, model.weights, str(model.weights_path), seed]
    images = [str(dataset.root), dataset.layout, dataset.max_images, split, category, part.resized_px]
    return canonical_hash([backbone, weights, images])


def coreset_key(plan: ExperimentPlan) -> str:
    """The clients' uploads: features, partition, coreset settings; over rounds, also how uploads are merged."""
    config = plan.config
    federated = config.federated
    aside = {"mode", "min_clients", "num_rounds", "coreset_percentage_by_client"}
    who = None if federated.mode == "centralized" else [config.seed, federated.model_dump(mode="json", exclude=aside)]
    rounds = None
    if federated.mode == "federated" and federated.num_rounds > 1:
        rounds = [federated.num_rounds, _values(AggregationSettings.of(config))]
    features = [feature_key(plan, "train", category) for category in plan.train]
    rows = [_values(CoresetSettings.of(config, client.client_id)) for client in plan.clients]
    return canonical_hash([features, who, rows, rounds])


def bank_key(plan: ExperimentPlan) -> str:
    """The banks: uploads and how they are merged; coverage depends on nothing else."""
    alone = plan.config.federated.mode == "local_only"
    return canonical_hash([coreset_key(plan), _values(AggregationSettings.of(plan.config)), alone])


def calibration_key(plan: ExperimentPlan) -> str:
    """Out-of-fold scores of the clients' own images."""
    return canonical_hash([bank_key(plan), _values(CalibrationSettings.of(plan.config)), plan.config.dataset.group])


def score_key(plan: ExperimentPlan) -> str:
    """Anomaly maps and scores of the test images."""
    features = [feature_key(plan, "test", category) for category in plan.test]
    return canonical_hash([bank_key(plan), features, _values(ScoringSettings.of(plan.config))])


def measure_key(plan: ExperimentPlan) -> str:
    """Metrics."""
    settings = _values(EvaluationSettings.of(plan.config))
    dataset = plan.config.dataset
    return canonical_hash([score_key(plan), settings, dataset.on_bad_image, dataset.group])


def _values(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(mode="json")
