"""Progress: bars that move in a terminal; elsewhere, as in a nightly run's log, a line for each stage or experiment."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

STEP = re.compile(r"^(?P<what>.+): (?P<done>\d+) of (?P<total>\d+)$")
EXPERIMENT = re.compile(r"^\d+ of \d+ experiments\b")
STAGE = re.compile(r"^.+: .+, \d+ s$")  # as flows/steps/run.py logs the end of one
SELDOM_S = 30.0
LOGGERS = ("prefect.task_runs", "prefect.flow_runs")


class RateColumn(ProgressColumn):
    """Steps a second, or a minute where they are slower than that."""

    def render(self, task: Task) -> Text:
        """`12.3/s`, `4.1/min`, nothing until it is known."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min", style="progress.data.speed")


class _ProgressHandler(logging.Handler):
    """Turns log lines such as `client_0: images extracted: 40 of 80` into bars."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self.progress = progress
        self.bars: dict[str, TaskID] = {}

    def emit(self, record: logging.LogRecord) -> None:
        found = STEP.match(record.getMessage())
        if found:
            self.update(found["what"], int(found["done"]), int(found["total"]))

    def update(self, what: str, done: int, total: int) -> None:
        if what not in self.bars:
            self.bars[what] = self.progress.add_task(what, total=total)
        self.progress.update(self.bars[what], completed=done, total=total, visible=done < total)


class _LineHandler(logging.Handler):
    """Prints how far a run is, with the time, for a log that someone reads in the morning.

    Experiments of a benchmark each; stages after `quiet_s` seconds without a line; other steps seldom.
    """

    def __init__(self, quiet_s: float) -> None:
        super().__init__(logging.INFO)
        self.quiet_s, self.said = quiet_s, time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if EXPERIMENT.match(message) or (STAGE.match(message) and time.monotonic() - self.said >= self.quiet_s):
            self.say(message)

    def update(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self.said >= SELDOM_S:
            self.say(f"{what}: {done} of {total}")

    def say(self, text: str) -> None:
        self.said = time.monotonic()
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextmanager
def _listening(handler: logging.Handler) -> Iterator[None]:
    """What runs log goes to `handler` as well while the block runs."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


@contextmanager
def show_progress(
    title: str, *, quiet: bool = False, stages_after_s: float = 0.0
) -> Iterator[Callable[[int, int], None]]:
    """Show the progress that tasks log while the block runs; yields a callback for progress of the caller's own.

    Without a terminal a stage that ends is said where nothing was for `stages_after_s`, so that many experiments give
    a log that can be read.
    """
    if quiet:
        yield lambda done, total: None
        return
    if not sys.stderr.isatty():
        lines = _LineHandler(stages_after_s)
        with _listening(lines):
            yield lambda done, total: lines.update(title, done, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        handler = _ProgressHandler(progress)
        with _listening(handler):
            yield lambda done, total: handler.update(title, done, total)
