"""Scoring a batch or a watched folder: decisions one after the other, with their files."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_contracts.errors import FedpatchError
from pipeline_lib.inspection.decisions import ImageDecision, decide_image, find_images
from pipeline_lib.inspection.files import table_row, write_pictures, write_table_of_decisions
from pipeline_lib.inspection.pictures import explain
from pipeline_lib.inspection.run_model import RunModel

logger = logging.getLogger(__name__)
SETTLED_SECONDS = 1.0


@dataclass
class ScoreSession:
    """One model at work. With `out`, a table and pictures go there; with `explained`, flagged images are explained."""

    model: RunModel
    category: str | None = None
    out: Path | None = None
    explained: bool = False
    rows: list[dict[str, object]] = field(default_factory=list)

    def score(self, paths: Iterable[Path]) -> Iterator[ImageDecision]:
        """Decide each image, write its pictures; the table is written at the end, also after an interruption."""
        try:
            for path in paths:
                decision = decide_image(self.model, path, category=self.category)
                self.rows.append(self._filed(decision))
                yield decision
        finally:
            if self.out is not None:
                write_table_of_decisions(self.out, self.rows)

    def watch(
        self, directory: Path, *, every_seconds: float = 2.0, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[ImageDecision]:
        """Decide images as they appear below a directory, those that are there first; for ever unless `stop` says so.

        A file is taken once it has not changed for a second, so that one that is still being written waits; one that
        is written again is scored again. Raises FedpatchError where the directory is not there.
        """
        if not directory.is_dir():
            raise FedpatchError(f"there is no directory {directory} to watch")
        seen: dict[Path, tuple[int, int]] = {}
        while True:
            fresh = self._settled(directory, seen)
            if fresh:
                yield from self.score(fresh)
            elif stop():
                return
            else:
                time.sleep(every_seconds)

    @staticmethod
    def _settled(directory: Path, seen: dict[Path, tuple[int, int]]) -> list[Path]:
        found = []
        for path in find_images([directory]):
            try:
                status = path.stat()
            except OSError:
                continue  # gone again
            state = (status.st_size, status.st_mtime_ns)
            if seen.get(path) != state and time.time() - status.st_mtime >= SETTLED_SECONDS:
                seen[path] = state
                found.append(path)
        return found

    def _filed(self, decision: ImageDecision) -> dict[str, object]:
        patches = explain(self.model, decision) if self.explained and decision.decision == "defective" else []
        picture = ""
        if self.out is not None and decision.pixels is not None:
            picture = write_pictures(self.out, decision, patches)
        return table_row(decision, picture, patches)
