"""What is kept of each run of a watched benchmark, so that the next one is compared with the last good one."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

RunState = Literal["good", "regressed", "partial", "failed"]


def when(finished: str) -> str:
    """`finished` of a run for people: 2026-01-31 02:10 UTC."""
    return f"{finished[:16].replace('T', ' ')} UTC"


class Record(BaseModel):
    """Base: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class HistoryValue(Record):
    """One experiment's mean over categories and seeds, in [0, 1]."""

    experiment: str
    metric: str
    value: float | None
    ci95: tuple[float, float] | None = None


class Regression(Record):
    """An experiment that is worse than in the last good run."""

    experiment: str
    metric: str
    delta_points: float
    ci95: tuple[float, float] | None = Field(None, description="points, of the paired difference; null: not paired")

    @property
    def text(self) -> str:
        """For people."""
        interval = f" [{self.ci95[0]:+.2f}, {self.ci95[1]:+.2f}]" if self.ci95 else " (below its interval)"
        return f"{self.experiment}: {self.metric} {self.delta_points:+.2f} points{interval}"


class HistoryEntry(Record):
    """One run."""

    schema_version: int = 1
    name: str
    config_hash: str = Field(description="of everything in the benchmark's configuration that can change a figure")
    finished: str = Field(description="UTC, ISO 8601")
    directory: str
    state: RunState
    compared_with: str | None = Field(None, description="`finished` of the last good run of the same configuration")
    note: str = ""
    values: tuple[HistoryValue, ...] = ()
    regressions: tuple[Regression, ...] = ()
