"""What a run's reader is warned of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from data_contracts.config import ExperimentConfig
from data_contracts.defects import AUTOVI_DEFECT_GROUPS
from data_contracts.manifests import IndexedDataset
from data_contracts.results import MetricsDocument
from data_contracts.settings import BackboneSettings
from data_contracts.validation import ValidationReport
from pipeline_lib.dataset.groups.assignment import group_by_image, large_groups
from pipeline_lib.partition.assignment import parted_groups


def run_warnings(
    indexed: IndexedDataset,
    backbone: BackboneSettings,
    failed: dict[str, str],
    skipped: Sequence[str],
    incidents: Sequence[str] = (),
    *,
    search_recall: Mapping[str, float | None] | None = None,
) -> list[str]:
    """What a reader of the figures must know; `incidents` are sentences about uploads that are missing in part."""
    warnings = [
        f"{category}: the approximate search found {recall:.1%} of the nearest rows, on a sample of test patches"
        for category, recall in (search_recall or {}).items()
        if recall is not None
    ]
    if backbone.weights_source == "random":
        warnings.append(f"{backbone.backbone} has random weights: the figures say nothing about a trained backbone")
    if indexed.n_set_aside:
        warnings.append(f"{indexed.n_set_aside} images cannot be read and were set aside; validation.txt lists them")
    for category in sorted(set(indexed.categories) - set(indexed.test_images)):
        warnings.append(f"{category} has no readable test images and is not measured")
    warnings += [f"client {name} failed and is not in the bank: {cause}" for name, cause in failed.items()]
    warnings += [
        f"client {name} has no images and was skipped; a disk that is not mounted looks like that" for name in skipped
    ]
    warnings += incidents
    return warnings


def counted_findings(report: ValidationReport) -> str:
    """How many warnings the validation of the data set has, by kind; empty for none."""
    kinds = Counter(finding.code.replace("_", " ") for finding in report.findings if finding.severity == "warning")
    if not kinds:
        return ""
    total = kinds.total()
    listed = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    return f"Validation of the data set has {total} {'warning' if total == 1 else 'warnings'} ({listed})"


def group_warnings(index: pd.DataFrame, groups: pd.DataFrame, partition: pd.DataFrame) -> list[str]:
    """What groups (IMAGE_GROUPS) make of the figures: some too large, or spread over clients."""
    warnings = large_groups(index, groups)
    if parted := parted_groups(partition, group_by_image(groups)):
        warnings.append(
            f"several clients have images of one group ({len(parted)} groups, such as {parted[0]}): their rows of it "
            "stay in the bank that scores the others, so that thresholds promise too much; "
            "federated.partition_groups: true keeps a group at one client"
        )
    return warnings


def name_warnings(config: ExperimentConfig, categories: Sequence[str], measured: MetricsDocument) -> list[str]:
    """Names of the configuration that stand for nothing in the data set, such as misspelt ones.

    `categories` are those of the data set. A configuration that narrows them may name others, and the groups that are
    the default name AutoVI's defects, whatever the data set.
    """
    warnings = []
    federated, groups = config.federated, config.evaluation.defect_groups
    if federated.partitioning == "category" and federated.mode != "centralized" and config.dataset.categories is None:
        named = {name for names in federated.client_assignments.values() for name in names} - {"all"}
        if unknown := sorted(named - set(categories)):
            warnings.append(
                f"federated.client_assignments names {', '.join(unknown)}, of which there are no images; the "
                f"categories are {', '.join(sorted(categories))}"
            )
    there = {name for values in measured.categories.values() for name in [*values.by_defect, *values.by_folder]}
    if groups != AUTOVI_DEFECT_GROUPS and (unknown := sorted(set(groups) - there)):
        warnings.append(
            f"evaluation.defect_groups names {', '.join(unknown)}, which no test image has; defects and folders are "
            f"{', '.join(sorted(there)) or 'none'}"
        )
    return warnings
