"""A benchmark: one base experiment and named variations of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from data_contracts.config import ExperimentConfig, Section


class BenchmarkConfig(Section):
    """The matrix: every experiment is the base with some keys set, written `section.key: value`."""

    name: str = Field("benchmark", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
    base: ExperimentConfig = ExperimentConfig()
    experiments: dict[str, dict[str, Any]] = Field(
        min_length=1, description="experiment name -> keys that differ, such as {federated.num_clients: 5}"
    )
    baseline: str = Field("centralized", description="the experiment that the others are compared with")
    out: Path | None = Field(None, description="runs/<name>-<timestamp> unless given; one run directory for each below")

    @model_validator(mode="after")
    def _every_experiment_is_valid(self) -> BenchmarkConfig:
        if self.baseline not in self.experiments:
            raise ValueError(f"baseline is {self.baseline!r}, which is not among {', '.join(self.experiments)}")
        self.configs()
        return self

    def configs(self) -> dict[str, ExperimentConfig]:
        """Experiment name -> its whole configuration. Raises ValueError naming the experiment that is not valid."""
        base = self.base.model_dump(mode="json")
        found = {}
        for name, changes in self.experiments.items():
            try:
                found[name] = ExperimentConfig.model_validate({**merge_keys(base, changes), "name": name})
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]
                key = ".".join(str(part) for part in problem["loc"])
                raise ValueError(f"experiment {name}: {key}: {problem['msg']}, got {problem['input']!r}") from error
        return found


def merge_keys(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested `values` with each `a.b: value` of `changes` set."""
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for key, value in changes.items():
        target = merged
        *sections, last = key.split(".")
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ValueError(f"{key}: {section} is not a section")
        target[last] = value
    return merged
