"""Progress in the terminal: what the columns say."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from flows.cli.progress import RateColumn, show_progress

LOCAL = {"send_to_api": False}  # there is no flow run that Prefect could file the line under


@pytest.mark.parametrize(("speed", "text"), [(None, ""), (0.0, ""), (12.34, "12.3/s"), (0.05, "3.0/min")])
def test_the_rate_is_in_steps_a_second_or_a_minute(speed: float | None, text: str) -> None:
    task = SimpleNamespace(finished_speed=None, speed=speed)
    assert RateColumn().render(task).plain == text  # type: ignore[arg-type]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was said, without the time; not what Prefect's threads say of servers of earlier tests."""
    return re.findall(r"^\d\d:\d\d:\d\d (.*)$", capsys.readouterr().err, re.MULTILINE)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock of the lines by so many seconds; nothing sleeps."""
    now = [1000.0]
    monkeypatch.setattr("flows.cli.progress.time", SimpleNamespace(monotonic=lambda: now[0], strftime=time.strftime))

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def test_work_of_a_moment_gives_no_line_and_long_work_few(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with show_progress("images scored") as report:
        for done in range(1, 101):
            clock(1.0)
            report(done, 100)
    assert lines(capsys) == [f"images scored: {done} of 100" for done in (30, 60, 90)]


STAGES = ["iid: features: 3 of 3 clients, 12 s", "iid: coresets: 3 of 3 clients, 4 s", "iid: report, 0 s"]


def test_a_run_gets_a_line_for_each_stage_and_nothing_of_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("prefect.flow_runs")
    with show_progress("iid"):
        for stage in STAGES:
            logger.info("client_0: images extracted: 40 of 80", extra=LOCAL)
            logger.info(stage, extra=LOCAL)
        logger.info("layout autovi, shown by ballscrew/defects_config.json; another: dataset.layout", extra=LOCAL)
    assert lines(capsys) == STAGES


def test_a_benchmark_says_a_stage_only_after_a_while_without_a_line(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("prefect.flow_runs")
    with show_progress("quick", stages_after_s=60.0):
        for stage in STAGES:
            clock(40.0)
            logger.info(stage, extra=LOCAL)
        logger.info("1 of 3 experiments, about 4 min left; last: iid", extra=LOCAL)
    assert lines(capsys) == [STAGES[1], "1 of 3 experiments, about 4 min left; last: iid"]


def test_a_log_gets_a_line_for_each_experiment_and_nothing_of_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("prefect.flow_runs")
    level = logger.level
    with show_progress("work"):
        logger.info("client_0: images extracted: 40 of 80", extra=LOCAL)
        logger.info("1 of 3 experiments, about 4 min left; last: iid_3", extra=LOCAL)
    logger.info("2 of 3 experiments, about 2 min left; last: iid_5", extra=LOCAL)
    assert lines(capsys) == ["1 of 3 experiments, about 4 min left; last: iid_3"]
    assert logger.level == level


def test_quiet_says_nothing_in_a_log_either(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("work", quiet=True):
        logging.getLogger("prefect.flow_runs").info("1 of 3 experiments, about 4 min left; last: iid_3", extra=LOCAL)
    assert lines(capsys) == []
