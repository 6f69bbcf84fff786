"""Scoring a batch or a watched folder: decisions one after the other, with their files."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_contracts.errors import ArtifactError, FedpatchError
from pipeline_lib.bank.explanation import PatchExplanation
from pipeline_lib.dataset.image_files import LeftOut
from pipeline_lib.inspection.decisions import ImageDecision, decide_image, find_images
from pipeline_lib.inspection.files import table_row, write_pictures
from pipeline_lib.inspection.page import DecisionPage
from pipeline_lib.inspection.pictures import explain
from pipeline_lib.inspection.record import DecisionRecord
from pipeline_lib.inspection.run_model import RunModel

logger = logging.getLogger(__name__)
REMEMBERED = 100_000
"""So many files that are gone a watcher still knows as decided, in case that they, or their directory, come back."""

State = tuple[int, int]
"""Size in bytes and modification time in ns."""


@dataclass
class ScoreSession:
    """One model at work. With `out`, tables, pictures and a page of them go there; with `explained`, images that are
    flagged or close to it are explained."""

    model: RunModel
    category: str | None = None
    out: Path | None = None
    explained: bool = False
    decisions_file: Path | None = None  # where the rows of the last call went
    page_file: Path | None = None  # and what people look at

    def score(self, paths: Iterable[Path]) -> Iterator[ImageDecision]:
        """Decide each image, write its pictures and its row, and the page at the end, however it ends.

        Raises ArtifactError where a row cannot be written.
        """
        with self._open_record() as record:
            for path in paths:
                yield self._decide(path, record)

    def watch(
        self, directory: Path, *, every_seconds: float = 2.0, stop: Callable[[], bool] = lambda: False
    ) -> Generator[ImageDecision, None, None]:
        """Decide images as they appear below a directory, those that are there first; for ever unless `stop` says so.

        A file is taken once its size and time are the same on two looks that are `every_seconds` or more apart,
        whatever the clocks say; one that is written again is scored again. A directory that goes away is waited for.
        The page is written whenever a look's images are decided, and at the end. Raises FedpatchError where the
        directory is not there at the beginning.
        """
        if not directory.is_dir():
            raise FedpatchError(f"there is no directory {directory} to watch")
        folder = _WatchedFolder(directory, self.out, every_seconds)
        with self._open_record() as record:
            while True:
                settled = folder.look()
                for path in settled:
                    yield self._decide(path, record)
                if settled and record is not None:
                    record.write_page()
                if not settled:
                    if stop():
                        return
                    time.sleep(every_seconds)

    @contextmanager
    def _open_record(self) -> Iterator[_RecordAndPage | None]:
        if self.out is None:
            yield None
            return
        record = DecisionRecord(self.out)
        options = [
            *(("--category", self.category) if self.category else ()),
            *(("--explain",) if self.explained else ()),
        ]
        both = _RecordAndPage(record, DecisionPage(record.path, self.model, options))
        self.decisions_file, self.page_file = record.path, both.page.path
        try:
            yield both
        finally:
            both.close()

    def _decide(self, path: Path, record: _RecordAndPage | None) -> ImageDecision:
        decision = decide_image(self.model, path, category=self.category)
        if record is None or self.out is None:
            return decision
        picture, patches = "", []
        if decision.pixels is not None:
            try:
                shows_why = decision.decision == "defective" or decision.is_close
                patches = explain(self.model, decision) if self.explained and shows_why else []
                scale = self.model.colour_scale(str(decision.category), decision.score or 0.0)
                picture = write_pictures(self.out, decision, scale, patches)
            except Exception as error:  # the decision stands without its picture
                logger.warning("no picture of %s: %s", decision.summary()["path"], error)
                note = f"no picture: {error}"
                decision = replace(decision, note=f"{decision.note}; {note}" if decision.note else note)
        record.add(decision, picture, patches)
        return decision


@dataclass(frozen=True)
class _RecordAndPage:
    """The tables, which are the record, and the page, a view of what this call added to them."""

    record: DecisionRecord
    page: DecisionPage

    def add(self, decision: ImageDecision, picture: str, patches: Sequence[PatchExplanation]) -> None:
        row = table_row(decision, picture, patches)
        self.record.add(row)
        height, width = (0, 0) if decision.pixels is None else decision.pixels.shape[:2]
        self.page.add(row, (width, height), patches)

    def write_page(self) -> None:
        """A page that cannot be written costs no decision."""
        try:
            self.page.write(self.record.n_rows)
        except ArtifactError as error:
            logger.warning("%s", error)

    def close(self) -> None:
        try:
            self.write_page()
        finally:
            self.record.close()


@dataclass
class _WatchedFolder:
    """Which files of a directory are new and have settled. Two looks make a file settled."""

    directory: Path
    out: Path | None
    apart_seconds: float
    decided: dict[Path, State] = field(default_factory=dict)  # the one seen last at the end
    waiting: dict[Path, tuple[State, float]] = field(default_factory=dict)  # state, since when
    is_away: bool = False
    is_first: bool = True

    def look(self) -> list[Path]:
        """Files to decide now; each is given once in a state."""
        images = self._images()
        now = time.monotonic()
        before, self.waiting = self.waiting, {}
        settled = []
        for path in images:
            try:
                status = path.stat()
            except OSError:
                continue  # gone again
            state = (status.st_size, status.st_mtime_ns)
            if self.decided.get(path) == state:
                self.decided[path] = self.decided.pop(path)
                continue
            known, since = before.get(path, (None, now))
            if known == state and now - since >= self.apart_seconds:
                self.decided.pop(path, None)
                self.decided[path] = state
                settled.append(path)
            else:
                self.waiting[path] = (state, since if known == state else now)
        for path in list(self.decided)[: max(0, len(self.decided) - len(images) - REMEMBERED)]:
            del self.decided[path]
        return settled

    def _images(self) -> list[Path]:
        left_out = LeftOut()
        try:
            if not self.directory.is_dir():
                raise FedpatchError(f"there is no directory {self.directory}")
            images = find_images([self.directory], out=self.out, left_out=left_out)
        except (FedpatchError, OSError) as error:
            if not self.is_away:
                logger.warning("%s is away and is waited for: %s", self.directory, error)
            self.is_away = True
            return []
        if self.is_away:
            logger.warning("%s is back", self.directory)
        if self.is_first and (line := left_out.describe()):
            logger.warning("%s: %s", self.directory, line)
        self.is_away = self.is_first = False
        return images
