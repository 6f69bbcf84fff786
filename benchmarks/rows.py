"""What a benchmark reports, and paired timing: both sides in turn, in one process, under the same conditions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` is peer / fedpatch where more is better, and the value itself where less is."""

    name: str
    peer: str
    ratio_median: float
    ratio_min: float
    repetitions: int
    equal_results: bool
    wanted: float
    direction: Literal["at least", "at most"] = "at least"
    work: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        """Whether the median is what was wanted, with equal results."""
        good = self.ratio_median >= self.wanted if self.direction == "at least" else self.ratio_median <= self.wanted
        return good and self.equal_results

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "reached": self.reached}


@dataclass(frozen=True)
class Pairs:
    """Seconds of both sides, repetition by repetition."""

    own: list[float]
    peer: list[float]

    @property
    def ratios(self) -> list[float]:
        """peer / own of each repetition."""
        return [peer / own for own, peer in zip(self.own, self.peer, strict=True)]

    def row(self, name: str, peer: str, *, wanted: float, equal_results: bool, work: str, **figures: Any) -> Row:
        """The row of these timings."""
        figures = {
            "own_s": round(statistics.median(self.own), 4),
            "peer_s": round(statistics.median(self.peer), 4),
            "own_spread": round(spread(self.own), 2),
            "peer_spread": round(spread(self.peer), 2),
            **figures,
        }
        return Row(
            name=name,
            peer=peer,
            ratio_median=round(statistics.median(self.ratios), 3),
            ratio_min=round(min(self.ratios), 3),
            repetitions=len(self.own),
            equal_results=equal_results,
            wanted=wanted,
            work=work,
            figures=figures,
        )


def spread(times: list[float]) -> float:
    """(largest - smallest) / median."""
    return (max(times) - min(times)) / statistics.median(times)


def seconds(function: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def paired(own: Callable[[], float], peer: Callable[[], float], *, repetitions: int, warm_up: bool = True) -> Pairs:
    """Run both in turn; each returns its seconds (see `seconds`), so that a peer may extrapolate from a part."""
    if warm_up:
        own()
        peer()
    pairs = Pairs([], [])
    for _ in range(repetitions):
        pairs.own.append(own())
        pairs.peer.append(peer())
    return pairs
