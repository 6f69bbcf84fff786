"""How a command reaches Prefect's server: loopback past every proxy, and one line where nothing answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.request import proxy_bypass

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.connection import leave_loopback_out_of_proxies, proxy_of, server_version
from tests.conftest import ROOT

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there
SERVER = f"{NOWHERE}/api"
FEDPATCH = ("-c", "from flows.cli import main; main()")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        for spelled in (name, name.upper()):
            monkeypatch.setenv(spelled, "")  # so that what a test sets is taken back
            monkeypatch.delenv(spelled)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "plant.example, localhost"}, "plant.example,localhost,127.0.0.1,::1"),
        ({"no_proxy": "plant.example"}, "plant.example,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "*"}, "*"),
    ],
)
def test_loopback_is_added_to_what_the_user_has(
    monkeypatch: pytest.MonkeyPatch, name: str, given: dict[str, str], expected: str
) -> None:
    monkeypatch.setenv(name, NOWHERE)
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    for _ in range(2):  # again changes nothing
        leave_loopback_out_of_proxies()
        found = {os.environ.get(variable) for variable in ("NO_PROXY", "no_proxy")}
        assert found - {None} == {expected}
        assert all(proxy_bypass(host) for host in ("127.0.0.1", "localhost", "::1"))


def test_each_spelling_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    monkeypatch.setenv("no_proxy", "one")
    monkeypatch.setenv("NO_PROXY", "two")
    leave_loopback_out_of_proxies()
    assert os.environ["no_proxy"] == "one,127.0.0.1,localhost,::1"
    assert os.environ["NO_PROXY"] == "two,127.0.0.1,localhost,::1"


def test_without_a_proxy_nothing_is_set() -> None:
    leave_loopback_out_of_proxies()
    assert not {"NO_PROXY", "no_proxy"} & os.environ.keys()


def test_the_proxy_of_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_of(SERVER) is None
    monkeypatch.setenv("HTTP_PROXY", "http://someone:secret@proxy.example:3128")
    assert proxy_of(SERVER) == proxy_of("http://plant.example:4200/api") == "proxy.example:3128"
    assert proxy_of("https://plant.example/api") is None
    monkeypatch.setenv("ALL_PROXY", "proxy.example:1080")
    assert proxy_of("https://plant.example/api") == "proxy.example:1080"
    leave_loopback_out_of_proxies()
    assert proxy_of(SERVER) is None
    assert proxy_of("http://plant.example:4200/api") == "proxy.example:3128"


def test_prefects_client_reaches_loopback_past_a_proxy(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    with pytest.raises(httpx.ConnectError):
        server_version()
    leave_loopback_out_of_proxies()
    assert server_version()


def _run(arguments: list[str], tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "PREFECT_HOME": str(tmp_path),
    }
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=tmp_path, env=environment | variables, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [*FEDPATCH, "run", str(ROOT / "configs/demo.yaml")],
        [*FEDPATCH, "benchmark", str(ROOT / "configs/benchmark_quick.yaml")],
        [*FEDPATCH, "demo"],
        ["-m", "flows.automations"],
    ],
    ids=lambda arguments: arguments[-1].rpartition("/")[2],
)
def test_a_server_that_does_not_answer_is_one_line(arguments: list[str], tiny_root: Path, tmp_path: Path) -> None:
    done = _run(arguments, tmp_path, PREFECT_API_URL=SERVER, FEDPATCH_DATASET=str(tiny_root))
    assert done.returncode == 1
    begins = "flows.automations" not in arguments  # which has nothing slow to begin with
    *starting, line = done.stderr.splitlines()
    assert ["starting" in text for text in starting] == [True] * begins
    assert f"PREFECT_API_URL: {SERVER} does not answer: ConnectError" in line
    assert "make serve" in line
    assert "unset it" in line


def test_the_password_of_an_address_is_not_printed() -> None:
    from data_contracts.errors import ServerError
    from flows.connection import refuse_silent_server

    with (
        temporary_settings({PREFECT_API_URL: "http://someone:secret@127.0.0.1:9/api"}),
        pytest.raises(ServerError, match=SERVER) as raised,
    ):
        refuse_silent_server()
    assert "secret" not in str(raised.value)


@pytest.mark.slow
def test_a_run_behind_a_proxy_ends_well(tiny_root: Path, tmp_path: Path) -> None:
    places = [f"dataset.root={tiny_root}", f"runtime.store={tmp_path / 'store'}", "evaluation.bootstrap=0"]
    arguments = [text for place in places for text in ("--set", place)]
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOWHERE)
    done = _run([*FEDPATCH, "run", str(ROOT / "configs/demo.yaml"), *arguments], tmp_path, **proxies)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "run directory" in done.stdout
