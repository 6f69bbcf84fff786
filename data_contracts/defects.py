"""`defects_config.json`: what a mask's pixel value stands for, and AutoVI's own names, sizes, counts and groups."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

AUTOVI_SMALL_CATEGORIES = ("engine_wiring", "pipe_clip", "pipe_staple")
AUTOVI_LARGE_CATEGORIES = ("tank_screw", "underbody_pipes", "underbody_screw")
AUTOVI_CATEGORIES = AUTOVI_SMALL_CATEGORIES + AUTOVI_LARGE_CATEGORIES

AUTOVI_COUNTS: dict[str, dict[str, Any]] = {
    "engine_wiring": {
        "train": 285,
        "good": 285,
        "defects": {"fastening": 277, "multiple": 33, "blue_hoop": 5, "cardboard": 5, "obstruction": 2},
    },
    "pipe_clip": {"train": 195, "good": 195, "defects": {"unclipped": 141, "operator": 1}},
    "pipe_staple": {"train": 191, "good": 188, "defects": {"missing": 117}},
    "tank_screw": {"train": 318, "good": 318, "defects": {"missing": 95}},
    "underbody_pipes": {"train": 161, "good": 161, "defects": {"obstruction": 180, "operator": 3, "multiple": 1}},
    "underbody_screw": {"train": 373, "good": 374, "defects": {"missing": 18}},
}
"""Counts on disk of AutoVI 1.0.0 (Zenodo record 10459003). Reported when they differ, never fatal."""

AUTOVI_DEFECT_GROUPS: dict[str, str] = {
    "fastening": "logical",
    "unclipped": "logical",
    "missing": "logical",
    "blue_hoop": "structural",
    "cardboard": "structural",
    "obstruction": "structural",
    "operator": "structural",
}
"""Defect name -> group: an assembly that is wrong is logical, something foreign in view is structural."""


class DefectEntry(BaseModel):
    """One entry of `defects_config.json`. Other keys, such as a severity, are kept in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    defect_name: str = Field(min_length=1)
    pixel_value: int = Field(ge=1, le=255)
    saturation_threshold: float = Field(gt=0)
    relative_saturation: bool

    @field_validator("saturation_threshold")
    @classmethod
    def _finite(cls, value: float) -> float:
        if value == float("inf"):
            raise ValueError("must be finite")
        return value

    def saturation_area_px(self, area_px: int) -> int:
        """Pixels that must be found for a full score, for a channel of `area_px` pixels.

        Relative: int(threshold x area); absolute: min(threshold, area); 1 where that gives 0.
        """
        if self.relative_saturation:
            wanted = int(self.saturation_threshold * area_px)
        else:
            wanted = int(min(self.saturation_threshold, area_px))
        return max(1, min(wanted, area_px))
