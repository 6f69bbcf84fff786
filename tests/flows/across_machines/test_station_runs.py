"""How the coordinator calls stations, on a server that is made up: retry, deadline, missing deployment."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed, Running, Scheduled, State

from flows.across_machines import calls
from flows.across_machines.calls import call_stations


class Server:
    """Runs by idempotency key, and what was set on them."""

    def __init__(self, states: dict[str, State[Any]]) -> None:
        self.states = states
        self.ids: dict[str, UUID] = {}
        self.made: dict[UUID, State[Any]] = {}
        self.set: list[tuple[str, str]] = []
        self.after_retry: State[Any] = Completed()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: Any) -> None:
        return

    def run_deployment(self, name: str, *, parameters: Any, timeout: float, idempotency_key: str) -> Any:
        assert timeout == 0
        station = name.removeprefix("station-client/")
        if station not in self.states:
            raise ObjectNotFound(Exception(name))
        made = self.ids.setdefault(idempotency_key, uuid4())
        self.made.setdefault(made, self.states[station])
        return SimpleNamespace(id=made, state=self.made[made])

    def read_flow_run(self, run: UUID) -> Any:
        return SimpleNamespace(state=self.made[run])

    def set_flow_run_state(self, run: UUID, state: State[Any], *, force: bool) -> None:
        key = next(key for key, made in self.ids.items() if made == run)
        self.set.append((key, state.name or ""))
        self.made[run] = self.after_retry if state.name == "AwaitingRetry" else state


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server({"a": Completed(), "b": Failed(message="camera is off"), "c": Scheduled(), "d": Running()})
    monkeypatch.setattr(calls, "get_client", lambda sync_client: made)
    monkeypatch.setattr(calls, "run_deployment", made.run_deployment)
    monkeypatch.setattr(calls, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(calls, "POLL_SECONDS", 0.01)
    return made


def call(stations: str, *, is_retry: bool = False) -> dict[str, str | None]:
    return call_stations(list(stations), {}, key="run", is_retry=is_retry, deadline_s=0.05)


def test_each_station_that_did_not_deliver_has_its_cause(server: Server) -> None:
    assert call("abcde") == {
        "a": None,
        "b": "camera is off",
        "c": "its run did not start within 0.05 s; is its worker up?",
        "d": "its run was not finished within 0.05 s",
        "e": "there is no deployment station-client/e; deploy it",
    }
    assert server.set == [("run:c", "Cancelled")]


def test_a_retry_runs_failed_stations_again_and_no_other(server: Server) -> None:
    call("abc")
    server.set.clear()
    assert call("abc", is_retry=True) == {"a": None, "b": None, "c": None}
    assert server.set == [("run:b", "AwaitingRetry"), ("run:c", "AwaitingRetry")]
    assert len(server.ids) == 3
