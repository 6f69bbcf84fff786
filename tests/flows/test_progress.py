"""Progress in the terminal: what the columns say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flows.cli.progress import RateColumn, show_progress


@pytest.mark.parametrize(("speed", "text"), [(None, ""), (0.0, ""), (12.34, "12.3/s"), (0.05, "3.0/min")])
def test_the_rate_is_in_steps_a_second_or_a_minute(speed: float | None, text: str) -> None:
    task = SimpleNamespace(finished_speed=None, speed=speed)
    assert RateColumn().render(task).plain == text  # type: ignore[arg-type]


def test_nothing_is_shown_where_the_output_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("work") as report:
        report(1, 2)
    assert capsys.readouterr() == ("", "")
