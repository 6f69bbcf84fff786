"""What the steps of one run share: configuration, place, runner and clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from prefect import get_run_logger
from prefect.task_runners import TaskRunner

from data_contracts.config import ExperimentConfig
from data_contracts.settings import Place


class StageClock:
    """Wall time of each stage of a run, in seconds."""

    def __init__(self) -> None:
        self.timings_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block; the same name twice adds up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings_s[name] = round(self.timings_s.get(name, 0.0) + time.perf_counter() - start, 3)


@dataclass
class Run:
    """What the steps of one run share."""

    config: ExperimentConfig
    place: Place
    runner: TaskRunner[Any]
    clock: StageClock = field(default_factory=StageClock)
    _said: list[float] = field(default_factory=lambda: [time.perf_counter()])

    def done(self, what: str) -> None:
        """Log that `what`, such as "features: 3 of 3 clients", is done, with the seconds since the line before.

        The command line shows these where its output is not a terminal (flows/cli/progress.py).
        """
        now = time.perf_counter()
        get_run_logger().info("%s: %s, %.0f s", self.config.name, what, now - self._said[0])
        self._said[0] = now
