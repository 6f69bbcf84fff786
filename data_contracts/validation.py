"""What a check of a data set found: `fedpatch dataset validate` and the flows' first task."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

FindingCode = Literal[
    "unreadable_image",
    "missing_mask",
    "orphaned_mask",
    "mask_size",
    "mask_value_unknown",
    "mask_empty",
    "mask_fragmented",
    "mask_alpha",
    "mask_soft",
    "mask_inverted",
    "mask_twice",
    "unannotated",
    "equal_stems",
    "good_by_another_name",
    "perhaps_unjudged",
    "saturation_above_area",
    "saturation_zero",
    "duplicate_across_splits",
    "near_copy_across_splits",
    "near_copy_across_halves",
    "large_group",
    "empty_category",
    "no_defects_config",
    "defect_weight_unknown",
    "count_differs",
    "aspect_ratio",
    "few_images",
    "thin_class",
    "value_range",
    "mixed_depth",
    "too_bright",
    "constant_image",
    "train_test_differ",
    "several_pages",
    "mask_orientation",
]


class Finding(BaseModel):
    """One thing about the data set that a person should know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    severity: Severity = Field(description="error: figures would be wrong or missing; warning: look; note: know")
    code: FindingCode
    category: str = ""
    path: str = Field("", description="relative to the data set's root; empty where it is about more than one file")
    message: str
    advice: str = ""


class ValidationReport(BaseModel):
    """All findings, most severe first, and the number of readable images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str
    layout: str
    findings: tuple[Finding, ...] = ()
    counts: dict[str, dict[str, dict[str, int]]] = Field(
        {}, description="category -> split -> label -> readable images"
    )
    mask_channels: dict[str, dict[str, int]] = Field({}, description="category -> defect name -> usable mask channels")

    def count(self, severity: Severity) -> int:
        """Number of findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return self.count("error") == 0
