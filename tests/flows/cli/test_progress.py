"""Progress in the terminal: what the columns say."""

from __future__ import annotations

import logging
import re
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


def test_nothing_is_shown_where_the_output_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("work") as report:
        report(1, 2)
    assert "work" not in "".join(capsys.readouterr())


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
